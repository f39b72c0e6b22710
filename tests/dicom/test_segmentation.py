from __future__ import annotations

import copy
import itertools
import pickle
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels_made import KEY, SHAPE, TURNED, ct_by_simpleitk, grid, hu, lopsided, write_nifti
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from seg_made import DEFLATED_FRAMES, frame_uid, save, write_seg

from ctpipe.dicom import ClassTable, label_planes, match_structures, read_structures, segment_table, write_ct_series
from ctpipe.dicom.sources import Locator
from ctpipe.errors import InputError
from ctpipe.volume import Grid
from ctpipe.words import VerdictKind

ON = grid(frame=KEY.uid(frame_uid()))
LIVER = lopsided() > 0
TUMOUR = np.zeros(SHAPE, bool)
TUMOUR[2:4, 2:6, 3:8] = True  # partly in the liver, on two planes only
MASKS = {"liver": LIVER, "tumour": TUMOUR}


def segments(path):
    structures = read_structures([path], KEY)
    assert structures.refused == ()
    return {s.name: s for s in structures.found}


def refusal(path):
    structures = read_structures([path], KEY)
    assert structures.found == ()
    (verdict,) = structures.refused
    assert verdict.kind is VerdictKind.REJECT
    assert verdict.cure
    return verdict.reason


def edited(path, change):
    ds = pydicom.dcmread(path)
    change(ds)
    return save(ds, path, ds.file_meta.TransferSyntaxUID)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize("shared", [True, False])
def test_overlapping_and_sparse_segments_lie_where_their_frames_say(tmp_path, kind, shared):
    """A segment may be missing on planes, and several may stand on one plane and on one voxel."""
    found = segments(write_seg(tmp_path / "a.dcm", MASKS, ON, kind=kind, shared=shared))
    assert list(found) == ["liver", "tumour"]
    for name, mask in MASKS.items():
        assert found[name].kind == "seg"
        assert found[name].fits(ON) is None
        assert np.array_equal(found[name].planes(ON, 0, 6), mask)
        assert np.array_equal(found[name].planes(ON, 2, 3), mask[2:3])
    assert len({s.digest for s in found.values()}) == 2


@pytest.mark.parametrize("bits", [8, 16])
def test_a_label_map_gives_one_structure_a_value_and_none_for_background(tmp_path, bits):
    def with_background(ds):
        background = pydicom.Dataset()
        background.SegmentNumber, background.SegmentLabel = 0, "Background"
        ds.SegmentSequence.insert(0, background)
        ds.add_new("PixelPaddingValue", "US", 0)

    path = write_seg(tmp_path / "a.dcm", MASKS, ON, kind="LABELMAP", bits=bits)
    for _ in range(2):
        found = segments(path)
        assert list(found) == ["liver", "tumour"]
        assert np.array_equal(found["liver"].planes(ON, 0, 6), LIVER & ~TUMOUR)
        assert np.array_equal(found["tumour"].planes(ON, 0, 6), TUMOUR)
        edited(path, with_background)


def test_what_a_frame_says_of_itself_comes_before_what_all_share(tmp_path):
    path = write_seg(tmp_path / "a.dcm", MASKS, ON, shared=False)

    def wrong_for_all(ds):
        ds.SharedFunctionalGroupsSequence = [copy.deepcopy(ds.PerFrameFunctionalGroupsSequence[0])]
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.PlanePositionSequence[0].ImagePositionPatient = [7, 7, 7]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
        shared.PixelMeasuresSequence[0].PixelSpacing = [9, 9]
        shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2

    found = segments(edited(path, wrong_for_all))
    for name, mask in MASKS.items():
        assert found[name].fits(ON) is None
        assert np.array_equal(found[name].planes(ON, 0, 6), mask)


