"""Evaluate a model on labeled clips, with both modalities and with either one missing.

S conditions   V windows of a clip   C classes
"""

import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from tqdm import tqdm

from mbt_lite.config import DataConfig
from mbt_lite.data import datasets, world
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Source, Windows
from mbt_lite.data.sources import WorldSource
from mbt_lite.evaluation import metrics, report
from mbt_lite.evaluation.prediction_cache import PredictionCache
from mbt_lite.evaluation.report import Predictions
from mbt_lite.features import normalize
from mbt_lite.inference import Classifier
from mbt_lite.model.label_heads import comparable, in_words
from mbt_lite.model.mbt import Clip

BOTH, AUDIO_ONLY, VIDEO_ONLY = "both", "audio only", "video only"
ALONE = {"spec": AUDIO_ONLY, "rgb": VIDEO_ONLY}
_BLANKED = {BOTH: None, AUDIO_ONLY: "rgb", VIDEO_ONLY: "spec"}  # condition: the missing stream
_NOT_FINITE = "the logits are not finite; the model's weights may be damaged."


def evaluate(
    classifier: Classifier,
    source: str | Path | DataConfig = "world:test",
    *,
    views: int = 4,
    batch: int | None = None,
    count: int | None = None,
    split: str | None = None,
    folder: str | Path | None = None,
    command: str | None = None,
    quiet: bool = False,
) -> dict:
    """Evaluate a model on labeled clips, with both modalities and with each one missing.

    `source` is "world:test" (or train, validation), labeled files, see `tables.read`, prepared
    records, a TFDS data set, or the data of an experiment; `split` names a split of it, of an
    experiment test or validation. `count` takes the first clips only. A file is read in `views`
    windows, evenly spaced, whose logits are averaged, as the paper tests (section 4.2); if the
    source has a start for it, in one. A missing stream is black frames, or digital silence. `batch`
    windows go through the model at once: 8, or 1 for a large model on a CPU, whose cores one clip
    keeps busy.

    The result has, under each condition, `metrics.label_scores` or, of the micro-world,
    `metrics.world_scores`; then the average precision of each class, the classes without a clip,
    how the modalities confuse or help each other, which files failed and what was unusual. Clips
    are ranked by logits, of a model that was trained with softmax by log-probabilities. A file that
    cannot be read does not stop the others.

    With `folder`, `report.html` and `scores.json` are written, and `answers.jsonl`, from which an
    interrupted evaluation resumes; `command` is what the report tells its readers to type. Raises
    ValueError for a source that cannot be used, and if the folder has logits of another model or
    of other data.
    """
    batch = _default_batch(classifier) if batch is None else batch
    if views < 1 or batch < 1:
        raise ValueError(f"views={views} and batch={batch}: each must be 1 or more.")
    clip, labels = classifier.clip_config, classifier.labels
    clips = datasets.open_labeled(source, labels, clip=clip, count=count, split=split)
    sampling = datasets.evaluation_sampling(source, clips, clip, views)
    title = datasets.title(source, split)
    for note in () if quiet else clips.notes:
        tqdm.write(f"{title}: {note}.", sys.stderr)
    cache = folder and PredictionCache(Path(folder), classifier, {"data": title, "views": views})
    predictions = _predict(classifier, clips, sampling, title, min(batch, len(clips)), cache, quiet)
    scores = {"data": title, "clips": len(predictions.scored), "views": sampling.views}
    scores["probabilities"] = in_words(classifier.label_heads)
    if classifier.caution:
        scores["caution"] = classifier.caution
    scores |= _without_nan(_scores(predictions))
    if folder:
        name = str(classifier.card.get("name") or "model")
        arguments = repr(str(source)) + (f", split={split!r}" if split else "")
        command = command or f"mbt_lite.evaluate(mbt_lite.load({name!r}), {arguments})"
        report.write(Path(folder), name, scores, predictions, command)
    return scores


