"""run_demo: the steps a user would take, one after the other, on patients that were never anyone's."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctpipe import dicom, pipeline
from ctpipe.cluster import client_for, run_tasks
from ctpipe.demo.phantom import phantom
from ctpipe.errors import RunError, UsageError
from ctpipe.patches import patch_table
from ctpipe.store import open_store
from ctpipe.words import Progress

RECIPE = "demo"
TRAINING_PATIENTS = 4
# training, one patient that chooses the best epoch, one that nothing has seen
PATIENTS = TRAINING_PATIENTS + 2
MIN_CONTRAST_HU = 30.0
CLASSES = "liver=1,livertumor=2"
LESION = "livertumor"
MARKER = "demo.json"


@dataclass(frozen=True)
class DemoResult:
    """What the demo made. dice, iou: lesion voxels of the unseen patient; lesions_found of lesions: any overlap."""

    seconds: float
    dice: float
    iou: float
    lesions_found: int
    lesions: int
    store: str
    png: str
    html: str
    series: str
    stages: tuple[tuple[str, str, float], ...]  # (stage, what it made, seconds)

    def as_json(self) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 1), "dice": _rounded(self.dice), "iou": _rounded(self.iou),
                "lesions_found": self.lesions_found, "lesions": self.lesions, "store": self.store, "png": self.png,
                "html": self.html}  # fmt: skip

    def summary(self) -> list[tuple[Any, ...]]:
        """Header and rows of the closing table."""
        rows: list[tuple[Any, ...]] = [("stage", "what", "seconds")]
        rows += [(stage, what, f"{seconds:.1f}") for stage, what, seconds in self.stages]
        rows.append(("whole", f"lesion Dice {self.dice:.3f}, IoU {self.iou:.3f} over the voxels of class {LESION} of "
                     f"the unseen patient; {self.lesions_found} of {self.lesions} lesions touched",
                     f"{self.seconds:.1f}"))  # fmt: skip
        return rows

    def next_lines(self) -> list[str]:
        return [
            f"picture: {self.png}",
            f"page:    {self.html}",
            f"napari:  ctpipe review {self.store} {self.series}",
            f"or:      napari --plugin ctpipe {self.store}/{self.series}.ome.zarr",
        ]


@dataclass(frozen=True)
class PatientTask:
    """One synthetic patient to be written as DICOM."""

    folder: str
    number: int
    seed: int


def write_patient(task: PatientTask) -> str:
    """CT series and mask series of one synthetic patient, in the layout of 3D-IRCADb-01; returns its folder."""
    made = phantom(task.seed, MIN_CONTRAST_HU)
    folder = Path(task.folder) / f"patient{task.number}"
    patient, study = f"SYN{task.seed:06d}", f"demo-{task.seed}"
    dicom.write_ct_series(folder / "PATIENT_DICOM", made.hu, made.grid, patient=patient, study_key=study)
    dicom.write_mask_series(folder, made.masks, made.grid, patient=patient, study_key=study)
    return str(folder)


def run_demo(folder: str | Path, *, seed: int = 0, progress: Progress = None) -> DemoResult:
    """Make patients, ingest, tabulate, train, infer the unseen patient, evaluate and show; all under `folder`.

    seed: which patients. Run again with the same seed, what is already in the store is not computed again.
    Raises UsageError when `folder` holds something that is no demo.
    """
    root = _own_folder(Path(folder))
    clock = _Clock()
    with client_for(PATIENTS) as client:
        dicom_folder = root / f"dicom-{seed}"
        tasks = [PatientTask(str(dicom_folder), n, 1000 * seed + 17 + n) for n in range(PATIENTS)]
        for number, _ in enumerate(run_tasks(client, write_patient, tasks)):
            _tell(progress, "patients", number + 1, PATIENTS)
        clock.stage("patients", f"{PATIENTS} synthetic patients as DICOM, with masks")
        store = root / "store"
        report = pipeline.ingest(
            [dicom_folder / f"patient{n}" / "PATIENT_DICOM" for n in range(PATIENTS)],
            store,
            labels=[dicom_folder / f"patient{n}" / "MASKS_DICOM" for n in range(PATIENTS)],
            classes=CLASSES,
            client=client,
            progress=progress,
        )
        if len(report.volumes) != PATIENTS or len(report.labels) != PATIENTS:
            raise RunError(f"{len(report.volumes)} of {PATIENTS} synthetic patients were taken",
                           "this is a bug: please report it with the demo's folder")  # fmt: skip
        clock.stage("ingest", f"{len(report.volumes)} volumes and their truth in {store}")
        order = [_series_of(store, dicom_folder, n) for n in range(PATIENTS)]
        opened = open_store(store)
        patients = [opened[series].patient for series in order]
        table = patch_table(opened, window=(1, 44, 44), stride=(1, 4, 4), series=order[:-1])
        counts = table.count()
        _tell(progress, "table", int(counts.sum()), int(counts.sum()))
        clock.stage("table", f"{counts.sum()} rows ({counts.get(2, 0)} of {LESION}) as an index of "
                    f"{table.nbytes / 2**20:.0f} MiB; copied patches would take {table.pixel_bytes / 2**20:.0f} MiB")
        model_folder = root / f"model-{seed}"
        trained = pipeline.train_model(store, RECIPE, model_folder, patients=patients[:-1], validate=[patients[-2]],
                                       progress=progress)  # fmt: skip
        clock.stage("train", f"best epoch {trained.best_epoch} by the validation patient")
        unseen = order[-1]
        inferred = pipeline.infer(store, model_folder, [unseen], client, progress=progress)
        if inferred.failed:
            raise RunError(f"the unseen patient failed: {inferred.failed[unseen]}", "report it with the demo's folder")
        run = inferred.runs[0]
        clock.stage("infer", f"{run.windows} windows in {run.slabs} slabs, run {run.run}")
    scores = pipeline.evaluate(store, run.run)
    html = root / f"case-{seed}.html"
    png = pipeline.write_case_page(store, scores, html, curve=model_folder / "curve.png")
    clock.stage("evaluate", f"picture and page of volume {unseen}")
    document = scores.as_json()["series"][unseen]
    lesion, hits = document["classes"][LESION], document["lesions"][LESION]
    result = DemoResult(clock.total(), _number(lesion["dice"]), _number(lesion["iou"]), hits["found"], hits["count"],
                        str(store), str(png), str(html), unseen, tuple(clock.stages))  # fmt: skip
    (root / MARKER).write_text(json.dumps(result.as_json(), indent=1), "utf-8")
    return result


def _own_folder(root: Path) -> Path:
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / MARKER).exists())):
        raise UsageError(f"{root} holds something that is no demo", "give a new or empty folder: ctpipe demo DIR")
    root.mkdir(parents=True, exist_ok=True)
    if not (root / MARKER).exists():
        (root / MARKER).write_text("{}", "utf-8")
    return root


def _series_of(store: Path, dicom_folder: Path, number: int) -> str:
    """Id of a patient's volume: known from its files, since an id is a digest of what they hold."""
    [verdict] = pipeline.check([dicom_folder / f"patient{number}" / "PATIENT_DICOM"])
    if verdict.source is None or verdict.source.series_id not in open_store(store):
        raise RunError(f"synthetic patient {number} is not in the store", "report it with the demo's folder")
    return verdict.source.series_id


def _tell(progress: Progress, stage: str, done: int, total: int) -> None:
    if progress:
        progress(stage, done, total)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


class _Clock:
    """Seconds of each stage, by a clock that nothing can set."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()
        self.stages: list[tuple[str, str, float]] = []

    def stage(self, name: str, what: str) -> None:
        now = time.monotonic()
        self.stages.append((name, what, now - self.last))
        self.last = now

    def total(self) -> float:
        return time.monotonic() - self.began
