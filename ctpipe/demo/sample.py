"""napari's sample data: a synthetic patient, made on this machine at the first call. Nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ctpipe.demo.phantom import phantom
from ctpipe.errors import RunError

if TYPE_CHECKING:
    from ctpipe.review.layers import LayerData

SEED = 7
CLASSES = "liver=1,livertumor=2"


def sample_patient() -> list[LayerData]:
    """Layers of the synthetic patient with its truth: a store of one volume, in the user's cache folder."""
    from ctpipe.review.reader import read

    return read(str(sample_store()))


def sample_store(folder: Path | None = None) -> Path:
    """The store of the synthetic patient, made as any other: written as DICOM with masks, then ingested.

    folder: where it lies (default: the user's cache folder). Made beside it and renamed, so that it is there whole.
    """
    from platformdirs import user_cache_path

    from ctpipe import dicom, pipeline

    home = folder or user_cache_path("ctpipe") / f"sample-{SEED}"
    if (home / "S" / "ctpipe.json").is_file():
        return home / "S"
    side = home.with_name(f"{home.name}-{os.getpid()}")
    made = phantom(SEED)
    patient, study = f"SYN{SEED:06d}", f"sample-{SEED}"
    try:
        dicom.write_ct_series(side / "CT", made.hu, made.grid, patient=patient, study_key=study)
        masks = dicom.write_mask_series(side, made.masks, made.grid, patient=patient, study_key=study)
        report = pipeline.ingest([side / "CT"], side / "S", labels=[masks], classes=CLASSES)
        if report.exit_code:
            raise RunError("the synthetic patient was not taken", "this is a bug: please report it")
        shutil.rmtree(side / "CT")
        shutil.rmtree(masks)
        shutil.rmtree(home, ignore_errors=True)
        side.rename(home)
    finally:
        shutil.rmtree(side, ignore_errors=True)
    return home / "S"
