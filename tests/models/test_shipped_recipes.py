"""Every shipped recipe can be built as it stands."""

from __future__ import annotations

import pytest

from ctpipe.config import load_recipe, recipe_names
from ctpipe.models import build_network, input_channels, network_options


def test_the_recipes_that_documents_name_are_there() -> None:
    assert {"demo", "demo-liver", "sas2019", "sts", "ircadb"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_fits_its_network(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    options = network_options(recipe) | ({"units": 4} if recipe.network == "vgg16" else {})
    network = build_network(recipe.network, input_channels(recipe), 3, recipe.windows.window, options)
    assert network.window == (recipe.windows.window.y, recipe.windows.window.x)
    assert len(recipe.train.class_weights) in (0, 1 + len(recipe.classes))
    assert recipe.train.strata == () or sum(s.share for s in recipe.train.strata) == pytest.approx(1)
    if recipe.before:
        before = load_recipe(recipe.before)
        assert recipe.input.relative_to in (None, *before.classes)


def test_sas2019_is_what_was_described() -> None:
    recipe = load_recipe("sas2019")
    assert recipe.input.equalise
    assert tuple(recipe.windows.window) == (1, 257, 257)
    assert tuple(recipe.windows.stride) == tuple(recipe.predict.stride) == (1, 7, 7)
    assert recipe.windows.pad == "constant"
    assert recipe.windows.window.y // 2 == 128  # black pixels that a window at the border sees
    assert recipe.options["dropout"] == 0.5
    assert recipe.train.epochs == 150
