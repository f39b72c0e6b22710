"""Series that are refused by default, taken into a store as the user asked, from real scanners (V2, V7)."""

from __future__ import annotations

import numpy as np
import pytest

from ctpipe import pipeline
from ctpipe.store import open_store

pytestmark = pytest.mark.real
TILT, HEAD = "philips_ingenuity_tilt/TILT_NEG.zip", "ge_hispeed_dual_tilt_two_step/CT.zip"
GAP = "ge_lightspeed16_gap/CT.zip"


def taken(real_data, tmp_path, archive, **options):
    report = pipeline.ingest(real_data / "vendors" / archive, tmp_path / "S", **options)
    store = open_store(tmp_path / "S")
    return [store[volume.id] for volume in report.volumes], [verdict.reason for verdict in report.others]


@pytest.mark.parametrize(("archive", "reason"), [(TILT, "gantry-tilt"), (HEAD, "uneven-spacing"), (GAP, "gap")])
def test_nothing_is_taken_unless_asked_for(real_data, tmp_path, archive, reason):
    assert taken(real_data, tmp_path, archive) == ([], [reason])


def test_a_tilt_is_straightened_or_kept_as_asked_and_both_lie_in_one_store(real_data, tmp_path):
    (straight,), _ = taken(real_data, tmp_path, TILT, on_tilt="resample")
    (kept,), _ = taken(real_data, tmp_path, TILT, on_tilt="keep")
    assert straight.id != kept.id
    assert (straight.grid.is_sheared, kept.grid.is_sheared) == (False, True)
    assert kept.grid.shape == (12, 512, 512)
    assert straight.grid.shape.z == 12
    assert straight.grid.shape.y > 512  # the canvas holds every plane where it lies
    assert straight.grid.spacing_mm[0] == pytest.approx(2.371, abs=1e-3)  # along the normal, not between positions
    assert "tilt" in " ".join(straight.provenance["notes"])
    assert "tilt" in " ".join(kept.provenance["notes"])
    # the same anatomy at the same place: a plane's centre of mass of what is no air, in the patient
    for z in (0, 6, 11):
        places = []
        for volume in (straight, kept):
            rows = np.argwhere(volume.read_planes(z, z + 1)[0] > -300)
            places.append(volume.grid.to_lps([[z, *rows.mean(0)]])[0])
        assert np.linalg.norm(places[0] - places[1]) < 0.1


def test_the_head_of_two_steps_becomes_two_volumes_only_by_both_options(real_data, tmp_path):
    assert taken(real_data, tmp_path, HEAD, on_step_change="split")[0] == []
    volumes, others = taken(real_data, tmp_path, HEAD, on_step_change="split", on_tilt="resample")
    assert others == []
    steps = sorted(round(volume.grid.spacing_mm[0], 2) for volume in volumes)
    assert steps == [4.0, 7.0]
    assert {volume.grid.shape.z for volume in volumes} == {14}


def test_a_gap_is_taken_with_the_positions_of_its_planes(real_data, tmp_path):
    (volume,), _ = taken(real_data, tmp_path, GAP, on_gap="keep-positions")
    table = volume.planes
    along = np.linalg.norm(np.diff(table[["position_l", "position_p", "position_s"]].to_numpy(), axis=0), axis=1)
    assert along == pytest.approx([5, 5, 10], abs=0.01)
    assert volume.grid.spacing_mm[0] == pytest.approx(20 / 3, abs=0.01)
    assert "not evenly spaced" in " ".join(volume.provenance["notes"])
