"""The grammar of the command line. Each --help teaches by example; nothing heavy is imported here."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ctpipe import __version__
from ctpipe.cli import commands, compare, explain, export, models, patches, post

Run = Callable[[argparse.Namespace], int]
VERBS = ("check", "ingest", "listen", "ls", "train", "infer", "evaluate", "review", "demo", "verify", "gc", "rm",
         "models", "explain", "compare", "patches", "post", "export", "send", "doctor", "deploy")  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """One line for a wrong argument, with the cure; exit 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; cure: see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; `run` is the function of the chosen command. A wrong argument ends with exit code 2."""
    parser = _parser()
    words = sys.argv[1:] if argv is None else argv
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, 1)
        parser.error(f"no command {words[0]!r}" + (f", did you mean {near[0]}?" if near else ""))
    return parser.parse_args(words)


def _parser() -> _Parser:
    parser = _Parser(
        prog="ctpipe",
        description="CT series to OME-Zarr, patch tables, batched inference, labelled volumes, review in napari.",
        epilog="start with:  ctpipe demo        then, with your own data:\n"
        "  ctpipe check FOLDER                                  what is there, and is it right?\n"
        "  ctpipe ingest FOLDER --store S                       DICOM -> store\n"
        "  ctpipe ls S                                          what the store holds\n"
        "  ctpipe patches build S                               a row for every window, with class shares\n"
        "  ctpipe train S --recipe demo --out MODEL             truth labels -> model\n"
        "  ctpipe infer S --model MODEL                         model -> predictions\n"
        "  ctpipe post S --run RUN --steps STEPS                components, holes, distances, votes\n"
        "  ctpipe evaluate S --run RUN                          predictions against truth\n"
        "  ctpipe explain S SERIES Z Y X                        why a voxel has its label\n"
        "  ctpipe review S                                      a worklist in napari: read, accept, correct\n"
        "  ctpipe export S SERIES --labels RUN --to seg --out FILE   SEG, RTSTRUCT, NIfTI, STL, tables",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ctpipe {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_check, _ingest, _listen, _ls, _train, _infer, _evaluate, _review, _demo, _verify, _gc, _rm, _models,
                _explain, _compare, _patches, _post, _export, _doctor, _deploy):  # fmt: skip
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, help_line: str, run: Run, examples: str) -> Any:
    verb = verbs.add_parser(
        name, help=help_line, description=help_line[0].upper() + help_line[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verb.set_defaults(run=run)
    return verb


def _json(verb: Any) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else there")


def _store(verb: Any) -> None:
    default = os.environ.get("CTPIPE_STORE")
    verb.add_argument("store", metavar="STORE", nargs="?" if default else None, default=default,
                      help="the store's folder (default: $CTPIPE_STORE)")  # fmt: skip


def _options(verb: Any) -> None:
    verb.add_argument("--on-gap", choices=["reject", "keep-positions"], default="reject",
                      help="uneven or missing planes: keep each at its own position (default: reject)")  # fmt: skip
    verb.add_argument("--on-tilt", choices=["reject", "resample", "keep"], default="reject",
                      help="gantry tilt: shift planes onto a rectangular grid, or keep the sheared affine (default: "
                           "reject)")  # fmt: skip
    verb.add_argument("--on-step-change", choices=["reject", "split"], default="reject",
                      help="spacing that changes along the series: make a volume of each part of at least 3 planes "
                           "(default: reject)")  # fmt: skip


def _cluster(verb: Any) -> None:
    verb.add_argument("--cluster", metavar="ADDRESS",
                      help="a Dask scheduler, tcp://127.0.0.1:8786 or tls://HOST:PORT (default: $CTPIPE_CLUSTER, else "
                           "this machine's cores)")  # fmt: skip


def _check(verbs: Any) -> None:
    verb = _verb(verbs, "check", "judge every CT series under the given paths; writes nothing", commands.check, """
