"""DICOM to OME-Zarr, ours beside a reader that many use: a whole process each, on one made series.

python benchmarks/ingest.py [--planes N] [--json]

Ours judges the series, keeps planes, digests and checksums and makes the pyramid; SimpleITK with zarr-python reads the
folder and writes level 0 with the same chunks and codec. CPU seconds and peak memory are the steadier columns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ctpipe.dicom import write_ct_series
from ctpipe.volume import Grid

OURS = "from ctpipe import pipeline; pipeline.ingest(sys.argv[1], sys.argv[2])"
THEIRS = """
import SimpleITK as sitk, numpy as np, zarr
from zarr.codecs import BloscCodec
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
image = reader.Execute()
hu = sitk.GetArrayFromImage(image).astype(np.int16)
array = zarr.create_array(sys.argv[2], shape=hu.shape, dtype="int16", chunks=(16, 128, 128),
                          shards=(32, -(-hu.shape[1] // 128) * 128, -(-hu.shape[2] // 128) * 128),
                          compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"))
array[:] = hu
"""
MEASURE = """
import resource, sys, time
began = time.monotonic()
{work}
use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
# not ru_maxrss: that of the parent counts as the child's
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.monotonic() - began, sum(u.ru_utime + u.ru_stime for u in use), peak)
"""


def series(folder: Path, planes: int) -> None:
    """A 512 x 512 series of a round body with noise, 0.8 x 0.8 x 2 mm."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:512, :512]
    body = np.hypot((y - 256) / 180, (x - 256) / 220) < 1
    hu = np.where(body, 40, -1000) + rng.normal(0, 13, (planes, 512, 512)) * body
    affine = np.array([[0, 0, 0.8, -200], [0, 0.8, 0, -200], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    grid = Grid.from_affine(hu.shape, affine)
    write_ct_series(folder, np.rint(hu).astype(np.int16), grid, patient="B", study_key="b")


def measure(work: str, *arguments: Path) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak MiB) of one fresh process, imports left in."""
    script = MEASURE.format(work=work)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu, peak = map(float, done.stdout.split())
    return wall, cpu, peak


def main() -> None:
    """Run both, print the table, and with --json one object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=96)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["CTPIPE_KEY"] = str(root / "key")
        series(root / "in", args.planes)
        ours = measure(OURS, root / "in", root / "S")
        theirs = measure(THEIRS, root / "in", root / "theirs.zarr")
    print(f"{args.planes} planes of 512 x 512     seconds   CPU s   peak MiB")
    for label, row in (("ctpipe, with pyramid", ours), ("SimpleITK + zarr, level 0", theirs)):
        print(f"{label:26}  {row[0]:8.2f}  {row[1]:6.2f}  {row[2]:8.0f}")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"{'ours / theirs':26}  {ratios[0]:8.2f}  {ratios[1]:6.2f}  {ratios[2]:8.2f}")
    if args.json:
        print(json.dumps({"wall": ratios[0], "cpu": ratios[1], "peak": ratios[2]}))


if __name__ == "__main__":
    main()
