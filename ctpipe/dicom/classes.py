"""Class table: which structures make which class, its label, and who wins where they overlap.

::

    --classes liver=1,livertumor=2            NAME=LABEL[:STRUCTURE[+STRUCTURE…]], STRUCTUREs default to NAME
    --classes FILE.toml                       [classes]
                                              liver = 1
                                              [classes.lesion]
                                              label = 2
                                              structures = ["livertumor", "tumor"]

A STRUCTURE takes the names that equal it in any case, and those that go on with digits only ("livertumor" takes
"livertumor01"; "liver" takes neither that nor "liverkyst") unless it ends in a digit itself ("label1" never takes
"label12"). Order is priority: where structures overlap, the class later in the list wins.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.errors import NotThereError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctpipe.dicom.structure import Structure

MAX_LABEL = 65535  # label volumes are uint8 or uint16
BACKGROUND = "background"  # the name of label 0, which no class may take
_NAME = re.compile(r"[^\W\d][\w-]{0,62}")
_GRAMMAR = "write NAME=LABEL[:STRUCTURE[+STRUCTURE…]],… or name a .toml file"


@dataclass(frozen=True)
class LabelClass:
    """One class: its name, its label 1..65535, and the structures it takes."""

    name: str
    label: int
    structures: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.casefold() == BACKGROUND:
            raise UsageError(
                f"{self.name!r} is no class name",
                "start with a letter, go on with letters, digits, '_', '-'; 'background' is label 0",
            )
        if isinstance(self.label, bool) or not isinstance(self.label, int) or not 1 <= self.label <= MAX_LABEL:
            raise UsageError(f"class {self.name!r} has the label {self.label!r}", f"give a whole number 1..{MAX_LABEL}")
        if not self.structures or not all(isinstance(s, str) and s.strip() for s in self.structures):
            raise UsageError(f"class {self.name!r} names no structure", "name at least one, or leave structures out")


@dataclass(frozen=True)
class ClassTable:
    """Classes in order of priority, the last one strongest."""

    entries: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise UsageError("a class table without classes", _GRAMMAR)
        _refuse_twice("class name", [entry.name.casefold() for entry in self.entries])
        _refuse_twice("label", [entry.label for entry in self.entries])
        _refuse_twice("structure", [name.casefold() for entry in self.entries for name in entry.structures])

    @classmethod
    def parse(cls, text: str) -> ClassTable:
        """From the command line's grammar, or from the file where `text` is a .toml path.

        Raises UsageError, saying which part cannot be read.
        """
        if "=" not in text and text.strip().endswith(".toml"):
            return cls.load(text.strip())
        return cls(tuple(_parse_entry(part) for part in text.split(",")))

    @classmethod
    def load(cls, path: str | Path) -> ClassTable:
        """From a TOML file with a [classes] table, in its order. Raises NotThereError, UsageError."""
        try:
            tables = tomllib.loads(Path(path).read_text("utf-8"))
        except FileNotFoundError as error:
            raise NotThereError(f"there is no class table at {path}", "check the path") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the class table {path} cannot be read", "give a readable UTF-8 file") from error
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not TOML: {error}", "see the example in `ctpipe ingest --help`") from error
        classes = tables.get("classes")
        if not isinstance(classes, dict) or not classes or tables.keys() != {"classes"}:
            raise UsageError(f"{path} should hold one [classes] table and nothing else", "write [classes] liver = 1")
        return cls(tuple(_toml_entry(name, value, path) for name, value in classes.items()))

    @property
    def classes(self) -> dict[int, str]:
        """{label: class name} in ascending order of labels, background left out."""
        return {entry.label: entry.name for entry in sorted(self.entries, key=lambda e: e.label)}

    def class_of(self, structure: str) -> LabelClass | None:
        """The class that takes a structure of this name: an equal name first, then one that digits follow."""
        name = structure.casefold()
        stem = re.sub(r"[0-9]+$", "", name)
        for wanted in dict.fromkeys((name, stem)):
            for entry in self.entries:
                if wanted in (pattern.casefold() for pattern in entry.structures):
                    return entry
        return None

    def assign(self, structures: Sequence[Structure]) -> Assignment:
        """Which structure becomes which label, in painting order; what no class takes, and classes that take none."""
        taken = [(structure, self.class_of(structure.name)) for structure in structures]
        by_label = tuple((entry.label, structure) for entry in self.entries for structure, of in taken if of is entry)
        filled = {label for label, _ in by_label}
        return Assignment(
            by_label=by_label,
            highest=max(self.classes),
            unused=tuple(sorted({structure.name for structure, of in taken if of is None})),
            empty=tuple(entry.name for entry in self.entries if entry.label not in filled),
        )


@dataclass(frozen=True)
class Assignment:
    """Structures of one volume with their labels; picklable and small.

    by_label: (label, structure) in the order they are painted: a later one covers an earlier one. highest: the table's
    highest label, which decides the dtype of the label volume, so that volumes of one call are alike.
    unused: names of structures that no class takes. empty: names of classes that take nothing.
    """

    by_label: tuple[tuple[int, Structure], ...]
    highest: int
    unused: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not exact on the way in, one line a structure."""
        return tuple(f"{structure.name}: {note}" for _, structure in self.by_label for note in structure.notes)


def _parse_entry(part: str) -> LabelClass:
    head, _, tail = part.partition(":")
    name, equals, label = (piece.strip() for piece in head.partition("="))
    if not equals or not re.fullmatch(r"[0-9]{1,9}", label) or (":" in part and not tail.strip()):
        raise UsageError(f"cannot read {part.strip()!r} as a class", _GRAMMAR)
    return LabelClass(name, int(label), tuple(s.strip() for s in tail.split("+")) if tail else (name,))


def _toml_entry(name: str, value: Any, path: str | Path) -> LabelClass:
    if isinstance(value, dict):
        structures = value.get("structures", [name])
        if not value.keys() <= {"label", "structures"} or "label" not in value or not isinstance(structures, list):
            raise UsageError(f"class {name!r} in {path} should hold label and, if needed, structures", _GRAMMAR)
        return LabelClass(name, value["label"], tuple(structures))
    return LabelClass(name, value, (name,))


def _refuse_twice(what: str, values: list[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UsageError(f"the {what} {value!r} stands twice in the class table", "give each once")
