"""`ctpipe post`: its grammar and what it does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from ctpipe.cli import commands
from ctpipe.cli.progress import progress_lines
from ctpipe.cli.tables import print_json, print_table


def add(verbs: Any, verb_of: Callable[..., Any], store: Callable[[Any], None], cluster: Callable[[Any], None],
        json: Callable[[Any], None]) -> None:
    """The command's grammar; `verb_of` and the rest are those of `ctpipe.cli.parser`."""
    verb = verb_of(verbs, "post", "clean the labels of a run into labels of their own; the run's stay as they are",
                   run, """
ctpipe post S --run 4be1 --steps "largest=liver; fill=liver; inside=lesion:liver:5; min-mm3=lesion:30"
ctpipe post S --run 4be1 --steps "smooth=liver:2"

STEPS run in order, each on what the one before left; CLASSES is a name, or several as liver+lesion:
  largest=CLASSES            keep the largest component
  min-mm3=CLASSES:MM3        drop components below so many cubic millimetres
  fill=CLASSES               background that they enclose becomes the first of them
  inside=CLASSES:ORGAN:MM    drop voxels further than MM from the organ with its holes filled
  near=CLASSES:ORGAN:MM      drop components that come nowhere within MM of the organ
  smooth=CLASSES:MM          a majority vote within a ball of radius MM
  crf=CLASSES:MM:HU          mean-field CRF; MM and HU say how far, and how alike, neighbours count
""")  # fmt: skip
    store(verb)
    verb.add_argument("--run", dest="runs", required=True, nargs="+", metavar="RUN", help="run keys or model digests")
    verb.add_argument("--steps", required=True, metavar="STEPS", help="what to do, in order (see below)")
    verb.add_argument("--drop-raw", action="store_true", help="then remove the labels of the runs themselves")
    cluster(verb)
    json(verb)


def run(args: argparse.Namespace) -> int:
    """Post-processed labels of runs."""
    from ctpipe import pipeline

    with progress_lines() as progress, commands._client(args.cluster) as client:
        report = pipeline.post_process(args.store, args.runs, args.steps, client, drop_raw=args.drop_raw,
                                       progress=progress)
    for series, fault in report.failed.items():
        print(f"ctpipe: volume {series} failed: {fault}", file=sys.stderr)
    if args.json:
        print_json(report.as_json())
        return report.exit_code
    rows = [(one.series, one.run, one.parent, sum(one.changed.values()), f"{one.seconds:.1f}",
             "was there" if one.known else f"{one.resumed} slab(s) kept" if one.resumed else "new")
            for one in report.runs]  # fmt: skip
    print_table(("volume", "run", "made of", "voxels changed", "seconds", "state"), rows)
    if report.runs:
        print(f"next: ctpipe evaluate {args.store} --run {report.runs[0].run}   or   ctpipe review {args.store}")
    return report.exit_code
