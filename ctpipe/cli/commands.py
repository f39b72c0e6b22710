"""What each command does: one call of the library, one table or JSON document, an exit code.

Heavy imports stand inside the functions: `ctpipe --help` must not wait for torch, Prefect or napari.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ctpipe.cli import plans
from ctpipe.cli.progress import progress_lines
from ctpipe.cli.tables import print_json, print_table
from ctpipe.errors import UsageError

_NO_FILES = "ctpipe: there are no files under the given paths; cure: name the folder that holds the DICOM files"


def check(args: argparse.Namespace) -> int:
    """Verdicts of everything under the paths."""
    from ctpipe import pipeline

    with progress_lines() as progress, _client(args.cluster) as client:
        verdicts = pipeline.check(args.paths, progress, **_chosen(args), client=client)
    document = pipeline.check_json(verdicts, planes=args.planes)
    if args.json:
        print_json(document)
    else:
        _print_ledgers(document["volumes"])
        _print_verdicts(document["volumes"], document["summary"])
    summary = document["summary"]
    if not document["volumes"]:
        print(_NO_FILES, file=sys.stderr)
    taken = summary["accept"] + summary["repair"]
    return 3 if summary["reject"] or not taken else 0


def ingest(args: argparse.Namespace) -> int:
    """Take volumes and truth labels into a store."""
    from ctpipe import pipeline

    with progress_lines() as progress, _client(args.cluster) as client:
        report = pipeline.ingest(args.paths, args.store, labels=args.labels, classes=args.classes,
                                 keep_uids=args.keep_uids, client=client, progress=progress,
                                 **_chosen(args))  # fmt: skip
    document = report.as_json()
    if args.json:
        print_json(document)
    else:
        _print_verdicts(document["volumes"], document["summary"])
        _print_labels(document)
    if not report.volumes:
        said = "ctpipe: nothing was accepted; cure: see the reasons above, or ctpipe check"
        print(said if document["volumes"] else _NO_FILES, file=sys.stderr)
    return report.exit_code


def _chosen(args: argparse.Namespace) -> dict[str, str]:
    """What to do with series that are not plainly right."""
    return {"on_gap": args.on_gap, "on_tilt": args.on_tilt, "on_step_change": args.on_step_change}


def listen(args: argparse.Namespace) -> int:
    """Ingest what is sent to us, series by series, until interrupted."""
    from pathlib import Path

    from ctpipe import dicom, pipeline
    from ctpipe.errors import InputError
    from ctpipe.store import open_store

    store = open_store(args.store, mode="a")

    def take(folders: list[Path]) -> None:
        report = pipeline.ingest(folders, store)
        document = report.as_json()
        _print_verdicts(document["volumes"], document["summary"])
        sys.stdout.flush()
        if document["summary"]["reject"]:
            raise InputError(f"{document['summary']['reject']} volume(s) rejected", "see the reasons above")

    dicom.listen(args.spool or _spool_of(store.root), take, args.host, args.port, args.aet, args.calling,
                 args.quiet_for, args.once, lambda line: print(f"ctpipe: {line}", file=sys.stderr))  # fmt: skip
    return 0


def _spool_of(store: Any) -> Any:
    """A folder of the user's own for what is received for a store; never beside the data."""
    from hashlib import sha256

    from platformdirs import user_state_path

    return user_state_path("ctpipe") / "spool" / sha256(os.path.realpath(store).encode()).hexdigest()[:16]


def _print_ledgers(volumes: Sequence[dict[str, Any]]) -> None:
    told = [(volume["series"] or "-", volume["ledger"]) for volume in volumes if volume["ledger"]]
    if told:
        rows = [(series, t["planes"], _span(t["step_mm"]), _few(t["slope"]), _few(t["intercept"]),
                 _span(t["exposure_mas"])) for series, t in told]  # fmt: skip
        print_table(("ledger of series", "planes", "step mm", "slope", "intercept", "exposure mAs"), rows)
        print()
    for series, ledger in told:
        for note in ledger["notes"]:
            print(f"{series}: {note}")
        if "rows" in ledger:
            print_table(
                ("plane", "instance", "L mm", "P mm", "S mm", "slope", "intercept", "mAs", "pixels (SHA-256)"),
                [(row["plane"], row["sop_instance"], row["position_l"], row["position_p"], row["position_s"],
                  f"{row['slope']:g}", f"{row['intercept']:g}", "-" if row["exposure"] is None else row["exposure"],
                  row["source_digest"][:16]) for row in ledger["rows"]],
            )  # fmt: skip
            print()


