"""Self-test recovery: does the self-test identify a front end and an order that were hidden?

Small audio models are trained on other realizations of the probe sounds, each through a hidden
front end, some with their classes in a shuffled order. The self-test gets the model and AudioSet's
names in official order, and nothing else. With `real`, a folder of recordings in a subfolder for
each class, these are trained on, too.

YAMNet is the real case: a published model of 521 of AudioSet's classes whose front end is known. It
takes spectrograms [1, 96, 64] as TensorFlow Lite; `ai-edge-litert` runs it. The table of AudioSet's
classes is class_labels_indices.csv. All front ends get YAMNet's 64 bins for this.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import front_end_recovery
from mbt_lite import features, media
from mbt_lite.config import TrainConfig
from mbt_lite.data import probe_sounds
from mbt_lite.evaluation import self_test
from mbt_lite.inference import Classifier

CLASSES = sorted([*probe_sounds.CLASSES, "Bark", "Sneeze", "Chainsaw", "Tick", "Waves, surf"])
REAL = {  # folder of ESC-10: AudioSet's name
    "dog_bark": "Bark", "person_sneeze": "Sneeze", "chainsaw": "Chainsaw", "clock_tick": "Tick",
    "sea_waves": "Waves, surf", "rain": "Rain", "helicopter": "Helicopter",
    "fire_crackling": "Fire",
}  # fmt: skip
FRAMES = 256
_SETUP = front_end_recovery.EXPERIMENT
EXPERIMENT = replace(
    _SETUP,
    model=replace(
        _SETUP.model, classes=len(CLASSES), spec_shape=(FRAMES, 128), spec_patch=(32, 16)
    ),
    clip=replace(_SETUP.clip, spec_frames=FRAMES),
    train=TrainConfig(steps=250, batch=32, learning_rate=3e-3, warmup=30, ema=0.98),
)
TRIALS = [  # hidden front end, whether the order is shuffled
    ("linear-mel", False),
    ("ln-magnitude-1e-6", False),
    ("kaldi", True),
    ("yamnet", False),
    ("lingvo", False),
    ("ln-power-1e-6", True),
    ("dmvr-hann", False),
    ("ln-magnitude-1e-2", False),
]


@dataclass(frozen=True)
class Trial:
    """What the self-test found in a model that was trained through `hidden`."""

    hidden: str
    shuffled: bool
    test: self_test.SelfTest
    outputs_found: float  # share of the probe classes whose output is the true one
    seconds: float

    @property
    def answer(self) -> str:
        ties = {row.front_end.name for row in self.test.match.ties}
        if ties == {self.hidden}:
            return "hit"
        return "tie" if self.hidden in ties else "miss"


def sounds(variants: int, real: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Waves [N, S] and labels [N, C] of other variants than those of the self-test."""
    found = [
        (name, probe_sounds.render(name, np.random.default_rng([7, v, i]), self_test.SECONDS))
        for v in range(variants)
        for i, name in enumerate(probe_sounds.CLASSES)
    ]
    for folder, name in REAL.items() if real else ():
        files = sorted((real / folder).iterdir())[:variants]
        found += [(name, media.read(file).wave) for file in files]
    size = FRAMES * 160
    waves = np.stack([np.resize(wave, size) for _, wave in found])
    labels = np.eye(len(CLASSES), dtype=np.float32)[[CLASSES.index(name) for name, _ in found]]
    return np.round(waves * 32767).astype(np.int16), labels


def prove(
    trials: Sequence[tuple[str, bool]] = TRIALS, variants: int = 12, real: Path | None = None
) -> list[Trial]:
    """Run the self-test on a model for each hidden front end; prints each row at once."""
    waves, labels = sounds(variants, real)
    measured = []
    for number, (hidden, shuffled) in enumerate(trials):
        start = time.perf_counter()
        order = np.arange(len(CLASSES))
        if shuffled:
            order = np.random.default_rng(number).permutation(order)
        front = features.front_end(hidden)
        model = front_end_recovery.train_through(front, waves, labels[:, order], EXPERIMENT)
        model = Classifier(model.config, model.params, model.clip_config, CLASSES)
        test = self_test.self_test(model)
        at = {name: int(np.flatnonzero(order == i)[0]) for i, name in enumerate(CLASSES)}
        right = np.mean([test.outputs[name] == at[name] for name in test.outputs])
        trial = Trial(hidden, shuffled, test, float(right), time.perf_counter() - start)
        print(_line(trial), flush=True)
        measured.append(trial)
    return measured


