"""The corpus' adapter: one entry's folder through ctpipe.dicom, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctpipe.dicom import Pseudonyms, check, read_planes

KEY = Pseudonyms(b"\x07" * 32)


def adapter(entry: Path) -> list[tuple[Any, ...]]:
    """Results in the form of check_store.py: (verdict, reason, affine, array, info)."""
    out: list[tuple[Any, ...]] = []
    for verdict in check(entry, KEY):
        reason = f"{verdict.reason}: {verdict.detail}; {verdict.cure}"
        source = verdict.source
        kept = repr(source.attributes) + source.plane_table().to_csv() if source else ""
        text = {"text": repr(verdict.as_json()) + kept}
        if source is None:
            out.append((verdict.kind.value, reason, None, None, text))
            continue
        array = read_planes(source, 0, source.grid.shape[0])
        info = {**text, "notes": list(source.notes), "n_padded": source.attributes.get("padded_voxels", 0)}
        out.append((verdict.kind.value, reason, source.grid.affine, array, info))
    return out
