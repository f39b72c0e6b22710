"""Which key a command has: its default, or what the user's `keys.toml` says, checked whole before anything is bound.

The file lies in the user's configuration folder of ctpipe (Linux: `~/.config/ctpipe/keys.toml`)::

    [keys]
    next-case = "Right"
    window-lung = "L"
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctpipe.errors import UsageError
from ctpipe.review.commands import Command, Mode

if TYPE_CHECKING:
    from app_model.types import KeyBinding

FILE = "keys.toml"
_SPELT = {"?": "Shift-/", "Esc": "Escape", "Return": "Enter"}  # keys that napari knows by another name


def keys_path() -> Path:
    """Where the user's key map lies; it need not exist."""
    from platformdirs import user_config_path

    return user_config_path("ctpipe") / FILE


def user_keys(path: Path | None = None) -> dict[str, str]:
    """Key by name of command from a keys.toml; nothing where there is none. Raises UsageError for another file."""
    path = keys_path() if path is None else path
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the key map {path} cannot be read ({error})", "make it readable, or remove it") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the key map {path} is not TOML: {error}", _FORM) from error
    keys = found.get("keys", {})
    others = sorted(set(found) - {"keys"})
    if others or not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        what = f"it holds {', '.join(others)}" if others else "a key is not a text"
        raise UsageError(f"the key map {path} is not in form: {what}", _FORM)
    return keys


_FORM = 'write a table [keys] with lines such as: next-case = "N"'


def assigned(commands: Iterable[Command], keys: Mapping[str, str]) -> tuple[Command, ...]:
    """The commands with the keys that they have now. Raises UsageError that names every fault at once."""
    listed = tuple(commands)
    names = [command.name for command in listed]
    faults = [f"no command {name!r}" for name in keys if name not in names]
    faults += [f"two commands are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    made = tuple(dataclasses.replace(one, key=keys.get(one.name, one.key)) for one in listed)
    taken: dict[tuple[str, Mode], str] = {}
    for command in made:
        binding = napari_key(command.key)
        if binding is None:
            faults.append(f"{command.name}: {command.key!r} is no key")
            continue
        for mode in (Mode.READ, Mode.EDIT) if command.mode == Mode.BOTH else (command.mode,):
            other = taken.setdefault((str(binding), mode), command.name)
            if other != command.name:
                faults.append(f"{command.key!r} is the key of {other} and of {command.name}")
    if faults:
        known = f"the commands are: {', '.join(sorted(names))}" if any("no command" in one for one in faults) else ""
        cure = f"give each command a key of its own in {FILE}. {known}"
        raise UsageError("; ".join(dict.fromkeys(faults)), cure.strip(" ."))
    return made


def napari_key(key: str) -> KeyBinding | None:
    """A key as napari compares them; None for what is none. Keys are written as napari writes them, "Shift-N"."""
    from app_model.types import KeyCode
    from napari.utils.key_bindings import coerce_keybinding

    if not key.strip():
        return None
    try:
        binding = coerce_keybinding(_SPELT.get(key, key))
    except (TypeError, ValueError):
        return None
    return None if any(part.key in (None, KeyCode.UNKNOWN) for part in binding.parts) else binding
