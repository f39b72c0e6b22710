"""What the stages give back: plain frozen reports whose `as_json` is a stable face (DESIGN 8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ctpipe.dicom import Verdict, ledger_of
from ctpipe.words import VerdictKind


@dataclass(frozen=True)
class TakenVolume:
    """One committed volume: its verdict and its id in the store. `known`: it was there before."""

    verdict: Verdict
    id: str
    known: bool = False


@dataclass(frozen=True)
class TakenLabels:
    """Truth labels of one series. counts: voxels per class name."""

    series: str
    name: str
    classes: dict[int, str]
    counts: dict[str, int]
    known: bool = False

    def as_json(self) -> dict[str, Any]:
        classes = {str(k): v for k, v in self.classes.items()}
        return {"verdict": "accept", "series": self.series, "name": self.name, "classes": classes,
                "voxels": self.counts}  # fmt: skip


@dataclass(frozen=True)
class IngestReport:
    """What became of everything that was given.

    volumes: committed ones; others: verdicts of all that is no committed volume; labels and label_faults: what was
    given as labels; unused: structures that no class takes; opened: source files that were read, the others were as
    the index knew them.
    """

    store: str
    volumes: tuple[TakenVolume, ...]
    others: tuple[Verdict, ...]
    labels: tuple[TakenLabels, ...] = ()
    label_faults: tuple[Verdict, ...] = ()
    unused: tuple[str, ...] = ()
    opened: int = 0

    @property
    def exit_code(self) -> int:
        """3 with at least one reject or nothing accepted; set-aside never counts (DESIGN 8)."""
        rejects = [v for v in (*self.others, *self.label_faults) if v.kind is VerdictKind.REJECT]
        return 3 if rejects or not self.volumes else 0

    def as_json(self) -> dict[str, Any]:
        volumes = [{**taken.verdict.as_json(), "id": taken.id} for taken in self.volumes]
        volumes += [verdict.as_json() for verdict in self.others]
        labels = [taken.as_json() for taken in self.labels] + [fault.as_json() for fault in self.label_faults]
        return {"volumes": volumes, "summary": summary(volumes), "labels": labels,
                "unused_structures": list(self.unused)}  # fmt: skip


    def verdict_rows(self) -> list[dict[str, Any]]:
        """A row per verdict, as verdicts.parquet keeps them."""
        found = [(taken.verdict, taken.id) for taken in self.volumes] + [(verdict, None) for verdict in self.others]
        return [_row(verdict, volume) for verdict, volume in found]


def _row(verdict: Verdict, volume: str | None) -> dict[str, Any]:
    told = verdict.as_json()
    planes, rows, columns = told["shape"] or (None, None, None)
    kept = {key: told[key] for key in ("series", "verdict", "reason", "detail", "cure", "files")}
    return {**kept, "id": volume, "planes": planes, "rows": rows, "columns": columns}


def summary(volumes: list[dict[str, Any]]) -> dict[str, int]:
    """Number of each verdict."""
    return {kind.value: sum(v["verdict"] == kind.value for v in volumes) for kind in VerdictKind}


def check_json(verdicts: list[Verdict], *, planes: bool = False) -> dict[str, Any]:
    """`check --json` of DESIGN 8, with the ledger of each accepted volume; `planes`: plane by plane."""
    volumes = [
        {**verdict.as_json(), "ledger": ledger_of(verdict.source, planes) if verdict.source else None}
        for verdict in verdicts
    ]
    return {"volumes": volumes, "summary": summary(volumes)}


@dataclass(frozen=True)
class Run:
    """One prediction over one volume.

    windows: centres evaluated; slabs: of the volume; resumed: slabs that an earlier, interrupted call had finished;
    known: the run was committed before and no label was computed. uncertainty: mean entropy of what was labelled,
    0 (sure) to 1, where it was asked for. layers: that are there now, of a call that asked for some.
    """

    series: str
    run: str
    windows: int
    seconds: float
    slabs: int
    resumed: int
    known: bool = False
    uncertainty: float | None = None
    layers: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {} if self.uncertainty is None else {"uncertainty": round(self.uncertainty, 6)}
        told |= {"layers": list(self.layers)} if self.layers else {}
        return {"series": self.series, "run": self.run, "windows": self.windows, "seconds": round(self.seconds, 3),
                "slabs": self.slabs, "resumed": self.resumed, **told}  # fmt: skip


@dataclass(frozen=True)
class InferReport:
    """The runs of one call, what failed ({series: one line}), and notes on the model and its stride."""

    runs: tuple[Run, ...]
    failed: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0

    def as_json(self) -> dict[str, Any]:
        return {"runs": [run.as_json() for run in self.runs], "failed": self.failed,
                "notes": list(self.notes)}  # fmt: skip


@dataclass(frozen=True)
class TrainReport:
    """A trained model: where it lies, its digest, which patients it saw and how it did on the validation patients.

    reviews: {volume: the review that counted as its truth}.
    """

    model: str
    digest: str
    train_patients: tuple[str, ...]
    validation_patients: tuple[str, ...]
    best_epoch: int
    scores: dict[str, Any]
    reviews: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"model": self.model, "digest": self.digest, "train_patients": list(self.train_patients),
                "validation_patients": list(self.validation_patients), "best_epoch": self.best_epoch,
                "scores": self.scores, "reviews": self.reviews}  # fmt: skip


@dataclass(frozen=True)
class EvaluateReport:
    """Scores of each series {series id: VolumeScores}, the run that was scored, and the truth's name as asked for."""

    series: dict[str, Any]
    runs: dict[str, str]
    truth: str = "truth"

    def as_json(self) -> dict[str, Any]:
        return {"series": {key: {"run": self.runs[key], **scores.as_json()} for key, scores in self.series.items()}}
