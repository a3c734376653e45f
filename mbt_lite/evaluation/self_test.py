"""Find the front end of a model with AudioSet's classes, and their order, by sounds made by code.

The released weights came without the recipe of their spectrograms. The model hears sounds whose
label is certain (`data.probe_sounds`) through every front end; the one through which it recognizes
them best wins. Front ends that fall three standard errors behind are dropped after each round, so
that a large model takes minutes. The video stream is left out.

    K probe classes   N sounds   C classes of the model   P front ends
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from mbt_lite.config import to_dict
from mbt_lite.data import probe_sounds
from mbt_lite.evaluation import metrics
from mbt_lite.evaluation.front_end_match import (
    Candidate,
    FrontEndMatch,
    Row,
    candidates,
    logits_through,
    ranked,
)
from mbt_lite.inference import Classifier
from mbt_lite.progress import Progress, silent

FEWEST = 20  # probe classes that a model must know
LIMIT = 150.0  # s, after which no new round begins
SECONDS = 2.56  # of a sound: the tokens of the first ones are enough, and a third of the work
_VARIANTS = 2  # sounds of each class
_SHUFFLES = 100  # orders of the classes that the claimed one must beat


@dataclass(frozen=True)
class SelfTest:
    """What a model hears best through, and whether its classes are in the order of its labels."""

    match: FrontEndMatch  # its rows may have heard fewer sounds: they were dropped early
    in_order: bool  # the outputs of the probe classes are where the labels say
    outputs: dict[str, int]  # the output that answers to each probe class
    chance: float  # mAP with the outputs shuffled, the highest of many
    seconds: float

    @property
    def recognized(self) -> bool:
        """Whether the model recognizes the sounds at all, be its classes in order or not."""
        return self.match.best.mean_average_precision > self.chance

    @property
    def second(self) -> Row | None:
        """The next best front end if it cannot be told apart from the best, else None."""
        return next((row for row in self.match.ties if row is not self.match.best), None)

    def verdict(self) -> str:
        """The result in plain sentences, to say with every answer of the model."""
        best, score = self.match.best, self.match.best.mean_average_precision
        if not self.recognized:
            return (
                "The self-test failed: through no front end does the model recognize the sounds "
                f"(mAP {score:.2f}, {self.chance:.2f} by chance), so its answers are not to be "
                "trusted."
            )
        heard = f"By the self-test on {self.match.classes} classes of generated sounds"
        if self.second:
            others = len(self.match.ties) - 1
            text = (
                f"{heard} its front end is undecided: {best.label} answers best (mAP {score:.2f}), "
                f'and {others} more cannot be told apart from it, first front_end="'
                f'{self.second.argument}". Compare the answers through both.'
            )
        else:
            text = f"{heard} its front end is {best.label} (mAP {score:.2f}), alone at the top."
        order = "are" if self.in_order else "are not"
        return f"{text} Its classes {order} in the order of their names.{self._moved()}"

    def _moved(self) -> str:
        if self.in_order:
            return ""
        some = list(self.outputs.items())[:3]
        places = ", ".join(f"{name} at {output}" for name, output in some)
        return f" Do not trust the names; by the sounds {places}."

    def to_dict(self) -> dict:
        """The result as JSON values, to store beside the weights."""
        fields = {"in_order": self.in_order, "outputs": self.outputs, "chance": self.chance}
        return fields | {
            "caution": self.verdict(),
            "front_end": to_dict(self.match.best.front_end) if self.recognized else None,
            "seconds": self.seconds,
            "match": self.match.to_dict(),
        }

    def table(self) -> str:
        """The ranking and the verdict as text."""
        return f"{self.match.table()}\n\n{self.verdict()}"


def self_test(
    classifier: Classifier,
    presets: Sequence[str] | None = None,
    *,
    limit: float = LIMIT,
    progress: Progress = silent,
) -> SelfTest:
    """Test a classifier with AudioSet's names, or with at least 20 of those of the probe sounds.

    No new round begins after about `limit` s. ValueError if it has no audio stream, or too few of
    the classes.
    """
    start, model = time.monotonic(), _listener(classifier)
    names = [name for name in probe_sounds.CLASSES if name in classifier.labels]
    if len(names) < FEWEST:
        raise ValueError(
            f"a self-test needs a model with the names of AudioSet's classes; of the "
            f"{len(probe_sounds.CLASSES)} that sounds are made for, it has {len(names)}."
        )
    progress(0, desc="making sounds")
    waves = [_probe(name, variant) for variant in range(_VARIANTS) for name in names]
    kinds = np.tile(np.arange(len(names)), _VARIANTS)  # [N]
    claimed = np.array([classifier.labels.index(name) for name in names])  # [K]
    tried, dropped, first = candidates(model, waves, presets, quiet=True), [], len(names)
    rounds = [np.arange(i, first, 3) for i in range(3)] + [np.arange(first, len(waves))]
    heard, logits, in_order, size = np.zeros(0, int), [], False, 4 if model.is_large else 64
    for number, sounds in enumerate(rounds):
        if number == len(rounds) - 1 and in_order and time.monotonic() - start > 0.7 * limit:
            break
        for part in np.array_split(sounds, -(-len(sounds) // size)):
            share = 0.01 + 0.99 * (time.monotonic() - start) / limit
            progress(min(share, 0.99), desc=f"{len(tried)} front ends, round {number + 1} of 4")
            chosen = [waves[i] for i in part]
            logits.append(logits_through(tried, model, chosen, None, part.tolist(), quiet=True))
        heard, logits = np.append(heard, sounds), [np.concatenate(logits, axis=1)]
        rows, in_order, chance = _judge(tried, logits[0], kinds[heard], claimed)
        if in_order:
            near = [any(row.front_end == f for row in rows if _near(row)) for f, _ in tried]
            dropped = [row for row in rows if not _near(row)] + dropped
            rows = [row for row in rows if _near(row)]
            tried, logits = [c for c, n in zip(tried, near, strict=True) if n], [logits[0][near]]
    outputs = claimed
    if not in_order:
        rows, outputs = _judge_unordered(tried, logits[0], kinds[heard])
    match = FrontEndMatch(
        (*rows, *dropped), classifier.clip_config.front_end, len(heard), len(names)
    )
    by_name = dict(zip(names, outputs.tolist(), strict=True))
    return SelfTest(match, in_order, by_name, chance, time.monotonic() - start)


def _listener(classifier: Classifier) -> Classifier:
    """The classifier for clips of audio of `SECONDS`: with the positions of their patches only."""
    config, clip = classifier.config, classifier.clip_config
    if "spec" not in config.streams:
        raise ValueError("this model has no audio stream, so there is no front end to test.")
    (frames, mels), (patch, _) = config.spec_shape, config.spec_patch
    steps = max(round(100 * SECONDS) // patch, 1)
    if steps >= frames // patch:
        return classifier
    config = replace(config, spec_shape=(steps * patch, mels))
    count = config.patches("spec") + (config.pool == "token")
    positions = classifier.params["spec_positions"][:, :count]
    params = classifier.params | {"spec_positions": positions}
    return Classifier(config, params, replace(clip, spec_frames=steps * patch), classifier.labels)


def _probe(name: str, variant: int) -> np.ndarray:
    rng = np.random.default_rng([variant, *name.encode()])
    return probe_sounds.render(name, rng, SECONDS)


def _near(row: Row) -> bool:
    """Whether a front end is at most three standard errors behind the best."""
    low, high = row.gap_ci95
    return low <= (high - low) / 4


def _judge(
    tried: Sequence[Candidate], logits: np.ndarray, kinds: np.ndarray, outputs: np.ndarray
) -> tuple[list[Row], bool, float]:
    """(rows, whether the sounds are recognized at these outputs, mAP by chance)."""
    truth = np.eye(len(outputs), dtype=np.float32)[kinds]
    rows = ranked(tried, logits[..., outputs], truth)
    rng = np.random.default_rng(0)
    best = logits[[front for front, _ in tried].index(rows[0].front_end)][:, outputs]
    shuffled = [
        metrics.mean_average_precision(rng.permutation(best, axis=1), truth)
        for _ in range(_SHUFFLES)
    ]
    return list(rows), rows[0].mean_average_precision > max(shuffled), max(shuffled)


def _judge_unordered(
    tried: Sequence[Candidate], logits: np.ndarray, kinds: np.ndarray
) -> tuple[list[Row], np.ndarray]:
    """(rows, outputs of the best) where the order of the classes is unknown.

    Through each front end the outputs of the classes are found with one half of the sounds and
    tried on the other.
    """
    parts = np.arange(len(kinds)) < len(kinds) // 2, np.arange(len(kinds)) >= len(kinds) // 2
    truth, selected = np.eye(kinds.max() + 1, dtype=np.float32)[kinds], []
    for answers in logits:
        columns = np.zeros(truth.shape, np.float32)
        for learn, test in (parts, parts[::-1]):
            columns[test] = answers[test][:, _outputs(answers[learn], kinds[learn])]
        selected.append(columns)
    rows = ranked(tried, np.stack(selected), truth)
    best = [front for front, _ in tried].index(rows[0].front_end)
    return list(rows), _outputs(logits[best], kinds)


def _outputs(logits: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The output [K] that answers most to the sounds of each class; no two classes share one."""
    standard = (logits - logits.mean(0)) / (logits.std(0) + 1e-3)
    means = np.stack([standard[kinds == kind].mean(0) for kind in range(kinds.max() + 1)])
    return linear_sum_assignment(-means)[1]
