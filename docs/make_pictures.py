"""Make the pictures of the documents: from the demo's folder, and from a store of sts where one is given.

python docs/make_pictures.py DEMO [STS_STORE]        under a display: make docs brings Xvfb
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ctpipe.review import snapshot
from ctpipe.store import open_store
from ctpipe.words import LabelKind

PICTURES = Path(__file__).parent / "pictures"


def of_the_newest_run(store: Path, picture: str) -> None:
    """Snapshot of the first volume that has a prediction, with that prediction."""
    for series in open_store(store).values():
        runs = [labels for labels in series.labels.values() if labels.kind is LabelKind.PREDICTION]
        if runs:
            best = max(runs, key=lambda labels: len(labels.classes))
            snapshot(store, series.id, best.name, PICTURES / picture)
            return


def main(demo: Path, *stores: Path) -> None:
    """Copy the demo's picture and take the snapshots."""
    made = json.loads((demo / "demo.json").read_text("utf-8"))
    PICTURES.mkdir(exist_ok=True)
    shutil.copyfile(made["png"], PICTURES / "demo.png")
    of_the_newest_run(Path(made["store"]), "review.png")
    for store in stores:
        of_the_newest_run(store, "review-sts.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
