"""Other readers of OME-Zarr open what ctpipe writes: plain zarr, and three validators, without a complaint."""

from __future__ import annotations

import numpy as np
import pytest
from store_made import ID, hu, labels, store_of

from ctpipe.volume import pyramid_levels

SHAPE = (40, 150, 270)
SPACING = (0.5, 0.7, 0.8)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("readers") / "s", SHAPE, spacing=SPACING)[ID]


def stated(transformations) -> tuple[list[float], list[float]]:
    by_type = {str(t["type"]): t for t in transformations}
    return list(by_type["scale"]["scale"]), list(by_type["translation"]["translation"])


def check_geometry(series, multiscale) -> None:
    """Scale and translation of every level, in mm, level k half a block further in."""
    levels = pyramid_levels(series.grid)
    assert len(multiscale["datasets"]) == len(levels) == 3
    for level, dataset in zip(levels, multiscale["datasets"], strict=True):
        scale, translation = stated(dataset["coordinateTransformations"])
        np.testing.assert_allclose(scale, np.array(SPACING) * level.factors)
        half = np.array(SPACING) * (np.array(level.factors) - 1) / 2
        np.testing.assert_allclose(translation, np.array([11.3, -203.7, -101.1]) + half)
        assert min(scale) > 0
    assert [axis["unit"] for axis in multiscale["axes"]] == ["millimeter"] * 3
    assert [axis["orientation"]["value"] for axis in multiscale["axes"]] == [
        "inferior-to-superior",
        "anterior-to-posterior",
        "right-to-left",
    ]


def test_plain_zarr_reads_image_and_labels(series) -> None:
    import zarr

    group = zarr.open_group(str(series.path), mode="r")
    np.testing.assert_array_equal(group["0"][:], hu(SHAPE))
    assert group["0"].metadata.dimension_names == ("z", "y", "x")
    assert group["0"].fill_value == -1024
    check_geometry(series, group.attrs["ome"]["multiscales"][0])
    assert group["labels"].attrs["ome"]["labels"] == ["beef01", "truth-aa"]
    truth = group["labels/truth-aa"]
    np.testing.assert_array_equal(truth["0"][:], labels(SHAPE))
    check_geometry(series, truth.attrs["ome"]["multiscales"][0])
    assert sorted(name for name, _ in group.members()) == ["0", "1", "2", "labels"]


def test_yaozarrs_finds_no_fault(series) -> None:
    import yaozarrs

    for path in (series.path, series.path / "labels", series.path / "labels/truth-aa"):
        yaozarrs.validate_zarr_store(str(path))


def test_ome_zarr_models_finds_no_fault(series) -> None:
    import ome_zarr_models
    import zarr

    for path in (series.path, series.path / "labels", series.path / "labels/truth-aa"):
        opened = ome_zarr_models.open_ome_zarr(zarr.open_group(str(path), mode="r"), version="0.5")
        assert type(opened).__name__ == {"labels": "Labels", "truth-aa": "ImageLabel"}.get(path.name, "Image")


def test_ngff_zarr_reads_image_and_labels_in_millimetres(series) -> None:
    import ngff_zarr

    for path, voxels in ((series.path, hu(SHAPE)), (series.path / "labels/truth-aa", labels(SHAPE))):
        read = ngff_zarr.from_ngff_zarr(str(path), validate=True)
        image = read.images[0]
        np.testing.assert_array_equal(np.asarray(image.data), voxels)
        assert image.scale == pytest.approx(dict(zip("zyx", SPACING, strict=True)))
        assert image.translation == pytest.approx({"z": 11.3, "y": -203.7, "x": -101.1})
        assert set(image.axes_units.values()) == {"millimeter"}


def test_an_oblique_volume_claims_no_orientation(tmp_path) -> None:
    import yaozarrs
    import zarr

    series = store_of(tmp_path / "s", (20, 40, 40), oblique=True)[ID]
    axes = zarr.open_group(str(series.path), mode="r").attrs["ome"]["multiscales"][0]["axes"]
    assert not any("orientation" in axis for axis in axes)
    yaozarrs.validate_zarr_store(str(series.path))
