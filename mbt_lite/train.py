"""Training: losses, schedule, one pure step, and a visible loop that can be interrupted."""

import contextlib
import dataclasses
import json
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from tqdm import tqdm

from mbt_lite import data, labelled, plot, world
from mbt_lite.config import Experiment, TrainConfig, from_dict, to_dict
from mbt_lite.evaluation import evaluate
from mbt_lite.features import normalise
from mbt_lite.inference import Classifier
from mbt_lite.model import MBT, Output, init_params


class State(NamedTuple):
    """Everything that training changes."""

    step: jax.Array
    params: dict
    optimizer: optax.OptState
    ema: dict  # running average of the parameters, the ones to evaluate and to give away


def stream_loss(output: Output, labels: jax.Array) -> dict[str, jax.Array]:
    """Sigmoid cross entropy of each stream's own logits, summed over classes, mean over clips."""
    return {
        stream: optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1).mean()
        for stream, logits in output.stream_logits.items()
    }


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW under a warm-up and a cosine to zero; only matrices decay."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, max(config.steps, config.warmup + 1)
    )
    matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay, mask=matrices),
    )


def init_state(experiment: Experiment) -> State:
    """The state before the first step, drawn from the experiment's seed."""
    params = init_params(experiment.model, jax.random.key(experiment.train.seed))
    optimizer = make_optimizer(experiment.train).init(params)
    return State(jnp.zeros((), jnp.int32), params, optimizer, jax.tree.map(jnp.copy, params))


@partial(jax.jit, static_argnames="experiment", donate_argnames="state")
def train_step(state: State, batch: dict, experiment: Experiment) -> tuple[State, dict]:
    """The state after one batch, and the losses and gradient norm as scalars."""
    model, config = MBT(experiment.model), experiment.train
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    clip = normalise(batch["rgb"], batch["spec"], experiment.clip.front_end)

    def total(params):
        output = model.apply({"params": params}, clip, train=True, rngs={"dropout": key})
        losses = stream_loss(output, batch["labels"])
        return sum(losses.values()) / len(losses), losses

    (loss, losses), gradient = jax.value_and_grad(total, has_aux=True)(state.params)
    update, optimizer = make_optimizer(config).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, update)
    decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
    metrics |= {f"loss_{stream}": value for stream, value in losses.items()}
    return State(state.step + 1, params, optimizer, ema), metrics


class Run(NamedTuple):
    """What `fit` leaves behind."""

    classifier: Classifier
    records: list[dict]  # one row per logged step
    folder: Path


