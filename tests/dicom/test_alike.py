"""Headers that are like one that was looked at in full: the same planes come out, whatever was done to the bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import builders
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctpipe.dicom import alike, elements, looking
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.sources import iter_items

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
import mutants

NAMES = Pseudonyms(b"k" * 32)
IN_PLACE = sorted(set(mutants.SYNTAXES) - {"big-endian", "deflated"})
number = st.integers(0, 2**32 - 1)
mutations = st.lists(st.tuples(number, number, number), min_size=1, max_size=3)


def seen(folder: Path, files: list[bytes], *, together: bool) -> list[tuple[looking.Entry, ...]]:
    """What a look tells of files; together: each may be known by the ones before."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for place, data in enumerate(files):
        (folder / f"{place:03d}").write_bytes(data)
    items = list(enumerate(iter_items([folder])))
    tasks = [items] if together else [[item] for item in items]
    return [found.entries for task in tasks for found in looking.look(looking.Look(tuple(task), NAMES))]


@pytest.mark.parametrize("syntax", mutants.SYNTAXES)
def test_a_series_is_parsed_once_and_told_as_if_each_plane_were(syntax, tmp_path, monkeypatch):
    files = list(mutants.plane_files(syntax))
    apart = seen(tmp_path / "in", files, together=False)
    parsed = []
    monkeypatch.setattr(looking, "parse", lambda file, parse=looking.parse: parsed.append(1) or parse(file))
    assert seen(tmp_path / "in", files, together=True) == apart
    assert len(parsed) == (1 if syntax in IN_PLACE else len(files))
    assert len({line.text for entries in apart for entry in entries for line in entry.planes}) == len(files)


@pytest.mark.parametrize("syntax", IN_PLACE)
def test_no_change_of_any_byte_is_overlooked(syntax, tmp_path):
    @settings(deadline=None, max_examples=80, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(number, mutations)
    def fuzz(which, changes):
        planes = mutants.plane_files(syntax)
        files = [planes[0], mutants.mutate(planes[1 + which % 2], changes)]
        assert seen(tmp_path / "in", files, together=True) == seen(tmp_path / "in", files, together=False)

    fuzz()


def test_every_element_that_is_read_must_be_equal_or_is_read_anew(tmp_path, monkeypatch):
    """Else a plane that differs in it would pass for one that is known."""
    asked = set()
    real = elements._tag
    monkeypatch.setattr(elements, "_tag", lambda keyword: asked.add(keyword) or real(keyword))
    padded = builders.setter(PixelPaddingValue=2000)
    files = builders.ct_series(builders.hu_block((3, 34, 36)), edit=padded)
    assert all(entries[0].planes for entries in seen(tmp_path / "in", files, together=False))
    assert asked - {"PixelData"} <= {*alike.COMMON, *alike.OWN}
    assert len(asked) > 40


@pytest.mark.real
@pytest.mark.parametrize("archive", ["philips_ingenuity_study/STUDY.zip", "ge_dicomdir_tree/TREE.zip",
                                     "siemens_mct_j2k/CT.zip", "siemens_tilt/CT.zip",
                                     "ge_hispeed_dual_tilt_two_step/CT.zip"])  # fmt: skip
def test_real_series_are_told_alike(real_data, archive, monkeypatch):
    items = list(enumerate(iter_items([real_data / "vendors" / archive])))
    together = looking.look(looking.Look(tuple(items), NAMES))
    monkeypatch.setattr(alike.Alike, "plane", lambda *_: None)
    assert looking.look(looking.Look(tuple(items), NAMES)) == together
