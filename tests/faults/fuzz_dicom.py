"""Fuzzes what ingest does with hostile files, by coverage, for as long as you like; run by hand (atheris, Apache-2.0).

::

    pip install atheris
    python tests/faults/fuzz_dicom.py -max_total_time=3600 CORPUS

CORPUS: a folder that libFuzzer adds to, filled with small series first where it is empty; any DICOM files, and .zip or
.tar archives of them, may be put into it. The run stops at the first fault (an exception that is no verdict, 10 s,
2 GiB) and leaves the bytes in `crash-…` beside it: give that file in place of CORPUS to see it again. Every fault
becomes a case of test_fuzz_ingest.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))  # builders.py

with atheris.instrument_imports(include=["ctpipe.dicom", "pydicom"]):
    import pydicom.filereader
    import pydicom.pixels  # noqa: F401

    import ctpipe.dicom.archives
    import ctpipe.dicom.checking
    import ctpipe.dicom.headers
    import ctpipe.dicom.pixels
    import ctpipe.dicom.volumes  # noqa: F401

import mutants
import targets

from ctpipe.dicom.archives import archive_kind

NUMBER = 1 << 32


def one(data: bytes) -> None:
    """Archives alone; all else as a plane of a series."""
    if archive_kind(data[:512]):
        targets.archive_target(data, "a.zip")
    else:
        targets.dicom_target(data, "explicit")


def mutator(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's own mutations, and every other time one that knows where elements lie."""
    if seed % 2:
        return atheris.Mutate(data, max_size)
    return mutants.mutate(data, [(seed >> 1, seed * 2654435761 % NUMBER, seed * 40503 % NUMBER)])[:max_size]


def main() -> None:
    os.environ["CTPIPE_KEY"] = str(Path(tempfile.mkdtemp(prefix="ctpipe-fuzz-key-")) / "key")
    options = [a for a in sys.argv[1:] if a.startswith("-")]
    folders = [Path(a) for a in sys.argv[1:] if not a.startswith("-")]
    for folder in folders:
        if folder.suffix or folder.is_file():
            continue
        folder.mkdir(exist_ok=True)
        if not any(folder.iterdir()):
            for name in mutants.SYNTAXES:
                (folder / name).write_bytes(mutants.plane_files(name)[1])
    wanted = {"-timeout": targets.SECONDS, "-rss_limit_mb": 2048, "-max_len": 1 << 16}
    stated = {option.partition("=")[0] for option in options}
    options += [f"{name}={value}" for name, value in wanted.items() if name not in stated]
    atheris.Setup([sys.argv[0], *options, *map(str, folders)], one, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
