"""Recipes: what is wrong in one is said whole, and equal recipes are equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctpipe.config import load_recipe, recipe_from_dict, recipe_names
from ctpipe.errors import NotThereError, UsageError

SMALL = {
    "name": "small",
    "network": "vgg-small",
    "windows": {"window": [1, 44, 44], "stride": [1, 4, 4]},
    "train": {"steps": 10, "epochs": 2, "batch": 4},
    "predict": {"stride": [1, 4, 4]},
}


def test_all_faults_of_a_recipe_are_named_at_once() -> None:
    wrong = {**SMALL, "colour": 1, "windows": {"window": [1, 44], "stride": [1, 4, 4], "pad": "mirror"}, "train": {}}
    with pytest.raises(UsageError) as caught:
        recipe_from_dict(wrong)
    for word in ("colour", "windows.window", "windows.pad", "train.steps", "train.epochs", "train.batch"):
        assert word in str(caught.value)


def test_a_recipe_survives_json() -> None:
    recipe = recipe_from_dict(SMALL)
    assert recipe_from_dict(recipe.as_dict()) == recipe


def test_the_digest_follows_every_setting_but_not_the_text_about_it() -> None:
    recipe = recipe_from_dict(SMALL)
    assert recipe_from_dict({**SMALL, "about": "words"}).digest() == recipe.digest()
    assert recipe_from_dict({**SMALL, "predict": {"stride": [1, 2, 2]}}).digest() != recipe.digest()


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_right(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    if recipe.before:
        load_recipe(recipe.before)


def test_a_recipe_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="demo"):
        load_recipe("dmeo")
    bad = tmp_path / "bad.toml"
    bad.write_text("name = ")
    with pytest.raises(UsageError, match="not TOML"):
        load_recipe(bad)
