"""Torch checkpoints of other programs, read without running anything in them.

A `.pth` is a pickle, and a pickle may name any function to be called while it is read. torch's own reader for tensors
and plain values (`weights_only=True`) calls none but those of a list; NumPy's scalars and their types are added to it
here, since nnU-Net's training log holds them. What a file names beyond that is told, and loaded only by a user who says
so.
"""

from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

from ctpipe.models.guests.wishes import Faults

# How many names of a refused file are told, and how many characters of each.
TOLD, TOLD_CHARACTERS = 5, 80
_CURE = "import it with --trust if you trust who made it: loading it runs what is in it"


def read_checkpoint(data: bytes, name: str, faults: Faults, *, trust: bool) -> Any:
    """What a checkpoint holds, tensors on the CPU; a fault and None where it is refused or broken.

    name: as faults call it. trust: unpickle it in full where the list does not do.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols: what comes of them is told below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if trust:
            return _in_full(data, name, faults)
        found = _more_than_tensors(data)
        faults.add(f"{name} is a pickle that holds more than tensors and plain values{found}; it was not loaded", _CURE)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError):
        faults.add(f"{name} is broken or no checkpoint of torch", "copy the whole model again")
    return None


def _in_full(data: bytes, name: str, faults: Faults) -> Any:
    import torch

    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, ImportError, AttributeError, RuntimeError, EOFError) as error:
        faults.add(f"{name} cannot be unpickled here ({type(error).__name__})",
                   "install what it was saved with, or save it again as tensors and plain values")
        return None


def _allowed() -> list[Any]:
    import numpy as np
    from numpy._core.multiarray import scalar  # type: ignore[attr-defined]  # no public name; files name it so

    # the pair: files written under NumPy 1 name another module
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType,
            np.dtypes.Int64DType, np.dtypes.BoolDType]  # fmt: skip


def _more_than_tensors(data: bytes) -> str:
    """The names that keep a file from being read, in words; empty where they cannot be listed."""
    import torch

    try:
        with torch.serialization.safe_globals(_allowed()):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):  # an old file is no zip: no list to be had
        return ""
    told = [ascii(name)[1:-1][:TOLD_CHARACTERS] for name in sorted(names)]
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return f" ({', '.join(told[:TOLD])}{more})" if told else ""
