"""Watch: no run waits for ever for a cluster that does not answer (RELIABILITY C5)."""

from __future__ import annotations

import logging
import time
from typing import Any

from distributed import Client

from ctpipe.errors import RunError

# Seconds without a heartbeat of any worker, or without an answer of the scheduler, after which the run ends. Shorter
# than Dask's worker-ttl of 300 s, which takes one silent worker out of many and gives its tasks to the others.
SILENT_S = 120.0
# Workers live, and yet nothing ends: told so often, in seconds.
TELL_S = 600.0
# An answer of the scheduler is waited for so long, in seconds.
ANSWER_S = 10.0

_log = logging.getLogger(__name__)


class Watch:
    """What is heard of a cluster while a run waits for its tasks.

    Times of heartbeats are the scheduler's: they are compared with each other, never with the clock of this machine.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._heard: float | None = None  # the last heartbeat of any worker
        self._heard_at = self._news_at = time.monotonic()
        self._told = 0

    def news(self) -> None:
        """A task ended, or told of a slab."""
        self._heard_at = self._news_at = time.monotonic()
        self._told = 0

    def look(self, waiting: int) -> None:
        """Nothing came for a while; waiting: tasks. RunError where nobody is there who could do them.

        A cluster that never had a worker is waited for: its jobs may be in a queue.
        """
        now = time.monotonic()
        heard = self._heartbeat()
        if heard is not None and heard != self._heard:
            self._heard, self._heard_at = heard, now
        elif self._heard is not None and now - self._heard_at > SILENT_S:
            raise RunError(f"no worker of the Dask cluster has answered for {now - self._heard_at:.0f} s, {waiting} "
                           "task(s) wait", "see the logs of scheduler and workers, start workers, then run the same "
                           "line again: finished slabs are kept")  # fmt: skip
        silent = int((now - self._news_at) / TELL_S)
        if silent > self._told:
            self._told = silent
            _log.warning("nothing ended for %.0f s; at work: %s", now - self._news_at, self._at_work())

    def _heartbeat(self) -> float | None:
        """The scheduler's time of the last heartbeat of any worker; None where there is no worker or no answer."""
        workers = (self._ask("identity", n_workers=-1) or {}).get("workers", {})
        return max((float(worker["last_seen"]) for worker in workers.values()), default=None)

    def _at_work(self) -> str:
        """Workers and how many tasks each has."""
        told = self._ask("processing", workers=None)
        if told is None:
            return "unknown, the scheduler does not answer"
        return ", ".join(f"{address} {len(keys)}" for address, keys in sorted(told.items()) if keys) or "no worker"

    def _ask(self, what: str, **how: Any) -> dict[str, Any] | None:
        """The scheduler's answer; None where it gives none in ANSWER_S."""
        try:
            return self.client.sync(getattr(self.client.scheduler, what), callback_timeout=ANSWER_S, **how)
        except (TimeoutError, OSError):
            return None