def test_a_fraction_belongs_from_one_half_on_and_a_note_says_so(tmp_path):
    fractions = np.zeros(SHAPE)
    fractions[1, 0, :4] = [0.495, 0.5, 0.505, 1.0]
    (lesion,) = segments(write_seg(tmp_path / "a.dcm", {"lesion": fractions}, ON, kind="FRACTIONAL")).values()
    assert lesion.planes(ON, 0, 6)[1, 0, :4].tolist() == [False, True, True, True]
    assert "half of MaximumFractionalValue" in lesion.notes[0]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(itertools.permutations(range(3)))),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([np.eye(3)[[2, 1, 0]], np.diag([-1, 1, -1])[[2, 1, 0]], TURNED]),
    st.sampled_from(["BINARY", "LABELMAP"]),
    st.randoms(use_true_random=False),
    st.integers(0, 5),
)
def test_any_order_of_frames_and_any_way_the_planes_lie_gives_the_same_voxels(
    axes, flips, directions, kind, rng, start
):
    """Frames across, mirrored, sagittal: only patient coordinates count, never the order or the array."""
    on = grid(directions=directions, frame=ON.frame_of_reference)
    affine, mask = on.affine[:, [*axes, 3]].copy(), LIVER.transpose(axes)
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (mask.shape[axis] - 1)
        affine[:3, axis] *= -1
        mask = np.flip(mask, axis)
    order = list(range(int(mask.any((1, 2)).sum())))
    rng.shuffle(order)
    other = Grid.from_affine(mask.shape, affine)
    with tempfile.TemporaryDirectory() as folder:
        path = write_seg(Path(folder) / "a.dcm", {"liver": mask}, other, kind=kind, order=order)
        (liver,) = segments(path).values()
        assert liver.fits(on) is None
        assert np.array_equal(liver.planes(on, start, 6), LIVER[start:])


def test_a_crop_of_the_lattice_is_placed_and_one_that_reaches_out_or_lies_between_is_refused(tmp_path):
    crop = np.ones((2, 3, 5), bool)

    def cropped(first, spacing=None):
        affine = ON.affine.copy()
        affine[:3, 3] = ON.to_lps(first)
        if spacing:
            affine[:3, 2] *= spacing
        path = write_seg(tmp_path / "a.dcm", {"a": crop}, Grid.from_affine(crop.shape, affine))
        return segments(path)["a"]

    inside = cropped((3, 6, 7))
    wanted = np.zeros(SHAPE, bool)
    wanted[3:5, 6:9, 7:12] = True
    assert inside.fits(ON) is None
    assert np.array_equal(inside.planes(ON, 0, 6), wanted)
    assert cropped((3, 6, 8)).fits(ON) == "2 of its 2 frames reach beyond the volume"
    assert cropped((5, 6, 7)).fits(ON) == "1 of its 2 frames reach beyond the volume"
    assert cropped((3, 6, 6.5)).fits(ON) == "2 of its 2 frames coincide with no plane of the volume"
    assert cropped((2.4, 6, 7)).fits(ON) == "2 of its 2 frames coincide with no plane of the volume"
    assert cropped((3, 6, 3), 2.0).fits(ON) == "its rows and columns do not coincide with the volume's"


def test_the_frame_of_reference_counts_where_both_have_one(tmp_path):
    """Another patient's SEG on the same lattice is a misfit."""
    strange = segments(write_seg(tmp_path / "a.dcm", MASKS, ON, frame="another"))["liver"]
    assert strange.fits(ON) == "its frame of reference is another one than the volume's"
    assert strange.fits(grid()) is None
    bare = segments(write_seg(tmp_path / "b.dcm", MASKS, ON, frame=None))["liver"]
    assert bare.frame_of_reference is None
    assert bare.fits(ON) is None
    matched, refused = match_structures([strange], {"x": ON})
    assert matched == {"x": ()}
    assert [(v.kind, v.reason) for v in refused] == [(VerdictKind.REJECT, "no-fit")]
    assert "liver" not in refused[0].detail  # the name is text of a DICOM file
    assert "frame of reference" in refused[0].detail


