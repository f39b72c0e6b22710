"""Makes the builders of this folder importable by their names, whichever folder pytest starts in."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
