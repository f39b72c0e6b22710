from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from labels_made import SHAPE, grid

from ctpipe.dicom import ClassTable, Structure, label_planes
from ctpipe.errors import CtpipeError, NotThereError, UsageError


@dataclass(frozen=True)
class Box(Structure):
    """A structure that fills planes from..to."""

    kind = "made"
    low: int
    high: int

    def fits(self, grid):
        return None

    def planes(self, grid, start, stop):
        out = np.zeros((stop - start, grid.shape.y, grid.shape.x), bool)
        out[max(self.low - start, 0) : max(self.high - start, 0)] = True
        return out


def box(name: str, low: int = 0, high: int = 1) -> Box:
    return Box(name, "made", None, name, (), low, high)


def test_a_line_names_classes_labels_and_the_structures_of_each():
    table = ClassTable.parse("liver=1, lesion=2:livertumor+tumor")
    assert table.classes == {1: "liver", 2: "lesion"}
    assert [entry.structures for entry in table.entries] == [("liver",), ("livertumor", "tumor")]


def test_a_file_says_the_same_as_a_line(tmp_path):
    path = tmp_path / "classes.toml"
    path.write_text('[classes]\nliver = 1\n[classes.lesion]\nlabel = 2\nstructures = ["livertumor", "tumor"]\n')
    assert ClassTable.load(path) == ClassTable.parse("liver=1,lesion=2:livertumor+tumor") == ClassTable.parse(str(path))


@pytest.mark.parametrize(
    ("structure", "taken_by"),
    [
        ("livertumor", "livertumor"),
        ("livertumor01", "livertumor"),
        ("LiverTumor7", "livertumor"),
        ("liver", "liver"),
        ("LIVER", "liver"),
        ("liver2", "liver"),
        ("liverkyst", None),
        ("livertumor01b", None),
        ("livertumor 1", None),
        ("liver٣", None),  # a digit, but not of ASCII
        ("skin", None),
        ("", None),
    ],
)
def test_a_class_takes_equal_names_and_those_that_digits_follow(structure, taken_by):
    found = ClassTable.parse("liver=1,livertumor=2").class_of(structure)
    assert (found and found.name) == taken_by


def test_a_pattern_that_ends_in_a_digit_takes_its_own_name_only():
    table = ClassTable.parse("spleen=1:labels1,other=2:labels12")
    found = [(name, table.class_of(name)) for name in ("labels1", "labels12", "labels123")]
    assert [(name, of and of.name) for name, of in found] == [
        ("labels1", "spleen"), ("labels12", "other"), ("labels123", None),
    ]  # fmt: skip


def test_an_equal_name_beats_one_that_digits_follow():
    table = ClassTable.parse("first=1:gtv,second=2:gtv2")
    assert [table.class_of(name).name for name in ("gtv", "gtv1", "gtv2")] == ["first", "first", "second"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "liver",
        "liver=",
        "=1",
        "liver=x",
        "liver=1,",
        "liver=-1",
        "liver=1.5",
        "liver=1:",
        "liver=1:a+",
        "li ver=1",
        "liver=0",
        "liver=65536",
        "liver=1,liver=2",
        "liver=1,Liver=2",
        "liver=1,spleen=1",
        "a=1:x,b=2:X",
        "background=1",
        "1liver=1",
        "liver=1 2",
        "liver=99999999999999999999",
    ],
)
def test_what_is_no_class_table_is_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        ClassTable.parse(text)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "[classes]",
        "[classes]\nliver = true",
        "[classes]\nliver = 1.0",
        "[classes]\nliver = '1'",
        "[classes",
        "classes = 3",
        "[classes.liver]\nstructures = ['a']",
        "[classes.liver]\nlabel = 1\nstructures = 'a'",
        "[classes.liver]\nlabel = 1\nstructures = []",
        "[classes.liver]\nlabel = 1\nstructures = [3]",
        "[classes.liver]\nlabel = 1\ncolour = 'red'",
        "[classes]\nliver = 1\n[more]\na = 1",
    ],
)
def test_a_file_that_is_no_class_table_is_a_usage_error(tmp_path, text):
    path = tmp_path / "classes.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        ClassTable.load(path)


def test_a_class_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotThereError, match=r"nowhere\.toml"):
        ClassTable.parse(str(tmp_path / "nowhere.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CtpipeError):
        ClassTable.load(tmp_path / "bytes.toml")


def test_structures_without_class_and_classes_without_structure_are_listed():
    assignment = ClassTable.parse("liver=1,lesion=2:livertumor,bone=3").assign(
        [box("skin"), box("livertumor02"), box("liver"), box("livertumor01"), box("skin")]
    )
    assert [(label, s.name) for label, s in assignment.by_label] == [
        (1, "liver"),
        (2, "livertumor02"),
        (2, "livertumor01"),
    ]
    assert assignment.unused == ("skin",)
    assert assignment.empty == ("bone",)


def test_where_structures_overlap_the_class_later_in_the_list_wins():
    structures = [box("tumor", 2, 4), box("liver", 1, 5)]
    on = grid()
    for text, expected in (("liver=1,tumor=2", [0, 1, 2, 2, 1, 0]), ("tumor=2,liver=1", [0, 1, 1, 1, 1, 0])):
        labels = label_planes(ClassTable.parse(text).assign(structures), on, 0, 6)
        assert labels.dtype == np.uint8
        assert labels.shape == SHAPE
        assert labels[:, 0, 0].tolist() == expected


def test_the_dtype_is_the_tables_and_slabs_agree_with_the_whole():
    table = ClassTable.parse("liver=1,rare=256")
    assignment = table.assign([box("liver", 1, 5)])
    whole = label_planes(assignment, grid(), 0, 6)
    assert whole.dtype == np.uint16  # though nothing here is labelled 256
    parts = [label_planes(assignment, grid(), z, z + 2) for z in (0, 2, 4)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_table_and_an_assignment_travel_to_workers():
    table = ClassTable.parse("liver=1,lesion=2:tumor")
    assert pickle.loads(pickle.dumps(table)) == table
    assignment = table.assign([box("tumor1")])
    assert pickle.loads(pickle.dumps(assignment)) == assignment
