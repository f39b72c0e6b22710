"""What a reviewer can do by one key: a name, a title, a key and a function. Needs neither napari nor Qt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """When a command's key works. Reading and editing are distinct, so that no stroke is made by accident."""

    READ = "read"
    EDIT = "edit"
    BOTH = "both"


@dataclass(frozen=True)
class Command:
    """One action of the review room.

    name: what a key map in the settings calls it, as "next-case". title: what `?` shows. key: as napari writes keys,
    "Shift-N". run: called without arguments, in the thread of the viewer; returns a line for the status bar, or None.
    """

    name: str
    title: str
    key: str
    mode: Mode
    run: Callable[[], str | None]
