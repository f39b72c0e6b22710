"""The house rules that a tool can check: what an import drags in, that errors travel, that doors are honest."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import subprocess
import sys

import pytest

import ctpipe
from ctpipe import errors

HEAVY = {"torch", "prefect", "napari", "qtpy", "dask", "distributed", "zarr", "pydicom", "pandas", "scipy"}


def _imported_by(code: str) -> set[str]:
    probe = f"{code}\nimport sys\nprint('\\n'.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_importing_ctpipe_brings_nothing_heavy() -> None:
    assert not _imported_by("import ctpipe") & HEAVY


def test_help_brings_nothing_heavy() -> None:
    code = (
        "import contextlib, io\nfrom ctpipe.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    main(['--help'])"
    )
    assert not _imported_by(code) & HEAVY


@pytest.mark.parametrize("name", sorted(ctpipe._FACES))
def test_every_face_can_be_had(name: str) -> None:
    assert callable(getattr(ctpipe, name))


def _error_classes() -> list[type[errors.CtpipeError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CtpipeError)]


@pytest.mark.parametrize("kind", _error_classes())
def test_every_error_survives_the_way_from_a_worker(kind: type[errors.CtpipeError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a problem", "a cure")))
    assert type(error) is kind
    assert str(error) == "a problem; cure: a cure"
    assert error.exit_code in (2, 3, 4)


def _doors() -> list[str]:
    return [f"ctpipe.{module.name}" for module in pkgutil.iter_modules(ctpipe.__path__) if module.ispkg]


@pytest.mark.parametrize("name", _doors())
def test_a_door_offers_what_it_names(name: str) -> None:
    door = importlib.import_module(name)
    assert sorted(door.__all__) == sorted(set(door.__all__))
    assert all(hasattr(door, member) for member in door.__all__)
