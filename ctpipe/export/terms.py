"""What a class is in coded terms: SNOMED CT for common organs and findings, the user's own TOML, an honest fallback.

A class that no table knows is written as plain tissue with a private code of its own name (scheme 99CTPIPE): other
readers then show its name and are told nothing that nobody knows. Source: PS3.3 C.8.20.2, PS3.16 CID 7150, 7151.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from ctpipe.errors import NotThereError, UsageError

PRIVATE_SCHEME = "99CTPIPE"


@dataclass(frozen=True)
class Code:
    """One coded concept (PS3.3 8.8): value of at most 16 characters, scheme, meaning of at most 64."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Term:
    """A class in coded terms. region: where in the body, for a finding; known: whether a table had it."""

    category: Code
    kind: Code
    region: Code | None = None
    known: bool = True

    @property
    def is_finding(self) -> bool:
        return self.category == FINDING


TISSUE = Code("85756007", "SCT", "Tissue")
ORGAN = Code("91723000", "SCT", "Anatomical Structure")
FINDING = Code("49755003", "SCT", "Morphologically Abnormal Structure")


def terms_of(classes: Iterable[str], codes: str | Path | None = None) -> dict[str, Term]:
    """Class name -> its term. codes: a TOML file of the user's own, whose entries win.

    ::

        [metastasis]                                    # a class, by name as for the table that ships
        category = ["49755003", "SCT", "Morphologically Abnormal Structure"]
        type = ["14799000", "SCT", "Neoplasm, Secondary"]
        region = ["10200004", "SCT", "Liver"]           # may be left out

    Raises UsageError for a file that is not of that form, NotThereError where there is none.
    """
    own = {_letters(name): term for name, term in _read(codes).items()} if codes is not None else {}
    return {name: own.get(_letters(name)) or _shipped(_letters(name)) or _fallback(name) for name in classes}


def _shipped(letters: str) -> Term | None:
    organs, findings = _tables()
    if letters in organs:
        return Term(ORGAN, organs[letters])
    if letters in findings:
        return Term(FINDING, findings[letters])
    for organ in sorted(organs, key=len, reverse=True):
        rest = letters.removeprefix(organ)
        if rest != letters and rest in findings:
            return Term(FINDING, findings[rest], organs[organ])
    return None


def _fallback(name: str) -> Term:
    value = name if re.fullmatch(r"[\x21-\x5b\x5d-\x7e]{1,16}", name) else sha256(name.encode()).hexdigest()[:16]
    return Term(TISSUE, Code(value, PRIVATE_SCHEME, name[:64]), known=False)


@cache
def _tables() -> tuple[Mapping[str, Code], Mapping[str, Code]]:
    """(organs, findings) by their names in letters."""
    found = tomllib.loads((resources.files("ctpipe.export") / "terminology.toml").read_text("utf-8"))
    organs, findings = (
        {_letters(name): Code(value, "SCT", meaning) for name, (value, meaning) in found[kind].items()}
        for kind in ("organs", "findings")
    )
    return organs, findings


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalpha())


def _read(path: str | Path) -> dict[str, Term]:
    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise NotThereError(f"the codes file {path} cannot be read ({error.strerror})", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise UsageError(f"the codes file {path} is no TOML", "see docs/guides/export.md for its form") from None
    return {name: _term(name, entry) for name, entry in document.items()}


def _term(name: str, entry: Any) -> Term:
    if not isinstance(entry, dict) or not {"category", "type"} <= set(entry) <= {"category", "type", "region"}:
        raise UsageError(f"class {name} of the codes file needs category and type, and may have region",
                         "see docs/guides/export.md for its form")  # fmt: skip
    region = _code(name, entry["region"]) if "region" in entry else None
    return Term(_code(name, entry["category"]), _code(name, entry["type"]), region)


def _code(name: str, given: Any) -> Code:
    if not (isinstance(given, list) and len(given) == 3 and all(isinstance(part, str) and part for part in given)):
        raise UsageError(f"a code of class {name} is not [value, scheme, meaning]",
                         'write it as ["10200004", "SCT", "Liver"]')  # fmt: skip
    value, scheme, meaning = given
    if len(value) > 16 or len(scheme) > 16 or len(meaning) > 64 or "\\" in "".join(given):
        raise UsageError(f"a code of class {name} is longer than DICOM allows",
                         "value and scheme have at most 16 characters, meaning 64")  # fmt: skip
    return Code(value, scheme, meaning)
