"""Arrange: what the three explicit options make of planes that are no even, rectangular stack.

The default of each is to refuse. What an option takes is never silent: it stands in the notes, and `options_used` names
the faults that it overruled. A shift within the plane that is not linear is never taken, nor are too few planes.

::

    on_step_change  split           cut the stack where its spacing changes; each part is judged alone, as below
    on_gap          keep-positions  gap, uneven-spacing: every plane stays; the affine has the mean step
    on_tilt         resample        gantry-tilt: planes are shifted within themselves onto a rectangular grid
                    keep            gantry-tilt: planes stay as they are; the affine is sheared
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np

from ctpipe.dicom.deshear import Deshear, deshear_of
from ctpipe.dicom.geometry import Stack, grid_of, position_tolerance, stack_faults
from ctpipe.dicom.steps import step_changes
from ctpipe.errors import UsageError
from ctpipe.volume import Grid

Fault = tuple[str, str]

WORDS: dict[str, tuple[str, ...]] = {  # allowed words of each option; the first is the default
    "on_gap": ("reject", "keep-positions"),
    "on_tilt": ("reject", "resample", "keep"),
    "on_step_change": ("reject", "split"),
}
UNEVEN = frozenset({"gap", "uneven-spacing"})
MAX_GROWTH = 4.0  # a resampled plane has at most this many times the voxels of its source


@dataclass(frozen=True)
class Options:
    """What may be done with a series that is not plainly right; by default nothing."""

    on_gap: str = "reject"
    on_tilt: str = "reject"
    on_step_change: str = "reject"

    def __post_init__(self) -> None:
        for option in fields(self):
            allowed = WORDS[option.name]
            if getattr(self, option.name) not in allowed:
                name = "--" + option.name.replace("_", "-")
                raise UsageError(f"{name} has a word it does not know", f"give {name} one of: {', '.join(allowed)}")


@dataclass(frozen=True)
class Arrangement:
    """One volume to be of a stack, or why it is none.

    indices: its planes, numbered in the stack. grid: None where there are faults. deshear: how each plane is brought
    onto the grid, None where planes lie on it as they are. faults: (reason, detail) that no option takes.
    options_used: reason codes of faults that an option overruled, none where the planes are plainly right. notes: one
    line on each thing done. uneven: planes stand at their own positions, the grid has only the mean step.
    """

    indices: tuple[int, ...]
    grid: Grid | None
    deshear: Deshear | None
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()
    options_used: tuple[str, ...] = ()
    uneven: bool = False


def arrange(
    stack: Stack,
    rows: int,
    columns: int,
    pixel_spacing: tuple[float, float],
    frame_of_reference: str | None,
    options: Options,
) -> list[Arrangement]:
    """The volumes that a stack makes under `options`, lowest first; every plane is in exactly one of them.

    stack: ascending along its normal. rows, columns, pixel_spacing (between rows, between columns; mm): of its planes.
    With the default options this is one arrangement: the faults of `stack_faults`, or the grid of `grid_of`.
    """
    overruled = [reason for reason, _ in stack_faults(stack) if reason in UNEVEN]
    splits = bool(overruled) and options.on_step_change == "split"
    parts = _parts(stack) if splits else [range(len(stack.positions))]
    found = []
    for number, part in enumerate(parts, start=1):
        one = _judged_alone(_part_of(stack, part), (rows, columns), pixel_spacing, frame_of_reference, options)
        if len(parts) > 1:
            note = _split_note(stack, part, f"part {number} of {len(parts)}")
            used = tuple(dict.fromkeys([*overruled, *one.options_used]))
            one = replace(one, notes=(note, *one.notes), options_used=used)
        found.append(replace(one, indices=tuple(part)))
    return found


def _parts(stack: Stack) -> list[range]:
    """The planes of each run of one spacing, or all planes where cuts would leave any part uneven for other reasons."""
    n = len(stack.positions)
    cuts = step_changes(stack.heights, position_tolerance(stack))
    parts = [range(start, stop) for start, stop in pairwise([0, *cuts, n])]
    # A part may still have gaps, for which it is refused alone. Anything else is disorder, not a change of spacing.
    disorder = any(reason == "uneven-spacing" for part in parts for reason, _ in stack_faults(_part_of(stack, part)))
    return [range(n)] if disorder else parts


def _part_of(stack: Stack, part: range) -> Stack:
    return replace(stack, positions=stack.positions[part.start : part.stop])


def _split_note(stack: Stack, part: range, which: str) -> str:
    usual = float(np.median(np.diff(_part_of(stack, part).heights)))
    planes = f"planes {part.start + 1} to {part.stop} of {len(stack.positions)}"
    return f"step change: split, this is {which}: {planes}, {usual:.4g} mm apart"


def _judged_alone(
    stack: Stack,
    size: tuple[int, int],
    pixel_spacing: tuple[float, float],
    frame_of_reference: str | None,
    options: Options,
) -> Arrangement:
    """All planes of a stack as one volume under the options for gaps and tilt."""
    faults: list[Fault] = []
    notes: list[str] = []
    used: list[str] = []
    deshear, rectangular, uneven = None, None, False
    for reason, detail in stack_faults(stack):
        if reason in UNEVEN and options.on_gap == "keep-positions":
            uneven = True
            notes.append(f"positions: kept, planes are not evenly spaced, the affine has their mean step ({detail})")
        elif reason == "gantry-tilt" and options.on_tilt == "keep":
            notes.append(f"tilt: kept, not resampled, the affine is sheared ({detail})")
        elif reason == "gantry-tilt" and options.on_tilt == "resample":
            rectangular, deshear = deshear_of(stack, *size, pixel_spacing, frame_of_reference)
            growth = deshear.canvas[0] * deshear.canvas[1] / (size[0] * size[1])
            if growth > MAX_GROWTH:
                faults.append((reason, f"{detail}; to resample them each would grow {growth:.3g} times, too far"))
                continue
            notes.append(f"tilt: resampled, planes were shifted by up to {_farthest_mm(stack):.3g} mm ({detail})")
        else:
            faults.append((reason, detail))
            continue
        used.append(reason)
    if faults:
        return Arrangement((), None, None, tuple(faults))
    grid = rectangular or grid_of(stack, *size, pixel_spacing, frame_of_reference)
    return Arrangement((), grid, deshear, (), tuple(notes), tuple(used), uneven)


def _farthest_mm(stack: Stack) -> float:
    """How far the planes lie from the first one's place within their plane, mm."""
    offsets = stack.positions - stack.positions[0]
    axes = np.array([stack.orientation[:3], stack.orientation[3:]]).T
    return float(np.linalg.norm(offsets @ axes, axis=1).max())
