"""The adversarial corpus through `ctpipe ingest`: what check_store.py calls for every entry.

    make corpus        prints how many entries pass, and what is wrong with the others
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ctpipe.cli import main
from ctpipe.dicom import write_ct_series
from ctpipe.store import open_store
from ctpipe.volume import Grid


def load_everything() -> None:
    """One ingest before the first fork, so that not every child imports zarr, pandas and the rest anew."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        grid = Grid.from_affine((3, 8, 8), np.diag([2.0, 1.0, 1.0, 1.0]))
        write_ct_series(folder / "in", np.zeros((3, 8, 8), np.int16), grid, patient="W", study_key="w")
        with contextlib.redirect_stderr(io.StringIO()):
            main(["ingest", str(folder / "in"), "--store", str(folder / "S"), "--json"])
        series = next(iter(open_store(folder / "S").values()))
        series.read_planes(0, 3)
        series.planes.to_csv()


load_everything()


Run = Callable[[list[str]], tuple[int, str, str]]  # words -> exit code, stdout, stderr


def here(words: list[str]) -> tuple[int, str, str]:
    """The command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def by_command(words: list[str]) -> tuple[int, str, str]:
    """The command as a user starts it."""
    done = subprocess.run([sys.executable, "-m", "ctpipe.cli", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def adapter(entry: Path) -> list[tuple[Any, ...]]:
    """Every entry by `ctpipe ingest`, and the same verdicts by `ctpipe check`, in this process."""
    taken = ingested(entry, here)
    code, out, err = here(["check", str(entry), "--json"])
    if code == 2:
        raise RuntimeError(f"usage error: {err}")
    checked = sorted((volume["verdict"], volume["reason"], volume["files"]) for volume in json.loads(out)["volumes"])
    told = sorted((volume["verdict"], volume["reason"], volume["files"]) for volume in taken[0])
    if checked != told:
        raise RuntimeError(f"check says {checked}, ingest {told}")
    return taken[1]


def command_adapter(entry: Path) -> list[tuple[Any, ...]]:
    """An entry by the command line."""
    return ingested(entry, by_command)[1]


def straightening_adapter(entry: Path) -> list[tuple[Any, ...]]:
    """With tilted series resampled."""
    return ingested(entry, here, "--on-tilt", "resample")[1]


def ingested(entry: Path, run: Run, *options: str) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    """(what the command told, and what it committed in the form of check_store.py) of an entry's folder."""
    folder = Path(tempfile.mkdtemp(prefix="corpus-"))
    code, out, err = run(["ingest", str(entry), "--store", str(folder / "S"), "--json", *options])
    if code not in (0, 3):
        raise RuntimeError(f"exit code {code}: {err}")
    document = json.loads(out)
    wrong = code != (3 if document["summary"]["reject"] or not any("id" in v for v in document["volumes"]) else 0)
    if wrong:
        raise RuntimeError(f"exit code {code} for {document['summary']}")
    store = open_store(folder / "S")
    told = {"text": out + err, "paths": [str(folder / "S")]}
    results: list[tuple[Any, ...]] = []
    for volume in document["volumes"]:
        reason = f"{volume['reason']}: {volume['detail']}; {volume['cure']}"
        if "id" not in volume:
            results.append((volume["verdict"], reason, None, None, told))
            continue
        series = store[volume["id"]]
        kept = json.dumps([series.attributes, series.provenance]) + series.planes.to_csv()
        info = {**told, "text": told["text"] + kept, "notes": series.provenance["notes"],
                "n_padded": series.attributes.get("padded_voxels", 0)}  # fmt: skip
        hu = series.read_planes(0, series.grid.shape.z)
        results.append((volume["verdict"], reason, np.asarray(volume["affine"]), hu, info))
    return document["volumes"], results
