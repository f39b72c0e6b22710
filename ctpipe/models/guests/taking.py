"""Which kind of model lies at a path, and its segmenter, tried once before it is given out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from ctpipe.errors import InputError, RunError
from ctpipe.models.guests.files import ModelFiles
from ctpipe.models.guests.wishes import Imported, Wishes


def import_model(path: str | Path, wishes: Wishes) -> Imported:
    """The model at `path` as a Segmenter: an nnU-Net v2 result folder or its zip.

    Raises UsageError: an option that is missing or fits nothing there. NotThereError: nothing there. InputError: the
    model is refused, with all reasons and cures.
    """
    from ctpipe.models.guests.nnunet import import_nnunet, is_nnunet

    with closing(ModelFiles(Path(path))) as files:
        if not is_nnunet(files):
            raise InputError(f"{path} is no model of a kind that is known here",
                             "give nnU-Net's result folder (with plans.json and fold_0) or its zip")
        taken = import_nnunet(files, wishes)
    _try(taken, Path(path))
    return taken


def _try(taken: Imported, path: Path) -> None:
    """Score one window of noise: the network must take its patch, and give a finite score for each head."""
    spec = taken.segmenter.spec
    window = np.random.default_rng(0).normal(size=(1, *spec.patch)).astype(np.float32)
    try:
        taken.segmenter.scores(window)
    except RunError as error:
        raise InputError(f"{path} cannot be taken: {error.problem}", error.cure) from error
