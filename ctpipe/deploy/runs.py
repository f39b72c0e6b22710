"""`ctpipe deploy run FLOW`: find the one deployment of a flow, start a run of it, and wait for its end if asked.

Prefect's own command wants `<flow>/<deployment>`; the bare name of a flow will do here where it can mean only one.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ctpipe.deploy.deployments import worker_line
from ctpipe.deploy.server import connected
from ctpipe.errors import NotThereError, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

_POLL_SECONDS = 1.0
_DEFAULT = "local"  # the deployment that a bare flow name means where a flow has several


def run(
    flow: str, parameters: dict[str, Any], watch: bool = False, note: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Start a run of `flow` ("ingest", or "ingest/cluster") and give back how it stands.

    watch: wait for the end of the run; note is called with each new state and with what the run waits for.
    Gives {"flow_run", "name", "deployment", "state", "type", "message", "command", "start_worker",
    "exit_code"}; command is the same request for Prefect's own command line; start_worker is the line to type when no
    worker is there to take the run, else None; exit_code is 0 for Completed (or, unwatched, for a run that was made)
    and 3 for anything else, a run of which a part was refused included.
    Raises NotThereError (no such deployment), UsageError (server, or parameters that the flow does not take).
    """
    tell = note or (lambda _text: None)
    with connected() as client:
        deployment, name = _find(client, flow)
        _refuse_unknown(deployment, name, parameters)
        flow_run = _create(client, deployment, name, parameters)
        command = _command(name, parameters)
        tell(command)
        pool = deployment.work_pool_name
        no_worker = worker_line(pool) if pool and not online_workers(client, pool) else None
        if no_worker:
            tell(f"the run waits for a worker: {no_worker}")
        if watch:
            flow_run = _wait(client, flow_run.id, tell)
    state = flow_run.state
    good = state is not None and (state.name == "Completed" or not watch)
    return {
        "flow_run": str(flow_run.id),
        "name": flow_run.name,
        "deployment": name,
        **state_of(flow_run),
        "command": command,
        "start_worker": no_worker,
        "exit_code": 0 if good else 3,
    }


def state_of(flow_run: FlowRun) -> dict[str, Any]:
    """{"state", "type", "message"}: Prefect's name of the state, its type, and what the flow says about it."""
    state = flow_run.state
    if state is None:
        return {"state": None, "type": None, "message": None}
    return {"state": state.name, "type": state.type.value, "message": state.message}


def _find(client: SyncPrefectClient, flow: str) -> tuple[DeploymentResponse, str]:
    """(deployment, its full name) that `flow` means."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    flow_name, _, wanted = flow.partition("/")
    found = client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])))
    names = sorted(f"{flow_name}/{deployment.name}" for deployment in found)
    if not found:
        raise NotThereError(f"the server has no deployment of flow {flow_name!r}", "make them with `ctpipe deploy up`")
    if not wanted and len(found) > 1:
        wanted = _DEFAULT
    picked = [deployment for deployment in found if deployment.name == wanted or not wanted]
    if len(picked) != 1:
        raise NotThereError(f"{flow!r} names no one deployment", f"name one of: {', '.join(names)}")
    return picked[0], f"{flow_name}/{picked[0].name}"


def _refuse_unknown(deployment: DeploymentResponse, name: str, parameters: dict[str, Any]) -> None:
    """The server checks values but lets unknown names pass, and the run would fail only later."""
    known = (deployment.parameter_openapi_schema or {}).get("properties", {})
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise UsageError(f"{name} takes no parameter {', '.join(unknown)}", f"it takes: {', '.join(known)}")


def _create(
    client: SyncPrefectClient, deployment: DeploymentResponse, name: str, parameters: dict[str, Any]
) -> FlowRun:
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (409, 422):
            raise
        why = str(error.response.json().get("detail", "")).removeprefix("Error creating flow run: ")
        cure = "paths are absolute, series and runs are digests, patients are pseudonyms as `ctpipe ls` shows them"
        raise UsageError(f"{name} was not started: {why}", cure) from None


def _command(name: str, parameters: dict[str, Any]) -> str:
    pairs = [f"{key}={json.dumps(value)}" for key, value in parameters.items()]
    return " ".join(["prefect deployment run", shlex.quote(name), *(f"--param {shlex.quote(pair)}" for pair in pairs)])


def online_workers(client: SyncPrefectClient, pool: str) -> list[str]:
    """Names of the workers that take runs of a pool now."""
    return [
        worker.name
        for worker in client.read_workers_for_work_pool(pool)
        if worker.status is not None and worker.status.value == "ONLINE"
    ]


def _wait(client: SyncPrefectClient, flow_run: UUID, tell: Callable[[str], None]) -> FlowRun:
    seen = None
    while True:
        now = client.read_flow_run(flow_run)
        if now.state is not None and now.state.name != seen:
            seen = now.state.name
            tell(f"{now.name}: {seen}" + (f" ({now.state.message})" if now.state.message else ""))
        if now.state is not None and now.state.is_final():
            return now
        time.sleep(_POLL_SECONDS)
