"""Each way from a folder of DICOM to level 0 of a Zarr array, to be timed in a warm process of its own.

python benchmarks/_ingest_ways.py WAY FOLDER OUT REPEATS      prints one JSON object

All write blosc zstd-1 with byte shuffle, chunks of 16 x 128 x 128 in shards of 32 planes, as ctpipe does; only ctpipe
checks, keeps checksums and digests, and writes a manifest.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
CHUNK, SHARD = (16, 128, 128), (32, 512, 512)


# ------------------------------------------------------------------------------------------------ the floor
def copy_files(folder: Path, out: Path) -> None:
    shutil.copytree(folder, out)


def compress(folder: Path, out: Path) -> Callable[[], None]:
    """The compressor alone, on chunks that lie in memory already."""
    import numcodecs.blosc

    numcodecs.blosc.use_threads = False
    codec = numcodecs.blosc.Blosc("zstd", 1, numcodecs.blosc.SHUFFLE, 0, 2)
    hu = _by_pydicom(folder)
    steps = [range(0, size, step) for size, step in zip(hu.shape, CHUNK, strict=True)]
    chunks = [np.ascontiguousarray(hu[z : z + 16, y : y + 128, x : x + 128])
              for z in steps[0] for y in steps[1] for x in steps[2]]  # fmt: skip

    def work() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(codec.encode, chunks))

    return work


def decode(folder: Path, out: Path) -> Callable[[], None]:
    """The decoder alone, on one thread."""
    import imagecodecs
    import pydicom
    from pydicom.encaps import generate_frames

    frames = []
    for path in sorted(folder.iterdir()):
        ds = pydicom.dcmread(path)
        frames += [next(generate_frames(ds.PixelData, number_of_frames=1))]
        j2k = "2000" in ds.file_meta.TransferSyntaxUID.name

    def work() -> None:
        for frame in frames:
            if j2k:
                imagecodecs.jpeg2k_decode(frame, numthreads=1)
            else:
                imagecodecs.jpegls_decode(frame)

    return work


# ------------------------------------------------------------------------------------------------ peers
def _by_pydicom(folder: Path) -> np.ndarray:
    import pydicom

    found = sorted((pydicom.dcmread(p) for p in folder.iterdir()), key=lambda ds: ds.ImagePositionPatient[2])
    return np.stack([
        ds.pixel_array.astype("int16") * np.int16(ds.RescaleSlope) + np.int16(ds.RescaleIntercept) for ds in found
    ])  # fmt: skip


def _by_dicomsdl(folder: Path) -> np.ndarray:
    import dicomsdl

    found = sorted((dicomsdl.open(str(p)) for p in folder.iterdir()), key=lambda ds: float(ds.ImagePositionPatient[2]))
    return np.stack([ds.pixelData(storedvalue=True) + np.int16(ds.RescaleIntercept) for ds in found])


def _write(out: Path, hu: np.ndarray) -> None:
    import zarr
    from zarr.codecs import BloscCodec

    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=2)
    array = zarr.create_array(str(out), shape=hu.shape, dtype="int16", chunks=CHUNK, shards=SHARD, compressors=blosc)
    array[:] = hu


def pydicom_zarr(folder: Path, out: Path) -> None:
    _write(out, _by_pydicom(folder))


def dicomsdl_zarrs(folder: Path, out: Path) -> None:
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": THREADS}):
        _write(out, _by_dicomsdl(folder))


def simpleitk_zarr(folder: Path, out: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    _write(out, sitk.GetArrayFromImage(image).astype(np.int16))


# ------------------------------------------------------------------------------------------------ ours
@contextmanager
def _ctpipe(*, pyramid: bool, sync: bool) -> Iterator[Callable[[Path, Path], None]]:
    """One worker with two threads, in this process."""
    from distributed import Client, LocalCluster

    import ctpipe
    from ctpipe.store import files, writer

    if not sync:
        files.sync = lambda descriptor: None
    if not pyramid:
        all_levels = writer.pyramid_levels
        writer.pyramid_levels = lambda grid: all_levels(grid)[:1]
    local: dict[str, Any] = {"processes": False, "dashboard_address": None, "memory_limit": 0}
    with LocalCluster(n_workers=1, threads_per_worker=THREADS, **local) as cluster, Client(cluster) as client:
        yield lambda folder, out: _taken(ctpipe.ingest(folder, out, client=client))


def _taken(report: Any) -> None:
    if len(report.volumes) != 1:
        raise SystemExit(f"ctpipe took {len(report.volumes)} volumes of the made series")


OURS = {
    "ctpipe-level0": {"pyramid": False, "sync": False},
    "ctpipe": {"pyramid": True, "sync": False},
    "ctpipe-sync": {"pyramid": True, "sync": True},
}
WHOLE: dict[str, Callable[[Path, Path], None]] = {
    "cp": copy_files, "pydicom+zarr": pydicom_zarr, "dicomsdl+zarrs": dicomsdl_zarrs, "simpleitk+zarr": simpleitk_zarr,
}  # fmt: skip
PREPARED: dict[str, Callable[[Path, Path], Callable[[], None]]] = {"compressor": compress, "decoder": decode}


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, CPU seconds of this process)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(way: str, folder: Path, out: Path, repeats: int) -> dict[str, float]:
    """The best of `repeats`, after one that is not counted."""

    def once(work: Callable[[], Any]) -> tuple[float, float]:
        shutil.rmtree(out, ignore_errors=True)
        return timed(work)

    if way in OURS:
        with _ctpipe(**OURS[way]) as ingest:
            runs = [once(lambda: ingest(folder, out)) for _ in range(repeats + 1)]
    else:
        work = PREPARED[way](folder, out) if way in PREPARED else lambda: WHOLE[way](folder, out)
        runs = [once(work) for _ in range(repeats + 1)]
    shutil.rmtree(out, ignore_errors=True)
    return {"seconds": min(wall for wall, _ in runs[1:]), "cpu": min(cpu for _, cpu in runs[1:])}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