def _span(ends: Sequence[float] | None) -> str:
    if ends is None:
        return "-"
    return f"{ends[0]:g}" if ends[0] == ends[1] else f"{ends[0]:g} to {ends[1]:g}"


def _few(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) if len(values) <= 3 else f"{len(values)} values"


def _print_verdicts(volumes: list[dict[str, Any]], summary: dict[str, int]) -> None:
    for verdict in ("accept", "repair", "reject"):
        chosen = [v for v in volumes if v["verdict"] == verdict]
        if chosen:
            rows = [(v["verdict"], v.get("id", v["series"] or "-"), v["files"], _shape(v["shape"]), v["reason"] or "-")
                    for v in chosen]  # fmt: skip
            print_table(("verdict", "volume", "files", "shape", "reason"), rows)
            print()
    for volume in volumes:
        if volume["verdict"] == "reject":
            print(f"rejected ({volume['reason']}): {volume['detail']}; cure: {volume['cure']}")
    aside: dict[str, int] = {}
    for volume in volumes:
        if volume["verdict"] == "set-aside":
            aside[volume["reason"]] = aside.get(volume["reason"], 0) + volume["files"]
    if aside:
        print("set aside: " + ", ".join(f"{n} file(s) {reason}" for reason, n in sorted(aside.items())))
    print("summary: " + ", ".join(f"{n} {kind}" for kind, n in summary.items()))


def _shape(shape: Sequence[int] | None) -> str:
    return "x".join(map(str, shape)) if shape else "-"


def _print_labels(document: dict[str, Any]) -> None:
    for label in document["labels"]:
        if label["verdict"] == "accept":
            voxels = ", ".join(f"{name} {n}" for name, n in label["voxels"].items())
            print(f"labels of {label['series']}: {label['name']} (voxels: {voxels})")
        else:
            print(f"labels {label['verdict']} ({label['reason']}): {label['detail']}; cure: {label['cure']}")
    if document["unused_structures"]:
        names = document["unused_structures"]
        print(f"structures that no class takes: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}")


def ls(args: argparse.Namespace) -> int:
    """The committed volumes and their labels."""
    from ctpipe.store import open_store

    store = open_store(args.store)
    volumes: list[dict[str, Any]] = [
        {
            "id": series.id,
            "patient": series.patient,
            "shape": list(series.grid.shape),
            "spacing": [round(mm, 6) for mm in series.grid.spacing_mm],
            "grid_id": series.grid.grid_id,
            "labels": {
                name: {"kind": str(labels.kind), "classes": {str(k): v for k, v in labels.classes.items()}}
                | ({"layers": list(labels.layers)} if labels.layers else {})
                for name, labels in series.labels.items()
            },
        }
        for series in store.values()
    ]
    if args.json:
        print_json(volumes)
        return 0
    rows = [
        (v["id"], v["patient"], _shape(v["shape"]), " ".join(f"{mm:.3g}" for mm in v["spacing"]),
         " ".join(store[v["id"]].grid.letters),
         ", ".join(f"{name} ({', '.join((label['kind'], *label.get('layers', ())))})"
                   for name, label in v["labels"].items()) or "-")
        for v in volumes
    ]  # fmt: skip
    print_table(("volume", "patient", "shape z y x", "spacing mm", "axes to", "labels"), rows)
    print(f"{len(volumes)} volume(s)")
    return 0


