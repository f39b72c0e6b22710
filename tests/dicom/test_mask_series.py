from __future__ import annotations

import pickle
import shutil
import zipfile
from io import BytesIO

import numpy as np
import pydicom
import pytest
from labels_made import KEY, SHAPE, TURNED, grid, hu, lopsided, only_volume

from ctpipe.dicom import (
    ClassTable,
    label_planes,
    match_structures,
    read_structures,
    write_ct_series,
    write_mask_series,
)
from ctpipe.errors import InputError, NotThereError
from ctpipe.words import VerdictKind

NAMES = {"patient": "P1", "study_key": "study one"}
MASK = lopsided() > 0

PATIENT_1 = {
    "liver": 2865131, "livertumor01": 162337, "livertumor02": 14464, "livertumor03": 7192, "livertumor04": 4859,
    "livertumor05": 19426, "livertumor06": 766, "livertumor07": 5224, "liverkyst": 108, "portalvein": 103533,
    "spleen": 222773, "skin": 19301754,
}  # fmt: skip
PATIENT_7 = {
    "liver": 1461944, "tumor": 683556, "leftsurrenalgland": 7366, "portalvein": 59521, "spleen": 211716,
    "skin": 19599558,
}  # fmt: skip


def patient(folder, on=None, masks=None, **options):
    """CT and masks of one synthetic patient; returns (grid of the CT as check sees it, folder of the masks)."""
    on = on or grid()
    write_ct_series(folder / "PATIENT_DICOM", hu(), on, **NAMES)
    top = write_mask_series(folder, masks or {"liver": MASK}, on, **NAMES, **options)
    return only_volume(folder / "PATIENT_DICOM").grid, top


def only(structures):
    assert structures.refused == ()
    (structure,) = structures.found
    return structure


def zipped(folder, to):
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("image_*")):
            out.write(path, path.relative_to(folder.parent))
    return to


def edit(path, **changes):
    ds = pydicom.dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.save_as(path)


@pytest.mark.parametrize("linked", [True, False])
def test_the_folder_names_the_structure_and_the_position_places_it(tmp_path, linked):
    on, top = patient(tmp_path, masks={"liver": MASK, "livertumor01": ~MASK}, linked=linked)
    structures = read_structures([top], KEY)
    assert structures.refused == ()
    liver, tumor = structures.found
    assert (liver.name, tumor.name, liver.kind) == ("liver", "livertumor01", "mask-series")
    assert (liver.frame_of_reference is None) is not linked
    assert liver.fits(on) is None
    assert np.array_equal(liver.planes(on, 0, 6), MASK)
    assert np.array_equal(tumor.planes(on, 2, 5), ~MASK[2:5])


def test_zip_members_folders_and_the_mask_folder_itself_say_the_same(tmp_path):
    on, top = patient(tmp_path)
    whole = only(read_structures([top], KEY))
    packed = only(read_structures([zipped(top, tmp_path / "MASKS.zip")], KEY))
    inner = only(read_structures([top / "liver"], KEY))
    assert whole.name == packed.name == inner.name == "liver"
    assert whole.digest == packed.digest == inner.digest
    assert np.array_equal(packed.planes(on, 0, 6), MASK)


def test_a_zip_of_planes_without_folder_is_named_after_the_zip(tmp_path):
    _, top = patient(tmp_path)
    assert only(read_structures([zipped(top / "liver", tmp_path / "a.zip")], KEY)).name == "liver"
    with zipfile.ZipFile(tmp_path / "spleen.zip", "w") as out:
        for path in (top / "liver").iterdir():
            out.write(path, path.name)
    assert only(read_structures([tmp_path / "spleen.zip"], KEY)).name == "spleen"


def test_file_order_and_instance_numbers_mean_nothing(tmp_path):
    on, top = patient(tmp_path)
    paths = sorted((top / "liver").iterdir())
    for number, path in enumerate(paths):
        edit(path, InstanceNumber=(number * 5) % 6)
        path.rename(path.with_name(f"x{(number * 5) % 6}"))
    assert np.array_equal(only(read_structures([top], KEY)).planes(on, 0, 6), MASK)


@pytest.mark.parametrize(
    "directions", [((0, 0, -1), (0, 1, 0), (-1, 0, 0)), ((0, 0, 1), (1, 0, 0), (0, -1, 0)), TURNED]
)
def test_masks_of_any_orientation_lie_where_the_ct_has_them(tmp_path, directions):
    made = grid(directions=directions)
    on, top = patient(tmp_path, made)
    planes = only(read_structures([top], KEY)).planes(on, 0, 6)
    points = made.to_lps(np.argwhere(MASK))
    assert {tuple(p) for p in np.rint(on.to_index(points)).astype(int)} == {tuple(p) for p in np.argwhere(planes)}


