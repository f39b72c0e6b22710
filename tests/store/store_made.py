"""Small volumes and stores for the tests of the store: builders, no files kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctpipe.store import GroupWriter, Labels, LabelsMeta, Series, Store, VolumeMeta, open_store
from ctpipe.volume import Grid
from ctpipe.words import LabelKind

ID = "5e71e5000000000000000001"
CLASSES = {1: "liver", 2: "lesion"}


def grid(shape: tuple[int, int, int], spacing=(2.5, 0.7, 0.8), oblique: bool = False) -> Grid:
    """Axial (z to S, y to P, x to L), or turned about two axes by odd angles."""
    turn = np.eye(3)
    if oblique:
        a, b = 0.3, -0.7
        about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        turn = about_x @ about_z
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    affine[:3, 3] = (-101.1, -203.7, 11.3)
    return Grid.from_affine(shape, affine, "u-0123456789abcdef")


def hu(shape: tuple[int, int, int], dtype: str = "int16", seed: int = 7) -> NDArray:
    values = np.random.default_rng(seed).normal(40, 300, shape).clip(-1024, 3071)
    return np.rint(values).astype(dtype) if dtype == "int16" else values.astype(dtype)


def labels(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    distance = sum(((at - n / 2) / (n / 2)) ** 2 for at, n in zip((z, y, x), shape, strict=True))
    return (distance < 0.8).astype(np.uint8) + (distance < 0.2)


def volume_meta(of: Grid, dtype: str = "int16", series_id: str = ID) -> VolumeMeta:
    return VolumeMeta(series_id, of, dtype, "p-1", "u-1", "u-2", (40.0, 400.0), {"kvp": 120}, {"version": 1})


def labels_meta(of: Grid, name: str = "beef01", kind: LabelKind = LabelKind.PREDICTION) -> LabelsMeta:
    return LabelsMeta(name, kind, of, CLASSES)


def planes(n: int) -> pd.DataFrame:
    return pd.DataFrame({"plane": range(n), "sop_instance": [f"u-{i:016x}" for i in range(n)], "slope": [1.0] * n})


def fill(writer: GroupWriter, voxels: NDArray, order: int = 1) -> list:
    """Writes every slab, what is done excepted; order -1 goes from the last to the first."""
    writer.prepare()
    slabs = writer.slabs[::order]
    return [writer.done(slab) or writer.write_slab(slab, voxels[slab.start : slab.stop]) for slab in slabs]


def put(store: Store, writer: GroupWriter, voxels: NDArray, table: pd.DataFrame | None = None) -> None:
    with store.lease(writer.target) as lease:
        writer.commit(fill(writer, voxels), lease, table)


def store_of(path: Path, shape=(70, 150, 140), dtype: str = "int16", with_labels: bool = True, **how) -> Store:
    """A store of one volume, its plane table, a truth and a prediction."""
    store = open_store(path, mode="a")
    of = grid(shape, **how)
    put(store, store.volume_writer(volume_meta(of, dtype)), hu(shape, dtype), planes(shape[0]))
    if with_labels:
        put(store, store.labels_writer(ID, labels_meta(of, "truth-aa", LabelKind.TRUTH)), labels(shape))
        put(store, store.labels_writer(ID, labels_meta(of)), labels(shape))
    return store


def voxels_of(group: Series | Labels, level: int = 0) -> NDArray:
    return group.read_planes(0, group.levels[level].grid.shape.z, level)


def same_bytes(root: Path) -> dict[str, bytes]:
    """What must be equal for equal input: all files of volumes and plane tables, side files aside."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and (".ome.zarr" in path.parts[len(root.parts)] or path.parent.name == "planes")
        and not path.name.endswith(".partial")
    }
