"""The process that holds the C codecs: compressed bytes in, pixels out, under limits that it sets on itself.

`codec_host` starts it by its file, so it imports nothing of ctpipe. It answers one request at a time on a socket and
ends when the socket does, which is when its parent ends, however that ends. Bytes and pixels lie in memory that both
map. What a C library prints never reaches a terminal: it may quote the file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

# What is asked: LOAD or DECODE, codec, precision, type of the pixels; rows, columns; bytes of the codestream, which
# begins the shared memory; where the pixels begin; bytes of memory and seconds that may be used.
REQUEST = struct.Struct("<BBB2sIIQQQd")
LOAD, DECODE = 1, 2
# The answer, one byte.
DONE, REFUSED, MISSING = 1, 2, 3

JPEG_LS, JPEG_2000, JPEG_DCT, JPEG_LOSSLESS, RLE = 1, 2, 3, 4, 5

# No request may use more than this: the child cannot raise its own limit above it.
MEMORY_CEILING = 4 << 30
OPEN_FILES = 64
PRINTED_BYTES = 1 << 20

Decoder = Callable[[Any, Any, int], None]  # codestream (bytes,), pixels (rows, columns) to fill, precision


def _jpeg_ls(source: Any, out: Any, precision: int) -> None:
    import imagecodecs

    imagecodecs.jpegls_decode(source, out=out)


def _jpeg_2000(source: Any, out: Any, precision: int) -> None:
    """OpenJPEG, for HTJ2K too: imagecodecs loses the errors of OpenJPH, and a damaged plane would look whole."""
    import imagecodecs

    imagecodecs.jpeg2k_decode(source, out=out, numthreads=1)


# Stands where a scan that ends early lacks bits; any bytes that are no marker and no run of zeros would do.
_TAIL = b"\x5a\xc3" * 64 + b"\xff\xd9"


def _jpeg_dct(source: Any, out: Any, precision: int) -> None:
    """Libjpeg-turbo fills a scan that ends early and does not say so; what it fills with differs if more bytes follow.

    So the codestream is decoded again with other bytes before its end: a whole one does not look at them.
    """
    import imagecodecs
    import numpy as np

    imagecodecs.jpeg8_decode(source, out=out)
    body = source.tobytes()
    longer = imagecodecs.jpeg8_decode(body[: body.rindex(b"\xff\xd9")] + _TAIL)
    if not np.array_equal(longer, out):
        raise ValueError


def _jpeg_lossless(source: Any, out: Any, precision: int) -> None:
    """GDCM: its libjpeg fills a damaged scan like others do, but says so on stderr, which is a file here."""
    import gdcm
    import numpy as np

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source.tobytes())
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((out.shape[1], out.shape[0], 1))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2"))
    )
    syntax = gdcm.TransferSyntax.GetTSType("1.2.840.10008.1.2.4.57")
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits = max(precision, 8)  # it aborts the process where fewer are stored than allocated
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 * out.itemsize, bits, bits - 1, 0))
    image.SetDataElement(element)
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    text = image.GetBuffer()  # a str that stands for bytes, or None
    said = os.pread(2, PRINTED_BYTES, 0)
    if text is None or b"Corrupt JPEG" in said or b"Premature" in said:
        raise ValueError
    out[...] = np.frombuffer(text.encode("utf-8", "surrogateescape"), out.dtype).reshape(out.shape)


def _rle(source: Any, out: Any, precision: int) -> None:
    import imagecodecs

    filled = imagecodecs.dicomrle_decode(source, out.dtype, out=memoryview(out).cast("B"))
    if len(filled) != out.nbytes:
        raise ValueError


def _load_gdcm() -> None:
    import gdcm

    gdcm.Trace.DebugOff()
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()


def _load_imagecodecs(name: str) -> Callable[[], None]:
    def load() -> None:
        import imagecodecs

        if not getattr(imagecodecs, name).available:
            raise ImportError(name)

    return load


DECODERS: dict[int, tuple[Callable[[], None], Decoder]] = {
    JPEG_LS: (_load_imagecodecs("JPEGLS"), _jpeg_ls),
    JPEG_2000: (_load_imagecodecs("JPEG2K"), _jpeg_2000),
    JPEG_DCT: (_load_imagecodecs("JPEG8"), _jpeg_dct),
    JPEG_LOSSLESS: (_load_gdcm, _jpeg_lossless),
    RLE: (_load_imagecodecs("DICOMRLE"), _rle),
}


def main(channel: int, shared: int, paths: list[str]) -> None:
    """Serves until the socket `channel` ends; shared: the file that both map; paths: where the codecs are imported."""
    sys.path[:] = paths
    ceiling = _set_limits()
    memory = mmap.mmap(-1, 1)
    while True:
        request = _read_exactly(channel, REQUEST.size)
        if request is None:
            return
        task, codec, precision, kind, rows, columns, length, at, limit, seconds = REQUEST.unpack(request)
        if task == LOAD:
            answer = _load(codec)
        else:
            if len(memory) < os.fstat(shared).st_size:
                memory = mmap.mmap(shared, 0)
            resource.setrlimit(resource.RLIMIT_DATA, (min(limit, ceiling), ceiling))
            # Not caught: the kernel ends this process also inside a C library, also when the parent is gone.
            signal.setitimer(signal.ITIMER_REAL, seconds)
            answer = _decode(memory, codec, precision, kind.decode(), (rows, columns), length, at)
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
        os.write(channel, bytes([answer]))


def _read_exactly(channel: int, count: int) -> bytes | None:
    """That many bytes, or None at the end."""
    got = b""
    while len(got) < count:
        more = os.read(channel, count - len(got))
        if not more:
            return None
        got += more
    return got


def _load(codec: int) -> int:
    try:
        DECODERS[codec][0]()
    except (ImportError, AttributeError, KeyError):
        return MISSING
    return DONE


def _decode(
    memory: mmap.mmap, codec: int, precision: int, kind: str, shape: tuple[int, int], length: int, at: int
) -> int:
    import numpy as np

    source = np.frombuffer(memory, np.uint8, length)
    out = np.ndarray(shape, kind, memory, at)
    try:
        DECODERS[codec][1](source, out, precision)
    except Exception:  # a codec's refusal, of any type; its text may quote the file
        return REFUSED
    return DONE


def _set_limits() -> int:
    """No core file (it would hold the plane), no new process, few files, little written, memory; nothing printed.

    Returns the bytes of memory up to which it may raise its own limit.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, PRINTED_BYTES),
        (resource.RLIMIT_DATA, MEMORY_CEILING),
    ):
        hard = resource.getrlimit(what)[1]
        lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (lower, lower))
    os.dup2(nameless_file(), 2)
    return lower


def nameless_file() -> int:
    """A descriptor of an empty file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("codec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # the parent went away meanwhile
        main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
