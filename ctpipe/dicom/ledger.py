"""The ledger: what each plane of a volume brings along, in one line of numbers and plane by plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctpipe.dicom.volumes import VolumeSource


def ledger_of(source: VolumeSource, planes: bool = False) -> dict[str, Any]:
    """What `check` tells of an accepted volume, as plain JSON.

    step_mm: (least, greatest) distance of neighbouring planes' first voxels. slope, intercept: the distinct
    values over all planes (PS3.3 C.11.1.1.2). exposure_mas: (least, greatest) of the planes that state one (PS3.3
    C.8.2.1), or None. rows: with `planes`, the rows of
    `VolumeSource.plane_table`, whose digests are SHA-256 of the stored pixels.
    """
    table = source.plane_table()
    positions = table[["position_l", "position_p", "position_s"]].to_numpy()
    told: dict[str, Any] = {
        "planes": len(table),
        "step_mm": _range(np.linalg.norm(np.diff(positions, axis=0), axis=1)),
        "slope": sorted(set(table["slope"])),
        "intercept": sorted(set(table["intercept"])),
        "exposure_mas": _range(table["exposure"].dropna().to_numpy()),
        "padded_voxels": source.padded,
        "notes": list(source.notes),
    }
    if planes:
        kept = table.astype(object).where(table.notna(), None)
        told["rows"] = [{str(key): value for key, value in row.items()} for row in kept.to_dict("records")]
    return told


def _range(values: Any) -> list[float] | None:
    return [round(float(values.min()), 6), round(float(values.max()), 6)] if len(values) else None
