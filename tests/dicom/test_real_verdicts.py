"""The verdict on every real series (V1): the test data's table, or the corpus' policy where they differ."""

import pytest

from ctpipe.dicom import Pseudonyms, check

KEY = Pseudonyms(b"k" * 32)
STS = ("002", "003", "008", "012", "015", "018", "019", "024", "025", "026", "032", "035", "041", "042", "050", "051")
ASIDE = "set-aside"
# archive -> shapes taken, and the (verdict, reason) of all that is not
REAL: dict[str, tuple[set[tuple[int, int, int]], set[tuple[str, str]]]] = {
    "ibsi1_lung/CT.zip": ({(60, 201, 204)}, set()),
    "ibsi1_lung/RS.zip": (set(), {(ASIDE, "not-image")}),
    "sts/STS_008/NONCT_PET.zip": (set(), {(ASIDE, "not-ct")}),
    "sts/STS_008/NONCT_MR_T1.zip": (set(), {(ASIDE, "not-ct")}),
    "vendors/ge_hispeed_dual_tilt_two_step/CT.zip": (set(), {("reject", "uneven-spacing")}),
    "vendors/philips_ingenuity_study/STUDY.zip": (
        {(28, 512, 512)},
        {(ASIDE, "localizer"), (ASIDE, "secondary-capture"), (ASIDE, "not-image")},
    ),
    "vendors/philips_ingenuity_tilt/TILT_NEG.zip": (set(), {("reject", "gantry-tilt")}),
    "vendors/philips_ingenuity_tilt/TILT_POS.zip": (set(), {("reject", "gantry-tilt")}),
    "vendors/siemens_tilt/CT.zip": (set(), {("reject", "gantry-tilt")}),
    "vendors/siemens_tilt_gap/CT.zip": (set(), {("reject", "gap")}),
    "vendors/ge_lightspeed16_gap/CT.zip": (set(), {("reject", "gap")}),
    "vendors/siemens_bolus_monitoring/CT.zip": (set(), {("reject", "too-few-slices")}),
    # Study, series and instance UIDs are empty: rule 14 of the policy, against the table's "accept, warn"
    "vendors/siemens_mct_j2k/CT.zip": (set(), {("reject", "invalid-uid")}),
    "vendors/ge_lightspeed_ultra_seg/CT.zip": ({(3, 512, 512)}, set()),
    # RescaleType is US: rule 5, against the table's "accept both or refuse the enhanced one"
    "vendors/ge_legacy_converted_enhanced/SETS.zip": (
        set(),
        {("reject", "rescale-units"), (ASIDE, "not-image"), (ASIDE, "not-dicom")},
    ),
    "vendors/siemens_definition_multiframe_sc/CLASSIC.zip": ({(7, 512, 512)}, set()),
    "vendors/siemens_definition_multiframe_sc/MULTIFRAME.zip": (set(), {(ASIDE, "secondary-capture")}),
    "vendors/toshiba_aquilion_4d/CLASSIC.zip": (set(), {("reject", "not-ct")}),
    "vendors/toshiba_aquilion_4d/MULTIFRAME.zip": (set(), {(ASIDE, "secondary-capture")}),
    "vendors/toshiba_aquilion_4d/RESCALE_VARIES.zip": (set(), {("reject", "not-ct")}),
    "vendors/ge_discovery_mi_rtstruct/CT.zip": (set(), {("reject", "too-few-slices")}),
    "vendors/ge_discovery_mi_rtstruct/RTSTRUCT.zip": (set(), {(ASIDE, "not-image")}),
    "vendors/hitachi_supria_j2k/CT.zip": (set(), {("reject", "too-few-slices")}),
    "vendors/ge_dicomdir_tree/TREE.zip": (
        {(5, 16, 16)},
        {("reject", "gap"), ("reject", "no-pixels"), (ASIDE, "not-ct"), (ASIDE, "localizer"), (ASIDE, "not-image"),
         (ASIDE, "not-dicom")},
    ),
    "vendors/enhanced_ct_perfusion/CT.zip": (set(), {("reject", "rescale-units")}),
    "vendors/singles/CT_bogus_sbs.zip": (set(), {("reject", "too-few-slices")}),
    "vendors/singles/CT_negative_sbs.zip": (set(), {("reject", "too-few-slices")}),
}  # fmt: skip


def outcome(path):
    found = check(path, KEY)
    return (
        {tuple(v.source.grid.shape) for v in found if v.source},
        {(v.kind.value, v.reason) for v in found if not v.source},
    )


@pytest.mark.real
@pytest.mark.parametrize("archive", REAL)
def test_each_real_series_gets_its_verdict(real_data, archive):
    """V1."""
    assert outcome(real_data / archive) == REAL[archive]


@pytest.mark.real
@pytest.mark.parametrize("archive", ["syntaxes_ge_ctimage/CT.zip", "syntaxes_wg04/COMPRESSED.zip"])
def test_collections_of_encodings_are_refused_whole(real_data, archive):
    taken, others = outcome(real_data / "vendors" / archive)
    assert not taken
    assert {kind for kind, _ in others} == {"reject"}


@pytest.mark.real
@pytest.mark.parametrize("number", STS)
def test_every_sarcoma_ct_is_accepted_and_its_contours_are_set_aside(real_data, number):
    """V1."""
    folder = real_data / "sts" / f"STS_{number}"
    found = check([folder / "CT.zip", folder / "RS.zip"], KEY)
    assert [(v.kind.value, v.reason) for v in found] == [("accept", ""), (ASIDE, "not-image")]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("patient", ["1", "7"])
def test_abdominal_ct_is_accepted_and_its_masks_are_set_aside(real_data, patient):
    """V1: ingesting the tree blindly would yield 18 bogus volumes."""
    found = check(real_data / "ircadb01" / f"3Dircadb1.{patient}", KEY)
    assert [v.kind.value for v in found if v.source] == ["accept"]
    assert {(v.kind.value, v.reason) for v in found if not v.source} == {(ASIDE, "not-ct")}