def predict_batches(
    apply: Callable[[dict], Any], batches: Iterable[tuple[Sequence, dict]]
) -> Iterator[tuple[Any, Any]]:
    """Apply a model to batches (keys of the rows, arrays); yield (key, output) of each clip.

    Successive rows with the same key are windows of one clip, whose outputs are averaged. Rows
    without a key are padding.
    """

    def rows() -> Iterator[tuple[Any, Any]]:
        for keys, arrays in batches:
            outputs = apply(arrays)
            for row, key in enumerate(keys):
                yield key, jax.tree.map(operator.itemgetter(row), outputs)

    for key, group in groupby(rows(), key=operator.itemgetter(0)):
        windows = [output for _, output in group]
        yield key, jax.tree.map(lambda *x: np.mean(x, axis=0), *windows)


def predict_source(
    apply: Callable[[Clip], np.ndarray], classifier: Classifier, source: Source, batch: int = 32
) -> np.ndarray:
    """Apply a method of a classifier to one window of each clip of a source: [clips, ...]."""
    sampling, front = Sampling(classifier.clip_config), classifier.clip_config.front_end
    clips = ((index, source.read(index, sampling)) for index in range(len(source)))
    windows = ((index, clip.rgb[0], clip.spec[0]) for index, clip in clips)
    predicted = predict_batches(
        lambda rows: apply(normalize(rows["rgb"], rows["spec"], front)),
        make_batches(windows, batch),
    )
    return np.stack([row for _, row in predicted])


