"""What a stride costs in dense form, and which neighbour costs less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ctpipe.models.dense import DenseForm, Size, dense_form

# Costs are told for planes of this side; what is compared is their ratio.
SIDE = 512
# A neighbour is worth a word when it costs so many times less.
WORTH = 2.0


@dataclass(frozen=True)
class StrideAdvice:
    """work: multiply-adds of one plane of 512 x 512 voxels. others: cheaper strides and theirs, the finer first."""

    stride: Size
    work: int
    others: tuple[tuple[Size, int], ...]

    def __str__(self) -> str:
        others = " or ".join(f"{_by(stride)} ({self.work / work:.1f} times less)" for stride, work in self.others)
        return (f"stride {_by(self.stride)} does not fit the pooling of this network: {self.work / 1e9:.3g} billion "
                f"multiply-adds a plane; cheaper is stride {others}")


def advise(network: nn.Module, channels: int, window: Size, stride: Size) -> StrideAdvice | None:
    """A word on a stride that lets few pools keep their step; None where no finer stride is much cheaper.

    Looked at: half to twice the stride. Told are the cheapest finer one, and the nearest coarser one that costs about
    as little as any.
    """

    def work(other: Size) -> int | None:
        form = dense_form(network, channels, window, other)
        return form.work(tuple(-(-SIDE // s) for s in other)) if isinstance(form, DenseForm) else None

    own = work(stride)
    if own is None:
        return None
    found = []
    for finer, coarser in _neighbours(stride):
        below = _cheaper({other: work(other) for other in finer}, own, slack=1.0)
        if below:  # without one the stride is a fair price for what it gives
            found += [below, *filter(None, [_cheaper({other: work(other) for other in coarser}, own, slack=WORTH)])]
    return StrideAdvice(stride, own, tuple(found)) if found else None


def _cheaper(works: dict[Size, int | None], own: int, slack: float) -> tuple[Size, int] | None:
    """The first of `works` that costs at most `slack` times the least of them, where that is much less than `own`."""
    known = {stride: work for stride, work in works.items() if work is not None}
    least = min(known.values(), default=own)
    if least * WORTH > own:
        return None
    return next((stride, work) for stride, work in known.items() if work <= least * slack)


def _neighbours(stride: Size) -> Iterator[tuple[list[Size], list[Size]]]:
    """Finer and coarser strides, the nearest first; axes of one stride move together."""
    for value in sorted(set(stride)):
        ranges = (range(value - 1, -(-value // 2) - 1, -1), range(value + 1, 2 * value + 1))
        finer, coarser = ([tuple(other if s == value else s for s in stride) for other in values] for values in ranges)
        yield finer, coarser


def _by(stride: Size) -> str:
    return " x ".join(map(str, stride))