HEAD = (
    "| hidden front end | answer | ranks first | tied with it | mAP | hidden order | said of it "
    "| outputs found | s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def _line(trial: Trial) -> str:
    match = trial.test.match
    ties = ", ".join(row.label for row in match.ties if row is not match.best) or "none"
    order = "shuffled" if trial.shuffled else "official"
    said = "official" if trial.test.in_order else "not official"
    return (
        f"| {trial.hidden} | {trial.answer} | {match.best.label} | {ties} "
        f"| {match.best.mean_average_precision:.2f} | {order} | {said} "
        f"| {trial.outputs_found:.0%} | {trial.seconds:.0f} |"
    )


WITHOUT = (  # classes of AudioSet that YAMNet does not know
    "Male speech, man speaking", "Female speech, woman speaking", "Male singing", "Female singing",
    "Battle cry", "Funny music",
)  # fmt: skip


class Yamnet(Classifier):
    """YAMNet as a classifier of standardized spectrograms, as if it had been trained on such."""

    def __init__(self, file: Path, table: Path):
        from ai_edge_litert.interpreter import Interpreter

        with table.open(encoding="utf-8", newline="") as rows:
            names = [row["display_name"] for row in csv.DictReader(rows)]
        labels = [name for name in names if name not in WITHOUT]
        model = replace(EXPERIMENT.model, classes=len(labels), spec_shape=(FRAMES, 64))
        super().__init__(model, {}, EXPERIMENT.clip, labels)
        known = [name for name in probe_sounds.CLASSES if name in labels]
        waves = [self_test._probe(name, variant) for variant in (0, 1) for name in known]
        self.mean, self.std = features.statistics(waves, features.FRONT_ENDS["yamnet"])
        self.net = Interpreter(str(file), num_threads=1)
        self.net.allocate_tensors()
        self.input = self.net.get_input_details()[0]["index"]
        outputs = self.net.get_output_details()
        self.output = next(x["index"] for x in outputs if x["shape"][-1] == len(labels))

    def logits(self, clip, without=None) -> np.ndarray:
        specs = np.asarray(clip.spec[..., 0]) * self.std + self.mean
        starts = range(0, FRAMES - 95, 80)
        answers = [[self._score(spec[i : i + 96]) for i in starts] for spec in specs]
        scores = np.clip(np.mean(answers, axis=1), 1 / 512, 1 - 1 / 512)
        return np.log(scores / (1 - scores))

    def _score(self, patch: np.ndarray) -> np.ndarray:
        self.net.set_tensor(self.input, patch.reshape(1, 96, 64))
        self.net.invoke()
        return self.net.get_tensor(self.output)[0]


def rank_yamnet(file: Path, table: Path) -> None:
    """Run the self-test on YAMNet, and print its ranking."""
    fronts = {name: replace(front, mels=64) for name, front in features.FRONT_ENDS.items()}
    features.FRONT_ENDS = fronts
    print(self_test.self_test(Yamnet(file, table)).table())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="recordings in a folder for each class of ESC-10")
    parser.add_argument("--only", nargs="*", help="only these hidden front ends")
    parser.add_argument("--yamnet", type=Path, nargs=2, metavar=("TFLITE", "CSV"))
    options = parser.parse_args()
    if options.yamnet:
        return rank_yamnet(*options.yamnet)
    features.log_mel = front_end_recovery.remembered(
        features.log_mel
    )  # all trials hear the same probes
    print(HEAD)
    trials = prove(
        [t for t in TRIALS if not options.only or t[0] in options.only], real=options.real
    )
    counts = [f"{sum(t.answer == a for t in trials)} {a}" for a in ("hit", "tie", "miss")]
    print(f"\n{len(trials)} hidden front ends: {', '.join(counts)}.")


if __name__ == "__main__":
    main()
