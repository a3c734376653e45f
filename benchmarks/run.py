"""Run the benchmarks and write their table; each number is compared with a named alternative.

timing.py alternates the two sides, parts.py and model.py have the cases, others.py runs other
libraries, growth.py measures the cost of growing models.
"""

import json
import os
import platform
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from benchmarks import beside_torch, model, parts
from benchmarks.timing import seconds
from mbt_lite import paths
from mbt_lite.train import sharding

CASES = (
    model.CASES | beside_torch.CASES | parts.CASES
)  # the largest first, while this process is small


def measure(only: str = "", python: str | None = None) -> dict:
    """{"machine": its facts and limits, "rows": {case: row}, "left out": {case: reason}}.

    A row has the median `seconds` of ours and `alternative_seconds`, measured alternately, their
    `ratio` (above 1: ours is faster) and its `spread`. `only` selects cases by a part of their
    names; `python` is another Python, with more libraries to compare with.
    """
    selected = {name: case for name, case in CASES.items() if only in name}
    if not selected:
        raise ValueError(f"no case holds {only!r}; there are {'; '.join(CASES)}.")
    results = {"machine": machine(), "rows": {}, "left out": {}}
    with tempfile.TemporaryDirectory() as folder:
        place = parts.Place(Path(folder), python or sys.executable)
        for name, case in tqdm(selected.items(), desc="bench", unit="case"):
            result = case(place)
            results["left out" if isinstance(result, str) else "rows"][name] = result
    results["machine"]["GFLOP/s of a matrix product"].append(sharding.peak_flops() / 1e9)
    return results


def machine() -> dict:
    """Facts about this machine, and its limits: matrix products, copies of memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    source, target = np.ones((2, 1 << 25), np.float32)  # 128 MiB each
    copying = min(seconds(lambda: np.copyto(target, source)) for _ in range(5))
    return {
        "date": date.today().isoformat(),
        "processor": f"{len(os.sched_getaffinity(0))} cores of {_processor()}",
        "memory in GiB": round(memory),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {name: version(name) for name in ("jax", "flax", "numpy", "scipy", "av")},
        "python": platform.python_version(),
        "GFLOP/s of a matrix product": [sharding.peak_flops() / 1e9],
        "GB/s of a memory copy": 2 * source.nbytes / copying / 1e9,
    }


def _processor() -> str:
    """The processor's name, and whether it has AVX-512."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    wide = "with" if "avx512f" in facts.get("flags", "") else "without"
    return f"{facts.get('model name', platform.machine())}, {wide} AVX-512"


def save(results: dict, folder: Path) -> None:
    """Save results.json, and a table in results.md."""
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    paths.write_text(folder / "results.md", table(results) + "\n")


def table(results: dict) -> str:
    """The results as Markdown: a sentence on the machine, and the table."""
    machine = results["machine"]
    reached = ", then ".join(f"{x:.0f}" for x in machine["GFLOP/s of a matrix product"])
    lines = [
        f"{machine['date']}: {machine['processor']}, {machine['memory in GiB']} GiB; "
        f"JAX {machine['versions']['jax']} on {machine['device']}. "
        f"A float32 matrix product reaches {reached} GFLOP/s, "
        f"a copy of memory {machine['GB/s of a memory copy']:.1f} GB/s.",
        "",
        "| what | ours | alternative | ratio (lowest-highest) |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in results["rows"].items():
        low, high = row["spread"]
        lines.append(
            f"| {name} | {_time(row['seconds'])} "
            f"| {row['alternative']}: {_time(row['alternative_seconds'])} "
            f"| {row['ratio']:.2f} ({low:.2f}-{high:.2f}) |"
        )
        lines += _more(row)
    return "\n".join([*lines, *_reasons(results["left out"])])


def _more(row: dict) -> list[str]:
    """Further lines of the table, for other quantities of a row."""
    lines = []
    if "of_peak" in row:
        share = row["of_peak"], row["of_peak"] / row["ratio"]
        lines.append("| share of a matrix product's speed | {:.0%} | {:.0%} | |".format(*share))
        lines.append(_memory("planned", *row["bytes"]))
    if None not in row.get("peak_bytes", [None]):
        lines.append(_memory("most of the process", *row["peak_bytes"]))
    if "compile_seconds" in row:
        mine, theirs = row["compile_seconds"]
        lines.append(f"| compilation | {mine:.1f} s | {theirs:.1f} s | {theirs / mine:.2f} |")
    if "more_bytes" in row:
        lines.append(f"| memory, planned | {row['more_bytes'] / 1e6:+.1f} MB | | |")
    if "bound" in row:
        share = row["bound"] / row["seconds"]
        what = "lower bound: the FFT alone, and one copy of input and output"
        lines.append(f"| {what} | {_time(row['bound'])}, {share:.0%} of ours | | |")
    if "parts" in row:
        steps = ", ".join(f"{name} {_time(part)}" for name, part in row["parts"].items())
        lines.append(f"| its steps separately: {steps} | | | |")
    return lines


def _memory(what: str, mine: int, theirs: int) -> str:
    sizes = f"{mine / 2**30:.2f} GiB | {theirs / 2**30:.2f} GiB | {theirs / mine:.2f}"
    return f"| memory, {what} | {sizes} |"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _reasons(left_out: dict[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    lines = [f"Left out: {'; '.join(names)}: {why}." for why, names in reasons.items()]
    return ["", *lines] if lines else []
