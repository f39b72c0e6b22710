"""Real CT: the pixels of rows are those of the DICOM frames, found by SOP instance; the guide's commands run."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

import ctpipe
from ctpipe.patches import patch_table

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "patches.md"
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def case(real_data) -> Path:
    return real_data / "sts" / "STS_002"


@pytest.fixture(scope="module")
def root(case, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("real") / "S"
    report = ctpipe.ingest([case / "CT.zip"], store, labels=[case / "CT_mask.nii.gz"], classes="lesion=1:CT_mask",
                           keep_uids=True)
    assert len(report.volumes) == 1
    return store


def frames_of(archive: Path) -> dict[str, np.ndarray]:
    """{SOP instance UID: HU} of every frame, read by pydicom alone."""
    found = {}
    with zipfile.ZipFile(archive) as members:
        for name in members.namelist():
            if not name.endswith("/"):
                ds = pydicom.dcmread(io.BytesIO(members.read(name)))
                hu = ds.pixel_array.astype(np.float64) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
                found[str(ds.SOPInstanceUID)] = hu.astype(np.int16)
    return found


@pytest.mark.parametrize(("window", "pad"), [((1, 31, 31), "edge"), ((1, 257, 257), "constant")])
def test_ten_thousand_random_rows_have_the_pixels_of_their_dicom_frames(root, case, window, pad):
    frames = frames_of(case / "CT.zip")
    table = patch_table(root, window, (1, 3, 3), pad)
    rows = table.sample(10_000, 11)
    instances = table.instances(rows).to_numpy()
    half = [w // 2 for w in window[1:]]
    padded = {uid: np.pad(hu, [(h, h) for h in half], **({"mode": "edge"} if pad == "edge" else
                                                       {"constant_values": -1024})) for uid, hu in frames.items()}
    for at in range(0, len(rows), 500):
        some = rows.iloc[at:at + 500]
        pixels = table.fetch(some)
        for patch, uid, y, x in zip(pixels, instances[at:at + 500], some["y"], some["x"], strict=True):
            assert np.array_equal(patch[0], padded[uid][y:y + window[1], x:x + window[2]])


def test_the_table_of_a_real_series_is_a_thousandth_of_its_copies(root):
    table = patch_table(root)
    rows = table.compute()
    held = int(rows.memory_usage(index=False, deep=False).sum())
    assert table.pixel_bytes / held > 1000
    assert rows["fraction_lesion"].max() > 0


@pytest.mark.slow
def test_the_commands_of_the_guide_run_as_they_stand(case, tmp_path):
    """Blocks of the guide, in their order: bash as the shell gets it, Python in one process."""
    text = GUIDE.read_text("utf-8")
    blocks = re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    environment = os.environ | {"DATA": str(case), "MPLBACKEND": "agg"}
    python = ""
    for language, code in blocks:
        if language == "python":
            python += code
            continue
        shell = f'ctpipe() {{ "{sys.executable}" -m ctpipe.cli "$@"; }}\nset -e\n{code}'
        done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
    done = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
