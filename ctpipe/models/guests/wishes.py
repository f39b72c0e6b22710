"""What a user says about a model of another program, and the list of what keeps it from being taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ctpipe.errors import InputError
from ctpipe.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What `ctpipe models import` was told; None: as the model says.

    licence: of the weights. configuration: one of nnU-Net's (2d, 3d_fullres, …). folds: numbers, or `all`. checkpoint:
    name of its files. axes: where array axes grow to (`SegmenterSpec.axes`), before nnU-Net's own transposing.
    threads: of torch. precision: of forward passes (`SegmenterSpec.precision`). spec: TOML of what the file does not
    say (`stated_spec`). trust: pickles that hold more than tensors and plain values may be loaded, which runs whatever
    is in them.
    """

    licence: str | None = None
    configuration: str | None = None
    folds: tuple[str, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
    axes: str | None = None
    threads: int = 2
    precision: Literal["float32", "bfloat16"] = "float32"
    spec: Path | None = None
    trust: bool = False


@dataclass(frozen=True)
class Imported:
    """A taken model. kind: nnunet, monai, torchscript or onnx. notes: what its user should know, a line each."""

    segmenter: Segmenter
    kind: str
    notes: tuple[str, ...] = ()


@dataclass
class Faults:
    """All that is wrong with one model; `stop` raises it at once."""

    where: str
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, problem: str, cure: str) -> None:
        """One more reason not to take the model, and what the user can do about it."""
        if (problem, cure) not in self.found:
            self.found.append((problem, cure))

    def stop(self) -> None:
        """InputError with all faults so far; nothing where there are none."""
        if self.found:
            cures = dict.fromkeys(cure for _, cure in self.found)
            raise InputError(f"{self.where} cannot be taken: {'; '.join(problem for problem, _ in self.found)}",
                             "; ".join(cures))
