"""SegmenterSpec: what a network that labels every voxel of a window is, as plain values beside its weights.

A classifier (`ModelSpec`) gives a window one class; a segmenter gives each of its voxels one. What comes from other
programs (nnU-Net, MONAI) is stated here in full, so that nothing of them is needed to run it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from ctpipe.errors import StoreFaultError, UsageError

SEGMENTER_FORMAT = "ctpipe-segmenter-1"
STORED_AXES = frozenset("zyx")
ANATOMICAL_AXES = (frozenset("LR"), frozenset("PA"), frozenset("SI"))


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """From HU to what the network sees, float32, voxel by voxel: clip to (low, high), subtract `mean`, divide by `std`.

    scheme: `stated` uses the four numbers (None: no clipping on that side); `volume` takes mean and std, and `range`
    the smallest value and the width of the range, of the cropped volume after clipping: facts of a first pass.
    """

    scheme: Literal["stated", "volume", "range"] = "stated"
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How voxels come to the network's spacing, or scores back to the grid.

    order: of the spline, 1 or 3, along the axes in general. separate: whether the coarsest axis is taken by itself at
    `order_separate` (0: nearest, 1: linear, 3) when its spacing is over 3 times the finest one (`auto`), always or
    never (nnU-Net's default_resampling.py). align: `extent` keeps the outer faces of the volume, `first` the centre of
    the first voxel (MONAI's Spacing). limit: results of order 3 are clipped to the range of their input (scikit-image's
    resize does; per plane of the separate axis).
    """

    order: Literal[0, 1, 3] = 3
    separate: Literal["auto", "always", "never"] = "never"
    order_separate: Literal[0, 1, 3] = 0
    align: Literal["extent", "first"] = "extent"
    limit: bool = True


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file of the model's folder, and its SHA-256 in hex."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """All that `model.json` of a segmenter says; together with the weight files it decides every label.

    network, options: name and options for `segmenter_networks.build`. outputs: its heads. classes: names of labels 1,
        2, …; 0 is background. regions: the label that each head paints where its score is over one half, in this order
        (heads are independent); empty: heads are background and classes, the highest wins, the lower of equals.
    axes: where the index of each network axis grows to, a letter each: patient sides as in "SPL" (brought there from
        the stored grid by turning and flipping whole axes, never by resampling), or "zyx" in any order for the axes as
        they are stored.
    patch: voxels of a window along each network axis; a 2-D network has 1 first and sees one plane at a time.
    spacing_mm: of the network's grid along each network axis; None: as the volume has it.
    normalise: `normalise_first`: before resampling (nnU-Net), else after it. crop: `nonzero` leaves out what lies
        outside the box of voxels other than 0 HU (nnU-Net); labels there are background.
    windows: where they lie: `nnunet` its even spread, `cover` steps of round(patch * step) with the last one moved
        back to the border. step: fraction of the patch between windows. weight: of a window's voxels in overlaps:
        Gaussian of sigma patch / 8 about its middle (`gaussian-middle`: voxel patch // 2, as nnU-Net has it;
        `gaussian-floor`: (patch - 1) / 2 and never below 0.001, as MONAI has it) or `constant`.
    blend: what is averaged over windows, `logits` or `probabilities`; softmax_inside: the network gives probabilities
        already. mirror: network axes over all subsets of which windows are mirrored and their scores averaged.
    folds: the weight files, one network each; their scores are averaged.
    micro_batch: windows of every forward pass; threads: of torch. Both change the last bits (MODELS 8). precision: of
        the products in a forward pass; `bfloat16` halves time and memory on a GPU that has it, and costs labels at
        borders. Sums over windows are the same for both.
    licence: of the weights, as the user stated it. origin: what it was imported from; no paths, times or hosts.
    """

    network: str
    options: dict[str, Any]
    outputs: int
    classes: tuple[str, ...]
    regions: tuple[int, ...] = ()
    axes: str
    patch: tuple[int, int, int]
    spacing_mm: tuple[float | None, float | None, float | None] | None = None
    normalise: Normalisation = field(default_factory=Normalisation)
    normalise_first: bool = True
    crop: Literal["none", "nonzero"] = "none"
    resample_in: Resampling = field(default_factory=Resampling)
    resample_out: Resampling = field(default_factory=lambda: Resampling(order=1))
    windows: Literal["nnunet", "cover"] = "cover"
    step: float = 0.5
    weight: Literal["gaussian-floor", "gaussian-middle", "constant"] = "gaussian-middle"
    blend: Literal["logits", "probabilities"] = "logits"
    softmax_inside: bool = False
    mirror: tuple[int, ...] = ()
    folds: tuple[WeightFile, ...]
    micro_batch: int = 1
    threads: int = 2
    precision: Literal["float32", "bfloat16"] = "float32"
    licence: str = ""
    origin: dict[str, Any] = field(default_factory=dict)
    format: str = SEGMENTER_FORMAT

    def __post_init__(self) -> None:
        """Raises UsageError for values that fit no network, all faults at once."""
        faults = list(_faults(self))
        if faults:
            raise UsageError(f"the segmenter's spec is wrong: {'; '.join(faults)}", "import the model again")

    @property
    def dims(self) -> int:
        """2 where the network sees single planes of its first axis, else 3."""
        return 2 if self.options.get("dims") == 2 else 3

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` takes them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Any, where: str) -> SegmenterSpec:
        """Spec of the values of a model.json; StoreFaultError where they are not one of this format."""
        cure = "import the model again"
        if not isinstance(values, dict) or values.get("format") != SEGMENTER_FORMAT:
            raise StoreFaultError(f"{where} is no segmenter of format {SEGMENTER_FORMAT}", cure)
        wrong = set(values) ^ {f.name for f in dataclasses.fields(cls)}
        if wrong:
            raise StoreFaultError(f"{where} lacks or has unknown fields: {', '.join(sorted(wrong))}", cure)
        made = dict(values)
        try:
            for name in ("classes", "regions", "patch", "mirror"):
                made[name] = tuple(values[name])
            made["spacing_mm"] = None if values["spacing_mm"] is None else tuple(values["spacing_mm"])
            made["normalise"] = Normalisation(**values["normalise"])
            made["resample_in"] = Resampling(**values["resample_in"])
            made["resample_out"] = Resampling(**values["resample_out"])
            made["folds"] = tuple(WeightFile(**fold) for fold in values["folds"])
            return cls(**made)
        except (TypeError, UsageError) as error:
            raise StoreFaultError(f"{where} has a field of the wrong kind", cure) from error

    def digest(self) -> str:
        """16 hex digits of SHA-256 over all fields, the weights by their own digest; no path enters."""
        return sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]


def _faults(spec: SegmenterSpec) -> list[str]:
    heads = len(spec.regions) or 1 + len(spec.classes)
    letters = [frozenset(letter) for letter in spec.axes]
    anatomical = len(letters) == 3 and all(sum(letter <= pair for letter in letters) == 1 for pair in ANATOMICAL_AXES)
    rules = {
        f"{spec.outputs} outputs for {heads} heads": spec.outputs == heads,
        f"axes {spec.axes!r}": anatomical or (frozenset(spec.axes) == STORED_AXES and len(spec.axes) == 3),
        f"patch {spec.patch}": len(spec.patch) == 3 and min(spec.patch) >= 1 and (spec.dims == 3 or spec.patch[0] == 1),
        f"step {spec.step}": 0 < spec.step <= 1,
        # windows would come to lie on one another, which nnU-Net counts twice
        f"step {spec.step} of patch {spec.patch} is less than a voxel": spec.windows != "nnunet"
        or all(side == 1 or side * spec.step >= 1 for side in spec.patch),
        f"mirror {spec.mirror}": set(spec.mirror) <= ({1, 2} if spec.dims == 2 else {0, 1, 2}),
        "no class": bool(spec.classes),
        "no weights": bool(spec.folds),
        "regions name labels that are no class": all(1 <= label <= len(spec.classes) for label in spec.regions),
        f"micro-batch {spec.micro_batch}": spec.micro_batch >= 1,
        f"{spec.threads} threads": spec.threads >= 1,
        f"spacing {spec.spacing_mm}": spec.spacing_mm is None or all(mm is None or mm > 0 for mm in spec.spacing_mm),
        f"std {spec.normalise.std}": spec.normalise.std > 0,
    }
    for name, value, known in _named(spec):
        rules[f"{name} {value!r}"] = value in known
    return [what for what, right in rules.items() if not right]


def _named(spec: SegmenterSpec) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Fields of a closed list of values: name, value, the list. Types do not hold back what a file says."""
    found: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("crop", spec.crop, ("none", "nonzero")), ("windows", spec.windows, ("nnunet", "cover")),
        ("weight", spec.weight, ("gaussian-floor", "gaussian-middle", "constant")),
        ("blend", spec.blend, ("logits", "probabilities")), ("precision", spec.precision, ("float32", "bfloat16")),
        ("normalisation", spec.normalise.scheme, ("stated", "volume", "range")),
    ]  # fmt: skip
    for resampling in (spec.resample_in, spec.resample_out):
        found += [
            ("order", resampling.order, (0, 1, 3)), ("separate order", resampling.order_separate, (0, 1, 3)),
            ("separate", resampling.separate, ("auto", "always", "never")),
            ("align", resampling.align, ("extent", "first")),
        ]  # fmt: skip
    return found
