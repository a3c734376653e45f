"""Train a model: `fit`, its loop, and the folder that a run writes.

A run can be stopped at any moment and resumes from its latest saved state, on whatever devices
there are then. Logging, validation and saving read the state and never change it.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from mbt_lite import paths, plot
from mbt_lite.checkpoints.model_card import CONDITIONS, run_card
from mbt_lite.config import Experiment, TrainConfig, to_dict
from mbt_lite.data import datasets
from mbt_lite.data.source import Source
from mbt_lite.evaluation.loop import evaluate
from mbt_lite.inference import Classifier, load
from mbt_lite.model.label_heads import make_heads
from mbt_lite.paths import write_text
from mbt_lite.progress import bar, silent
from mbt_lite.train import sharding
from mbt_lite.train.checkpointing import RunCheckpoints
from mbt_lite.train.logger import Meter, MetricLogger, Row
from mbt_lite.train.setup import adapted, resolve, write_experiment
from mbt_lite.train.signals import Signals
from mbt_lite.train.step import State, abstract_state, compiled_step, first_state
from mbt_lite.train.validation import Validation
from mbt_lite.train.verdict import TOP_1, verdict


class Run(NamedTuple):
    """The result of `fit`."""

    classifier: Classifier  # with the averaged weights
    records: list[Row]  # one row per logged step
    folder: Path
    finished: bool  # False: it was interrupted, and the same call resumes it


@dataclass(frozen=True)
class _TrainContext:
    """Everything that a run works with, except its state."""

    experiment: Experiment
    source: Source  # clips to train on
    folder: Path
    mesh: Mesh
    loader: datasets.Loader
    train_step: Callable[[State, dict], tuple[State, dict]]  # compiled
    validation: Validation | None
    checkpoints: RunCheckpoints
    logger: MetricLogger
    signals: Signals = field(default_factory=Signals)

    @property
    def config(self) -> TrainConfig:
        return self.experiment.train

    @property
    def best(self) -> Path:
        """The folder of the weights with the best validation, where `patience` asks for them."""
        return self.folder / "best"


def fit(
    experiment: Experiment,
    workdir: str | Path,
    *,
    live: Callable[[list[Row]], None] | None = None,
    quiet: bool = False,
) -> Run:
    """Train a model in `workdir`, or resume its training, and return the `Run`.

    Ctrl-C, a notebook's stop button and SIGTERM end the training after the current step: its state
    is saved, `Run.finished` is False, and the same call resumes it bit by bit as if it had not
    stopped. A second Ctrl-C raises KeyboardInterrupt. In a notebook the curves are drawn during
    training; `live` is another function of the rows so far.

    The folder holds `experiment.json`, `metrics.jsonl`, `tensorboard/`, `state/` (Orbax) and, at
    the end, `model.safetensors` with its card, `README.md` and `curves.png`; with `patience` also
    `best/`, the weights of the best validation, which then are the result. ValueError where the
    folder holds a run with other settings, where the data cannot be used, or where the loss is
    non-finite (NaN or inf).
    """
    folder = Path(workdir).absolute()
    with contextlib.ExitStack() as stack:
        context, state, about = _setup(experiment, folder, stack, live, quiet)
        with context.signals.recorded():
            state, finished = _loop(context, state, about)
        best = context.best.exists() and finished
        classifier = load(context.best) if best else _classifier(context, state)
        if finished and jax.process_index() == 0 and not (folder / "README.md").exists():
            _finish(context, classifier)
        return Run(classifier, context.logger.rows, folder, finished)


def _setup(
    experiment: Experiment, folder: Path, stack: contextlib.ExitStack, live, quiet: bool
) -> tuple[_TrainContext, State, dict]:
    """(the context, the state to start from, the JSON that was saved with it)."""
    paths.keep_compilations(paths.cache_folder() / "compiled")
    if experiment.data.adapt:
        if not quiet:
            _tell(f"looking at the clips of {experiment.data.path} ...")
        experiment, sentences = adapted(experiment)
        for sentence in () if quiet else sentences:
            _tell(sentence)
    resolved = resolve(experiment)
    experiment, source = resolved.experiment, resolved.source
    config = experiment.train
    make_heads(config.loss, source.labels)  # raises for mixed labels before any work
    mesh = sharding.make_mesh(config.shards, config.batch // config.accumulate)
    write_experiment(experiment, folder)
    checkpoints = RunCheckpoints(folder / "state", config.keep_checkpoints, tell=_tell)
    stack.enter_context(checkpoints)
    abstract = abstract_state(experiment, mesh)
    restored = checkpoints.restore(abstract)
    loader = datasets.make_loader(experiment, source, True, **sharding.hosts())
    stack.enter_context(loader)
    if loader.note and not quiet:
        _tell(loader.note)
    if restored:
        loader.restore(restored.about["data"])
    loader.start()  # it reads while the step is compiled
    state = restored.state if restored else first_state(experiment, mesh, resolved.params())
    if not quiet:
        _tell(f"compiling the step for {jax.device_count()} x {jax.devices()[0].device_kind} ...")
    compiled, validation = compiled_step(experiment, source.labels, mesh, loader.fields), None
    if resolved.validation:
        validation = Validation(experiment, resolved.validation, mesh, abstract.weights)
        stack.callback(validation.close)
    steps = int(state.step), config.steps
    logger = MetricLogger(folder, experiment.name, *steps, quiet=quiet, live=live)
    stack.callback(logger.close)
    places = experiment, source, folder, mesh
    context = _TrainContext(*places, loader, compiled, validation, checkpoints, logger)
    return context, state, restored.about if restored else {}


def _tell(sentence: str) -> None:
    """Print a sentence beside the progress bar, in the first process only."""
    if jax.process_index() == 0:
        tqdm.write(sentence, file=sys.stderr)


def _loop(context: _TrainContext, state: State, about: dict) -> tuple[State, bool]:
    """(the state at the end, whether training has finished).

    After each step: validate, save, stop if asked to, train, log. With `patience` training also
    ends after so many validations without a better score.
    """
    config, step = context.config, int(state.step)
    scored, saved, stopping = about.get("scored"), about.get("step"), False
    best = _Best(*about.get("best", ()))
    meter = Meter(context.experiment)
    position = context.loader.state()
    batch = _next_batch(context, meter) if step < config.steps else None
    while True:
        last, due = step >= config.steps, stopping
        score = context.validation and scored != step and not stopping
        if score and _is_due(step, config.evaluate_every, last):
            with meter.paused():
                scores = _validate(context, state, step)
            due, stopping = True, scores is None
            if scores is not None:
                scored, best = step, best.updated(scores, context, state)
        last |= 0 < config.patience <= best.waited
        due |= _is_due(step, config.save_every, last)
        if due and step and saved != step:
            about = {"step": step, "scored": scored, "best": best, "data": position}
            context.checkpoints.save(step, state, about, wait=last or stopping)
            saved = step
        if last or stopping:
            return state, last
        arrays, names = batch
        state, metrics = context.train_step(state, arrays)
        step += 1
        position = context.loader.state()  # before the next batch, which is read during the step
        batch = _next_batch(context, meter) if step < config.steps else None
        metrics = jax.device_get(metrics)
        stopping = bool(metrics.pop("stop", context.signals.received))
        finite = bool(metrics.pop("finite"))
        meter.add(metrics, finite)
        if not finite:
            _report_nonfinite(context, step, names, metrics, int(state.skipped))
        context.logger.advance()
        if step % config.log_every == 0 or step == config.steps or stopping:
            context.logger.add(step, meter.row())


class _Best(NamedTuple):
    """The highest score so far, and how many validations have passed since."""

    score: float = -math.inf
    waited: int = 0

    def updated(self, scores: dict, context: _TrainContext, state: State) -> "_Best":
        """After one more validation, whose weights are written if they are the best so far."""
        score = scores.get(TOP_1, next(iter(scores.values()), -math.inf))
        if not context.config.patience or score <= self.score:
            return self._replace(waited=self.waited + 1)
        classifier = _classifier(context, state)  # of all processes' parts
        if jax.process_index() == 0:
            classifier.save(context.best)
        return _Best(score)


def _next_batch(context: _TrainContext, meter: Meter) -> tuple[dict, list[str]]:
    """The next batch on the devices, and the names of its clips."""
    with meter.waiting():
        batch = next(context.loader)
    names = batch.pop("id")
    return sharding.shard_batch(context.mesh, batch, context.signals.received), names


def _is_due(step: int, every: int, last: bool) -> bool:
    return last or bool(every and step and step % every == 0)


def _validate(context: _TrainContext, state: State, step: int) -> dict | None:
    """Log and return the scores of the validation clips; None: it was interrupted."""
    hidden = context.logger.bar.disable
    with contextlib.nullcontext(silent) if hidden else bar("validation") as progress:
        scores = context.validation(state.weights, context.signals, progress)
    if scores:
        context.logger.add(step, scores)
    return scores


def _report_nonfinite(
    context: _TrainContext, step: int, names: list[str], metrics: dict, skipped: int
) -> None:
    """Write the clips of the batch to a file; ValueError where no more steps may be skipped."""
    path = context.folder / f"nonfinite_{step:06d}_{jax.process_index()}.json"
    values = {name: float(value) for name, value in metrics.items()}
    shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    write_text(path, json.dumps({"step": step, "ids": names, **shown}, indent=1))
    allowed = context.config.skip_nonfinite
    if skipped > allowed:
        raise ValueError(
            f"the loss is {values['loss']} at step {step}, with a gradient of "
            f"{values['gradient_norm']}; the clips of that batch are in {path}. Try a lower "
            f"train.learning_rate, look at the clips, or skip such batches with "
            f"train.skip_nonfinite (now {allowed})."
        )
    _tell(f"step {step}: the loss is non-finite (NaN or inf); skipped ({skipped} of {allowed}).")


def _classifier(context: _TrainContext, state: State) -> Classifier:
    """The classifier with the averaged weights, without auxiliary classes."""
    experiment, source = context.experiment, context.source
    count = len(source.labels) - source.num_auxiliary_classes  # without the auxiliary ones
    labels = tuple(source.labels[:count])
    params = jax.tree.map(jax.numpy.asarray, sharding.replicate(context.mesh, state.weights))
    head = {name: leaf[..., :count] for name, leaf in params["head"].items()}
    model = replace(experiment.model, classes=count, dtype="float32")
    card = {"name": experiment.name, "training": to_dict(experiment.train)}
    heads = make_heads(experiment.train.loss, labels)
    return Classifier(model, params | {"head": head}, experiment.clip, labels, card, heads)


def _finish(context: _TrainContext, classifier: Classifier) -> None:
    """Write the model, the curves and the card with the scores of the test split."""
    experiment, folder, rows = context.experiment, context.folder, context.logger.rows
    scores = _test(context, classifier)
    if scores:
        given = (experiment, context.loader, context.mesh, classifier.params)
        scores |= verdict(*given, rows, scores)
        for sentence in scores.get("verdict", ()):
            _tell(f"{sentence}.")
    write_text(folder / "scores.json", json.dumps(scores, indent=1))
    plot.save(plot.training(rows), folder / "curves.png")
    classifier.save(folder)
    minutes = sum(row.get("seconds", 0) for row in rows) / 60
    card = (folder / "README.md").read_text(encoding="utf-8")
    card = run_card(card, to_dict(experiment), minutes, plot.training_alt(rows), scores)
    write_text(folder / "README.md", card)


def _test(context: _TrainContext, classifier: Classifier) -> dict | None:
    """Scores of the test split, which the model's card shows; None where there is no such split."""
    data, count = context.experiment.data, context.config.test_clips or None
    if data.test is None and not data.holdout:
        return None
    quiet = context.logger.bar.disable
    scores = evaluate(classifier, data, split="test", views=data.views, count=count, quiet=quiet)
    first = next(scores[name] for name in CONDITIONS if name in scores)
    where = f"on {scores['clips']:,} clips of {scores['data']}"
    classifier.card["scores"] = {
        f"{name} {where}": f"{value:.3f}" for name, value in first.items() if value is not None
    }
    return scores
