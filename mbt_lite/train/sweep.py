"""Train a grid of variants with several seeds, and summarize them in one table.

A grid is {group: {variant: Experiment}}. A variant may stand in several groups; it is trained once
per seed, in a process of its own, and a run that is there already is kept.
"""

import csv
import io
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats
from tqdm import tqdm

from mbt_lite import plot
from mbt_lite.config import Experiment, to_dict
from mbt_lite.inference import load
from mbt_lite.model.flops import model_cost
from mbt_lite.paths import write_text

Grid = Mapping[str, Mapping[str, Experiment]]
Starts = Mapping[str, Experiment]
NO_STARTS: Starts = {}
BOTH = "both"


@dataclass(frozen=True)
class Outcome:
    """What one variant reaches over its seeds."""

    group: str
    variant: str
    parameters: int
    gflops: float  # of one clip
    values: tuple[float, ...]  # the score of each seed

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def half(self) -> float:
        """Half the 95 % interval of the mean by Student's t; nan for one seed."""
        count = len(self.values)
        if count < 2:
            return float("nan")
        return float(stats.t.ppf(0.975, count - 1) * np.std(self.values, ddof=1) / count**0.5)


def sweep(
    grid: Grid, workdir: str | Path, *, seeds: int = 3, jobs: int = 1, starts: Starts = NO_STARTS
) -> list[Path]:
    """The folders of all runs, trained where they were not, `jobs` at a time, each on its cores.

    `starts` are experiments by name that are trained first; a variant whose `start.model` is such a
    name goes on from that model. ValueError where a run fails, after the others have ended; the
    same call goes on.
    """
    folder, made = Path(workdir).absolute(), []
    for stage in (first_plans(starts, folder), plans(grid, folder, seeds, starts)):
        _train_all(stage, folder, jobs)
        made += list(stage)
    return made


