"""`ctpipe patches`: the grammar of patch tables and what each of its words does."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.cli import commands
from ctpipe.cli.progress import progress_lines
from ctpipe.cli.tables import print_json, print_table
from ctpipe.errors import UsageError

if TYPE_CHECKING:
    from ctpipe.patches import PatchTable

ACTIONS = ("build", "plan", "show", "query", "save", "ls")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add(verbs: Any, verb_of: Callable[..., Any], store: Callable[[Any], None], cluster: Callable[[Any], None],
        json: Callable[[Any], None]) -> None:
    """The command's grammar; `verb_of` and the rest are those of `ctpipe.cli.parser`."""
    verb = verb_of(verbs, "patches", "tables with a row for every window of a store", run, """
ctpipe patches plan S --workers 2 --memory 2G             what a table costs, before anything is computed
ctpipe patches build S --window 1,257,257 --stride 1,7,7  rows, bytes and groups
ctpipe patches build S --cluster tcp://127.0.0.1:8786 --publish liver --where "label == 'liver'"
ctpipe patches show S --out sheet.png --where "label == 'lesion'"
ctpipe patches query S --sql "SELECT patient, label, count(*) AS n FROM rows GROUP BY ALL ORDER BY ALL"
ctpipe patches save S --name liver --where "fraction_liver > 0.5"
ctpipe patches query S --table liver --sql "SELECT avg(fraction_liver) FROM rows"
ctpipe patches show S --source review --out corrected.png --where corrected
ctpipe patches ls S
""")  # fmt: skip
    verb.add_argument("action", choices=ACTIONS)
    store(verb)
    verb.add_argument("--table", metavar="NAME", help="a saved table of the store instead of windows of its volumes")
    verb.add_argument("--window", type=_lengths, default=(1, 257, 257), metavar="Z,Y,X",
                      help="voxels (default: 1,257,257)")  # fmt: skip
    verb.add_argument("--stride", type=_lengths, default=(1, 7, 7), metavar="Z,Y,X", help="voxels (default: 1,7,7)")
    verb.add_argument("--pad", choices=["edge", "constant"], default="edge", help="beyond the volume (default: edge)")
    verb.add_argument("--level", type=int, default=0, help="pyramid level (default: 0)")
    verb.add_argument("--series", nargs="+", metavar="ID", help="only these volumes")
    verb.add_argument("--labels", default="truth", metavar="NAME", help="label group (default: the newest truth)")
    verb.add_argument("--source", choices=["truth", "review", "best"], default="truth",
                      help="review: the newest review of each volume; best: the same, and --labels where there is none")
    verb.add_argument("--classes", nargs="+", metavar="NAME", help="these classes, numbered from 1 (default: all)")
    verb.add_argument("--statistics", action="store_true", help="also mean and deviation of HU, and the body flag")
    verb.add_argument("--lesions", nargs="+", default=[], metavar="CLASS",
                      help="number the components of these classes")  # fmt: skip
    verb.add_argument("--where", metavar="CONDITION", help="keep rows, e.g. \"label == 'liver' and hu_mean > 40\"")
    verb.add_argument("--sql", metavar="QUERY", help="for query: one SELECT over the table `rows`")
    verb.add_argument("--out", metavar="FILE", help="for show: the PNG; for query: a CSV instead of a table on stdout")
    verb.add_argument("-n", type=int, default=16, help="for show: how many rows (default: 16)")
    verb.add_argument("--seed", type=int, default=0, help="for show: which rows (default: 0)")
    verb.add_argument("--name", metavar="NAME", help="for save: the table becomes STORE/tables/NAME")
    verb.add_argument("--publish", metavar="NAME", help="for build: hold it in the cluster under this name")
    verb.add_argument("--workers", type=int, metavar="N", help="for plan: workers (default: those of the cluster)")
    verb.add_argument("--memory", type=_bytes, metavar="BYTES", help="for plan: memory of each, such as 2G")
    verb.add_argument("--slabs", type=_bytes, default=256 << 20, metavar="BYTES",
                      help="for plan: memory of each for pixels (default: 256M)")  # fmt: skip
    cluster(verb)
    json(verb)


def run(args: argparse.Namespace) -> int:
    """One of the actions."""
    return {"build": build, "plan": plan, "show": show, "query": query, "save": save, "ls": ls}[args.action](args)


def build(args: argparse.Namespace) -> int:
    """Rows, bytes and groups of a table; held in the cluster where it is published."""
    if args.publish and not args.cluster and not _environment_cluster():
        raise UsageError("a table is published on a cluster", "give --cluster tcp://HOST:PORT, or save the table")
    with progress_lines(), commands._client(args.cluster) as client:
        table = _table(args, client)
        if args.publish:
            table = table.publish(args.publish)
        counts = table.count("label")
        document = _facts(table, int(counts.sum())) | {"published": args.publish or None}
        names = {0: "background"} | table.classes
        document["labels"] = {names.get(int(label), str(label)): int(rows) for label, rows in counts.items()}
    if args.json:
        print_json(document)
    else:
        _print_facts(document)
        print_table(("label at the centre", "rows"), list(document["labels"].items()))
    return 0