ctpipe check /data/ct                 folders at any depth, files, .zip and .tar archives
ctpipe check study.zip --json         reasons and cures for a script
ctpipe check study.zip --planes       the ledger plane by plane: position, rescale, exposure, digest
""")  # fmt: skip
    verb.add_argument("paths", metavar="DICOM", nargs="+",
                      help="folders, files, archives, or URLs of a bucket, a DICOMweb server or a PACS")  # fmt: skip
    verb.add_argument("--planes", action="store_true", help="the ledger of every accepted volume plane by plane")
    _options(verb)
    _cluster(verb)
    _json(verb)


def _ingest(verbs: Any) -> None:
    verb = _verb(verbs, "ingest", "take every plainly right CT series into a store, with truth labels if given",
                 commands.ingest, """
ctpipe ingest /data/ct --store S
ctpipe ingest PATIENT_DICOM.zip --store S --labels MASKS_DICOM.zip --classes liver=1,livertumor=2
ctpipe ingest CT.zip --store S --labels CT_mask.nii.gz --classes lesion=1:CT_mask
ctpipe ingest CT.zip --store S --labels RS.zip --classes FILE.toml
ctpipe ingest 'dicomweb+https://pacs.example.org/dicom-web/studies/1.2.3' --store S
ctpipe ingest s3://bucket/ct --store S --on-tilt resample
ctpipe ingest 'pacs://ORTHANC@pacs.example.org:4242?StudyInstanceUID=1.2.3' --store S

CLASSES is NAME=LABEL[:STRUCTURE[+STRUCTURE...]],...; a name takes the structure of that name, also followed by digits
(livertumor takes livertumor01). Where masks overlap, the class later in the list wins.
""")  # fmt: skip
    verb.add_argument("paths", metavar="DICOM", nargs="+",
                      help="folders, files, archives, or URLs of a bucket, a DICOMweb server or a PACS; DICOM is found "
                           "by content, a NIfTI or NRRD volume only where it is named itself")  # fmt: skip
    verb.add_argument("--store", required="CTPIPE_STORE" not in os.environ, default=os.environ.get("CTPIPE_STORE"),
                      help="the store's folder, made if it is absent (default: $CTPIPE_STORE)")  # fmt: skip
    verb.add_argument("--labels", nargs="+", metavar="PATH",
                      help="mask series, NIfTI or NRRD label volumes, DICOM SEG or RTSTRUCT")  # fmt: skip
    verb.add_argument("--classes", help="which structure becomes which label: a list, or a .toml file")
    _options(verb)
    verb.add_argument("--keep-uids", action="store_true", help="keep DICOM UIDs instead of pseudonyms")
    _cluster(verb)
    _json(verb)


def _listen(verbs: Any) -> None:
    verb = _verb(verbs, "listen", "receive CT that scanners and archives send (C-STORE), and ingest it",
                 commands.listen, """
ctpipe listen --store S                                             this machine only
ctpipe listen --store S --host 192.0.2.7 --from SCANNER1 ORTHANC    those AE titles, on that address
""")  # fmt: skip
    verb.add_argument("--store", required="CTPIPE_STORE" not in os.environ, default=os.environ.get("CTPIPE_STORE"),
                      help="the store's folder, made if it is absent (default: $CTPIPE_STORE)")  # fmt: skip
    verb.add_argument("--host", default="127.0.0.1", help="our address to listen on (default: 127.0.0.1)")
    verb.add_argument("--port", type=int, default=11112, help="default: 11112")
    verb.add_argument("--aet", default="CTPIPE", metavar="TITLE", help="our AE title (default: CTPIPE)")
    verb.add_argument("--from", dest="calling", nargs="+", default=[], metavar="TITLE",
                      help="AE titles that may send; needed with --host")  # fmt: skip
    verb.add_argument("--quiet-for", type=float, default=30.0, metavar="SECONDS",
                      help="a series is whole when nothing came for so long (default: 30)")  # fmt: skip
    verb.add_argument("--spool", metavar="DIR",
                      help="private folder for what comes in (default: one of the user's own)")  # fmt: skip
    verb.add_argument("--once", action="store_true", help="end when something came and all of it was taken")


def _ls(verbs: Any) -> None:
    verb = _verb(verbs, "ls", "list the committed volumes of a store and their labels", commands.ls, """
ctpipe ls S
ctpipe ls S --json
""")  # fmt: skip
    _store(verb)
    _json(verb)


def _train(verbs: Any) -> None:
    verb = _verb(verbs, "train", "train a recipe's model on the truth labels of a store", commands.train, """
