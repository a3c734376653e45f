"""Front-end recovery: does front-end matching identify a front end that was hidden from it?

For every preset a small audio model is trained through that preset on the micro-world.
`match_front_end_waves` then gets the model and held-out audio with labels, but neither the name
nor the settings of the preset.

All audio of the micro-world has some noise and is about equally loud, which hides what separates
front ends on real files: the quiet parts. Therefore each clip is attenuated by 0 to 40 dB, half of
them begin or end with up to half a second of digital silence, as cut video does, and all are
rounded to 16 bits, as files are.

Of 19 presets 18 ranked first in their own model, 5 of them tied with one other. Frames that begin
at k * hop or are centered there differ by 12.5 ms, on which no label here depends; magnitude with
an offset of 1e-3 and power with 1e-6 reach silence at the same level, with either FFT.

One was missed, "linear-mel-power". Squared energies leave quiet audio near zero, so the model did
not learn to use it, and "linear-mel", which raises it, worked better: the quietest quarter of the
clips gained 0.9 nats, the loudest lost 0.4. Matching identifies the front end through which a model
predicts best; that is the one of its training only if the model learned well through it.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from mbt_lite import features
from mbt_lite.config import WORLD, WORLD_CLIP, Experiment, FrontEnd, TrainConfig
from mbt_lite.data import world
from mbt_lite.evaluation.front_end_match import FrontEndMatch, Row, match_front_end_waves
from mbt_lite.inference import Classifier
from mbt_lite.plot.style import INK, add_colorbar, finish, new_figure
from mbt_lite.train import sharding, step

HEARD = slice(world.KINDS["heard"].start, world.KINDS["both"].stop)  # labels of audio
LABELS = world.LABELS[HEARD]
HIDDEN = FrontEnd("untold")  # the front end that the model's file names

# One experiment for all presets, so that it compiles once: spectrograms are standardized before.
EXPERIMENT = Experiment(
    "front-end recovery",
    replace(
        WORLD,
        streams=("spec",),
        classes=len(LABELS),
        width=64,
        depth=2,
        heads=4,
        mlp_dim=128,
        fusion_layer=0,
    ),
    replace(WORLD_CLIP, front_end=HIDDEN),
    train=TrainConfig(steps=600, batch=32, learning_rate=2e-3, warmup=60, ema=0.98),
)
TRAINING, HELD_OUT = 3000, 300  # clips
FAR = 2.0  # nats behind the best, where the color scale ends


@dataclass(frozen=True)
class Trial:
    """The result of `match_front_end_waves` for a model trained through `hidden`."""

    hidden: str
    match: FrontEndMatch
    seconds: float  # of training and matching

    @property
    def answer(self) -> str:
        """ "found": `hidden` ranks first and no other ties with it; "tied": others do; "missed"."""
        ties = {row.front_end.name for row in self.match.ties}
        if ties == {self.hidden}:
            return "found"
        return "tied" if self.hidden in ties else "missed"


def sounds(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The audio of a split's first scenes, int16 [N, S], and its labels [N, 11]."""
    seed = world.SPLITS[split]
    scenes = [world.scene(seed, index) for index in range(count)]
    waves = [_recorded(world.wave(scene), seed, index) for index, scene in enumerate(scenes)]
    return np.stack(waves), np.stack([scene.labels[HEARD] for scene in scenes])


def _recorded(wave: np.ndarray, seed: int, index: int) -> np.ndarray:
    """Attenuate the audio, silence its start or end at random, and round it to 16 bits."""
    rng = np.random.default_rng([seed, index, 5])
    wave = wave * 10 ** rng.uniform(-2, 0)
    cut = int(rng.uniform(0, 0.5) * world.RATE)
    side = rng.integers(4)
    if side < 2:
        wave[slice(cut) if side else slice(len(wave) - cut, None)] = 0
    return np.round(wave * 32767).astype(np.int16)


def train_through(
    front: FrontEnd, waves: np.ndarray, labels: np.ndarray, experiment: Experiment = EXPERIMENT
) -> Classifier:
    """Train a `Classifier` of audio through `front`, without storing that in it."""
    specs = np.stack([features.log_mel(wave / np.float32(32768), front) for wave in waves])
    specs = specs[:, : experiment.clip.spec_frames]
    specs = (specs - float(specs.mean(dtype=np.float64))) / float(specs.std(dtype=np.float64))
    mesh, rng = sharding.make_mesh(), np.random.default_rng(experiment.train.seed)
    state, do = step.first_state(experiment, mesh), step.train_step(experiment, LABELS, mesh)
    count = experiment.train.batch
    for _ in range(experiment.train.steps):
        rows = rng.integers(len(specs), size=count)
        batch = {"spec": specs[rows], "labels": labels[rows], "mask": np.ones(count, "f4")}
        state, _ = do(state, batch)
    return Classifier(experiment.model, state.weights, experiment.clip, LABELS)