def make_batches(
    windows: Iterable[tuple[Any, np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[list, dict]]:
    """Collect windows (key, rgb, spec) in batches for `predict_batches`.

    The last batch is padded with its first window, so that the model is compiled for one shape.
    """
    windows = iter(windows)
    while rows := list(islice(windows, size)):
        _, rgb, spec = zip(*rows, *rows[:1] * (size - len(rows)), strict=True)
        yield [key for key, _, _ in rows], {"rgb": np.stack(rgb), "spec": np.stack(spec)}


def _windows(
    source: Source, sampling: Sampling, indices: Sequence[int], failed: dict, notes: dict
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, rgb, spec) of each window of these clips, in order, read ahead in threads.

    Errors {index: sentence} and notes {index: sentences} of clips are written to the dictionaries.
    """

    def read(index: int) -> tuple[int, Windows | Exception]:
        try:
            return index, source.read(index, sampling)
        except (ValueError, OSError) as error:
            return index, error

    threads = min(8, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    for index, clip in grain.MapDataset.source(list(indices)).map(read).to_iter_dataset(options):
        if isinstance(clip, Exception):
            failed[index] = str(clip)
            continue
        notes[index] = clip.notes
        for rgb, spec in zip(clip.rgb, clip.spec, strict=True):
            yield index, rgb, spec


def _default_batch(classifier: Classifier) -> int:
    """8, or 1 for a large model on a CPU."""
    return 1 if classifier.is_large and jax.default_backend() == "cpu" else 8


def _predict(
    classifier: Classifier, clips: Source, sampling: Sampling, title: str, batch: int, cache, quiet
) -> Predictions:
    """Predict all clips that are not in the cache."""
    streams = classifier.config.streams
    conditions = list(_BLANKED) if len(streams) == 2 else [ALONE[streams[0]]]
    shape = len(conditions), len(classifier.labels)
    logits, failed, notes = np.zeros((len(clips), *shape), np.float32), {}, {}
    cached = cache.read(shape) if cache else {}
    for index in range(len(clips)):
        if entry := cached.get(clips.key(index)):
            logits[index], notes[index] = entry
    remaining = [index for index in range(len(clips)) if index not in notes]
    windows = _windows(clips, sampling, remaining, failed, notes)
    apply = partial(_apply, classifier, conditions)
    total = {"total": len(clips), "initial": len(notes)}
    with tqdm(**total, desc=title, unit="clip", disable=quiet) as progress:
        for index, mean in predict_batches(apply, make_batches(windows, batch)):
            progress.update()
            if not np.isfinite(mean).all():
                failed[index] = f"{clips.name(index)}: {_NOT_FINITE}"
                continue
            logits[index] = mean
            if cache:
                cache.append(clips.key(index), mean, notes[index])
        progress.update(len(clips) - progress.n)  # with those that could not be read
    scored = [index for index in range(len(clips)) if index not in failed]
    if not scored:
        first = next(iter(failed.values()))
        raise ValueError(f"none of {len(clips)} clips could be scored; the first: {first}")
    heads = classifier.label_heads
    by_condition = np.moveaxis(comparable(logits[scored], heads), 1, 0)
    by_condition = dict(zip(conditions, by_condition, strict=True))
    return Predictions(classifier.labels, heads, clips, scored, by_condition, failed, notes)


def _apply(classifier: Classifier, conditions: Sequence[str], batch: dict) -> np.ndarray:
    """Logits [rows, S, C] of a batch of windows."""
    rgb, spec = jax.device_put((batch["rgb"], batch["spec"]))  # smaller than the normalized clip
    clip = normalize(rgb, spec, classifier.clip_config.front_end)
    if len(conditions) == 1:
        return classifier.logits(clip)[:, None]
    clip = classifier.prefix(clip)
    return np.stack([classifier.logits(clip, _BLANKED[name]) for name in conditions], axis=1)


def _scores(predictions: Predictions) -> dict:
    """All scores that are reported."""
    labels, clips, by_condition = predictions.labels, predictions.clips, predictions.logits
    truth, present = predictions.truth, predictions.truth.any(0)
    if isinstance(clips, WorldSource):
        scores = {name: metrics.world_scores(x, truth) for name, x in by_condition.items()}
        visible = np.array([len(clips.scene(index).things) for index in predictions.scored])
        scores["chance of matched"] = _chance(truth, visible)
    else:
        scores = {name: metrics.label_scores(x, truth, labels) for name, x in by_condition.items()}
    each = {name: metrics.average_precisions(x, truth) for name, x in by_condition.items()}
    scores["average precision"] = {
        label: {name: float(values[c]) for name, values in each.items()}
        for c, label in enumerate(labels)
        if present[c]
    }
    scores["classes without a clip"] = [label for c, label in enumerate(labels) if not present[c]]
    names = [clips.name(index) for index in predictions.scored]
    if len(by_condition) > 1:
        scores["modality confusion"] = _modality_confusion(by_condition, truth, labels, names)
    failed = sorted(predictions.failed.items())
    scores["failed"] = [{"clip": clips.name(index), "error": why} for index, why in failed]
    notes = [predictions.notes[index] for index in predictions.scored]
    unusual = {name: list(some) for name, some in zip(names, notes, strict=True) if some}
    return scores | {"left out": list(clips.notes), "unusual": unusual}


def _chance(truth: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """Accuracy of the best guess of the singing shape from one modality alone.

    `visible` [clips] counts the shapes on screen.
    """
    sung = truth[:, world.KINDS["matched"]].any(1)
    by_video = float((1 / visible[sung]).mean()) if sung.any() else float("nan")
    return {VIDEO_ONLY: by_video, AUDIO_ONLY: 1 / len(world.SHAPES)}


def _modality_confusion(
    logits: dict[str, np.ndarray], truth: np.ndarray, labels: Sequence[str], names: Sequence[str]
) -> dict:
    """Count clips that become wrong, or right, when a second modality is added.

    A clip is right when the highest logit is that of a true class; of verbs and nouns, when the
    best of each is true.
    """
    right = {name: metrics.best_is_true(values, truth, labels) for name, values in logits.items()}
    best = {name: _best_labels(values, labels) for name, values in logits.items()}

    def listed(chosen: np.ndarray, alone: str) -> list[dict]:
        return [
            {"clip": names[i], alone: best[alone][i], BOTH: best[BOTH][i]}
            for i in np.flatnonzero(chosen)
        ]

    return {
        f"{added} added": {
            "became wrong": listed(right[alone] & ~right[BOTH], alone),
            "became right": listed(~right[alone] & right[BOTH], alone),
        }
        for added, alone in (("video", AUDIO_ONLY), ("audio", VIDEO_ONLY))
    }


def _best_labels(logits: np.ndarray, labels: Sequence[str]) -> list[str]:
    """The label with the highest logit of each clip; of verbs and nouns, one of each."""
    best = [c[logits[:, c].argmax(1)] for c in metrics.questions(labels)]
    return [", ".join(labels[c] for c in row) for row in zip(*best, strict=True)]


def _without_nan(value):
    """The same scores, with None (null in JSON) for each NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
