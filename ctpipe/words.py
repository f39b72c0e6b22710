"""The words of ctpipe: one name for each kind of thing, shared by every layer (docs/words.md)."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

# What tells how far a long call is: progress(stage, done, total); None where nobody wants to know.
Progress = Callable[[str, int, int], None] | None


class ZYX(NamedTuple):
    """Three numbers along the array axes (plane, row, column), in voxels unless a name says mm."""

    z: int
    y: int
    x: int


class VerdictKind(StrEnum):
    """What became of one volume of the input."""

    ACCEPT = "accept"  # plainly right: taken as it is
    REPAIR = "repair"  # taken after a stated, lossless repair (an identical duplicate dropped, say)
    REJECT = "reject"  # not plainly right: refused with a reason and a cure
    SET_ASIDE = "set-aside"  # valid, but no CT volume: never counted as a failure


class LabelKind(StrEnum):
    """Where a label volume comes from."""

    TRUTH = "truth"  # brought in beside the CT
    PREDICTION = "prediction"  # a model's run
    REVIEW = "review"  # a person's correction


class LayerKind(StrEnum):
    """What of a run is kept beside its labels, where it is asked for: uint8 at every voxel."""

    PROBABILITIES = "probabilities"  # of each class, a layer each
    ENTROPY = "entropy"  # of the class probabilities, as a share of its highest
    SPREAD = "spread"  # of the probabilities over the folds of a model: their standard deviation


class Source(StrEnum):
    """Whose labels are taken for true."""

    TRUTH = "truth"  # those that came in beside the CT
    REVIEW = "review"  # the newest correction of each volume; volumes without one are left out
    BEST = "best"  # the newest correction, truth where there is none


class Pad(StrEnum):
    """What a window sees beyond the border of its plane."""

    EDGE = "edge"  # the nearest voxel of the plane
    CONSTANT = "constant"  # the lowest value of the model's input range


class Fill(StrEnum):
    """How predictions at strided centres are brought to every voxel."""

    NEAREST = "nearest"  # each voxel takes the class of its nearest centre; ties go to the lower index
    LINEAR = "linear"  # scores are interpolated linearly between centres, then the highest class wins


class Exact(StrEnum):
    """What is done with a classifier that has no exact dense form."""

    AUTO = "auto"  # it is evaluated window by window
    REQUIRED = "required"  # it is refused


class Device(StrEnum):
    """The kind of processor that a model runs on; its kernels decide the last bits of scores."""

    CPU = "cpu"
    CUDA = "cuda"


class Region(StrEnum):
    """Which centres are evaluated; all others are background."""

    ALL = "all"
    BODY = "body"  # centres above -500 HU: no air, no lung
    ORGAN = "organ"  # centres inside or near the classes that the earlier model found


# Colour of label n is number (n - 1) modulo their count: 8-bit red, green, blue. They stay apart on grey CT, most
# of them for colour-blind eyes too; an organ comes first (green), what is wrong with it second (orange red).
LABEL_COLOURS: tuple[tuple[int, int, int], ...] = (
    (46, 184, 134),
    (255, 96, 48),
    (86, 180, 233),
    (245, 224, 66),
    (204, 121, 190),
    (230, 159, 0),
    (72, 112, 224),
    (176, 216, 64),
    (255, 158, 176),
    (178, 146, 106),
)