def train(args: argparse.Namespace) -> int:
    """A model from truth labels."""
    from ctpipe import pipeline

    validate = [] if args.validate == ["none"] else args.validate
    with progress_lines() as progress:
        report = pipeline.train_model(args.store, args.recipe, args.out, patients=args.patients, validate=validate,
                                      with_reviews=args.with_reviews, progress=progress)  # fmt: skip
    document = report.as_json()
    if args.json:
        print_json(document)
        return 0
    by = f"best epoch {report.best_epoch} by {len(report.validation_patients)} validation patient(s)"
    chosen = by if report.validation_patients else f"the last epoch, {report.best_epoch}"
    reviews = f", {len(report.reviews)} volume(s) as reviewed" if report.reviews else ""
    print(f"model {report.digest} in {report.model}: {len(report.train_patients)} patient(s){reviews}, {chosen}")
    if report.scores:
        print_table(("class", "validation Dice"), list(report.scores.items()))
    print(f"next: ctpipe infer {args.store} --model {args.out}")
    return 0


def infer(args: argparse.Namespace) -> int:
    """Runs over volumes."""
    from ctpipe import pipeline

    how = {"exact": args.exact, "device": args.device}
    if args.plan:
        with _client(args.cluster) as client:
            plan = pipeline.infer(args.store, args.model, args.series, client, plan=True, **how)
            return plans.show(plan, args.json)
    with progress_lines() as progress, _client(args.cluster) as client:
        report = pipeline.infer(args.store, args.model, args.series, client, **how, uncertainty=args.uncertainty,
                                layers=args.layers, progress=progress)  # fmt: skip
    for series, fault in report.failed.items():
        print(f"ctpipe: volume {series} failed: {fault}", file=sys.stderr)
    if args.json:
        print_json(report.as_json())
        return report.exit_code
    rows = [(run.series, run.run, run.windows, run.slabs, f"{run.seconds:.1f}",
             "was there" if run.known else f"{run.resumed} slab(s) kept" if run.resumed else "new",
             *([] if run.uncertainty is None else [f"{run.uncertainty:.4f}"]),
             *([", ".join(run.layers)] if args.layers else []))
            for run in report.runs]  # fmt: skip
    last = (*(("uncertainty",) if args.uncertainty else ()), *(("layers",) if args.layers else ()))
    print_table(("volume", "run", "windows", "slabs", "seconds", "state", *last), rows)
    if report.runs:
        print(f"next: ctpipe evaluate {args.store} --run {report.runs[0].run}   or   ctpipe review {args.store}")
    return report.exit_code


def evaluate(args: argparse.Namespace) -> int:
    """Scores of runs against truth."""
    from ctpipe import pipeline
    from ctpipe.scoring import summary_lines

    report = pipeline.evaluate(args.store, args.runs, args.truth)
    if args.html:
        pipeline.write_case_page(args.store, report, args.html)
    if args.json:
        print_json(report.as_json())
        return 0
    header, *rows = summary_lines(*report.series.values())
    print_table(header, rows)
    return 0


def review(args: argparse.Namespace) -> int:
    """The viewer, until its window is closed; or the worklist as text."""
    from ctpipe.review import review as open_viewer
    from ctpipe.review import review_live
    from ctpipe.review.case_making import checked_reviewer
    from ctpipe.review.cases import order_named, status_named
    from ctpipe.store import open_store

    open_store(args.store)  # a wrong path is told before a missing viewer is
    if args.reviewer is not None:
        checked_reviewer(args.reviewer)
    if args.sort is not None:
        order_named(args.sort)
    if args.status is not None:
        status_named(args.status)
    if args.list:
        return _list_cases(args)
    if args.json:
        raise UsageError("--json prints the worklist, and a window was asked for", "add --list, or leave --json out")
    if args.live:
        if args.labels:
            raise UsageError("--live shows runs under way, which have no labels to correct", "leave --labels out")
        review_live(args.store, args.series)
        return 0
    open_viewer(args.store, args.series, labels=args.labels, reviewer=args.reviewer, order=args.sort,
                class_name=args.class_name, status=args.status, blinded=args.blinded)  # fmt: skip
    return 0


