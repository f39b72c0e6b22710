"""Workers that would give other bits than this process are told before any work: Dask only warns.

Scores depend on versions of libraries, and on the instruction set that their kernels were chosen for.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from distributed import Client

from ctpipe.errors import RunError, UsageError

PACKAGES = ("ctpipe", "cloudpickle", "dask", "distributed", "numba", "numpy", "scipy", "torch", "zarr")
# The classes by which NumPy, oneDNN and OpenBLAS choose kernels; the first that a processor has counts.
INSTRUCTION_SETS = ("amx_bf16", "avx512f", "avx2")


def stack() -> dict[str, str]:
    """What decides the bits of this process: versions by package ("" where it is not installed), and the processor."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES},
            "instruction set": _instruction_set()}  # fmt: skip


def require_alike(client: Client) -> None:
    """UsageError where a worker has other versions than this process, or where workers have different processors.

    All differences at once. This process computes nothing, so that its own processor does not matter.
    """
    try:
        told: Mapping[str, dict[str, str]] = client.run(stack)
    except (ImportError, AttributeError) as error:  # it cannot even load this function
        raise UsageError("the workers of this cluster have no ctpipe, or another version of it",
                         "install the same ctpipe there, from the same constraints.txt") from error
    except OSError as error:
        raise RunError("the workers of this cluster do not answer", "look at the scheduler, then run again") from error
    odd = differences(stack(), list(told.values()))
    if odd:
        raise UsageError(f"workers of this cluster would give other results: {'; '.join(odd)}",
                         "install the same versions there, on processors of one kind")


def differences(here: Mapping[str, str], workers: list[dict[str, str]]) -> list[str]:
    """A line for each thing in which workers are not like `here`, or processors not like one another."""
    odd = []
    for name, mine in here.items():
        if name == "instruction set":
            continue
        others = [worker[name] for worker in workers if worker[name] != mine]
        if others:
            odd.append(f"{len(others)} of {len(workers)} have {name} {_listed(others)}, here it is {mine or 'absent'}")
    kinds = [worker["instruction set"] for worker in workers]
    if len(set(kinds)) > 1:
        odd.append(f"their processors differ ({_listed(kinds)})")
    return odd


def _listed(values: list[str]) -> str:
    return ", ".join(sorted({value or "absent" for value in values}))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _instruction_set() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return f"{platform.machine()} {next((kind for kind in INSTRUCTION_SETS if kind in flags), '')}".strip()
