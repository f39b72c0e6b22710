"""Mask series: structures as CT-like DICOM series of two values, laid out as in 3D-IRCADb-01.

::

    MASKS_DICOM/                     a folder, or a member folder of a zip
        liver/image_0 … image_128    one series; the folder names the structure
        livertumor01/image_0 …

Names of files, InstanceNumber and order mean nothing: each mask plane lies where its position says. Planes may be
missing (background), but each that is there must coincide with a plane of the volume, voxel by voxel. The frame of
reference counts where both have one; 3D-IRCADb-01 has none, and there equal geometry is the only tie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.codestreams import CodestreamFaultError, Span
from ctpipe.dicom.headers import PlaneHeader, looked_at, planes_of
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.lattice import TOLERANCE_VOX
from ctpipe.dicom.parse import Parsed
from ctpipe.dicom.pixels import PixelFormat, decode
from ctpipe.dicom.sources import Item, Locator
from ctpipe.dicom.structure import LabelFaultError, Structure, clean_name
from ctpipe.errors import InputError
from ctpipe.volume import Grid
from ctpipe.words import VerdictKind

Steps = tuple[tuple[float, ...], tuple[float, ...]]

_ARCHIVE_SUFFIX = re.compile(r"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
SAME_STEPS_MM = 1e-4  # that steps from voxel to voxel may differ by within one series
# Faults of a CT that say nothing against a mask: it has no Hounsfield units.
_NO_MATTER = frozenset({"missing-rescale", "bad-rescale", "rescale-units", "modality-lut"})


@dataclass(frozen=True)
class MaskPlane:
    """One plane of a mask and where it is read again.

    digest: over its stored pixel bytes. position: LPS mm of its first voxel. spans: those bytes in the file.
    """

    locator: Locator
    digest: str
    position: tuple[float, ...]
    empty: bool
    form: PixelFormat
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class MaskSeries(Structure):
    """One series of mask planes.

    steps: LPS mm from voxel to voxel down a column (y) and along a row (x). shape: rows, columns of a plane.
    """

    kind = "mask-series"

    shape: tuple[int, int]
    steps: Steps
    mask_planes: tuple[MaskPlane, ...]

    def fits(self, grid: Grid) -> str | None:
        if None not in (self.frame_of_reference, grid.frame_of_reference) and (
            self.frame_of_reference != grid.frame_of_reference
        ):
            return "its frame of reference is another one than the volume's"
        if self.shape != (grid.shape.y, grid.shape.x):
            own, other = " x ".join(map(str, self.shape)), f"{grid.shape.y} x {grid.shape.x}"
            return f"its planes have {own} voxels, the volume's {other}"
        index, drift = self._first_voxels(grid)
        if (
            drift > TOLERANCE_VOX
            or np.abs(index - np.rint(index))[:, 1:].max() > TOLERANCE_VOX
            or np.rint(index)[:, 1:].any()
        ):
            return "its rows and columns do not coincide with the volume's"
        z = np.rint(index[:, 0]).astype(int)
        off = (np.abs(index[:, 0] - z) > TOLERANCE_VOX) | (z < 0) | (z >= grid.shape.z)
        if off.any():
            return f"{int(off.sum())} of its {len(z)} planes coincide with no plane of the volume"
        if len(set(z.tolist())) < len(z):
            return "two of its planes lie on one plane of the volume"
        return None

    def planes(self, grid: Grid, start: int, stop: int) -> NDArray[np.bool_]:
        out = np.zeros((stop - start, grid.shape.y, grid.shape.x), bool)
        index, _ = self._first_voxels(grid)
        for z, plane in zip(np.rint(index[:, 0]).astype(int).tolist(), self.mask_planes, strict=True):
            if start <= z < stop and not plane.empty:
                out[z - start] = _read_plane(plane)
        return out

    def _first_voxels(self, grid: Grid) -> tuple[NDArray[np.float64], float]:
        """(indexes (n, 3) of the planes' first voxels in `grid`, the most that a far corner drifts off, in voxels)."""
        inverse = np.linalg.inv(grid.affine[:3, :3])
        off = inverse @ np.asarray(self.steps).T - np.eye(3)[:, 1:]
        drift = np.abs(off * (np.asarray(self.shape) - 1)).sum(axis=1).max()
        return grid.to_index([plane.position for plane in self.mask_planes]), float(drift)


@dataclass
class _Folder:
    """What was found in one folder so far: its name, its planes by series UID, how many of its files are broken."""

    name: str
    series: dict[str, list[PlaneHeader]] = field(default_factory=dict)
    n_broken: int = 0


@dataclass
class MaskCollector:
    """Gathers mask planes file by file; keeps headers, never pixels."""

    pseudonyms: Pseudonyms
    folders: dict[tuple[object, ...], _Folder] = field(default_factory=dict)

    def add(self, item: Item, parsed: Parsed) -> None:
        """One image file. Raises LabelFaultError where it cannot be a mask plane."""
        for found in planes_of(parsed, item.locator, item.number, self.pseudonyms):
            header = looked_at(found, b"".join(parsed.view[at : at + length] for at, length in found.spans))
            faults = [fault for fault in header.faults if fault[0] not in _NO_MATTER]
            if not header.in_place:
                faults.append(("transfer-syntax", "a mask in a deflated data set"))
            if faults:
                raise LabelFaultError(*faults[0], "export the masks again, uncompressed, one plane a file")
            self._folder(item).series.setdefault(header.series, []).append(header)

    def taint(self, item: Item) -> None:
        """A file of this folder is broken: a mask without it would lose voxels in silence."""
        self._folder(item).n_broken += 1

    def series(self) -> Iterator[MaskSeries | tuple[LabelFaultError, int, str]]:
        """Each series as a structure, or (why not, number of files, pseudonym of the series)."""
        for folder in self.folders.values():
            for uid, headers in folder.series.items():
                try:
                    _refuse_no_mask(headers)
                    if folder.n_broken:
                        problem = f"{folder.n_broken} files beside this mask series cannot be read"
                        raise LabelFaultError("unreadable", problem, "fetch them again")
                    yield self._structure(folder.name, headers)
                except LabelFaultError as fault:
                    yield fault, len(headers), uid

    def _folder(self, item: Item) -> _Folder:
        inside = item.parts[:-1] if item.locator.members else PurePath(item.locator.path).parent
        key = (item.locator.path if item.locator.members else "", item.locator.members[:-1], inside)
        return self.folders.setdefault(key, _Folder(_folder_name(item)))

    def _structure(self, name: str, headers: list[PlaneHeader]) -> MaskSeries:
        shape, steps, frame = _geometry(headers[0])
        for other_shape, other_steps, other_frame in map(_geometry, headers[1:]):
            off = np.abs(np.subtract(other_steps, steps)).max()
            if (other_shape, other_frame) != (shape, frame) or off > SAME_STEPS_MM:
                raise LabelFaultError(
                    "orientation-varies",
                    "planes of a mask series differ in shape, spacing, orientation or frame of reference",
                    "export one plane for each plane of the CT",
                )
        # equal copies of a plane are one plane; two that differ at one position cannot be told apart
        alike = {(h.position.values, h.digest): h for h in headers if h.position}
        if len({position for position, _ in alike}) < len(alike):
            raise LabelFaultError(
                "duplicate-position", "two planes of a mask series lie at the same position", "remove the wrong one"
            )
        planes = tuple(_mask_plane(alike[key]) for key in sorted(alike))
        content = repr((shape, steps, [(p.position, p.digest, p.form) for p in planes]))
        return MaskSeries(
            name=clean_name(name),
            origin=f"mask series of {len(planes)} planes",
            frame_of_reference=frame or None,
            digest=sha256(content.encode()).hexdigest()[:32],
            notes=(),
            shape=shape,
            steps=steps,
            mask_planes=planes,
        )


def _folder_name(item: Item) -> str:
    """Name of the folder or member folder that holds the file; of the archive where the file stands on its top."""
    if not item.locator.members:
        return PurePath(item.locator.path).parent.name
    return _ARCHIVE_SUFFIX.sub("", item.parts[-2]) if len(item.parts) > 1 else ""


def _refuse_no_mask(headers: list[PlaneHeader]) -> None:
    """Raises LabelFaultError unless the series holds 0 and at most one other value, a positive one.

    A series of more than 8 bits is the CT itself, which may well lie beside its masks: that is no failure.
    """
    facts = [header.facts for header in headers if header.facts]
    highest = max(f.highest for f in facts)
    two_valued = all(f.two_valued and f.lowest in (0, highest) and f.highest in (0, highest) for f in facts)
    if not two_valued or highest < 0:
        is_ct = any(header.form and header.form.bits_allocated > 8 for header in headers)
        raise LabelFaultError(
            "not-labels",
            "an image of other values than 0 and one more is no mask",
            "none needed, unless these were masks" if is_ct else "give masks of 0 and one value",
            VerdictKind.SET_ASIDE if is_ct else VerdictKind.REJECT,
        )


def _geometry(header: PlaneHeader) -> tuple[tuple[int, int], Steps, str]:
    """((rows, columns), (step down a column, along a row) in LPS mm, frame of reference); `add` checked all."""
    y_mm, x_mm = header.pixel_spacing or (0.0, 0.0)
    cosines = header.orientation or (0.0,) * 6
    steps = tuple(y_mm * v for v in cosines[3:]), tuple(x_mm * v for v in cosines[:3])
    return (header.rows, header.columns), steps, header.frame_of_reference


def _mask_plane(header: PlaneHeader) -> MaskPlane:
    if header.position is None or header.facts is None or header.form is None:
        raise LabelFaultError("missing-position", "a mask plane lacks position or pixels", "export it again")
    empty = header.facts.highest == 0
    return MaskPlane(header.locator, header.digest, header.position.values, empty, header.form, header.spans)


def _read_plane(plane: MaskPlane) -> NDArray[np.bool_]:
    """The plane as bool (y, x). Raises InputError where its bytes are no longer those that were listed."""
    data = plane.locator.read()
    stored = b"".join(data[at : at + length] for at, length in plane.spans)
    if sha256(stored).hexdigest() != plane.digest:
        raise InputError("a mask file changed since it was listed", "run the command again")
    try:
        return np.asarray(decode(stored, plane.form) != 0)
    except CodestreamFaultError as fault:
        raise InputError(fault.detail, "export the masks uncompressed") from fault
