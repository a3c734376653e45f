"""Train a grid of variants with several seeds, and summarize them in one table.

A grid is {group: {variant: Experiment}}. A variant may stand in several groups; it is trained once
per seed, in a process of its own, and finished runs are not trained again.
"""

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats
from tqdm import tqdm

from mbt_lite import plot
from mbt_lite.checkpoints.model_card import CONDITIONS
from mbt_lite.config import Experiment, to_dict
from mbt_lite.inference import load
from mbt_lite.model.flops import model_cost
from mbt_lite.paths import replacing, write_text

_Grid = Mapping[str, Mapping[str, Experiment]]
_Starts = Mapping[str, Experiment]


@dataclass(frozen=True)
class Outcome:
    """The scores of one variant over its seeds."""

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
        """Half the width of the 95 % interval of the mean, by Student's t; NaN for one seed."""
        count = len(self.values)
        if count < 2:
            return float("nan")
        return float(stats.t.ppf(0.975, count - 1) * np.std(self.values, ddof=1) / count**0.5)


def sweep(
    grid: _Grid, workdir: str | Path, starts: _Starts, *, seeds: int = 3, jobs: int = 1
) -> list[Path]:
    """Train all runs that are not finished, `jobs` at a time, each on its own cores; their folders.

    `starts` are experiments by name that are trained first; a variant whose `start.model` is such a
    name starts from that model. ValueError where runs fail, after the others have ended; the same
    call resumes.
    """
    folder = Path(workdir).absolute()
    starting = [_with_cache(experiment, folder) for experiment in starts.values()]
    stages = [
        {_run_folder(folder, experiment): experiment for experiment in starting},
        runs(grid, folder, starts, seeds),
    ]
    for stage in stages:
        _train_all(stage, folder, jobs)
    return [run for stage in stages for run in stage]


def _train_all(stage: Mapping[Path, Experiment], folder: Path, jobs: int) -> None:
    """Train the runs of a stage in `jobs` processes; when interrupted, all of them save."""
    waiting = [run for run in stage if not _is_finished(run)]
    cores, running, failed = _cores(jobs), {}, []
    with tqdm(total=len(waiting), desc=folder.name, unit="run") as bar:
        try:
            while waiting or running:
                for job in range(jobs):
                    if job in running and running[job][1].poll() is not None:
                        run, process = running.pop(job)
                        bar.update()
                        failed += [run] * (process.returncode != 0)
                    if job not in running and waiting:
                        run = waiting.pop(0)
                        running[job] = run, _start(run, stage[run], cores[job])
                time.sleep(0.2)
        finally:
            for _, process in running.values():
                process.terminate()  # it saves its state
            for _, process in running.values():
                process.wait()
    if failed:
        names = ", ".join(str(run.relative_to(folder)) for run in failed)
        raise ValueError(f"these runs failed, and their log.txt says why: {names}.")


def runs(grid: _Grid, folder: Path, starts: _Starts, seeds: int) -> dict[Path, Experiment]:
    """{folder: experiment} of all runs, each variant once per seed, one seed after the other.

    ValueError where two different variants have one name.
    """
    experiments: dict[Path, Experiment] = {}
    variants = [variant for group in grid.values() for variant in group.values()]
    for seed in range(seeds):
        for variant in variants:
            experiment = replace(variant, train=replace(variant.train, seed=seed))
            if variant.start.model in starts:
                first = _run_folder(folder, starts[variant.start.model])
                experiment = replace(experiment, start=replace(variant.start, model=str(first)))
            experiment = _with_cache(experiment, folder)
            run = _run_folder(folder, experiment)
            if experiments.setdefault(run, experiment) != experiment:
                raise ValueError(f"two different variants are called {experiment.name}.")
    return experiments


def _with_cache(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with its cached clips, if it has any, in the folder of the sweep."""
    if not experiment.data.cache_dir:
        return experiment
    return replace(experiment, data=replace(experiment.data, cache_dir=str(folder / "clips")))


def _run_folder(folder: Path, experiment: Experiment) -> Path:
    return folder / experiment.name / f"seed_{experiment.train.seed}"


def _is_finished(run: Path) -> bool:
    return (run / "README.md").exists()


def _cores(jobs: int) -> list[set[int]]:
    """The cores of each job; every job has all of them where there are fewer cores than jobs."""
    cores = sorted(os.sched_getaffinity(0))
    count = len(cores) // jobs
    if not count:
        return [set(cores)] * jobs
    return [set(cores[i * count : (i + 1) * count]) for i in range(jobs)]


def _start(run: Path, experiment: Experiment, cores: set[int]) -> subprocess.Popen:
    """Start a run in a process of its own."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / "plan.json"
    write_text(path, json.dumps(to_dict(experiment), indent=1))
    command = [sys.executable, "-m", "mbt_lite", "train", "--config", path, "--workdir", run]
    with (run / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, cores)
    return process


def outcomes(grid: _Grid, workdir: str | Path, seeds: int, score: str) -> list[Outcome]:
    """One `Outcome` for each variant of each group, from its finished runs."""
    folder, results = Path(workdir).absolute(), []
    for group, variants in grid.items():
        for variant, experiment in variants.items():
            folders = (folder / experiment.name / f"seed_{seed}" for seed in range(seeds))
            finished = [run for run in folders if _is_finished(run)]
            if not finished:
                raise ValueError(f"no run of {experiment.name} has ended in {folder}.")
            values = tuple(_score(run, score) for run in finished)
            cost = model_cost(load(finished[0]).config)
            results.append(Outcome(group, variant, cost.parameters, cost.gflops, values))
    return results


def _score(run: Path, name: str) -> float:
    """A score of a run's test: with both streams, or with the one that the model has."""
    conditions = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    scores = next(conditions[condition] for condition in CONDITIONS if condition in conditions)
    if name not in scores:
        raise ValueError(f"{run} has no score {name!r}; it has {', '.join(scores)}.")
    return scores[name]


def write_tables(results: Sequence[Outcome], workdir: str | Path, score: str) -> list[Path]:
    """Write sweep.csv and sweep.png; their paths."""
    path = Path(workdir) / "sweep.csv"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow("group variant parameters gflops score mean half seeds".split())
        for row in results:
            numbers = f"{row.gflops:.6f}", score, f"{row.mean:.6f}", f"{row.half:.6f}"
            values = " ".join(f"{value:.6f}" for value in row.values)
            writer.writerow([row.group, row.variant, row.parameters, *numbers, values])
    return [path, plot.save(plot.sweep(results, score), path.with_suffix(".png"))]


def table(results: Sequence[Outcome], score: str) -> str:
    """The outcomes as a Markdown table."""
    lines = [f"| | variant | {score} | seeds | parameters | MFLOP a clip |", "| --- " * 6 + "|"]
    for row in results:
        interval = "" if math.isnan(row.half) else f" ± {row.half:.3f}"
        cost = f"{len(row.values)} | {row.parameters:,} | {row.gflops * 1e3:,.1f}"
        lines.append(f"| {row.group} | {row.variant} | {row.mean:.3f}{interval} | {cost} |")
    return "\n".join(lines)