def test_a_missing_mask_plane_is_background(tmp_path):
    on, top = patient(tmp_path)
    (top / "liver" / "image_2").unlink()
    mask = only(read_structures([top], KEY))
    assert mask.fits(on) is None
    assert np.array_equal(np.flatnonzero(mask.planes(on, 0, 6).any((1, 2))), [0, 1, 3, 4])


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (grid(shape=(5, 9, 12)), "planes"),
        (grid(shape=(6, 9, 11)), "voxels"),
        (grid(origin=(-12.5, 31.25, -101.2)), "planes"),
        (grid(origin=(-12.5, 31.25, -110.0)), "planes"),
        (grid(origin=(-12.5, 31.0, -100.0)), "rows and columns"),
        (grid(origin=(-12.5, 32.0, -100.0)), "rows and columns"),
        (grid(spacing=(2.5, 0.75, 0.71)), "rows and columns"),
        (grid(directions=((0, 0, 1), (0, -1, 0), (1, 0, 0))), "rows and columns"),
        (grid(directions=TURNED), "rows and columns"),
        (grid(spacing=(1.25, 0.75, 0.7), shape=(6, 9, 12)), "planes"),
    ],
)
def test_a_mask_on_another_lattice_does_not_fit(tmp_path, other, why):
    _, top = patient(tmp_path, linked=False)
    mask = only(read_structures([top], KEY))
    assert why in mask.fits(other)
    matched, refused = match_structures([mask], {"a": other})
    assert matched == {"a": ()}
    assert [(v.kind, v.reason) for v in refused] == [(VerdictKind.REJECT, "no-fit")]
    assert why in refused[0].detail


def test_the_frame_of_reference_decides_between_equal_lattices(tmp_path):
    grids = {}
    masks = {}
    for number in (1, 2):
        names = {"patient": f"P{number}", "study_key": f"study {number}"}
        write_ct_series(tmp_path / f"ct{number}", hu(seed=number), grid(), **names)
        grids[f"id{number}"] = only_volume(tmp_path / f"ct{number}").grid
        top = write_mask_series(tmp_path / f"m{number}", {"liver": MASK}, grid(), **names, linked=number == 1)
        masks[number] = only(read_structures([top], KEY))
    matched, refused = match_structures([masks[1], masks[2]], grids)
    assert matched == {"id1": (masks[1],), "id2": ()}
    assert [(v.kind, v.reason) for v in refused] == [(VerdictKind.REJECT, "ambiguous")]  # the unlinked one fits both
    assert match_structures([masks[2]], {"id2": grids["id2"]})[0] == {"id2": (masks[2],)}
    assert "frame of reference" in masks[1].fits(grids["id2"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImagePositionPatient": None}, "missing-position"),
        ({"ImageOrientationPatient": None}, "missing-orientation"),
        ({"PixelSpacing": None}, "missing-pixel-spacing"),
        ({"PixelSpacing": [0, 1]}, "bad-pixel-spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "bad-orientation"),
        ({"PixelSpacing": [0.75, 0.701]}, "orientation-varies"),
        ({"Rows": 10}, "truncated"),
        ({"Rows": None}, "bits"),
        ({"PixelData": b"\x07" * 108}, "not-labels"),
        ({"PixelData": bytes(range(108))}, "not-labels"),
        ({"ImagePositionPatient": [-12.5, 31.25, -100.0]}, "duplicate-position"),
    ],
)
def test_a_mask_with_one_wrong_plane_is_refused_and_the_others_go_on(tmp_path, changes, reason):
    _, top = patient(tmp_path, masks={"liver": MASK, "spleen": MASK})
    edit(top / "liver" / "image_3", **changes)
    structures = read_structures([top], KEY)
    assert [s.name for s in structures.found] == ["spleen"]
    assert all(v.kind is VerdictKind.REJECT for v in structures.refused)
    assert reason in {v.reason for v in structures.refused}


@pytest.mark.parametrize("keep", [0, 100, 140, 300, 700, -60])
def test_a_truncated_plane_refuses_its_mask_and_no_other(tmp_path, keep):
    _, top = patient(tmp_path, masks={"liver": MASK, "spleen": MASK})
    path = top / "liver" / "image_3"
    path.write_bytes(path.read_bytes()[:keep])
    structures = read_structures([top], KEY)
    # a stump without the letters DICM may be anything at all: it is set aside and named, the plane is then missing
    names = ["liver", "spleen"] if keep == 100 else ["spleen"]
    assert [s.name for s in structures.found] == names
    assert structures.refused


def test_the_ct_beside_its_masks_is_set_aside_as_one_line(tmp_path):
    _, top = patient(tmp_path)
    (top / "notes.txt").write_text("made up")
    structures = read_structures([tmp_path], KEY)
    assert [s.name for s in structures.found] == ["liver"]
    assert sorted((v.kind, v.reason, v.n_files) for v in structures.refused) == [
        (VerdictKind.SET_ASIDE, "not-dicom", 1),
        (VerdictKind.SET_ASIDE, "not-labels", 6),
    ]


def test_verdicts_hold_no_text_of_a_file(tmp_path):
    _, top = patient(tmp_path)
    edit(top / "liver" / "image_1", PatientName="Secret^Name", PixelSpacing=None, SeriesInstanceUID="1.2.3.4.5.6.7")
    edit(top / "liver" / "image_2", PatientName="Secret^Name", PixelData=b"\x07" * 108)
    said = repr(read_structures([top], KEY))
    assert "Secret" not in said
    assert "1.2.3.4.5.6.7" not in said


def test_a_copy_of_a_plane_is_that_plane(tmp_path):
    on, top = patient(tmp_path)
    shutil.copy(top / "liver" / "image_1", top / "liver" / "copy")
    assert np.array_equal(only(read_structures([top], KEY)).planes(on, 0, 6), MASK)


def test_a_mask_without_voxels_is_a_structure_all_the_same(tmp_path):
    on, top = patient(tmp_path, masks={"lesion": np.zeros(SHAPE, bool)})
    assignment = ClassTable.parse("lesion=1").assign(read_structures([top], KEY).found)
    assert assignment.empty == ()
    assert not label_planes(assignment, on, 0, 6).any()


def test_a_file_that_changed_or_vanished_is_an_input_error(tmp_path):
    on, top = patient(tmp_path)
    mask = pickle.loads(pickle.dumps(only(read_structures([top], KEY))))
    path = top / "liver" / "image_3"
    edit(path, PixelData=b"\x01" * 108)
    with pytest.raises(InputError, match="changed"):
        mask.planes(on, 0, 6)
    assert np.array_equal(mask.planes(on, 0, 3), MASK[:3])
    path.unlink()
    with pytest.raises(InputError):
        mask.planes(on, 3, 4)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotThereError):
        read_structures([tmp_path / "nowhere"], KEY)


