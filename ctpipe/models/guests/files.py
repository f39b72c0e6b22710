"""Files of a model in a folder or a zip; members of a zip are read into memory, their names are never paths."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ctpipe.errors import InputError, NotThereError
from ctpipe.models.guests.wishes import Faults

# Result folders lie at most so deep below what a user points at: data set / trainer__plans__configuration / fold / file
DEPTH = 4
MAX_JSON_BYTES = 64 << 20


class ModelFiles:
    """Names (with /, relative) and bytes of the files below one folder or in one zip."""

    def __init__(self, path: Path) -> None:
        """NotThereError: nothing at `path`. InputError: a file that is no zip, or one that is refused whole."""
        from ctpipe.dicom.archives import ArchiveFaultError, ZipArchive, archive_kind

        self.path = path
        self._zip: ZipArchive | None = None
        self._file: IO[bytes] | None = None
        if path.is_dir():
            self.names = tuple(sorted(_below(path)))
            return
        if not path.is_file():
            raise NotThereError(f"no model at {path}", "give nnU-Net's result folder, its zip, or a MONAI bundle")
        with path.open("rb") as file:
            if archive_kind(file.read(512)) != "zip":
                raise InputError(f"{path} is neither a folder nor a zip", "give the folder or zip of a model")
        self._file = path.open("rb")
        try:
            self._zip = ZipArchive(self._file)
            self._zip.refuse_if_unsafe()
        except ArchiveFaultError as error:
            self._file.close()
            raise InputError(f"{path} was refused: {error.detail}", error.cure) from None
        self._places = {member.name: index for index, member in enumerate(self._zip.members) if not member.is_folder}
        self.names = tuple(sorted(self._places))

    def close(self) -> None:
        """Close the zip; a folder needs no closing."""
        if self._file:
            self._file.close()

    def read(self, name: str) -> bytes:
        """The bytes of one of `names`."""
        from ctpipe.dicom.archives import MAX_MEMBER_BYTES, ArchiveFaultError

        if self._zip is None:
            return (self.path / name).read_bytes()
        try:
            return self._zip.read(self._places[name], MAX_MEMBER_BYTES)
        except ArchiveFaultError as error:
            raise InputError(f"{self.path} was refused: {error.detail}", error.cure) from None

    def json(self, name: str, faults: Faults) -> dict[str, Any]:
        """The JSON object of a file, or a fault and {}."""
        base = PurePosixPath(name).name
        if name not in self.names:
            faults.add(f"it has no {base}", "copy the whole model again")
            return {}
        data = self.read(name)
        try:
            values = json.loads(data) if len(data) <= MAX_JSON_BYTES else None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            faults.add(f"its {base} is no JSON object", "copy the whole model again")
            return {}
        return values


def _below(top: Path) -> list[str]:
    found = []
    for folder, inner, files in os.walk(top):
        relative = Path(folder).relative_to(top)
        if len(relative.parts) >= DEPTH - 1:
            inner.clear()
        found += [(relative / name).as_posix() for name in files]
    return found
