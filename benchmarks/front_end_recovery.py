"""Front-end recovery: does front-end matching find a front end that was hidden from it?

For every preset a small audio model is trained through that preset on the micro-world.
`match_front_end_waves` then gets the model and held-out audio with labels, and nothing of the
preset's name or numbers.

All sounds of the micro-world have some noise and are about equally loud, which hides what separates
recipes on real files: the quiet parts. Therefore each audio here is attenuated by 0 to 40 dB, half
of them begin or end with up to half a second of digital silence, as cut video does, and all are
rounded to 16 bits, as files are.

Of 19 presets 18 ranked first in their own model, 5 of them tied with one other. Frames that begin
at k * hop or lie around it differ by 12.5 ms, which no label here depends on; magnitude with an
offset of 1e-3 and power with 1e-6 fade into silence at the same level, whichever FFT made them.

One was missed, "linear-mel-power". Squared energies leave quiet sounds at almost nothing, so the
model did not learn to use them, and "linear-mel", which lifts them, served it better: the quietest
quarter of the sounds gained 0.9 nats, the loudest lost 0.4. Matching finds the front end through
which a model answers best; that is the one of its training only where that one served it well.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from mbt_lite import features
from mbt_lite.config import WORLD, WORLD_CLIP, Experiment, FrontEnd, TrainConfig
from mbt_lite.data import world
from mbt_lite.evaluation.front_end_match import FrontEndMatch, match_front_end_waves
from mbt_lite.inference import Classifier
from mbt_lite.train import sharding, step

HEARD = slice(world.KINDS["heard"].start, world.KINDS["both"].stop)  # labels that audio tells
LABELS = world.LABELS[HEARD]
HIDDEN = FrontEnd("untold")  # what the model's file says of its front end

# One experiment for all presets, so that it compiles once: spectrograms come standardised.
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
TRAINING, HELD_OUT = 3000, 300  # sounds


@dataclass(frozen=True)
class Trial:
    """What `match_front_end_waves` made of a model trained through `hidden`."""

    hidden: str
    match: FrontEndMatch
    seconds: float  # of training and matching

    @property
    def answer(self) -> str:
        """ "found": `hidden`, or what gives the same input, ranks first and nothing else ties with
        it; "tied": other recipes are not told apart from it by these sounds; else "missed".
        """
        same = {self.hidden}.union(*(g for g in self.match.equivalent if self.hidden in g))
        ties = {row.front_end.name for row in self.match.ties}
        if ties <= same:
            return "found"
        return "tied" if ties & same else "missed"


def sounds(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` sounds of a split, int16 [N, S], and their labels [N, 11]."""
    seed = world.SPLITS[split]
    scenes = [world.scene(seed, index) for index in range(count)]
    waves = [_recorded(world.wave(scene), seed, index) for index, scene in enumerate(scenes)]
    return np.stack(waves), np.stack([scene.labels[HEARD] for scene in scenes])


def _recorded(wave: np.ndarray, seed: int, index: int) -> np.ndarray:
    """The audio turned down, perhaps cut, and rounded to 16 bits."""
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
    """A `Classifier` of sounds that heard them through `front`, and does not say so."""
    specs = np.stack([features.log_mel(wave / np.float32(32768), front) for wave in waves])
    specs = specs[:, : experiment.clip.spec_frames]
    specs = (specs - float(specs.mean(dtype=np.float64))) / float(specs.std(dtype=np.float64))
    mesh, rng = sharding.make_mesh(), np.random.default_rng(experiment.train.seed)
    state, do = step.first_state(experiment, mesh), step.train_step(experiment, LABELS, mesh)
    count = experiment.train.batch
    for _ in range(experiment.train.steps):
        chosen = rng.integers(len(specs), size=count)
        batch = {"spec": specs[chosen], "labels": labels[chosen], "mask": np.ones(count, "f4")}
        state, _ = do(state, batch)
    return Classifier(experiment.model, state.weights, experiment.clip, LABELS)


def prove(
    presets: Sequence[str] | None = None,
    *,
    against: Sequence[str] | None = None,
    experiment: Experiment = EXPERIMENT,
    training: int = TRAINING,
    held_out: int = HELD_OUT,
    quiet: bool = False,
) -> list[Trial]:
    """A `Trial` for each of `presets`, which are hidden, among these and `against` (None: all)."""
    hidden = list(presets or features.FRONT_ENDS)
    rivals = list(dict.fromkeys([*hidden, *(against or features.FRONT_ENDS)]))
    waves, labels = sounds("train", training)
    unheard, truth = sounds("test", held_out)
    trials = []
    for name in tqdm(hidden, "hidden presets", disable=quiet):
        begun = time.perf_counter()
        classifier = train_through(features.front_end(name), waves, labels, experiment)
        found = match_front_end_waves(classifier, unheard, truth, rivals, quiet=True)
        trials.append(Trial(name, found, time.perf_counter() - begun))
    return trials


def table(trials: Sequence[Trial]) -> str:
    """Which preset was found for each hidden one, in Markdown."""
    lines = [
        "| hidden | answer | ranks first | tied with it | log-likelihood of hidden "
        "| of the best outside the ties | mAP with hidden | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_line(trial) for trial in trials),
    ]
    counts = {a: sum(t.answer == a for t in trials) for a in ("found", "tied", "missed")}
    said = ", ".join(f"{count} {answer}" for answer, count in counts.items())
    return "\n".join([*lines, "", f"{len(trials)} hidden presets: {said}."])


def _line(trial: Trial) -> str:
    found = trial.match
    hidden = next(row for row in found.rows if row.front_end.name == trial.hidden)
    ties = ", ".join(row.label for row in found.ties if row is not found.best) or "none"
    other = next((row for row in found.rows if not row.within_ci), None)
    outside = f"{other.log_likelihood:.2f} ({other.label})" if other else "none"
    return (
        f"| {trial.hidden} | {trial.answer} | {found.best.label} | {ties} "
        f"| {hidden.log_likelihood:.2f} | {outside} | {hidden.mean_average_precision:.3f} "
        f"| {trial.seconds:.0f} |"
    )


def to_json(trials: Sequence[Trial]) -> str:
    """Every trial with its whole ranking."""
    rows = [
        {"hidden": t.hidden, "answer": t.answer, "seconds": t.seconds, **t.match.to_dict()}
        for t in trials
    ]
    return json.dumps(rows, indent=1)
