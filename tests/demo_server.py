"""Start the demo as a person starts it, for the tests."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Demo:
    """A running demo."""

    url: str
    process: int
    files: Path  # where it keeps uploads
    log: Path


@contextmanager
def serving(folder: Path, *options, **environment: str) -> Iterator[Demo]:
    """The demo with these options of app.py; its uploads and its log are in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = Demo(f"http://127.0.0.1:{port}/", 0, folder / "files", folder / "log.txt")
    command = [sys.executable, ROOT / "app.py", "--port", str(port), *options]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(demo.files)} | environment
    with demo.log.open("w") as output:
        streams = {"stdout": output, "stderr": output}
        server = subprocess.Popen(command, cwd=folder, env=environment, **streams)
    try:
        _wait_for(server, demo)
        yield Demo(demo.url, server.pid, demo.files, demo.log)
        assert server.poll() is None, f"the demo has ended:\n{demo.log.read_text()[-2000:]}"
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(server: subprocess.Popen, demo: Demo, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(demo.url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    pytest.fail(f"the demo did not start:\n{demo.log.read_text()}")
