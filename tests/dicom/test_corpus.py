"""The adversarial corpus, entry by entry (V1-V7, V9, X3-X11, P1, P4); it is no part of this repository."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from adapter import adapter

CORPUS = Path(os.environ.get("CTPIPE_TEST_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))


def entries(plain: bool) -> list[str]:
    """Names of all entries, or of those marked plain, read from the corpus' source: importing it changes pydicom."""
    found = []
    for path in sorted(CORPUS.glob("entries_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("entry", "coded"):
                marked = any(word.arg == "plain" and getattr(word.value, "value", False) for word in node.keywords)
                if (marked or not plain) and isinstance(node.args[0], ast.Constant):
                    found.append(str(node.args[0].value))
    return found or [f"no corpus at {CORPUS.name}"]


def generated(folder: Path, names: list[str]) -> Path:
    if not (CORPUS / "make_corpus.py").is_file():
        pytest.skip(f"no corpus at {CORPUS}: set CTPIPE_TEST_CORPUS")
    only = [word for name in names for word in ("--only", name)]
    subprocess.run([sys.executable, str(CORPUS / "make_corpus.py"), str(folder / "corpus"), *only], check=True)
    return folder / "corpus" / "expected.json"


@pytest.fixture(scope="session")
def plain_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """expected.json of the plain entries."""
    return generated(tmp_path_factory.mktemp("plain"), entries(plain=True))


@pytest.fixture(scope="session")
def whole_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """expected.json of all entries."""
    return generated(tmp_path_factory.mktemp("whole"), [])


def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_store", CORPUS / "check_store.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def problems(expected: Path, name: str) -> list[str]:
    results = checker().run(expected, adapter, [name], log=lambda text: None)
    return next(result.problems for result in results if result.entry == name)


@pytest.mark.parametrize("name", entries(plain=True))
def test_a_plain_entry_is_taken_exactly(plain_corpus: Path, name: str) -> None:
    """V1, V9."""
    assert not problems(plain_corpus, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", entries(plain=False))
def test_every_entry_gets_its_verdict_within_its_limits(whole_corpus: Path, name: str) -> None:
    """V1-V7, X3-X11, P1, P4."""
    assert not problems(whole_corpus, name)