def test_two_frames_of_a_segment_on_one_plane_are_refused(tmp_path):
    path = write_seg(tmp_path / "a.dcm", {"liver": LIVER}, ON, order=[0, 1, 1, 2, 3, 4])
    assert segments(path)["liver"].fits(ON) == "two of its frames lie on one plane of the volume"


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        DEFLATED_FRAMES,
    ],
)
@pytest.mark.parametrize(("kind", "bits"), [("BINARY", 8), ("FRACTIONAL", 8), ("LABELMAP", 8), ("LABELMAP", 16)])
def test_every_plain_or_deflated_encoding_gives_equal_voxels(tmp_path, syntax, kind, bits):
    """108 bits a frame: the second one begins within a byte."""
    path = write_seg(tmp_path / "a.dcm", MASKS, ON, kind=kind, bits=bits, syntax=syntax)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.write(path, "labels/a.dcm")
    for given_path in (path, tmp_path / "a.zip"):
        found = segments(given_path)
        assert np.array_equal(found["tumour"].planes(ON, 0, 6), TUMOUR)
        assert np.array_equal(found["liver"].planes(ON, 0, 6), LIVER & ~TUMOUR if kind == "LABELMAP" else LIVER)


def test_bits_in_big_endian_words_are_swapped_back(tmp_path):
    path = write_seg(tmp_path / "a.dcm", MASKS, ON, syntax=ExplicitVRBigEndian)

    def to_words(ds):
        data = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
        ds.add_new("PixelData", "OW", data)

    edited(path, to_words)
    assert np.array_equal(segments(path)["liver"].planes(ON, 0, 6), LIVER)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_compressed_frames_give_equal_voxels(tmp_path, syntax, kind):
    on = grid((6, 32, 40), frame=ON.frame_of_reference)
    mask = lopsided(on.shape) > 0
    path = write_seg(tmp_path / "a.dcm", {"liver": mask}, on, kind=kind)
    ds = pydicom.dcmread(path)
    ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(path)
    assert np.array_equal(segments(path)["liver"].planes(on, 0, 6), mask)


def literal_runs(data):
    """RLE (PS3.5 G) that never repeats: one segment of runs of up to 128 literal bytes."""
    runs = b"".join(bytes([len(r) - 1]) + r for r in (data[i : i + 128] for i in range(0, len(data), 128)))
    return np.array([1, 64, *[0] * 14], "<u4").tobytes() + runs + b"\0" * (len(runs) % 2)


@pytest.mark.parametrize("size", [(32, 40), (33, 56), (12, 9), (15, 17)])
def test_run_lengths_over_packed_bits_are_read(tmp_path, size):
    on = grid((6, *size), frame=ON.frame_of_reference)
    mask = lopsided(on.shape) > 0
    path = write_seg(tmp_path / "a.dcm", {"liver": mask}, on)
    ds = pydicom.dcmread(path)
    planes = [np.packbits(plane, bitorder="little").tobytes() for plane in mask if plane.any()]
    ds.PixelData = encapsulate([literal_runs(plane) for plane in planes])
    save(ds, path, RLELossless)
    assert np.array_equal(segments(path)["liver"].planes(on, 0, 6), mask)


def drop(keyword, where="PerFrameFunctionalGroupsSequence"):
    def change(ds):
        del getattr(ds, where)[0][keyword]

    return change


def put(**values):
    def change(ds):
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop("PlanePositionSequence"), "missing-position"),
        (drop("SegmentIdentificationSequence"), "not-labels"),
        (drop("PlaneOrientationSequence", "SharedFunctionalGroupsSequence"), "missing-orientation"),
        (drop("PixelMeasuresSequence", "SharedFunctionalGroupsSequence"), "missing-pixel-spacing"),
        (put(NumberOfFrames=6), "frames"),
        (lambda ds: delattr(ds, "PerFrameFunctionalGroupsSequence"), "frames"),
        (put(PixelData=b"\1" * 20), "truncated"),
        (put(PixelData=b"\1" * 400), "frames"),
        (lambda ds: delattr(ds, "PixelData"), "no-pixels"),
        (put(LossyImageCompression="01"), "transfer-syntax"),
        (put(BitsAllocated=8), "bits"),
        (put(Rows=0), "unsupported-pixels"),
        (put(Rows=60000, Columns=60000), "unsupported-pixels"),
        (put(SegmentationType="SURFACE"), "not-labels"),
        (put(SegmentationType="LABELMAP"), "not-labels"),
        (lambda ds: ds.SegmentSequence.pop(), "not-labels"),
        (lambda ds: ds.SegmentSequence.clear(), "not-labels"),
        (lambda ds: setattr(ds.SegmentSequence[1], "SegmentNumber", 1), "uid-conflict"),
        (lambda ds: delattr(ds.SegmentSequence[1], "SegmentNumber"), "bad-number"),
    ],
)
def test_a_file_that_is_not_wholly_right_is_refused_whole(tmp_path, change, reason):
    assert refusal(edited(write_seg(tmp_path / "a.dcm", MASKS, ON), change)) == reason


