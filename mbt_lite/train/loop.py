"""Train a model: `fit`, its loop, and the folder that a run writes.

A run can be stopped at any moment and resumes from its latest saved state, on whatever devices
there are then. Logging, validation and saving read the state and never change it.
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from mbt_lite.train import sharding
from mbt_lite.train.checkpointing import RunCheckpoints
from mbt_lite.train.logger import MetricLogger, Row
from mbt_lite.train.setup import adapted, resolve
from mbt_lite.train.signals import Signals
from mbt_lite.train.step import State, abstract_state, first_state, train_step
from mbt_lite.train.validation import Validation
from mbt_lite.train.verdict import verdict

FREE = (  # settings that may change when a run is resumed: its weights stay the same
    "accumulate log_every save_every evaluate_every evaluate_clips test_clips keep_checkpoints "
    "best samples shards remat skip_nonfinite"
).split()
PROFILED = 5  # steps in a profile


class Run(NamedTuple):
    """The result of `fit`."""

    classifier: Classifier  # with the averaged weights
    records: list[Row]  # one row per logged step
    folder: Path
    finished: bool  # False: it was interrupted, and the same call resumes it


@dataclass(frozen=True)
class TrainContext:
    """Everything that a run works with, except its state."""

    experiment: Experiment
    labels: tuple[str, ...]  # columns of the head
    num_eval_classes: int  # the first columns; the other, auxiliary ones are for training only
    folder: Path
    mesh: Mesh
    loader: datasets.Loader
    train_step: Callable[[State, dict], tuple[State, dict]]  # compiled
    validation: Validation | None
    checkpoints: RunCheckpoints
    logger: MetricLogger
    signals: Signals

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
    saved, `Run.finished` is False, and the same call resumes it bit by bit as if it had not
    stopped. A second Ctrl-C raises KeyboardInterrupt. In a notebook the curves are drawn during
    training; `live` is another function of the rows so far. `profile` traces a few steps for
    TensorBoard, and so does SIGUSR1 later. With `program` the process itself may end, with exit
    code 75, when it is interrupted where there is nothing to save.

    The folder holds `experiment.json`, `metrics.jsonl`, `tensorboard/`, `samples/` (validation
    clips with the model's predictions), `state/` (Orbax) and, at the end, `model.safetensors` with
    its card, `README.md` and `curves.png`. ValueError where the folder holds a run with other
    settings, where the data cannot be used, or where the loss is non-finite (NaN or inf).
    """
    folder = Path(workdir).absolute()
    with Signals(may_exit=program) as signals, contextlib.ExitStack() as stack:
        with signals.exit_allowed():
            context, state, about = _setup(experiment, folder, stack, live, quiet, signals)
        signals.profile = profile
        state, finished = _loop(context, state, about)
        if finished and context.config.patience:
            state = _best_state(context, state)
        classifier = _classifier(context, state)
        if finished and jax.process_index() == 0 and not (folder / "README.md").exists():
            with signals.exit_allowed():
                _finish(context, classifier, state)
        return Run(classifier, context.logger.rows, folder, finished)