def plan(args: argparse.Namespace) -> int:
    """What building the table takes; BudgetError (exit 4) where it does not fit."""
    from ctpipe.patches import check
    from ctpipe.patches import plan as planned
    with commands._client(args.cluster) as client:
        table = _table(args, client)
        workers, memory = args.workers, args.memory
        if client is None and not (workers and memory):
            workers, memory = workers or _cores(), memory or _memory() // (workers or _cores())
        made = planned(table, workers, memory, slab_budget=args.slabs)
    if args.json:
        print_json(made.as_json())
    else:
        mib = {"bytes of all rows": made.rows_bytes, "largest partition": made.largest_partition,
               "HU of all slabs": made.slab_bytes, "pixels, were they copied": made.pixel_bytes,
               "peak memory per worker": made.peak_per_worker, "memory per worker": made.memory_per_worker}
        rows: list[tuple[str, Any]] = [("rows", made.rows), ("bytes per row", made.row_bytes)]
        rows += [(name, f"{value / 2**20:.1f} MiB") for name, value in mib.items()]
        rows += [("partitions", made.partitions), ("tasks", made.tasks), ("workers", made.workers)]
        print_table(("what", "value"), rows)
    check(table, made)
    return 0


def show(args: argparse.Namespace) -> int:
    """A contact sheet."""
    if not args.out:
        raise UsageError("show needs a file to write", "give --out sheet.png")
    with commands._client(args.cluster) as client:
        path = _table(args, client).show(args.out, args.n, seed=args.seed)
    if args.json:
        print_json({"png": str(path)})
    else:
        print(path)
    return 0


def query(args: argparse.Namespace) -> int:
    """SQL over the rows."""
    if not args.sql:
        raise UsageError("query needs a SELECT", 'give --sql "SELECT label, count(*) FROM rows GROUP BY label"')
    with commands._client(args.cluster) as client:
        answer = _table(args, client).sql(args.sql)
    if args.out:
        try:
            answer.to_csv(args.out, index=False)
        except OSError as error:
            raise UsageError(f"{args.out} cannot be written", "give a file in a folder of yours") from error
    elif args.json:
        print_json(answer.astype(object).where(answer.notna(), None).to_dict("records"))
    else:
        print_table(tuple(map(str, answer.columns)), answer.to_numpy(object).tolist())
    return 0


def save(args: argparse.Namespace) -> int:
    """Build and save a table."""
    if not args.name:
        raise UsageError("a saved table needs a name", "give --name NAME")
    with commands._client(args.cluster) as client:
        table = _table(args, client)
        path = table.save(args.name)
    from ctpipe.patches import saved_tables
    document: dict[str, Any] = next(one for one in saved_tables(args.store) if one["name"] == path.name)
    document["path"] = str(path)
    if args.json:
        print_json(document)
    else:
        print(f"{document['rows']} rows, {document['bytes'] / 2**20:.2f} MiB in {path}")
    return 0


def ls(args: argparse.Namespace) -> int:
    """Saved tables of the store, and those that are published on the cluster."""
    from ctpipe.patches import published_tables, saved_tables
    from ctpipe.store import open_store
    open_store(args.store)
    saved = saved_tables(args.store)
    with commands._client(args.cluster) as client:
        published = published_tables(client) if client is not None else []
    if args.json:
        print_json({"saved": saved, "published": published})
        return 0
    rows = [("saved", one["name"], one["rows"], f"{one['bytes'] / 2**20:.2f} MiB", "-",
             "; ".join([*one["changed"], *one["newer"]]) or "as the store") for one in saved]  # fmt: skip
    rows += [("published", one["name"], one["rows"], f"{one['bytes'] / 2**20:.2f} MiB", one["owner"], "in memory")
             for one in published]
    print_table(("where", "table", "rows", "bytes", "owner", "state"), rows)
    return 0


def _table(args: argparse.Namespace, client: Any) -> PatchTable:
    from ctpipe.patches import load_table, patch_table
    from ctpipe.store.layout import TABLES
    if args.table:
        table = load_table(Path(args.store) / TABLES / args.table, client, store=args.store)
        return table.where(args.where) if args.where else table
    return patch_table(args.store, args.window, args.stride, args.pad, args.where, client, series=args.series,
                       level=args.level, labels=args.labels, classes=args.classes, statistics=args.statistics,
                       lesions=args.lesions, source=args.source)  # fmt: skip


def _facts(table: PatchTable, rows: int) -> dict[str, Any]:
    return {"rows": rows, "row_bytes": table.row_bytes, "bytes": rows * table.row_bytes, "series": len(table.series),
            "patients": len(table.patients), "partitions": len(table.parts), "columns": table.columns,
            "pixels_if_copied": rows * table.spec.window_voxels * 2}  # fmt: skip


def _print_facts(document: dict[str, Any]) -> None:
    print(f"{document['rows']} rows of {document['series']} series, {document['row_bytes']} bytes each: "
          f"{document['bytes'] / 2**20:.1f} MiB in {document['partitions']} partitions; copied patches would take "
          f"{document['pixels_if_copied'] / 2**30:.1f} GiB")
    if document["published"]:
        print(f"held in the cluster as {document['published']!r}")


def _lengths(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not Z,Y,X in voxels")
    z, y, x = (int(part) for part in parts)
    return z, y, x


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory; write 512M or 2G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _environment_cluster() -> str | None:
    import os
    return os.environ.get("CTPIPE_CLUSTER")


def _cores() -> int:
    import os
    return len(os.sched_getaffinity(0))


def _memory() -> int:
    import psutil
    return int(psutil.virtual_memory().available)
