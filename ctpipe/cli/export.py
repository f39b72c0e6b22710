"""`ctpipe export` and `ctpipe send`: their grammar and what they do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from ctpipe.cli.progress import progress_lines
from ctpipe.cli.tables import print_json, print_table

# As ctpipe.export.Kind has them (a test holds them equal): naming them must not load the package.
KINDS = ("seg", "rtstruct", "nifti", "stl", "glb", "csv", "sr", "report")


def add(verbs: Any, verb_of: Callable[..., Any], store: Callable[[Any], None], json: Callable[[Any], None]) -> None:
    """The grammar of both commands; `verb_of` and the rest are those of `ctpipe.cli.parser`."""
    _add_export(verbs, verb_of, store, json)
    _add_send(verbs, verb_of, json)


def _add_export(verbs: Any, verb_of: Callable[..., Any], store: Callable[[Any], None],
                json: Callable[[Any], None]) -> None:  # fmt: skip
    verb = verb_of(verbs, "export", "write labels as DICOM SEG, RTSTRUCT or SR, NIfTI, surfaces, a table, a page",
                   export, """
ctpipe export S 7f3a9c --labels 4be1 --to nifti --out labels.nii.gz
ctpipe export S 7f3a9c --labels 4be1 --to seg --out seg.dcm --source /data/ct     names the true patient
ctpipe export S 7f3a9c --labels truth --to rtstruct --out rs.dcm --source CT.zip
ctpipe export S 7f3a9c --labels 4be1 --to csv --out lesions.csv                   mL, mm and HU of each component
ctpipe export S 7f3a9c --labels 4be1 --to report --out case.html                  one page: planes, 3-D, lesions

A store holds no patient: DICOM objects name the true one where --source gives the files that were ingested, and
pseudonyms without it.
""")  # fmt: skip
    store(verb)
    verb.add_argument("series", metavar="SERIES", help="a volume's id or its beginning")
    verb.add_argument("--labels", required=True, metavar="RUN",
                      help="a run key, the name of other labels, the beginning of one, or truth")  # fmt: skip
    verb.add_argument("--to", required=True, choices=KINDS, help="what to write")
    verb.add_argument("--out", required=True, metavar="PATH",
                      help="the file; STL adds -CLASS where there are several classes, SR a SEG beside it")  # fmt: skip
    verb.add_argument("--source", nargs="+", metavar="DICOM",
                      help="the files that were ingested, as ingest takes them (for seg, rtstruct and sr)")  # fmt: skip
    verb.add_argument("--form", choices=["binary", "labelmap"], default="binary",
                      help="of a SEG: a mask for each class, or one map of labels, which fewer readers know (default: "
                           "binary)")  # fmt: skip
    verb.add_argument("--codes", metavar="FILE.toml", help="coded terms of classes, before those that ship")
    verb.add_argument("--smooth", type=float, default=0.0, metavar="MM",
                      help="of a surface: smooth it by so many mm, which takes away what is thinner")  # fmt: skip
    json(verb)


def _add_send(verbs: Any, verb_of: Callable[..., Any], json: Callable[[Any], None]) -> None:
    verb = verb_of(verbs, "send", "send DICOM files to a PACS (C-STORE) or a DICOMweb server (STOW-RS)", send, """
ctpipe send seg.dcm --to pacs://ORTHANC@pacs.example.org:4242              says what would be sent
ctpipe send seg.dcm --to pacs://ORTHANC@pacs.example.org:4242 --yes        sends it
ctpipe send out/ --to dicomweb+https://pacs.example.org/dicom-web --yes
""")  # fmt: skip
    verb.add_argument("paths", metavar="PATH", nargs="+", help="DICOM files, folders, archives")
    verb.add_argument("--to", required=True, metavar="URL",
                      help="pacs://AET@HOST:PORT, pacs+tls://… or dicomweb+https://HOST/ROOT")  # fmt: skip
    verb.add_argument("--yes", action="store_true", help="send; without it nothing leaves this machine")
    json(verb)


def export(args: argparse.Namespace) -> int:
    """Files of labels."""
    from ctpipe import pipeline

    with progress_lines() as progress:
        report = pipeline.export(args.store, args.series, args.labels, args.to, args.out, source=args.source,
                                 form=args.form, codes=args.codes, smooth_mm=args.smooth,
                                 progress=progress)  # fmt: skip
    document = report.as_json()["exports"][0]
    if args.json:
        print_json(document)
        return report.exit_code
    print_table(("class", "voxels"), list(document["voxels"].items()))
    for path in document["files"]:
        print(f"written: {path}")
    for note in document["notes"]:
        print(f"note: {note}")
    _print_naming(document["references"])
    return report.exit_code


def _print_naming(references: str | None) -> None:
    told = {
        "originals": "it names the patient and the instances of the source",
        "kept UIDs": "it names the true instances and a pseudonym for the patient; --source names the patient too",
        "pseudonyms": "it names pseudonyms: no PACS will find the patient or the CT; --source names them",
    }
    if references is not None:
        print(f"references: {told[references]}")


def send(args: argparse.Namespace) -> int:
    """What was sent, or would be."""
    from ctpipe import dicom

    with progress_lines() as progress:
        report = dicom.send(args.paths, args.to, yes=args.yes, progress=progress)
    document = report.as_json()
    if args.json:
        print_json(document)
        return report.exit_code
    rows = [(file["number"], file["kind"], file["bytes"], "pseudonyms" if file["pseudonyms"] else "a patient",
             file["state"]) for file in document["files"]]  # fmt: skip
    print_table(("file", "kind", "bytes", "names", "state"), rows)
    if not report.sent:
        print(f"nothing was sent; to send to {document['to']}, add --yes")
    elif report.refused:
        print(f"ctpipe: {len(report.refused)} of {len(rows)} files were refused; cure: see the reasons above",
              file=sys.stderr)  # fmt: skip
    return report.exit_code
