"""Train a model: `fit`, its loop, and the folder that a run leaves behind.

A run can be stopped at any moment and goes on from its last saved state, on whatever devices there
are then. What it shows and saves is read off the state, never fed back into it.
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from mbt_lite import paths, plot
from mbt_lite.checkpoints.model_card import CONDITIONS, run_card
from mbt_lite.config import Experiment, TrainConfig, read_json, to_dict
from mbt_lite.data import datasets
from mbt_lite.evaluation.loop import evaluate
from mbt_lite.inference import Classifier
from mbt_lite.model.flops import model_cost
from mbt_lite.model.label_heads import make_heads
from mbt_lite.paths import write_text
from mbt_lite.progress import bar, silent
from mbt_lite.train import sharding, step
from mbt_lite.train.checkpointing import CheckpointManager
from mbt_lite.train.logger import MetricLogger, Row
from mbt_lite.train.setup import resolve
from mbt_lite.train.signals import Signals
from mbt_lite.train.step import State
from mbt_lite.train.validation import Validation

FREE = (  # settings that a run may change when it goes on: its weights stay the same
    "accumulate log_every save_every evaluate_every evaluate_clips test_clips keep best samples "
    "shards remat skip_nonfinite"
).split()
TRACED = 5  # steps in a profile


class Run(NamedTuple):
    """The result of `fit`."""

    classifier: Classifier  # with the averaged weights
    records: list[Row]  # one row per logged step
    folder: Path
    finished: bool  # False: it was interrupted, and the same call goes on


@dataclass(frozen=True)
class TrainContext:
    """Everything that a run works with, except its state."""

    experiment: Experiment
    labels: tuple[str, ...]  # the columns that the head has
    asked: int  # of them, those that are asked outside training, too
    folder: Path
    mesh: Mesh
    loader: datasets.Loader
    do: Callable[[State, dict], tuple[State, dict]]  # the compiled step
    validation: Validation | None
    saved: CheckpointManager
    book: MetricLogger
    stop: Signals

    @property
    def config(self) -> TrainConfig:
        return self.experiment.train


def fit(
    experiment: Experiment,
    workdir: str | Path,
    *,
    live: Callable[[list[Row]], None] | None = None,
    quiet: bool = False,
    profile: bool = False,
    program: bool = False,
) -> Run:
    """Train a model in `workdir`, or resume its training, and return the `Run`.

    Ctrl-C, a notebook's stop button and SIGTERM end the run after the current step: its state is
    saved, `Run.finished` is False, and the same call goes on from there, bit by bit as if nothing
    had happened. A second Ctrl-C is KeyboardInterrupt. In a notebook the curves are drawn while it
    runs; `live` is another function of the rows so far. `profile` traces a few steps for
    TensorBoard, and so does SIGUSR1 later. With `program` the process itself may end, with exit
    code 75, when it is interrupted where there is nothing to save.

    The folder holds `experiment.json`, `metrics.jsonl`, `tensorboard/`, `samples/` (validation
    clips with the model's answers), `state/` (Orbax) and, at the end, `model.safetensors` with its
    card, `README.md` and `curves.png`. ValueError where it was begun with other settings, where the
    data cannot be used, or where the loss is no number.
    """
    folder = Path(workdir).absolute()
    with Signals(may_exit=program) as stop, contextlib.ExitStack() as opened:
        with stop.nothing_to_lose():
            course, state, about = _begin(experiment, folder, opened, live, quiet, stop)
        stop.profile = profile
        state, finished = _loop(course, state, about)
        classifier = _classifier(course, state)
        if finished and jax.process_index() == 0 and not (folder / "README.md").exists():
            with stop.nothing_to_lose():
                _finish(course, classifier)
        return Run(classifier, course.book.rows, folder, finished)


def _begin(experiment, folder: Path, opened: contextlib.ExitStack, live, quiet, stop):
    """(`TrainContext`, state to go on from, what was saved of it)."""
    paths.keep_compilations(paths.cache_folder() / "compiled")
    begun = resolve(experiment)
    experiment, labels = begun.experiment, tuple(begun.source.labels)
    config = experiment.train
    make_heads(config.loss, labels)  # refuses mixed ones before any work
    mesh = sharding.make_mesh(config.shards, config.batch // config.accumulate)
    folder.mkdir(parents=True, exist_ok=True)
    _remember(experiment, folder / "experiment.json")
    hosts, leads = sharding.hosts(), jax.process_index() == 0
    tell = partial(tqdm.write, file=sys.stderr) if leads else _silently
    saved = opened.enter_context(CheckpointManager(folder / "state", config.keep, tell=tell))
    wanted = step.abstract_state(experiment, mesh)
    found = saved.restore(wanted)
    loader = opened.enter_context(datasets.make_loader(experiment, begun.source, True, **hosts))
    if found:
        loader.restore(found.about["data"])
    state = found.state if found else step.first_state(experiment, mesh, begun.params())
    if not quiet:
        tell(f"compiling the step for {jax.device_count()} x {jax.devices()[0].device_kind} ...")
    do = step.train_step(experiment, labels, mesh)
    do = do.lower(wanted, sharding.batch_shapes(mesh, loader.fields)).compile()
    validation = None
    if begun.validation:
        if not quiet:
            tell("compiling the validation ...")
        validation = Validation(experiment, begun.validation, mesh, wanted.weights)
        opened.callback(validation.close)
    place = (int(state.step), config.steps)
    book = MetricLogger(folder, experiment.name, *place, leads=leads, quiet=quiet, live=live)
    opened.callback(book.close)
    asked = len(labels) - begun.source.num_auxiliary_classes
    tools = (mesh, loader, do, validation, saved, book, stop)
    return (
        TrainContext(experiment, labels, asked, folder, *tools),
        state,
        found.about if found else {},
    )


def _loop(course: TrainContext, state: State, about: dict) -> tuple[State, bool]:
    """The state at the end, and whether that is the end of the run: score, save, step, log."""
    config, number = course.config, int(state.step)
    scored, saved, stopping = about.get("scored"), about.get("step"), False
    meter = Meter(course.experiment)
    tracing = None
    ahead = _next(course, meter) if number < config.steps else None
    while True:
        last, score = number >= config.steps, None
        if _due(number, config.evaluate_every, last) and scored != number and not stopping:
            score, stopping = _validate(course, state, number)
            scored = scored if score is None else number
            meter.restart()
        due = _due(number, config.save_every, last) or stopping or score is not None
        if due and number and saved != number:
            where = {"step": number, "scored": scored, "data": course.loader.state(number)}
            course.saved.save(number, state, where, score, wait=last or stopping)
            saved = number
        if last or stopping:
            _end_trace(course, tracing)
            return state, last
        batch, names = ahead
        state, result = course.do(state, batch)
        number += 1
        ahead = _next(course, meter) if number < config.steps else None
        result = jax.device_get(result)
        stopping = bool(course.stop.asked if "stop" not in result else result.pop("stop"))
        finite = result.pop("finite")
        meter.add(result, bool(finite))
        if not finite:
            _note_nonfinite(course, number, names, result, int(state.skipped))
        course.book.advance()
        if number % config.log_every == 0 or number == config.steps or stopping:
            course.book.add(number, meter.row())
        tracing = _trace(course, number, tracing)


def _next(course: TrainContext, meter: "Meter") -> tuple[dict, list[str]]:
    """The next batch on the devices, and the names of its clips."""
    with meter.waiting():
        batch = next(course.loader)
    names = batch.pop("id")
    return sharding.shard_batch(course.mesh, batch, course.stop.asked), names


def _due(number: int, every: int, last: bool) -> bool:
    return last or bool(every and number and number % every == 0)


def _validate(course: TrainContext, state: State, number: int) -> tuple[float | None, bool]:
    """(the score that ranks, or None; whether to stop) after a validation that is written down."""
    if course.validation is None:
        return None, False
    with contextlib.nullcontext(silent) if course.book.bar.disable else bar("validation") as told:
        found = course.validation(state.weights, course.stop, told)
    if found is None:
        return None, True
    course.book.add(number, found.scores)
    if found.samples and course.book.leads:
        course.book.draw(number, plot.samples(found.samples), "samples")
    best = course.config.best or next(iter(found.scores))
    if best not in found.scores:
        known = ", ".join(found.scores)
        raise ValueError(f"train.best={best!r} is none of the scores of this data: {known}.")
    return found.scores[best], False


def _note_nonfinite(course: TrainContext, number: int, names, result: dict, skipped: int) -> None:
    """Write down which clips were in the batch; ValueError where no more may be skipped."""
    path = course.folder / f"nonfinite_{number:06d}_{jax.process_index()}.json"
    told = {name: float(value) for name, value in result.items()}
    shown = {name: value if math.isfinite(value) else str(value) for name, value in told.items()}
    write_text(path, json.dumps({"step": number, "ids": names, **shown}, indent=1))
    allowed = course.config.skip_nonfinite
    if skipped > allowed:
        raise ValueError(
            f"the loss is {told['loss']} at step {number}, with a gradient of "
            f"{told['gradient_norm']}; the clips of that batch are in {path}. Try a lower "
            f"train.learning_rate, look at the clips, or leave such batches out with "
            f"train.skip_nonfinite (now {allowed})."
        )
    course.book.tell(f"step {number}: the loss is no number; left out ({skipped} of {allowed}).")


def _trace(course: TrainContext, number: int, until: int | None) -> int | None:
    """Begin or end a profile; the step at which it ends, or None."""
    if until is None and course.stop.profile:
        course.stop.profile = False
        jax.profiler.start_trace(str(course.folder / "tensorboard"))
        return number + TRACED
    if until is not None and number >= until:
        _end_trace(course, until)
        return None
    return until


def _end_trace(course: TrainContext, until: int | None) -> None:
    if until is not None:
        jax.profiler.stop_trace()
        course.book.tell(f"a profile of the steps up to {until} is in {course.folder}/tensorboard.")


class Meter:
    """Average the metrics of steps, and measure speed, since the last logged row."""

    def __init__(self, experiment: Experiment):
        self.batch, backward = experiment.train.batch, 2 * (experiment.train.trained == "all")
        self.flops = model_cost(experiment.model).flops * (1 + backward)
        self.peak = sharding.peak_flops(experiment.model.dtype)
        self.restart()

    def restart(self) -> None:
        self.results: list[dict] = []
        self.steps, self.waited, self.begun = 0, 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as time that was waited for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def add(self, result: dict, finite: bool) -> None:
        """One step more; of one that was left out only the time counts."""
        self.steps += 1
        self.results += [result] * finite

    def row(self) -> Row:
        """What to log; it begins anew."""
        seconds = time.perf_counter() - self.begun
        speed = self.steps * self.batch / seconds
        names = self.results[0] if self.results else ()
        row = {k: float(np.mean([result[k] for result in self.results])) for k in names}
        row |= {"clips_per_s": speed, "seconds": seconds}
        row |= {"waiting": min(self.waited / seconds, 1.0), "mfu": speed * self.flops / self.peak}
        self.restart()
        return row


def _classifier(course: TrainContext, state: State) -> Classifier:
    """The classifier with the averaged weights, without columns that only helped in training."""
    experiment, labels = course.experiment, course.labels[: course.asked]
    params = jax.tree.map(jax.numpy.asarray, sharding.replicate(course.mesh, state.weights))
    head = {name: leaf[..., : course.asked] for name, leaf in params["head"].items()}
    model = replace(experiment.model, classes=course.asked, dtype="float32")
    card = {"name": experiment.name, "training": to_dict(experiment.train)}
    heads = make_heads(experiment.train.loss, labels)
    return Classifier(model, params | {"head": head}, experiment.clip, labels, card, heads)


def _finish(course: TrainContext, classifier: Classifier) -> None:
    """Write the model, the curves and the card with the scores of the test split."""
    experiment, folder, rows = course.experiment, course.folder, course.book.rows
    scores = _test(course, classifier)
    write_text(folder / "scores.json", json.dumps(scores, indent=1))
    plot.save(plot.training(rows), folder / "curves.png")
    classifier.save(folder)
    minutes = sum(row.get("seconds", 0) for row in rows) / 60
    card = (folder / "README.md").read_text(encoding="utf-8")
    told = run_card(card, to_dict(experiment), minutes, plot.training_alt(rows), scores)
    write_text(folder / "README.md", told)


def _test(course: TrainContext, classifier: Classifier) -> dict | None:
    """Scores of the test split, which the model's card remembers; None where there is none."""
    data, count = course.experiment.data, course.config.test_clips or None
    if data.test is None and not data.holdout:
        return None
    quiet = course.book.bar.disable
    scores = evaluate(classifier, data, split="test", views=data.views, count=count, quiet=quiet)
    first = next(scores[name] for name in CONDITIONS if name in scores)
    where = f"on {scores['clips']:,} clips of {scores['data']}"
    told = {f"{name} {where}": f"{value:.3f}" for name, value in first.items() if value is not None}
    classifier.card["scores"] = told
    return scores


def _remember(experiment: Experiment, path: Path) -> None:
    """Write down what is trained here, or refuse to mix two experiments in one folder."""
    if path.exists():
        before = _bound(read_json(path))
        other = _differences(to_dict(before), to_dict(_bound(experiment)))
        if other:
            raise ValueError(
                f"{path} describes another experiment ({other[0]}); choose another --workdir or "
                "remove it."
            )
    if jax.process_index() == 0:
        write_text(path, json.dumps(to_dict(experiment), indent=1))


def _bound(experiment: Experiment) -> Experiment:
    """The experiment without the settings that a run may change when it goes on."""
    usual = TrainConfig()
    train = replace(experiment.train, **{name: getattr(usual, name) for name in FREE})
    data = replace(experiment.data, workers=0)
    return replace(experiment, train=train, data=data)


def _differences(before: dict, now: dict, place: str = "") -> list[str]:
    """Sentences such as "train.batch was 32, and is 16"."""
    found = []
    for name, value in now.items():
        if isinstance(value, dict):
            found += _differences(before[name], value, f"{place}{name}.")
        elif before[name] != value:
            found.append(f"{place}{name} was {before[name]}, and is {value}")
    return found


def _silently(_: str) -> None:
    """What a process says that does not lead."""
