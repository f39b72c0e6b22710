"""Bad input, one fault a test: one clear line on stderr, the exit code of DESIGN 8, no traceback, nothing lost."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ctpipe.cli import main
from ctpipe.dicom import write_ct_series
from ctpipe.volume import Grid

TWO_CLASSES = """
name = "two"
network = "vgg-small"
classes = ["liver", "livertumor"]
windows = { window = [1, 44, 44], stride = [1, 4, 4] }
train = { steps = 2, epochs = 1, batch = 2 }
predict = { stride = [1, 4, 4] }
"""
AFFINE = np.array([[0, 0, 0.8, -20.0], [0, 0.8, 0, -20.0], [2.0, 0, 0, 5.0], [0, 0, 0, 1]])


def series(folder: Path, key: str = "a", planes: int = 8) -> list[Path]:
    rng = np.random.default_rng(len(key))
    hu = rng.integers(-1000, 1000, (planes, 24, 28)).astype(np.int16)
    return write_ct_series(folder, hu, Grid.from_affine(hu.shape, AFFINE), patient=f"P{key}", study_key=key)


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of one command; argparse's own exit is an exit code like any other."""
    try:
        code = main([str(word) for word in argv])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def fault_lines(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("ctpipe")]


def test_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "ingest", tmp_path / "empty", "--store", tmp_path / "S")
    assert code == 3
    assert len(fault_lines(err)) == 1
    assert "there are no files under the given paths" in err


def test_a_folder_with_no_ct(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no DICOM here")
    code, out, err = run(capsys, "ingest", tmp_path / "notes", "--store", tmp_path / "S")
    assert code == 3
    assert "set aside: 1 file(s) not-dicom" in out
    assert len(fault_lines(err)) == 1


def test_a_path_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "check", tmp_path / "nowhere")
    assert code == 2
    assert len(fault_lines(err)) == 1
    assert "cure:" in err


def test_a_truncated_file_among_good_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = series(tmp_path / "in" / "broken", "broken")[3]
    series(tmp_path / "in" / "good", "good")
    broken.write_bytes(broken.read_bytes()[:-300])
    code, out, _ = run(capsys, "ingest", tmp_path / "in", "--store", tmp_path / "S", "--json")
    report = json.loads(out)
    assert code == 3
    assert report["summary"]["accept"] == 1
    assert [v["reason"] for v in report["volumes"] if v["verdict"] == "reject"] == ["truncated"]
    code, out, _ = run(capsys, "ls", tmp_path / "S", "--json")
    assert (code, len(json.loads(out))) == (0, 1)


def test_a_missing_slice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    series(tmp_path / "in")[4].unlink()
    code, out, _ = run(capsys, "ingest", tmp_path / "in", "--store", tmp_path / "S")
    assert code == 3
    assert "rejected (gap)" in out
    assert "cure:" in out


