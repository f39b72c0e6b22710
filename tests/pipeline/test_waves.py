"""Waves: several volumes in flight, each a generator of tasks; what fails, what is told, what is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from ctpipe.cluster import tell_slab
from ctpipe.errors import BudgetError, RunError
from ctpipe.pipeline.stages import SlabCounter
from ctpipe.pipeline.waves import Volume, Wave, Work, run_volumes


@contextmanager
def cluster_of(n_workers: int, threads_per_worker: int = 1, **more) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=threads_per_worker, processes=True, host="127.0.0.1",
                     memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50, **more) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client


@pytest.fixture(scope="module")
def workers() -> Iterator[Client]:
    with cluster_of(2) as client:
        yield client


@pytest.fixture(params=["here", "workers"])
def client(request: pytest.FixtureRequest) -> Client | None:
    return None if request.param == "here" else request.getfixturevalue("workers")


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.lines.append((done, total))

    @property
    def last(self) -> int:
        return self.lines[-1][0]


def counter(total: int, told: Told | None = None) -> SlabCounter:
    return SlabCounter("test", told, total)


def double(number: int) -> int:
    if number < 0:
        raise RunError("a negative number", "give another")
    return 2 * number


def two_waves(numbers: list[int]) -> Work[int]:
    first = yield Wave(double, numbers)
    second = yield Wave(double, [sum(first)] * len(first))
    return sum(second)


def volume(name: str, numbers: list[int], log: list[str] | None = None) -> Volume[int]:
    def begin() -> Work[int]:
        if log is not None:
            log.append(f"open {name}")
        try:
            return (yield from two_waves(numbers))
        finally:
            if log is not None:
                log.append(f"close {name}")

    return Volume(name, begin)


def test_waves_of_a_volume_follow_each_other_and_results_keep_the_order_of_the_volumes(client: Client | None) -> None:
    told = Told()
    volumes = [volume(f"v{n}", list(range(n + 1))) for n in range(6)]
    done, failed = run_volumes(client, volumes, counter(42, told))
    assert (list(done), failed) == ([f"v{n}" for n in range(6)], {})
    assert done == {f"v{n}": 2 * (n + 1) * n * (n + 1) for n in range(6)}
    assert told.last == 42
    assert [a for a, _ in told.lines] == sorted(a for a, _ in told.lines)


def test_a_volume_that_fails_is_closed_and_the_others_go_on(client: Client | None) -> None:
    log: list[str] = []
    volumes = [volume("a", [1]), volume("b", [1, -1, 2, 3, 4], log), volume("c", [2])]
    done, failed = run_volumes(client, volumes, counter(0))
    assert done == {"a": 4, "c": 8}
    assert failed == {"b": "a negative number; cure: give another"}
    assert log == ["open b", "close b"]


def test_a_volume_whose_work_does_not_begin_fails_alone(client: Client | None) -> None:
    def rotten() -> Work[int]:
        raise RunError("it is rotten", "mend it")

    done, failed = run_volumes(client, [Volume("a", rotten), volume("b", [1])], counter(0))
    assert (done, failed) == ({"b": 4}, {"a": "it is rotten; cure: mend it"})


def no_room(number: int) -> int:
    raise BudgetError("the disk is full", "free some")


def test_an_error_of_exit_code_4_stops_all_and_leaves_nothing_open(client: Client | None) -> None:
    log: list[str] = []

    def full() -> Work[int]:
        yield Wave(no_room, [1])
        return 0

    volumes = [volume("a", [1], log), Volume("b", full), *(volume(f"c{n}", [1, 2, 3], log) for n in range(50))]
    with pytest.raises(BudgetError, match="the disk is full"):
        run_volumes(client, volumes, counter(0))
    opened = [line for line in log if line.startswith("open")]
    assert len(opened) == len(log) / 2
    assert len(opened) < 51  # and not all were opened
    if client is not None:
        _wait_until(lambda: not client.processing() or not any(client.processing().values()))
        assert not client.futures


def _wait_until(what, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def wait_for(file: Path | str) -> str:
    """Ends when `file` is there."""
    until = time.monotonic() + 30
    while not Path(file).exists():
        if time.monotonic() > until:
            raise RunError("nobody came", "look why")
        time.sleep(0.01)
    return str(file)


def touch(file: Path) -> str:
    Path(file).touch()
    return str(file)


def test_tasks_of_the_next_volumes_run_while_one_still_waits(workers: Client, tmp_path: Path) -> None:
    """The last task of a volume leaves the other worker free: it works on the volumes behind."""

    def slow() -> Work[str]:
        return (yield Wave(wait_for, [tmp_path / "c"]))[0]

    def quick(name: str) -> Work[str]:
        return (yield Wave(touch, [tmp_path / name]))[0]

    volumes = [Volume("a", slow), Volume("b", lambda: quick("b")), Volume("c", lambda: quick("c"))]
    done, failed = run_volumes(workers, volumes, counter(3))
    assert (list(done), failed) == (["a", "b", "c"], {})


def test_volumes_are_opened_in_order_and_only_as_many_as_keep_the_workers_busy(
    workers: Client, tmp_path: Path
) -> None:
    opened: list[int] = []
    most: list[int] = []

    def begin(number: int) -> Work[int]:
        opened.append(number)
        most.append(len(opened) - len(ended))
        yield Wave(double, [number, number])
        ended.append(number)
        return number

    ended: list[int] = []
    run_volumes(workers, [Volume(str(n), lambda n=n: begin(n)) for n in range(40)], counter(80))
    assert opened == list(range(40))
    assert 2 <= max(most) <= 9  # 8 slots


def three_slabs(folder: Path) -> int:
    """Tells two slabs, waits until that was heard, ends."""
    for slab in (0, 1):
        tell_slab(slab)
        tell_slab(slab)  # said twice, as by a task that is run twice: counted once
    wait_for(folder / "heard")
    return 3


def test_slabs_are_told_from_inside_a_long_task(client: Client | None, tmp_path: Path) -> None:
    class Heard(Told):
        def __call__(self, stage: str, done: int, total: int) -> None:
            super().__call__(stage, done, total)
            if done == 2:
                (tmp_path / "heard").touch()

    told = Heard()

    def stream() -> Work[int]:
        facts = yield Wave(double, [1], slabs=[0])
        return facts[0] + (yield Wave(three_slabs, [tmp_path], slabs=[3]))[0]

    done, failed = run_volumes(client, [Volume("a", stream)], counter(3, told))
    assert (done, failed) == ({"a": 5}, {})
    assert told.lines == [(1, 3), (2, 3), (3, 3)]


def short_of_memory(number: int) -> int:
    tell_slab(0)
    if number > 4:
        raise MemoryError
    return number


def test_a_work_may_go_on_after_a_wave_that_failed(client: Client | None) -> None:
    told = Told()

    def halving() -> Work[list[int]]:
        number = 16
        while True:
            try:
                return (yield Wave(short_of_memory, [1, number, 2]))
            except MemoryError:
                number //= 2

    done, failed = run_volumes(client, [Volume("a", halving), volume("b", [1])], counter(5, told))
    assert (done, failed) == ({"a": [1, 4, 2], "b": 4}, {})
    assert told.last == 5


def poison(number: int) -> int:
    """13 takes its worker down, once its neighbours have begun; they take longer."""
    time.sleep(0.3 if number == 13 else 0.6)
    if number == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number


def test_a_task_that_kills_its_workers_fails_its_own_volume_only() -> None:
    """RELIABILITY C3: the tasks that shared a worker with it are tried again, and all other volumes are done."""

    def work(numbers: list[int]) -> Work[int]:
        return sum((yield Wave(poison, numbers)))

    numbers = {"a": [1], "b": [2, 13], "c": [6, 7], "d": [8, 9]}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster_of(1, threads_per_worker=4) as client,
    ):
        volumes = [Volume(name, lambda given=given: work(given)) for name, given in numbers.items()]
        done, failed = run_volumes(client, volumes, counter(12))
    assert done == {"a": 1, "c": 13, "d": 17}
    assert list(failed) == ["b"]
    assert "ended its worker" in failed["b"]


def burn(cpu_s: float) -> int:
    """Works for so much time of the processor, however long that takes; gives the process."""
    until = time.process_time() + cpu_s
    while time.process_time() < until:
        pass
    return os.getpid()


def test_a_slow_worker_costs_its_share() -> None:
    """RELIABILITY C8: one that runs a tenth of the time does about a tenth of the tasks; the others wait for none."""
    tasks = 40

    def work() -> Work[list[int]]:
        return (yield Wave(burn, [0.05] * (tasks // 4)))

    with cluster_of(2) as client:
        slow, fast = client.run(os.getpid).values()
        over = threading.Event()

        def slowed() -> None:
            while not over.is_set():
                os.kill(slow, signal.SIGSTOP)
                time.sleep(0.09)
                os.kill(slow, signal.SIGCONT)
                time.sleep(0.01)

        brake = threading.Thread(target=slowed)
        brake.start()
        try:
            done, failed = run_volumes(client, [Volume(name, work) for name in "abcd"], counter(tasks))
        finally:
            over.set()
            brake.join()
    pids = [pid for found in done.values() for pid in found]
    assert not failed
    assert len(pids) == tasks
    assert pids.count(slow) < tasks // 4
    assert pids.count(fast) + pids.count(slow) == tasks
