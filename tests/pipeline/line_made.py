"""Small synthetic patients for tests of the whole line: real DICOM files, a second or less to make and predict."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from ctpipe.config import Recipe, recipe_from_dict
from ctpipe.dicom import write_ct_series, write_mask_series
from ctpipe.volume import Grid

# three slabs, the last one thin; the middle one is all air and holds no label
SHAPE = (70, 56, 60)
AFFINE = np.array([[0, 0, 1.5, -40.0], [0, 1.5, 0, -35.0], [2.0, 0, 0, 100.0], [0, 0, 0, 1]])
CLASSES = "liver=1,livertumor=2"


def small_patient(folder: Path, number: int) -> tuple[Path, Path]:
    """(CT folder, masks folder) of patient `number`: a bright ball with a darker ball in it, air in planes 32..63."""
    rng = np.random.default_rng(number)
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    organ = (np.hypot(y - 28, x - 30) < 18 + number % 3) & ((z < 32) | (z >= 64))
    lesion = (np.hypot(y - 24, x - 26 - number % 3) < 6) & organ & (z % 32 < 20)  # no slab is its own mirror image
    hu = np.full(SHAPE, -1000.0)
    hu[organ] = 110
    hu[lesion] = 40
    hu[organ] += rng.normal(0, 8, int(organ.sum()))
    hu[32:64] = -1024
    grid = Grid.from_affine(SHAPE, AFFINE)
    names = {"patient": f"SYN{number}", "study_key": f"study-{number}"}
    write_ct_series(folder / f"p{number}" / "CT", np.rint(hu).astype(np.int16), grid, **names)
    masks = write_mask_series(folder / f"p{number}", {"liver": organ, "livertumor01": lesion}, grid, **names)
    return folder / f"p{number}" / "CT", masks


def small_recipe(**predict: object) -> Recipe:
    """A recipe that trains in a second and predicts every fourth centre."""
    return recipe_from_dict(
        {
            "name": "small",
            "network": "vgg-small",
            "options": {"widths": [4, 8, 8, 16]},
            "classes": ["liver", "livertumor"],
            "input": {"window_hu": [-100, 200]},
            "windows": {"window": [1, 44, 44], "stride": [1, 4, 4]},
            "train": {"steps": 60, "epochs": 3, "batch": 4, "tile": 3, "learning_rate": 0.01},
            "predict": {"stride": [2, 4, 4], "fill": "linear", "region": "body", "micro_batch": 32, **predict},
        }
    )


def same_bytes(store: Path) -> dict[str, str]:
    """{file: SHA-256} of all that must be equal between equal runs (DESIGN 2, "same bytes")."""
    files = [p for p in store.rglob("*") if p.is_file() and not p.name.endswith(".partial")]
    counted = [p for p in files if p.relative_to(store).parts[0].endswith(".ome.zarr") or
               p.relative_to(store).parts[0] == "planes"]  # fmt: skip
    return {str(p.relative_to(store)): sha256(p.read_bytes()).hexdigest() for p in sorted(counted)}