ctpipe train S --recipe demo --out MODEL
ctpipe train S --recipe my.toml --out MODEL --validate p-1f3a p-77c0     choose the validation patients
ctpipe train S --recipe demo --out MODEL2 --with-reviews                 corrections count as truth
""")  # fmt: skip
    _store(verb)
    verb.add_argument("--recipe", required=True, metavar="NAME|FILE", help="a shipped recipe or a .toml file")
    verb.add_argument("--out", required=True, metavar="MODEL", help="folder for the model, its curve and its spec")
    verb.add_argument("--patients", nargs="+", metavar="PATIENT", help="use only these (pseudonyms, see ctpipe ls)")
    verb.add_argument("--validate", nargs="+", metavar="PATIENT",
                      help="these choose the best epoch (default: one of them); none: take the last epoch")  # fmt: skip
    verb.add_argument("--with-reviews", action="store_true",
                      help="the newest review of a volume counts as its truth; what was corrected is drawn more often")
    _json(verb)


def _infer(verbs: Any) -> None:
    verb = _verb(verbs, "infer", "predict volumes with a model; finished runs are skipped, half-done ones go on",
                 commands.infer, """
ctpipe infer S --model MODEL
ctpipe infer S --model MODEL --series 7f3a9c 02bd11       unambiguous beginnings will do
ctpipe infer S --model MODEL --plan                       what it would cost, and whether it fits
ctpipe infer S --model MODEL --uncertainty                and how unsure the model is of each volume
ctpipe infer S --model MODEL --layers entropy             and at each voxel, kept beside the labels
ctpipe infer S --model MODEL --layers probabilities entropy spread
""")  # fmt: skip
    _store(verb)
    verb.add_argument("--model", required=True, metavar="MODEL",
                      help="folder made by ctpipe train or ctpipe models import")
    verb.add_argument("--series", nargs="+", metavar="ID", help="only these volumes")
    verb.add_argument("--device", choices=["cpu", "cuda"], default="cpu",
                      help="what forward passes run on, part of the run key (default: cpu)")
    verb.add_argument("--exact", choices=["auto", "required"], default="auto",
                      help="required: refuse a classifier that would have to run window by window (default: auto)")
    verb.add_argument("--uncertainty", action="store_true",
                      help="also note how unsure the model is of each volume: the order of the next worklist")
    verb.add_argument("--layers", nargs="+", choices=["probabilities", "entropy", "spread"], default=[],
                      help="also keep, in steps of 1/255 at each voxel: the probability of each class, the entropy of "
                           "the probabilities, their standard deviation over folds; of runs that are there, only these")
    verb.add_argument("--plan", action="store_true",
                      help="do nothing: tell windows, FLOPs, memory, tasks and time, without layers; exit 4 where it "
                           "does not fit")
    _cluster(verb)
    _json(verb)


def _evaluate(verbs: Any) -> None:
    verb = _verb(verbs, "evaluate", "hold predictions against truth: Dice, IoU, precision, recall, lesions",
                 commands.evaluate, """
ctpipe evaluate S --run 4be1                  a run, or a model's digest for all its runs
ctpipe evaluate S --run 4be1 --html case.html  and a page with pictures
""")  # fmt: skip
    _store(verb)
    verb.add_argument("--run", dest="runs", required=True, nargs="+", metavar="RUN", help="run keys or model digests")
    verb.add_argument("--truth", default="truth", help="label group to hold against (default: the newest truth)")
    verb.add_argument("--html", metavar="FILE", help="write a self-contained page of the first volume")
    _json(verb)


def _review(verbs: Any) -> None:
    verb = _verb(verbs, "review", "a worklist in napari: read, accept or correct; corrections are saved as labels",
                 commands.review, """
