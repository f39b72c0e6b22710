"""`ctpipe deploy status`: the deployments on the server, who works for them, and their last runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctpipe.deploy.deployments import declared
from ctpipe.deploy.runs import online_workers, state_of
from ctpipe.deploy.server import connected

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun


def status(last: int = 10) -> dict[str, Any]:
    """How ctpipe's flows stand on the server. last: number of runs to list, newest first.

    Gives {"deployments": [{"name", "entrypoint", "pool", "paused"}], "pools": {name: [workers that are online]},
    "runs": [{"flow_run", "name", "deployment", "state", "type", "message", "created", "seconds"}], "missing": [declared
    deployments that the server lacks]}.
    """
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    ours = [deployment.name for deployment in declared()]
    of_ours = FlowFilter(name=FlowFilterName(any_=sorted({name.partition("/")[0] for name in ours})))
    with connected() as client:
        flows = {flow.id: flow.name for flow in client.read_flows(flow_filter=of_ours)}
        deployments = client.read_deployments(flow_filter=of_ours)
        full_name = {entry.id: f"{flows[entry.flow_id]}/{entry.name}" for entry in deployments}
        runs = client.read_flow_runs(flow_filter=of_ours, limit=last, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        pools = sorted({entry.work_pool_name for entry in deployments if entry.work_pool_name})
        workers = {pool: _workers(client, pool) for pool in pools}
    return {
        "deployments": [
            {"name": full_name[entry.id], "entrypoint": entry.entrypoint, "pool": entry.work_pool_name,
             "paused": entry.paused}
            for entry in sorted(deployments, key=lambda entry: full_name[entry.id])
        ],
        "pools": workers,
        "runs": [_run(entry, full_name) for entry in runs],
        "missing": sorted(set(ours) - set(full_name.values())),
    }  # fmt: skip


def _run(entry: FlowRun, full_name: dict[Any, str]) -> dict[str, Any]:
    return {
        "flow_run": str(entry.id),
        "name": entry.name,
        "deployment": full_name.get(entry.deployment_id),
        **state_of(entry),
        "created": entry.created.isoformat() if entry.created else None,
        "seconds": round(entry.total_run_time.total_seconds(), 1),
    }


def _workers(client: SyncPrefectClient, pool: str) -> list[str]:
    from prefect.exceptions import ObjectNotFound

    try:
        return online_workers(client, pool)
    except ObjectNotFound:  # the pool was deleted, its deployments were not
        return []
