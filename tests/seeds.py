"""Seeds of random tests: fixed, printed with a failure, and another one on request."""

from __future__ import annotations

import os
import random


def seeded(default: int) -> random.Random:
    """A generator seeded with `default`, or with CTPIPE_TEST_SEED where that is set."""
    seed = int(os.environ.get("CTPIPE_TEST_SEED", default))
    print(f"seed {seed}; CTPIPE_TEST_SEED takes another")
    return random.Random(seed)
