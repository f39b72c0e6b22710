from __future__ import annotations

import gzip
import itertools
import pickle
import shutil
import tempfile
import threading
import tracemalloc
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from labels_made import KEY, SHAPE, TURNED, grid, hu, lopsided, only_volume, save_nifti, write_nifti

from ctpipe.dicom import match_structures, raster_file, read_planes, read_structures
from ctpipe.dicom.raster import is_raster, raster_verdict
from ctpipe.dicom.sources import iter_items
from ctpipe.errors import InputError
from ctpipe.volume import Grid
from ctpipe.words import VerdictKind

LPS = "left-posterior-superior"


def verdict(path):
    (item,) = iter_items([path])
    assert is_raster(item.head())
    return raster_verdict(item, KEY)


def accepted(path):
    found = verdict(path)
    assert (found.kind, found.reason) == (VerdictKind.ACCEPT, "")
    return found.source


def refused(path):
    found = verdict(path)
    assert found.source is None
    assert found.kind is VerdictKind.REJECT
    assert found.cure
    return found.reason


def write_nrrd(path, voxels, on, space=LPS, encoding="gzip", **fields):
    """`voxels` (z, y, x) on the grid."""
    signs = {LPS: (1, 1, 1), "RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1)}.get(space, (1, 1, 1))
    header = {
        "space": space,
        "space directions": (on.affine[:3, [2, 1, 0]] * np.array(signs)[:, None]).T,
        "space origin": on.affine[:3, 3] * signs,
        "encoding": encoding,
        **fields,
    }
    nrrd.write(str(path), voxels.transpose(2, 1, 0), header, index_order="F")
    return path


def relined(path, *changes):
    """The header lines of a NRRD file changed: (what a line begins with, the new line, "" for none)."""
    head, _, data = path.read_bytes().partition(b"\n\n")
    lines = head.decode().split("\n")
    for begins, new in changes:
        assert any(line.startswith(begins) for line in lines), begins
        lines = [new if line.startswith(begins) else line for line in lines]
    path.write_bytes("\n".join(line for line in lines if line).encode() + b"\n\n" + data)
    return path


WRITERS = {
    "a.nii": write_nifti,
    "a.nii.gz": write_nifti,
    "a.nrrd": write_nrrd,
    "raw.nrrd": lambda path, voxels, on: write_nrrd(path, voxels, on, encoding="raw"),
    "ras.nrrd": lambda path, voxels, on: write_nrrd(path, voxels, on, space="RAS"),
    "las.nrrd": lambda path, voxels, on: write_nrrd(path, voxels, on, space="left-anterior-superior"),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("directions", [np.eye(3)[[2, 1, 0]], np.diag([-1, 1, -1])[[2, 1, 0]], TURNED])
def test_voxels_and_affine_of_a_named_file_come_through_as_they_are(tmp_path, name, directions):
    """V6: no flip and no resampling; (z, y, x) is (k, j, i), RAS becomes LPS."""
    on = grid(directions=directions)
    source = accepted(WRITERS[name](tmp_path / name, hu(), on))
    assert tuple(source.grid.shape) == SHAPE
    assert np.abs(source.grid.affine - on.affine).max() < 1e-5
    assert source.dtype == "int16"
    source = pickle.loads(pickle.dumps(source))
    assert np.array_equal(read_planes(source, 0, 6), hu())
    assert np.array_equal(read_planes(source, 2, 4), hu()[2:4])
    assert [p.position for p in source.planes] == [tuple(source.grid.to_lps((z, 0, 0))) for z in range(6)]


def test_packed_and_plain_files_are_the_same_series_and_the_same_patient(tmp_path):
    plain, packed = (accepted(write_nifti(tmp_path / name, hu(), grid())) for name in ("a.nii", "b.nii.gz"))
    assert plain.series_id == packed.series_id
    assert plain.patient == packed.patient
    other = accepted(write_nifti(tmp_path / "c.nii", hu(seed=1), grid()))
    moved = accepted(write_nifti(tmp_path / "d.nii", hu(), grid(origin=(0.0, 0.0, 0.0))))
    assert len({s.series_id for s in (plain, other, moved)}) == 3
    assert len({s.patient for s in (plain, other, moved)}) == 3
    assert plain.patient.startswith("p-")


def test_what_such_a_file_does_not_say_is_noted(tmp_path):
    notes = accepted(write_nifti(tmp_path / "a.nii", hu(), grid())).notes
    assert [note.partition(":")[0] for note in notes] == ["units", "patient"]
    turned = accepted(write_nifti(tmp_path / "b.nii", hu(), grid(directions=np.diag([-1, 1, -1])[[2, 1, 0]])))
    assert [note.partition(":")[0] for note in turned.notes] == ["units", "patient", "axes"]
    assert ", ".join(turned.grid.letters) in turned.notes[2]


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<i4", "<f4", ">f8", "<i8"])
def test_any_number_type_and_byte_order_gives_the_same_hu(tmp_path, dtype):
    values = np.abs(hu())
    header = nib.Nifti1Header(endianness=dtype[0])
    image = nib.Nifti1Image(values.transpose(2, 1, 0).astype(dtype), np.diag([-1.0, -1, 1, 1]), header)
    nib.save(image, tmp_path / "a.nii.gz")
    write_nrrd(tmp_path / "a.nrrd", values.astype(dtype), grid())
    for name in ("a.nii.gz", "a.nrrd"):
        source = accepted(tmp_path / name)
        assert source.dtype == "int16"
        assert np.array_equal(read_planes(source, 0, 6), values)


def scaled(path, slope, inter):
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(data)
    return path


def test_slope_and_intercept_count_and_a_slope_of_nought_is_none(tmp_path):
    """int16 where every value is whole and fits, else float32 (corpus policy, rule 2)."""
    path = write_nifti(tmp_path / "a.nii", hu() // 2, grid())
    plain = accepted(scaled(path, 0, 77))
    assert np.array_equal(read_planes(plain, 0, 6), hu() // 2)
    twice = accepted(scaled(path, 2, -1024))
    assert twice.dtype == "int16"
    assert np.array_equal(read_planes(twice, 0, 6), (hu() // 2) * 2 - 1024)
    halves = accepted(scaled(path, 0.5, 0))
    assert halves.dtype == "float32"
    assert np.array_equal(read_planes(halves, 0, 6), ((hu() // 2) * 0.5).astype(np.float32))
    large = accepted(scaled(path, 100, 0))
    assert large.dtype == "float32"
    assert len({s.series_id for s in (plain, twice, halves, large)}) == 4
    assert refused(scaled(path, 1, np.nan)) == "bad-rescale"


def test_form_says_its_range_and_refuses_another_length(tmp_path):
    from ctpipe.dicom.codestreams import CodestreamFaultError

    form = accepted(write_nifti(tmp_path / "a.nii", hu(), grid())).planes[0].form
    assert form.static_range() == (-32768, 32767)
    assert form.key() == ["raster", "<i2", 9, 12]
    with pytest.raises(CodestreamFaultError):
        form.decode(b"\0" * 10)
    floats = accepted(write_nifti(tmp_path / "b.nii", hu().astype(np.float32), grid())).planes[0].form
    assert floats.static_range() is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a: np.stack([a, a], -1), "frames"),
        (lambda a: a[:, :, :2], "too-few-slices"),
        (lambda a: a[:, :, 0], "too-few-slices"),
        (lambda a: a.astype(np.complex64), "unsupported-pixels"),
        (lambda a: np.where(a == a.max(), np.nan, a).astype(np.float32), "unsupported-pixels"),
        (lambda a: np.where(a == a.max(), 1e300, a).astype(np.float64), "unsupported-pixels"),
    ],
)
def test_what_is_no_volume_of_numbers_is_refused(tmp_path, spoil, reason):
    array = spoil(hu().transpose(2, 1, 0))
    assert refused(save_nifti(tmp_path / "a.nii.gz", array, np.diag([-1.0, -1, 1, 1]))) == reason


def test_colours_are_refused(tmp_path):
    colours = np.zeros((12, 9, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert refused(save_nifti(tmp_path / "a.nii", colours, np.eye(4))) == "unsupported-pixels"


@pytest.mark.parametrize(
    ("ras", "reason"),
    [
        (np.array([[1.0, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), "gantry-tilt"),
        (np.array([[1.0, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), "bad-orientation"),
        (np.diag([1.0, 1, 0, 1]), "bad-orientation"),
        (np.diag([np.nan, 1, 1, 1]), "bad-orientation"),
        (np.diag([np.inf, 1, 1, 1]), "bad-orientation"),
    ],
)
def test_sheared_flat_and_broken_affines_are_refused(tmp_path, ras, reason):
    path = save_nifti(tmp_path / "a.nii", hu().transpose(2, 1, 0), np.eye(4))
    data = bytearray(path.read_bytes())
    data[280:328] = ras[:3].astype("<f4").tobytes()
    path.write_bytes(data)
    assert refused(path) == reason


def test_a_file_without_orientation_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii", hu().transpose(2, 1, 0), np.eye(4), sform=0, qform=0)
    assert refused(path) == "missing-orientation"
    assert accepted(save_nifti(tmp_path / "q.nii", hu().transpose(2, 1, 0), np.eye(4), sform=0, qform=1))


def test_labels_are_set_aside_with_the_way_to_give_them(tmp_path):
    image = nib.Nifti1Image(lopsided().transpose(2, 1, 0).astype(np.int16), np.eye(4))
    image.header.set_intent("label")
    nib.save(image, tmp_path / "intent.nii")
    write_nifti(tmp_path / "bytes.nii.gz", lopsided(), grid())
    write_nrrd(tmp_path / "bytes.nrrd", lopsided(), grid())
    named = {"Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    write_nrrd(tmp_path / "named.seg.nrrd", lopsided().astype(np.int16), grid(), **named)
    for path in sorted(tmp_path.iterdir()):
        found = verdict(path)
        assert (found.kind, found.reason) == (VerdictKind.SET_ASIDE, "not-ct")
        assert "--labels" in found.cure


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "raw.nrrd"])
@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95, 0.999])
def test_a_truncated_file_is_refused(tmp_path, name, cut):
    path = WRITERS[name](tmp_path / name, hu(), grid())
    path.write_bytes(path.read_bytes()[: max(int(path.stat().st_size * cut), 600)])
    assert refused(path) == "truncated"


def test_rot_in_a_gzip_stream_and_bytes_behind_the_voxels_are_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", hu(), grid())
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # of the checksum
    path.write_bytes(data)
    assert refused(path) == "truncated"
    path = write_nifti(tmp_path / "b.nii", hu(), grid())
    path.write_bytes(path.read_bytes() + b"\0")
    assert refused(path) == "unsupported-pixels"


def test_a_small_file_that_declares_much_is_refused_before_anything_is_unpacked(tmp_path):
    """X5."""
    plain = write_nifti(tmp_path / "a.nii", hu(), grid())
    for shape, reason in (([512, 512, 400], "bomb"), ([32767] * 3, "bomb"), ([32767, 32767, 3], "bomb")):
        data = bytearray(plain.read_bytes())
        data[42:48] = np.array(shape, "<i2").tobytes()
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(data)))
        tracemalloc.start()
        assert refused(tmp_path / "b.nii.gz") == reason
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    path = write_nrrd(tmp_path / "a.nrrd", hu(), grid())
    assert refused(relined(path, ("sizes:", "sizes: 4000 4000 100000"))) == "bomb"


def test_slabs_are_read_without_the_whole_volume_in_memory(tmp_path):
    on, voxels = grid((120, 128, 128)), hu((120, 128, 128))
    path = write_nifti(tmp_path / "a.nii.gz", voxels, on)
    tracemalloc.start()
    source = accepted(path)
    for start in range(0, 120, 8):
        assert np.array_equal(read_planes(source, start, start + 8), voxels[start : start + 8])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < voxels.nbytes // 2


def test_a_packed_file_is_unpacked_once_for_slabs_in_order_and_again_to_go_back(tmp_path, monkeypatch):
    source = accepted(write_nifti(tmp_path / "a.nii.gz", hu(), grid()))
    opened = []
    plain = raster_file._stream
    monkeypatch.setattr(raster_file, "_stream", lambda *a: opened.append(1) or plain(*a))
    for start in range(0, 6, 2):
        assert np.array_equal(read_planes(source, start, start + 2), hu()[start : start + 2])
    assert len(opened) == 1
    assert np.array_equal(read_planes(source, 0, 2), hu()[:2])
    assert len(opened) == 2
    results = []
    threads = [threading.Thread(target=lambda: results.append(read_planes(source, 1, 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(planes, hu()[1:5]) for planes in results)
    assert len(results) == 4


def test_a_file_that_changed_or_vanished_is_an_input_error(tmp_path):
    for name in ("a.nii", "a.nii.gz", "a.nrrd"):
        path = WRITERS[name](tmp_path / name, hu(), grid())
        source = accepted(path)
        assert np.array_equal(read_planes(source, 0, 1), hu()[:1])
        WRITERS[name](path, hu(seed=1), grid())
        with pytest.raises(InputError, match="changed"):
            read_planes(source, 2, 3)
        again = accepted(path)
        assert np.array_equal(read_planes(again, 0, 6), hu(seed=1))
        path.unlink()
        with pytest.raises(InputError):
            read_planes(again, 0, 1)


def test_members_of_one_gzip_file_are_one_stream(tmp_path):
    """Block-wise writers (bgzip) make many members of one file."""
    whole = write_nifti(tmp_path / "a.nii", hu(), grid()).read_bytes()
    pieces = b"".join(gzip.compress(whole[i : i + 500]) for i in range(0, len(whole), 500))
    (tmp_path / "b.nii.gz").write_bytes(pieces)
    assert np.array_equal(read_planes(accepted(tmp_path / "b.nii.gz"), 0, 6), hu())


# ------------------------------------------------------------------------------------------------ NRRD headers
@pytest.mark.parametrize(
    ("begins", "line", "reason"),
    [
        ("space:", "", "missing-orientation"),
        ("space:", "space: scanner-xyz", "missing-orientation"),
        ("space:", "space: 3D-right-handed", "missing-orientation"),
        ("space origin:", "", "missing-orientation"),
        ("space directions:", "", "missing-orientation"),
        ("space directions:", "space directions: (1,0,0) (0,1,0) none", "bad-orientation"),
        ("space directions:", "space directions: (1,0,0) (0,1,0) (0,0,0)", "bad-orientation"),
        ("space directions:", "space directions: (1,0,0) (0,1,0) (0,0.4,2)", "gantry-tilt"),
        ("space directions:", "space directions: (1,0,0) (0,one,0) (0,0,1)", "unreadable"),
        ("encoding:", "encoding: bzip2", "unsupported-pixels"),
        ("encoding:", "encoding: txt", "unsupported-pixels"),
        ("encoding:", "encoding: raw\ndata file: a.raw", "unsupported-pixels"),
        ("encoding:", "encoding: raw\nbyte skip: 4", "unsupported-pixels"),
        ("encoding:", "encoding: raw\nline skip: 1", "unsupported-pixels"),
        ("encoding:", "encoding: raw\nold min: -1024", "bad-rescale"),
        ("encoding:", 'encoding: gzip\nspace units: "m" "m" "m"', "bad-pixel-spacing"),
        ("encoding:", "encoding: gzip\nencoding: raw", "unreadable"),
        ("endian:", "", "unsupported-pixels"),
        ("type:", "type: block", "unsupported-pixels"),
        ("sizes:", "sizes: 12 9", "frames"),
        ("sizes:", "sizes: 12 9 0", "frames"),
        ("sizes:", "sizes: 12 9 six", "unreadable"),
        ("dimension:", "dimension: 4", "frames"),
        ("sizes:", "nothing at all", "unreadable"),
    ],
)
def test_a_nrrd_header_that_leaves_something_open_is_refused(tmp_path, begins, line, reason):
    assert refused(relined(write_nrrd(tmp_path / "a.nrrd", hu(), grid()), (begins, line))) == reason


def test_a_detached_nrrd_header_is_refused_and_no_other_file_is_opened(tmp_path):
    """X11: a name within a file is never a path."""
    path = tmp_path / "a.nhdr"
    nrrd.write(
        str(path), hu().transpose(2, 1, 0), {"space": LPS, "space directions": np.eye(3), "space origin": [0] * 3}
    )
    assert refused(path) == "unsupported-pixels"
    assert "another file" in verdict(path).detail


def test_a_nrrd_of_four_axes_is_a_volume_only_where_it_is_one(tmp_path):
    on = grid()
    fields = {
        "kinds": ["vector", "domain", "domain", "domain"],
        "space": LPS,
        "space directions": np.vstack([[np.nan] * 3, on.affine[:3, [2, 1, 0]].T]),
        "space origin": on.affine[:3, 3],
    }
    nrrd.write(str(tmp_path / "a.nrrd"), np.stack([hu().transpose(2, 1, 0)] * 3), fields)
    assert refused(tmp_path / "a.nrrd") == "unsupported-pixels"


# ------------------------------------------------------------------------------------------------ NRRD labels
def labels(path):
    structures = read_structures([path], KEY)
    assert structures.refused == ()
    return {s.name: s for s in structures.found}


def label_refusal(path):
    structures = read_structures([path], KEY)
    assert structures.found == ()
    (found,) = structures.refused
    return found.reason


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(itertools.permutations(range(3)))),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([LPS, "RAS", "left-anterior-superior"]),
    st.sampled_from(["raw", "gzip"]),
)
def test_nrrd_labels_of_any_axis_order_lie_at_the_same_place(axes, flips, space, encoding):
    from ctpipe.volume import Grid

    on = grid()
    affine, mask = on.affine[:, [*axes, 3]].copy(), lopsided().transpose(axes)
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (mask.shape[axis] - 1)
        affine[:3, axis] *= -1
        mask = np.flip(mask, axis)
    with tempfile.TemporaryDirectory() as folder:
        other = Grid.from_affine(mask.shape, affine)
        (label,) = labels(write_nrrd(Path(folder) / "liver.nrrd", mask, other, space, encoding)).values()
        assert (label.name, label.kind, label.fits(on)) == ("liver", "nrrd", None)
        assert np.array_equal(label.planes(on, 0, 6), lopsided() > 0)
        assert np.array_equal(label.planes(on, 2, 4), lopsided()[2:4] > 0)


def test_nrrd_values_are_named_as_those_of_nifti_are(tmp_path):
    voxels = lopsided().astype(np.int16)
    voxels[5, 8, :3] = 12
    assert list(labels(write_nrrd(tmp_path / "organs.nrrd", voxels, grid()))) == ["organs1", "organs12"]
    voxels[0, 0, 0] = -1
    assert label_refusal(write_nrrd(tmp_path / "ct.nrrd", voxels, grid())) == "not-labels"


SEGMENTS = {
    "Segment0_ID": "Segment_1", "Segment0_Name": "Leber", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
    "Segment1_ID": "Segment_2", "Segment1_Name": "Lesion", "Segment1_LabelValue": "7", "Segment1_Layer": "0",
    "Segment2_ID": "Segment_3", "Segment2_Name": "none", "Segment2_LabelValue": "9", "Segment2_Layer": "0",
}  # fmt: skip


def test_segments_of_slicer_are_named_by_it(tmp_path):
    voxels = lopsided()
    voxels[5, 8, :3] = 7
    path = write_nrrd(tmp_path / "a.seg.nrrd", voxels, grid(), **SEGMENTS)
    relined(path, ("Segment1_Name", "Segment1_Name:=Läsion"))  # pynrrd writes ASCII only
    found = labels(path)
    assert list(found) == ["Leber", "Läsion", "none"]
    assert [int(s.planes(grid(), 0, 6).sum()) for s in found.values()] == [int((voxels == v).sum()) for v in (1, 7, 9)]
    voxels[0, 0, 0] = 3
    assert label_refusal(write_nrrd(tmp_path / "b.seg.nrrd", voxels, grid(), **SEGMENTS)) == "not-labels"
    twice = {**SEGMENTS, "Segment2_LabelValue": "7"}
    assert label_refusal(write_nrrd(tmp_path / "c.seg.nrrd", lopsided(), grid(), **twice)) == "uid-conflict"
    nameless = {key: value for key, value in SEGMENTS.items() if not key.endswith("LabelValue")}
    assert label_refusal(write_nrrd(tmp_path / "d.seg.nrrd", lopsided(), grid(), **nameless)) == "not-labels"


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_segments_in_layers_may_overlap(tmp_path, encoding):
    on, liver = grid(), lopsided()
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[2:4, 2:6, 3:8] = 1
    fields = {
        "kinds": ["list", "domain", "domain", "domain"],
        "space": LPS,
        "space directions": np.vstack([[np.nan] * 3, on.affine[:3, [2, 1, 0]].T]),
        "space origin": on.affine[:3, 3],
        "encoding": encoding,
        "Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
        "Segment1_Name": "lesion", "Segment1_LabelValue": "1", "Segment1_Layer": "1",
    }  # fmt: skip
    layers = np.stack([liver.transpose(2, 1, 0), lesion.transpose(2, 1, 0)])
    nrrd.write(str(tmp_path / "a.seg.nrrd"), layers, fields)
    found = labels(tmp_path / "a.seg.nrrd")
    assert np.array_equal(found["liver"].planes(on, 0, 6), liver > 0)
    assert np.array_equal(found["lesion"].planes(on, 0, 6), lesion > 0)
    assert len({s.digest for s in found.values()}) == 2
    nameless = {key: value for key, value in fields.items() if not key.startswith("Segment")}
    nrrd.write(str(tmp_path / "b.nrrd"), layers, nameless)
    assert label_refusal(tmp_path / "b.nrrd") == "not-labels"


def test_a_misfit_named_in_a_file_is_told_by_its_kind(tmp_path):
    path = write_nrrd(tmp_path / "a.seg.nrrd", lopsided(), grid(), **SEGMENTS)
    _, refusals = match_structures(labels(path).values(), {"x": grid(origin=(900.0, 0.0, 0.0))})
    assert refusals
    assert all("Leber" not in v.detail for v in refusals)


@pytest.mark.real
def test_another_tools_nifti_of_a_real_ct_equals_the_dicom(real_data):
    folder = real_data / "sts" / "STS_019"
    source, ct = accepted(folder / "CT_image.nii.gz"), only_volume(folder / "CT.zip")
    assert np.abs(source.grid.affine - ct.grid.affine).max() < 1e-4
    assert np.array_equal(read_planes(source, 0, 47), read_planes(ct, 0, 47))


@pytest.mark.real
def test_simpleitk_writes_a_real_nifti_as_nrrd_of_the_same_voxels(real_data, tmp_path):
    image = sitk.ReadImage(str(real_data / "sts" / "STS_019" / "CT_image.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"), useCompression=True)
    shutil.copy(real_data / "sts" / "STS_019" / "CT_image.nii.gz", tmp_path / "a.nii.gz")
    a, b = accepted(tmp_path / "a.nrrd"), accepted(tmp_path / "a.nii.gz")
    assert np.abs(a.grid.affine - b.grid.affine).max() < 1e-4
    assert np.array_equal(read_planes(a, 0, 47), read_planes(b, 0, 47))
    assert np.array_equal(read_planes(a, 0, 47), sitk.GetArrayFromImage(image))


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """(name, bytes) of one file of each kind, as volume and as labels."""
    folder = tmp_path_factory.mktemp("whole")
    made = [writer(folder / name, hu(), grid()) for name, writer in WRITERS.items()]
    made += [write_nifti(folder / "labels.nii", lopsided(), grid()), write_nrrd(folder / "l.nrrd", lopsided(), grid())]
    made.append(write_nrrd(folder / "s.seg.nrrd", lopsided(), grid(), **SEGMENTS))
    return [(path.name, path.read_bytes()) for path in made]


@pytest.mark.parametrize("field", [b"sizes:", b"space directions:", b"space origin:"])
def test_a_nrrd_field_in_other_letters_is_refused_in_a_word(tmp_path, field):
    """X7: pynrrd gives it as text, which is no number."""
    path = write_nrrd(tmp_path / "a.nrrd", hu(), grid())
    path.write_bytes(path.read_bytes().replace(field, field.capitalize()))
    found = raster_verdict(next(iter_items([path])), KEY)
    assert found.kind is VerdictKind.REJECT
    assert found.reason in ("unreadable", "missing-orientation")


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd"])
def test_an_affine_of_kilometres_is_no_place_in_a_patient(tmp_path, name):
    """X7: rounded to a grid id it would overflow, and every such grid would be the same."""
    far = np.array(grid().affine)
    far[0, 3] = 3e15
    path = WRITERS[name](tmp_path / name, hu(), Grid.from_affine(grid().shape, far))
    found = raster_verdict(next(iter_items([path])), KEY)
    assert found.reason == "missing-orientation"


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, len(WRITERS) + 2),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
    st.sampled_from([1.0, 1.0, 0.9, 0.3]),
)
def test_whatever_stands_in_a_header_ends_in_a_verdict(whole_files, which, changes, cut):
    """X7: no traceback, whichever bytes are changed."""
    name, whole = whole_files[which]
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data[: int(len(data) * cut)])
        (item,) = iter_items([path])
        found = raster_verdict(item, KEY)
        if found.source is not None:
            read_planes(found.source, 0, found.source.grid.shape.z)
        structures = read_structures([path], KEY)
        assert structures.found or structures.refused
        for structure in structures.found:
            structure.fits(grid())