def _list_cases(args: argparse.Namespace) -> int:
    """The worklist; exit code 3 where a part of it could not be read."""
    from ctpipe.review.cases import COLUMNS, order_named, status_named
    from ctpipe.review.listing import list_cases
    from ctpipe.review.settings import load_settings

    if args.series or args.labels or args.live:
        raise UsageError("--list prints all cases", "leave SERIES, --labels and --live out")
    wished = load_settings()
    status = None if args.status is None else status_named(args.status)
    with progress_lines() as progress:
        cases, notes = list_cases(
            args.store, args.reviewer or wished.reviewer, order=order_named(args.sort or wished.sort),
            class_name=args.class_name, status=status, blinded=args.blinded or wished.blinded, progress=progress,
        )  # fmt: skip
    for note in notes:
        print(f"ctpipe: {note}", file=sys.stderr)
    if args.json:
        print_json({"cases": [case.as_json() for case in cases], "notes": notes})
    else:
        print_table(COLUMNS, [case.cells(args.class_name) for case in cases])
    return 3 if notes else 0


def demo(args: argparse.Namespace) -> int:
    """The whole line on synthetic patients."""
    from ctpipe.demo import run_demo

    with progress_lines() as progress:
        result = run_demo(args.folder, seed=args.seed, progress=progress)
    if args.json:
        print_json(result.as_json())
    else:
        header, *rows = result.summary()
        print_table(header, rows)
        for line in result.next_lines():
            print(line)
    return 0


def verify(args: argparse.Namespace) -> int:
    """Every byte of a store, read and checked."""
    from ctpipe.store import open_store
    from ctpipe.store import verify as verify_store

    report = verify_store(open_store(args.store))
    if args.json:
        print_json(report)
    else:
        for fault in report["faults"]:
            print(f"fault: volume {fault['volume']}, array {fault['array']}, shard {fault['shard']}: {fault['what']}")
        print(f"checked {report['checked']} files, {report['bytes'] / 2**20:.1f} MiB: {len(report['faults'])} fault(s)")
    return 3 if report["faults"] else 0


def gc(args: argparse.Namespace) -> int:
    """Remove what was never committed."""
    from ctpipe.store import collect_garbage, open_store

    removed = collect_garbage(open_store(args.store, mode="a"), dry_run=args.dry_run)
    for path in removed:
        print(path)
    print(f"{len(removed)} {'would be' if args.dry_run else ''} removed".replace("  ", " "))
    return 0


def rm(args: argparse.Namespace) -> int:
    """Remove a volume or a run with all that was derived from it."""
    from ctpipe.store import open_store, remove

    removed = remove(open_store(args.store, mode="a"), args.target)
    for path in removed:
        print(path)
    print(f"{len(removed)} removed; copies and backups outside the store are not reached")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """What is missing on this machine."""
    from ctpipe.doctor import examine

    findings = examine()
    if args.json:
        print_json([finding.as_json() for finding in findings])
    else:
        print_table(("what", "state", "found", "cure"),
                    [(f.what, "ok" if f.ok else "missing", f.found, f.cure) for f in findings])  # fmt: skip
    return 3 if any(finding.needed and not finding.ok for finding in findings) else 0


def deploy(args: argparse.Namespace) -> int:
    """Deployments on a Prefect server: up, run, status."""
    from ctpipe import deploy as deployments

    if args.action == "up":
        document: Any = deployments.up()
    elif args.action == "status":
        document = deployments.status()
    else:
        if not args.flow:
            raise UsageError("deploy run needs a flow", "ctpipe deploy run ingest --param source=... --param store=...")
        document = deployments.run(args.flow, _parameters(args.param), watch=args.watch,
                                   note=lambda text: print(text, file=sys.stderr))  # fmt: skip
    if args.json:
        print_json(document)
    else:
        for line in deployments.lines(document):
            print(line)
    return int(document.get("exit_code", 0)) if isinstance(document, dict) else 0


def _parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; a value that is JSON is taken as such, else as text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--param {key!r} has no value", "write --param KEY=VALUE")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """A client of the cluster that was named, or None: the stage then decides (few tasks run in this process)."""
    if not (address or os.environ.get("CTPIPE_CLUSTER")):
        yield None
        return
    from ctpipe.cluster import client_for

    with client_for(0, address=address) as client:
        yield client
