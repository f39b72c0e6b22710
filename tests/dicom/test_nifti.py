from __future__ import annotations

import gzip
import itertools
import pickle
import shutil
import tempfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from labels_made import KEY, SHAPE, TURNED, ct_by_simpleitk, grid, lopsided, save_nifti, write_nifti

from ctpipe.dicom import ClassTable, label_planes, match_structures, read_structures
from ctpipe.errors import InputError
from ctpipe.words import VerdictKind

AXES = list(itertools.permutations(range(3)))


def ras(on):
    """(i, j, k) = (x, y, z) index -> RAS mm."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = on.affine[:3, [2, 1, 0]], on.affine[:3, 3]
    return np.diag([-1.0, -1, 1, 1]) @ out


def reordered(array, affine, axes, flips):
    """The same voxels at the same places, axes swapped, then some of them reversed."""
    array, affine = array.transpose(axes), affine[:, [*axes, 3]].copy()
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    return array, affine


def only(path):
    structures = read_structures([path], KEY)
    assert structures.refused == ()
    (structure,) = structures.found
    return structure


def refusal(path):
    structures = read_structures([path], KEY)
    assert structures.found == ()
    (verdict,) = structures.refused
    assert verdict.kind is VerdictKind.REJECT
    assert verdict.cure
    return verdict.reason


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(AXES),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([np.eye(3)[[2, 1, 0]], np.diag([-1, 1, -1])[[2, 1, 0]], TURNED]),
    st.sampled_from([".nii", ".nii.gz"]),
    st.integers(0, 5),
)
def test_any_swap_and_reversal_of_axes_lies_at_the_same_place(axes, flips, directions, suffix, start):
    on, labels = grid(directions=directions), lopsided()
    array, affine = reordered(labels.transpose(2, 1, 0), ras(on), axes, flips)
    with tempfile.TemporaryDirectory() as folder:
        label = only(save_nifti(Path(folder) / f"liver{suffix}", array, affine))
        assert label.fits(on) is None
        assert np.array_equal(label.planes(on, 0, 6), labels > 0)
        assert np.array_equal(label.planes(on, start, 6), labels[start:] > 0)
        assert label.notes == ()


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(AXES),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.tuples(*[st.integers(-4, 7)] * 3),
    st.tuples(*[st.integers(2, 9)] * 3),
)
def test_a_piece_of_the_lattice_is_placed_exactly_and_background_is_around_it(axes, flips, offset, shape):
    from ctpipe.dicom.lattice import LatticeMap
    from ctpipe.volume import Grid

    on = grid()
    values = np.random.default_rng(0).integers(0, 3, shape)
    piece = Grid.from_affine(shape, np.c_[on.affine[:, :3], np.r_[on.to_lps(offset), 1]])
    wanted = np.zeros(SHAPE, bool)
    for index in np.argwhere(values == 2):
        at = index + offset
        if (at >= 0).all() and (at < SHAPE).all():
            wanted[tuple(at)] = True
    array, affine = reordered(values, piece.affine, axes, flips)
    between = LatticeMap.between(affine, on)
    assert between.exact
    assert np.array_equal(between.gather(array, 2, on, 0, 6), wanted)
    assert np.array_equal(between.gather(array, 2, on, 2, 4), wanted[2:4])
    # the general path, for lattices that do not coincide, gives the same where they do
    assert np.array_equal(LatticeMap(between.matrix, False).gather(array, 2, on, 0, 6), wanted)


def test_one_value_is_named_by_the_file_and_several_by_file_and_value(tmp_path):
    labels = lopsided()
    assert only(write_nifti(tmp_path / "GTV.nii.gz", labels * 7, grid())).name == "GTV"
    labels[5, 8, :3] = 12
    several = read_structures([write_nifti(tmp_path / "organs.nii", labels, grid())], KEY).found
    assert [s.name for s in several] == ["organs1", "organs12"]
    assert [int(s.planes(grid(), 0, 6).sum()) for s in several] == [int((labels == v).sum()) for v in (1, 12)]
    assert len({s.digest for s in several}) == 2  # keys of label volumes are made of them
    assert all(s.kind == "nifti" and s.frame_of_reference is None for s in several)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_labels(tmp_path, dtype):
    label = only(write_nifti(tmp_path / "a.nii.gz", lopsided(value=3).astype(dtype), grid()))
    assert np.array_equal(label.planes(grid(), 0, 6), lopsided() > 0)


def test_scaled_values_are_named_by_what_they_mean(tmp_path):
    labels = lopsided(value=3)
    labels[5, 8, :3] = 5
    path = write_nifti(tmp_path / "a.nii", labels, grid())
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([2.0, 0.0], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(data)
    assert [s.name for s in read_structures([path], KEY).found] == ["a6", "a10"]
    data[112:116] = np.array([0.3], "<f4").tobytes()
    path.write_bytes(data)
    assert refusal(path) == "not-labels"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.astype(np.float32) * 0.5,
        lambda a: np.where(a, np.nan, 0).astype(np.float32),
        lambda a: a.astype(np.int16) - 1024,
        lambda a: np.arange(a.size, dtype=np.int16).reshape(a.shape).repeat(2, 0),
        lambda a: np.where(a, 1, 2).astype(np.uint8),
    ],
)
def test_an_image_is_no_label_volume(tmp_path, spoil):
    array = spoil(lopsided(value=1))
    assert refusal(save_nifti(tmp_path / "a.nii", array, np.eye(4))) == "not-labels"


def test_several_volumes_in_one_file_colours_and_metres_are_refused_by_name(tmp_path):
    array = lopsided()
    assert refusal(save_nifti(tmp_path / "two.nii", np.stack([array, array], -1), np.eye(4))) == "frames"
    assert refusal(save_nifti(tmp_path / "c.nii", array.astype(np.complex64), np.eye(4))) == "unsupported-pixels"
    path = save_nifti(tmp_path / "metres.nii", array, np.eye(4))
    data = bytearray(path.read_bytes())
    data[123] = 1
    path.write_bytes(data)
    assert refusal(path) == "bad-pixel-spacing"


def test_orientation_is_never_guessed(tmp_path):
    array = lopsided()
    assert refusal(save_nifti(tmp_path / "none.nii", array, np.eye(4), sform=0, qform=0)) == "missing-orientation"
    assert only(save_nifti(tmp_path / "q.nii", array, np.eye(4), sform=0, qform=1)).name == "q"
    image = nib.Nifti1Image(array, None)
    image.header.set_sform(np.diag([1.0, 1, 1, 1]), 1)
    image.header.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    nib.save(image, tmp_path / "two.nii")
    assert refusal(tmp_path / "two.nii") == "bad-orientation"
    flat = np.diag([1.0, 1, 0, 1])
    path = save_nifti(tmp_path / "flat.nii", array, np.eye(4))
    data = bytearray(path.read_bytes())
    data[280:328] = flat[:3].astype("<f4").tobytes()
    path.write_bytes(data)
    assert refusal(path) == "bad-orientation"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("cut", [0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, cut):
    path = write_nifti(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 2, SHAPE, np.uint8), grid())
    data = path.read_bytes()
    path.write_bytes(data[: max(int(len(data) * cut), 352)] if suffix == ".nii" else data[: int(len(data) * cut)])
    structures = read_structures([path], KEY)
    assert structures.found == ()
    assert structures.refused


def test_a_small_file_that_declares_much_is_refused_before_anything_is_unpacked(tmp_path):
    path = write_nifti(tmp_path / "a.nii", lopsided(), grid())
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([32767] * 3, "<i2").tobytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(data)))
    path.unlink()
    assert refusal(tmp_path / "b.nii.gz") == "bomb"


def test_nifti_2_big_endian_and_members_of_a_zip_are_read(tmp_path):
    image = nib.Nifti2Image(lopsided().transpose(2, 1, 0), ras(grid()))
    nib.save(image, tmp_path / "two.nii.gz")
    swapped = nib.Nifti1Image(
        lopsided().transpose(2, 1, 0).astype(">i2"), ras(grid()), nib.Nifti1Header(endianness=">")
    )
    nib.save(swapped, tmp_path / "big.nii")
    for path in [tmp_path / "two.nii.gz", tmp_path / "big.nii"]:
        assert np.array_equal(only(path).planes(grid(), 0, 6), lopsided() > 0)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
            out.write(path, f"labels/{path.name}")
        member = only(tmp_path / "a.zip")
        assert member.name == only(path).name
        assert np.array_equal(member.planes(grid(), 0, 6), lopsided() > 0)


def test_an_empty_label_volume_is_a_structure_without_voxels(tmp_path):
    label = only(write_nifti(tmp_path / "lesion.nii", np.zeros(SHAPE, np.uint8), grid()))
    assert label.name == "lesion"
    assert not label.planes(grid(), 0, 6).any()


def test_another_lattice_within_the_only_volume_is_taken_by_nearest_voxel_and_said(tmp_path):
    on = grid()
    fine = grid(shape=(10, 20, 26), spacing=(1.3, 0.3, 0.29), origin=(-12.0, 31.5, -99.0))
    labels = lopsided(fine.shape)
    label = only(write_nifti(tmp_path / "lesion.nii.gz", labels, fine))
    assert "are not those of the volume" in label.fits(on)
    matched, refused = match_structures([label], {"a": on, "far": grid(origin=(900.0, 0.0, 0.0))})
    assert refused == ()
    (taken,) = matched["a"]
    assert matched["far"] == ()
    assert "nearest" in taken.notes[0]
    assert taken.fits(on) is None
    wanted = np.zeros(SHAPE, bool)
    for index in np.ndindex(SHAPE):
        at = np.floor(fine.to_index(on.to_lps(index)) + 0.5).astype(int)
        wanted[index] = (at >= 0).all() and (at < fine.shape).all() and labels[tuple(at)]
    assert wanted.any()
    table = ClassTable.parse("lesion=1")
    assert np.array_equal(label_planes(table.assign([taken]), on, 0, 6) > 0, wanted)
    assert table.assign([taken]).notes == (f"lesion: {taken.notes[0]}",)


def test_another_lattice_that_two_volumes_could_hold_or_none_is_refused(tmp_path):
    label = only(write_nifti(tmp_path / "a.nii", np.ones((2, 3, 3), np.uint8), grid((2, 3, 3), (2.4, 0.7, 0.7))))
    two = {"a": grid(), "b": grid((7, 9, 12))}
    for grids, reason in ((two, "ambiguous"), ({"a": grid(origin=(500.0, 0.0, 0.0))}, "no-fit"), ({}, "no-fit")):
        matched, refused = match_structures([label], grids)
        assert not any(matched.values())
        assert [v.reason for v in refused] == [reason]


def test_a_file_that_changed_is_an_input_error(tmp_path):
    path = write_nifti(tmp_path / "a.nii", lopsided(), grid())
    copy = shutil.copy(path, tmp_path / "b.nii")
    label = pickle.loads(pickle.dumps(only(Path(copy))))
    write_nifti(Path(copy), 1 - lopsided(), grid())
    from ctpipe.dicom import label_volume

    label_volume._layers.cache_clear()  # as in a worker process that reads it for the first time
    with pytest.raises(InputError, match="changed"):
        label.planes(grid(), 0, 6)
    Path(copy).unlink()
    with pytest.raises(InputError):
        label.planes(grid(), 0, 6)


@pytest.mark.real
def test_the_reversed_nifti_of_siemens_mct_lies_where_simpleitk_puts_it(real_data, tmp_path):
    data = real_data / "vendors" / "siemens_mct_j2k"
    on, hu = ct_by_simpleitk(data / "CT.zip", tmp_path)
    structures = read_structures([data / "labels_totalsegmentator.nii.gz"], KEY)
    assert structures.refused == ()
    assert len(structures.found) == 31
    by_name = {s.name: s for s in structures.found}
    spleen, liver = (by_name[f"labels_totalsegmentator{value}"] for value in (1, 5))
    assert liver.fits(on) is None
    mask = liver.planes(on, 0, 20)
    assert (int(spleen.planes(on, 0, 20).sum()), int(mask.sum())) == (130634, 366708)
    assert round(float(hu[mask].mean())) == 89
    image = sitk.ReadImage(str(data / "labels_totalsegmentator.nii.gz"))
    at = np.argwhere(mask)[::997]
    for index in at:
        point = [float(v) for v in on.to_lps(index)]
        assert image[image.TransformPhysicalPointToIndex(point)] == 5
