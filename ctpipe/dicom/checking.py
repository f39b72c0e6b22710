"""check: a verdict for every volume and every file of the input; nothing is written (corpus policy, rules 1-16)."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from ctpipe.dicom.codestreams import CodestreamFaultError
from ctpipe.dicom.geometry import grid_of, stack_faults
from ctpipe.dicom.headers import PlaneHeader
from ctpipe.dicom.identity import Pseudonyms, load_pseudonyms
from ctpipe.dicom.index import Lone, Progress, build_index
from ctpipe.dicom.pixels import decode
from ctpipe.dicom.split import Deduplicated, drop_copies, groups_of, phases_of, sorted_planes
from ctpipe.dicom.verdict import CURES, Verdict, refusal
from ctpipe.dicom.volumes import PlaneSource, VolumeSource, series_digest, stored_bytes
from ctpipe.errors import InputError, NotThereError
from ctpipe.words import VerdictKind

# Faults of a plane that mean that its file is broken: it refuses its whole series (corpus policy, rule 12).
BROKEN = frozenset({"truncated", "no-pixels", "decode", "bomb", "unsupported-pixels"})

Paths = Iterable[str | os.PathLike[str]] | str | os.PathLike[str]


def check(
    paths: Paths,
    pseudonyms: Pseudonyms | None = None,
    exclude: Sequence[str | os.PathLike[str]] = (),
    progress: Progress = None,
) -> list[Verdict]:
    """A verdict for every volume found under `paths`, and for every lot of files that is none; nothing is written.

    Accepted volumes come first. pseudonyms: default the user's, or passing ones where there is no key yet. exclude:
    paths that are not looked at (label folders within). Raises NotThereError for a path that does not exist.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    index = build_index(paths, exclude, progress)
    names = pseudonyms or _usable_pseudonyms()
    by_series: dict[str, list[PlaneHeader]] = defaultdict(list)
    for plane in index.planes:
        by_series[plane.series_uid].append(plane)
    broken: dict[str, list[Lone]] = defaultdict(list)
    others = []
    for lone in index.lone:
        if lone.fault.kind is VerdictKind.REJECT and lone.series_uid in by_series:
            broken[str(lone.series_uid)].append(lone)
        else:
            others.append(lone)
    shared = _shared_instances(by_series)
    verdicts = [
        verdict
        for uid in sorted(by_series)
        for verdict in _judge_series(by_series[uid], broken[uid], uid in shared, names)
    ]
    verdicts += _lone_verdicts(others, names)
    rank = [VerdictKind.ACCEPT, VerdictKind.REPAIR, VerdictKind.REJECT, VerdictKind.SET_ASIDE]
    return sorted(verdicts, key=lambda verdict: rank.index(verdict.kind))


def _usable_pseudonyms() -> Pseudonyms:
    """The user's; where there is no key yet, one that ends with this call: `check` writes nothing, not even a key."""
    try:
        return load_pseudonyms(create=False)
    except NotThereError:
        return Pseudonyms(secrets.token_bytes(32))


def _shared_instances(by_series: dict[str, list[PlaneHeader]]) -> set[str]:
    """Series that have an instance UID in common with another series: one of them is not what it says."""
    owner: dict[str, set[str]] = defaultdict(set)
    for uid, planes in by_series.items():
        for plane in planes:
            owner[plane.instance_uid].add(uid)
    return {uid for instance, owners in owner.items() if len(owners) > 1 and instance for uid in owners}


def _lone_verdicts(lone: list[Lone], names: Pseudonyms) -> list[Verdict]:
    """Files that give no plane, those of one series and one reason together."""
    lots: dict[tuple[Any, ...], list[Lone]] = defaultdict(list)
    for file in lone:
        alone = file.number if file.fault.kind is VerdictKind.REJECT and not file.fault.detail else None
        lots[file.fault, file.series_uid, alone].append(file)
    out = []
    for (fault, uid, _), files in lots.items():
        numbers = ", ".join(str(file.number) for file in files[:5]) + (", …" if len(files) > 5 else "")
        detail = f"{fault.detail} (file {numbers} in name order)"
        cure = fault.cure or (CURES.get(fault.reason, "") if fault.kind is VerdictKind.REJECT else "none needed")
        out.append(Verdict(fault.kind, fault.reason, detail, cure, len(files), names.uid(uid) if uid else None))
    return out


# ------------------------------------------------------------------------------------------------ one series
def _judge_series(planes: list[PlaneHeader], broken: list[Lone], shared: bool, names: Pseudonyms) -> list[Verdict]:
    """Verdicts on the volumes of one series, or one refusal of the whole series."""
    uid = planes[0].series_uid
    pseudonym = names.uid(uid) if uid else None
    files = {plane.number for plane in planes} | {lone.number for lone in broken}
    faults = [(lone.fault.reason, lone.fault.detail) for lone in broken]
    if len({plane.patient_id for plane in planes}) > 1:
        faults.append(("patient-conflict", "the series stands under more than one patient"))
    if len({plane.study_uid for plane in planes}) > 1:
        faults.append(("study-conflict", "the series stands under more than one study"))
    if shared:
        faults.append(("uid-conflict", "an instance UID of this series stands in another series too"))
    single = Deduplicated([], {}, 0, False)
    if not faults:
        single = drop_copies(planes, _same_voxels)
        if single.conflict:
            faults.append(("uid-conflict", "one instance UID stands for different content (SOPInstanceUID)"))
    homeless = [plane for plane in planes if not (plane.orientation and plane.pixel_spacing and plane.position)]
    unreadable = any(reason in BROKEN for plane in planes for reason, _ in plane.faults)
    if faults or homeless or unreadable:
        faults += [fault for plane in planes for fault in plane.faults]
        return [refusal(faults, len(files), pseudonym)]
    return [verdict for group in groups_of(single.planes) for verdict in _judge_group(group, single, pseudonym, names)]


