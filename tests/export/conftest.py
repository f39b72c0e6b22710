"""Volumes of every make of grid, each ingested once for all tests of the folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from builders import setter
from exports_made import GRIDS, Made, made


@pytest.fixture(scope="session")
def case_of(tmp_path_factory: pytest.TempPathFactory, _own_key: None) -> Callable[[str], Made]:
    """case_of("oblique"): a store, its files, its labels."""
    kept: dict[str, Made] = {}

    def get(name: str) -> Made:
        if name not in kept:
            edit = setter(SpecificCharacterSet="ISO_IR 100", PatientName="Bäcker^Zoë", PatientBirthDate="19700102",
                          StudyDate="20260102", StudyTime="101500", StudyID="7", AccessionNumber="A7")  # fmt: skip
            kept[name] = made(tmp_path_factory.mktemp("export"), **{"edit": edit, **GRIDS[name]})
        return kept[name]

    return get
