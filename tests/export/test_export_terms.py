"""Coded terms of classes: what ships is in pydicom's dictionary, what is unknown says so."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from ctpipe.errors import NotThereError, UsageError
from ctpipe.export.terms import FINDING, ORGAN, TISSUE, Code, _tables, terms_of


def test_every_code_that_ships_is_in_pydicoms_dictionary_with_its_meaning():
    known = {}
    for entries in concepts["SCT"].values():
        for value, (meaning, _) in entries.items():
            known.setdefault(value, set()).add(meaning.lower())
    codes = [code for table in _tables() for code in table.values()]
    assert len(codes) > 40
    for code in [*codes, TISSUE, ORGAN, FINDING]:
        assert code.meaning.lower() in known[code.value], code


@pytest.mark.parametrize(
    ("name", "category", "kind", "region"),
    [
        ("liver", ORGAN, "Liver", None),
        ("Liver_1", ORGAN, "Liver", None),
        ("livertumor", FINDING, "Neoplasm", "Liver"),
        ("Lung nodule", FINDING, "Nodule", "Lung"),
        ("urinary bladder tumour", FINDING, "Neoplasm", "Bladder"),
        ("GTV", FINDING, "Mass", None),
    ],
)
def test_names_find_their_terms(name, category, kind, region):
    term = terms_of([name])[name]
    assert (term.category, term.kind.meaning, term.region and term.region.meaning) == (category, kind, region)
    assert term.known


@pytest.mark.parametrize("name", ["liverkyst", "tumor liver", "α", "a name longer than sixteen letters", "1"])
def test_what_no_table_knows_is_tissue_with_a_private_code_of_its_name(name):
    term = terms_of([name])[name]
    assert not term.known
    assert (term.category, term.kind.scheme, term.kind.meaning) == (TISSUE, "99CTPIPE", name)
    assert len(term.kind.value) <= 16
    assert term.kind.value.isascii()


def test_a_file_of_the_users_own_is_checked(tmp_path):
    file = tmp_path / "codes.toml"
    with pytest.raises(NotThereError):
        terms_of(["liver"], file)
    for text in ('[liver]\ntype = ["1", "SCT", "x"]\n', "liver = 3\n", '[liver]\ncategory = ["1"]\ntype = ["1"]', "["):
        file.write_text(text)
        with pytest.raises(UsageError):
            terms_of(["liver"], file)
    file.write_text('[Liver]\ncategory = ["1", "99X", "c"]\ntype = ["2", "99X", "t"]\n')
    assert terms_of(["liver"], file)["liver"].kind == Code("2", "99X", "t")
    file.write_text(f'[liver]\ncategory = ["1", "99X", "c"]\ntype = ["{"2" * 17}", "99X", "t"]\n')
    with pytest.raises(UsageError, match="longer than DICOM allows"):
        terms_of(["liver"], file)