def _train_all(stage: Mapping[Path, Experiment], folder: Path, jobs: int) -> None:
    waiting = [(run, plan) for run, plan in stage.items() if not _done(run)]
    cores, running, failed = _shares(jobs), {}, []
    with tqdm(total=len(waiting), desc=folder.name, unit="run") as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    place = next(i for i in range(jobs) if i not in running)
                    running[place] = _start(*waiting.pop(0), cores[place])
                for place, (run, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[place]
                        bar.update()
                        failed += [run] * (process.returncode != 0)
                time.sleep(0.2)
        finally:
            for _, process in running.values():
                process.terminate()  # it saves its state
            for _, process in running.values():
                process.wait()
    if failed:
        names = ", ".join(str(run.relative_to(folder)) for run in failed)
        raise ValueError(f"these runs failed, and their log.txt says why: {names}.")


def first_plans(starts: Starts, folder: Path) -> dict[Path, Experiment]:
    """{folder of a run: its experiment} of the models that variants start from."""
    made = [_in_folder(plan, folder) for plan in starts.values()]
    return {run_folder(folder, plan): plan for plan in made}


def plans(
    grid: Grid, folder: Path, seeds: int, starts: Starts = NO_STARTS
) -> dict[Path, Experiment]:
    """{folder of a run: its experiment}, each variant once per seed, all of a seed before the next.

    ValueError where two different variants have one name.
    """
    found: dict[Path, Experiment] = {}
    for seed in range(seeds):
        for made in [made for variants in grid.values() for made in variants.values()]:
            plan = replace(made, train=replace(made.train, seed=seed))
            if made.start.model in starts:
                first = run_folder(folder, starts[made.start.model])
                plan = replace(plan, start=replace(plan.start, model=str(first)))
            plan = _in_folder(plan, folder)
            if found.setdefault(run_folder(folder, plan), plan) != plan:
                raise ValueError(f"two different variants are called {plan.name}.")
    return found


def _in_folder(plan: Experiment, folder: Path) -> Experiment:
    """The plan with its clips kept beside the runs, if they are to be kept."""
    if not plan.data.keep:
        return plan
    return replace(plan, data=replace(plan.data, keep=str(folder / "clips")))


def run_folder(folder: Path, plan: Experiment) -> Path:
    return folder / plan.name / f"seed_{plan.train.seed}"


def _done(run: Path) -> bool:
    return (run / "README.md").exists()


def _shares(jobs: int) -> list[set[int]]:
    """The cores of each job; all have all where there are fewer cores than jobs."""
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // jobs
    if not each:
        return [set(cores)] * jobs
    return [set(cores[i * each : (i + 1) * each]) for i in range(jobs)]


def _start(run: Path, plan: Experiment, cores: set[int]) -> tuple[Path, subprocess.Popen]:
    """The run in a process of its own."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / "plan.json"
    write_text(path, json.dumps(to_dict(plan), indent=1))
    command = [sys.executable, "-m", "mbt_lite", "train", "--config", path, "--workdir", run]
    with (run / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, cores)
    return run, process


def outcomes(grid: Grid, workdir: str | Path, seeds: int, score: str) -> list[Outcome]:
    """One `Outcome` for each variant of each group, from the tests of its runs that have ended."""
    folder, found = Path(workdir).absolute(), []
    for group, variants in grid.items():
        for variant, made in variants.items():
            every = [folder / made.name / f"seed_{seed}" for seed in range(seeds)]
            own = [run for run in every if _done(run)]
            if not own:
                raise ValueError(f"no run of {made.name} has ended in {folder}.")
            values = tuple(_score(run, score) for run in own)
            cost = model_cost(load(own[0]).config)
            found.append(Outcome(group, variant, cost.parameters, cost.gflops, values))
    return found


def _score(run: Path, name: str) -> float:
    """A score of a run's test: with both streams, or with the one that the model has."""
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    conditions = [BOTH, "audio only", "video only"]
    known = next(scores[condition] for condition in conditions if condition in scores)
    if name not in known:
        raise ValueError(f"{run} has no score {name!r}; it has {', '.join(known)}.")
    return known[name]


def write_tables(found: Sequence[Outcome], workdir: str | Path, score: str) -> list[Path]:
    """The paths of sweep.csv, sweep.md and sweep.png in the folder."""
    folder = Path(workdir)
    csv_path, table_path = folder / "sweep.csv", folder / "sweep.md"
    write_text(csv_path, _csv(found, score))
    write_text(table_path, table(found, score) + "\n")
    image = plot.save(plot.sweep(found, score), folder / "sweep.png")
    return [csv_path, table_path, image]


def _csv(found: Iterable[Outcome], score: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", "variant", "parameters", "gflops", "score", "mean", "half", "seeds"])
    for one in found:
        numbers = [one.parameters, f"{one.gflops:.6f}", score, f"{one.mean:.6f}", f"{one.half:.6f}"]
        values = " ".join(f"{value:.6f}" for value in one.values)
        writer.writerow([one.group, one.variant, *numbers, values])
    return out.getvalue()


def table(found: Sequence[Outcome], score: str) -> str:
    """The outcomes as a Markdown table."""
    head = f"| | variant | {score} | seeds | parameters | MFLOP a clip |"
    lines = [head, "| --- " * 6 + "|"]
    for one in found:
        spread = "" if math.isnan(one.half) else f" ± {one.half:.3f}"
        cost = f"{len(one.values)} | {one.parameters:,} | {one.gflops * 1e3:,.1f}"
        lines.append(f"| {one.group} | {one.variant} | {one.mean:.3f}{spread} | {cost} |")
    return "\n".join(lines)


def publish(grid: Grid, workdir: str | Path, seeds: int, out: Path) -> list[Path]:
    """The paths of models to give away: of every variant seed 0, rounded to bfloat16, and all logs.

    logs.jsonl has the rows of every run with its name and seed.
    """
    folder, written, lines = Path(workdir).absolute(), [], []
    names = dict.fromkeys(made.name for variants in grid.values() for made in variants.values())
    for name in names:
        for seed in range(seeds):
            run = folder / name / f"seed_{seed}"
            if not _done(run):
                continue
            rows = (run / "metrics.jsonl").read_text(encoding="utf-8")
            told = {"run": name, "seed": seed}
            lines += [json.dumps(told | json.loads(row)) for row in rows.splitlines()]
        model = load(folder / name / "seed_0")
        written.append(model.save(out / f"{name}.safetensors", dtype="bfloat16"))
    write_text(out / "logs.jsonl", "\n".join(lines) + "\n")
    return [*written, out / "logs.jsonl"]
