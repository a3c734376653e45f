"""`mbt-lite train` and `mbt-lite sweep`: train models and grids of models."""

import runpy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from tyro.conf import Suppress

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class Train:
    """Train a model, or go on where an interrupted run stopped.

    Fields of the experiment are changed by name: --train.steps 100 --data.path DIR.
    Ctrl-C and SIGTERM save and end with exit code 75: the same command goes on. SIGUSR1 writes a
    profile.
    """

    example: ClassVar[str] = "mbt-lite train --config world --workdir runs/world"

    config: Path
    """A file with experiment(), a name in mbt_lite/configs, or a run's experiment.json."""
    workdir: Path | None = None
    """The folder of the run; otherwise runs/ and the experiment's name."""
    variant: str | None = None
    """Another function of that file, such as released of audioset_mini."""
    dry_run: bool = False
    """Only say what it would take: shapes, parameters, memory, the time of one step."""
    profile: bool = False
    """Trace a few steps for TensorBoard."""
    distributed: bool = False
    """Join the processes of this job, which JAX finds on SLURM, Kubernetes and TPU pods."""
    coordinator: str | None = None
    """Elsewhere: HOST:PORT of the first process, with --processes and --process."""
    processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """Which one this is, from 0."""
    rest: Suppress[tuple[str, ...]] = ()  # fields of the experiment to change
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.train import sharding

        self._check()
        experiment = read_experiment(self.config, self.variant, self.rest)
        if self.distributed or self.coordinator:
            sharding.connect(self.coordinator, self.processes, self.process)
        if self.dry_run:
            from mbt_lite.train.dry_run import dry_run, words

            print(words(dry_run(experiment)))
            return 0
        from mbt_lite.train.loop import fit
        from mbt_lite.train.signals import LEFT

        workdir = self.workdir or Path("runs") / experiment.name
        run = fit(experiment, workdir, profile=self.profile, program=True)
        if not run.finished:
            print("mbt-lite: interrupted and saved; the same command goes on.", file=sys.stderr)
            return LEFT
        print(run.folder / "model.safetensors")
        return 0

    def _check(self) -> None:
        """ValueError for an option that would have no effect."""
        if self.variant and self.config.suffix == ".json":
            raise ValueError(f"--variant {self.variant}: {self.config} is one experiment.")
        if self.dry_run and self.profile:
            raise ValueError("--profile has no effect with --dry-run; leave one out.")
        counted = self.processes is not None or self.process is not None
        if counted and not (self.coordinator or self.distributed):
            raise ValueError("--processes and --process have no effect without --coordinator.")


def read_experiment(config: Path, variant: str | None, changes: tuple[str, ...]):
    """The experiment of a recipe, or of a run's experiment.json, changed by options."""
    from mbt_lite.cli import fields
    from mbt_lite.config import read_json

    if config.suffix == ".json":
        made = read_json(config)
    else:
        made = read_function(config, variant or "experiment")()
    made = tyro.cli(type(made), default=made, args=changes, prog="mbt-lite train")
    return fields.settled(made, fields.named(changes))


def read_function(config: Path, name: str):
    """A function of a recipe: of a file, or by its name in mbt_lite/configs."""
    from mbt_lite import configs

    own = Path(configs.__file__).parent
    path = config if config.is_file() else own / f"{config}.py"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in own.glob("[a-z]*.py")))
        raise ValueError(f"--config {config} is no file; name one, or one of {known}.")
    found = runpy.run_path(str(path))
    functions = [key for key, value in found.items() if callable(value) and key.islower()]
    if name not in functions:
        raise ValueError(f"{path} defines no {name}(); it has {', '.join(functions) or 'nothing'}.")
    return found[name]


@dataclass(frozen=True)
class Sweep:
    """Train a grid of variants, each with several seeds, and write one table and one video.

    Interrupted, the same command goes on; runs that are there are kept.
    """

    example: ClassVar[str] = "mbt-lite sweep --config fusion_grid --workdir runs/grid --jobs 2"

    workdir: Path
    """The folder of all runs; sweep.csv, sweep.md and sweep.png come here."""
    config: Path = Path("fusion_grid")
    """A file with grid(), starts() and published(), or a name in mbt_lite/configs."""
    seeds: int = 3
    """Runs of each variant."""
    jobs: int = 1
    """Runs at a time, each on its share of the cores."""
    score: str = "matched accuracy"
    """The score of the test split that the table shows."""
    publish: Path | None = None
    """Also write the models of published() groups, in bfloat16, and their logs into this folder."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.train import sweep
        from mbt_lite.train.signals import LEFT

        if self.seeds < 1 or self.jobs < 1:
            raise ValueError(f"--seeds {self.seeds} and --jobs {self.jobs}: each is 1 or more.")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(LEFT))  # runs end and save
        grid, starts = read_function(self.config, "grid")(), read_function(self.config, "starts")()
        sweep.sweep(grid, self.workdir, seeds=self.seeds, jobs=self.jobs, starts=starts)
        found = sweep.outcomes(grid, self.workdir, self.seeds, self.score)
        print(sweep.table(found, self.score))
        written = sweep.write_tables(found, self.workdir, self.score)
        if self.publish:
            given = {name: grid[name] for name in read_function(self.config, "published")()}
            written += sweep.publish(given, self.workdir, self.seeds, self.publish)
        print(*written, sep="\n", file=sys.stderr)
        return 0