def _setup(
    experiment: Experiment,
    folder: Path,
    stack: contextlib.ExitStack,
    live: Callable[[list[Row]], None] | None,
    quiet: bool,
    signals: Signals,
) -> tuple[TrainContext, State, dict]:
    """(`TrainContext`, the state to start from, the JSON that was saved with it)."""
    paths.keep_compilations(paths.cache_folder() / "compiled")
    if experiment.data.adapt:
        experiment, sentences = adapted(experiment)
        for sentence in () if quiet else sentences:
            _tell(sentence)
    resolved = resolve(experiment)
    experiment, source = resolved.experiment, resolved.source
    config, labels = experiment.train, tuple(source.labels)
    make_heads(config.loss, labels)  # raises for mixed labels before any work
    mesh = sharding.make_mesh(config.shards, config.batch // config.accumulate)
    folder.mkdir(parents=True, exist_ok=True)
    _write_experiment(experiment, folder / "experiment.json")
    checkpoints = stack.enter_context(
        RunCheckpoints(folder / "state", config.keep_checkpoints, tell=_tell)
    )
    abstract = abstract_state(experiment, mesh)
    restored = checkpoints.restore(abstract)
    loader = datasets.make_loader(experiment, source, True, **sharding.hosts())
    stack.enter_context(loader)
    if restored:
        loader.restore(restored.about["data"])
    state = restored.state if restored else first_state(experiment, mesh, resolved.params())
    if not quiet:
        _tell(f"compiling the step for {jax.device_count()} x {jax.devices()[0].device_kind} ...")
    lowered = train_step(experiment, labels, mesh).lower(
        abstract, sharding.batch_shapes(mesh, loader.fields)
    )
    compiled, validation = lowered.compile(), None
    if resolved.validation:
        if not quiet:
            _tell("compiling the validation ...")
        validation = Validation(experiment, resolved.validation, mesh, abstract.weights)
        stack.callback(validation.close)
    logger = MetricLogger(
        folder,
        experiment.name,
        int(state.step),
        config.steps,
        leads=jax.process_index() == 0,
        quiet=quiet,
        live=live,
    )
    stack.callback(logger.close)
    context = TrainContext(
        experiment=experiment,
        labels=labels,
        num_eval_classes=len(labels) - source.num_auxiliary_classes,
        folder=folder,
        mesh=mesh,
        loader=loader,
        train_step=compiled,
        validation=validation,
        checkpoints=checkpoints,
        logger=logger,
        signals=signals,
    )
    return context, state, restored.about if restored else {}


def _tell(sentence: str) -> None:
    """Print a sentence beside the progress bar, in the first process only."""
    if jax.process_index() == 0:
        tqdm.write(sentence, file=sys.stderr)


def _loop(context: TrainContext, state: State, about: dict) -> tuple[State, bool]:
    """(the state at the end, whether training has finished).

    After each step: validate, save, stop if asked to, train, log. With `patience` training also
    ends after so many validations without a better score.
    """
    config, step = context.config, int(state.step)
    scored, saved, stopping = about.get("scored"), about.get("step"), False
    best = Best(*about.get("best", ()))
    meter, profile_until = Meter(context.experiment), None
    position = context.loader.state()
    batch = _next_batch(context, meter) if step < config.steps else None
    while True:
        last, score = step >= config.steps, None
        if _is_due(step, config.evaluate_every, last) and scored != step and not stopping:
            score, stopping = _validate(context, state, step)
            scored = scored if score is None else step
            best = best.updated(score)
            meter.restart()
        last = last or bool(config.patience and best.waited >= config.patience)
        due = _is_due(step, config.save_every, last) or stopping or score is not None
        if due and step and saved != step:
            about = {"step": step, "scored": scored, "best": list(best), "data": position}
            context.checkpoints.save(step, state, about, score, wait=last or stopping)
            saved = step
        if last or stopping:
            _end_profile(context, profile_until)
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
        profile_until = _profile(context, step, profile_until)


class Best(NamedTuple):
    """The highest score so far, and how many validations have passed since."""

    score: float | None = None
    waited: int = 0

    def updated(self, score: float | None) -> "Best":
        """After one more validation; None if there was none."""
        if score is None:
            return self
        is_better = self.score is None or score > self.score
        return Best(score, 0) if is_better else Best(self.score, self.waited + 1)


def _best_state(context: TrainContext, state: State) -> State:
    """The state with the best validation; the last one if there is none."""
    restored = context.checkpoints.restore_best(abstract_state(context.experiment, context.mesh))
    if restored is None:
        return state
    _tell(f"the weights are those of step {restored.step}, the best of all validations.")
    return restored.state


def _next_batch(context: TrainContext, meter: "Meter") -> tuple[dict, list[str]]:
    """The next batch on the devices, and the names of its clips."""
    with meter.waiting():
        batch = next(context.loader)
    names = batch.pop("id")
    return sharding.shard_batch(context.mesh, batch, context.signals.received), names


def _is_due(step: int, every: int, last: bool) -> bool:
    return last or bool(every and step and step % every == 0)


def _validate(context: TrainContext, state: State, step: int) -> tuple[float | None, bool]:
    """(the score that ranks states, or None; whether to stop), after one validation."""
    if context.validation is None:
        return None, False
    hidden = context.logger.bar.disable
    with contextlib.nullcontext(silent) if hidden else bar("validation") as progress:
        result = context.validation(state.weights, context.signals, progress)
    if result is None:
        return None, True
    context.logger.add(step, result.scores)
    if result.samples and context.logger.leads:
        context.logger.draw(step, plot.samples(result.samples), "samples")
    best = context.config.best or next(iter(result.scores))
    if best not in result.scores:
        names = ", ".join(result.scores)
        raise ValueError(f"train.best={best!r} is none of the scores of this data: {names}.")
    return result.scores[best], False


def _report_nonfinite(
    context: TrainContext, step: int, names: list[str], metrics: dict, skipped: int
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


def _profile(context: TrainContext, step: int, until: int | None) -> int | None:
    """Start or end a profile; the step at which it ends, or None."""
    if until is None and context.signals.profile:
        context.signals.profile = False
        jax.profiler.start_trace(str(context.folder / "tensorboard"))
        return step + PROFILED
    if until is not None and step >= until:
        _end_profile(context, until)
        return None
    return until


def _end_profile(context: TrainContext, until: int | None) -> None:
    if until is not None:
        jax.profiler.stop_trace()
        _tell(f"a profile of the steps up to {until} is in {context.folder}/tensorboard.")


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


def _classifier(context: TrainContext, state: State) -> Classifier:
    """The classifier with the averaged weights, without auxiliary classes."""
    experiment, count = context.experiment, context.num_eval_classes
    labels = context.labels[:count]
    params = jax.tree.map(jax.numpy.asarray, sharding.replicate(context.mesh, state.weights))
    head = {name: leaf[..., :count] for name, leaf in params["head"].items()}
    model = replace(experiment.model, classes=count, dtype="float32")
    card = {"name": experiment.name, "training": to_dict(experiment.train)}
    heads = make_heads(experiment.train.loss, labels)
    return Classifier(model, params | {"head": head}, experiment.clip, labels, card, heads)


def _finish(context: TrainContext, classifier: Classifier, state: State) -> None:
    """Write the model, the curves and the card with the scores of the test split."""
    experiment, folder, rows = context.experiment, context.folder, context.logger.rows
    scores = _test(context, classifier)
    if scores:
        scores |= verdict(experiment, context.mesh, state.weights, rows, scores, _tell)
        for sentence in scores.get("verdict", ()):
            _tell(f"{sentence}.")
    write_text(folder / "scores.json", json.dumps(scores, indent=1))
    plot.save(plot.training(rows), folder / "curves.png")
    classifier.save(folder)
    minutes = sum(row.get("seconds", 0) for row in rows) / 60
    card = (folder / "README.md").read_text(encoding="utf-8")
    card = run_card(card, to_dict(experiment), minutes, plot.training_alt(rows), scores)
    write_text(folder / "README.md", card)


def _test(context: TrainContext, classifier: Classifier) -> dict | None:
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


def _write_experiment(experiment: Experiment, path: Path) -> None:
    """Write experiment.json; ValueError where the folder has the run of another experiment."""
    advice = "choose another --workdir or remove this folder."
    if path.exists():
        try:
            earlier = read_json(path)
        except ValueError as error:
            raise ValueError(
                f"{error} This version of mbt_lite cannot resume that run; {advice}"
            ) from None
        changes = _differences(to_dict(_fixed(earlier)), to_dict(_fixed(experiment)))
        if changes:
            raise ValueError(f"{path} describes another experiment ({changes[0]}); {advice}")
    if jax.process_index() == 0:
        write_text(path, json.dumps(to_dict(experiment), indent=1))


def _fixed(experiment: Experiment) -> Experiment:
    """The experiment without the settings that may change when a run is resumed."""
    defaults = TrainConfig()
    train = replace(experiment.train, **{name: getattr(defaults, name) for name in FREE})
    data = replace(experiment.data, workers=0)
    return replace(experiment, train=train, data=data)


def _differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    """Sentences such as "train.batch was 32, and is 16"."""
    sentences = []
    for name, value in now.items():
        if isinstance(value, dict):
            sentences += _differences(before[name], value, f"{prefix}{name}.")
        elif before[name] != value:
            sentences.append(f"{prefix}{name} was {before[name]}, and is {value}")
    return sentences
