"""Series and Labels: what a committed group looks like to the rest of ctpipe. Read only; every read is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.errors import NotThereError, StoreFaultError, UsageError
from ctpipe.store import commit, files
from ctpipe.store.commit import CURE
from ctpipe.store.group import Group
from ctpipe.store.labels import committed_names, group_names, read_labels, sequences
from ctpipe.store.layers import LayersOf
from ctpipe.store.layout import COMMIT, labels_target, volume_target
from ctpipe.store.metadata import IMAGE_DTYPES, LABEL_DTYPES, checked_volume
from ctpipe.store.planes import read_planes_bytes
from ctpipe.store.reader import LevelArray, as_data_array
from ctpipe.words import LabelKind

if TYPE_CHECKING:
    import pandas as pd
    import xarray

NEWEST = {"truth": LabelKind.TRUTH, "review": LabelKind.REVIEW}  # aliases of the newest group of a kind


class Labels(Group):
    """One committed label volume: integers (z, y, x) on the grid of its CT, 0 is background."""

    _dtypes = LABEL_DTYPES

    def __init__(self, root: Path, series_id: str, stated: dict[str, Any]) -> None:
        self.root = root
        self.series_id = series_id
        self.name: str = stated["name"]
        super().__init__(
            root / labels_target(series_id, self.name), stated, f"labels {self.name} of volume {series_id}"
        )
        self.kind = LabelKind(stated["kind"])
        self.classes: dict[int, str] = {int(n): name for n, name in stated["classes"].items()}

    @cached_property
    def array(self) -> xarray.DataArray:
        """Lazy labels (z, y, x), one dask chunk a shard, coordinates in mm, attrs affine and grid_id."""
        return as_data_array(self.arrays[0], "labels", f"labels-{self.series_id}-{self.name}-{self.content}", None)

    @property
    def layers(self) -> LayersOf:
        """Committed layers of the run by name, as they are at each look: "entropy", "spread", "probability-1", …"""
        return LayersOf(self.root, self.series_id, self.name, self.grid.grid_id)


class Series(Group):
    """One committed CT volume, its plane table and its labels.

    patient, study, series: pseudonyms. voi: (centre, width) in HU or None. attributes: acquisition, JSON-plain.
    """

    _dtypes = IMAGE_DTYPES

    def __init__(self, root: Path, series_id: str, stated: dict[str, Any]) -> None:
        self.id = series_id
        self.root = root
        super().__init__(root / volume_target(series_id), stated, f"volume {series_id}")
        self.patient: str = stated["patient"]
        self.study: str = stated["study"]
        self.series: str = stated["series"]
        self.voi: tuple[float, float] | None = None if stated["voi"] is None else tuple(stated["voi"])
        self.attributes: dict[str, Any] = stated["attributes"]

    @cached_property
    def hu(self) -> xarray.DataArray:
        """Lazy HU (z, y, x), one dask chunk a shard, coordinates in mm, attrs affine, grid_id, units."""
        return as_data_array(self.arrays[0], "hu", f"hu-{self.id}-{self.content}", "HU")

    @property
    def planes(self) -> pd.DataFrame:
        """One row per plane: pseudonym of the instance, position in mm, slope, intercept, source digest."""
        import pandas as pd

        listed = self._stated["manifest"]["planes"]
        if listed is None:
            return pd.DataFrame({"plane": range(self.grid.shape.z)})
        data = files.read(self.root / listed["file"])
        if data is None or sha256(data).hexdigest() != listed["sha256"]:
            how = "is missing" if data is None else "changed after its commit"
            raise StoreFaultError(f"the plane table of volume {self.id} {how}", CURE)
        return read_planes_bytes(data)

    @property
    def labels(self) -> LabelsOf:
        """Committed labels by name, as they are at each look; "truth" and "review" are the newest of their kind."""
        return LabelsOf(self)

    @property
    def in_progress(self) -> dict[str, tuple[xarray.DataArray, int]]:
        """{run key: (level-0 labels so far, slabs done)} of groups that are not committed.

        Slabs not yet written read as background; nothing of it is a result.
        """
        found = {}
        done = set(committed_names(self.root, self.id))
        for name in group_names(self.root, self.id):
            path = self.root / labels_target(self.id, name) / "0"
            document = files.read(path / COMMIT)
            if name in done or document is None:
                continue
            dtype = commit.stated_dtype(document, f"unfinished labels {name} of volume {self.id}")
            if dtype not in LABEL_DTYPES:  # no array of ours; `prepare` drops it
                continue
            voxels = LevelArray(path, self.levels[0], dtype, None, f"unfinished labels {name} of volume {self.id}")
            there = voxels.shards_there()
            if there:
                # napari keeps blocks by their key: never those of another store, or of fewer slabs
                what = f"{self.root}|{self.id}|{name}|{sorted(there)}"
                token = f"in-progress-{sha256(what.encode()).hexdigest()[:16]}"
                found[name] = (as_data_array(voxels, "labels", token, None), len(there))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "hu"}


class LabelsOf(Mapping[str, Labels]):
    """Labels of one volume by name; an unambiguous prefix of a run key will do.

    "truth" is the newest truth, "review" the newest review.
    """

    def __init__(self, series: Series) -> None:
        self._series = series

    def __getitem__(self, name: str) -> Labels:
        series = self._series
        exact = self._resolve(name)
        stated = None if exact is None else read_labels(series.root, series.id, exact)
        if exact is None or stated is None:
            there = ", ".join(self) or "none"
            raise NotThereError(f"volume {series.id} has no labels {name!r}", f"choose among: {there}")
        if stated.get("name") != exact or stated.get("volume") != series.id:
            raise StoreFaultError(f"labels {exact} of volume {series.id} were committed as others", CURE)
        labels = Labels(series.root, series.id, stated)
        if labels.grid.grid_id != series.grid.grid_id:
            problem = f"labels {exact} are on grid {labels.grid.grid_id}, volume {series.id} on {series.grid.grid_id}"
            raise StoreFaultError(problem, CURE)
        return labels

    def __iter__(self) -> Iterator[str]:
        return iter(committed_names(self._series.root, self._series.id))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._resolve(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]

    def _resolve(self, name: str) -> str | None:
        if name in NEWEST:
            numbers = sequences(self._series.root, self._series.id, NEWEST[name])
            return max(numbers, key=lambda key: (numbers[key], key), default=None)
        return one_of(name, list(self), f"labels of volume {self._series.id}")


def one_of(prefix: str, names: list[str], what: str) -> str | None:
    """The name that is `prefix` or alone begins with it; None where there is none, UsageError where several fit."""
    if prefix in names:
        return prefix
    fitting = [name for name in names if name.startswith(prefix)] if prefix else []
    if len(fitting) > 1:
        raise UsageError(f"{prefix!r} fits {len(fitting)} {what}", f"give more digits: {', '.join(fitting[:4])}")
    return fitting[0] if fitting else None


def read_series(root: Path, series_id: str) -> Series | None:
    """A committed volume, its metadata checked; None where it is not committed."""
    what = f"volume {series_id}"
    path = root / volume_target(series_id) / COMMIT
    document = commit.read_sealed(path, what, "attributes", "ctpipe")
    if document is None:
        return None
    stated = document["attributes"]["ctpipe"]
    if stated.get("id") != series_id:
        raise StoreFaultError(f"{what} was committed under another id", CURE)
    return Series(root, series_id, checked_volume(stated, what))
