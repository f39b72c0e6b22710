"""The child process that decodes: what a hostile codestream does to it stays there (X5, X6)."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from codestreams_made import LOSSLESS, ct_values, form_of, made, made_lossy
from pydicom import uid

from ctpipe.dicom import codec_child, codec_host
from ctpipe.dicom.codec_host import Job, decode_apart
from ctpipe.dicom.codestreams import CodestreamFaultError
from ctpipe.dicom.pixels import decode
from ctpipe.errors import RunError

JOB = Job(codec_child.JPEG_LS, 12, 4, 6, "u2")
FORM = form_of(uid.JPEGLSLossless)

# The product's own child, but with a codec that does what the first byte of the codestream says.
HOSTILE = """
import importlib.util, os, resource, signal, sys, time
spec = importlib.util.spec_from_file_location("codec_child", {child!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)

def deed(source, out, precision):
    what = chr(source[0])
    if what == "s": os.kill(os.getpid(), signal.SIGSEGV)
    if what == "h":
        while True: pass
    if what == "m": out[...] = len(bytearray(1 << 30)) >> 30
    if what == "p": [os.write(n, b"Doe^Jane" * 100) for n in (1, 2)]
    if what == "c": out[...] = [resource.getrlimit(w)[1] for w in
        (resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE)] * 2
    if what == "e": out[...] = "CTPIPE_SECRET" in os.environ
    if what == "i": time.sleep(0.2); out[...] = os.getpid() & 0xFFFF
    if what == "t": os.ftruncate(int(sys.argv[2]), 0)
    if what == "o":
        marker = sys.argv[-1]
        if not os.path.exists(marker): open(marker, "w").close(); os.kill(os.getpid(), signal.SIGKILL)
        out[...] = 7
    if what == "x": raise KeyError("Doe^Jane")
    if what == "7": out[...] = 7

child.DECODERS[child.JPEG_LS] = (lambda: None, deed)
child.main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
"""


@pytest.fixture
def fresh(monkeypatch):
    """Children of this test's own, ended after it."""
    pool = codec_host._Pool()
    monkeypatch.setattr(codec_host, "_pool", pool)
    yield pool
    pool.end()


@pytest.fixture
def hostile(fresh, monkeypatch, tmp_path):
    """As `fresh`, with a codec that does evil on request."""
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE.format(child=codec_child.__file__))
    monkeypatch.setattr(codec_host, "CHILD_SCRIPT", script)
    return fresh


def pids(pool):
    return [child._process.pid for child in pool._all]


def is_gone(pid, seconds=20.0):
    """Whether a process ends within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def must_work(pool):
    assert (decode_apart(b"7", JOB) == 7).all()
    assert len(pids(pool)) == 1


@pytest.mark.parametrize(
    ("deed", "words"), [(b"s", "crashed"), (b"m", "cannot be decoded"), (b"x", "cannot be decoded")],
    ids=["a segmentation fault", "an allocation of 1 GiB", "an exception"],
)  # fmt: skip
def test_what_a_codestream_does_to_the_codec_is_its_own_fault_and_the_next_one_decodes(hostile, deed, words):
    """X6."""
    with pytest.raises(CodestreamFaultError, match=words) as caught:
        decode_apart(deed, JOB)
    assert caught.value.reason == "decode"
    assert "Doe" not in str(caught.value)
    assert caught.value.__cause__ is None
    must_work(hostile)


def test_a_hang_is_ended_and_the_next_codestream_decodes(hostile, monkeypatch):
    """X6."""
    monkeypatch.setattr(codec_host, "FRAME_SECONDS", 0.3)
    must_work(hostile)
    (pid,) = pids(hostile)
    with pytest.raises(CodestreamFaultError, match="does not decode within") as caught:
        decode_apart(b"h", JOB)
    assert caught.value.reason == "decode"
    assert is_gone(pid, 0.1)
    must_work(hostile)


def test_a_child_that_something_else_ended_costs_no_frame(hostile):
    """X6: the kernel may kill it for want of memory; the codestream is not at fault."""
    must_work(hostile)
    os.kill(pids(hostile)[0], signal.SIGKILL)
    must_work(hostile)


def test_a_child_that_ends_once_while_it_decodes_is_asked_again(hostile, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "ended-once")])
    assert (decode_apart(b"o", JOB) == 7).all()
    assert (tmp_path / "ended-once").exists()


def test_nothing_that_a_codec_prints_is_seen(hostile, capfd):
    """P3: a C library may print what the file holds."""
    decode_apart(b"p", JOB)
    assert capfd.readouterr() == ("", "")


def test_the_child_has_limits_and_not_the_parents_environment(hostile, monkeypatch):
    """X6, X13."""
    monkeypatch.setenv("CTPIPE_SECRET", "token")
    assert not decode_apart(b"e", JOB).any()
    assert decode_apart(b"c", JOB)[0, :3].tolist() == [0, 0, codec_child.OPEN_FILES]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files that cannot be shrunk are Linux's")
def test_the_child_cannot_take_the_shared_memory_from_under_its_parent(hostile):
    """X6: a read beyond the end of a file that is mapped ends the process."""
    with pytest.raises(CodestreamFaultError):
        decode_apart(b"t", JOB)
    must_work(hostile)


def test_a_frame_beyond_the_ceiling_of_memory_is_refused_without_a_child(fresh):
    """X5."""
    with pytest.raises(CodestreamFaultError) as caught:
        decode_apart(b"7", Job(codec_child.JPEG_2000, 12, 60000, 60000, "u2"))
    assert caught.value.reason == "bomb"
    assert not pids(fresh)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1, uid.RLELossless])
def test_a_large_frame_decodes_within_its_limits_and_leaves_no_large_child(fresh, monkeypatch, syntax):
    """The room that the limits give is enough for four times the usual width and height."""
    monkeypatch.setattr(codec_host, "KEPT_BYTES", 4 << 20)
    form = form_of(syntax, (2048, 2048))
    values = np.tile(ct_values(form_of(syntax, (64, 64))), (32, 32))
    assert np.array_equal(decode(made(values, form), form), values)
    assert not pids(fresh)


def test_threads_have_a_child_each_and_one_thread_has_one(hostile):
    """X6: as many children as threads that decode at once."""
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(decode_apart(b"i", JOB)[0, 0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 2
    assert decode_apart(b"i", JOB)[0, 0] in seen
    assert len(pids(hostile)) == 2


def test_the_child_is_not_in_the_terminals_process_group(fresh):
    """Ctrl-C is the parent's to answer."""
    decode(made(ct_values(FORM), FORM), FORM)
    assert os.getpgid(pids(fresh)[0]) != os.getpgid(0)


