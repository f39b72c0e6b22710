"""What `ctpipe infer --plan` prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ctpipe.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from ctpipe.pipeline.plans import InferPlan

MIB = 1 << 20


def show(plan: InferPlan, as_json: bool) -> int:
    """The plan on stdout, why it cannot be done on stderr; its exit code."""
    if as_json:
        print_json(plan.as_json())
    else:
        _print(plan)
    if plan.refusal:
        print(f"ctpipe: this does not fit: {plan.refusal}", file=sys.stderr)
    return plan.exit_code


def _print(plan: InferPlan) -> None:
    rows = [(series.series, one.run, one.recipe, one.state, f"{'<= ' if one.at_most else ''}{one.windows}",
             f"{one.flops / 1e9:.1f}", one.tasks, f"{one.peak_bytes / MIB:.0f}", f"{one.seconds:.1f}")
            for series in plan.series for one in series.passes]  # fmt: skip
    totals = plan.totals
    rows.append(("all", "", "", "", str(totals["windows"]), f"{totals['flops'] / 1e9:.1f}", totals["tasks"],
                 f"{totals['peak_bytes'] / MIB:.0f}", f"{totals['seconds']:.1f}"))  # fmt: skip
    print_table(("volume", "run", "recipe", "state", "windows", "GFLOP", "tasks", "peak MiB", "seconds"), rows)
    for series in plan.series:
        if series.fault:
            print(f"volume {series.series} cannot be done: {series.fault}")
    print(f"{plan.workers} task(s) at a time, {plan.memory_bytes / MIB:.0f} MiB of memory; "
          f"about {totals['disk_bytes'] / MIB:.1f} MiB of labels, {plan.disk_free_bytes / MIB:.0f} MiB free")
    for told in plan.calibration:
        what = "plane" if "plane_seconds" in told else "window"
        print(f"model {told['model']}: one {what} took {told[f'{what}_seconds']:.3f} s here, "
              f"{2 * told['multiply_adds_per_second'] / 1e9:.1f} GFLOP/s")  # fmt: skip
