"""check: a verdict for every volume and every file of the input; nothing is written (corpus policy, rules 1-16)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ctpipe.dicom.arrange import Options
from ctpipe.dicom.identity import Pseudonyms, load_pseudonyms
from ctpipe.dicom.index import Index, Lot, Runner, here
from ctpipe.dicom.judging import Judge
from ctpipe.dicom.objects import is_object
from ctpipe.dicom.raster import is_raster, raster_verdict
from ctpipe.dicom.sources import Item, Locator
from ctpipe.dicom.verdict import CURES, Verdict
from ctpipe.errors import NotThereError
from ctpipe.words import Progress, VerdictKind

Paths = Iterable[str | os.PathLike[str]] | str | os.PathLike[str]
_RANK = [VerdictKind.ACCEPT, VerdictKind.REPAIR, VerdictKind.REJECT, VerdictKind.SET_ASIDE]


def check(
    paths: Paths,
    pseudonyms: Pseudonyms | None = None,
    exclude: Sequence[str | os.PathLike[str]] = (),
    progress: Progress = None,
    options: Options | None = None,
    run: Runner = here,
) -> list[Verdict]:
    """A verdict for every volume found under `paths`, and for every lot of files that is none; nothing is written.

    Every voxel is looked at. Accepted volumes come first. pseudonyms: default the user's, or passing ones where there
    is no key yet. exclude: paths that are not looked at (label folders within). run: where tasks run. Raises
    NotThereError for a path that does not exist.
    """
    with Examination(paths, pseudonyms or _usable_pseudonyms(), options or Options(), exclude, run, progress) as found:
        verdicts = [verdict for part in found.parts(whole=True) for verdict in part]
    return sorted(verdicts, key=lambda verdict: _RANK.index(verdict.kind))


class Examination:
    """Everything under some paths, indexed; then judged a series at a time."""

    def __init__(
        self,
        paths: Paths,
        names: Pseudonyms,
        options: Options,
        exclude: Sequence[str | os.PathLike[str]] = (),
        run: Runner = here,
        progress: Progress = None,
        kept_in: Path | None = None,
        fleeting: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        """kept_in: file of the index that stays for the next call, less what lies below `fleeting`; see Index.

        Raises NotThereError.
        """
        self.names, self.options, self.run, self.progress = names, options, run, progress
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        self.rasters = [item for item in map(_named_file, given) if item and is_raster(item.head())]
        rasters = {item.locator.path for item in self.rasters}
        others = [path for path in given if is_object(path) or os.path.realpath(path) not in rasters]
        self.index = Index(names, kept_in)
        with self.index.closed_on_failure():
            self.index.add(others, exclude, run, progress, fleeting)

    def __enter__(self) -> Examination:
        return self

    def __exit__(self, *_: object) -> None:
        self.index.close()

    def parts(self, *, whole: bool) -> Iterator[list[Verdict]]:
        """Verdicts of one series after another, of files given as volumes, then of all else.

        whole: look at every voxel; without, verdicts of one series that has a source are to be held against
        `again` where reading it fails.
        """
        judge = Judge(self.index, self.options, self.run)
        series = self.index.series()
        for done, uid in enumerate(series, start=1):
            yield judge.series(uid, whole=whole)
            if self.progress:
                self.progress("check", done, len(series))
        for item in self.rasters:
            yield [raster_verdict(item, self.names)]
        yield [_lot_verdict(lot) for lot in self.index.lots()]

    def again(self, series: str) -> list[Verdict]:
        """The verdicts of one series after a look at every voxel."""
        return Judge(self.index, self.options, self.run).series(series, whole=True)


def _usable_pseudonyms() -> Pseudonyms:
    """The user's; where there is no key yet, one that ends with this call: `check` writes nothing, not even a key."""
    try:
        return load_pseudonyms(create=False)
    except NotThereError:
        return Pseudonyms(secrets.token_bytes(32))


def _named_file(path: str | os.PathLike[str]) -> Item | None:
    """The file that a path names itself; None for folders, and for what is not there."""
    if is_object(path):
        return None
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        return None
    return Item(Locator(real), 1, (os.path.basename(real),), os.path.getsize(real))


def _lot_verdict(lot: Lot) -> Verdict:
    """Files that give no plane, those of one series and one reason together."""
    fault = lot.fault
    numbers = ", ".join(map(str, lot.numbers[:5])) + (", …" if lot.n_files > 5 else "")
    detail = f"{fault.detail} (file {numbers} in name order)"
    cure = fault.cure or (CURES.get(fault.reason, "") if fault.kind is VerdictKind.REJECT else "none needed")
    return Verdict(fault.kind, fault.reason, detail, cure, lot.n_files, lot.series)
