"""Real CT (soft-tissue sarcomas): a drawn lesion out in every kind and back, the same in patient coordinates."""

from __future__ import annotations

import zipfile
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import trimesh
from exports_made import dcmqi_on_grid, faults, on_grid, sitk_on_grid

import ctpipe
from ctpipe.pipeline import export
from ctpipe.scoring import measure
from ctpipe.store import Series, open_store

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=[pytest.param("STS_002", marks=pytest.mark.slow), "STS_019"])
def case(request, real_data, tmp_path_factory) -> tuple[Path, Path]:
    """(store, archive of the CT) of one patient, with the lesion that RTSTRUCT draws."""
    folder = real_data / "sts" / request.param
    store = tmp_path_factory.mktemp("sts") / "S"
    ctpipe.ingest([folder / "CT.zip"], store, labels=[folder / "CT_mask.nii.gz"], classes="lesion=1:CT_mask")
    return store, folder / "CT.zip"


def series_of(store: Path) -> tuple[Series, np.ndarray]:
    (series,) = open_store(store).values()
    return series, series.labels["truth"].array.values


def test_a_lesion_goes_out_and_comes_back_in_every_kind(case, tmp_path):
    store, source = case
    series, labels = series_of(store)
    with zipfile.ZipFile(source) as archive:
        first = next(name for name in archive.namelist() if not name.endswith("/"))
        (tmp_path / "ct.dcm").write_bytes(archive.read(first))
    true = pydicom.dcmread(tmp_path / "ct.dcm", stop_before_pixels=True)
    of_the_source = set(faults(tmp_path / "ct.dcm"))  # a Study ID that is too long: it goes back as it came
    for kind, form, name in (("seg", "binary", "b.dcm"), ("seg", "labelmap", "l.dcm"), ("rtstruct", "binary", "r.dcm"),
                             ("sr", "binary", "m.dcm")):  # fmt: skip
        export(store, series.id, "truth", kind, tmp_path / name, source=[source], form=form)
        assert set(faults(tmp_path / name)) <= of_the_source
    for kind, name in (("nifti", "n.nii.gz"), ("stl", "s.stl")):
        export(store, series.id, "truth", kind, tmp_path / name)
    for name in ("b.dcm", "l.dcm"):
        volume = highdicom.seg.segread(tmp_path / name).get_volume(combine_segments=True)
        assert np.array_equal(on_grid(volume.array, volume.affine, series.grid), labels)
        masks, _ = dcmqi_on_grid(tmp_path / name, tmp_path / f"{name}-dcmqi", series.grid)
        assert np.array_equal(masks["lesion"], labels == 1)
    assert np.array_equal(sitk_on_grid(tmp_path / "n.nii.gz", series.grid), labels)
    for number, name in enumerate(("b.dcm", "l.dcm", "r.dcm")):
        back = tmp_path / str(number)
        ctpipe.ingest([source], back, labels=[tmp_path / name], classes="lesion=1")
        assert np.array_equal(series_of(back)[1], labels)
    body = trimesh.load(tmp_path / "s.stl")
    assert body.is_watertight
    ml = sum(one.volume_ml for one in measure(series.labels["truth"].read_planes, None, series.grid, {1: "lesion"}))
    assert body.volume / 1000 == pytest.approx(ml, rel=0.03)
    for name in ("b.dcm", "l.dcm", "r.dcm", "m.dcm"):
        ds = pydicom.dcmread(tmp_path / name, stop_before_pixels=True)
        assert (ds.PatientID, ds.StudyInstanceUID) == (true.PatientID, true.StudyInstanceUID)


def test_volume_place_and_hu_agree_with_simpleitk(case):
    store, _ = case
    series, labels = series_of(store)
    grid = series.grid
    ours = measure(series.labels["truth"].read_planes, series.read_planes, grid, {1: "lesion"})
    image, values = sitk.GetImageFromArray(labels), sitk.GetImageFromArray(series.hu.values)
    for each in (image, values):
        each.SetSpacing(grid.spacing_mm[::-1])
        each.SetOrigin(grid.affine[:3, 3].tolist())
        each.SetDirection(grid.directions[:, [2, 1, 0]].ravel().tolist())
    parts = sitk.ConnectedComponent(image, True)
    shapes, stats = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelStatisticsImageFilter()
    shapes.Execute(parts)
    stats.Execute(values, parts)
    theirs = sorted((shapes.GetPhysicalSize(n) / 1000, *shapes.GetCentroid(n), stats.GetMean(n))
                    for n in shapes.GetLabels())  # fmt: skip
    assert np.allclose(sorted((one.volume_ml, *one.centre_mm, one.hu[0]) for one in ours), theirs, atol=1e-3)
    plane = max(ours, key=lambda one: one.voxels).axes.plane
    flat = sitk.GetImageFromArray((labels[plane] > 0).astype(np.uint8))
    flat.SetSpacing(grid.spacing_mm[:0:-1])
    shapes.ComputeFeretDiameterOn()
    shapes.Execute(sitk.ConnectedComponent(flat, True))
    feret = max(shapes.GetFeretDiameter(n) for n in shapes.GetLabels())  # between centres: a voxel less at most
    assert feret < max(one.axes.long_mm for one in ours) <= feret + max(grid.spacing_mm[1:]) + 1e-6
