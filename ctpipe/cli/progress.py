"""Progress on stderr: stage, done of total, rate and time left; quiet lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Without a terminal, one line a stage so often, in seconds.
QUIET_STEP_S = 10.0


@contextmanager
def progress_lines() -> Iterator[Callable[[str, int, int], None]]:
    """A `progress(stage, done, total)` that draws one bar for each stage, with rate and ETA, and removes nothing."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), rate, TimeElapsedColumn(),
               TextColumn("eta"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, rate="")
            task = tasks[stage]
            speed = bars.tasks[task].speed  # type: ignore[call-overload]
            bars.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")  # type: ignore[arg-type]

        yield report


class _Lines:
    """The same for a log file: the first and last of a stage, and one every ten seconds."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.told: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        began = self.began.setdefault(stage, now)
        if not total:
            return
        if done < total and now - self.told.get(stage, began) < QUIET_STEP_S:
            return
        self.told[stage] = now
        passed = now - began
        rate = done / passed if passed > 0.05 else 0.0
        speed = f", {rate:.1f}/s" if rate else ""
        eta = f", eta {(total - done) / rate:.0f} s" if rate and done < total else ""
        print(f"{stage}: {done}/{total}{speed}, {passed:.0f} s{eta}", file=sys.stderr, flush=True)