ctpipe review S                        the case that is due: not decided yet, the least certain first
ctpipe review S --sort volume --class lesion --status todo   the largest lesions first
ctpipe review S 7f3a9c                 this volume
ctpipe review S 7f3a9c --labels 4be1   correct this prediction
ctpipe review S 7f3a9c --live          look on while ctpipe infer runs
ctpipe review S --list                 print the worklist, open no window
""")  # fmt: skip
    _store(verb)
    verb.add_argument("series", metavar="SERIES", nargs="?", help="a volume's id or its beginning")
    verb.add_argument("--reviewer", metavar="PSEUDONYM",
                      help="who decides and corrects; stored with it (default: of review.toml, else reader)")
    verb.add_argument("--sort", metavar="ORDER",
                      help="due, uncertainty, disagreement, dice, volume, status, patient (default: of review.toml, "
                      "else due)")
    verb.add_argument("--class", dest="class_name", metavar="NAME", help="whose Dice or volume --sort goes by")
    verb.add_argument("--status", help="only cases that are todo, accepted, corrected, rejected or flagged")
    verb.add_argument("--blinded", action="store_true", default=None,
                      help="show no truth, no Dice, nothing of other reviewers")
    verb.add_argument("--live", action="store_true",
                      help="show the slabs done so far of runs under way, read only, until they commit")
    verb.add_argument("--labels", metavar="NAME",
                      help="labels to correct (default: the copy under way, else newest review, prediction, truth)")
    verb.add_argument("--list", action="store_true",
                      help="print the worklist and end; computes and keeps Dice and volumes that lack")
    _json(verb)


def _demo(verbs: Any) -> None:
    verb = _verb(verbs, "demo", "synthetic patients through the whole line, in minutes on two cores", commands.demo, """
ctpipe demo                  into ./demo
ctpipe demo DIR --seed 7     other patients
""")  # fmt: skip
    verb.add_argument("folder", metavar="DIR", nargs="?", default="demo", help="where to write (default: ./demo)")
    verb.add_argument("--seed", type=int, default=0, help="which patients (default: 0)")
    _json(verb)


def _verify(verbs: Any) -> None:
    verb = _verb(verbs, "verify", "read every byte of a store and name what is rotten or missing", commands.verify, """
ctpipe verify S
""")  # fmt: skip
    _store(verb)
    _json(verb)


def _gc(verbs: Any) -> None:
    verb = _verb(verbs, "gc", "remove what was never committed and whose writer is gone", commands.gc, """
ctpipe gc S --dry-run
ctpipe gc S
""")  # fmt: skip
    _store(verb)
    verb.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def _rm(verbs: Any) -> None:
    verb = _verb(verbs, "rm", "remove a volume with all that was derived from it, or one run", commands.rm, """
ctpipe rm S 7f3a9c
ctpipe rm S 4be1/entropy      one layer of a run; its labels stay
""")  # fmt: skip
    _store(verb)
    verb.add_argument("target", metavar="SERIES|RUN",
                      help="a volume's id or a label group's name, or its beginning; RUN/LAYER for one layer")


def _models(verbs: Any) -> None:
    models.add(verbs, _verb, _json)


def _patches(verbs: Any) -> None:
    patches.add(verbs, _verb, _store, _cluster, _json)


def _explain(verbs: Any) -> None:
    explain.add(verbs, _verb, _store, _json)


def _compare(verbs: Any) -> None:
    compare.add(verbs, _verb, _store, _json)


def _post(verbs: Any) -> None:
    post.add(verbs, _verb, _store, _cluster, _json)


def _export(verbs: Any) -> None:
    export.add(verbs, _verb, _store, _json)


def _doctor(verbs: Any) -> None:
    verb = _verb(verbs, "doctor", "say what is missing on this machine, and the cure", commands.doctor, """
ctpipe doctor
""")  # fmt: skip
    _json(verb)


def _deploy(verbs: Any) -> None:
    verb = _verb(verbs, "deploy", "put the flows on a Prefect server and run them", commands.deploy, """
ctpipe deploy up                                             make the work pool and the deployments
ctpipe deploy run ingest --param source=/data/ct --param store=S   run the one deployment of a flow
ctpipe deploy status
""")  # fmt: skip
    verb.add_argument("action", choices=["up", "run", "status"])
    verb.add_argument("flow", nargs="?", metavar="FLOW",
                      help="ingest, train, infer, post, evaluate, patches or export (for run)")  # fmt: skip
    verb.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="VALUE is text or JSON")
    verb.add_argument("--watch", action="store_true", help="wait for the end; exit code 3 when the flow fails")
    _json(verb)
