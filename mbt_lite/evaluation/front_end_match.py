"""Rank front ends by a model's accuracy on labeled clips, to find the one it was trained with.

The released weights came without the recipe of their spectrograms. A model is most accurate with
the front end of its training. Each preset is standardized with its own mean and deviation over the
given audio, so a gain or the base of a logarithm cancels: it cannot be found and need not be.
`mbt-lite match-front-end --prove` measures how reliable this is.

    K windows   N clips   C classes   P presets   R resamples   S samples
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mbt_lite import features
from mbt_lite.config import FrontEnd
from mbt_lite.data import datasets
from mbt_lite.data.videos import FileSource
from mbt_lite.evaluation import metrics
from mbt_lite.evaluation.loop import predict_batches
from mbt_lite.inference import Classifier
from mbt_lite.model.label_heads import comparable

RESAMPLES = 500
EQUIVALENT = 0.02  # deviations between two spectrograms that count as the same input


@dataclass(frozen=True)
class Row:
    """The accuracy of a model with one front end.

    A gap is how much lower a score is than that of the best row: low and high end of the 95 %
    interval of the difference, by paired bootstrap over clips.
    """

    front_end: FrontEnd  # with the mean and the deviation that were used
    own_statistics: bool  # measured on the given audio; False: those of the preset
    log_likelihood: float  # nats per clip
    log_likelihood_gap_ci95: tuple[float, float]
    mean_average_precision: float
    mean_average_precision_gap_ci95: tuple[float, float]

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
        return self.log_likelihood_gap_ci95[0] <= 0


@dataclass(frozen=True)
class FrontEndMatch:
    """Front ends ranked by log-likelihood, best first."""

    rows: tuple[Row, ...]
    expected: FrontEnd  # what the model was loaded with
    clips: int
    classes: int  # those with a positive clip, over which the mAP is
    equivalent: tuple[tuple[str, ...], ...]  # groups of presets that give the same input here
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
        lines = [f"{head}         mAP, gap (95 %)", *(_line(row, width) for row in self.rows)]
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
        if best.mean_average_precision_gap_ci95[0] > 0:
            sentences.append(f"The mAP prefers {top.label}; the two measures disagree.")
        if self.clips < 30:
            sentences.append("So few clips make the intervals too narrow; give 30 or more.")
        for group in self.equivalent:
            sentences.append(f"The same input here, whatever the model: {', '.join(group)}.")
        return [*sentences, *(f"note: {note}" for note in self.notes)]


def _line(row: Row, width: int) -> str:
    front, (low, high) = row.front_end, row.log_likelihood_gap_ci95
    map_low, map_high = row.mean_average_precision_gap_ci95
    return (
        f"{row.label:{width}} {front.mean:8.3f} {front.std:7.3f}   "
        f"{row.log_likelihood:8.3f} {low:8.3f}..{high:<8.3f}{'tie' if row.within_ci else '':4}   "
        f"{row.mean_average_precision:6.3f} {map_low:7.3f}..{map_high:<6.3f}"
    )


def match_front_end(
    classifier: Classifier,
    source: str | Path | FileSource,
    presets: Sequence[str] | None = None,
    *,
    own_statistics: bool = True,
    views: int = 1,
    quiet: bool = False,
) -> FrontEndMatch:
    """Rank front-end presets (None: all) by a model's answers on labeled clips.

    `source` is a table or a folder (see `tables.read`), or the files that `datasets.open_files`
    opened. A file is decoded once; its windows wait in a temporary file. The logits of `views`
    windows of a clip, or of the one at its start, are averaged. Files that cannot be read and
    silent ones are left out, and listed in `notes`. With `own_statistics`, presets are standardized
    with statistics of the given audio, otherwise with the stored ones. The front end that the model
    was loaded with and "linear-mel", which has Scenic's own numbers, are always also tried with the
    stored ones.
    """
    if "spec" not in classifier.config.streams:
        raise ValueError("this model has no audio stream, so it has no front end to find.")
    if not isinstance(source, FileSource):
        source = datasets.open_files(source, classifier.labels)
    with tempfile.TemporaryDirectory(prefix="mbt-lite-") as folder:
        windows = _decode(classifier, source, views, Path(folder), quiet)
        return match_front_end_waves(
            classifier,
            windows.waves,
            np.stack([source.targets(index) for index in windows.clips]),
            presets,
            owner=windows.owner,
            frames=windows.frames,
            own_statistics=own_statistics,
            notes=(*source.notes, *windows.notes),
            quiet=quiet,
        )


def match_front_end_waves(
    classifier: Classifier,
    waves: np.ndarray,
    truth: np.ndarray,
    presets: Sequence[str] | None = None,
    *,
    owner: np.ndarray | None = None,
    frames: np.ndarray | None = None,
    own_statistics: bool = True,
    notes: tuple[str, ...] = (),
    quiet: bool = False,
) -> FrontEndMatch:
    """Rank front-end presets on windows of audio [K, S], floats in [-1, 1] or 16-bit integers.

    `truth` [N, C] is 0 or 1; `owner` [K] is the clip of each window (None: one window each);
    `frames` uint8 [K, T, H, W, 3] are needed if the model has a video stream.
    """
    fronts = [features.front_end(name) for name in presets or features.FRONT_ENDS]
    owner = np.arange(len(waves)) if owner is None else owner
    means, deviations, distances = _statistics(classifier, waves, fronts, quiet)
    tried = [(front, False) for front in fronts]
    if own_statistics:
        measured = zip(fronts, means, deviations, strict=True)
        own = [(replace(f, mean=float(m), std=float(d)), True) for f, m, d in measured]
        tried = own + [(front, False) for front in _stored(classifier, fronts)]
    logits = _logits(classifier, waves, frames, [front for front, _ in tried], quiet)
    logits = np.stack([_mean_by(owner, rows, len(truth)) for rows in logits])  # [P, N, C]
    return FrontEndMatch(
        rows=_ranked(tried, logits, truth, classifier.label_heads),
        expected=classifier.clip_config.front_end,
        clips=len(truth),
        classes=int(truth.any(0).sum()),
        equivalent=_groups([front.name for front in fronts], distances),
        notes=notes,
    )


def _stored(classifier: Classifier, fronts: Sequence[FrontEnd]) -> list[FrontEnd]:
    """The front ends of `fronts` that are also tried with their stored statistics."""
    candidates = [features.FRONT_ENDS["linear-mel"], classifier.clip_config.front_end]
    names = [front.name for front in fronts]
    return [front for front in dict.fromkeys(candidates) if front.name in names]


@dataclass(frozen=True)
class _AudioWindows:
    """Windows of the clips that could be used."""

    waves: np.ndarray  # float32 [K, S]
    frames: np.ndarray | None  # uint8 [K, T, H, W, 3]
    owner: np.ndarray  # [K], position in `clips`
    clips: list[int]  # numbers of the clips in the source
    notes: tuple[str, ...]


def _decode(classifier, source: FileSource, views: int, folder: Path, quiet) -> _AudioWindows:
    """The windows of all clips, on disk, because their frames may not fit into memory."""
    config, owner, clips, notes = classifier.clip_config, [], [], []
    samples = config.spec_frames * config.front_end.hop_samples
    shape = (config.frames, config.size, config.size, 3)
    has_video = "rgb" in classifier.config.streams
    with (folder / "waves").open("wb") as waves, (folder / "frames").open("wb") as frames:
        for index in tqdm(range(len(source)), "decoding", unit="clip", disable=quiet):
            try:
                windows = source.views(index, config, views)
            except (ValueError, OSError) as error:
                notes.append(f"left out: {error}")
                continue
            if not any(view.wave.any() for view in windows):
                notes.append(f"left out: {source.file(index)} is silent")
                continue
            owner += [len(clips)] * len(windows)
            clips.append(index)
            for view in windows:
                waves.write(view.wave.tobytes())
                frames.write(view.rgb.tobytes() if has_video else b"")
    if not clips:
        raise ValueError("no clip is left to match on; " + "; ".join(notes))
    count, video = len(owner), None
    if has_video:
        video = np.memmap(folder / "frames", np.uint8, "r", shape=(count, *shape))
    return _AudioWindows(
        np.memmap(folder / "waves", np.float32, "r", shape=(count, samples)),
        video,
        np.array(owner),
        clips,
        tuple(notes),
    )


def _spec(classifier: Classifier, wave: np.ndarray, front: FrontEnd) -> np.ndarray:
    """The spectrogram [N, M] of one window, not standardized."""
    if wave.dtype == np.int16:
        wave = wave / np.float32(32768)
    return features.log_mel(wave, front)[: classifier.clip_config.spec_frames]


def _statistics(classifier, waves, fronts, quiet: bool):
    """Mean [P] and deviation [P] of every preset, and the distance [P, P] of any two.

    The distance is the root mean square of the difference of both, standardized; it follows from
    their correlation.
    """
    count, total, products = 0, 0.0, 0.0
    for wave in tqdm(waves, "statistics", unit="window", disable=quiet):
        specs = [_spec(classifier, wave, front).ravel() for front in fronts]
        values = np.stack(specs).astype(np.float64)  # [P, numbers in a spectrogram]
        count += values.shape[1]
        total, products = total + values.sum(1), products + values @ values.T
    means = total / count
    covariance = products / count - np.outer(means, means)
    deviations = np.sqrt(covariance.diagonal())
    correlation = covariance / np.outer(deviations, deviations)
    return means, deviations, np.sqrt(np.maximum(2 - 2 * correlation, 0))


def _logits(classifier, waves, frames, fronts, quiet: bool) -> np.ndarray:
    """Logits [P, K, C] of all windows through every front end."""
    batch = 64 if frames is None else 4  # windows; attention of a full-size clip takes 5.5 GB
    no_frames, logits = np.zeros(0, np.uint8), []

    def windows(front: FrontEnd):
        for number, wave in enumerate(waves):
            rgb = no_frames if frames is None else frames[number]
            yield number, rgb, _spec(classifier, wave, front)

    def apply(front: FrontEnd, rgb: np.ndarray, spec: np.ndarray) -> np.ndarray:
        clip = features.normalize(rgb, spec, front)
        return classifier.logits(clip._replace(rgb=None) if frames is None else clip)

    with tqdm(total=len(fronts) * len(waves), desc="predicting", disable=quiet) as progress:
        for front in fronts:
            logits.append([])
            for _, output in predict_batches(partial(apply, front), windows(front), batch):
                logits[-1].append(output)
                progress.update()
    return np.array(logits)


def _mean_by(owner: np.ndarray, values: np.ndarray, clips: int) -> np.ndarray:
    """The mean [N, C] of the windows [K, C] of each clip."""
    total = np.zeros((clips, values.shape[1]))
    np.add.at(total, owner, values)
    return total / np.bincount(owner, minlength=clips)[:, None]


def log_likelihood(logits: np.ndarray, truth: np.ndarray, heads: Sequence = ()) -> np.ndarray:
    """Nats per clip [..., N]: the negative cross entropy of the heads, by default of sigmoids."""
    return -metrics.cross_entropy(logits, truth, heads)


def _ranked(tried, logits: np.ndarray, truth: np.ndarray, heads: Sequence) -> tuple[Row, ...]:
    """A row for each front end, the highest log-likelihood first."""
    weights = np.random.default_rng(0).multinomial(
        len(truth), np.full(len(truth), 1 / len(truth)), RESAMPLES
    )  # [R, N], how often each clip is drawn
    logits = comparable(logits, heads)
    likelihoods = log_likelihood(logits, truth, heads)  # [P, N]
    maps = np.array([metrics.mean_average_precision(rows, truth) for rows in logits])
    resampled = np.stack([_resampled_map(rows, truth, weights) for rows in logits])  # [P, R]
    gaps = _gap_ci95(likelihoods.mean(1), likelihoods @ weights.T / len(truth))
    map_gaps = _gap_ci95(maps, resampled)
    rows = [
        Row(front, own, float(likelihoods[i].mean()), gaps[i], float(maps[i]), map_gaps[i])
        for i, (front, own) in enumerate(tried)
    ]
    return tuple(sorted(rows, key=lambda row: -row.log_likelihood))


def _gap_ci95(scores: np.ndarray, resampled: np.ndarray) -> list[tuple[float, float]]:
    """95 % interval of the difference of the best and each of P scores; resampled [P, R]."""
    gaps = resampled[scores.argmax()] - resampled
    low, high = np.percentile(gaps, (2.5, 97.5), axis=1)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _resampled_map(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """mAP [R] over the classes that have a positive in the resample."""
    classes = np.flatnonzero(truth.any(0))
    precisions = np.stack(
        [_weighted_precision(scores[:, c], truth[:, c] > 0, weights) for c in classes]
    )  # [classes, R]
    finite = np.isfinite(precisions)
    return np.where(finite, precisions, 0).sum(0) / finite.sum(0)


def _weighted_precision(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`metrics.average_precision` [R] when clip n counts weights[r, n] times; nan: no positive."""
    order = np.argsort(-scores, kind="stable")
    ranked, drawn = scores[order], weights[:, order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each tie
    hits = np.cumsum(drawn * truth[order], axis=1)[:, last]  # [R, ranks]
    precision = hits / np.maximum(np.cumsum(drawn, axis=1)[:, last], 1)
    gained = (precision * np.diff(hits, axis=1, prepend=0)).sum(1)
    return np.where(hits[:, -1] > 0, gained / np.maximum(hits[:, -1], 1), np.nan)


def _groups(names: Sequence[str], distances: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """Groups of presets within `EQUIVALENT` of the first of their group."""
    groups, remaining = [], list(range(len(names)))
    while remaining:
        first = remaining[0]
        near = [i for i in remaining if distances[first, i] < EQUIVALENT or i == first]
        remaining = [i for i in remaining if i not in near]
        groups.append(tuple(names[i] for i in near))
    return tuple(group for group in groups if len(group) > 1)