def test_a_frame_of_reference_that_is_no_uid_is_refused(tmp_path):
    path = write_seg(tmp_path / "a.dcm", MASKS, ON)
    path.write_bytes(path.read_bytes().replace(frame_uid().encode(), b"x" + frame_uid().encode()[1:]))
    assert refusal(path) == "invalid-uid"


def test_lossy_unknown_and_fractional_without_a_maximum_are_refused(tmp_path):
    on = grid((6, 32, 40))
    path = write_seg(tmp_path / "a.dcm", {"liver": lopsided(on.shape)}, on, kind="FRACTIONAL")
    ds = pydicom.dcmread(path)
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    for syntax in (JPEG2000, "1.2.3.4"):
        save(ds, tmp_path / "lossy.dcm", syntax)
        assert refusal(tmp_path / "lossy.dcm") == "transfer-syntax"
    assert refusal(edited(path, lambda ds: delattr(ds, "MaximumFractionalValue"))) == "bad-number"


def test_a_label_map_with_a_value_of_no_segment_is_refused(tmp_path):
    path = write_seg(tmp_path / "a.dcm", MASKS, ON, kind="LABELMAP")
    assert refusal(edited(path, lambda ds: ds.SegmentSequence.pop())) == "not-labels"


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, cut):
    path = write_seg(tmp_path / "a.dcm", MASKS, ON)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    structures = read_structures([path], KEY)
    assert structures.found == ()
    assert structures.refused


