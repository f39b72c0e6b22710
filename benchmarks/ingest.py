"""DICOM to OME-Zarr: ours beside the floor and beside what people use, on one made series of 512 x 512 planes.

python benchmarks/ingest.py [--planes 300] [--long 1000] [--repeats 3] [--json]

Floor: `cp` of the files plus the compressor alone on two threads. Every way runs in a warm process of its own, with the
same codec; sync to disk is off but in one row. Memory is the proportional set size of the process and its children, the
highest of samples every 20 ms; imports are in it. The whole command, start included, stands last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from _made_series import write_compressed, write_raw

WAYS = Path(__file__).parent / "_ingest_ways.py"
CORES = 2


@dataclass(frozen=True)
class Figure:
    """One row: best seconds, CPU seconds of its process, highest memory of it and its children in MiB."""

    seconds: float
    cpu: float
    mib: float


def measure(way: str, folder: Path, out: Path, repeats: int) -> Figure:
    """One way in a process of its own."""
    done, mib = run([sys.executable, str(WAYS), way, str(folder), str(out), str(repeats)])
    told = json.loads(done.splitlines()[-1])
    return Figure(told["seconds"], told["cpu"], mib)


def run(command: list[str]) -> tuple[str, float]:
    """(what it printed, highest memory of it and its children in MiB)."""
    highest = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            highest = max(highest, sum(_pss_mib(pid) for pid in _family(process.pid)))
            time.sleep(0.02)
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[1:3])} ended with {process.returncode}")
    return printed, highest


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        children += [child for task in os.listdir(f"/proc/{pid}/task") if task != str(pid)
                     for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]  # fmt: skip
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def whole_command(folder: Path, store: Path) -> Figure:
    """`ctpipe ingest`, start included."""
    began = time.perf_counter()
    before = os.times()
    _, mib = run([sys.executable, "-m", "ctpipe.cli", "ingest", str(folder), "--store", str(store), "--json"])
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Figure(time.perf_counter() - began, used, mib)


def figures(root: Path, planes: int, long: int, repeats: int) -> dict[str, dict[str, Figure]]:
    """{kind of input: {way: figure}}."""
    kinds = {"raw": ["cp", "compressor", "ctpipe-level0", "ctpipe", "ctpipe-sync", "pydicom+zarr", "simpleitk+zarr"]}
    if find_spec("dicomsdl") and find_spec("zarrs"):
        kinds["raw"].append("dicomsdl+zarrs")
    kinds |= {kind: ["decoder", "compressor", "ctpipe-level0", "pydicom+zarr"] for kind in ("jpegls", "j2k")}
    write_raw(root / "raw", planes)
    for kind in ("jpegls", "j2k"):
        write_compressed(root / "raw", root / kind, kind)
    found = {kind: {way: measure(way, root / kind, root / "out", repeats) for way in ways}
             for kind, ways in kinds.items()}  # fmt: skip
    found["raw"]["whole command"] = whole_command(root / "raw", root / "S")
    if long:
        write_raw(root / "long", long)
        found["long"] = {"ctpipe": measure("ctpipe", root / "long", root / "out", 1)}
    return found


def ratios(found: dict[str, dict[str, Figure]]) -> dict[str, float]:
    """Ours over theirs; memory in MiB."""
    raw = found["raw"]
    floor = raw["cp"].seconds + raw["compressor"].seconds
    out = {
        "raw_vs_floor": raw["ctpipe-level0"].seconds / floor,
        "raw_full_vs_floor": raw["ctpipe"].seconds / floor,
        "raw_vs_pydicom": raw["ctpipe-level0"].seconds / raw["pydicom+zarr"].seconds,
    }
    if "dicomsdl+zarrs" in raw:
        out["raw_vs_dicomsdl"] = raw["ctpipe-level0"].seconds / raw["dicomsdl+zarrs"].seconds
    for kind in ("jpegls", "j2k"):
        part = found[kind]
        best = (part["decoder"].cpu + part["compressor"].cpu) / CORES
        out[kind] = part["ctpipe-level0"].seconds / best
    out["pss_mib_300"] = raw["ctpipe"].mib
    if "long" in found:
        out["pss_mib_1000"] = found["long"]["ctpipe"].mib
    return out


def main() -> None:
    """Run all, print the tables, and with --json one object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=300)
    parser.add_argument("--long", type=int, default=1000, help="planes of a longer series; 0: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["CTPIPE_KEY"] = f"{name}/key"
        found = figures(Path(name), args.planes, args.long, args.repeats)
    for kind, ways in found.items():
        base = ways["cp"].seconds + ways["compressor"].seconds if "cp" in ways else 0.0
        print(f"\n{kind:24}  seconds   CPU s  memory MiB" + ("   x floor" if base else ""))
        for way, row in ways.items():
            times = f"  {row.seconds / base:8.2f}" if base else ""
            print(f"{way:24}  {row.seconds:7.3f}  {row.cpu:6.2f}  {row.mib:10.0f}{times}")
    print()
    for key, value in ratios(found).items():
        print(f"{key:20} {value:8.2f}")
    if args.json:
        print(json.dumps(ratios(found)))


if __name__ == "__main__":
    main()
