"""As many files as an archive has: memory stays flat, and a second call opens only what changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import builders
import pytest

PER_SERIES = 250
# looks at every file, alone in a process, so that the peak of memory is its own; prints opened, series, growth in MiB
LOOK = """
import sys
from pathlib import Path
from ctpipe.dicom.checking import Examination
from ctpipe.dicom.arrange import Options
from ctpipe.dicom.identity import Pseudonyms

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

folder, kept = map(Path, sys.argv[1:])
names = Pseudonyms(b"k" * 32)
with Examination([next(folder.iterdir())], names, Options()) as few:  # imports and caches
    few.index.series()
before = peak()
with Examination([folder], names, Options(), kept_in=kept) as found:
    print(found.index.opened, len(found.index.series()), peak() - before)
"""


def many(folder: Path, count: int) -> None:
    """Series of PER_SERIES planes of 4 x 4, each file the same but for digits in its UIDs and its position."""
    of_series, of_plane, height = "1.2.826.0.1.3680043.10.77.", "1.2.826.0.1.3680043.10.78.", "1000.0"
    plane = builders.ct_series(
        builders.hu_block((1, 4, 4)),
        edit=builders.setter(
            SeriesInstanceUID=f"{of_series}10000",
            SOPInstanceUID=f"{of_plane}100000000",
            ImagePositionPatient=["0", "0", height],
        ),
    )[0]
    for number in range(count):
        series, z = divmod(number, PER_SERIES)
        inside = folder / f"s{series}"
        if z == 0:
            inside.mkdir(parents=True)
        data = plane.replace(f"{of_plane}100000000".encode(), f"{of_plane}{100000000 + number}".encode())
        data = data.replace(f"{of_series}10000".encode(), f"{of_series}{10000 + series}".encode())
        (inside / f"{z:03d}").write_bytes(data.replace(height.encode(), f"{1000 + z}.0".encode()))


def look(folder: Path, kept: Path) -> tuple[int, int, float]:
    done = subprocess.run([sys.executable, "-c", LOOK, folder, kept], capture_output=True, text=True, check=True)
    opened, series, grown = done.stdout.split()
    return int(opened), int(series), float(grown)


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_is_flat_and_only_what_changed_is_opened_again(tmp_path, count):
    many(tmp_path / "in", count)
    kept = tmp_path / "index.sqlite"
    opened, series, grown = look(tmp_path / "in", kept)
    assert (opened, series) == (count, count // PER_SERIES)
    size = kept.stat().st_size / count
    print(f"{count} files: peak of memory grew by {grown:.1f} MiB, index of {size:.0f} bytes a file")
    assert grown < 48  # a list of 100,000 headers would be some 400 MiB
    assert look(tmp_path / "in", kept)[:2] == (0, count // PER_SERIES)
    changed = sorted((tmp_path / "in").rglob("00*"))[:7]
    for path in changed:
        os.utime(path, (1, 1))
    changed[0].unlink()
    (tmp_path / "in" / "new").write_bytes(changed[1].read_bytes())
    assert look(tmp_path / "in", kept)[0] == 7  # six touched ones and the new one
