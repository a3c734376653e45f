"""Rank front ends by a model's accuracy on labeled clips, to find the one it was trained with.

The released weights came without the recipe of their spectrograms. A model is most accurate with
the front end of its training. Each preset is standardized with its own mean and deviation over the
given audio, so a gain or the base of a logarithm cancels: it cannot be found and need not be.
`mbt-lite match-front-end --prove` measures how reliable this is.

    K windows   N clips   C classes   P front ends   R resamples   S samples
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from mbt_lite import features
from mbt_lite.config import FrontEnd
from mbt_lite.data import datasets
from mbt_lite.data.videos import FileSource
from mbt_lite.evaluation import metrics
from mbt_lite.evaluation.loop import make_batches, predict_batches
from mbt_lite.inference import Classifier
from mbt_lite.model.label_heads import comparable

_RESAMPLES = 500
Candidate = tuple[FrontEnd, bool]  # with statistics that were measured on the given audio, or not


@dataclass(frozen=True)
class Row:
    """The accuracy of a model with one front end.

    The gap is how much lower the log-likelihood is than that of the best row: low and high end of
    the 95 % interval of the difference, by paired bootstrap over clips.
    """

    front_end: FrontEnd  # with the mean and the deviation that were used
    own_statistics: bool  # measured on the given audio; False: those of the preset
    log_likelihood: float  # nats per clip
    gap_ci95: tuple[float, float]
    mean_average_precision: float

    @property
    def label(self) -> str:
        """The preset's name, with its statistics if they are not those of the given audio."""
        front = self.front_end
        stored = "" if self.own_statistics else f" ({front.mean:g}, {front.std:g})"
        return f"{front.name}{stored}"

    @property
    def argument(self) -> str:
        """The argument of `features.front_end` for this front end."""
        front = self.front_end
        preset = front == features.FRONT_ENDS[front.name]
        return front.name if preset else f"{front.name}:{front.mean:.4g}:{front.std:.4g}"

    @property
    def within_ci(self) -> bool:
        """Whether the interval of its log-likelihood's gap to the best contains 0."""
        return self.gap_ci95[0] <= 0


@dataclass(frozen=True)
class FrontEndMatch:
    """Front ends ranked by log-likelihood, best first."""

    rows: tuple[Row, ...]
    expected: FrontEnd  # what the model was loaded with
    clips: int
    classes: int  # those with a positive clip, over which the mAP is
    notes: tuple[str, ...] = ()  # clips that were left out

    @property
    def best(self) -> Row:
        return self.rows[0]

    @property
    def ties(self) -> tuple[Row, ...]:
        """The best row and all rows that are not distinguishable from it."""
        return tuple(row for row in self.rows if row.within_ci)

    @property
    def settled(self) -> bool:
        """Whether the front end that the model was loaded with is among the best."""
        return any(row.front_end == self.expected for row in self.ties)

    def to_dict(self) -> dict:
        """The ranking as JSON values."""
        rows = [
            {"label": r.label, "argument": r.argument, "within_ci": r.within_ci} | asdict(r)
            for r in self.rows
        ]
        return asdict(self) | {"rows": rows}

    def table(self) -> str:
        """The ranking as text, with its limits."""
        width = max(len(row.label) for row in self.rows)
        head = f"{'front end':{width}} {'mean':>8} {'std':>7}   log-likelihood, gap (95 %)"
        lines = [f"{head}           mAP", *(_line(row, width) for row in self.rows)]
        return "\n".join([*lines, "", *self.sentences()])

    def sentences(self) -> list[str]:
        """The result of the ranking and its limits."""
        expected, best = self.expected, self.best
        sentences = [
            f"{self.clips} clips, {self.classes} classes with a positive; the model was loaded "
            f"with {expected.name!r}, mean {expected.mean:g}, std {expected.std:g}.",
            f"Best by log-likelihood: {best.label}.",
        ]
        ties = [row.label for row in self.ties if row is not best]
        if ties:
            sentences.append(f"Not distinguishable from it with these clips: {', '.join(ties)}.")
        top = max(self.rows, key=lambda row: row.mean_average_precision)
        if top not in self.ties:
            sentences.append(f"The mAP prefers {top.label}; the two measures disagree.")
        if self.clips < 30:
            sentences.append("So few clips make the intervals too narrow; give 30 or more.")
        return [*sentences, *(f"note: {note}" for note in self.notes)]


