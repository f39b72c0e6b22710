"""ctpipe: CT series to OME-Zarr, patch tables, batched inference and labelled volumes.

The faces below are stable; everything else is private. They are imported on first use: `import ctpipe` is quick.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Torch's OpenMP threads spin at every barrier unless told to sleep; on a machine that does other work too a training
# step on two threads then took 0.95 s instead of 0.15 s. It has to be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Torch's large tensors in huge pages: a forward pass that gets its activations anew spends as long in page faults as in
# arithmetic. Decision 0016; before torch is loaded, too.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

_FACES = {
    "check": "ctpipe.pipeline",
    "evaluate": "ctpipe.pipeline",
    "infer": "ctpipe.pipeline",
    "ingest": "ctpipe.pipeline",
    "load_model": "ctpipe.models",
    "open_store": "ctpipe.store",
    "patch_table": "ctpipe.patches",
    "train": "ctpipe.pipeline",
}

__all__ = ["__version__", *sorted(_FACES)]


def __getattr__(name: str) -> Any:
    if name not in _FACES:
        raise AttributeError(f"module 'ctpipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_FACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACES])
