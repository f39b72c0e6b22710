"""deploy/prefect.yaml: the one declaration of the deployments, and its copy in the wheel."""

from __future__ import annotations

import importlib
from pathlib import Path

from ctpipe.deploy import DEPLOYMENTS, declared, lines

REPOSITORY = Path(__file__).parents[2]


def test_the_wheel_holds_the_repositorys_declaration():
    assert DEPLOYMENTS.read_bytes() == (REPOSITORY / "deploy" / "prefect.yaml").read_bytes()


def test_every_entrypoint_is_a_flow_of_its_own_name():
    names = [deployment.name for deployment in declared()]
    flows = ["ingest", "train", "infer", "post", "evaluate", "patches", "export"]
    assert names == [f"{flow}/local" for flow in flows]
    for deployment in declared():
        module, _, function = deployment.entrypoint.rpartition(".")
        assert getattr(importlib.import_module(module), function).name == deployment.name.split("/")[0]


def test_a_run_is_told_in_lines():
    told = lines({"flow_run": "1", "name": "calm-owl", "deployment": "ingest/local", "state": "Partial",
                  "type": "COMPLETED", "message": "1 accept, 1 reject", "command": "the line",
                  "start_worker": None, "exit_code": 3})  # fmt: skip
    assert told == ["the line", "calm-owl: Partial (1 accept, 1 reject)"]


def test_a_run_that_nobody_takes_says_how_to_start_a_worker():
    told = lines({"flow_run": "1", "name": "calm-owl", "deployment": "ingest/local", "state": "Scheduled",
                  "type": "SCHEDULED", "message": None, "command": "c", "start_worker": "prefect worker start",
                  "exit_code": 0})  # fmt: skip
    assert told[-1] == "no worker was there to take it: prefect worker start"


def test_what_is_declared_but_not_deployed_is_told():
    told = lines({"deployments": [], "pools": {}, "runs": [], "missing": ["ingest/local"]})
    assert told == ["not deployed: ingest/local; cure: ctpipe deploy up"]
