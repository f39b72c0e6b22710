"""Decodes in a process of its own what only C libraries decode (DESIGN 5, RELIABILITY X6).

A crash, a hang, a refusal or a want of memory there is a fault of that codestream and of nothing else: the next one
decodes in a fresh process. Each thread that decodes has a child to itself while it does, so threads do not wait for one
another; waiting for a child leaves the interpreter to other threads.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import mmap
import os
import select
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom import codec_child
from ctpipe.dicom.codestreams import CodestreamFaultError
from ctpipe.errors import RunError

CHILD_SCRIPT = Path(codec_child.__file__)
START_SECONDS = 120.0  # importing from a cold network folder
FRAME_SECONDS = 10.0
# OpenJPEG, the slowest, decodes some 10 million voxels a second: ten times that for a slow machine.
SECONDS_PER_VOXEL = 1e-6
# Private writable memory of a child that has loaded every codec is 60 MiB; the rest is room for tables and heaps.
MEMORY_FLOOR = 192 << 20
# Measured at 4096 x 4096, 16 bits: GDCM 14 bytes a voxel, OpenJPEG 6, libjpeg-turbo 6; twice the most.
MEMORY_PER_VOXEL = 32
# A child whose shared memory grew beyond this is not kept after the frame.
KEPT_BYTES = 64 << 20
_ALIGN = 64
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """What one codestream decodes to: codec (of codec_child), precision in bits, rows, columns, and the pixels' dtype.

    All of it is the codestream's own header, held against the data set's before: a decoder allocates what it says.
    """

    codec: int
    precision: int
    rows: int
    columns: int
    dtype: str

    @property
    def memory_bytes(self) -> int:
        """Private memory that the child may have while it decodes this."""
        return MEMORY_FLOOR + MEMORY_PER_VOXEL * self.rows * self.columns

    @property
    def seconds(self) -> float:
        """Wall time that the child may take."""
        return FRAME_SECONDS + SECONDS_PER_VOXEL * self.rows * self.columns


def decode_apart(data: bytes, job: Job) -> NDArray[np.generic]:
    """Pixels (rows, columns) of job.dtype of one codestream, decoded by a child process.

    Raises CodestreamFaultError where it does not decode within its limits, RunError where no child can be started.
    """
    if job.memory_bytes > codec_child.MEMORY_CEILING:
        raise CodestreamFaultError("bomb", "the frame is too large: decoding it takes more memory than is given to one")
    for attempt in (1, 2):
        child = _pool.take()
        try:
            answer = child.load(job)
            if answer == codec_child.DONE:
                answer = child.decode(data, job)
            if answer == codec_child.DONE:
                return child.pixels(len(data), job)
        except _DiedError:
            # Something else may have ended it, such as the kernel for want of memory: a codestream that kills a child
            # kills the second one too.
            if attempt == 2:
                raise CodestreamFaultError("decode", "the codec crashed on the codestream: corrupt") from None
            continue
        except BaseException:
            child.end()
            raise
        finally:
            _pool.give_back(child)
        break
    if answer == codec_child.MISSING:
        package = "python-gdcm" if job.codec == codec_child.JPEG_LOSSLESS else "imagecodecs"
        raise CodestreamFaultError("transfer-syntax", f"its decoder is not installed: pip install {package}")
    raise CodestreamFaultError("decode", "the codestream cannot be decoded: corrupt or not supported")


class _DiedError(Exception):
    """The child ended before it answered."""


class _Child:
    """One child process with its socket and its shared memory. One thread at a time."""

    def __init__(self) -> None:
        self.ended = False
        self._loaded: dict[int, int] = {}
        self._channel, theirs = socket.socketpair()
        self._shared = _shared_file()
        os.ftruncate(self._shared, mmap.PAGESIZE)
        self._memory = mmap.mmap(self._shared, mmap.PAGESIZE)
        paths = [path for path in sys.path if path]  # never the working directory
        command = [sys.executable, "-I", "-S", str(CHILD_SCRIPT), str(theirs.fileno()), str(self._shared), *paths]
        kept = {name: value for name, value in os.environ.items() if name in ("LD_LIBRARY_PATH", "TMPDIR")}
        try:
            # A process group of its own: Ctrl-C is for the parent to answer.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._shared), process_group=0,
                env={**kept, **dict.fromkeys(_THREADS, "1"), "LC_ALL": "C"},
            )  # fmt: skip
        except OSError:
            self.let_go()
            raise _cannot_start() from None
        finally:
            theirs.close()

    def load(self, job: Job) -> int:
        """Has the codec of `job` imported there: DONE or MISSING. Raises RunError where that fails otherwise."""
        if job.codec not in self._loaded:
            fresh = not self._loaded
            request = codec_child.REQUEST.pack(codec_child.LOAD, job.codec, 0, b"", 0, 0, 0, 0, 0, 0.0)
            try:
                answer = self._ask(request, START_SECONDS)
            except _DiedError:
                if fresh:
                    raise _cannot_start() from None
                raise
            if answer is None:
                raise _cannot_start()
            self._loaded[job.codec] = answer
        return self._loaded[job.codec]

    def decode(self, data: bytes, job: Job) -> int:
        """Has `data` decoded into the shared memory: DONE or REFUSED. Raises CodestreamFaultError at a hang."""
        at = _pixels_at(len(data))
        itemsize = np.dtype(job.dtype).itemsize
        self._grow(at + job.rows * job.columns * itemsize)
        self._memory[: len(data)] = data
        request = codec_child.REQUEST.pack(
            codec_child.DECODE, job.codec, job.precision, job.dtype.encode(), job.rows, job.columns, len(data), at,
            job.memory_bytes, job.seconds + 1,
        )  # fmt: skip
        answer = self._ask(request, job.seconds)
        if answer is None:
            raise CodestreamFaultError("decode", f"the codestream does not decode within {job.seconds:.0f} s: corrupt")
        return answer

    def pixels(self, length: int, job: Job) -> NDArray[np.generic]:
        """The pixels that `decode` of `length` bytes left, as an array of their own."""
        return np.ndarray((job.rows, job.columns), job.dtype, self._memory, _pixels_at(length)).copy()

    def _grow(self, size: int) -> None:
        if size > len(self._memory):
            os.ftruncate(self._shared, size)
            self._memory.close()
            self._memory = mmap.mmap(self._shared, size)

    def _ask(self, request: bytes, seconds: float) -> int | None:
        """The answer, None where there is none in time. Raises _DiedError."""
        try:
            self._channel.sendall(request)
            waiting = select.poll()
            waiting.register(self._channel, select.POLLIN)
            # Asked once more at the end: this process may have been stopped meanwhile, and the answer be there.
            if not waiting.poll(seconds * 1000) and not waiting.poll(0):
                self.end()
                return None
            answer = self._channel.recv(1)
        except OSError:
            answer = b""
        if not answer:
            self.end()
            raise _DiedError
        return answer[0]

    def end(self) -> None:
        """Kills it, and waits until it is gone."""
        if not self.ended:
            self._process.kill()
            self._process.wait()
            self.let_go()

    def end_if_large(self) -> None:
        """Ends it where a frame made its shared memory large."""
        if not self.ended and len(self._memory) > KEPT_BYTES:
            self.end()

    def forget(self) -> None:
        """After a fork: it is the other process's child, and must see that one end."""
        self._process.returncode = 0  # not ours to wait for
        with contextlib.suppress(OSError, BufferError):
            self.let_go()

    def let_go(self) -> None:
        """Closes this side; the child ends by itself once no process holds it."""
        if not self.ended:
            self.ended = True
            self._channel.close()
            os.close(self._shared)
            self._memory.close()


