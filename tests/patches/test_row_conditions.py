"""Conditions on rows: what is allowed, what is named."""

from __future__ import annotations

import pandas as pd
import pytest

from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches.query import checked, select

FRAME = pd.DataFrame({
    "label": pd.array([0, 1, 2, 1], "uint8").to_numpy(), "fraction_liver": [0.0, 0.5, 0.25, 1.0],
    "fraction_portal vein": [0.0, 0.0, 0.5, 0.0], "series": pd.Categorical(["a", "a", "b", "b"]),
})  # fmt: skip
CLASSES = {1: "liver", 2: "portal vein"}


def rows(where):
    return select(FRAME, checked(where, list(FRAME.columns), CLASSES)).index.tolist()


@pytest.mark.parametrize(("where", "expected"), [
    ("label == 1", [1, 3]),
    ("label == 'liver'", [1, 3]),
    ("'liver' == label", [1, 3]),
    ("label == 'background'", [0]),
    ("label in ['background', 'portal vein']", [0, 2]),
    ("label != 'liver' and fraction_liver > 0.1", [2]),
    ("label==1 & series=='a'", [1]),
    ("(label == 1) | (`fraction_portal vein` > 0)", [1, 2, 3]),
    ("not label == 1", [0, 2]),
    ("~(label == 1)", [0, 2]),
    ("0 < label < 2", [1, 3]),
    ("fraction_liver + `fraction_portal vein` >= 0.75", [2, 3]),
    ("series == 'b'", [2, 3]),
])  # fmt: skip
def test_a_condition_keeps_the_rows_for_which_it_holds(where, expected):
    assert rows(where) == expected


@pytest.mark.parametrize(("where", "what"), [
    ("fraction_spleen > 0", "column 'fraction_spleen'.*fraction_liver"),
    ("label == 'spleen'", "class 'spleen'.*background, liver, portal vein"),
    ("label in ['liver', 'spleen']", "class 'spleen'"),
])  # fmt: skip
def test_a_column_or_class_that_lacks_is_named_with_those_that_exist(where, what):
    with pytest.raises(NotThereError, match=what):
        rows(where)


@pytest.mark.parametrize("where", [
    "label", "fraction_liver", "", "label ==", "label = 1", "@FRAME", "label.max() > 0", "abs(label) > 0",
    "label == __import__('os').system('true')", "[label for label in (1, 2)]", "series > 3", "label[0] == 1", "1 == 1",
])  # fmt: skip
def test_what_is_no_comparison_of_columns_is_refused(where):
    with pytest.raises(UsageError):
        rows(where)
