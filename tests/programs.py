"""Runs as programs of their own, see runner.py."""

import json
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parent / "runner.py"


def begin(workdir, environment, **options) -> subprocess.Popen:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.Popen(
        [sys.executable, RUNNER, workdir, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def end(process, code=0) -> tuple[dict, str]:
    """What a run printed last, and what it told; its exit code is this one."""
    out, told = process.communicate(timeout=240)
    assert process.returncode == code, told
    lines = out.strip().splitlines()
    return json.loads(lines[-1]) if lines else {}, told
