"""Multipart bodies read as they arrive (RFC 2046 5.1, RFC 2387): no part is ever held in memory whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message

MAX_PART_HEADERS = 16 << 10


class MultipartFaultError(Exception):
    """A body that is not the multipart message it says it is, or that ends early."""


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart/related content type; None for any other type."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary or len(boundary) > 200:
        return None
    return boundary.encode("latin-1", "replace")


def parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[Iterator[bytes]]:
    """The content of each part in turn, each as an iterator of byte strings; part headers are dropped.

    A part that was not read to its end is skipped. Raises MultipartFaultError where the body ends before its last
    boundary: what came is then not all there was.
    """
    body = _Body(chunks, boundary)
    if not body.skip_to_first():
        return
    while body.enter_part():
        content = body.content()
        yield content
        for _ in content:  # what the caller left
            pass


class _Body:
    """The bytes not yet given out, and where in the message they stand."""

    def __init__(self, chunks: Iterable[bytes], boundary: bytes) -> None:
        self._chunks = iter(chunks)
        self._buffer = bytearray()
        self._delimiter = b"\r\n--" + boundary

    def _more(self) -> bool:
        """One more chunk in the buffer; False at the end."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._buffer += chunk
        return True

    def _need(self, count: int) -> None:
        while len(self._buffer) < count:
            if not self._more():
                raise MultipartFaultError("the answer ends early")

    def skip_to_first(self) -> bool:
        """Drop what stands before the first boundary; False for an empty body."""
        self._buffer += b"\r\n"  # the first boundary may stand at the very beginning
        while (at := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > MAX_PART_HEADERS or not self._more():
                if len(self._buffer) == 2:
                    return False
                raise MultipartFaultError("the answer holds no part")
        del self._buffer[: at + len(self._delimiter)]
        return True

    def enter_part(self) -> bool:
        """Behind a boundary: read the part's headers; False where it was the last boundary."""
        self._need(2)
        if self._buffer[:2] == b"--":
            return False
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_PART_HEADERS:
                raise MultipartFaultError("the headers of a part are too long")
            self._need(len(self._buffer) + 1)
        del self._buffer[: at + 4]
        self._buffer[:0] = b"\r\n"  # of an empty part, whose delimiter follows its headers at once
        return True

    def content(self) -> Iterator[bytes]:
        """What stands before the next boundary, piece by piece."""
        held = len(self._delimiter) - 1  # a boundary may begin in these last bytes
        begin = 2  # the line break that `enter_part` put there belongs to no content
        while (at := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) - held > begin:
                piece = bytes(self._buffer[begin:-held])
                del self._buffer[:-held]
                begin = 0
                yield piece
            if not self._more():
                raise MultipartFaultError("the answer ends early")
        piece = bytes(self._buffer[begin:at])
        del self._buffer[: at + len(self._delimiter)]
        if piece:
            yield piece