def remembered(log_mel: Callable) -> Callable:
    """`features.log_mel` that computes no spectrogram twice: all trials hear the same audio."""
    compute = cache(lambda data, front: log_mel(np.frombuffer(data, np.float32), front))

    def look_up(wave: np.ndarray, front: FrontEnd) -> np.ndarray:
        return compute(np.float32(wave).tobytes(), replace(front, mean=0.0, std=1.0))

    return look_up


def prove(
    presets: Sequence[str] | None = None,
    *,
    against: Sequence[str] | None = None,
    experiment: Experiment = EXPERIMENT,
    training: int = TRAINING,
    held_out: int = HELD_OUT,
    quiet: bool = False,
) -> list[Trial]:
    """Hide each of `presets` in a model, and match it among these and `against` (None: all)."""
    hidden = list(presets or features.FRONT_ENDS)
    rivals = list(dict.fromkeys([*hidden, *(against or features.FRONT_ENDS)]))
    waves, labels = sounds("train", training)
    held_out_waves, truth = sounds("test", held_out)
    trials = []
    for name in tqdm(hidden, "hidden presets", disable=quiet):
        start = time.perf_counter()
        classifier = train_through(features.front_end(name), waves, labels, experiment)
        match = match_front_end_waves(classifier, held_out_waves, truth, rivals, quiet=True)
        trials.append(Trial(name, match, time.perf_counter() - start))
    return trials


def table(trials: Sequence[Trial]) -> str:
    """The ranking for each hidden preset, as a Markdown table."""
    lines = [
        "| hidden | answer | ranks first | tied with it | log-likelihood of hidden "
        "| of the best outside the ties | mAP with hidden | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_line(trial) for trial in trials),
    ]
    counts = {a: sum(t.answer == a for t in trials) for a in ("found", "tied", "missed")}
    summary = ", ".join(f"{count} {answer}" for answer, count in counts.items())
    return "\n".join([*lines, "", f"{len(trials)} hidden presets: {summary}."])


def _line(trial: Trial) -> str:
    match = trial.match
    hidden = next(row for row in match.rows if row.front_end.name == trial.hidden)
    ties = ", ".join(row.label for row in match.ties if row is not match.best) or "none"
    other = next((row for row in match.rows if not row.within_ci), None)
    outside = f"{other.log_likelihood:.2f} ({other.label})" if other else "none"
    return (
        f"| {trial.hidden} | {trial.answer} | {match.best.label} | {ties} "
        f"| {hidden.log_likelihood:.2f} | {outside} | {hidden.mean_average_precision:.3f} "
        f"| {trial.seconds:.0f} |"
    )


def to_json(trials: Sequence[Trial]) -> str:
    """Every trial with its complete ranking."""
    rows = [
        {"hidden": t.hidden, "answer": t.answer, "seconds": t.seconds, **t.match.to_dict()}
        for t in trials
    ]
    return json.dumps(rows, indent=1)


def figure(trials: Sequence[Trial]) -> Figure:
    """Draw how far behind the best a model answers, by the front end
    of its training (rows) and that of the test (columns). A dot marks the best, a ring its ties.
    """
    own = [r.front_end.name for r in trials[0].match.rows if r.own_statistics]
    names = list(dict.fromkeys([*(trial.hidden for trial in trials), *own]))
    ax = new_figure(0.3 * len(names) + 3.6, 0.3 * len(trials) + 2.2).subplots()
    nats = np.array([[_row(trial, name).log_likelihood for name in names] for trial in trials])
    behind = nats.max(1, keepdims=True) - nats
    image = ax.imshow(behind, cmap="magma_r", vmin=0, vmax=FAR, aspect="auto")
    for y, trial in enumerate(trials):
        for x, row in enumerate(_row(trial, name) for name in names):
            if row.within_ci:
                face = INK if row is trial.match.best else "none"
                ax.plot(x, y, "o", mec=INK, mfc=face, ms=6)
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(trials)), [trial.hidden for trial in trials])
    ax.set(xlabel="front end in the test", ylabel="hidden front end")
    add_colorbar(ax, image, f"nats behind the best\n({FAR:g} or more: dark)")
    return finish(ax, "Which front end matching finds").figure


def figure_alt(trials: Sequence[Trial]) -> str:
    """A sentence that lists the front ends that were found, tied and missed."""
    parts = [f"{len(trials)} front ends hidden in small models"]
    for answer in ("found", "tied", "missed"):
        names = [trial.hidden for trial in trials if trial.answer == answer]
        parts.append(f"{answer}: {', '.join(names) or 'none'}")
    return "; ".join(parts)


def _row(trial: Trial, name: str) -> Row:
    """The row of a front end with the statistics of the clips."""
    rows = (row for row in trial.match.rows if row.own_statistics)
    return next(row for row in rows if row.front_end.name == name)
