"""`ctpipe compare`: its grammar and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ctpipe.cli.tables import print_json, print_table


def add(verbs: Any, verb_of: Callable[..., Any], store: Callable[[Any], None], json: Callable[[Any], None]) -> None:
    """The command's grammar; `verb_of` and the rest are those of `ctpipe.cli.parser`."""
    verb = verb_of(verbs, "compare", "two label sets of a volume: what agrees, and what became of each lesion", run, """
ctpipe compare S 7f3a9c truth 4be1          the truth, and a run
ctpipe compare S 7f3a9c review-02 review-7d  two readers
""")  # fmt: skip
    store(verb)
    verb.add_argument("series", metavar="SERIES", help="a volume's id or its beginning")
    for name, which in (("before", "that are held against"), ("after", "that are compared with them")):
        verb.add_argument(name, metavar="LABELS", help=f"labels {which}: a run key, another name, its beginning, truth")
    json(verb)


def run(args: argparse.Namespace) -> int:
    """Both sets, class by class, then lesion by lesion."""
    from ctpipe import pipeline

    document = pipeline.compare(args.store, args.series, args.before, args.after).as_json()
    if args.json:
        print_json(document)
        return 0
    rows = [(name, _number(one["dice"], 3), _number(one["before_ml"], 2), _number(one["after_ml"], 2))
            for name, one in document["classes"].items()]  # fmt: skip
    print_table(("class", "Dice", "before mL", "after mL"), rows)
    print()
    print_table(("lesion of", "became", "before", "after", "mL", "long axis mm", "plane"),
                [_row(one) for one in document["lesions"]])  # fmt: skip
    return 0


def _row(change: dict[str, Any]) -> tuple[str, ...]:
    sides = [", ".join(str(one["component"]) for one in change[side]) or "-" for side in ("before", "after")]
    largest = max(change["after"] or change["before"], key=lambda one: one["ml"])
    long = change["change_long_mm"]
    return (change["class"], change["fate"], *sides, f"{change['change_ml']:+.2f}",
            "-" if long is None else f"{long:+.1f}", str(largest["plane"]))  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
