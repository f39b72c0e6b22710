"""Model: a trained network with everything that decides its scores; a folder of JSON and safetensors."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import Recipe
from ctpipe.errors import BudgetError, NotThereError, RunError, StoreFaultError, UsageError
from ctpipe.models.device import moved, ready
from ctpipe.models.process import use_threads
from ctpipe.models.registry import build_network
from ctpipe.models.segment_spec import SEGMENTER_FORMAT, SegmenterSpec
from ctpipe.models.segmenter import Segmenter, load_segmenter
from ctpipe.models.spec import ModelSpec
from ctpipe.models.weights import refuse_pickle, state_as_bytes, state_into
from ctpipe.words import Device

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ctpipe.models.dense import DenseForm, NotExact

# Windows of a forward pass are a multiple of this: in one of 8, the row of a window in the batch changed the last bits
# of the 1 x 1 convolutions (oneDNN takes other code for the rows left of a block); in 16 and 64 it never did.
BATCH_ROWS = 16

# A dense pass holds about so much at a time beside its input. Bands follow from it, and with them the last bits: a
# change is a new algorithm of the run key.
BAND_BYTES = 256 << 20

# Halved with the micro-batch where memory runs out, but not below this: smaller bands cost time and save nothing.
LEAST_BAND_BYTES = 16 << 20

# torch.fx patches modules while it looks at a network: one thread at a time.
_TRACING = Lock()

SPEC_FILE, WEIGHTS_FILE, BEFORE_FOLDER = "model.json", "weights.safetensors", "before"


@dataclass(frozen=True)
class Sizes:
    """How much is computed at a time; both numbers change the last bits of scores, and so the run key.

    micro_batch: windows of a forward pass; band_bytes: what a dense pass may hold beside its input.
    """

    micro_batch: int
    band_bytes: int = BAND_BYTES

    def half(self) -> Sizes | None:
        """The next smaller sizes, whole multiples of BATCH_ROWS; None where these are the smallest."""
        batch = max(BATCH_ROWS, -(-self.micro_batch // 2 // BATCH_ROWS) * BATCH_ROWS)
        smaller = Sizes(min(batch, self.micro_batch), max(LEAST_BAND_BYTES, self.band_bytes // 2))
        return None if smaller == self else smaller


@contextmanager
def memory_errors() -> Iterator[None]:
    """Torch tells a failed allocation by a RuntimeError: within this block it is a MemoryError, as everybody else's."""
    import torch

    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryError("torch got no memory for a forward pass") from error
        raise


