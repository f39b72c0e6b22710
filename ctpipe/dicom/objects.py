"""Objects of a bucket as source files: listed by prefix, read by ranges, their headers without their pixels.

URLs are `s3://BUCKET/PREFIX`, `gs://…` and `az://…`; where the server is and who may read stands in the environment, as
for any client of it (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, AWS_ALLOW_HTTP for a server on loopback, …), never in a URL.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from ctpipe.errors import InputError, NotThereError, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_OBJECT = re.compile("(s3|gs|az)://", re.IGNORECASE)
BLOCK_BYTES = 64 << 10  # a CT header and what stands before the pixels fits one
_CURE = "see that the bucket, the prefix and the credentials in the environment are right"


def is_object(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the URL of a bucket or of an object in one."""
    return isinstance(path, str) and _OBJECT.match(path) is not None


def list_objects(url: str) -> Iterator[tuple[str, int]]:
    """(URL, bytes) of the object of that name, or of every object below that prefix, in name order.

    Raises NotThereError where there is none.
    """
    bucket, prefix = _parts(url)
    _store(bucket)
    import obstore

    found: list[tuple[str, int]] = []
    with _plain_errors():
        for page in obstore.list(_store(bucket), prefix=prefix or None):
            found += [(f"{bucket}/{entry['path']}", int(entry["size"])) for entry in page]
        if not found and prefix:
            head = _head(url)
            found = [] if head is None else [(url, int(head["size"]))]
    if not found:
        raise NotThereError("no object has that name or prefix", _CURE)
    yield from sorted(found)


def open_object(url: str) -> BinaryIO:
    """The object, open for reading; blocks of it are fetched as they are needed. Raises InputError."""
    return io.BufferedReader(_Ranges(url), BLOCK_BYTES)


class _Ranges(io.RawIOBase):
    """An object by byte ranges. name: what pydicom asks every buffered file for; it must not be the object's."""

    name = "object"

    def __init__(self, url: str) -> None:
        bucket, self._key = _parts(url)
        self._store = _store(bucket)
        with _plain_errors():
            head = _head(url)
        if head is None:
            raise InputError("a source object is not there any more", _CURE)
        self._size, self._at = int(head["size"]), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        import obstore

        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        with _plain_errors():
            buffer[:length] = bytes(obstore.get_range(self._store, self._key, start=self._at, length=length))
        self._at += length
        return length


def object_signature(url: str) -> str:
    """Changes when the object is written. Raises InputError."""
    with _plain_errors():
        head = _head(url)
    if head is None:
        raise InputError("a source object is not there any more", _CURE)
    return f"{head['size']}-{head['last_modified'].timestamp()}-{head.get('e_tag')}"


def _head(url: str) -> Any:
    import obstore

    bucket, key = _parts(url)
    try:
        return obstore.head(_store(bucket), key)
    except FileNotFoundError:
        return None


def _parts(url: str) -> tuple[str, str]:
    """(URL of the bucket, name or prefix within it)."""
    split = urlsplit(url)
    if split.username or split.password:
        raise UsageError("a URL of a bucket holds credentials", "put them into the environment")
    return f"{split.scheme}://{split.netloc}", split.path.strip("/")


@lru_cache(maxsize=8)
def _store(bucket: str) -> ObjectStore:
    try:
        from obstore.store import from_url
    except ImportError:
        raise UsageError("reading buckets needs obstore", "pip install 'ctpipe[cloud]'") from None
    if urlsplit(bucket).scheme == "s3":
        return from_url(bucket, virtual_hosted_style_request=False)
    return from_url(bucket)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Errors of a server, whose texts quote names, as one line."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        raise InputError(f"an object store cannot be read ({type(error).__name__})", _CURE) from None
