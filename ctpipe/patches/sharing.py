"""Tables in the memory of a cluster: held, copied, published under a name, opened by another client."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches import running
from ctpipe.patches.copies import keep_copies
from ctpipe.patches.slab_cache import SLABS, SlabBudget, residency
from ctpipe.patches.table import PatchTable

if TYPE_CHECKING:
    from distributed import Client

# Datasets and metadata of ours carry this before their name; a cluster may hold others'.
_PREFIX = "ctpipe-table:"
_METADATA = "ctpipe-tables"


def persisted(table: PatchTable) -> PatchTable:
    """See `PatchTable.persist`: one task a partition; a lost one is made again from the store."""
    if table.held is not None and table.done == len(table.spec.steps):
        return table
    calls = table._calls(running.the_rows)
    if table.client is None:
        held: tuple[Any, ...] = tuple(running.mapped(None, calls, table.held, "patch-rows"))
    else:
        held = tuple(running.submit(table.client, calls, table.held, "patch-rows"))
    return replace(table, held=held, done=len(table.spec.steps), given_parts=table.parts, found=table.empty)


def replicated(table: PatchTable, n: int) -> PatchTable:
    """See `PatchTable.replicate`."""
    from distributed import wait
    client = _cluster(table.client)
    workers = len(client.scheduler_info(n_workers=-1)["workers"])
    if not 1 <= n <= workers:
        raise UsageError(f"{n} copies cannot be held by {workers} workers", "start more workers, or ask for fewer")
    table = table.persist()
    held = list(table.held or ())
    wait(held)
    client.run_on_scheduler(keep_copies, [future.key for future in held], n)
    client.replicate(held, n=n)
    return table


def published(table: PatchTable, name: str) -> PatchTable:
    """See `PatchTable.publish`."""
    from distributed import wait
    client = _cluster(table.client)
    if _PREFIX + name in client.list_datasets():
        raise UsageError(f"a table {name!r} is published already", "choose another name, or drop_table it")
    table = table.persist()
    wait(list(table.held or ()))
    plan = replace(table, client=None, held=None, name=name)
    facts = {"name": name, "owner": getpass.getuser(), "rows": sum(table.sizes), "row_bytes": table.row_bytes,
             "bytes": sum(table.sizes) * table.row_bytes, "partitions": len(table.parts),
             "created": datetime.now(UTC).isoformat(timespec="seconds")}
    client.publish_dataset({"plan": _Plan(plan), "parts": list(table.held or ())}, name=_PREFIX + name)
    client.set_metadata([_METADATA, name], facts)
    return replace(table, name=name)


def open_table(name: str, client: Client) -> PatchTable:
    """The table that some client published under `name`; NotThereError names those that are."""
    try:
        found = client.get_dataset(_PREFIX + name)
    except KeyError:
        there = ", ".join(one["name"] for one in published_tables(client)) or "none"
        raise NotThereError(f"no table {name!r} is published on this cluster", f"published are: {there}") from None
    return replace(found["plan"].table, client=client, held=tuple(found["parts"]))


def published_tables(client: Client) -> list[dict[str, Any]]:
    """Name, owner, rows, bytes, partitions and time of every published table."""
    names = [name.removeprefix(_PREFIX) for name in client.list_datasets() if str(name).startswith(_PREFIX)]
    facts: Mapping[str, Any] = client.get_metadata([_METADATA], default={})
    return [dict(facts.get(name, {"name": name})) for name in sorted(names)]


def drop_table(name: str, client: Client) -> None:
    """Forget a published table; its memory is free once no client holds it."""
    if _PREFIX + name not in client.list_datasets():
        raise NotThereError(f"no table {name!r} is published on this cluster", "published_tables names them")
    client.unpublish_dataset(_PREFIX + name)


def set_budget(client: Client | None, bytes_per_worker: int) -> None:
    """Bytes of slabs for every worker, also those to come; without a cluster for this process."""
    if client is None:
        SLABS.set_budget(bytes_per_worker)
        return
    if bytes_per_worker < 0:
        raise UsageError(f"a budget of {bytes_per_worker} bytes cannot be", "give bytes, 0 for nothing")
    client.register_plugin(SlabBudget(bytes_per_worker))


def resident(client: Client | None) -> dict[str, dict[str, int]]:
    """{worker address, or "here": what it holds}."""
    return {"here": residency()} if client is None else dict(client.run(residency))


class _Plan:
    """A table without its client, as one thing that Dask does not look into."""

    def __init__(self, table: PatchTable) -> None:
        self.table = table


def _cluster(client: Client | None) -> Client:
    if client is None:
        raise RunError("the table has no cluster to hold it", "give patch_table a Dask client")
    return client