def _pixels_at(length: int) -> int:
    return -(-length // _ALIGN) * _ALIGN


def _shared_file() -> int:
    """A file to share; where the system can see to it, no child can shrink it below what is mapped here."""
    handle = codec_child.nameless_file()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return handle


def _cannot_start() -> RunError:
    return RunError(
        "the process that decodes compressed pixels does not start",
        "see that memory is left and that more processes may be started, then repeat",
    )


class _Pool:
    """Children that wait for work; as many as threads ever decoded at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._all: list[_Child] = []

    def take(self) -> _Child:
        """A child for the caller alone."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        child = _Child()
        with self._lock:
            self._all.append(child)
        return child

    def give_back(self, child: _Child) -> None:
        """For the next one who asks, unless it ended or grew large."""
        child.end_if_large()
        with self._lock:
            if child.ended:
                self._all.remove(child)
            else:
                self._idle.append(child)

    def end(self) -> None:
        """Ends every child."""
        with self._lock:
            for child in self._all:
                child.end()
            self._all.clear()
            self._idle.clear()

    def forget(self) -> None:
        """After a fork: starts with no children."""
        for child in self._all:
            child.forget()
        self._lock, self._idle, self._all = threading.Lock(), [], []


_pool = _Pool()
atexit.register(_pool.end)
os.register_at_fork(after_in_child=_pool.forget)
