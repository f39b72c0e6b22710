"""review.toml: the reviewer's own settings, and what is wrong with them in one line."""

from __future__ import annotations

import pytest

from ctpipe.errors import UsageError
from ctpipe.review.settings import ReviewSettings, load_settings


def test_no_file_means_the_defaults_and_a_file_goes_before_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CTPIPE_REVIEW", str(tmp_path / "review.toml"))
    assert load_settings() == ReviewSettings("reader", "due", False)
    (tmp_path / "review.toml").write_text('reviewer = "reader-1"\nblinded = true\n')
    assert load_settings() == ReviewSettings("reader-1", "due", True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reviewer = 3", "'reviewer' is unknown or of another type"),
        ('speed = "high"', "'speed' is unknown or of another type; cure: it may hold: reviewer (str), sort (str)"),
        ('sort = "size"', "order 'size' is unknown"),
        ('reviewer = "Jane Doe"', "pseudonym is empty, too long"),
        ("reviewer =", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    (tmp_path / "review.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_settings(tmp_path / "review.toml")
    assert said in str(error.value)
