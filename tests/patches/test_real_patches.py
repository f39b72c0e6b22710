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
from distributed import Client, LocalCluster

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
def test_the_original_windows_over_a_whole_series_are_held_by_two_workers_of_two_gibibytes(real_data, tmp_path):
    """257 x 257 at stride 7, as in 2019: what CAS copied 1,350 times over."""
    case = real_data / "ircadb01" / "3Dircadb1.1"
    ctpipe.ingest([case / "PATIENT_DICOM.zip"], tmp_path / "S", labels=[case / "MASKS_DICOM.zip"],
                  classes="liver=1,livertumor=2")
    with (LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", memory_limit="2GiB",
                       dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
          Client(cluster) as client):  # fmt: skip
        table = patch_table(tmp_path / "S", (1, 257, 257), (1, 7, 7), client=client).persist()
        held = table.memory()
        resident = held["index"] + held["pixels_resident"]
        print(f"{len(table)} rows of {table.row_bytes} B; resident {resident / 2**20:.0f} MiB, "
              f"copied patches {held['pixels_materialised'] / 2**30:.0f} GiB")
        assert len(table) == 129 * 74 * 74
        assert held["pixels_materialised"] / resident >= 1000
        assert table.count("label").sum() == len(table)


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
