"""Which workers tasks go to: those of a GPU run to workers with a GPU, those of a CPU run to the others.

A worker has a GPU where it was started with the Dask resource GPU (`dask worker ... --resources GPU=1`): as many tasks
as it has of them run on it at once. It is asked for at `submit`: annotations of arrays vanish when graphs are fused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed import Client

from ctpipe.errors import UsageError
from ctpipe.words import Device

GPU = "GPU"


@dataclass(frozen=True)
class Place:
    """at_once: tasks that can run at the same time. gpu: each takes one. workers: only these; empty: any that fits."""

    at_once: int
    gpu: bool = False
    workers: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of `Client.submit`."""
        if self.gpu:
            return {"resources": {GPU: 1}}
        return {"workers": list(self.workers), "allow_other_workers": False} if self.workers else {}


def place_for(client: Client, device: Device | None) -> Place:
    """Where tasks of a run on `device` may run; None: anywhere.

    UsageError where the cluster has workers and none of them fits: another kind of processor gives other last bits.
    """
    workers = client.scheduler_info()["workers"]
    threads = {address: int(worker["nthreads"]) for address, worker in workers.items()}
    cards = {address: int(worker.get("resources", {}).get(GPU, 0)) for address, worker in workers.items()}
    if device is Device.CUDA:
        if workers and not any(cards.values()):
            raise UsageError("no worker of this cluster has a GPU",
                             "start them with `dask worker ADDRESS --resources GPU=1`, or give --device cpu")
        return Place(sum(cards.values()), gpu=True)
    if device is None or not any(cards.values()):
        return Place(sum(threads.values()))
    plain = tuple(address for address, n in cards.items() if not n)
    if not plain:
        raise UsageError("every worker of this cluster is one with a GPU",
                         "give --device cuda, or start a worker without --resources")
    return Place(sum(threads[address] for address in plain), workers=plain)
