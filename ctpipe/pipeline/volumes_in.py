"""Volumes in: judged series -> slab tasks -> one commit a volume.

A series is judged, its volumes' slabs are handed out, and while workers write them the next series is judged. Volumes
of one series are committed together, when all their slabs lie there: what only voxels tell may refuse all of them. A
call that was killed goes on where it stopped, since a slab that is whole is not written again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from distributed import Client

from ctpipe import dicom
from ctpipe.cluster import run_tasks
from ctpipe.dicom import Examination, Verdict, VolumeSource
from ctpipe.errors import InputError, StoreBusyError
from ctpipe.pipeline.reports import TakenVolume
from ctpipe.store import GroupWriter, Lease, SlabRecord, Store, VolumeMeta
from ctpipe.volume import Slab
from ctpipe.words import Progress, VerdictKind

Outcome = TakenVolume | Verdict


@dataclass(frozen=True)
class VolumeTask:
    """One slab of one volume: small values only, so that any worker on the same file system can do it.

    part: the slab's own planes. must_read: what the voxels tell is wanted even where the slab lies there already.
    """

    writer: GroupWriter
    part: VolumeSource = field(repr=False)
    slab: Slab
    must_read: bool


@dataclass(frozen=True)
class SlabDone:
    """What came of one slab: its record, or what is wrong with the input."""

    record: SlabRecord | None
    n_padded: int = 0
    fits_int16: bool = True
    fault: str = ""


def write_volume_slab(task: VolumeTask) -> SlabDone:
    """The slab written, unless it already lies there whole."""
    done = task.writer.done(task.slab)
    if done is not None and not task.must_read:
        return SlabDone(done)
    try:
        voxels, facts = dicom.read_slab(task.part, 0, task.slab.planes)
    except InputError as error:  # one bad series never stops the others
        return SlabDone(None, fault=str(error))
    return SlabDone(done or task.writer.write_slab(task.slab, voxels), facts.n_padded, facts.fits_int16)


def take_volumes(
    found: Examination, store: Store, client: Client | None, progress: Progress
) -> tuple[list[TakenVolume], list[Verdict]]:
    """(committed volumes, verdicts of the rest) of all that was found, each in its order."""
    taking = _Taking(found, store, progress)
    with taking.leases:
        while taking.open:
            for task, done in run_tasks(client, write_volume_slab, taking.tasks()):
                taking.slab_done(task, done)
    outcomes = [outcome for _, outcome in sorted(taking.outcomes.items())]
    return [o for o in outcomes if isinstance(o, TakenVolume)], [o for o in outcomes if isinstance(o, Verdict)]


@dataclass
class _Volume:
    """A volume on its way into the store."""

    place: tuple[int, int]
    verdict: Verdict
    source: VolumeSource
    writer: GroupWriter
    lease: Lease
    held: ExitStack  # its lease, let go as soon as it is committed
    done: dict[int, SlabDone] = field(default_factory=dict)


@dataclass
class _Part:
    """The volumes of one series; committed together."""

    number: int
    series: str
    certain: bool  # judged by its voxels: what goes wrong now is the volume's own fault
    volumes: list[_Volume] = field(default_factory=list)
    n_slabs: int = 0
    n_done: int = 0


class _Taking:
    """What is known of everything while it is taken."""

    def __init__(self, found: Examination, store: Store, progress: Progress) -> None:
        self.found, self.store, self.progress = found, store, progress
        self.outcomes: dict[tuple[int, int], Outcome] = {}
        self.leases = ExitStack()
        self.open = True
        self._parts = enumerate(found.parts(whole=False))
        self._again: deque[tuple[int, list[Verdict]]] = deque()
        self._by_target: dict[str, tuple[_Part, _Volume]] = {}
        self._seen: set[str] = set()
        self._slabs = self._slabs_done = 0

    def tasks(self) -> Iterator[VolumeTask]:
        """Slabs to write, a series at a time; a lease is taken only when the first slab of its volume is handed out."""
        for number, verdicts in self._parts:
            yield from self._tasks_of(_Part(number, _series(verdicts), certain=False), verdicts)
        while self._again:
            number, verdicts = self._again.popleft()
            yield from self._tasks_of(_Part(number, _series(verdicts), certain=True), verdicts)
        self.open = False

    def _tasks_of(self, part: _Part, verdicts: list[Verdict]) -> Iterator[VolumeTask]:
        for index, verdict in enumerate(verdicts):
            place = (part.number, index)
            taken = self._to_write(place, verdict)
            if isinstance(taken, _Volume):
                part.volumes.append(taken)
                self._by_target[taken.writer.target] = (part, taken)
                part.n_slabs += len(taken.writer.slabs)
            else:
                self.outcomes[place] = taken
        self._slabs += part.n_slabs
        for volume in part.volumes:
            volume.writer.prepare()
            for slab in volume.writer.slabs:
                yield _task(volume, slab)

    def _to_write(self, place: tuple[int, int], verdict: Verdict) -> _Volume | Outcome:
        """The volume, leased, where it has to be written; else what became of it at once."""
        source = verdict.source
        if source is None:
            return verdict
        if source.series_id in self.store:
            return TakenVolume(_light(verdict), source.series_id, known=True)
        if source.series_id in self._seen:  # the same series given twice
            return _same_voxels(verdict, source.series_id)
        writer = self.store.volume_writer(_volume_meta(source))
        held = ExitStack()
        try:
            lease = held.enter_context(self.store.lease(writer.target))
        except StoreBusyError as error:
            return _failed(verdict, str(error))
        self.leases.push(held.__exit__)
        self._seen.add(source.series_id)
        return _Volume(place, verdict, source, writer, lease, held)

    def slab_done(self, task: VolumeTask, done: SlabDone) -> None:
        """Counts a slab in; the last one of a series commits it, or has it judged again."""
        part, volume = self._by_target[task.writer.target]
        volume.done[task.slab.index] = done
        part.n_done += 1
        self._slabs_done += 1
        if part.n_done == part.n_slabs:
            self._finish(part)
        if self.progress:
            self.progress("ingest", self._slabs_done, self._slabs)

    def _finish(self, part: _Part) -> None:
        surprised = any(_is_surprising(volume) for volume in part.volumes)
        for volume in part.volumes:
            del self._by_target[volume.writer.target]
            fault = next((done.fault for _, done in sorted(volume.done.items()) if done.fault), "")
            if surprised and not part.certain:
                volume.writer.discard()
                self._seen.discard(volume.source.series_id)
            elif fault:
                self.outcomes[volume.place] = _failed(volume.verdict, fault)
            else:
                self.outcomes[volume.place] = self._commit(volume)
            volume.held.close()
        if surprised and not part.certain:
            for place in [place for place in self.outcomes if place[0] == part.number]:
                del self.outcomes[place]
            self._again.append((part.number, self.found.again(part.series)))
            self.open = True

    def _commit(self, volume: _Volume) -> Outcome:
        """Commit, unless the store holds the same voxels on the same grid under another name."""
        slabs = [done for _, done in sorted(volume.done.items())]
        records = [done.record for done in slabs if done.record]
        source, verdict = volume.source, volume.verdict
        if source.padded is None:
            source = dicom.with_padding(source, sum(done.n_padded for done in slabs))
            detail = "; ".join(source.notes) if verdict.kind is VerdictKind.ACCEPT else verdict.detail
            verdict = replace(verdict, source=source, detail=detail)
        writer = self.store.volume_writer(_volume_meta(source))
        with self.store.content_lock(volume.lease):
            twin = self.store.find_content(writer.content(records), source.grid)
            if twin is None:
                writer.commit(records, volume.lease, dicom.plane_table(source))
                return TakenVolume(_light(verdict), source.series_id)
        writer.discard()
        return _same_voxels(verdict, twin)


def _series(verdicts: Sequence[Verdict]) -> str:
    return next((verdict.source.series for verdict in verdicts if verdict.source), "")


def _task(volume: _Volume, slab: Slab) -> VolumeTask:
    part = dicom.part_of(volume.source, slab.start, slab.stop)
    counts = volume.source.padded is None and any(plane.rescale.padding for plane in part.planes)
    guessed_float = volume.source.assumed and volume.source.dtype == "float32"
    return VolumeTask(volume.writer, part, slab, counts or guessed_float)


def _is_surprising(volume: _Volume) -> bool:
    """Whether the voxels are not what the headers let expect: they do not read, or int16 would do after all."""
    done = volume.done.values()
    too_wide = volume.source.dtype == "float32" and volume.source.assumed and all(d.fits_int16 for d in done)
    return too_wide or any(d.fault for d in done)


def _volume_meta(source: VolumeSource) -> VolumeMeta:
    return VolumeMeta(
        id=source.series_id,
        grid=source.grid,
        dtype=source.dtype,
        patient=source.patient,
        study=source.study,
        series=source.series,
        voi=source.voi,
        attributes=dict(source.attributes),
        provenance={"notes": list(source.notes), "planes": len(source.planes)},
    )


def _light(verdict: Verdict) -> Verdict:
    """The verdict without its planes: a report of a thousand volumes must not hold a million of them."""
    return replace(verdict, source=verdict.source and replace(verdict.source, planes=(), deshear=None))


def _same_voxels(verdict: Verdict, twin: str) -> Verdict:
    return replace(
        verdict, kind=VerdictKind.SET_ASIDE, reason="duplicate-content", source=None,
        detail=f"the same voxels on the same grid are in the store as {twin}; not committed twice",
        cure="none needed; use the volume that is there",
    )  # fmt: skip


def _failed(verdict: Verdict, fault: str) -> Verdict:
    return replace(verdict, kind=VerdictKind.REJECT, reason="unreadable", source=None, detail=fault,
                   cure="see the message, then run the same command again: what is finished is kept")  # fmt: skip
