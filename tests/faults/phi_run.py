"""Everything that a user can do with an input that names patients, in one process whose every log is kept.

Run as `python phi_run.py PLANTED.json OUT`; what each step prints is OUT/<step>.txt, all logs are in OUT/logs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ != "__main__":  # a worker process: logs only
    logging.basicConfig(level=logging.DEBUG)


class Steps:
    """Runs steps and keeps what each prints, the exit code with it."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self, name: str, step: Callable[[], object], codes: tuple[int, ...] = (0,)) -> None:
        with (self.out / f"{name}.txt").open("w") as file, contextlib.redirect_stdout(file):
            with contextlib.redirect_stderr(file):
                try:
                    code = step()
                except Exception:
                    traceback.print_exc()  # what an interactive user would see
                    code = -1
                print(f"exit code {code}")
        assert code in codes, (name, code, (self.out / f"{name}.txt").read_text()[-2000:])


@contextlib.contextmanager
def planted_bug(text: str) -> Iterator[None]:
    """An exception of no foreseen kind that quotes the file, in the middle of ingest."""
    from ctpipe.store import Store

    def fail(*_given: object, **_named: object) -> None:
        try:
            float(text)
        except ValueError as error:
            raise KeyError(text) from error

    whole, Store.volume_writer = Store.volume_writer, fail
    try:
        yield
    finally:
        Store.volume_writer = whole


def break_workers(backwards: str) -> None:
    """The same in a worker's task."""
    from ctpipe.store import GroupWriter

    def fail(*_given: object) -> None:
        raise ValueError(f"could not convert {backwards[::-1]}")

    GroupWriter.write_slab = fail


def prediction(store: str) -> str:
    """Commit labels that stand for a run; returns its key."""
    from ctpipe.store import LabelsMeta, open_store
    from ctpipe.words import LabelKind

    opened = open_store(store, mode="a")
    series = next(s for s in opened.values() if s.labels)
    truth = series.labels["truth"]
    writer = opened.labels_writer(series.id, LabelsMeta("beef01", LabelKind.PREDICTION, series.grid, truth.classes))
    with opened.lease(writer.target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(s, truth.read_planes(s.start, s.stop)) for s in writer.slabs], lease)
    return "beef01"


def main(planted: dict[str, Any], out: Path) -> None:
    from ctpipe.cli import main as ctpipe

    step, ct, masks = Steps(out), planted["ct"], planted["masks"]
    name = planted["needles"]["PatientName"]
    store, other = str(out / "store"), str(out / "store-of-the-flow")
    step("check", lambda: ctpipe(["check", ct]), (3,))
    step("check-json", lambda: ctpipe(["check", "--json", ct]), (3,))
    step("ingest", lambda: ctpipe(["ingest", ct, "--store", store]), (3,))
    labels = ["--labels", masks, "--classes", "liver=1"]
    step("ingest-labels-json", lambda: ctpipe(["ingest", ct, "--store", store, *labels, "--json"]), (3,))
    step("ingest-no-class", lambda: ctpipe(["ingest", ct, "--store", store, "--labels", masks, "--classes", "no=1"]),
         (2,))  # fmt: skip
    for verb in (["ls"], ["ls", "--json"], ["verify"], ["verify", "--json"], ["gc"]):
        step("-".join(verb), lambda verb=verb: ctpipe([verb[0], store, *verb[1:]]))
    run = prediction(store)
    page = str(out / "case.html")
    step("evaluate", lambda: ctpipe(["evaluate", store, "--run", run, "--html", page]))
    with planted_bug(name):
        step("bug", lambda: ctpipe(["ingest", ct, "--store", str(out / "store-of-the-bug")]), (1,))
    flow(step, out, planted, other)


def flow(step: Steps, out: Path, planted: dict[str, Any], store: str) -> None:
    """The flow on an ephemeral Prefect server, on a Dask cluster of two worker processes whose every log is kept."""
    from distributed import Client, LocalCluster

    from flows.ingest import ingest

    ct, masks, name = planted["ct"], planted["masks"], planted["needles"]["PatientName"]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
                     silence_logs=False, memory_limit=0) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        os.environ["CTPIPE_CLUSTER"] = cluster.scheduler_address
        step("flow", lambda: ingest(ct, store, [masks], "liver=1", return_state=True).name, ("Partial",))
        with planted_bug(name):
            step("flow-bug", lambda: ingest(ct, f"{store}-2", return_state=True).type.value, ("FAILED",))
        client.run(break_workers, name[::-1])  # backwards: Dask logs what `run` is given
        step("flow-worker-bug", lambda: ingest(ct, f"{store}-3", return_state=True).type.value, ("FAILED",))
        (out / "dask.txt").write_text(json.dumps(client.run_on_scheduler(all_that_dask_shows), default=str))
        (out / "dask-logs.txt").write_text(repr((client.get_scheduler_logs(), client.get_worker_logs(),
                                                 client.get_events())))  # fmt: skip
    del os.environ["CTPIPE_CLUSTER"]


def all_that_dask_shows(dask_scheduler: Any) -> dict[str, Any]:
    """Keys, names, stories and events: what the dashboard and the logs draw from."""
    return {
        "keys": [str(key) for key in dask_scheduler.tasks],
        "seen": sorted({str(event) for event in dask_scheduler.transition_log}),
        "prefixes": list(dask_scheduler.task_prefixes),
        "groups": list(dask_scheduler.task_groups),
        "events": [repr(event) for topic in dask_scheduler._broker._topics.values() for event in topic.events],
        "state": repr(dask_scheduler.__dict__.keys()),
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    handler = logging.FileHandler(folder / "debug.log")
    logging.basicConfig(level=logging.DEBUG, handlers=[handler])
    main(given, folder)
    print("done", flush=True)