def test_a_deflated_frame_unpacks_to_no_more_than_its_size(tmp_path):
    """X5: sizes are known before anything is unpacked."""
    path = write_seg(tmp_path / "a.dcm", MASKS, ON, syntax=DEFLATED_FRAMES)
    ds = pydicom.dcmread(path)
    bomb = zlib.compress(bytes(50_000_000), 9)[2:-4]
    ds.PixelData = encapsulate([bomb + b"\0" * (len(bomb) % 2)] * int(ds.NumberOfFrames))
    save(ds, path, DEFLATED_FRAMES)
    tracemalloc.start()
    found = segments(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert not found["liver"].planes(ON, 0, 6).any()


def test_a_segment_without_voxels_is_a_structure_where_the_others_of_its_file_lie(tmp_path):
    path = write_seg(tmp_path / "a.dcm", {"liver": LIVER, "cyst": np.zeros(SHAPE, bool)}, ON)
    cyst = segments(path)["cyst"]
    assert cyst.fits(ON) is None
    assert not cyst.planes(ON, 0, 6).any()
    assert cyst.fits(grid((3, 4, 5), frame=ON.frame_of_reference)) is not None


def test_names_lose_control_characters_and_a_nameless_segment_is_numbered(tmp_path):
    found = segments(write_seg(tmp_path / "a.dcm", {"": TUMOUR, "li\x1b[31mver": LIVER}, ON))
    assert set(found) == {"segment1", "li[31mver"}


def test_a_file_that_changed_or_vanished_is_an_input_error(tmp_path):
    path = write_seg(tmp_path / "a.dcm", MASKS, ON)
    liver = pickle.loads(pickle.dumps(segments(path)["liver"]))
    write_seg(path, MASKS, ON, name="other")
    segment_table.listed_frames.cache_clear()  # as in a worker process that reads it for the first time
    with pytest.raises(InputError, match="changed"):
        liver.planes(ON, 0, 6)
    path.unlink()
    with pytest.raises(InputError):
        liver.planes(ON, 0, 6)


def test_frames_of_other_slabs_are_not_read(tmp_path, monkeypatch):
    liver = segments(write_seg(tmp_path / "a.dcm", {"liver": LIVER}, ON))["liver"]
    liver.fits(ON)
    read = []
    plain = Locator.read_range
    monkeypatch.setattr(Locator, "read_range", lambda self, at, n: read.append(n) or plain(self, at, n))
    assert np.array_equal(liver.planes(ON, 1, 3), LIVER[1:3])
    assert len(read) == int(LIVER[1:3].any((1, 2)).sum())
    assert max(read) <= 15  # 108 bits and those of its neighbours


def test_parts_of_one_name_in_two_files_are_one_class_and_contrary_ones_are_refused(tmp_path):
    """Two files that each hold a lesion are taken together; two readers who differ are not."""
    parts = {name: np.zeros(SHAPE, bool) for name in ("one", "two", "again", "other")}
    parts["one"][1, 2:4, 2:4] = parts["two"][3, 2:4, 2:4] = True
    parts["again"][:] = parts["one"]
    parts["other"][1, 3:5, 2:4] = True
    found = {
        name: segments(write_seg(tmp_path / f"{name}.dcm", {"Lesion": mask}, ON, name=name))["Lesion"]
        for name, mask in parts.items()
    }
    table = ClassTable.parse("lesion=1")

    def taken(*names):
        matched, refused = match_structures([found[name] for name in names], {"x": ON})
        labels = label_planes(table.assign(matched["x"]), ON, 0, 6) > 0
        return [s.origin for s in matched["x"]], labels, [v.reason for v in refused]

    origins, labels, refused = taken("one", "two")
    assert (len(origins), refused) == (2, [])
    assert np.array_equal(labels, parts["one"] | parts["two"])
    origins, labels, refused = taken("one", "again")
    assert (len(origins), refused) == (1, [])
    assert np.array_equal(labels, parts["one"])
    origins, labels, refused = taken("one", "two", "other")
    assert (len(origins), refused) == (0, ["ambiguous"])
    assert not labels.any()


def test_a_seg_and_a_nifti_of_one_patient_fill_one_table(tmp_path):
    write_seg(tmp_path / "a.dcm", {"liver": LIVER}, ON)
    write_nifti(tmp_path / "tumour.nii.gz", TUMOUR.astype(np.uint8), ON)
    structures = read_structures([tmp_path], KEY)
    matched, refused = match_structures(structures.found, {"x": ON})
    assert structures.refused == refused == ()
    labels = label_planes(ClassTable.parse("liver=1,tumour=2").assign(matched["x"]), ON, 0, 6)
    assert np.array_equal(labels, np.where(TUMOUR, 2, LIVER))


def by_highdicom(folder, kind):
    """A SEG of another writer on a CT of ours; None where a class is not there."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    paths = write_ct_series(folder / "ct", hu(), grid(), patient="P1", study_key="s", frame_key="frame")
    source = [pydicom.dcmread(path) for path in reversed(paths)]
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.cid7150.Tissue,
            segmented_property_type=codes.cid7166.ConnectiveTissue,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(MASKS, start=1)
    ]
    tumour = TUMOUR.copy() if kind != "LABELMAP" else TUMOUR & ~LIVER
    pixels = np.stack([LIVER, tumour], -1)[::-1].astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    seg = hd.seg.Segmentation(
        source_images=source,
        pixel_array=pixels * (0.75 if kind == "FRACTIONAL" else 1),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(folder / "a.dcm")
    return folder / "a.dcm", tumour


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_what_highdicom_writes_is_read_as_it_was_meant(tmp_path, kind):
    path, tumour = by_highdicom(tmp_path, kind)
    found = segments(path)
    assert set(found) == set(MASKS)
    assert np.array_equal(found["liver"].planes(ON, 0, 6), LIVER)
    assert np.array_equal(found["tumour"].planes(ON, 0, 6), tumour)


REAL = "ge_lightspeed_ultra_seg"
COUNTS = [36233, 35645, 35220]


@pytest.fixture(scope="module")
def real_ct(real_data, tmp_path_factory):
    """(grid, HU) of the CT beside the real SEG files, by a second reader."""
    return ct_by_simpleitk(real_data / "vendors" / REAL / "CT.zip", tmp_path_factory.mktemp("ct"))


@pytest.mark.real
def test_the_real_liver_has_the_voxels_of_the_data_sheet_and_is_not_upside_down(real_data, real_ct):
    on, values = real_ct
    structures = read_structures([real_data / "vendors" / REAL / "SEG_liver.dcm"], KEY)
    assert structures.refused == ()
    (liver,) = structures.found
    mask = liver.planes(on, 0, 3)
    assert liver.name == "Liver"
    assert mask.sum((1, 2)).tolist() == COUNTS
    assert [round(float(values[z][mask[z]].mean())) for z in range(3)] == [40, 38, 33]


@pytest.mark.real
def test_every_encoding_of_the_real_liver_is_the_same_and_the_crop_lies_within(real_data, real_ct):
    on, _ = real_ct
    liver = read_structures([real_data / "vendors" / REAL / "SEG_liver.dcm"], KEY).found[0].planes(on, 0, 3)
    structures = read_structures([real_data / "vendors" / REAL / "SEG_liver_encodings.zip"], KEY)
    assert structures.refused == ()
    assert len(structures.found) == 5
    for other in structures.found:
        assert other.fits(on) is None
        assert np.array_equal(other.planes(on, 0, 3), liver)
    (kept,) = match_structures(structures.found, {"x": on})[0]["x"]
    assert kept.name == "Liver"


@pytest.mark.real
def test_the_real_overlapping_segments_are_as_highdicom_reads_them(real_data, real_ct):
    import highdicom as hd

    on, _ = real_ct
    path = real_data / "vendors" / REAL / "SEG_partial_overlaps.dcm"
    found = read_structures([path], KEY).found
    assert [s.name for s in found] == ["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
    seg = hd.seg.segread(path)
    for number, structure in enumerate(found, start=1):
        volume = seg.get_volume(segment_numbers=[number], combine_segments=False)
        wanted = np.zeros(on.shape, bool)
        at = np.argwhere(np.asarray(volume.array).reshape(*volume.spatial_shape))
        points = at @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        wanted[tuple(np.rint(on.to_index(points)).astype(int).T)] = True
        assert wanted.any()
        assert np.array_equal(structure.planes(on, 0, 3), wanted)


@pytest.mark.real
def test_the_small_real_seg_equals_the_nrrd_beside_it(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "vendors" / "ge_legacy_converted_enhanced" / "SETS.zip") as archive:
        archive.extractall(tmp_path)
    for size in ("23x38x3", "24x38x3"):
        (seg,) = read_structures([tmp_path / size / "seg"], KEY).found
        (label,) = read_structures([tmp_path / size / "nrrd"], KEY).found
        columns = int(size[:2])
        on = grid((3, 38, columns), (2.5, 0.7, 0.7), origin=(46.4649, 5.01881, -177.75), frame=seg.frame_of_reference)
        assert seg.fits(on) is label.fits(on) is None
        assert seg.planes(on, 0, 3).any()
        assert np.array_equal(seg.planes(on, 0, 3), label.planes(on, 0, 3))


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """Bytes of one SEG of each type."""
    folder = tmp_path_factory.mktemp("whole")
    return [
        write_seg(folder / "a.dcm", MASKS, ON, kind=kind, syntax=syntax).read_bytes()
        for kind in ("BINARY", "FRACTIONAL", "LABELMAP")
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DEFLATED_FRAMES)
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 8),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.sampled_from([1.0, 1.0, 0.9, 0.5]),
)
def test_whatever_stands_in_a_file_ends_in_a_structure_or_a_verdict(whole_files, which, changes, cut):
    """X7: no traceback, whichever bytes are changed."""
    data = bytearray(whole_files[which])
    for place, value in changes:
        data[132 + int(place * (len(data) - 132))] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(data[: int(len(data) * cut)])
        structures = read_structures([path], KEY)
        assert structures.found or structures.refused
        for structure in structures.found:
            if structure.fits(ON) is None:
                structure.planes(ON, 0, 6)
