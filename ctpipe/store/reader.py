"""Reading one array of a group, never trusting a file that the manifest does not vouch for.

The first read of a shard takes the whole file, checks size and CRC-32C, and decodes those very bytes; later reads of
the same unchanged file take only the chunks they need, each under its own crc32c. zarr alone would give the fill value
for a shard that is gone, and that looks like air.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import CtpipeError, StoreFaultError, UsageError
from ctpipe.store import arrays, commit, files
from ctpipe.store.commit import CURE
from ctpipe.store.layout import COMMIT, shard_file, slab_text
from ctpipe.volume import Level, slabs_of

if TYPE_CHECKING:
    import xarray

_ALL = slice(None)


class LevelArray:
    """One level of a group as a read-only array (z, y, x) of checked voxels.

    manifest: the array's entry in the commit; None for a group that is still being written, whose missing shards then
    read as the fill value. what: the group, for messages. Picklable; tasks get a copy and check for themselves.
    """

    ndim = 3

    def __init__(self, path: Path, level: Level, dtype: str, manifest: dict[str, Any] | None, what: str) -> None:
        self.path, self.level, self.what = path, level, what
        self.dtype = np.dtype(dtype)
        self.shape = tuple(level.grid.shape)
        self.slabs = slabs_of(level.grid.shape.z, level.slab_planes)
        self._manifest = manifest
        self._checked: dict[int, tuple[int, int, int]] = {}  # slab -> stamp of the file that was checked
        self._document: bytes | None = None
        self._open: Any = None

    def read(self, start: int, stop: int, rows: slice = _ALL, columns: slice = _ALL) -> NDArray:
        """Planes start..stop-1 (of this level), cut to `rows` and `columns`; StoreFaultError for what is rotten."""
        if not 0 <= start <= stop <= self.shape[0]:
            problem = f"planes {start} to {stop} of {self.what} were asked for, it has {self.shape[0]}"
            raise UsageError(problem, "ask for 0 <= start <= stop <= planes")
        height = self.level.slab_planes
        parts = [
            self._read_shard(index, slice(max(start, index * height), min(stop, (index + 1) * height)), rows, columns)
            for index in range(start // height, -(-stop // height) if stop > start else start // height)
        ]
        if len(parts) == 1:
            return parts[0]
        if parts:
            return np.concatenate(parts)
        return np.empty((0, len(range(self.shape[1])[rows]), len(range(self.shape[2])[columns])), self.dtype)

    def __getitem__(self, key: Any) -> NDArray:
        """NumPy basic indexing: slices and integers, as dask asks for them."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [_ALL] * (4 - len(keys))
        z, *rest = keys + [_ALL] * (3 - len(keys))
        planes = range(self.shape[0])[z] if isinstance(z, slice) else [range(self.shape[0])[int(z)]]
        low, high = (min(planes), max(planes) + 1) if planes else (0, 0)
        cuts = [k if isinstance(k, slice) and (k.step or 1) > 0 else _ALL for k in rest]
        voxels = self.read(low, high, *cuts)
        voxels = voxels[[plane - low for plane in planes]] if len(planes) != high - low else voxels
        if isinstance(z, slice) and (z.step or 1) < 0 and len(planes) == high - low:
            voxels = voxels[::-1]
        after = [_ALL if cut is k else k for cut, k in zip(cuts, rest, strict=True)]
        return voxels[(_ALL if isinstance(z, slice) else 0, *after)]

    def check_shard(self, index: int) -> bytes:
        """Bytes of a shard file that are what the manifest lists; StoreFaultError else."""
        listed = self._listed(index)
        data = files.read(self.path / listed["file"])
        if data is None:
            raise self._fault(index, "is missing")
        if len(data) != listed["size"]:
            raise self._fault(index, f"has {len(data)} bytes, {listed['size']} were committed")
        if commit.crc32c(data) != listed["crc32c"]:
            raise self._fault(index, "changed after its commit (CRC-32C)")
        return data

    def check_voxels(self, index: int) -> int:
        """Reads and decodes a whole shard and compares the digest of its voxels; returns the bytes of the file."""
        data = self.check_shard(index)
        slab = self.slabs[index]
        voxels = self._decode(index, data, (slice(slab.start, slab.stop), _ALL, _ALL))
        if commit.voxel_digest(voxels) != self._listed(index)["voxels"]:
            raise self._fault(index, "decodes to other voxels than were committed")
        return len(data)

    def document(self) -> bytes:
        """The array's zarr.json, as committed; StoreFaultError else."""
        if self._document is None:
            data = files.read(self.path / COMMIT)
            wanted = None if self._manifest is None else self._manifest["zarr_json"]
            if data is None or (wanted is not None and sha256(data).hexdigest() != wanted):
                how = "is missing" if data is None else "changed after its commit"
                raise StoreFaultError(f"zarr.json of array {self.level.number} of {self.what} {how}", CURE)
            self._document = data
        return self._document

    def shards_there(self) -> list[int]:
        """Indexes of the slabs whose shard file is there."""
        return [slab.index for slab in self.slabs if (self.path / shard_file(slab.index)).exists()]

    def _read_shard(self, index: int, planes: slice, rows: slice, columns: slice) -> NDArray:
        region = (planes, rows, columns)
        document = self.document()
        path = self.path / shard_file(index)
        if self._manifest is None:
            data = files.read(path)
            return self._decode(index, data, region) if data is not None else self._filled(document, region)
        stamp = _stamp(path)
        if stamp is not None and self._checked.get(index) == stamp:
            return self._decode(index, None, region)
        data = self.check_shard(index)
        voxels = self._decode(index, data, region)
        if stamp is not None:
            self._checked[index] = stamp
        return voxels

    def _decode(self, index: int, data: bytes | None, region: tuple[slice, slice, slice]) -> NDArray:
        try:
            if data is not None:
                return arrays.decode_shard(self.document(), index, data, region)
            if self._open is None:
                self._open = arrays.open_local(str(self.path))
            return arrays.read_local(self._open, region)
        except (MemoryError, CtpipeError):
            raise
        except Exception as error:  # rotten bytes make codecs raise anything: all of it is the same fault
            raise self._fault(index, "cannot be decoded") from error

    def _filled(self, document: bytes, region: tuple[slice, slice, slice]) -> NDArray:
        shape = [len(range(n)[cut]) for n, cut in zip(self.shape, region, strict=True)]
        return np.full(shape, arrays.array_fill(document), self.dtype)

    def _listed(self, index: int) -> dict[str, Any]:
        if self._manifest is None:
            raise StoreFaultError(f"{self.what} is not committed", "let its writer end")
        return self._manifest["shards"][index]

    def _fault(self, index: int, how: str) -> StoreFaultError:
        planes = slab_text(self.slabs[index])
        return StoreFaultError(f"shard {index} ({planes}) of array {self.level.number} of {self.what} {how}", CURE)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_checked": {}, "_document": None, "_open": None}


def as_data_array(voxels: LevelArray, name: str, token: str, units: str | None) -> xarray.DataArray:
    """Lazy DataArray (z, y, x), one dask chunk a shard, coordinates in mm along each axis (Grid.translation_mm)."""
    import dask.array as da
    import xarray

    grid = voxels.level.grid
    chunks = (tuple(slab.planes for slab in voxels.slabs), (grid.shape.y,), (grid.shape.x,))
    meta = np.empty((0, 0, 0), voxels.dtype)
    lazy = da.from_array(voxels, chunks=chunks, name=token, asarray=False, fancy=False, meta=meta)
    coordinates = {
        axis: first + step * np.arange(n)
        for axis, first, step, n in zip("zyx", grid.translation_mm, grid.spacing_mm, grid.shape, strict=True)
    }
    array = xarray.DataArray(lazy, coords=coordinates, dims=("z", "y", "x"), name=name)
    for axis in "zyx":
        array.coords[axis].attrs["units"] = "mm"
    array.attrs = {"affine": grid.affine, "grid_id": grid.grid_id} | ({"units": units} if units else {})
    return array


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
