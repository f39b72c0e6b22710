"""The steps of post-processing as plain values, and the text that names them.

::

    largest=liver; fill=liver; inside=lesion:liver:5; min-mm3=lesion:30

Steps run in the order they stand in, each on the labels that the one before left. CLASS is a class's name; where a step
takes CLASSES, `liver+lesion` means both as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ctpipe.errors import NotThereError, UsageError


@dataclass(frozen=True)
class Largest:
    """largest=CLASSES: voxels outside the largest 26-connected component become background; of equals the first stays.

    The first component is the one whose first voxel comes first in C order.
    """

    name: ClassVar[str] = "largest"
    classes: tuple[str, ...]


@dataclass(frozen=True)
class MinVolume:
    """min-mm3=CLASSES:MM3: 26-connected components smaller than `mm3` cubic millimetres become background."""

    name: ClassVar[str] = "min-mm3"
    classes: tuple[str, ...]
    mm3: float


@dataclass(frozen=True)
class Fill:
    """fill=CLASSES: background inside the classes takes the first of them.

    Inside is what scipy.ndimage.binary_fill_holes closes around them in 3-D: no way to the border of the volume over
    faces of voxels. Other classes in a hole stay what they are.
    """

    name: ClassVar[str] = "fill"
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Inside:
    """inside=CLASSES:ORGAN:MM: voxels further than `mm` from the organ, its holes filled, become background.

    What lies deep within the organ is in a hole of it and stays.
    """

    name: ClassVar[str] = "inside"
    classes: tuple[str, ...]
    organ: tuple[str, ...]
    mm: float


@dataclass(frozen=True)
class Near:
    """near=CLASSES:ORGAN:MM: whole 26-connected components with no voxel within `mm` of the organ become background."""

    name: ClassVar[str] = "near"
    classes: tuple[str, ...]
    organ: tuple[str, ...]
    mm: float


@dataclass(frozen=True)
class Smooth:
    """smooth=CLASSES:MM: a majority vote within a ball of radius `mm`, among these classes and background.

    Each voxel of them takes the label that most such voxels of the ball have; of equal counts its own stays, then the
    lowest wins. Voxels of other classes neither vote nor change, and nothing beyond the volume votes.
    """

    name: ClassVar[str] = "smooth"
    classes: tuple[str, ...]
    mm: float


@dataclass(frozen=True)
class Crf:
    """crf=CLASSES:MM:HU: mean-field CRF among these classes and background (postprocess.mean_field).

    mm, hu: standard deviations of the pairwise kernel in space and in HU.
    """

    name: ClassVar[str] = "crf"
    classes: tuple[str, ...]
    mm: float
    hu: float


Step = Largest | MinVolume | Fill | Inside | Near | Smooth | Crf
KINDS: dict[str, type[Step]] = {
    kind.name: kind for kind in (Largest, MinVolume, Fill, Inside, Near, Smooth, Crf)
}  # fmt: skip
_WORDS = {"classes": "CLASSES", "organ": "ORGAN", "mm": "MM", "mm3": "MM3", "hu": "HU"}


def parse_steps(text: str) -> tuple[Step, ...]:
    """The steps that a text names, in order; UsageError says which part is wrong and what would be right."""
    parts = [part.strip() for part in text.split(";")]
    steps = tuple(_step(part) for part in parts if part)
    if not steps:
        raise UsageError("no steps were given", f"give some of: {'; '.join(map(usage, KINDS.values()))}")
    return steps


def step_text(step: Step) -> str:
    """The text of a step, as `parse_steps` takes it."""
    values = [getattr(step, field.name) for field in fields(step)]
    return f"{step.name}={':'.join('+'.join(v) if isinstance(v, tuple) else f'{v:g}' for v in values)}"


def usage(kind: type[Step]) -> str:
    """How a kind of step is written."""
    return f"{kind.name}={':'.join(_WORDS[field.name] for field in fields(kind))}"


def labels_of(step: Step, names: tuple[str, ...], classes: Mapping[int, str]) -> tuple[int, ...]:
    """Labels of the classes that a step names; NotThereError where the labels have no such class."""
    numbers = {name: number for number, name in classes.items()}
    for name in names:
        if name not in numbers:
            problem = f"step {step_text(step)!r} names class {name!r}, which these labels do not have"
            raise NotThereError(problem, f"choose among: {', '.join(classes[n] for n in sorted(classes)) or 'none'}")
    return tuple(numbers[name] for name in names)


def _step(text: str) -> Step:
    name, _, given = text.partition("=")
    kind = KINDS.get(name.strip())
    if kind is None:
        raise UsageError(f"no step {name.strip()!r}", f"the steps are: {', '.join(KINDS)}")
    wanted = fields(kind)
    words = [word.strip() for word in given.split(":")]
    if len(words) != len(wanted):
        raise UsageError(f"step {text!r} has {len(words)} values, {len(wanted)} are wanted", f"write {usage(kind)}")
    values = [_READERS[field.name](word, text, usage(kind)) for field, word in zip(wanted, words, strict=True)]
    made: Callable[..., Step] = kind
    return made(*values)


def _names(word: str, text: str, how: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in word.split("+"))
    if not all(names) or len(set(names)) != len(names):
        raise UsageError(f"step {text!r} names no class, or one twice", f"write {how}, such as liver or liver+lesion")
    return names


def _positive(word: str, text: str, how: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"{word!r} in step {text!r} is no positive number", f"write {how}")
    return value


_READERS: dict[str, Callable[[str, str, str], Any]] = {
    "classes": _names, "organ": _names, "mm": _positive, "mm3": _positive, "hu": _positive,
}  # fmt: skip
