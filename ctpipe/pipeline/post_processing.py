"""Post-processing: steps over the committed labels of a run, slab by slab, into a label group of its own.

::

    run 4be1   --step 1-->   labels of key(4be1, step 1)   --step 2-->   labels of key(4be1, steps 1 and 2)
    committed                written, read, taken away                   committed

Each step is one pass that looks at the slabs (where it needs components) and one that writes them. What lies between
two steps is a label group under the key of the steps so far, never committed: a killed call goes on there, and steps
that were asked for before are not done again. The labels of the run stay as they are.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from ctpipe.cluster import client_for, run_tasks
from ctpipe.errors import CtpipeError, UsageError
from ctpipe.pipeline.judging import runs_named
from ctpipe.pipeline.keys import digest_of
from ctpipe.pipeline.stages import SlabCounter, store_for_writing
from ctpipe.postprocess import (
    Band,
    BoundStep,
    Crf,
    SlabComponents,
    Step,
    apply,
    bind,
    decide,
    look,
    parse_steps,
    step_text,
)
from ctpipe.store import GroupWriter, Labels, LabelsMeta, Series, SlabRecord, Store, open_store, remove
from ctpipe.volume import Slab
from ctpipe.words import Progress

# Raise when the same labels and steps begin to give other bytes.
POST_ALGORITHM = "post-1"


@dataclass(frozen=True)
class PostRun:
    """Post-processed labels of one volume.

    run: key of the new labels; parent: the run that they were made of. changed: voxels that each step changed, by the
    step's text, as far as this call did it. slabs, resumed: of the last step. known: it was committed before.
    """

    series: str
    run: str
    parent: str
    changed: dict[str, int]
    seconds: float
    slabs: int
    resumed: int
    known: bool = False

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class PostReport:
    """The runs of one call, and what failed: {series: one line}."""

    runs: tuple[PostRun, ...]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0

    def as_json(self) -> dict[str, Any]:
        return {"runs": [run.as_json() for run in self.runs], "failed": self.failed}


@dataclass(frozen=True)
class SlabTask:
    """One step on one slab: small values only. source: a committed label group, or the one of the step before."""

    store: str
    series: str
    source: str | GroupWriter
    step: BoundStep
    slab: Slab
    writer: GroupWriter | None = None  # None: only look
    hit: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class SlabOutcome:
    """What writing one slab gives back. changed: voxels; found: the slab lay there whole already."""

    record: SlabRecord
    changed: int
    found: bool


def post_process(
    store: str | Path | Store,
    run: str | Sequence[str],
    steps: str | Sequence[Step],
    client: Client | None = None,
    *,
    drop_raw: bool = False,
    progress: Progress = None,
) -> PostReport:
    """Do `steps` on the labels of every run that `run` names, each into labels of its own.

    run: run keys, or the digest of a model for all its runs. steps: `postprocess.parse_steps` names them.
    drop_raw: take the labels and the record of a run away once the new labels are committed.
    Raises UsageError or NotThereError for a step, a class or a run that is not there, before any work.
    """
    chosen = parse_steps(steps) if isinstance(steps, str) else tuple(steps)
    if not chosen:
        raise UsageError("no steps were given", "give at least one")
    target = store if isinstance(store, Store) else store_for_writing(store)
    names = [run] if isinstance(run, str) else list(run)
    pairs = dict.fromkeys((series.id, key) for name in names for series, key in runs_named(target, name))
    plans = [_plan(target, target[series_id], key, chosen) for series_id, key in pairs]
    counter = SlabCounter("post", progress, sum(plan.n_tasks for plan in plans))
    runs: list[PostRun] = []
    failed: dict[str, str] = {}
    slabs = sum(len(plan.writers[-1].slabs) for plan in plans if not plan.writers[-1].committed)
    with client_for(slabs, client) as workers:
        for plan in plans:
            try:
                runs.append(_post_process(target, plan, workers, counter))
            except CtpipeError as error:
                if error.exit_code == 4:  # no disk, no memory: the next volume would fail as well
                    raise
                failed[plan.series.id] = str(error)
    if drop_raw:
        for name in {run.parent for run in runs} - {plan.labels.name for plan in plans if plan.series.id in failed}:
            remove(target, name)
    return PostReport(tuple(runs), failed)


@dataclass(frozen=True)
class _Plan:
    """The steps on one volume. writers: of the labels after each step; the last is the result."""

    series: Series
    labels: Labels
    steps: tuple[BoundStep, ...]
    writers: tuple[GroupWriter, ...]

    @property
    def n_tasks(self) -> int:
        return len(self.writers[-1].slabs) * self.passes(0)

    def passes(self, first: int) -> int:
        """Passes over all slabs from step `first` on."""
        return sum(2 if step.looks else 1 for step in self.steps[first:])


def _plan(store: Store, series: Series, key: str, steps: tuple[Step, ...]) -> _Plan:
    labels = series.labels[key]
    bound = tuple(bind(step, labels.classes, series.grid) for step in steps)
    writers = tuple(store.labels_writer(series.id, _meta(series, labels, steps[: n + 1])) for n in range(len(steps)))
    return _Plan(series, labels, bound, writers)


def _meta(series: Series, labels: Labels, steps: tuple[Step, ...]) -> LabelsMeta:
    return LabelsMeta(
        name=post_key(series, labels, steps), kind=labels.kind, grid=series.grid, classes=labels.classes,
        dtype=labels.dtype,
        provenance={"algorithm": POST_ALGORITHM, "parent": labels.name, "parent_content": labels.content,
                    "steps": [step_text(step) for step in steps]},
    )  # fmt: skip


def post_key(series: Series, labels: Labels, steps: Sequence[Step]) -> str:
    """Key of post-processed labels: the labels that they are made of, the steps in order, the algorithm.

    A step that reads HU adds the volume's content, and the processor's kind, since its exponentials are in floating
    point.
    """
    told = [[step.name, asdict(step)] for step in steps]
    reads = [series.content, platform.machine()] if any(isinstance(step, Crf) for step in steps) else None
    return digest_of([POST_ALGORITHM, labels.name, labels.content, labels.dtype, sorted(labels.classes.items()),
                      series.grid.grid_id, told, reads])  # fmt: skip


def _post_process(store: Store, plan: _Plan, client: Client | None, counter: SlabCounter) -> PostRun:
    began = time.monotonic()
    last = plan.writers[-1]
    if last.committed:
        counter.add(plan.n_tasks)
        return PostRun(plan.series.id, last.path.name, plan.labels.name, {}, time.monotonic() - began,
                       len(last.slabs), 0, known=True)  # fmt: skip
    with ExitStack() as stack:
        lease = stack.enter_context(store.lease(last.target))
        for writer in plan.writers[:-1]:
            if not writer.committed:
                stack.enter_context(store.lease(writer.target))
        source, first = _begin(plan)
        counter.add(len(last.slabs) * (plan.passes(0) - plan.passes(first)))
        changed: dict[str, int] = {}
        outcomes: dict[int, SlabOutcome] = {}
        for step, writer in zip(plan.steps[first:], plan.writers[first:], strict=True):
            outcomes = _step(store, plan, source, step, writer, client, counter)
            text = step_text(step.step)
            changed[text] = changed.get(text, 0) + sum(outcome.changed for outcome in outcomes.values())
            _take_away(source)
            source = writer
        last.commit([outcomes[slab.index].record for slab in last.slabs], lease)
        for writer in plan.writers[:-1]:
            _take_away(writer)
    seconds = time.monotonic() - began
    resumed = sum(outcome.found for outcome in outcomes.values())
    run = PostRun(plan.series.id, last.path.name, plan.labels.name, changed, seconds, len(last.slabs), resumed)
    store.write_run(run.run, _record(plan, run))
    return run


def _begin(plan: _Plan) -> tuple[str | GroupWriter, int]:
    """Labels to begin with and the first step to do: the last that an earlier call ended, committed or not."""
    for n in range(len(plan.writers) - 2, -1, -1):
        writer = plan.writers[n]
        if writer.committed:
            return writer.path.name, n + 1
        if writer.path.exists() and all(writer.done(slab) for slab in writer.slabs):
            return writer, n + 1
    return plan.labels.name, 0


def _take_away(source: str | GroupWriter) -> None:
    """Labels between two steps, which nothing reads any more."""
    if isinstance(source, GroupWriter) and source.path.exists() and not source.committed:
        source.discard()


def _step(store: Store, plan: _Plan, source: str | GroupWriter, step: BoundStep, writer: GroupWriter,
          client: Client | None, counter: SlabCounter) -> dict[int, SlabOutcome]:
    """One step on all slabs: look, decide, apply."""
    root, series = str(store.root), plan.series.id
    hits: Sequence[NDArray[np.bool_] | None] = [None] * len(writer.slabs)
    if step.looks:
        seen: dict[int, SlabComponents] = {}
        tasks = [SlabTask(root, series, source, step, slab) for slab in writer.slabs]
        for task, found in run_tasks(client, look_at_slab, tasks):
            seen[task.slab.index] = found
            counter.add()
        hits = decide(step, [seen[slab.index] for slab in writer.slabs])
    writer.prepare()
    outcomes: dict[int, SlabOutcome] = {}
    tasks = [SlabTask(root, series, source, step, slab, writer, hit)
             for slab, hit in zip(writer.slabs, hits, strict=True)]  # fmt: skip
    for task, outcome in run_tasks(client, write_slab, tasks):
        outcomes[task.slab.index] = outcome
        counter.add()
    return outcomes


def _record(plan: _Plan, run: PostRun) -> dict[str, Any]:
    """What it was made of, for people: times, host and versions stand only here, never under *.ome.zarr."""
    return {
        "series": run.series,
        "parent": run.parent,
        "parent_content": plan.labels.content,
        "steps": [step_text(step.step) for step in plan.steps],
        "changed": run.changed,
        "seconds": round(run.seconds, 3),
        "slabs": run.slabs,
        "resumed": run.resumed,
        "host": platform.node(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("ctpipe", "numpy", "scipy", "torch", "zarr", "dask")},
    }


# ---------------------------------------------------------------------------------------------- in a worker
def look_at_slab(task: SlabTask) -> SlabComponents:
    """What one slab tells about its components."""
    series = open_store(task.store)[task.series]
    return look(task.step, _band(series, task, task.step.look_halo)[0])


def write_slab(task: SlabTask) -> SlabOutcome:
    """Apply the step to one slab and write it, unless it already lies there whole."""
    if task.writer is None:
        raise UsageError("a slab to be written needs a writer", "give one")
    series = open_store(task.store)[task.series]
    done = task.writer.done(task.slab)
    if done is not None:
        before = _read(series, task.source, task.slab.start, task.slab.stop)
        after = task.writer.read_planes(task.slab.start, task.slab.stop)
        return SlabOutcome(done, int((before != after).sum()), found=True)
    band, low = _band(series, task, task.step.apply_halo)
    hu = series.read_planes(low, low + len(band.labels)) if task.step.reads_hu else None
    labels = apply(task.step, band, task.hit, hu)
    return SlabOutcome(task.writer.write_slab(task.slab, labels), int((labels != band.slab).sum()), found=False)


def _band(series: Series, task: SlabTask, halo: int) -> tuple[Band, int]:
    """The slab with its halo, and the first plane of it."""
    depth = series.grid.shape.z
    low, high = task.slab.with_halo(halo, depth)
    labels = _read(series, task.source, low, high)
    return Band(labels, task.slab.start, task.slab.planes, task.slab.start - low, depth), low


def _read(series: Series, source: str | GroupWriter, start: int, stop: int) -> NDArray:
    return source.read_planes(start, stop) if isinstance(source, GroupWriter) else \
        series.labels[source].read_planes(start, stop)
