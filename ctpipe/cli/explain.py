"""`ctpipe explain`: its grammar and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ctpipe.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from ctpipe.pipeline import Explanation


def add(verbs: Any, verb_of: Callable[..., Any], store: Callable[[Any], None], json: Callable[[Any], None]) -> None:
    """The command's grammar; `verb_of` and the rest are those of `ctpipe.cli.parser`."""
    verb = verb_of(verbs, "explain", "why a voxel has its label: its windows, scored again by the same code", run, """
ctpipe explain S 7f3a9c 41 230 187               the voxel z y x, in the one run that there is
ctpipe explain S 7f3a9c 41 230 187 --run 4be1
""")  # fmt: skip
    store(verb)
    verb.add_argument("series", metavar="SERIES", help="a volume's id or its beginning")
    for axis in "zyx":
        verb.add_argument(axis, metavar=axis.upper(), type=int, help=f"the voxel's index along {axis}, from 0")
    verb.add_argument("--run", dest="run_key", metavar="RUN", help="a run's key or its beginning (default: the one)")
    json(verb)


def run(args: argparse.Namespace) -> int:
    """One voxel explained."""
    from ctpipe import pipeline

    found = pipeline.explain(args.store, args.series, (args.z, args.y, args.x), args.run_key)
    if args.json:
        print_json(found.as_json())
        return 0
    _print(found)
    return 0


def _print(found: Explanation) -> None:
    z, y, x = found.voxel
    where = ", ".join(f"{axis} {mm:.1f}" for axis, mm in zip("LPS", found.lps_mm, strict=True))
    print(f"voxel {z} {y} {x} of volume {found.series} ({where} mm): {found.hu:g} HU, "
          f"label {found.label} ({found.label_name})")  # fmt: skip
    print(f"plane {z} is instance {found.sop_instance or '-'}")
    print(f"run {found.run}: model {found.model} ({found.recipe}) on {found.device}")
    if found.before:
        relative = f", median {found.before.reference_hu:g} HU" if found.before.reference_hu is not None else ""
        print(f"before it, run {found.before.run}: label {found.before.label} ({found.before.label_name}){relative}")
    level = f" on pyramid level {found.level}" if found.level else ""
    print(f"decided by {len(found.windows)} window(s){level}, scored again here:")
    names = list(found.windows[0].scores)
    print_table(
        ("centre z y x", "window", "share", *names),
        [(_numbers(w.centre), f"{_numbers(w.start)} to {_numbers(w.stop)}", f"{w.share:.3f}",
          *(f"{w.scores[name]:.4f}" if w.evaluated else "not asked" if name == names[0] else "-" for name in names))
         for w in found.windows],
    )  # fmt: skip
    print("the windows give the stored label")


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, values))
