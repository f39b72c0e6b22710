"""Waves: several volumes in flight, each a generator of waves of tasks that ends in its commit.

A volume's work is a generator. It yields waves, sets of tasks that may run at the same time; it is resumed with what
they gave, in their order; it returns its result::

    def work() -> Work[Run]:
        before = yield from earlier_work()                  any number of waves, one after the other
        with store.lease(target) as lease:                  held while its tasks are in flight
            outcomes = yield Wave(predict_slab, tasks)
            writer.commit(outcomes, lease)
        return Run(...)

What it does between two waves is done in the coordinator: small things, no voxels. What a task raises is raised at the
`yield`, after the other tasks of the wave were given up; a work may catch it and go on with other tasks.

Tasks of the volume opened first go first, and the next volume is opened when a slot is free and no open one has a task
for it: no worker waits for the end of a volume, and no more volumes are open than there are slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from distributed import Client

from ctpipe.cluster import Done, Slots
from ctpipe.errors import CtpipeError
from ctpipe.pipeline.stages import SlabCounter
from ctpipe.words import Device

Result = TypeVar("Result")


@dataclass(frozen=True)
class Wave:
    """Tasks of one volume that may run at the same time.

    function: in a worker, what a task gives; importable, as tasks are picklable.
    slabs: how many slabs a task counts for in the progress; None: one each. A task of several tells each as it
    finishes it (`ctpipe.cluster.tell_slab`); what it did not tell counts when it ends.
    """

    function: Callable[[Any], Any]
    tasks: Sequence[Any]
    slabs: Sequence[int] | None = None


Work = Generator[Wave, list[Any], Result]


@dataclass(frozen=True)
class Volume(Generic[Result]):
    """A volume to work on: the id of its series, and what begins its work when its turn comes."""

    series: str
    begin: Callable[[], Work[Result]] = field(repr=False)


def run_volumes(
    client: Client | None, volumes: Iterable[Volume[Result]], counter: SlabCounter, device: Device | None = None
) -> tuple[dict[str, Result], dict[str, str]]:
    """({series: its result}, {series: why it failed}) of all volumes, in their order.

    One failing volume does not stop the others; an error of exit code 4 does, since without disk or memory the next one
    would fail as well. A task that ends its workers ends as its own volume's failure. Whatever stops the call, no task
    and no lease is left behind. device: of the workers that get the tasks; None: any.
    """
    volumes = list(volumes)
    with _Coordinator(client, counter, device) as coordinator:
        coordinator.run(volumes)
    order = {volume.series: number for number, volume in enumerate(volumes)}
    done, failed = (dict(sorted(found.items(), key=lambda item: order[item[0]]))
                    for found in (coordinator.done, coordinator.failed))  # fmt: skip
    return done, failed


@dataclass(eq=False)
class _Open:
    """A volume in flight. ready: tasks of its wave that no worker has; told: slabs that the others told, each once."""

    series: str
    work: Work[Any]
    wave: Wave = Wave(len, ())
    ready: deque[int] = field(default_factory=deque)
    missing: int = 0
    outcomes: list[Any] = field(default_factory=list)
    told: dict[int, set[int]] = field(default_factory=dict)
    counted: int = 0

    def take(self, wave: Wave) -> None:
        self.wave, self.missing, self.counted = wave, len(wave.tasks), 0
        self.ready, self.outcomes, self.told = deque(range(self.missing)), [None] * self.missing, {}

    def slabs(self, number: int) -> int:
        return 1 if self.wave.slabs is None else self.wave.slabs[number]


def _begun(volume: Volume[Any]) -> Work[Any]:
    """The work on a volume; what goes wrong in its beginning is the volume's failure too."""
    return (yield from volume.begin())


_Tag = tuple[_Open, int]


class _Coordinator:
    """Hands out tasks, takes in what they give, resumes the work whose wave is over."""

    def __init__(self, client: Client | None, counter: SlabCounter, device: Device | None) -> None:
        self.slots = Slots(client, self._slab, device)
        self.counter = counter
        self.open: list[_Open] = []
        # tasks whose workers went down: a worker takes all its tasks along, so each is tried again, alone
        self.suspects: deque[_Tag] = deque()
        self.alone = False
        self.done: dict[str, Any] = {}
        self.failed: dict[str, str] = {}

    def __enter__(self) -> _Coordinator:
        self.slots.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.slots.__exit__(*error)
        for volume in self.open:
            volume.work.close()

    def run(self, volumes: Iterable[Volume[Any]]) -> None:
        queue = iter(volumes)
        while True:
            self._fill(queue)
            if not self.slots.pending:
                return
            self._take(self.slots.next())

    def _fill(self, queue: Iterable[Volume[Any]]) -> None:
        while self.slots.free and not self.alone:
            volume = next((volume for volume in self.open if volume.ready), None)
            if volume is not None:
                self._submit((volume, volume.ready.popleft()))
                continue
            following = next(iter(queue), None)
            if following is None:
                break
            opened = _Open(following.series, _begun(following))
            self.open.append(opened)
            self._resume(opened, partial(next, opened.work))
        if self.suspects and not self.slots.pending:
            self.alone = True
            self._submit(self.suspects.popleft())

    def _submit(self, tag: _Tag) -> None:
        volume, number = tag
        self.slots.submit(volume.wave.function, volume.wave.tasks[number], tag)

    def _take(self, done: Done) -> None:
        volume, number = done.tag
        if done.lost and not self.alone:
            self.suspects.append(done.tag)
            return
        self.alone = False
        if done.error is not None:
            self._give_up(volume, done.error)
            return
        volume.outcomes[number] = done.result
        self._count(volume, volume.slabs(number) - len(volume.told.pop(number, ())))
        volume.missing -= 1
        if not volume.missing:
            self._resume(volume, lambda: volume.work.send(volume.outcomes))

    def _give_up(self, volume: _Open, error: BaseException) -> None:
        """The wave is lost; its work may know what to do else."""
        self.slots.cancel(lambda tag: tag[0] is volume)
        self.suspects = deque(tag for tag in self.suspects if tag[0] is not volume)
        volume.ready.clear()
        lost, volume.counted = volume.counted, 0
        if self._resume(volume, lambda: volume.work.throw(error)):
            self.counter.add(-lost)

    def _resume(self, volume: _Open, step: Callable[[], Wave]) -> bool:
        """Let the work go on to its next wave that has tasks; False where it is over."""
        try:
            volume.take(step())
            while not volume.missing:
                volume.take(volume.work.send([]))
            return True
        except StopIteration as end:
            self.done[volume.series] = end.value
        except CtpipeError as error:
            if error.exit_code == 4:  # no disk, no memory: the next volume would fail as well
                raise
            self.failed[volume.series] = str(error)
        self.open.remove(volume)
        return False

    def _slab(self, tag: _Tag, slab: int) -> None:
        """A task tells that it finished a slab."""
        volume, number = tag
        told = volume.told.setdefault(number, set())
        if slab not in told and len(told) < volume.slabs(number):
            told.add(slab)
            self._count(volume, 1)

    def _count(self, volume: _Open, slabs: int) -> None:
        volume.counted += slabs
        if slabs:
            self.counter.add(slabs)
