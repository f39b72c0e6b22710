"""DICOM in: sources, index, split, verdict, pixels, identity; label sources; synthetic series. Only it uses pydicom.

Names are resolved at first use, so that importing this package stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctpipe.dicom.arrange import Options
    from ctpipe.dicom.checking import Examination, check
    from ctpipe.dicom.classes import Assignment, ClassTable
    from ctpipe.dicom.fetched import fetch, is_network
    from ctpipe.dicom.identity import Pseudonyms, load_pseudonyms
    from ctpipe.dicom.judging import with_padding
    from ctpipe.dicom.ledger import ledger_of
    from ctpipe.dicom.listener import listen
    from ctpipe.dicom.originals import Original, Originals, find_originals
    from ctpipe.dicom.sending import SendReport, send
    from ctpipe.dicom.sources import Fault, Item, Locator, iter_items, walk
    from ctpipe.dicom.structure import Structure
    from ctpipe.dicom.structures import Structures, label_planes, match_structures, read_structures
    from ctpipe.dicom.synthetic import synthetic_uid, write_ct_series, write_mask_series, write_rtstruct
    from ctpipe.dicom.verdict import Verdict
    from ctpipe.dicom.volumes import PlaneSource, VolumeSource, part_of, plane_table, read_planes, read_slab

_HOMES = {
    "Assignment": "classes",
    "ClassTable": "classes",
    "Examination": "checking",
    "Fault": "sources",
    "Item": "sources",
    "Locator": "sources",
    "Options": "arrange",
    "Original": "originals",
    "Originals": "originals",
    "PlaneSource": "volumes",
    "Pseudonyms": "identity",
    "SendReport": "sending",
    "Structure": "structure",
    "Structures": "structures",
    "Verdict": "verdict",
    "VolumeSource": "volumes",
    "check": "checking",
    "fetch": "fetched",
    "find_originals": "originals",
    "is_network": "fetched",
    "iter_items": "sources",
    "label_planes": "structures",
    "ledger_of": "ledger",
    "listen": "listener",
    "load_pseudonyms": "identity",
    "match_structures": "structures",
    "part_of": "volumes",
    "plane_table": "volumes",
    "read_planes": "volumes",
    "read_slab": "volumes",
    "read_structures": "structures",
    "send": "sending",
    "synthetic_uid": "synthetic",
    "walk": "sources",
    "with_padding": "judging",
    "write_ct_series": "synthetic",
    "write_mask_series": "synthetic",
    "write_rtstruct": "synthetic",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "Assignment", "ClassTable", "Examination", "Fault", "Item", "Locator", "Options", "Original", "Originals",
    "PlaneSource", "Pseudonyms", "SendReport", "Structure", "Structures", "Verdict", "VolumeSource", "check", "fetch",
    "find_originals", "is_network", "iter_items", "label_planes", "ledger_of", "listen", "load_pseudonyms",
    "match_structures", "part_of", "plane_table", "read_planes", "read_slab", "read_structures", "send",
    "synthetic_uid", "walk", "with_padding", "write_ct_series", "write_mask_series", "write_rtstruct",
]  # fmt: skip
