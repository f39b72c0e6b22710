"""The synthetic abdomen: repeatable, patient-specific, its lesions as promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ctpipe.demo.phantom import LESION_MM, SHAPE, SPACING_MM, Phantom, phantom
from ctpipe.errors import UsageError

SEEDS = (7, 8)


@pytest.fixture(scope="module")
def made() -> dict[int, Phantom]:
    return {seed: phantom(seed) for seed in SEEDS}


def _lesions(patient: Phantom) -> np.ndarray:
    return np.any([mask for name, mask in patient.masks.items() if name != "liver"], axis=0)


def test_a_seed_is_a_patient_bit_for_bit(made: dict[int, Phantom]) -> None:
    again = phantom(7)
    assert again.hu.tobytes() == made[7].hu.tobytes()
    assert again.facts == made[7].facts
    assert {k: v.tobytes() for k, v in again.masks.items()} == {k: v.tobytes() for k, v in made[7].masks.items()}
    assert made[8].hu.tobytes() != made[7].hu.tobytes()


def test_the_grid_is_axial_with_x_to_the_left_and_z_to_the_head(made: dict[int, Phantom]) -> None:
    """V6: the liver lies on the patient's right, the spine at the back."""
    patient = made[7]
    assert patient.grid.letters == ("S", "P", "L")
    assert patient.grid.spacing_mm == SPACING_MM
    assert patient.hu.shape == patient.grid.shape == SHAPE
    middle = patient.grid.to_lps([(n - 1) / 2 for n in SHAPE])
    np.testing.assert_allclose(middle, 0, atol=1e-9)
    liver = patient.grid.to_lps(np.argwhere(patient.masks["liver"]).mean(0))
    assert liver[0] < -20
    spine = patient.grid.to_lps(np.argwhere(ndimage.gaussian_filter(patient.hu.astype(float), 2) > 170).mean(0))
    assert spine[1] > 20


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_are_inside_the_liver_apart_and_as_dark_as_promised(made: dict[int, Phantom], seed: int) -> None:
    patient = made[seed]
    liver, lesions = patient.masks["liver"], _lesions(patient)
    count = len(patient.masks) - 1
    assert 3 <= len(patient.facts["lesions"]) == count <= 8
    assert list(patient.masks) == ["liver", *(f"livertumor{i:02}" for i in range(1, count + 1))]
    assert not (lesions & ~liver).any()
    assert ndimage.label(lesions)[1] == count
    sound = patient.hu[ndimage.binary_erosion(liver & ~lesions, iterations=2)]
    masks = list(patient.masks.values())[1:]
    for (diameter, contrast, voxels), mask in zip(patient.facts["lesions"], masks, strict=True):
        assert LESION_MM[0] <= diameter <= LESION_MM[1]
        assert 30 <= contrast <= 60
        assert mask.sum() == voxels
        core = ndimage.binary_erosion(mask)
        if core.sum() > 50:
            assert np.median(sound) - patient.hu[core].mean() >= 27
    assert max(diameter for diameter, _, _ in patient.facts["lesions"]) >= 22


def test_the_least_contrast_can_be_asked_for() -> None:
    assert all(contrast >= 70 for _, contrast, _ in phantom(7, min_contrast_hu=70).facts["lesions"])
    with pytest.raises(UsageError, match="0 < contrast"):
        phantom(7, min_contrast_hu=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_looks_like_an_abdomen_in_a_scanner(made: dict[int, Phantom], seed: int) -> None:
    patient = made[seed]
    liver = patient.masks["liver"]
    assert 700 < liver.sum() * np.prod(SPACING_MM) / 1000 < 2200  # ml
    assert abs(np.median(patient.hu[liver]) - patient.facts["liver_hu"]) < 10
    assert patient.hu.min() >= -1024
    assert (patient.hu[:, 0, 0] < -900).all()  # air in the corner
    # dark places at the liver that are no lesion: gallbladder and fissure
    rim = ndimage.binary_dilation(liver, iterations=4) & ~liver
    assert ((patient.hu[rim] > -40) & (patient.hu[rim] < 40)).sum() > 500
