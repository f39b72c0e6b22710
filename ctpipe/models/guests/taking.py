"""Which kind of model lies at a path, and its segmenter, tried once before it is given out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from ctpipe.errors import InputError, RunError
from ctpipe.models.guests.files import ModelFiles
from ctpipe.models.guests.wishes import Imported, Wishes


def import_model(path: str | Path, wishes: Wishes) -> Imported:
    """The model at `path` as a Segmenter: an nnU-Net v2 result folder or its zip, a MONAI bundle, ONNX, TorchScript.

    Raises UsageError: an option that is missing or fits nothing there. NotThereError: nothing there. InputError: the
    model is refused, with all reasons and cures.
    """
    taken = _taken(Path(path), wishes)
    _try(taken, Path(path))
    return taken


def _taken(path: Path, wishes: Wishes) -> Imported:
    from ctpipe.models.guests.graphs import import_onnx, import_torchscript
    from ctpipe.models.guests.monai import import_bundle, is_bundle
    from ctpipe.models.guests.nnunet import import_nnunet, is_nnunet

    if path.is_file() and path.suffix == ".onnx":
        return import_onnx(path, wishes)
    with closing(ModelFiles(path)) as files:
        if is_nnunet(files):
            return import_nnunet(files, wishes)
        if is_bundle(files):
            return import_bundle(files, wishes)
        if path.is_file() and is_torchscript(files):
            return import_torchscript(path, wishes)
    raise InputError(f"{path} is no model of a kind that is known here",
                     "give nnU-Net's result folder (with plans.json and fold_0) or its zip, a MONAI bundle, an .onnx "
                     "file, or a TorchScript file")


def is_torchscript(files: ModelFiles) -> bool:
    """Whether a zip is what torch.jit.save writes: it holds code beside its pickles."""
    return any("/code/" in name for name in files.names) and any(name.endswith("/data.pkl") for name in files.names)


def _try(taken: Imported, path: Path) -> None:
    """Score one window of noise: the network must take its patch, and give a finite score for each head."""
    spec = taken.segmenter.spec
    window = np.random.default_rng(0).normal(size=(1, *spec.patch)).astype(np.float32)
    try:
        taken.segmenter.scores(window)
    except RunError as error:
        raise InputError(f"{path} cannot be taken: {error.problem}", error.cure) from error
