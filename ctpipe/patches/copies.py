"""Copies of a table's partitions that stay copies.

Dask's memory manager drops every copy that no task is about to read, within two seconds of `Client.replicate`. This
policy takes the place of that one on the scheduler: partitions that are to have n copies keep them, and get a new one
after a worker is lost; everything else is treated as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed import Scheduler
from distributed.active_memory_manager import ReduceReplicas, Suggestion


class KeepCopies(ReduceReplicas):
    """ReduceReplicas, but for the keys in `wanted` ({key: copies})."""

    def __init__(self) -> None:
        self.wanted: dict[Any, int] = {}

    def run(self) -> Any:
        tasks = self.manager.scheduler.tasks
        self.wanted = {key: n for key, n in self.wanted.items() if key in tasks}
        for suggestion in super().run():
            task = suggestion.ts
            if suggestion.op != "drop" or len(task.who_has or ()) > self.wanted.get(task.key, 1):
                yield suggestion
        workers = len(self.manager.scheduler.running)
        for key, n in self.wanted.items():
            task = tasks[key]
            pending = self.manager.pending.get(task, ((), ()))
            for _ in range(min(n, workers) - len(task.who_has or ()) - len(pending[0]) if task.who_has else 0):
                yield Suggestion("replicate", task)


def keep_copies(keys: Sequence[Any], n: int, dask_scheduler: Scheduler) -> None:
    """Runs on the scheduler: `keys` are to have `n` copies from now on."""
    manager = dask_scheduler.extensions["amm"]
    own = next((policy for policy in manager.policies if isinstance(policy, KeepCopies)), None)
    if own is None:
        own = KeepCopies()
        for policy in [policy for policy in manager.policies if type(policy) is ReduceReplicas]:
            manager.policies.discard(policy)
        manager.add_policy(own)
    own.wanted |= dict.fromkeys(keys, n)
