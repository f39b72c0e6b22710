"""What `ctpipe deploy` prints for a person; the documents themselves are what --json prints."""

from __future__ import annotations

from typing import Any


def lines(document: dict[str, Any]) -> list[str]:
    """The lines for what `up`, `run` or `status` gave."""
    if "flow_run" in document:
        return _of_run(document)
    return _of_status(document) if "runs" in document else _of_up(document)


def _of_up(document: dict[str, Any]) -> list[str]:
    made = [f"{entry['name']}  ({entry['entrypoint']}, pool {entry['pool']})" for entry in document["deployments"]]
    return [*made, f"start a worker: {document['worker']}", "start a run:    ctpipe deploy run ingest --param …"]


def _of_run(document: dict[str, Any]) -> list[str]:
    told = [document["command"], f"{document['name']}: {_state(document)}"]
    if document["start_worker"]:
        told.append(f"no worker was there to take it: {document['start_worker']}")
    return told


def _of_status(document: dict[str, Any]) -> list[str]:
    told = [f"{entry['name']}  pool {entry['pool']}{', paused' if entry['paused'] else ''}"
            for entry in document["deployments"]]  # fmt: skip
    told += [f"not deployed: {name}; cure: ctpipe deploy up" for name in document["missing"]]
    told += [f"workers of {pool}: {', '.join(names) or 'none'}" for pool, names in document["pools"].items()]
    told += [f"{entry['created']}  {entry['deployment']}  {entry['name']}: {_state(entry)}, {entry['seconds']} s"
             for entry in document["runs"]]  # fmt: skip
    return told


def _state(document: dict[str, Any]) -> str:
    return document["state"] + (f" ({document['message']})" if document["message"] else "")
