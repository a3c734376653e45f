"""`mbt-lite train` and `mbt-lite sweep`: train models and grids of models."""

import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from tyro.conf import Suppress

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class Train:
    """Train a model, or resume an interrupted run.

    Change fields of the experiment by name: --train.steps 100 --data.path DIR.
    Ctrl-C and SIGTERM save the state and exit with code 75: the same command resumes the run.
    """

    example: ClassVar[str] = "mbt-lite train --config world --workdir runs/world"

    config: Path
    """A file with experiment(), a name in mbt_lite/configs, or a run's experiment.json."""
    workdir: Path | None = None
    """The folder of the run; otherwise runs/ and the experiment's name."""
    variant: str | None = None
    """Another function of that file, such as released of audioset_mini."""
    dry_run: bool = False
    """Only print what a run would take: shapes, parameters, memory, the time of one step."""
    distributed: bool = False
    """Join the processes of this job, which JAX detects on SLURM, Kubernetes and TPU pods."""
    coordinator: str | None = None
    """Elsewhere: HOST:PORT of the first process, with --processes and --process."""
    processes: int | None = None
    """The number of processes."""
    process: int | None = None
    """The index of this process, from 0."""
    rest: Suppress[tuple[str, ...]] = ()  # fields of the experiment to change
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.train import sharding

        self._check()
        experiment = read_experiment(self.config, self.variant, self.rest)
        if experiment.data.adapt:
            experiment = _adapted(experiment, self.rest)
        if self.distributed or self.coordinator:
            sharding.connect(self.coordinator, self.processes, self.process)
        if self.dry_run:
            from mbt_lite.train.dry_run import dry_run

            print(json.dumps(dry_run(experiment), indent=1))
            return 0
        from mbt_lite.train.loop import fit
        from mbt_lite.train.signals import EXIT_INTERRUPTED, exit_on_signal

        with exit_on_signal():
            run = fit(experiment, self.workdir or Path("runs") / experiment.name)
        if not run.finished:
            print("mbt-lite: interrupted and saved; the same command resumes.", file=sys.stderr)
            return EXIT_INTERRUPTED
        print(run.folder / "model.safetensors")
        return 0

    def _check(self) -> None:
        """ValueError for an option that would have no effect."""
        if self.variant and self.config.suffix == ".json":
            raise ValueError(f"--variant {self.variant}: {self.config} is one experiment.")
        counted = self.processes is not None or self.process is not None
        if counted and not (self.coordinator or self.distributed):
            raise ValueError("--processes and --process have no effect without --coordinator.")


def _adapted(experiment, changes: tuple[str, ...]):
    """The experiment after a survey of its data; every choice is printed with its reason."""
    from mbt_lite.cli.fields import named
    from mbt_lite.train.setup import adapted

    print(f"looking at the clips of {experiment.data.path} ...", file=sys.stderr)
    result = adapted(experiment, named(changes))
    print(*result.sentences, sep="\n", file=sys.stderr)
    return result.experiment


def read_experiment(config: Path, variant: str | None, changes: tuple[str, ...]):
    """The experiment of a recipe or of a run's experiment.json, changed by options."""
    from mbt_lite.cli import fields
    from mbt_lite.config import read_json

    if config.suffix == ".json":
        experiment = read_json(config)
    else:
        experiment = read_function(config, variant or "experiment")()
    experiment = tyro.cli(type(experiment), default=experiment, args=changes, prog="mbt-lite train")
    return fields.settled(experiment, fields.named(changes))


def read_function(config: Path, name: str):
    """A function of a recipe, which is a file or a name in mbt_lite/configs."""
    from mbt_lite import configs

    own = Path(configs.__file__).parent
    path = config if config.is_file() else own / f"{config}.py"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in own.glob("[a-z]*.py")))
        raise ValueError(f"--config {config} is no file; name one, or one of {names}.")
    namespace = runpy.run_path(str(path))
    functions = [key for key, value in namespace.items() if callable(value) and key.islower()]
    if name not in functions:
        raise ValueError(f"{path} defines no {name}(); it has {', '.join(functions) or 'nothing'}.")
    return namespace[name]


@dataclass(frozen=True)
class Sweep:
    """Train a grid of variants, each with several seeds, and write one table and one figure.

    After an interruption the same command resumes; finished runs are not trained again.
    """

    example: ClassVar[str] = "mbt-lite sweep --config fusion_grid --workdir runs/grid --jobs 2"

    workdir: Path
    """The folder of all runs, and of sweep.csv and sweep.png."""
    config: Path = Path("fusion_grid")
    """A file with grid() and starts(), or a name in mbt_lite/configs."""
    seeds: int = 3
    """Runs of each variant."""
    jobs: int = 1
    """Runs at a time, each on its own cores."""
    score: str = "matched accuracy"
    """The score of the test split that the table shows."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.train import sweep
        from mbt_lite.train.signals import exit_on_signal

        if self.seeds < 1 or self.jobs < 1:
            raise ValueError(f"--seeds {self.seeds} and --jobs {self.jobs}: each is 1 or more.")
        grid, starts = read_function(self.config, "grid")(), read_function(self.config, "starts")()
        with exit_on_signal():  # its runs save
            sweep.sweep(grid, self.workdir, starts, seeds=self.seeds, jobs=self.jobs)
        outcomes = sweep.outcomes(grid, self.workdir, self.seeds, self.score)
        print(sweep.table(outcomes, self.score))
        print(*sweep.write_tables(outcomes, self.workdir, self.score), sep="\n", file=sys.stderr)
        return 0
