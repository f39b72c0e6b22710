"""Planes that come plane by plane leave layer by layer; neither memory nor a file is left."""

from __future__ import annotations

import tracemalloc

import numpy as np

from ctpipe.store import PlaneScratch

LAYERS, SHAPE = 60, (32, 128, 128)


def plane_of(layer: int, plane: int) -> np.ndarray:
    return np.full(SHAPE[1:], (7 * layer + plane) % 251 + 1, np.uint8)


def test_a_slab_of_many_layers_takes_the_memory_of_one(tmp_path) -> None:
    """Never class x volume, nor class x slab: 30 MB pass through 1 MB."""
    tracemalloc.start()
    try:
        scratch = PlaneScratch(tmp_path / "S", LAYERS, SHAPE)
        for plane in range(0, SHAPE[0], 2):  # every other plane does not come
            for layer in range(LAYERS):
                scratch.put(layer, plane, 0, plane_of(layer, plane))
        for layer in range(LAYERS):
            slab = scratch.slab(layer)
            assert all((slab[z] == (0 if z % 2 else plane_of(layer, z))).all() for z in range(SHAPE[0]))
        assert tracemalloc.get_traced_memory()[1] < 3 * np.prod(SHAPE)
        assert list((tmp_path / "S").iterdir()) == []  # it has no name, so that a kill leaves nothing
        scratch.close()
    finally:
        tracemalloc.stop()