def test_names_lose_control_characters_and_end_at_64(tmp_path):
    _, top = patient(tmp_path)
    (top / "liver").rename(top / ("li\x1b[31mver\n" + "r" * 90))
    name = only(read_structures([top], KEY)).name
    assert name.startswith("li[31mverrr")
    assert len(name) == 64


def subset(archive, folder, names):
    """The masks of these names out of a zip of the data, as a zip: reading all of them takes long."""
    out = folder / archive.name
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w") as target:
        for member in source.namelist():
            if member.split("/")[-2] in names:
                target.writestr(member, source.read(member))
    return out


def counts(paths, on):
    return {
        s.name: int(s.planes(on, 0, on.shape.z).sum()) for s in read_structures(paths, KEY).found if s.fits(on) is None
    }


@pytest.mark.real
def test_ircadb_masks_have_the_voxels_of_the_data_sheet(real_data, tmp_path):
    data = real_data / "ircadb01" / "3Dircadb1.7"
    with zipfile.ZipFile(data / "PATIENT_DICOM.zip") as ct:
        first, last = (pydicom.dcmread(BytesIO(ct.read(f"PATIENT_DICOM/image_{n}"))) for n in (0, 150))
    y_mm, x_mm = map(float, first.PixelSpacing)
    z_mm = (last.ImagePositionPatient[2] - first.ImagePositionPatient[2]) / 150
    on = grid((151, 512, 512), (z_mm, y_mm, x_mm), origin=first.ImagePositionPatient)
    wanted = {"tumor": PATIENT_7["tumor"]}
    assert counts([subset(data / "MASKS_DICOM.zip", tmp_path, wanted)], on) == wanted


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("number", "wanted"), [(1, PATIENT_1), (7, PATIENT_7)])
def test_all_ircadb_masks_have_the_voxels_of_the_data_sheet(real_data, number, wanted):
    data = real_data / "ircadb01" / f"3Dircadb1.{number}"
    assert counts([data / "MASKS_DICOM.zip"], only_volume(data / "PATIENT_DICOM.zip").grid) == wanted


@pytest.mark.real
@pytest.mark.slow
def test_ircadb_patients_sort_their_masks_by_geometry_and_tumours_cover_the_liver(real_data, tmp_path):
    tops, grids = [], {}
    for number, names in ((1, ("liver", "livertumor01", "liverkyst")), (7, ("liver", "tumor"))):
        data = real_data / "ircadb01" / f"3Dircadb1.{number}"
        (tmp_path / str(number)).mkdir()
        tops.append(subset(data / "MASKS_DICOM.zip", tmp_path / str(number), names))
        grids[str(number)] = only_volume(data / "PATIENT_DICOM.zip").grid
    structures = read_structures(tops, KEY)
    matched, refused = match_structures(structures.found, grids)
    assert refused == structures.refused == ()
    assignment = ClassTable.parse("liver=1,livertumor=2").assign(matched["1"])
    assert assignment.unused == ("liverkyst",)
    labels = label_planes(assignment, grids["1"], 0, 129)
    assert np.bincount(labels.ravel())[1:].tolist() == [2865131 - 162337, 162337]
    assert ClassTable.parse("liver=1,livertumor=2").assign(matched["7"]).empty == ("livertumor",)