def fit(experiment: Experiment, workdir) -> Run:
    """Train, or go on training, in `workdir`, and return the `Run` with the averaged weights.

    An interrupt (Ctrl-C) saves after the current step and is then raised, so that the same call
    goes on from there. The folder holds `experiment.json`, `metrics.jsonl`, Orbax checkpoints of
    the whole state and, at the end, `model.safetensors` with its card: `README.md` and
    `curves.png`. A folder that was begun with other settings is refused.
    """
    if f"{experiment.data}:train" not in labelled.WORLD:
        known = ", ".join(labelled.WORLD)
        raise ValueError(f"data {experiment.data}:train is unknown; use one of {known}.")
    folder = Path(workdir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _remember(experiment, folder / "experiment.json")
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with ocp.CheckpointManager(folder / "state", options=options) as saved:
        like = jax.eval_shape(partial(init_state, experiment))
        state = _newest(saved, like) or init_state(experiment)
        records = _read_records(folder / "metrics.jsonl", before=int(state.step))
        state = _loop(experiment, state, saved, records, folder / "metrics.jsonl")
    classifier = _without_parts(experiment, state.ema)
    classifier.save(folder / "model.safetensors")
    scores = evaluate(classifier)
    plot.training(records).savefig(folder / "curves.png", dpi=100)
    (folder / "README.md").write_text(_card(experiment, classifier, records, scores))
    return Run(classifier, records, folder)


def _card(experiment: Experiment, classifier: Classifier, records, scores: dict) -> str:
    """The model card of a finished run, in Markdown, every number from its log or `evaluate`."""
    config, model = experiment.train, classifier.config
    minutes = sum(row["seconds"] for row in records) / 60
    parameters = sum(leaf.size for leaf in jax.tree.leaves(classifier.params))
    conditions = ["both streams", "sound alone", "picture alone"]
    chance = scores["chance of matched"]
    rows = [
        f"| {name} | " + " | ".join(f"{scores[c][name]:.3f}" for c in conditions) + " |"
        for name in scores[conditions[0]]
    ]
    return f"""# {experiment.name}

A Multimodal Bottleneck Transformer with {parameters:,} parameters that tells what it sees and hears
in two-second clips of the micro-world (`mbt_lite.world`), whose {model.classes} labels it knows.
It is made for teaching and for measuring explanations; of real video it knows nothing.

- Geometry: width {model.width}, {model.depth} layers, {model.heads} heads, {model.bottlenecks}
  bottlenecks from layer {model.fusion_layer} on; frames {experiment.clip.frames} x
  {experiment.clip.size} x {experiment.clip.size} in patches {model.rgb_patch}, log-mel
  {model.spec_shape} in patches {model.spec_patch}; front end "{experiment.clip.front_end.name}".
- Recipe: AdamW, learning rate {config.learning_rate} after {config.warmup} warm-up steps, cosine to
  zero, weight decay {config.weight_decay}, gradient clipped at {config.clip_norm}, batch
  {config.batch}, {config.steps:,} steps of fresh clips (seed {config.seed}); averaged weights
  (decay {config.ema}). One sigmoid cross entropy per stream, summed over classes, averaged.
- Time: {minutes:.1f} min for {config.steps * config.batch:,} clips by the run's own log, with
  validation.
- Licence: Apache-2.0. Data: generated by this project.

![{plot.training_alt(records)}](curves.png)

Scores on {scores["clips"]:,} clips of `{scores["data"]}`, which training never shows:

| | {" | ".join(conditions)} |
| --- | --- | --- | --- |
{chr(10).join(rows)}

Chance for "matched accuracy" (which shape sings): {chance["picture alone"]:.3f} by the picture
alone, {chance["sound alone"]:.3f} by the sound alone.
"""


def _without_parts(experiment: Experiment, params: dict) -> Classifier:
    """The classifier of the world's own labels: the columns that only helped in training go."""
    count = len(world.LABELS)
    head = {name: leaf[..., :count] for name, leaf in params["head"].items()}
    model = dataclasses.replace(experiment.model, classes=count)
    card = {"name": experiment.name, "training": to_dict(experiment.train)}
    return Classifier(model, {**params, "head": head}, experiment.clip, world.LABELS, card)


def _loop(experiment, state, saved, records, log_path) -> State:
    """The loop itself; what it shows and saves is read off the state, never fed back into it."""
    config, first = experiment.train, int(state.step)
    losses, clock = [], time.perf_counter()
    last = config.steps
    bar = tqdm(total=config.steps, initial=first, unit="step", desc=experiment.name)
    with bar, log_path.open("a") as log, _noting_interrupts() as interrupts:
        for step, batch in enumerate(data.batches(experiment, first), first + 1):
            state, result = train_step(state, batch, experiment)
            losses.append(result)
            if step % config.log_every == 0 or step == last:
                jax.block_until_ready(state)
                row = _row(step, losses, time.perf_counter() - clock, config.batch)
                if step % config.save_every == 0 or step == last:
                    row |= _validation(experiment, state.ema)
                row["seconds"] = round(time.perf_counter() - clock, 2)
                losses, clock = [], time.perf_counter()
                records.append(row)
                print(json.dumps(row), file=log, flush=True)
                bar.set_postfix({k: row[k] for k in ("loss", "clips_per_s")})
            if step % config.save_every == 0 or step == last or interrupts:
                saved.save(step, args=ocp.args.StandardSave(state))
                saved.wait_until_finished()  # before the next step reuses the state's memory
            bar.update()
            if interrupts:
                raise KeyboardInterrupt
    return state


@contextlib.contextmanager
def _noting_interrupts():
    """A list that Ctrl-C makes longer, so that no step is cut in two; elsewhere than in the main
    thread, which alone may handle signals, it stays empty."""
    noted = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _validation(experiment: Experiment, params: dict) -> dict:
    """Scores of the averaged weights on 200 clips that training never shows."""
    scores = evaluate(
        _without_parts(experiment, params), f"{experiment.data}:validation", count=200, quiet=True
    )
    return {name: round(value, 4) for name, value in scores["both streams"].items()}


def _row(step: int, losses: list[dict], seconds: float, batch: int) -> dict:
    """One line of the log: means since the last one."""
    means = {k: round(float(np.mean([row[k] for row in losses])), 5) for k in losses[0]}
    if not np.isfinite(means["loss"]):
        raise ValueError(f"the loss is {means['loss']} at step {step}; try a lower learning rate.")
    return {"step": step, **means, "clips_per_s": round(len(losses) * batch / seconds, 1)}


def _remember(experiment: Experiment, path: Path) -> None:
    """Write down what is trained here, or refuse to mix two experiments in one folder."""
    if path.exists():
        if from_dict(Experiment, json.loads(path.read_text())) != experiment:
            raise ValueError(
                f"{path} describes another experiment; choose another --workdir or remove it."
            )
        return
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(to_dict(experiment), indent=1))
    temporary.rename(path)


def _newest(saved: ocp.CheckpointManager, like: State) -> State | None:
    step = saved.latest_step()
    return saved.restore(step, args=ocp.args.StandardRestore(like)) if step is not None else None


def _read_records(path: Path, before: int) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [row for row in rows if row["step"] <= before]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows
