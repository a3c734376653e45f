"""Find the front end that a model was trained with: rank presets by its answers on labeled clips.

The released weights came without the recipe of their spectrograms. A model answers best through the
front end of its training, so its answers tell which one that was. Each preset is standardized with
its own mean and deviation over the given audio. A gain, or the base of a logarithm, cancels by
this: it cannot be found and need not be. `mbt-lite match-front-end --prove` measures how far this
can be trusted.

    K windows   N clips   C classes   P presets   R resamples   S samples
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mbt_lite import features
from mbt_lite.config import FrontEnd
from mbt_lite.data import tables
from mbt_lite.data.tables import Annotation
from mbt_lite.evaluation import metrics
from mbt_lite.inference import Classifier
from mbt_lite.media import MediaError
from mbt_lite.model.label_heads import comparable

RESAMPLES = 500
ALIKE = 0.02  # deviations between two spectrograms that count as the same input


@dataclass(frozen=True)
class Row:
    """How a model answers through one front end.

    `behind` is how far it falls short of the best row: low and high end of the 95 % interval of
    the difference, by paired bootstrap over clips. It is tied where the interval reaches 0.
    """

    front_end: FrontEnd  # with the mean and the deviation that were used
    own_statistics: bool  # measured on the given audio; False: as the preset has them
    log_likelihood: float  # nats per clip
    log_likelihood_behind: tuple[float, float]
    mean_average_precision: float
    mean_average_precision_behind: tuple[float, float]

    @property
    def label(self) -> str:
        """The preset's name; with its statistics where they are not those of the given audio."""
        front = self.front_end
        stored = "" if self.own_statistics else f" ({front.mean:g}, {front.std:g})"
        return f"{front.name}{stored}"

    @property
    def argument(self) -> str:
        """What `features.front_end` makes this front end of again."""
        front = self.front_end
        preset = front == features.FRONT_ENDS[front.name]
        return front.name if preset else f"{front.name}:{front.mean:.4g}:{front.std:.4g}"

    @property
    def tied(self) -> bool:
        """Whether its log-likelihood may be that of the best."""
        return self.log_likelihood_behind[0] <= 0


@dataclass(frozen=True)
class FrontEndMatch:
    """Front ends ranked by log-likelihood, best first."""

    rows: tuple[Row, ...]
    expected: FrontEnd  # what the model was loaded with
    clips: int
    classes: int  # those with a positive clip, over which the mAP is
    alike: tuple[tuple[str, ...], ...]  # groups of presets that give the same input here
    notes: tuple[str, ...] = ()  # clips that were left out

    @property
    def best(self) -> Row:
        return self.rows[0]

    @property
    def ties(self) -> tuple[Row, ...]:
        """The best and all that cannot be told from it."""
        return tuple(row for row in self.rows if row.tied)

    @property
    def settled(self) -> bool:
        """Whether nothing speaks against the front end that the model was loaded with."""
        return any(row.front_end == self.expected for row in self.ties)

    def to_dict(self) -> dict:
        """All of it in plain values, ready for JSON."""
        rows = [{"label": r.label, "argument": r.argument, "tied": r.tied} for r in self.rows]
        rows = [short | asdict(row) for short, row in zip(rows, self.rows, strict=True)]
        return asdict(self) | {"rows": rows}

    def table(self) -> str:
        """The ranking as text, with what it does not tell."""
        width = max(len(row.label) for row in self.rows)
        head = f"{'front end':{width}} {'mean':>8} {'std':>7}   log-likelihood, behind by (95 %)"
        lines = [f"{head}     mAP, behind by (95 %)", *(_line(row, width) for row in self.rows)]
        return "\n".join([*lines, "", *self.sentences()])

    def sentences(self) -> list[str]:
        """What the ranking says and what it leaves open."""
        expected, best = self.expected, self.best
        said = [
            f"{self.clips} clips, {self.classes} classes with a positive; the model was loaded "
            f"with {expected.name!r}, mean {expected.mean:g}, std {expected.std:g}.",
            f"Best by log-likelihood: {best.label}.",
        ]
        ties = [row.label for row in self.ties if row is not best]
        if ties:
            said.append(f"Not told apart from it by these clips: {', '.join(ties)}.")
        top = max(self.rows, key=lambda row: row.mean_average_precision)
        if best.mean_average_precision_behind[0] > 0:
            said.append(f"The mAP prefers {top.label}; the two measures disagree.")
        if self.clips < 30:
            said.append("So few clips make the intervals too narrow; give 30 or more.")
        for group in self.alike:
            said.append(f"The same input here, whatever the model: {', '.join(group)}.")
        return [*said, *(f"note: {note}" for note in self.notes)]


def _line(row: Row, width: int) -> str:
    front, (low, high) = row.front_end, row.log_likelihood_behind
    short, long = row.mean_average_precision_behind
    return (
        f"{row.label:{width}} {front.mean:8.3f} {front.std:7.3f}   "
        f"{row.log_likelihood:8.3f} {low:8.3f}..{high:<8.3f}{'tied' if row.tied else '':4}   "
        f"{row.mean_average_precision:6.3f} {short:7.3f}..{long:<6.3f}"
    )


def match_front_end(
    classifier: Classifier,
    source: str | Path | Sequence[Annotation],
    presets: Sequence[str] | None = None,
    *,
    own_statistics: bool = True,
    views: int = 1,
    quiet: bool = False,
) -> FrontEndMatch:
    """The `FrontEndMatch` of a model on labelled clips: presets (None: all) from best to worst.

    `source` is a table, a folder (see `tables.read`) or its rows. A file is decoded once; what it
    shows waits in a temporary file. Of a clip, `views` windows are heard and their logits averaged,
    or the one at the item's start. Files that cannot be read and silent ones are left out, which
    `notes` says. With `own_statistics` presets are standardised over the given audio, else as they
    are stored. What the model was loaded with and "linear-mel", which has Scenic's own numbers, are
    tried as they are stored too.
    """
    if "spec" not in classifier.config.streams:
        raise ValueError("this model has no audio stream, so it has no front end to find.")
    named = isinstance(source, str | Path)
    table = tables.AnnotationTable([] if named else list(source))
    if named:
        table = tables.read(source, classes=classifier.labels, strict=True)
    items = table.rows
    with tempfile.TemporaryDirectory(prefix="mbt-lite-") as folder:
        heard = _decode(classifier, items, views, Path(folder), quiet)
        return match_front_end_waves(
            classifier,
            heard.waves,
            tables.multi_hot([items[i] for i in heard.kept], classifier.labels),
            presets,
            owner=heard.owner,
            frames=heard.frames,
            own_statistics=own_statistics,
            notes=(*table.notes, *heard.notes),
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
    """The `FrontEndMatch` on windows of audio [K, S], floats in [-1, 1] or 16-bit integers.

    `truth` [N, C] is 0 or 1; `owner` [K] is the clip of each window (None: one window each);
    `frames` uint8 [K, T, H, W, 3] go with them if the model sees.
    """
    fronts = [features.front_end(name) for name in presets or features.FRONT_ENDS]
    owner = np.arange(len(waves)) if owner is None else owner
    means, deviations, distances = _statistics(classifier, waves, fronts, quiet)
    tried = [(front, False) for front in fronts]
    if own_statistics:
        measured = zip(fronts, means, deviations, strict=True)
        own = [(replace(f, mean=float(m), std=float(d)), True) for f, m, d in measured]
        tried = own + [(front, False) for front in _stored(classifier, fronts)]
    logits = _answers(classifier, waves, frames, [front for front, _ in tried], quiet)
    logits = np.stack([_mean_by(owner, one, len(truth)) for one in logits])  # [P, N, C]
    return FrontEndMatch(
        rows=_ranked(tried, logits, truth, classifier.label_heads),
        expected=classifier.clip_config.front_end,
        clips=len(truth),
        classes=int(truth.any(0).sum()),
        alike=_groups([front.name for front in fronts], distances),
        notes=notes,
    )


def _stored(classifier: Classifier, fronts: Sequence[FrontEnd]) -> list[FrontEnd]:
    """Of these presets the ones whose stored statistics are worth a try."""
    worth = [features.FRONT_ENDS["linear-mel"], classifier.clip_config.front_end]
    return [front for front in dict.fromkeys(worth) if front.name in [f.name for f in fronts]]


@dataclass(frozen=True)
class _Heard:
    """Windows of the clips that could be used."""

    waves: np.ndarray  # float32 [K, S]
    frames: np.ndarray | None  # uint8 [K, T, H, W, 3]
    owner: np.ndarray  # [K], place in `kept`
    kept: list[int]  # places in the items
    notes: tuple[str, ...]


def _decode(
    classifier, items: Sequence[Annotation], views: int, folder: Path, quiet: bool
) -> _Heard:
    """Every clip's windows, on disk, because the frames of many clips do not fit into memory."""
    config, owner, kept, notes = classifier.clip_config, [], [], []
    samples = config.spec_frames * config.front_end.hop_samples
    shape = (config.frames, config.size, config.size, 3)
    sees = "rgb" in classifier.config.streams
    with (folder / "waves").open("wb") as waves, (folder / "frames").open("wb") as frames:
        for place, item in enumerate(tqdm(items, "decoding", unit="clip", disable=quiet)):
            try:
                count = views if item.start is None else 1
                found = features.read_views(item.path, config, count, item.start)
            except (MediaError, OSError) as error:
                notes.append(f"left out: {error}")
                continue
            if not any(view.wave.any() for view in found):
                notes.append(f"left out: {item.path} is silent")
                continue
            owner += [len(kept)] * len(found)
            kept.append(place)
            for view in found:
                waves.write(view.wave.tobytes())
                frames.write(view.rgb.tobytes() if sees else b"")
    if not kept:
        raise ValueError("no clip is left to match on; " + "; ".join(notes))
    return _Heard(
        np.memmap(folder / "waves", np.float32, "r", shape=(len(owner), samples)),
        np.memmap(folder / "frames", np.uint8, "r", shape=(len(owner), *shape)) if sees else None,
        np.array(owner),
        kept,
        tuple(notes),
    )


def _spec(classifier: Classifier, wave: np.ndarray, front: FrontEnd) -> np.ndarray:
    """The spectrogram [N, M] of one window, not standardised."""
    if wave.dtype == np.int16:
        wave = wave / np.float32(32768)
    return features.log_mel(wave, front)[: classifier.clip_config.spec_frames]


def _statistics(classifier, waves, fronts, quiet: bool):
    """Mean [P] and deviation [P] of every preset, and the distance [P, P] of any two.

    The distance is the root mean square of the difference once both are standardised; it follows
    from their correlation.
    """
    count, total, products = 0, 0.0, 0.0
    for wave in tqdm(waves, "measuring", unit="window", disable=quiet):
        specs = [_spec(classifier, wave, front).ravel() for front in fronts]
        values = np.stack(specs).astype(np.float64)  # [P, numbers in a spectrogram]
        count += values.shape[1]
        total, products = total + values.sum(1), products + values @ values.T
    means = total / count
    covariance = products / count - np.outer(means, means)
    deviations = np.sqrt(covariance.diagonal())
    correlation = covariance / np.outer(deviations, deviations)
    return means, deviations, np.sqrt(np.maximum(2 - 2 * correlation, 0))


def _answers(classifier, waves, frames, fronts, quiet: bool) -> np.ndarray:
    """Logits [P, K, C] of all windows through every front end."""
    batch = 64 if frames is None else 4  # windows; all maps of a full-size clip take 5.5 GB
    starts = range(0, len(waves), batch)
    answers = []
    with tqdm(total=len(fronts) * len(starts), desc="listening", disable=quiet) as bar:
        for front in fronts:
            parts = []
            for start in starts:
                window = slice(start, start + batch)
                specs = np.stack([_spec(classifier, wave, front) for wave in waves[window]])
                rgb = np.zeros((len(specs), 0), np.uint8) if frames is None else frames[window]
                clip = features.normalize(rgb, specs, front)
                parts.append(classifier.logits(clip._replace(rgb=None) if frames is None else clip))
                bar.update()
            answers.append(np.concatenate(parts))
    return np.stack(answers)


def _mean_by(owner: np.ndarray, values: np.ndarray, clips: int) -> np.ndarray:
    """The mean [N, C] of the windows [K, C] of each clip."""
    total = np.zeros((clips, values.shape[1]))
    np.add.at(total, owner, values)
    return total / np.bincount(owner, minlength=clips)[:, None]


def log_likelihood(logits: np.ndarray, truth: np.ndarray, heads: Sequence = ()) -> np.ndarray:
    """Nats per clip [..., N]: minus the cross entropy of the heads, by default of sigmoids."""
    return -metrics.cross_entropy(logits, truth, heads)


def _ranked(tried, logits: np.ndarray, truth: np.ndarray, heads: Sequence) -> tuple[Row, ...]:
    """A row for each front end, the likeliest first."""
    weights = np.random.default_rng(0).multinomial(
        len(truth), np.full(len(truth), 1 / len(truth)), RESAMPLES
    )  # [R, N], how often each clip is drawn
    logits = comparable(logits, heads)
    each = log_likelihood(logits, truth, heads)  # [P, N]
    score = np.array([metrics.mean_average_precision(one, truth) for one in logits])
    resampled = np.stack([_resampled_map(one, truth, weights) for one in logits])  # [P, R]
    nats = _behind(each.mean(1), each @ weights.T / len(truth))
    points = _behind(score, resampled)
    rows = [
        Row(front, own, float(each[i].mean()), nats[i], float(score[i]), points[i])
        for i, (front, own) in enumerate(tried)
    ]
    return tuple(sorted(rows, key=lambda row: -row.log_likelihood))


def _behind(scores: np.ndarray, resampled: np.ndarray) -> list[tuple[float, float]]:
    """95 % interval of how far each of P falls short of the best; resampled [P, R]."""
    shortfall = resampled[scores.argmax()] - resampled
    low, high = np.percentile(shortfall, (2.5, 97.5), axis=1)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _resampled_map(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """mAP [R] over the classes that have a positive in the resample."""
    found = np.stack(
        [
            _weighted_precision(scores[:, c], truth[:, c] > 0, weights)
            for c in np.flatnonzero(truth.any(0))
        ]
    )  # [classes, R]
    there = np.isfinite(found)
    return np.where(there, found, 0).sum(0) / there.sum(0)


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
    """Presets whose standardised spectrograms lie within `ALIKE` of the first of their group."""
    groups, left = [], list(range(len(names)))
    while left:
        near = [i for i in left if distances[left[0], i] < ALIKE or i == left[0]]
        left = [i for i in left if i not in near]
        groups.append(tuple(names[i] for i in near))
    return tuple(group for group in groups if len(group) > 1)
