"""What every DICOM association of ours has in common: contexts, limits on what a peer may send, how files are kept.

pynetdicom waits for as many bytes as a peer announces, and holds what was not handled yet in memory; `Guard`
bounds both.
Its log lines may hold identifiers, so they are not passed on (RELIABILITY P3).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pydicom import uid

from ctpipe.dicom.inbox import GIB, Limits
from ctpipe.errors import UsageError

if TYPE_CHECKING:
    from pynetdicom import AE
    from pynetdicom.events import Event

MAX_PDU_BYTES = 8 << 20  # an association request with all contexts has some 100 kB; we ask for data in PDUs of this:
OUR_PDU_BYTES = 256 << 10
MAX_MESSAGE_BYTES = GIB  # of what is received and not handled yet: it is held in memory
MESSAGE_SECONDS = 600.0  # for one instance to arrive
# Services (PS3.4 annex A, C.6.2.3) and status codes of C-STORE (PS3.4 B.2.3).
VERIFICATION = "1.2.840.10008.1.1"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
STORED, NO_ROOM, NOT_WANTED, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000

_PLAIN = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian)
_PIXELS = (uid.ExplicitVRBigEndian, uid.RLELossless, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless,
           uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000,
           uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)  # fmt: skip
# What is received: CT, and the objects that hold truth labels.
STORAGE: Mapping[str, tuple[str, ...]] = {
    uid.CTImageStorage: (*_PLAIN, *_PIXELS),
    uid.EnhancedCTImageStorage: (*_PLAIN, *_PIXELS),
    uid.LegacyConvertedEnhancedCTImageStorage: (*_PLAIN, *_PIXELS),
    uid.SegmentationStorage: (*_PLAIN, uid.RLELossless),
    uid.RTStructureSetStorage: _PLAIN,
}


def application_entity(title: str, limits: Limits) -> AE:
    """A pynetdicom AE with a limit on every wait. Raises UsageError where pynetdicom is not installed."""
    try:
        import pynetdicom
    except ImportError:
        problem = "pynetdicom is not installed, without which there is no PACS"
        raise UsageError(problem, "pip install 'ctpipe[pacs]'") from None
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    pynetdicom._config.LOG_REQUEST_IDENTIFIERS = pynetdicom._config.LOG_RESPONSE_IDENTIFIERS = False
    entity = pynetdicom.AE(title)
    entity.connection_timeout = limits.connect_seconds
    entity.acse_timeout = limits.silence_seconds
    entity.network_timeout = limits.pace_seconds
    entity.dimse_timeout = 2 * limits.pace_seconds  # a whole instance, or the archive's time to find it on tape
    entity.maximum_pdu_size = OUR_PDU_BYTES
    return entity


class Guard:
    """Bounds what the peers of one AE may send. Handlers for pynetdicom: bind `opened` and call `handled`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._readers: WeakKeyDictionary[Any, _Reader] = WeakKeyDictionary()

    def opened(self, event: Event) -> None:
        """For evt.EVT_CONN_OPEN: reads of this connection are bounded from now on."""
        connection: Any = event.assoc.dul.socket
        connection.socket.settimeout(self._limits.silence_seconds)
        reader = _Reader(connection, self._limits)
        connection.recv = reader.recv
        self._readers[event.assoc] = reader

    def handled(self, assoc: Any) -> None:
        """One instance was handled: its bytes are no longer held."""
        reader = self._readers.get(assoc)
        if reader and assoc.dimse.msg_queue.empty():
            reader.held = 0


class _Reader:
    """Reads of one connection: a PDU has a limit on size and time, and so has all that is held in memory."""

    def __init__(self, connection: Any, limits: Limits) -> None:
        self._connection, self._limits = connection, limits
        self._largest = min(MAX_MESSAGE_BYTES, limits.instance_bytes)
        self.held = 0
        self._since = 0.0

    def recv(self, count: int) -> bytearray:
        """`count` bytes, fewer where the peer closes. Raises OSError beyond a limit; pynetdicom then closes."""
        now = time.monotonic()
        if not self.held:
            self._since = now
        self.held += count
        if count > MAX_PDU_BYTES or self.held > self._largest or now - self._since > MESSAGE_SECONDS:
            raise OSError("beyond a limit")
        data = bytearray()
        while len(data) < count:
            if time.monotonic() - now > self._limits.pace_seconds:
                raise TimeoutError("too slow")
            piece = self._connection.socket.recv(min(count - len(data), OUR_PDU_BYTES))
            if not piece:
                break
            data += piece
        return data


def keep_instance(event: Event, keep: Callable[[list[bytes | memoryview]], object]) -> None:
    """Hand the instance of a C-STORE request to `keep`: file meta group, then the data set, bytes as they came."""
    from pynetdicom.dsutils import encode_file_meta

    from ctpipe.dicom.parse import quiet

    with quiet():
        meta = b"\0" * 128 + b"DICM" + encode_file_meta(event.file_meta)
    request: Any = event.request
    with request.DataSet.getbuffer() as data:
        keep([meta, data])
