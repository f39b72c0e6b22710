"""One series -> its verdicts (corpus policy, rules 6-16), from the headers alone or after a look at every voxel.

Headers alone do for a series that is plainly right: what only voxels can tell (that they decode, that int16 holds them)
is then seen when they are read for good. Whatever is not plain is looked at whole, so that all faults are told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from ctpipe.dicom.arrange import Arrangement, Options, arrange
from ctpipe.dicom.codestreams import CodestreamFaultError
from ctpipe.dicom.headers import PlaneHeader, looked_at
from ctpipe.dicom.index import Index, Runner
from ctpipe.dicom.pixels import INT16, decode
from ctpipe.dicom.split import Deduplicated, drop_copies, groups_of, phases_of, sorted_planes
from ctpipe.dicom.verdict import CURES, Verdict, refusal
from ctpipe.dicom.volumes import PlaneSource, VolumeSource, series_digest, stored_bytes
from ctpipe.errors import InputError
from ctpipe.words import VerdictKind

# Faults of a plane that mean that its file is broken: it refuses its whole series (corpus policy, rule 12).
BROKEN = frozenset({"truncated", "no-pixels", "decode", "bomb", "unsupported-pixels", "unreadable"})
PLANES_A_TASK = 48


class Judge:
    """Judges the series of an index one by one."""

    def __init__(self, index: Index, options: Options, run: Runner) -> None:
        self.index, self.options, self.run = index, options, run
        self._shared = index.shared_instances()

    def series(self, uid: str, *, whole: bool) -> list[Verdict]:
        """Verdicts on the volumes of one series, or one refusal of the whole series; each of its files is counted once.

        whole: look at every voxel. Without, an accepted volume may yet turn out broken when it is read.
        """
        planes = self.index.planes(uid)
        if not whole and _is_plain(planes) and not self.index.broken(uid):
            verdicts = self._verdicts(uid, self._with_digests(planes))
            if all(verdict.source for verdict in verdicts):
                return verdicts
        return self._verdicts(uid, self._looked_at(planes))

    def _with_digests(self, planes: list[PlaneHeader]) -> list[PlaneHeader]:
        unknown = [plane for plane in planes if not plane.digest and plane.spans]
        digests: dict[tuple[int, int], str] = {}
        for batch, found in self.run(_digests, _batches(unknown)):
            digests |= {(p.entry, p.frame): digest for p, digest in zip(batch, found, strict=True)}
        known = [replace(p, digest=digests.get((p.entry, p.frame), p.digest)) for p in planes]
        self.index.keep_digests(plane for plane in known if (plane.entry, plane.frame) in digests)
        return known

    def _looked_at(self, planes: list[PlaneHeader]) -> list[PlaneHeader]:
        looked: dict[tuple[int, int], PlaneHeader] = {}
        for _, found in self.run(_look, _batches(planes)):
            looked |= {(plane.entry, plane.frame): plane for plane in found}
        return [looked[plane.entry, plane.frame] for plane in planes]

    def _verdicts(self, uid: str, planes: list[PlaneHeader]) -> list[Verdict]:
        broken = self.index.broken(uid)
        n_files = len({plane.entry for plane in planes} | {entry for entry, _ in broken})
        series = uid or None
        faults = [(fault.reason, fault.detail) for _, fault in broken]
        if len({plane.patient for plane in planes}) > 1:
            faults.append(("patient-conflict", "the series stands under more than one patient"))
        if len({plane.study for plane in planes}) > 1:
            faults.append(("study-conflict", "the series stands under more than one study"))
        if uid in self._shared:
            faults.append(("uid-conflict", "an instance UID of this series stands in another series too"))
        single = Deduplicated([], {}, 0, False)
        if not faults:
            single = drop_copies(planes, _same_voxels)
            if single.conflict:
                faults.append(("uid-conflict", "one instance UID stands for different content (SOPInstanceUID)"))
        homeless = [plane for plane in planes if not _has_a_place(plane)]
        unreadable = any(reason in BROKEN for plane in planes for reason, _ in plane.faults)
        if faults or homeless or unreadable:
            faults += [fault for plane in planes for fault in plane.faults]
            return [refusal(faults, n_files, series)]
        return [verdict for group in groups_of(single.planes) for verdict in self._group(group, single, series)]

    def _group(self, group: list[PlaneHeader], single: Deduplicated, series: str | None) -> list[Verdict]:
        parts = phases_of(group)
        if parts is None:
            faults = [fault for plane in group for fault in plane.faults]
            detail = (
                "positions repeat: several planes stand at the same position and nothing tells them apart "
                "(acquisition, time, phase, kVp)"
            )
            return [refusal([*faults, ("duplicate-position", detail)], _n_files(group, single), series)]
        return [verdict for part in parts for verdict in self._stack(part, single, series)]

    def _stack(self, planes: list[PlaneHeader], single: Deduplicated, series: str | None) -> list[Verdict]:
        """Verdicts on planes of one lattice and one phase: one, or more where an option splits them."""
        ordered, stack = sorted_planes(planes)
        if _is_mask(ordered):
            detail = "a mask: 8 bits and no more than two values, not CT (labels are given with --labels)"
            n_files = _n_files(ordered, single)
            return [Verdict(VerdictKind.SET_ASIDE, "not-ct", detail, "give it as a label", n_files, series)]
        first = ordered[0]
        assert first.pixel_spacing is not None  # groups have one
        reference = first.frame_of_reference or None
        found = arrange(stack, first.rows, first.columns, first.pixel_spacing, reference, self.options)
        return [_volume([ordered[i] for i in one.indices], one, single, series, self.index) for one in found]


def _has_a_place(plane: PlaneHeader) -> bool:
    """Whether its header says where its voxels lie; what it lacks is among its faults."""
    return bool(plane.orientation and plane.pixel_spacing and plane.position) and plane.rows > 0 and plane.columns > 0


def _volume(
    planes: list[PlaneHeader], arrangement: Arrangement, single: Deduplicated, series: str | None, index: Index
) -> Verdict:
    n_files = _n_files(planes, single)
    faults = [*(fault for plane in planes for fault in plane.faults), *arrangement.faults]
    if faults or arrangement.grid is None:
        refused = refusal(faults, n_files, series)
        return replace(refused, detail="; ".join([refused.detail, *arrangement.notes]))
    sources = tuple(_plane_source(plane) for plane in planes)
    dtype, assumed = _dtype(planes)
    first = planes[0]
    padded = sum(p.facts.n_padded for p in planes if p.facts) if all(p.facts for p in planes) else None
    source = VolumeSource(
        grid=arrangement.grid,
        dtype=dtype,
        series_id=series_digest(arrangement.grid, sources, arrangement.deshear, arrangement.uneven),
        patient=first.patient or index.names.patient(f"study:{first.study}"),
        study=first.study,
        series=series or "",
        planes=sources,
        voi=planes[len(planes) // 2].voi,
        attributes=_attributes(planes, arrangement),
        notes=(*_notes(planes), *arrangement.notes),
        deshear=arrangement.deshear,
        uneven=arrangement.uneven,
        assumed=assumed,
    )
    if padded is not None:
        source = with_padding(source, padded)
    n_copies = sum(len(single.files[id(plane)]) - 1 for plane in planes)
    return _taken(source, arrangement, n_copies, n_files, series)


def _taken(source: VolumeSource, arrangement: Arrangement, n_copies: int, n_files: int, series: str | None) -> Verdict:
    if arrangement.options_used:
        code = arrangement.options_used[0]
        detail = "; ".join([*arrangement.notes, *([_copies(n_copies)] if n_copies else [])])
        return Verdict(VerdictKind.REPAIR, code, detail, "none needed; an option asked for it", n_files, series, source)
    if n_copies:
        code = "duplicate-file"
        return Verdict(VerdictKind.REPAIR, code, _copies(n_copies), CURES[code], n_files, series, source)
    return Verdict(VerdictKind.ACCEPT, "", "; ".join(source.notes), "", n_files, series, source)


def _copies(n_copies: int) -> str:
    return f"identical copies of {n_copies} plane(s) were dropped: duplicate files"


def with_padding(source: VolumeSource, padded: int) -> VolumeSource:
    """The source once its voxels of padding are counted: they stand in its attributes and notes."""
    if not any(plane.rescale.padding for plane in source.planes):
        return replace(source, padded=0)
    note = f"padding: {padded} voxels of the padding value or range became -1024 HU"
    attributes = {**source.attributes, "padded_voxels": padded} if padded else source.attributes
    return replace(source, padded=padded, attributes=attributes, notes=(*source.notes, note))


# ------------------------------------------------------------------------------------------------ tasks
def _batches(planes: Sequence[PlaneHeader]) -> Iterable[tuple[PlaneHeader, ...]]:
    return (tuple(planes[at : at + PLANES_A_TASK]) for at in range(0, len(planes), PLANES_A_TASK))


def _digests(planes: tuple[PlaneHeader, ...]) -> list[str]:
    """SHA-256 of the stored bytes of each plane, "" where they cannot be read."""
    return [_digest(plane) for plane in planes]


def _digest(plane: PlaneHeader) -> str:
    try:
        return sha256(stored_bytes(plane)).hexdigest()
    except InputError:
        return ""


def _look(planes: tuple[PlaneHeader, ...]) -> list[PlaneHeader]:
    """The planes, each with what its voxels tell."""
    return [_looked_at(plane) for plane in planes]


def _looked_at(plane: PlaneHeader) -> PlaneHeader:
    try:
        return looked_at(plane, stored_bytes(plane))
    except InputError as error:
        return replace(plane, faults=(*plane.faults, ("unreadable", error.problem)))


# ------------------------------------------------------------------------------------------------ planes
def _is_plain(planes: list[PlaneHeader]) -> bool:
    """Whether the headers alone can judge these planes: nothing is wrong, none is there twice, none may be a mask."""
    instances = {(plane.instance, plane.frame) for plane in planes}
    return len(instances) == len(planes) and all(
        not plane.faults and plane.form is not None and plane.form.bits_allocated > 8 for plane in planes
    )


def _n_files(planes: list[PlaneHeader], single: Deduplicated) -> int:
    return len(frozenset().union(*(single.files[id(plane)] for plane in planes)))


def _dtype(planes: list[PlaneHeader]) -> tuple[Literal["int16", "float32"], bool]:
    """(type of the HU, whether it is assumed): by the values where they were looked at, else by what bits can hold."""
    if all(plane.facts for plane in planes):
        return ("int16" if all(plane.facts and plane.facts.fits_int16 for plane in planes) else "float32"), False
    whole, sure = True, True
    for plane in planes:
        assert plane.form is not None
        assert plane.rescale is not None
        slope, intercept = plane.rescale.slope, plane.rescale.intercept
        whole = whole and slope.is_integer() and intercept.is_integer()
        ends = [slope * value + intercept for value in plane.form.static_range()]
        sure = sure and INT16.min <= min(ends) and max(ends) <= INT16.max
    return ("int16" if whole else "float32"), not (whole and sure)


def _is_mask(planes: list[PlaneHeader]) -> bool:
    """Label masks written as CT (3D-IRCADb): 8 bits, no rescale, and at most the values 0 and one other."""
    facts = [plane.facts for plane in planes]
    return (
        all(
            plane.form is not None
            and plane.form.bits_allocated == 8
            and plane.rescale is not None
            and (plane.rescale.slope, plane.rescale.intercept) == (1.0, 0.0)
            for plane in planes
        )
        and all(fact is not None and fact.two_valued for fact in facts)
        and len({value for fact in facts if fact for value in (fact.lowest, fact.highest)} - {0.0}) <= 1
    )


def _plane_source(plane: PlaneHeader) -> PlaneSource:
    assert plane.form is not None
    assert plane.rescale is not None
    assert plane.position is not None
    x, y, z = plane.position.values
    return PlaneSource(
        plane.locator, plane.spans, plane.in_place, plane.form, plane.rescale, plane.digest, (x, y, z), plane.instance,
        plane.exposure, "" if plane.locator.is_remote else plane.signature,
    )  # fmt: skip


def _attributes(planes: list[PlaneHeader], arrangement: Arrangement) -> dict[str, Any]:
    """What all planes agree in, and what an option did."""
    first = planes[0].attributes
    out: dict[str, Any] = {
        key: value for key, value in first.items() if all(plane.attributes.get(key) == value for plane in planes)
    }
    if arrangement.deshear is not None:
        out["resampled"] = "tilt"
    elif "gantry-tilt" in arrangement.options_used:
        out["sheared"] = True
    if arrangement.uneven:
        out["uneven_planes"] = True
    return out


def _notes(planes: list[PlaneHeader]) -> tuple[str, ...]:
    notes = list(dict.fromkeys(note for plane in planes for note in plane.notes))
    if not planes[0].patient:
        notes.append("patient: the header names none; the study stands for it")
    return tuple(notes)


def _same_voxels(a: PlaneHeader, b: PlaneHeader) -> bool:
    """Whether two copies decode to the same HU; read again, since only digests are kept."""
    values = []
    for plane in (a, b):
        if plane.form is None or plane.rescale is None:
            return False
        try:
            values.append(plane.rescale.to_hu(decode(stored_bytes(plane), plane.form))[0])
        except (CodestreamFaultError, InputError):
            return False
    return bool(np.array_equal(values[0], values[1]))
