"""Labels out: DICOM SEG, RTSTRUCT and SR, NIfTI, surfaces, tables. Reads volumes and labels; writes files elsewhere.

Names are resolved at first use, so that importing this package stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctpipe.export.case import Case
    from ctpipe.export.references import Naming
    from ctpipe.export.terms import terms_of
    from ctpipe.export.writing import KINDS, Kind, Wish, Written, write

_HOMES = {
    "KINDS": "writing",
    "Case": "case",
    "Kind": "writing",
    "Naming": "references",
    "Wish": "writing",
    "Written": "writing",
    "terms_of": "terms",
    "write": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


__all__ = ["KINDS", "Case", "Kind", "Naming", "Wish", "Written", "terms_of", "write"]