PARENT = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from ctpipe.dicom import codec_host
from test_codec_child import JOB
codec_host.CHILD_SCRIPT = Path({script!r})
codec_host.FRAME_SECONDS = {seconds}
codec_host.decode_apart(b"7", JOB)
print(codec_host._pool._all[0]._process.pid, flush=True)
codec_host.decode_apart(b"h", JOB) if {hang} else sys.stdin.read()
"""


@pytest.mark.parametrize("hang", [False, True], ids=["idle", "in a hang"])
def test_the_child_ends_when_its_parent_is_killed(hostile, hang):
    """X6: idle, by the end of its socket; in a hang, by a timer of its own, one second after the parent's limit."""
    paths = [str(Path(__file__).parent), str(Path(codec_host.__file__).parents[2])]
    code = PARENT.format(paths=paths, script=str(codec_host.CHILD_SCRIPT), hang=hang, seconds=3)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid, 0.3)
        parent.kill()
    assert is_gone(pid)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_children_of_its_own(fresh):
    """Answers never cross over to another process."""
    data, values = made(ct_values(FORM), FORM), ct_values(FORM)
    decode(data, FORM)
    (mine,) = pids(fresh)
    reading, writing = os.pipe()
    forked = os.fork()
    if not forked:
        right = False
        try:
            codec_host._pool.forget()  # the pool of this test; that of the module is told by itself
            right = bool((decode(data, FORM) == values).all()) and mine not in pids(fresh)
            fresh.end()
        finally:
            os.write(writing, b"y" if right else b"n")
            os._exit(0)
    assert os.read(reading, 1) == b"y"
    os.waitpid(forked, 0)
    os.close(reading)
    os.close(writing)
    assert np.array_equal(decode(data, FORM), values)
    assert pids(fresh) == [mine]


def test_a_decoder_that_is_missing_is_named(fresh, monkeypatch, tmp_path):
    script = tmp_path / "without.py"
    script.write_text(f"import runpy, sys\nsys.modules['imagecodecs'] = None\n"
                      f"runpy.run_path({codec_child.__file__!r}, run_name='__main__')\n")  # fmt: skip
    monkeypatch.setattr(codec_host, "CHILD_SCRIPT", script)
    with pytest.raises(CodestreamFaultError, match="pip install imagecodecs") as caught:
        decode(made(ct_values(FORM), FORM), FORM)
    assert caught.value.reason == "transfer-syntax"


def test_a_child_that_does_not_start_is_no_fault_of_the_file(fresh, monkeypatch, tmp_path):
    monkeypatch.setattr(codec_host, "CHILD_SCRIPT", tmp_path / "absent.py")
    with pytest.raises(RunError, match="does not start"):
        decode(made(ct_values(FORM), FORM), FORM)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no smaps_rollup")
def test_a_child_with_every_codec_loaded_takes_less_than_60_mib(fresh):
    for syntax in (*LOSSLESS, uid.JPEGExtended12Bit):
        form = form_of(syntax, (512, 512), bits=12 if syntax == uid.JPEGExtended12Bit else 16)
        make = made_lossy if syntax == uid.JPEGExtended12Bit else made
        decode(make(ct_values(form), form), form)
    (pid,) = pids(fresh)
    rollup = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    assert int(rollup["Pss"].split()[0]) < 60 << 10
