"""Cluster: where work runs, and tasks in flight on it.

Dask is the only engine. A stage hands over plain functions and small picklable tasks, and takes back small results;
voxels never pass through the client or the scheduler.
"""

from ctpipe.cluster.connecting import client_for, workers_for
from ctpipe.cluster.slots import Done, Slots, run_tasks
from ctpipe.cluster.ticks import tell_slab

__all__ = ["Done", "Slots", "client_for", "run_tasks", "tell_slab", "workers_for"]