def _line(row: Row, width: int) -> str:
    front, (low, high) = row.front_end, row.gap_ci95
    return (
        f"{row.label:{width}} {front.mean:8.3f} {front.std:7.3f}   "
        f"{row.log_likelihood:8.3f} {low:8.3f}..{high:<8.3f}{'tie' if row.within_ci else '':4}   "
        f"{row.mean_average_precision:6.3f}"
    )


def match_front_end(
    classifier: Classifier,
    source: str | Path | FileSource,
    presets: Sequence[str] | None = None,
    *,
    views: int = 1,
    quiet: bool = False,
) -> FrontEndMatch:
    """Rank front-end presets (None: all) by a model's answers on labeled clips.

    `source` is a table or a folder (see `tables.read`), or the files that `datasets.open_files`
    opened. The logits of `views` windows of a clip, or of the one at its start, are averaged. Files
    that cannot be read and silent ones are left out, and listed in `notes`. Their audio is held in
    memory; frames are decoded when they are needed. Presets are standardized with statistics of the
    given audio; the front end that the model was loaded with and "linear-mel", which has Scenic's
    own numbers, are also tried with the stored ones.
    """
    if "spec" not in classifier.config.streams:
        raise ValueError("this model has no audio stream, so it has no front end to find.")
    if not isinstance(source, FileSource):
        source = datasets.open_files(source, classifier.labels)
    config, clips, notes = classifier.clip_config, {}, list(source.notes)
    for index in tqdm(range(len(source)), "decoding", unit="clip", disable=quiet):
        try:
            waves = [view.wave for view in source.views(index, config, views)]
        except (ValueError, OSError) as error:
            notes.append(f"left out: {error}")
            continue
        if any(wave.any() for wave in waves):
            clips[index] = waves
        else:
            notes.append(f"left out: {source.file(index)} is silent")
    if not clips:
        raise ValueError("no clip is left to match on; " + "; ".join(notes))
    frames = (view.rgb for index in clips for view in source.views(index, config, views))
    return match_front_end_waves(
        classifier,
        [wave for waves in clips.values() for wave in waves],
        np.stack([source.targets(index) for index in clips]),
        presets,
        owner=np.repeat(np.arange(len(clips)), [len(waves) for waves in clips.values()]),
        frames=frames if "rgb" in classifier.config.streams else None,
        notes=tuple(notes),
        quiet=quiet,
    )


def match_front_end_waves(
    classifier: Classifier,
    waves: np.ndarray | Sequence[np.ndarray],
    truth: np.ndarray,
    presets: Sequence[str] | None = None,
    *,
    owner: np.ndarray | None = None,
    frames: np.ndarray | Iterable[np.ndarray] | None = None,
    notes: tuple[str, ...] = (),
    quiet: bool = False,
) -> FrontEndMatch:
    """Rank front-end presets on windows of audio [K, S], floats in [-1, 1] or 16-bit integers.

    `truth` [N, C] is 0 or 1; `owner` [K] is the clip of each window (None: one window each);
    `frames` uint8 [T, H, W, 3] of each window are needed if the model has a video stream.
    """
    waves = [wave / np.float32(32768) if wave.dtype == np.int16 else wave for wave in waves]
    tried = candidates(classifier, waves, presets, quiet)
    owner = range(len(waves)) if owner is None else owner.tolist()
    logits = logits_through(tried, classifier, waves, frames, owner, quiet)
    return FrontEndMatch(
        rows=ranked(tried, logits, truth, classifier.label_heads),
        expected=classifier.clip_config.front_end,
        clips=len(truth),
        classes=int(truth.any(0).sum()),
        notes=notes,
    )


