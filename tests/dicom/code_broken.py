"""Code broken on purpose: a few words of a function changed, to see that something notices.

An edit changes a few words of one function and puts the changed code in its place, wherever that function was imported;
the file on disk stays as it is. Where the words are no longer in the function the edit says so: it never passes unseen.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Edit:
    """where: 'module:function' or 'module:Class.method' below ctpipe.dicom. old stands exactly once in its source."""

    where: str
    old: str
    new: str

    def function(self) -> FunctionType:
        module, _, path = self.where.partition(":")
        found: Any = importlib.import_module(f"ctpipe.dicom.{module}")
        for name in path.split("."):
            found = inspect.getattr_static(found, name)
        found = getattr(found, "fget", found)  # of a property
        return inspect.unwrap(found)


def _code(function: FunctionType, edits: Sequence[Edit]) -> CodeType:
    """The function's code with each `new` in place of its `old`."""
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise LookupError(f"{edit.where} holds {edit.old!r} {source.count(edit.old)} times: mend this edit")
        source = source.replace(edit.old, edit.new)
    changed = compile("from __future__ import annotations\n" + source, edits[0].where, "exec")
    return next(part for part in changed.co_consts if isinstance(part, CodeType) and part.co_name == function.__name__)


@dataclass(frozen=True)
class Mutation:
    """rule: of the policy, or the promise (X4, P1). broken: how, in a few words. entries: each of them must fail."""

    rule: str
    broken: str
    edits: tuple[Edit, ...]
    entries: tuple[str, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the code is as the edits have it."""
        functions = {edit.where: edit.function() for edit in self.edits}
        kept = {where: function.__code__ for where, function in functions.items()}
        codes = {where: _code(functions[where], [e for e in self.edits if e.where == where]) for where in functions}
        try:
            for where, function in functions.items():
                function.__code__ = codes[where]
            yield
        finally:
            for where, function in functions.items():
                function.__code__ = kept[where]


def one(rule: str, broken: str, where: str, old: str, new: str, *entries: str) -> Mutation:
    return Mutation(rule, broken, (Edit(where, old, new),), entries)


def more(rule: str, broken: str, *edits_and_entries: Edit | str) -> Mutation:
    edits = tuple(given for given in edits_and_entries if isinstance(given, Edit))
    return Mutation(rule, broken, edits, tuple(given for given in edits_and_entries if isinstance(given, str)))