class Model:
    """A network in evaluation mode, its spec and the model that runs before it.

    Scores depend on spec, weights and pixels of the window alone: every forward pass has `micro_batch` windows (the
    last filled up with zeros), the recipe's threads, float32 and no autocast (MODELS 8).
    """

    def __init__(self, spec: ModelSpec, network: nn.Module, before: Model | None = None) -> None:
        """`network` is taken over and set to evaluation."""
        from ctpipe.models.networks import for_inference

        if (before.digest if before else None) != spec.before:
            raise StoreFaultError("the model that runs before is not the one this model was trained with",
                                  "copy the whole model folder again")
        self.spec, self.before = spec, before
        self.network = network.eval().requires_grad_(False)
        self._runner = for_inference(network)
        self.recipe: Recipe = spec.parsed_recipe()
        self.digest: str = spec.digest()
        self.sizes = Sizes(spec.micro_batch)
        self.device = Device.CPU
        self._dense: dict[tuple[int, int], DenseForm | NotExact] = {}

    @classmethod
    def of(cls, recipe: Recipe, classes: tuple[str, ...], network: nn.Module, before: Model | None = None, *,
           training: dict[str, Any] | None = None, licence: str = "") -> Model:
        """Model of a network trained by `recipe`; its spec is made here, micro_batch rounded up to BATCH_ROWS."""
        spec = ModelSpec(
            network=recipe.network,
            options=network_options(recipe),
            channels=input_channels(recipe),
            window=recipe.windows.window,
            classes=classes,
            recipe=_plain(recipe),
            micro_batch=-(-recipe.predict.micro_batch // BATCH_ROWS) * BATCH_ROWS,
            weights_sha256=sha256(state_as_bytes(network)).hexdigest(),
            before=before.digest if before else None,
            licence=licence,
            training=training or {},
        )
        return cls(spec, network, before)

    def on(self, device: Device) -> Model:
        """The model itself, its network moved to `device`; before any dense form is made of it."""
        self._runner.to(ready(device))
        self.device = device
        return self

    def sized(self, sizes: Sizes) -> Model:
        """The same model, which computes so much at a time."""
        other = copy(self)
        other.sizes = sizes
        return other

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of windows: float32 (n, channels, h, w) -> float32 (n, 1 + classes), background first.

        n may be anything; h and w are the window's. RunError where the input or a score is NaN or infinite; it names
        the first layer that gives such a value. MemoryError where there is too little of it.
        """
        import torch

        wanted = (self.spec.channels, self.spec.window.y, self.spec.window.x)
        if batch.ndim != 4 or batch.shape[1:] != wanted:
            raise UsageError(f"windows of shape {batch.shape[1:]} do not fit this model", f"give (n, {wanted})")
        if not np.isfinite(batch).all():
            raise RunError("the pixels of a window are NaN or infinite", "ingest the series again from its source")
        use_threads(self.recipe.predict.threads)
        size, device = self.sizes.micro_batch, ready(self.device)
        out = np.empty((len(batch), 1 + len(self.spec.classes)), np.float32)
        with torch.inference_mode(), memory_errors():
            for at in range(0, len(batch), size):
                part = np.ascontiguousarray(batch[at : at + size], np.float32)
                if len(part) < size:  # kernels, and with them the last bits, are chosen by the batch's size
                    part = np.concatenate([part, np.zeros((size - len(part), *wanted), np.float32)])
                pixels = torch.from_numpy(part).contiguous(memory_format=torch.channels_last)
                pixels = moved(pixels, device)
                logits = self._runner(pixels)[:, :, 0, 0]
                if not torch.isfinite(logits[: len(batch) - at]).all():  # softmax would hide an infinite one
                    raise RunError(f"layer {self._first_wrong_layer(pixels)} of model {self.digest} gave a value that "
                                   "is NaN or infinite", "train it again, or check its weights")
                out[at : at + size] = torch.softmax(logits, 1).cpu().numpy()[: len(batch) - at]
        return out

    def _first_wrong_layer(self, pixels: torch.Tensor) -> str:
        """Name of the first layer whose output holds a NaN or an infinite value."""
        import torch

        wrong: list[str] = []
        us = get_ident()  # other threads may be in the middle of a pass of their own

        def look(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, given: Any, output: torch.Tensor) -> None:
                if get_ident() == us and not torch.isfinite(output).all():
                    wrong.append(name)

            return hook

        leaves = [(name, module) for name, module in self._runner.named_modules() if not list(module.children())]
        hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
        try:
            self._runner(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return wrong[0] if wrong else "(the last)"

    def dense(self, stride: tuple[int, int]) -> DenseForm | NotExact:
        """The exact dense form for windows at `stride` (y, x), or the layers that have none; made once."""
        from ctpipe.models.dense import dense_form

        with _TRACING:
            if stride not in self._dense:
                window = (self.spec.window.y, self.spec.window.x)
                self._dense[stride] = dense_form(self._runner, self.spec.channels, window, stride)
        return self._dense[stride]

    def dense_scores(self, form: DenseForm, pixels: NDArray[np.float32],
                     budget: int | None = None) -> NDArray[np.float32]:
        """Probabilities of all windows of one plane: (channels, h, w) -> float32 (ny, nx, 1 + classes).

        form: one of `dense`. Equal to `scores` of the same windows up to rounding. Scores depend on spec, weights,
        pixels and the shape of `pixels` alone: one plane a pass, in bands that follow from that shape and `budget`
        (by default the model's sizes). RunError where the input is NaN or infinite; where a logit is, the scores of
        its window are NaN, which are the caller's to check. MemoryError where there is too little of it.
        """
        import torch

        if not np.isfinite(pixels).all():
            raise RunError("the pixels of a plane are NaN or infinite", "ingest the series again from its source")
        use_threads(self.recipe.predict.threads)
        with torch.inference_mode(), memory_errors():
            given = moved(torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None], ready(self.device))
            [logits] = _in_columns(form, given, budget or self.sizes.band_bytes)
            scores = torch.softmax(logits, 0)
            if not torch.isfinite(logits).all():
                scores[:, ~torch.isfinite(logits).all(0)] = torch.nan
            return scores.permute(1, 2, 0).contiguous().cpu().numpy()

    def save(self, folder: str | Path) -> None:
        """Write model.json, weights.safetensors and before/ into `folder` (made if absent); BudgetError: disk full."""
        folder = Path(folder)
        if self.before:
            self.before.save(folder / BEFORE_FOLDER)
        # model.json last: a folder without it is no model
        written_whole(folder, {
            WEIGHTS_FILE: state_as_bytes(self.network),
            SPEC_FILE: (json.dumps(self.spec.as_json() | {"digest": self.digest}, indent=1) + "\n").encode(),
        })  # fmt: skip


def written_whole(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files of a model in their order; BudgetError: disk full, UsageError: the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = sum(map(len, files.values()))
            raise BudgetError(f"the disk is full: a model of {size} bytes did not fit at {folder}",
                              "free space or choose another place") from error
        raise UsageError(f"cannot write a model at {folder}: {error.strerror}",
                         "choose a folder that can be written") from error


def _in_columns(form: DenseForm, pixels: torch.Tensor, budget: int) -> torch.Tensor:
    """Logits of all windows, in as many bands of columns as it takes for bands of rows to fit the budget."""
    import torch

    from ctpipe.models.bands import in_bands, plan_bands

    windows = form.windows(pixels.shape[2:])
    try:
        bands = plan_bands(form, windows, budget)
    except BudgetError as error:
        if windows[1] == 1:  # one window wide: a micro-batch of windows by themselves would take more
            raise error
        half = windows[1] // 2
        left, right = pixels[..., : form.space((1, half))[1]], pixels[..., half * form.stride[1] :]
        return torch.cat([_in_columns(form, left, budget), _in_columns(form, right, budget)], 3)
    return in_bands(form, pixels.contiguous(memory_format=torch.channels_last), bands.rows)


def load_model(path: str | Path) -> Model | Segmenter:
    """The model of a folder that `Model.save` or `Segmenter.save` wrote; its model.json says which.

    NotThereError: nothing there, or a folder that is no model. UsageError: a file (a pickle is refused unread).
    StoreFaultError: weights or spec are not those that were saved.
    """
    folder = Path(path)
    spec = load_spec(folder)
    if isinstance(spec, SegmenterSpec):
        return load_segmenter(folder, spec)
    weights = _read_weights(folder / WEIGHTS_FILE)
    if sha256(weights).hexdigest() != spec.weights_sha256:
        raise StoreFaultError(f"{folder / WEIGHTS_FILE} is not what was saved: its digest differs",
                              "copy the model again")
    before = load_classifier(folder / BEFORE_FOLDER) if spec.before else None
    network = build_network(spec.network, spec.channels, 1 + len(spec.classes), spec.window, spec.options)
    state_into(network, weights, str(folder / WEIGHTS_FILE))
    return Model(spec, network, before)


def load_classifier(path: str | Path) -> Model:
    """The window classifier of a folder; UsageError where it holds a segmenter, else as `load_model`."""
    model = load_model(path)
    if not isinstance(model, Model):
        raise UsageError(f"{path} labels every voxel of a window, where a classifier of windows is wanted",
                         "give a model that ctpipe train wrote")
    return model


def load_spec(folder: Path) -> ModelSpec | SegmenterSpec:
    """What the model.json of a model's folder says, its digest checked; the weights are not read. Errors: load_model"""
    if folder.is_file():
        refuse_pickle(folder)
        raise UsageError(f"{folder} is a file, not a model", "give the folder that ctpipe train wrote")
    path = folder / SPEC_FILE
    if not path.is_file():
        raise NotThereError(f"{folder} is no model: it has no {SPEC_FILE}",
                            "give the folder that ctpipe train or ctpipe models import wrote")
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise StoreFaultError(f"{path} is not JSON", "copy the model again") from error
    stated = values.pop("digest", None) if isinstance(values, dict) else None
    is_segmenter = isinstance(values, dict) and values.get("format") == SEGMENTER_FORMAT
    spec = (SegmenterSpec if is_segmenter else ModelSpec).from_json(values, str(path))
    if spec.digest() != stated:
        raise StoreFaultError(f"{path} is not what was saved: its digest differs", "copy the model again")
    return spec


def _read_weights(path: Path) -> bytes:
    if not path.is_file():
        raise StoreFaultError(f"{path} is missing", "copy the model again")
    refuse_pickle(path)
    return path.read_bytes()


def input_channels(recipe: Recipe) -> int:
    """Channels of a recipe's network: those of the input, once for each plane of the window."""
    return len(recipe.input.channels_mm) * recipe.windows.window.z


def network_options(recipe: Recipe) -> dict[str, Any]:
    """Options of a recipe's network less the file that training starts from: it is no part of the model."""
    return {key: value for key, value in recipe.options.items() if key != "weights"}


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a file gives it back: lists for tuples, and without the path that only training needed."""
    return json.loads(json.dumps({**recipe.as_dict(), "options": network_options(recipe)}))


def retag(model: Model, training: dict[str, Any]) -> Model:
    """The same model with more said about its training."""
    return Model(replace(model.spec, training={**model.spec.training, **training}), model.network, model.before)
