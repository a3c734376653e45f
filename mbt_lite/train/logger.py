"""Log a run: averages and speed, a progress line, metrics.jsonl, TensorBoard, curves."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from mbt_lite import plot
from mbt_lite.config import Experiment
from mbt_lite.model.flops import model_cost
from mbt_lite.paths import write_text
from mbt_lite.train import sharding

Row = dict[str, Any]
_FORMATS = {  # of values on the progress line
    "loss": "loss {:.4g}",
    "clips_per_s": "{:.4g} clips/s",
    "waiting": "waiting {:.0%}",
    "mfu": "MFU {:.0%}",
}


class MetricLogger:
    """The logged rows of a run; a resumed run drops the rows after its saved step.

    Only the process that leads writes files; the others hold rows in memory.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        step: int,
        steps: int,
        *,
        quiet: bool = False,
        live: Callable[[list[Row]], None] | None = None,
    ):
        self.path, self.live = folder / "metrics.jsonl", live or live_plot()
        self.leads = jax.process_index() == 0
        self.rows = _read(self.path, step)
        self.latest: Row = {}
        hidden = quiet or not self.leads
        self.bar = tqdm(total=steps, initial=step, unit="step", desc=name, disable=hidden)
        for row in self.rows:
            self.latest |= row
        if self.leads:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, values: Row) -> None:
        """Log one row: on the progress line, to metrics.jsonl and to TensorBoard."""
        row = {"step": step} | {name: _rounded(value) for name, value in values.items()}
        self.rows.append(row)
        self.latest |= row
        if not self.leads:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name.replace(" ", "_"), value, step)
        self._show_latest()
        if self.live:
            self.live(self.rows)

    def advance(self) -> None:
        """Count one step on the progress line."""
        self.bar.update()

    def close(self) -> None:
        self.bar.close()
        if self.leads:
            self.board.close()

    def _show_latest(self) -> None:
        parts = [text.format(self.latest[k]) for k, text in _FORMATS.items() if k in self.latest]
        score = next((k for k in ("mAP", "action top-1") if k in self.latest), None)
        parts[1:1] = [f"{score} {self.latest[score]:.3f}"] if score else []
        self.bar.set_postfix_str(", ".join(parts))


class Meter:
    """Average the metrics of steps, and measure speed, since the last logged row."""

    def __init__(self, experiment: Experiment):
        self.batch, backward = experiment.train.batch, 2 * (experiment.train.trained == "all")
        self.flops = model_cost(experiment.model).flops * (1 + backward)
        self.peak = sharding.peak_flops(experiment.model.dtype)
        self.restart()

    def restart(self) -> None:
        self.metrics: list[dict] = []
        self.steps, self.waited, self.start = 0, 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of the block."""
        start = time.perf_counter()
        yield
        self.start += time.perf_counter() - start

    def add(self, metrics: dict, finite: bool) -> None:
        """Count one step; of a skipped one only its time."""
        self.steps += 1
        self.metrics += [metrics] * finite

    def row(self) -> Row:
        """The row to log; the next one starts now."""
        seconds = time.perf_counter() - self.start
        speed = self.steps * self.batch / seconds
        names = self.metrics[0] if self.metrics else ()
        row = {k: float(np.mean([metrics[k] for metrics in self.metrics])) for k in names}
        row |= {"clips_per_s": speed, "seconds": seconds}
        row |= {"waiting": min(self.waited / seconds, 1.0), "mfu": speed * self.flops / self.peak}
        self.restart()
        return row


def _rounded(value) -> float | int:
    return value if isinstance(value, int) else float(f"{float(value):.6g}")


def _read(path: Path, before: int) -> list[Row]:
    """The rows up to a step; a line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= before:
            rows.append(row)
    return rows


def live_plot() -> Callable[[list[Row]], None] | None:
    """A function that redraws the curves in place in a notebook; None outside notebooks."""
    if "IPython" not in sys.modules:
        return None
    from IPython import display, get_ipython

    shell = get_ipython()
    if shell is None or not getattr(shell, "kernel", None):
        return None
    handle = display.display(display_id=True)

    def draw(rows: list[Row]) -> None:
        if len(rows) > 1:
            handle.update(plot.training(rows))

    return draw
