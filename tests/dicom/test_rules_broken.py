"""Each rule of the corpus' policy is broken on purpose, and an entry of the adversarial corpus fails for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from code_broken import Mutation
from rules_broken import MUTATIONS
from rules_own_broken import OWN
from test_corpus import generated, problems

TABLE = Path(__file__).parents[2] / "docs" / "rules-broken.md"
RULES = {str(number) for number in range(1, 17)}
# What a slip of the mutation itself would raise: that an entry fails for it says nothing of the rule.
SLIPS = ("NameError", "AttributeError", "UnboundLocalError", "SyntaxError", "LookupError", "ImportError")


def title(mutation: Mutation) -> str:
    return f"{mutation.rule}: {mutation.broken}"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """expected.json of the entries that are named."""
    names = sorted({entry for mutation in MUTATIONS for entry in mutation.entries})
    return generated(tmp_path_factory.mktemp("broken"), names)


@pytest.fixture(scope="session")
def unbroken(corpus: Path) -> Callable[[str], list[str]]:
    """Problems of an entry with the code as it is; looked at once."""
    return cache(lambda entry: problems(corpus, entry))


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=title)
def test_an_entry_fails_where_its_rule_is_broken(
    corpus: Path, unbroken: Callable[[str], list[str]], mutation: Mutation
) -> None:
    """V1-V7, X5, P1, P2, P4: the corpus would see the rule go."""
    for entry in mutation.entries:
        assert not unbroken(entry)
        with mutation.applied():
            found = problems(corpus, entry)
        assert found, f"{entry} passes all the same"
        assert not any(slip in text for slip in SLIPS for text in found), found


@pytest.mark.parametrize("mutation", [*MUTATIONS, *OWN], ids=title)
def test_the_words_that_a_mutation_changes_are_still_in_the_code(mutation: Mutation) -> None:
    functions = [edit.function() for edit in mutation.edits]
    before = [function.__code__ for function in functions]
    with mutation.applied():
        assert all(function.__code__ is not code for function, code in zip(functions, before, strict=True))
    assert [function.__code__ for function in functions] == before


def test_every_rule_is_broken_at_least_once() -> None:
    assert {mutation.rule for mutation in [*MUTATIONS, *OWN]} >= RULES


def test_the_table_in_the_documents_is_this_list() -> None:
    rows = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    wanted = [
        f"| {m.rule} | {m.broken} | {', '.join(f'`{entry}`' for entry in m.entries)} |" for m in [*MUTATIONS, *OWN]
    ]
    assert [row for row in rows if not row.startswith("| rule")] == wanted
