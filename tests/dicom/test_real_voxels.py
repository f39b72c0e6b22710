"""Every accepted real series, voxel by voxel and in patient coordinates, against SimpleITK on the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from ctpipe.dicom import VolumeSource, check, read_planes

pytestmark = pytest.mark.real

ARCHIVES = [
    *(f"sts/STS_{n:03d}/CT.zip" for n in (2, 3, 8, 12, 15, 18, 19, 24, 25, 26, 32, 35, 41, 42, 50, 51)),
    "ibsi1_lung/CT.zip",
    "vendors/philips_ingenuity_study/STUDY.zip",
    "vendors/ge_lightspeed_ultra_seg/CT.zip",
    "vendors/siemens_definition_multiframe_sc/CLASSIC.zip",
    "vendors/ge_dicomdir_tree/TREE.zip",
    pytest.param("ircadb01/3Dircadb1.1/PATIENT_DICOM.zip", marks=pytest.mark.slow),
    "ircadb01/3Dircadb1.7/PATIENT_DICOM.zip",
]


def _by_simpleitk(source: VolumeSource, folder: Path) -> sitk.Image:
    """SimpleITK's reading of the planes' files, copied out of their archive under names without meaning."""
    names = []
    for number, plane in enumerate(source.planes):
        path = folder / f"{(number * 7919) % 10007:05d}.dcm"
        path.write_bytes(plane.locator.read())
        names.append(str(path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader.Execute()


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_same_hu_at_the_same_place(real_data: Path, archive: str, tmp_path: Path) -> None:
    """RELIABILITY V6, V9: 500 random voxels, the corners and every voxel of the array; places within a micrometre."""
    sources = [verdict.source for verdict in check(real_data / archive) if verdict.source is not None]
    assert sources
    for source in sources:
        image = _by_simpleitk(source, tmp_path)
        hu = read_planes(source, 0, source.grid.shape.z)
        theirs = sitk.GetArrayViewFromImage(image).astype(np.float64)
        assert theirs.shape == hu.shape
        rng = np.random.default_rng(0)
        last = np.asarray(source.grid.shape) - 1
        places = np.concatenate([rng.integers(0, last + 1, (500, 3)), [[0, 0, 0], last, [0, last[1], 0]]])
        for index, point in zip(places, source.grid.to_lps(places), strict=True):
            at = np.asarray(image.TransformPhysicalPointToContinuousIndex(point.tolist()))[::-1]
            assert np.allclose(at, index, atol=1e-3)
        # padding, which SimpleITK does not know, is -1024 HU here and below that there (policy 4)
        assert np.array_equal(hu, np.where(theirs < -1024, np.where(hu == -1024, -1024, theirs), theirs))
