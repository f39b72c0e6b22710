"""The adversarial corpus through `ctpipe ingest`: what check_store.py calls for every entry.

    make corpus        prints how many entries pass, and what is wrong with the others
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
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


def adapter(entry: Path) -> list[tuple[Any, ...]]:
    """Run the command on an entry's folder and read back what it committed, in the form of check_store.py."""
    folder = Path(tempfile.mkdtemp(prefix="corpus-"))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["ingest", str(entry), "--store", str(folder / "S"), "--json"])
    if code == 2:
        raise RuntimeError(f"usage error: {err.getvalue()}")
    document = json.loads(out.getvalue())
    store = open_store(folder / "S")
    told = {"text": out.getvalue() + err.getvalue(), "paths": [str(folder / "S")]}
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
    return results
