"""The demo under load, and without a network. All of it takes minutes."""

import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import damage
import pytest
from demo_server import ROOT, Demo, serving

gradio_client = pytest.importorskip("gradio_client")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

THREADS, ROUNDS = 32, 10
FULL = "queue is full"  # message of a busy demo, in lower case


def client_of(demo: Demo):
    return gradio_client.Client(demo.url, verbose=False, analytics_enabled=False)


def memory_of(demo: Demo) -> float:
    """MB resident in the server and all processes below it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pages = int((entry / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(entry.name)] = int(fields[1]), pages
    tree = {demo.process}
    while more := {child for child, (parent, _) in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(parents[process][1] for process in tree) * resource.getpagesize() / 1e6


def ask(client, path: Path) -> dict:
    return client.predict(gradio_client.handle_file(path), api_name="/predict")


@pytest.fixture
def demo(tmp_path):
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server") as running:
        yield running


# ---- many at once ----


def unique_copy(folder: Path, data: bytes, number: int) -> Path:
    """A copy of a clip with different bytes at the end, so that the demo stores it separately."""
    path = folder / f"clip_{number:03d}.mp4"
    path.write_bytes(data + (16).to_bytes(4) + b"free" + number.to_bytes(8))
    return path


def asked_until_answered(client, path: Path) -> tuple[float, Counter]:
    """Seconds until the answer, and counts of full queues and errors before it."""
    messages, rng = Counter(), random.Random(str(path))
    while True:
        began = time.monotonic()
        try:
            assert ask(client, path)["both"]
            return time.monotonic() - began, messages + Counter(answered=1)
        except Exception as error:
            full = FULL in str(error).lower()
            messages["full" if full else f"{type(error).__name__}: {error}"] += 1
            if not full:
                return time.monotonic() - began, messages
            time.sleep(rng.uniform(0.5, 1.5))


def test_32_threads_are_all_answered_and_the_server_does_not_grow(demo, tmp_path, capsys):
    data = damage.film(tmp_path / "clip.mp4", 3.0).read_bytes()
    paths = [unique_copy(tmp_path, data, i) for i in range(THREADS * ROUNDS)]
    clients = [client_of(demo) for _ in range(THREADS)]

    def work(thread: int, rounds: range) -> list:
        files = [paths[thread * ROUNDS + i] for i in rounds]
        return [asked_until_answered(clients[thread], path) for path in files]

    def all_threads(rounds: range) -> list:
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(lambda thread: work(thread, rounds), range(THREADS)), [])

    began = time.monotonic()
    outcomes = all_threads(range(1))
    first = memory_of(demo)
    outcomes += all_threads(range(1, ROUNDS))
    last, took = memory_of(demo), time.monotonic() - began
    said = sum((messages for _, messages in outcomes), Counter())
    times = statistics.quantiles([seconds for seconds, _ in outcomes], n=20)
    uploads = [path for path in demo.files.rglob("*") if path.is_file()]
    with capsys.disabled():
        print(
            f"\n{len(outcomes)} requests of {THREADS} threads in {took:.0f} s: {dict(said)}\n"
            f"an answer took {times[9]:.2f} s (p50), {times[18]:.2f} s (p95)\n"
            f"server: {first:.0f} MB after {THREADS}, {last:.0f} MB after {len(outcomes)}\n"
            f"{len(uploads)} uploads of {sum(p.stat().st_size for p in uploads) / 1e6:.1f} MB"
        )
    assert said.keys() <= {"answered", "full"} and said["answered"] == THREADS * ROUNDS
    assert last < 1.1 * first


# ---- no network ----


def outside() -> str:
    """The error of a connection to a machine on the internet."""
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=5).close()
    except OSError as error:
        return str(error)
    return "answered"


def asked_in_here(folder: str, path: str) -> None:
    """Start the demo, ask it once and print the answer: what the test runs without a network."""
    with serving(Path(folder)) as running:
        print(json.dumps({"outside": outside(), "answer": ask(client_of(running), Path(path))}))


def alone(*command) -> list[str]:
    """A command in a network of its own, which has nothing but the loopback."""
    return ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def test_the_demo_needs_no_network(tmp_path):
    if not shutil.which("unshare") or subprocess.run(alone("true"), capture_output=True).returncode:
        pytest.skip("this system allows no separate network")
    path = damage.film(tmp_path / "good.mp4", 3.0)
    program = f"import test_demo_load as t; t.asked_in_here({str(tmp_path)!r}, {str(path)!r})"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    ran = subprocess.run(
        alone(sys.executable, "-c", program),
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert "unreachable" in result["outside"]
    assert sum(result["answer"]["both"].values()) > 0
