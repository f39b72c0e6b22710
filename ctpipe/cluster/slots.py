"""Tasks in flight: submitted as slots free up, with or without a cluster."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import dask
from distributed import CancelledError, Client, Future
from distributed.scheduler import KilledWorker

from ctpipe.cluster.placing import Place, place_for
from ctpipe.cluster.silence import Watch
from ctpipe.cluster.ticks import hearing, tell_from_worker, telling
from ctpipe.errors import CtpipeError, RunError, UsageError
from ctpipe.words import Device

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks in flight per thread: enough that no worker waits, few enough that the scheduler's graph stays small.
IN_FLIGHT = 4
# It is looked so often, in seconds without news, whether a worker lives that may have the tasks.
LOOK_S = 5.0
# So often in vain, and no nanny brings one back any more.
LOOKS = 24


@dataclass(frozen=True)
class _Call:
    """A task as one opaque thing: Dask would walk through every field of an argument in search of futures.

    What a failed task was given must not show: Dask logs the call, and a path may name a patient. Dask logs what a task
    raises as well: an unforeseen error leaves the worker as its kind and place, since its text may quote a file.
    key: of a task on a cluster, which tells its slabs under it.
    """

    function: Callable[[Any], Any]
    task: Any = field(repr=False)
    key: str = ""

    def __call__(self) -> Any:
        try:
            with ExitStack() as stack:
                if self.key:
                    stack.enter_context(telling(tell_from_worker(self.key)))
                return self.function(self.task)
        except (CtpipeError, MemoryError):
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
            bug = RunError(f"a task failed with {type(error).__name__} ({where}), which is a bug in ctpipe",
                           "report this line; what is finished is kept")  # fmt: skip
        raise bug  # out here it has no __cause__ and no __context__


@dataclass(frozen=True)
class Done:
    """A task that ended. tag: what it was submitted with; error: what it raised instead of giving a result.

    lost: the workers that had it went down, one after the other; it need not have been its own fault.
    """

    tag: Any
    result: Any = None
    error: CtpipeError | MemoryError | None = None
    lost: bool = False


@dataclass(frozen=True)
class _InFlight:
    call: _Call
    tag: Any
    future: Future | None = None  # None: it runs in this process, when its turn comes


class Slots:
    """So many tasks in flight that no worker waits; a context manager that leaves none behind when it is left early.

    client None: tasks run in this process, one at a time, on Dask's synchronous scheduler, when `next` is called.
    on_slab: called in the thread that calls `next`, with the tag of a task and the slab that it tells
        (`ctpipe.cluster.tell_slab`).
    device: the kind of worker that the tasks are for; None: any. UsageError where a cluster has none of it.
    """

    def __init__(self, client: Client | None, on_slab: Callable[[Any, int], None] | None = None,
                 device: Device | None = None) -> None:
        self.client, self.on_slab, self.device = client, on_slab, device
        self.pending: dict[str, _InFlight] = {}
        self._place = Place(at_once=1) if client is None else place_for(client, device)
        self._size = 1 if client is None else IN_FLIGHT * max(1, self._place.at_once)
        self._prefix, self._numbers = f"ctpipe-{uuid4().hex}", count()
        # what came: (key, None) of a task that ended, (key, slab) of one that tells
        self._news: SimpleQueue[tuple[str, int | None]] = SimpleQueue()
        self._hearing = ExitStack()
        self._looks = 0
        self._watch = None if client is None else Watch(client)

    def __enter__(self) -> Self:
        if self.client is not None and self.on_slab is not None:
            put = self._news.put
            self._hearing.enter_context(hearing(self.client, self._prefix, lambda *told: put(told)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # also for Prefect's TerminationSignal: nothing may go on behind a cancelled flow
        self.cancel(lambda _: True)
        self._hearing.close()

    @property
    def free(self) -> int:
        """Tasks that may be submitted now."""
        return max(0, self._size - len(self.pending))

    def submit(self, function: Callable[[Any], Any], task: Any, tag: Any) -> None:
        """`function(task)`, in a worker; what comes of it is given back by `next` under `tag`."""
        key = f"{self._prefix}-{function.__name__}-{next(self._numbers)}"  # the name is for those who watch Dask
        if self.client is None:
            self.pending[key] = _InFlight(_Call(function, task), tag)
            return
        call = _Call(function, task, key if self.on_slab else "")
        future = self.client.submit(call, key=key, pure=False, retries=1, **self._place.arguments)
        self.pending[key] = _InFlight(call, tag, future)
        future.add_done_callback(lambda ended: self._news.put((ended.key, None)))

    def next(self) -> Done:
        """The next task that ends; there must be one in flight. RunError where scheduler or all workers are gone."""
        if self._watch is None:
            return self._run_here(*next(iter(self.pending.items())))
        while True:
            try:
                key, slab = self._news.get(timeout=LOOK_S)
            except Empty:
                self._watch.look(len(self.pending))
                if self._place.workers:
                    self._place_again()
                continue
            self._watch.news()
            flight = self.pending.get(key)
            if flight is None:  # cancelled
                continue
            if slab is None:
                del self.pending[key]
                return _ended(flight)
            if self.on_slab:
                self.on_slab(flight.tag, slab)

    def cancel(self, chosen: Callable[[Any], bool]) -> None:
        """Give up the tasks whose tag is chosen: none of them begins, and what is under way comes to nothing."""
        keys = [key for key, flight in self.pending.items() if chosen(flight.tag)]
        futures = [self.pending.pop(key).future for key in keys]
        if self.client is not None and futures:
            self.client.cancel(futures, force=True)

    def _place_again(self) -> None:
        """A worker that its nanny starts again has another address: tasks bound to the old ones would wait for ever."""
        assert self.client is not None
        if set(self._place.workers) & set(self.client.scheduler_info()["workers"]):
            self._looks = 0
            return
        self._looks += 1
        try:
            self._place = place_for(self.client, self.device)
        except UsageError:
            if self._looks < LOOKS:  # a nanny needs some seconds
                return
            raise
        waiting = list(self.pending.values())
        self.cancel(lambda _: True)
        for flight in waiting:
            self.submit(flight.call.function, flight.call.task, flight.tag)

    def _run_here(self, key: str, flight: _InFlight) -> Done:
        del self.pending[key]
        with telling(lambda slab: self.on_slab(flight.tag, slab) if self.on_slab else None):
            call = dask.delayed(flight.call, pure=False, traverse=False)
            try:
                return Done(flight.tag, call().compute(scheduler="synchronous"))
            except (CtpipeError, MemoryError) as error:
                return Done(flight.tag, error=error)


def _ended(flight: _InFlight) -> Done:
    assert flight.future is not None
    try:
        return Done(flight.tag, flight.future.result())
    except KilledWorker:
        lost = RunError("a task ended its worker several times",
                        "give the workers more memory, then run again: finished slabs are kept")  # fmt: skip
        return Done(flight.tag, error=lost, lost=True)
    except (CtpipeError, MemoryError) as error:
        return Done(flight.tag, error=error)
    except CancelledError as error:
        raise RunError("the Dask scheduler is gone, or gave the work up",
                       "see its log, then run the same line again: finished slabs are kept") from error
    finally:
        flight.future.release()  # an error's traceback would keep it, and with it its task on the scheduler


def run_tasks(
    client: Client | None,
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
) -> Iterator[tuple[Task, Result]]:
    """(task, result) in order of completion; tasks are submitted as slots free up.

    What a task raises is raised here, after every other future was cancelled; a worker lost too often is a RunError.
    """
    queue = iter(tasks)
    with Slots(client) as slots:

        def fill() -> None:
            while slots.free:
                for task in queue:
                    slots.submit(function, task, task)
                    break
                else:
                    return

        fill()
        while slots.pending:
            done = slots.next()
            if done.error is not None:
                raise done.error
            if client is not None:  # here, a task is asked for only when the one before it was taken
                fill()
            yield done.tag, done.result
            fill()
