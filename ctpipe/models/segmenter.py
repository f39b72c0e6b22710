"""Segmenter: a network (or several folds of one) that scores every voxel of a window; a folder as a Model is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError, StoreFaultError, UsageError
from ctpipe.models.device import moved, ready
from ctpipe.models.process import use_threads
from ctpipe.models.segment_spec import SegmenterSpec, WeightFile
from ctpipe.words import Device

if TYPE_CHECKING:
    import torch

    from ctpipe.models.segmenter_networks import Scorer


# Scores beyond it are clamped, which is recorded: a logit of 128 decides as one of 1,000 would.
SCORE_LIMIT = 128.0


@dataclass(frozen=True, eq=False)
class Scored:
    """scores: float32 (n, outputs, *patch). spread: variance of the probabilities over folds, averaged over heads,
    float32 (n, *patch); None for one fold. clamped: whether a score was beyond SCORE_LIMIT.
    """

    scores: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    clamped: bool


class Segmenter:
    """Networks in evaluation mode and their spec.

    Scores depend on spec, weights and the window's voxels alone: `micro_batch` windows a forward pass (the last one
    filled up with zeros), the spec's threads and precision, on one kind of device (MODELS 8).
    """

    def __init__(self, spec: SegmenterSpec, networks: Sequence[Scorer]) -> None:
        """networks: one for each fold, float32 (n, 1, *patch) tensors -> (n, outputs, *patch)."""
        if len(networks) != len(spec.folds):
            raise UsageError(f"{len(networks)} networks for {len(spec.folds)} folds", "give one for each")
        self.spec, self.networks = spec, tuple(networks)
        self.digest: str = spec.digest()
        self.device = Device.CPU

    def on(self, device: Device) -> Segmenter:
        """The model itself, its networks moved to `device`. UsageError: there is none, or they cannot run there."""
        for network in self.networks:
            network.move(ready(device))
        self.device = device
        return self

    @property
    def passes(self) -> int:
        """Forward passes of one window: folds times mirrorings."""
        return len(self.networks) * 2 ** len(self.spec.mirror)

    def scores(self, windows: NDArray[np.float32]) -> Scored:
        """Scores of windows: float32 (n, *patch) -> (n, outputs, *patch), averaged over mirrorings and folds.

        Axes are the network's; logits or probabilities, as the spec's `blend` says, clamped to SCORE_LIMIT.
        RunError where one is NaN or infinite, MemoryError where there is too little memory.
        """
        import torch

        from ctpipe.models.model import memory_errors

        spec = self.spec
        if windows.ndim != 4 or windows.shape[1:] != spec.patch:
            raise UsageError(f"windows {windows.shape[1:]} do not fit this model", f"give (n, {spec.patch})")
        use_threads(spec.threads)
        size, device = spec.micro_batch, ready(self.device)
        halved = torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16")
        with torch.inference_mode(), memory_errors(), halved:
            batches = (_filled(windows[at : at + size], size) for at in range(0, len(windows), size))
            passes = [self._pass(moved(batch, device)) for batch in batches]
            scores = _joined([found for found, _ in passes], len(windows)).cpu()
            low, high = (float(end) for end in torch.aminmax(scores))  # NaN anywhere makes both NaN
            if not (np.isfinite(low) and np.isfinite(high)):
                raise RunError(f"model {self.digest} gives scores that are NaN or infinite",
                               "check its weights or import it again; they do not suit this input")
            clamped = max(-low, high) > SCORE_LIMIT
            if clamped:
                scores = scores.clamp(-SCORE_LIMIT, SCORE_LIMIT)
            varied = [spread for _, spread in passes if spread is not None]
            return Scored(scores.numpy(), _joined(varied, len(windows)).cpu().numpy() if varied else None, clamped)

    def flops(self) -> int:
        """Floating-point operations of one window's convolutions, all mirrorings and folds; counted by running it."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.scores(np.zeros((1, *self.spec.patch), np.float32))
        return int(counter.get_total_flops()) // self.spec.micro_batch

    def _pass(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean scores of one micro-batch (n, 1, *patch), and their variance over folds."""
        import torch

        each = [self._mirrored(network, batch) for network in self.networks]
        if len(each) == 1:
            return each[0], None
        mean = each[0].clone()
        for scores in each[1:]:
            mean += scores
        mean /= len(each)
        likely_already = self.spec.softmax_inside or self.spec.blend == "probabilities"
        likely = torch.stack([scores if likely_already else self._as_probabilities(scores) for scores in each])
        return mean, likely.var(0, correction=0).mean(1)

    def _mirrored(self, network: Scorer, batch: torch.Tensor) -> torch.Tensor:
        import torch

        flat = self.spec.dims == 2
        total: torch.Tensor | None = None
        for axes in _subsets(self.spec.mirror):
            at = [axis + 2 for axis in axes]
            turned = torch.flip(batch, at) if at else batch
            scores = (network(turned[:, :, 0])[:, :, None] if flat else network(turned)).float()
            if scores.shape != (len(batch), self.spec.outputs, *self.spec.patch):
                wanted = (self.spec.outputs, *self.spec.patch)
                raise RunError(f"model {self.digest} gave scores {tuple(scores.shape[1:])} where {wanted} are wanted",
                               "import it again with its own patch and classes")
            if self.spec.blend == "probabilities" and not self.spec.softmax_inside:
                scores = self._as_probabilities(scores)
            scores = torch.flip(scores, at) if at else scores
            total = scores if total is None else total + scores
        assert total is not None  # the empty subset is always there
        return total / 2 ** len(self.spec.mirror) if self.spec.mirror else total

    def _as_probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.sigmoid(scores) if self.spec.regions else torch.softmax(scores, 1)

    def save(self, folder: str | Path) -> None:
        """Write the weight files and model.json into `folder` (made if absent); BudgetError: disk full."""
        from ctpipe.models.model import SPEC_FILE, written_whole

        files = {fold.file: network.as_bytes() for fold, network in zip(self.spec.folds, self.networks, strict=True)}
        # last: a folder without it is no model
        files[SPEC_FILE] = (json.dumps(self.spec.as_json() | {"digest": self.digest}, indent=1) + "\n").encode()
        written_whole(Path(folder), files)


def load_segmenter(folder: Path, spec: SegmenterSpec) -> Segmenter:
    """The segmenter of a folder whose model.json is `spec`; StoreFaultError where weights are not those saved."""
    from ctpipe.models.segmenter_networks import build

    networks = [build(spec, _weights(folder, fold), str(folder / fold.file)) for fold in spec.folds]
    return Segmenter(spec, networks)


def _weights(folder: Path, fold: WeightFile) -> bytes:
    path = folder / fold.file
    if Path(fold.file).name != fold.file or not path.is_file():
        raise StoreFaultError(f"{path} is missing", "copy the model again")
    data = path.read_bytes()
    if sha256(data).hexdigest() != fold.sha256:
        raise StoreFaultError(f"{path} is not what was saved: its digest differs", "copy the model again")
    return data


def _filled(windows: NDArray[np.float32], size: int) -> torch.Tensor:
    """(size, 1, *patch): kernels, and with them the last bits, are chosen by the batch's size."""
    import torch

    short = size - len(windows)
    whole = np.concatenate([windows, np.zeros((short, *windows.shape[1:]), np.float32)]) if short else windows
    return torch.from_numpy(np.ascontiguousarray(whole))[:, None]


def _joined(parts: list[torch.Tensor], n: int) -> torch.Tensor:
    import torch

    return (parts[0] if len(parts) == 1 else torch.cat(parts))[:n]


def _subsets(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All subsets, the empty one first, in nnU-Net's order."""
    return [(), *(some for n in range(1, len(axes) + 1) for some in combinations(axes, n))]