def candidates(
    classifier: Classifier,
    waves: Sequence[np.ndarray],
    presets: Sequence[str] | None = None,
    quiet: bool = False,
) -> list[Candidate]:
    """The presets (None: all) with the statistics of `waves`, and two with the stored ones."""
    fronts = [features.front_end(name) for name in presets or features.FRONT_ENDS]
    tried = []
    for front in tqdm(fronts, "statistics", unit="front end", disable=quiet):
        mean, std = features.statistics(waves, front)
        tried.append((replace(front, mean=mean, std=std), True))
    stored = dict.fromkeys([features.FRONT_ENDS["linear-mel"], classifier.clip_config.front_end])
    names = [front.name for front in fronts]
    return tried + [(front, False) for front in stored if front.name in names]


def logits_through(
    tried: Sequence[Candidate], classifier: Classifier, waves, frames, owner, quiet: bool
) -> np.ndarray:
    """Logits [P, N, C] of all clips through every front end; see `match_front_end_waves`."""
    fronts = [front for front, _ in tried]
    batch = min(64, len(waves)) if frames is None and not classifier.is_large else 4  # windows
    pictures = repeat(np.zeros(0, np.uint8), len(waves)) if frames is None else frames

    def windows() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        with tqdm(total=len(waves), desc="predicting", unit="window", disable=quiet) as progress:
            for clip, rgb, wave in zip(owner, pictures, waves, strict=True):
                yield clip, rgb, wave
                progress.update()

    length = classifier.clip_config.spec_frames

    def apply(rows: dict) -> np.ndarray:
        logits = []
        for front in fronts:
            spec = np.stack([features.log_mel(wave, front)[:length] for wave in rows["spec"]])
            clip = features.normalize(*jax.device_put((rows["rgb"], spec)), front)
            clip = clip._replace(rgb=None) if frames is None else clip
            logits.append(classifier.logits(clip))
        return np.stack(logits, axis=1)

    return np.stack([x for _, x in predict_batches(apply, make_batches(windows(), batch))], axis=1)


def log_likelihood(logits: np.ndarray, truth: np.ndarray, heads: Sequence = ()) -> np.ndarray:
    """Nats per clip [..., N]: the negative cross entropy of the heads, by default of sigmoids."""
    return -metrics.cross_entropy(logits, truth, heads)


def ranked(
    tried: Sequence[Candidate], logits: np.ndarray, truth: np.ndarray, heads: Sequence = ()
) -> tuple[Row, ...]:
    """A row for each front end, the highest log-likelihood first."""
    weights = np.random.default_rng(0).multinomial(
        len(truth), np.full(len(truth), 1 / len(truth)), _RESAMPLES
    )  # [R, N], how often each clip is drawn
    logits = comparable(logits, heads)
    likelihoods = log_likelihood(logits, truth, heads)  # [P, N]
    gaps = _gap_ci95(likelihoods.mean(1), likelihoods @ weights.T / len(truth))
    maps = [metrics.mean_average_precision(rows, truth) for rows in logits]
    rows = [
        Row(front, own, float(likelihoods[i].mean()), gaps[i], maps[i])
        for i, (front, own) in enumerate(tried)
    ]
    return tuple(sorted(rows, key=lambda row: -row.log_likelihood))


def _gap_ci95(scores: np.ndarray, resampled: np.ndarray) -> list[tuple[float, float]]:
    """95 % interval of the difference of the best and each of P scores; resampled [P, R]."""
    gaps = resampled[scores.argmax()] - resampled
    low, high = np.percentile(gaps, (2.5, 97.5), axis=1)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
