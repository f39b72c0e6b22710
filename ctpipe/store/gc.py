"""Taking away: what was never committed and has no living writer (gc), and what a person asks for (remove)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ctpipe.errors import NotThereError, StoreBusyError, StoreFaultError
from ctpipe.store import files
from ctpipe.store.labels import committed_names, group_names, labels_lock, write_index
from ctpipe.store.layers import committed_layers, layer_names, layered_runs
from ctpipe.store.layout import (
    COMMIT,
    INDEX,
    LABELS,
    LAYERS,
    LEASES,
    PARTIAL,
    PLANES,
    REVIEWS,
    RUNS,
    SUFFIX,
    TABLE_DOCUMENT,
    TABLES,
    labels_target,
    layers_target,
    volume_target,
)
from ctpipe.store.leases import EXPIRY_S, Lease, side_files
from ctpipe.store.runs import read_run, run_keys
from ctpipe.store.series import one_of
from ctpipe.store.store import Store
from ctpipe.store.uncertainty import forget_uncertainty
from ctpipe.store.verdicts import forget_volume


def collect_garbage(store: Store, dry_run: bool = False, *, expiry_s: float = EXPIRY_S) -> list[str]:
    """Remove uncommitted groups, plane tables, side files and leases whose writer is dead; returns paths in the store.

    Models, runs, tables and working copies of reviews are never touched. With `dry_run` nothing is removed.
    """
    if not dry_run:
        store._needs_append()
    removed: list[str] = []
    for target, paths in _unreached(store.root):
        removed += _sweep(store.root, target, paths, dry_run, expiry_s)
    removed += _dead_leases(store.root, dry_run, expiry_s)
    return sorted(set(removed))


def remove(store: Store, series_or_run: str) -> list[str]:
    """Remove a volume with all that is derived from it, or one run: its layers, labels and record; returns the paths.

    "RUN/LAYER" removes one layer of a run.

    The commit goes first: a killed removal leaves nothing that is listed, and gc takes the rest.
    Backups and copies of the store are out of reach.
    """
    store._needs_append()
    root = store.root
    volumes = [name.removesuffix(SUFFIX) for name in files.names(root) if name.endswith(SUFFIX)]
    series_id = one_of(series_or_run, volumes, "volumes")
    if series_id is not None:
        return _remove_volume(root, series_id)
    run, _, layer = series_or_run.partition("/")
    groups = {name for volume in volumes for name in (*group_names(root, volume), *layered_runs(root, volume))}
    groups |= set(run_keys(root))
    found = one_of(run, sorted(groups), "runs or labels")
    if found is None:
        raise NotThereError(f"there is no volume or run {series_or_run!r} in {root}", "ctpipe ls names what is there")
    if layer:
        return _remove_layer(root, volumes, found, layer)
    layered = [volume for volume in volumes if found in layered_runs(root, volume)]
    removed = [path for volume in layered for path in _remove_layers(root, volume, found)]
    holders = [volume for volume in volumes if found in group_names(root, volume)]
    removed += [path for volume in holders for path in _remove_labels(root, volume, found)]
    return sorted(removed + _remove_files(root, [root / RUNS / f"{found}.json"]))


def _unreached(root: Path) -> Iterator[tuple[str, list[Path]]]:
    """(target, paths) that no commit reaches."""
    for name in files.names(root):
        series_id = name.removesuffix(SUFFIX)
        if not name.endswith(SUFFIX):
            continue
        if not (root / name / COMMIT).exists():
            # labels in it mean that its commit was lost, not that there never was one: verify names that
            if not committed_names(root, series_id):
                yield volume_target(series_id), [root / name, root / PLANES / f"{series_id}.parquet"]
            continue
        yield volume_target(series_id), _side_files(root / name, skip=(LABELS, LAYERS))
        for group in group_names(root, series_id):
            path = root / labels_target(series_id, group)
            whole = (path / COMMIT).exists()
            yield labels_target(series_id, group), _side_files(path) if whole else [path]
        for run in layered_runs(root, series_id):
            yield layers_target(series_id, run), _unreached_layers(root, series_id, run)
        stray = [p for p in (root / name / LABELS).glob(f"*{PARTIAL}") if p.is_file()]
        yield volume_target(series_id), stray
    for name in files.names(root / PLANES):
        series_id = name.partition(".parquet")[0]
        if name.endswith(PARTIAL) or not (root / volume_target(series_id)).exists():
            yield volume_target(series_id), [root / PLANES / name]


def _unreached_layers(root: Path, series_id: str, run: str) -> list[Path]:
    """Of the layers of a run: those that were never committed, the folder itself where none was."""
    folder = root / layers_target(series_id, run)
    whole = committed_layers(root, series_id, run)
    if not whole:
        return [folder]
    return [folder / name for name in layer_names(root, series_id, run) if name not in whole] + _side_files(folder)


def _side_files(folder: Path, skip: Sequence[str] = ()) -> list[Path]:
    found = folder.rglob(f"*{PARTIAL}")
    return [path for path in found if path.is_file() and path.relative_to(folder).parts[0] not in skip]


def _sweep(root: Path, target: str, paths: list[Path], dry_run: bool, expiry_s: float) -> list[str]:
    there = [path for path in paths if path.exists()]
    if not there:
        return []
    lease = Lease(root, target, expiry_s=expiry_s, wait_s=0)
    if dry_run:
        return [str(path.relative_to(root)) for path in there] if lease.is_dead() else []
    try:
        with lease:
            # a writer may have committed since the look: then only what it left of side files goes
            dead = [path for path in there if path.name.endswith(PARTIAL) or not _committed(root, target, path)]
            return _remove_files(root, dead)
    except StoreBusyError:
        return []  # a living writer's


def _committed(root: Path, target: str, path: Path) -> bool:
    """Whether a commit reaches a path of a target: the target's, its own, or of a folder of layers one in it."""
    layered = path == root / target and f"/{LAYERS}/" in target
    return any((folder / COMMIT).exists() for folder in (root / target, path, *(path.iterdir() if layered else ())))


