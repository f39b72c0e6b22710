"""The plan's peak memory against the peak that workers reach (DESIGN 4, RELIABILITY: say the cost before paying it)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster, wait
from stores_made import store_of
from volumes import MemorySeries

from ctpipe.errors import BudgetError
from ctpipe.patches import check, patch_table, plan, planning


def peak() -> int:
    """Highest resident bytes of this process so far; getrusage would count those of the parent before exec."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    rng = np.random.default_rng(1)
    made = []
    for number in range(2):
        blocks = np.repeat(np.repeat(rng.integers(0, 3, (128, 16, 16)), 32, 1), 32, 2).astype(np.uint8)
        made.append(MemorySeries(blocks.astype(np.int16) * 50, id=f"ab{number}", patient=f"p-{number}"
                                 ).with_truth(blocks, {1: "liver", 2: "lesion"}))
    root = store_of(tmp_path_factory.mktemp("made") / "S", made).root
    patch_table(root, (1, 9, 9), (64, 99, 99), statistics=True).count()  # compiles here, not in a worker
    planning._warm()
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "statistics"), [((1, 3, 3), False), ((1, 2, 2), False), ((1, 3, 3), True)])
def test_the_planned_peak_is_within_a_quarter_of_the_measured_one(root, stride, statistics):
    with (LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="2GiB", host="127.0.0.1",
                       dashboard_address="127.0.0.1:0", silence_logs=50) as cluster, Client(cluster) as client):
        table = patch_table(root, (1, 65, 65), stride, client=client, statistics=statistics)
        made = check(table, plan(table, slab_budget=0))
        held = table.persist()
        wait(list(held.held))
        measured = max(client.run(peak).values())
        assert abs(made.peak_per_worker - measured) <= 0.25 * measured, (made, measured)
        assert made.rows_bytes == table.nbytes == sum(held._map(_bytes))
        tight = plan(table, memory_per_worker=made.peak_per_worker - (8 << 20), slab_budget=0)
        with pytest.raises(BudgetError, match="are missing"):
            check(table, tight)


def _bytes(rows, part, spec) -> int:
    """Bytes of the columns; categories are held as one byte, their names once."""
    names = rows[["series", "patient"]].memory_usage(index=False).sum() - 2 * len(rows)
    return int(rows.memory_usage(index=False).sum() - names)
