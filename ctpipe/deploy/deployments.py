"""The deployments that ctpipe declares, and `ctpipe deploy up`, which makes them on a server.

prefect.yaml decides. `up` lets Prefect's own `prefect deploy` read it, so that both ways end in the same deployments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ctpipe.deploy.server import connected, server_url
from ctpipe.errors import RunError

DEPLOYMENTS = Path(str(resources.files("ctpipe.deploy"))) / "prefect.yaml"
_POOL_TYPE = "process"
_SECONDS_TO_DEPLOY = 300


@dataclass(frozen=True)
class Deployment:
    """One deployment as prefect.yaml declares it. name: `<flow>/<deployment>`, as Prefect wants it."""

    name: str
    entrypoint: str
    pool: str


def declared(path: Path = DEPLOYMENTS) -> list[Deployment]:
    """The deployments of a prefect.yaml; a flow has the name of its function (a test holds that)."""
    import yaml  # comes with Prefect

    return [
        Deployment(f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}", entry["entrypoint"],
                   entry["work_pool"]["name"])
        for entry in yaml.safe_load(path.read_text())["deployments"]
    ]  # fmt: skip


def up() -> dict[str, Any]:
    """Make the work pools and all deployments on the server, or bring them up to date; from any folder.

    Gives {"deployments": [{"name", "entrypoint", "pool"}], "pools": {name: made now?}, "worker": the line that starts
    a worker}. Raises UsageError without a server, RunError when Prefect refuses a deployment.
    """
    wanted = declared()
    pools = _make_pools(sorted({deployment.pool for deployment in wanted}))
    _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS))
    return {
        "deployments": [asdict(deployment) for deployment in wanted],
        "pools": pools,
        "worker": worker_line(wanted[0].pool),
    }


def worker_line(pool: str) -> str:
    """The line that starts a worker. One run at a time: each run uses all cores of the machine."""
    return f"prefect worker start --pool {pool} --limit 1"


def _make_pools(names: list[str]) -> dict[str, bool]:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    made = {}
    with connected() as client:
        for name in names:
            try:
                client.read_work_pool(name)
                made[name] = False
            except ObjectNotFound:
                template = ProcessWorker.get_default_base_job_template()
                try:
                    client.create_work_pool(WorkPoolCreate(name=name, type=_POOL_TYPE, base_job_template=template))
                    made[name] = True
                except ObjectAlreadyExists:  # another `up` was quicker
                    made[name] = False
    return made


def _prefect(*arguments: str) -> None:
    """Run Prefect's own command line in this environment and folder. Raises RunError with its last line."""
    command = [sys.executable, "-m", "prefect", *arguments]
    environment = {**os.environ, "PREFECT_API_URL": server_url()}  # the very server that the pools were made on
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment,
                              timeout=_SECONDS_TO_DEPLOY, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RunError(f"`prefect deploy` did not end within {_SECONDS_TO_DEPLOY} s", "see the server's log") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise RunError(f"`prefect deploy` failed: {last[0].strip()}", f"run it by hand: {' '.join(command[1:])}")
