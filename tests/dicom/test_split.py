"""Which planes make which volume (V7; corpus policy, rules 6, 10 and 16)."""

import numpy as np
import pytest
from builders import ORIENTATIONS, ct_series, hu_block, setter, write_files
from pydicom.dataset import Dataset

from ctpipe.dicom import Pseudonyms, check, read_planes

KEY = Pseudonyms(b"k" * 32)


def check_all(tmp_path, *series):
    for number, files in enumerate(series):
        write_files(tmp_path / str(number), files)
    return check(tmp_path, KEY)


def renumbered(start):
    return lambda z, ds: setattr(ds, "SOPInstanceUID", f"1.2.3.{start + z}")


@pytest.mark.parametrize(
    "changes",
    [
        {"orientation": ORIENTATIONS["coronal"]},
        {"spacing_mm": (2.5, 0.8, 0.9)},
        {"hu": hu_block((8, 12, 18))},
        {"frame": "1.2.3.9"},
    ],
    ids=["orientation", "pixel spacing", "size", "frame of reference"],
)
def test_planes_of_one_series_that_cannot_be_one_grid_are_two_volumes(tmp_path, changes):
    """V7."""
    frame = changes.pop("frame", None) if "frame" in changes else None

    def edit(z, ds):
        renumbered(100)(z, ds)
        if frame:
            ds.FrameOfReferenceUID = frame

    other = ct_series(**{"hu": hu_block(seed=8), **changes}, edit=edit)
    found = check_all(tmp_path, ct_series(hu_block()), other)
    assert [v.kind for v in found] == ["accept", "accept"]
    assert len({v.series for v in found}) == 1
    assert len({v.source.series_id for v in found}) == 2


@pytest.mark.parametrize(
    ("key", "values"),
    [("AcquisitionNumber", (1, 2)), ("TemporalPositionIdentifier", (1, 2)), ("TriggerTime", ("0", "250")),
     ("NominalPercentageOfCardiacPhase", (0.0, 33.0)), ("KVP", ("80", "140"))],
)  # fmt: skip
def test_each_key_tells_phases_apart(tmp_path, key, values):
    """V7."""
    first = ct_series(hu_block(), edit=setter(**{key: values[0]}))

    def edit(z, ds):
        renumbered(1)(z, ds)
        setattr(ds, key, values[1])

    found = check_all(tmp_path, first, ct_series(hu_block(seed=8), edit=edit))
    got = {read_planes(v.source, 0, 8).tobytes() for v in found}
    assert got == {hu_block().tobytes(), hu_block(seed=8).tobytes()}


def test_a_key_that_varies_without_repeats_splits_nothing(tmp_path):
    files = ct_series(hu_block(), edit=lambda z, ds: setattr(ds, "AcquisitionNumber", z + 1))
    (verdict,) = check_all(tmp_path, files)
    assert verdict.source.grid.shape == (8, 12, 16)


def test_a_localizer_in_the_series_is_set_aside_and_hinders_nothing(tmp_path):
    scout = ct_series(hu_block((1, 12, 16)), orientation=ORIENTATIONS["coronal"], edit=lambda z, ds: (
        renumbered(50)(z, ds), setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])))  # fmt: skip
    found = check_all(tmp_path, ct_series(hu_block()), scout)
    assert [(v.kind, v.reason) for v in found] == [("accept", ""), ("set-aside", "localizer")]


def enhanced(order, rescale="shared", drop_group=False):
    """One enhanced CT of the block, frames in `order`."""
    hu = hu_block()
    box: list[Dataset] = []
    ct_series(hu, edit=lambda z, ds: box.append(ds))
    ds, per_frame = box[0], []

    def item(**values):
        out = Dataset()
        for keyword, value in values.items():
            setattr(out, keyword, value)
        return out

    def transform(slope, intercept):
        return [item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")]

    for z in order:
        group = item(PlanePositionSequence=[item(ImagePositionPatient=box[z].ImagePositionPatient)])
        if rescale == "per frame":
            group.PixelValueTransformationSequence = transform("1", str(-1024 + z))
        per_frame.append(group)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=ds.ImageOrientationPatient)],
        PixelMeasuresSequence=[item(PixelSpacing=ds.PixelSpacing, SliceThickness="9.9")],
        PixelValueTransformationSequence=transform("1", "-1024"),
    )
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                    "RescaleIntercept", "RescaleType"):  # fmt: skip
        delattr(ds, keyword)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    ds.NumberOfFrames = len(per_frame)
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = per_frame[1:] if drop_group else per_frame
    ds.PixelData = b"".join(box[z].PixelData if z else (hu[0] + 1024).astype("<u2").tobytes() for z in order)
    from builders import to_bytes

    return to_bytes(ds)


@pytest.mark.parametrize("rescale", ["shared", "per frame"])
def test_frames_of_an_enhanced_object_are_planes_in_their_place(tmp_path, rescale):
    """Rule 16: functional groups per frame before shared."""
    (verdict,) = check_all(tmp_path, [enhanced([3, 0, 7, 1, 6, 2, 5, 4], rescale)])
    shift = np.arange(8)[:, None, None] if rescale == "per frame" else 0
    assert (verdict.kind, verdict.n_files) == ("accept", 1)
    assert np.array_equal(read_planes(verdict.source, 0, 8), hu_block() + shift)
    assert np.array_equal(read_planes(verdict.source, 2, 4), (hu_block() + shift)[2:4])


def test_an_enhanced_object_that_lacks_a_group_is_refused(tmp_path):
    (verdict,) = check_all(tmp_path, [enhanced(range(8), drop_group=True)])
    assert (verdict.kind, verdict.reason) == ("reject", "frames")