@pytest.mark.parametrize("verb", ["ls", "verify", "infer", "train", "evaluate", "review", "gc"])
def test_a_store_path_that_is_not_a_store(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").write_text("mine")
    more = {"infer": ["--model", "m"], "train": ["--recipe", "demo", "--out", tmp_path / "m"],
            "evaluate": ["--run", "1"]}  # fmt: skip
    code, _, err = run(capsys, verb, tmp_path / "other", *more.get(verb, []))
    assert code == 2
    assert "is no store" in err or "not a store" in err
    assert len(fault_lines(err)) == 1
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["file.txt"]


def test_ingest_into_a_folder_that_is_not_a_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    series(tmp_path / "in")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").write_text("mine")
    code, _, err = run(capsys, "ingest", tmp_path / "in", "--store", tmp_path / "other")
    assert code == 2
    assert len(fault_lines(err)) == 1
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["file.txt"]


class _Canary:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def test_a_model_that_is_a_pickle_is_refused_unread(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """RELIABILITY X3: the canary file is not made."""
    series(tmp_path / "in")
    assert run(capsys, "ingest", tmp_path / "in", "--store", tmp_path / "S")[0] == 0
    (tmp_path / "model.pt").write_bytes(pickle.dumps(_Canary(tmp_path / "canary")))
    code, _, err = run(capsys, "infer", tmp_path / "S", "--model", tmp_path / "model.pt")
    assert code == 2
    assert len(fault_lines(err)) == 1
    assert "pickle" in err
    assert not (tmp_path / "canary").exists()


def test_a_model_folder_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    series(tmp_path / "in")
    assert run(capsys, "ingest", tmp_path / "in", "--store", tmp_path / "S")[0] == 0
    code, _, err = run(capsys, "infer", tmp_path / "S", "--model", tmp_path / "in")
    assert code == 2
    assert "is no model" in err


def test_labels_without_classes_and_a_class_that_takes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from ctpipe.dicom import write_mask_series

    series(tmp_path / "in")
    mask = np.zeros((8, 24, 28), bool)
    mask[2:5, 5:9, 5:9] = True
    masks = write_mask_series(tmp_path / "in", {"liver": mask}, Grid.from_affine(mask.shape, AFFINE), patient="Pa",
                              study_key="a")  # fmt: skip
    given = ["ingest", tmp_path / "in", "--store", tmp_path / "S", "--labels", masks]
    code, _, err = run(capsys, *given)
    assert code == 2
    assert "no classes" in err
    code, _, err = run(capsys, *given, "--classes", "liver=1,spleen=2")
    assert code == 2
    assert "spleen" in err
    assert "liver" in err


def test_a_class_that_the_table_lacks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ctpipe.dicom import write_mask_series

    for key in ("a", "bb"):
        series(tmp_path / key, key)
        mask = np.zeros((8, 24, 28), bool)
        mask[2:5, 5:9, 5:9] = True
        masks = write_mask_series(tmp_path / key, {"liver": mask}, Grid.from_affine(mask.shape, AFFINE),
                                  patient=f"P{key}", study_key=key)  # fmt: skip
        given = ["ingest", tmp_path / key, "--store", tmp_path / "S", "--labels", masks, "--classes", "liver=1"]
        assert run(capsys, *given)[0] == 0
    (tmp_path / "two.toml").write_text(TWO_CLASSES)
    code, _, err = run(capsys, "train", tmp_path / "S", "--recipe", tmp_path / "two.toml", "--out", tmp_path / "model")
    assert code == 2
    assert "livertumor" in err
    assert len(fault_lines(err)) == 1


def test_a_full_disk(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELIABILITY S5: exit 4 and how much is missing; what was there stays, and the same command goes on later."""
    from ctpipe.store import files

    series(tmp_path / "first", "first")
    series(tmp_path / "second", "seconds")
    assert run(capsys, "ingest", tmp_path / "first", "--store", tmp_path / "S")[0] == 0

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as shim:
        shim.setattr(files, "sync", full)
        code, _, err = run(capsys, "ingest", tmp_path / "second", "--store", tmp_path / "S")
    assert code == 4
    assert len(fault_lines(err)) == 1
    assert "full" in err
    assert len(json.loads(run(capsys, "ls", tmp_path / "S", "--json")[1])) == 1
    assert run(capsys, "ingest", tmp_path / "second", "--store", tmp_path / "S")[0] == 0
    assert len(json.loads(run(capsys, "ls", tmp_path / "S", "--json")[1])) == 2


def test_a_typo_in_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "ingset", "x")
    assert code == 2
    assert "ingest" in err
    assert len(fault_lines(err)) == 1


def test_a_bug_is_one_line_and_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctpipe import store

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("SECRET^NAME")

    monkeypatch.setattr(store, "open_store", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, _, err = run(capsys, "ls", tmp_path)
    assert code == 1
    assert len(fault_lines(err)) == 1
    assert "SECRET" not in err
    [saved] = tmp_path.glob("ctpipe-bug-*.txt")
    assert "ZeroDivisionError" in saved.read_text()


def test_rot_is_found_by_verify_and_never_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """RELIABILITY S3: a flipped bit in a shard and a flipped digit in the commit are errors, never other voxels."""
    series(tmp_path / "in")
    assert run(capsys, "ingest", tmp_path / "in", "--store", tmp_path / "S")[0] == 0
    assert run(capsys, "verify", tmp_path / "S")[0] == 0
    shutil.copytree(tmp_path / "S", tmp_path / "T")
    [shard] = (tmp_path / "S").glob("*.ome.zarr/0/c/0/0/0")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    code, out, _ = run(capsys, "verify", tmp_path / "S")
    assert code == 3
    assert "1 fault" in out
    [commit] = (tmp_path / "T").glob("*.ome.zarr/zarr.json")
    text = commit.read_text()
    place = text.index("affine") + next(i for i, c in enumerate(text[text.index("affine") :]) if c.isdigit())
    commit.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    assert run(capsys, "verify", tmp_path / "T")[0] == 3
    assert run(capsys, "ls", tmp_path / "T")[0] == 3


def test_doctor_fails_only_where_something_needed_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctpipe import doctor

    optional = doctor.Line("display", ok=False, found="none", cure="a desktop", needed=False)
    monkeypatch.setattr(doctor, "examine", lambda: [optional])
    assert run(capsys, "doctor")[0] == 0
    monkeypatch.setattr(doctor, "examine", lambda: [optional, doctor.Line("zarr", ok=False, found="none", cure="pip")])
    assert run(capsys, "doctor")[0] == 3
