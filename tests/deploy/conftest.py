"""A real Prefect server and process worker on loopback, in a home of their own, ended with the session."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """home: everything that Prefect keeps, its database and the logs of server and worker included."""

    url: str
    home: Path
    environment: dict[str, str]

    def call(self, *arguments: str, cwd: Path = REPOSITORY, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `python -m …` against this server; what it prints is kept in the home, as a terminal log would."""
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, env=self.environment, text=True,
                              capture_output=True, timeout=240, check=False)  # fmt: skip
        with (self.home / "commands.log").open("a") as log:
            log.write(done.stdout + done.stderr)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process_group(
    log: Path, environment: dict[str, str], cwd: Path, *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m …` in a process group of its own, which is gone at the end, children included."""
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=cwd, env=environment, stdout=out,
                                   stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server on 127.0.0.1 without UI and analytics; nothing is deployed on it."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment = kept | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    start = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    with process_group(home / "server.log", environment, home, *start) as process:
        wait_for(f"http://127.0.0.1:{port}/api/health", process, home / "server.log")
        yield Server(f"http://127.0.0.1:{port}/api", home, environment)


@pytest.fixture(scope="session")
def worker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with a process worker that was started in another folder than the repository."""
    arguments = ("prefect", "worker", "start", "--pool", "ct-process", "--type", "process", "--limit", "1")
    folder = tmp_path_factory.mktemp("worker")
    with process_group(server.home / "worker.log", server.environment, folder, *arguments):
        yield server


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"no Prefect server: {log.read_text()[-2000:]}")