def _judge_group(
    group: list[PlaneHeader], single: Deduplicated, pseudonym: str | None, names: Pseudonyms
) -> list[Verdict]:
    parts = phases_of(group)
    if parts is None:
        faults = [fault for plane in group for fault in plane.faults]
        detail = (
            "positions repeat: several planes stand at the same position and nothing tells them apart "
            "(acquisition, time, phase, kVp)"
        )
        return [refusal([*faults, ("duplicate-position", detail)], _n_files(group, single), pseudonym)]
    return [_judge_volume(part, _n_files(part, single), _n_copies(part, single), pseudonym, names) for part in parts]


def _n_files(planes: list[PlaneHeader], single: Deduplicated) -> int:
    return len(frozenset().union(*(single.files[id(plane)] for plane in planes)))


def _n_copies(planes: list[PlaneHeader], single: Deduplicated) -> int:
    return sum(len(single.files[id(plane)]) - 1 for plane in planes)


def _judge_volume(
    planes: list[PlaneHeader], n_files: int, n_copies: int, pseudonym: str | None, names: Pseudonyms
) -> Verdict:
    ordered, stack = sorted_planes(planes)
    if _is_mask(ordered):
        detail = "a mask: 8 bits and no more than two values, not CT (labels are given with --labels)"
        return Verdict(VerdictKind.SET_ASIDE, "not-ct", detail, "give it as a label", n_files, pseudonym)
    faults = [fault for plane in ordered for fault in plane.faults]
    faults += stack_faults(stack)
    if faults:
        return refusal(faults, n_files, pseudonym)
    first = ordered[0]
    reference = names.uid(first.frame_of_reference) if first.frame_of_reference else None
    assert first.pixel_spacing is not None  # groups have one
    grid = grid_of(stack, first.rows, first.columns, first.pixel_spacing, reference)
    sources = tuple(_plane_source(plane, names) for plane in ordered)
    dtype: Literal["int16", "float32"] = (
        "int16" if all(plane.facts and plane.facts.fits_int16 for plane in ordered) else "float32"
    )
    patient = names.patient(first.patient_id or f"study:{first.study_uid}")
    source = VolumeSource(grid, dtype, series_digest(grid, dtype, sources), patient, names.uid(first.study_uid),
                          pseudonym or "", sources, ordered[len(ordered) // 2].voi, _attributes(ordered),
                          _notes(ordered))  # fmt: skip
    if n_copies:
        detail = f"identical copies of {n_copies} plane(s) were dropped: duplicate files"
        code = "duplicate-file"
        return Verdict(VerdictKind.REPAIR, code, detail, CURES[code], n_files, pseudonym, source)
    return Verdict(VerdictKind.ACCEPT, "", "; ".join(source.notes), "", n_files, pseudonym, source)


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


def _plane_source(plane: PlaneHeader, names: Pseudonyms) -> PlaneSource:
    assert plane.form is not None
    assert plane.rescale is not None
    assert plane.position is not None
    x, y, z = plane.position.values
    return PlaneSource(
        plane.locator,
        plane.spans,
        plane.in_place,
        plane.form,
        plane.rescale,
        plane.digest,
        (x, y, z),
        names.uid(plane.instance_uid),
        plane.exposure,
    )


def _attributes(planes: list[PlaneHeader]) -> dict[str, Any]:
    """What all planes agree in, and how many voxels are padding."""
    first = planes[0].attributes
    out: dict[str, Any] = {
        key: value for key, value in first.items() if all(plane.attributes.get(key) == value for plane in planes)
    }
    padded = sum(plane.facts.n_padded for plane in planes if plane.facts)
    if padded:
        out["padded_voxels"] = padded
    return out


def _notes(planes: list[PlaneHeader]) -> tuple[str, ...]:
    notes = list(dict.fromkeys(note for plane in planes for note in plane.notes))
    padded = sum(plane.facts.n_padded for plane in planes if plane.facts)
    if padded or any(plane.rescale and plane.rescale.padding for plane in planes):
        notes.append(f"padding: {padded} voxels of the padding value or range became -1024 HU")
    if not planes[0].patient_id:
        notes.append("patient: the header names none; the study stands for it")
    return tuple(notes)


def _same_voxels(a: PlaneHeader, b: PlaneHeader) -> bool:
    """Whether two copies decode to the same HU; read again, since only digests are kept."""
    values = []
    for plane in (a, b):
        if plane.form is None or plane.rescale is None or plane.position is None:
            return False
        x, y, z = plane.position.values
        source = PlaneSource(
            plane.locator, plane.spans, plane.in_place, plane.form, plane.rescale, plane.digest, (x, y, z), ""
        )
        try:
            values.append(plane.rescale.to_hu(decode(stored_bytes(source), plane.form))[0])
        except (CodestreamFaultError, InputError):
            return False
    return bool(np.array_equal(values[0], values[1]))