def _dead_leases(root: Path, dry_run: bool, expiry_s: float) -> list[str]:
    removed = [f"{LEASES}/{name}" for name in side_files(root, dry_run)]
    for name in files.names(root / LEASES):
        if not name.endswith(".json"):
            continue
        lease = Lease(root, name, expiry_s=expiry_s, wait_s=0, name=name)
        if dry_run:
            removed += [f"{LEASES}/{name}"] if lease.is_dead() else []
            continue
        try:
            with lease:
                removed.append(f"{LEASES}/{name}")  # taken over, and let go of at the end of this block
        except StoreBusyError:
            continue
    return removed


def _remove_volume(root: Path, series_id: str) -> list[str]:
    runs = _runs_of(root, series_id)
    with ExitStack() as stack:
        labelled = [labels_target(series_id, name) for name in group_names(root, series_id)]
        layered = [layers_target(series_id, run) for run in layered_runs(root, series_id)]
        for target in [volume_target(series_id), *labelled, *layered]:
            stack.enter_context(Lease(root, target))
        files.remove(root / volume_target(series_id) / COMMIT)
        paths = [root / volume_target(series_id), root / PLANES / f"{series_id}.parquet"]
        paths += [root / RUNS / f"{key}.json" for key in runs]
        paths += [root / REVIEWS / name for name in files.names(root / REVIEWS) if name.startswith(series_id)]
        paths += [root / name for name in files.names(root) if name.startswith(INDEX)]  # headers of all sources
        paths += _tables_of(root, series_id)
        forget_volume(root, series_id)
        forget_uncertainty(root, series_id)
        return sorted(_remove_files(root, paths))


def _remove_labels(root: Path, series_id: str, name: str) -> list[str]:
    target = labels_target(series_id, name)
    with Lease(root, target), labels_lock(root, series_id):
        files.remove(root / target / COMMIT)
        removed = _remove_files(root, [root / target])
        write_index(root, series_id)
        return removed


def _remove_layers(root: Path, series_id: str, run: str) -> list[str]:
    """All layers of a run, their commits first. They go before the labels: none is ever left without."""
    target = layers_target(series_id, run)
    with Lease(root, target):
        for name in committed_layers(root, series_id, run):
            files.remove(root / target / name / COMMIT)
        return _remove_files(root, [root / target])


def _remove_layer(root: Path, volumes: list[str], run: str, name: str) -> list[str]:
    removed: list[str] = []
    for series_id in volumes:
        if name in layer_names(root, series_id, run):
            target = layers_target(series_id, run)
            with Lease(root, target):
                files.remove(root / target / name / COMMIT)
                removed += _remove_files(root, [root / target / name])
    if not removed:
        raise NotThereError(f"run {run} has no layer {name!r}", "ctpipe ls names what is there")
    return sorted(removed)


def _runs_of(root: Path, series_id: str) -> list[str]:
    """Runs over a volume: those with labels in it, and those whose record names it."""
    found = set(group_names(root, series_id)) & set(run_keys(root))
    for key in run_keys(root):
        try:
            record: Any = read_run(root, key)
        except StoreFaultError:
            continue
        if series_id in json.dumps(record):
            found.add(key)
    return sorted(found)


def _tables_of(root: Path, series_id: str) -> list[Path]:
    """Saved patch tables with rows of a volume: their rows hold where its lesions lie, and go whole."""
    found = []
    for name in files.names(root / TABLES):
        folder = root / TABLES / name
        stated = files.read(folder / TABLE_DOCUMENT) or b""
        if series_id.encode() in stated or any(series_id in file for file in files.names(folder)):
            found.append(folder)
    return found


def _remove_files(root: Path, paths: list[Path]) -> list[str]:
    return [str(path.relative_to(root)) for path in paths if files.remove(path)]
