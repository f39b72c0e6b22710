"""The plugin as napari finds it: manifest, reader, beside other readers of OME-Zarr. No window."""

from __future__ import annotations

import os
import subprocess
import sys

import npe2
import numpy as np
import pytest
from napari.components import ViewerModel
from review_store import ORIGIN, RUN, SERIES, SPACING, phantom, write_volume

from ctpipe.errors import UsageError
from ctpipe.review import view
from ctpipe.review.reader import get_reader, read
from ctpipe.store import open_store


def test_the_manifest_is_valid_and_every_command_is_there():
    manifest = npe2.PluginManifest.from_distribution("ctpipe")
    assert manifest.name == "ctpipe"
    manifest.validate_imports()
    assert [reader.accepts_directories for reader in manifest.contributions.readers] == [True]
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["Review worklist"]
    assert [sample.key for sample in manifest.contributions.sample_data] == ["synthetic-patient"]
    assert list(manifest.contributions.menus) == ["napari/layers/annotate"]


def test_npe2_finds_no_fault_in_the_manifest():
    line = [sys.executable, "-W", "ignore", "-m", "npe2", "validate", "ctpipe", "--imports"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout


def test_a_labels_group_opens_alone_and_lies_where_its_volume_lies(store_path):
    npe2.PluginManager.instance().discover()
    folder = store_path / f"{SERIES}.ome.zarr" / "labels" / RUN
    [layer] = ViewerModel().open(folder, plugin="ctpipe")
    assert (layer.name, layer.editable) == (f"prediction {RUN[:8]}", False)
    assert tuple(layer.scale) == pytest.approx(SPACING)
    assert tuple(layer.translate) == pytest.approx((ORIGIN[2], ORIGIN[1], ORIGIN[0]))
    assert np.array_equal(np.asarray(layer.data[0]), phantom()[1])
    assert get_reader(str(folder.parent)) is None
    (folder / "zarr.json").unlink()
    assert get_reader(str(folder)) is None, "not committed"


def test_the_sample_is_a_synthetic_patient_made_once_and_opened_as_any_other(tmp_path, monkeypatch):
    from ctpipe.demo import sample

    npe2.PluginManager.instance().discover()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layers = ViewerModel().open_sample("ctpipe", "synthetic-patient")
    assert layers[0].name.startswith("CT ")
    assert list(layers[1].features["class"]) == ["background", "liver", "livertumor"]
    assert np.asarray(layers[1].data[-1]).max() == 2
    monkeypatch.setattr(sample, "phantom", None)  # the second time nothing is made
    assert len(ViewerModel().open_sample("ctpipe", "synthetic-patient")) == 2
    assert list((tmp_path / "cache").rglob("IM0*")) == [], "the DICOM files are not kept"


def test_a_volume_opens_through_the_plugin_beside_napari_ome_zarr(store_path):
    """RELIABILITY V6: true millimetres, where napari-ome-zarr 0.10 drops the translation."""
    manager = npe2.PluginManager.instance()
    manager.discover()
    assert "napari-ome-zarr" in manager
    viewer = ViewerModel()
    viewer.open(store_path / f"{SERIES}.ome.zarr", plugin="ctpipe")
    image, labels = viewer.layers
    for layer in (image, labels):
        assert tuple(layer.scale) == pytest.approx(SPACING)
        assert tuple(layer.translate) == pytest.approx((ORIGIN[2], ORIGIN[1], ORIGIN[0]))
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        assert layer.visible
    hu, truth = phantom()
    assert np.array_equal(np.asarray(image.data[0]), hu)
    assert np.array_equal(np.asarray(labels.data[0]), truth)
    assert labels.name == f"prediction {RUN[:8]}"
    assert list(labels.features["class"]) == ["background", "liver", "lesion"]
    at = (ORIGIN[2] + 18 * SPACING[0], ORIGIN[1] + 70 * SPACING[1], ORIGIN[0] + 65 * SPACING[2])
    assert labels.get_value(at, world=True)[1] == 2


def test_a_store_of_one_volume_opens_and_one_of_several_asks_which(store_path):
    assert [kind for _, _, kind in read(str(store_path))] == ["image", "labels"]
    write_volume(open_store(store_path, "a"), "8000000000000001", arrays=(phantom()[0], None))
    with pytest.raises(UsageError, match="holds 2 volumes"):
        read(str(store_path))


def test_only_volumes_and_stores_of_ctpipe_are_claimed(store_path, tmp_path):
    assert get_reader(str(store_path / f"{SERIES}.ome.zarr")) is not None
    assert get_reader(str(store_path / f"{SERIES}.ome.zarr/")) is not None
    other = tmp_path / "other.ome.zarr"
    other.mkdir()
    (other / "zarr.json").write_text("{}")
    for path in (other, tmp_path, tmp_path / "absent.ome.zarr", store_path / "planes"):
        assert get_reader(str(path)) is None
    assert get_reader([str(store_path), str(store_path)]) is None


def test_an_uncommitted_volume_is_not_claimed(store_path):
    (store_path / f"{SERIES}.ome.zarr" / "zarr.json").unlink()
    assert get_reader(str(store_path / f"{SERIES}.ome.zarr")) is None


def test_the_preferred_labels_are_shown_and_lie_on_top(store_path):
    from review_store import CLASSES, commit, grid_of

    from ctpipe.store import LabelsMeta
    from ctpipe.words import LabelKind

    store = open_store(store_path, "a")
    meta = LabelsMeta("truth-0123456789abcdef", LabelKind.TRUTH, grid_of(), CLASSES, "uint8", {})
    commit(store, store.labels_writer(SERIES, meta), phantom()[1])
    layers = read(str(store_path / f"{SERIES}.ome.zarr"))
    assert [(options["name"], options.get("visible")) for _, options, _ in layers[1:]] == [
        ("truth 01234567", False),
        (f"prediction {RUN[:8]}", True),
    ]


def test_the_first_half_of_a_model_is_not_what_a_reader_sees_first(store_path):
    """Asking a model about a region leaves the run of the model before it in the store, newer than all others."""
    from review_store import commit, grid_of

    from ctpipe.review.layers import preferred_labels
    from ctpipe.store import LabelsMeta
    from ctpipe.words import LabelKind

    store = open_store(store_path, "a")
    meta = LabelsMeta("5ea1" * 4, LabelKind.PREDICTION, grid_of(), {1: "liver"}, "uint8", {"model": "half"})
    commit(store, store.labels_writer(SERIES, meta), np.minimum(phantom()[1], 1))
    assert preferred_labels(store[SERIES]).name == "5ea1" * 4
    (store_path / "models" / "whole").mkdir(parents=True)
    (store_path / "models" / "whole" / "model.json").write_text('{"before": "half"}')
    assert preferred_labels(store[SERIES]).name == RUN


def test_a_window_of_width_zero_never_reaches_the_viewer(tmp_path):
    root = tmp_path / "narrow"
    write_volume(open_store(root, "a"), SERIES, voi=(40.0, 0.0))
    viewer = ViewerModel()
    data, options, _ = read(str(root))[0]
    assert tuple(viewer.add_image(data, **options).contrast_limits) == (-160.0, 240.0)


def test_importing_the_review_loads_no_napari_and_no_qt():
    script = "import sys, ctpipe.review; print([m for m in ('napari', 'qtpy', 'zarr', 'dask') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_napari_is_said_with_its_cure(monkeypatch):
    monkeypatch.setattr(view.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ctpipe\[review\]'"):
        view.open_review("S")


@pytest.mark.skipif(sys.platform != "linux", reason="X displays")
@pytest.mark.parametrize(("display", "said"), [("", "DISPLAY is not set"), (":4711", "display :4711 does not answer")])
def test_a_missing_display_is_said_and_qt_does_not_end_the_process(monkeypatch, store_path, display, said):
    for name in ("WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(UsageError, match=said):
        view.open_review(store_path)
    assert os.environ["DISPLAY"] == display
