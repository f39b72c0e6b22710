"""What every stage of a flow shares: its progress artifact, errors that are safe to show, and the state of the run.

Prefect keeps messages, logs and tracebacks in its database. A `CtpipeError` never holds a value from a DICOM file, so
its line may be kept; any other exception may, so only its type and the lines of code it came through are kept.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from time import monotonic
from typing import TypeVar
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException
from prefect.states import Completed, Failed, State

from ctpipe.errors import CtpipeError, RunError

Result = TypeVar("Result")

# An update is a request to the server and a row in its database: 20 ms each, so not one per slab.
SECONDS_BETWEEN_UPDATES = 2.0
# Name of a state of type COMPLETED in which a part was refused or failed; `ctpipe deploy run` then exits 3.
PARTIAL = "Partial"


class ProgressArtifact:
    """The progress of one flow run in Prefect; called as progress(stage, done, total), as the pipeline does.

    Created at the first call, updated at most every `SECONDS_BETWEEN_UPDATES` and when a stage is complete.
    A server that does not answer never stops the work: the artifact is then left as it is.
    """

    def __init__(self, flow: str) -> None:
        self.flow = flow
        self._artifact: UUID | None = None
        self._next = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if monotonic() < self._next and done < total:
            return
        self._next = monotonic() + SECONDS_BETWEEN_UPDATES
        percent = 100.0 * done / total if total else 0.0
        self.show(percent, f"{stage}: {done} of {total}")

    def show(self, percent: float, text: str) -> None:
        try:
            if self._artifact is None:
                made = create_progress_artifact(progress=percent, key=f"{self.flow}-progress", description=text)
                self._artifact = made  # type: ignore[assignment]  # Prefect's type says it may be a coroutine
            else:
                update_progress_artifact(self._artifact, progress=percent, description=text)
        except (PrefectException, httpx.HTTPError) as error:
            get_run_logger().warning("progress is not shown for now: %s", type(error).__name__)


def run_stage(flow: str, call: Callable[[ProgressArtifact], Result]) -> Result:
    """What `call` gives: the one call of a stage, with a progress artifact. Only errors that are safe to show leave it.

    Cancellation (Prefect's TerminationSignal) and ctrl-C are no `Exception`: they pass through the pipeline, which
    cancels its Dask futures and gives back its leases on the way, and through here.
    Raises the pipeline's CtpipeError without what caused it; RunError in place of anything else.
    """
    try:
        return call(ProgressArtifact(flow))
    except CtpipeError as error:
        problem = type(error)(error.problem, error.cure)
    except Exception as error:
        _log_where(error)
        problem = RunError(
            f"the {flow} stage failed with {type(error).__name__}, which is a bug in ctpipe",
            f"run `ctpipe {flow}` on the same input to see it in full; only the lines of code are in this log",
        )
    raise problem  # out here it has no __cause__ and no __context__: nothing of the first error is logged


def _log_where(error: BaseException) -> None:
    frames = traceback.extract_tb(error.__traceback__)
    lines = "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    get_run_logger().error("%s (its text is not logged: it may hold text from a file)\n%s", type(error).__name__, lines)


def outcome(done: int, failed: int, message: str) -> State[None]:
    """The state of a finished run: Completed; Partial where something was refused; Failed where nothing was done."""
    if not done:
        return Failed(message=message)
    return Completed(name=PARTIAL if failed else None, message=message)
