"""Evaluate a model on labeled clips, with both modalities and with either one missing.

S conditions   V windows of a clip   C classes
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from tqdm import tqdm

from mbt_lite import __version__
from mbt_lite.config import DataConfig, MBTConfig
from mbt_lite.data import datasets, world
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Source, Windows
from mbt_lite.data.sources import WorldSource
from mbt_lite.evaluation import metrics, prediction_cache, report
from mbt_lite.features import normalize
from mbt_lite.inference import Classifier
from mbt_lite.model.flops import model_cost
from mbt_lite.model.label_heads import comparable, in_words

BOTH, AUDIO_ONLY, VIDEO_ONLY = "both", "audio only", "video only"
ALONE = {"spec": AUDIO_ONLY, "rgb": VIDEO_ONLY}
BLANKED = {BOTH: None, AUDIO_ONLY: "rgb", VIDEO_ONLY: "spec"}  # condition: the missing stream
LARGE = 10_000_000  # parameters


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
    records or a TFDS data set; `split` names a split of it. Of the data of an experiment the split
    is a role: test, or validation. `count` takes the first clips only. A file is read in `views`
    windows, evenly spaced, whose logits are averaged, as the paper tests (section 4.2); if the
    source has a start for it, in one. A stream is missing when it is blanked: black frames, or
    digital silence. `batch` windows go through the model at once, at most as many as there are
    clips; padding of the last batch never counts. By default a batch is 8, or 1 for a large model
    on a CPU, whose cores one clip keeps busy.

    Under each condition: mAP over the classes with a positive, ranked by logits (of a model that
    was trained with softmax by log-probabilities, see `label_heads.comparable`), and top-1 and
    top-5, where any true class counts; of labels "verb:..." and "noun:..." top-1 and top-5 of each
    and of both together, the action; of the micro-world `metrics.world_scores`. Then the average
    precision of each class, the classes without a positive, how the modalities confuse or help each
    other (see `modality_confusion`), which files failed and what was unusual. A file that cannot be
    read does not stop the others.

    With `folder`, `report.html` and `scores.json` are written, and `answers.jsonl`, from which an
    interrupted evaluation resumes; `command` is what the report tells its readers to type. Raises
    ValueError for a source that cannot be used, and if the folder has logits of another model or
    of other data.
    """
    batch = _default_batch(classifier.config) if batch is None else batch
    if views < 1 or batch < 1:
        raise ValueError(f"views={views} and batch={batch}: each must be 1 or more.")
    clip = classifier.clip_config
    clips = datasets.open_labeled(source, classifier.labels, clip=clip, count=count, split=split)
    sampling = datasets.evaluation_sampling(source, clips, clip, views)
    title = datasets.title(source, split)
    for note in () if quiet else clips.notes:
        tqdm.write(f"{title}: {note}.", sys.stderr)
    header = {"mbt_lite": __version__, "model": prediction_cache.fingerprint(classifier)}
    header |= {"data": title, "views": views}
    cache = (Path(folder) / "answers.jsonl", header) if folder else None
    result = _predict(classifier, clips, sampling, title, min(batch, len(clips)), cache, quiet)
    heads = classifier.label_heads
    logits = {name: comparable(x, heads) for name, x in result.logits.items()}
    result = result._replace(logits=logits)
    scores = {"data": title, "clips": len(result.scored), "views": sampling.views}
    scores["probabilities"] = in_words(heads)
    if classifier.caution:
        scores["caution"] = classifier.caution
    scores |= _without_nan(_scores(result, clips, classifier.labels))
    if folder:
        name = str(classifier.card.get("name") or "model")
        arguments = repr(str(source)) + (f", split={split!r}" if split else "")
        command = command or f"mbt_lite.evaluate(mbt_lite.load({name!r}), {arguments})"
        evidence = report.Evidence(
            name, classifier.labels, clips, result.scored, result.logits, heads
        )
        report.write(Path(folder), scores, evidence, command)
    return scores


class Result(NamedTuple):
    """The logits of all clips that could be read."""

    logits: dict[str, np.ndarray]  # {condition: float32 [scored clips, C]}
    scored: list[int]  # numbers of these clips
    failed: dict[int, str]  # {number of another clip: its error}
    notes: dict[int, tuple[str, ...]]


def predict_batches(
    apply: Callable[[np.ndarray, np.ndarray], np.ndarray],
    windows: Iterable[tuple[Any, np.ndarray, np.ndarray]],
    batch: int,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Apply a model to windows (key, rgb, spec), `batch` at a time; yield (key, output) of each.

    The last batch is padded with its first window, so that the model is compiled for one shape.
    """
    windows = iter(windows)
    while rows := list(islice(windows, batch)):
        _, rgb, spec = zip(*rows, *rows[:1] * (batch - len(rows)), strict=True)
        outputs = apply(np.stack(rgb), np.stack(spec))
        for (key, _, _), output in zip(rows, outputs, strict=False):
            yield key, output


def read_clips(
    source: Source, sampling: Sampling, indices: Sequence[int]
) -> Iterator[tuple[int, Windows | Exception]]:
    """(index, its windows or the error that reading raised), in order, read ahead in threads."""

    def read(index: int) -> tuple[int, Windows | Exception]:
        try:
            return index, source.read(index, sampling)
        except (ValueError, OSError) as error:
            return index, error

    threads = min(8, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.source(list(indices)).map(read).to_iter_dataset(options))


def _default_batch(config: MBTConfig) -> int:
    """8, or 1 for a large model on a CPU."""
    large = model_cost(config).parameters > LARGE and jax.default_backend() == "cpu"
    return 1 if large else 8


def _predict(classifier, clips: Source, sampling, title: str, batch: int, cache, quiet) -> Result:
    """The logits of all clips, those in the cache first."""
    streams = classifier.config.streams
    conditions = list(BLANKED) if len(streams) == 2 else [ALONE[streams[0]]]
    logits = np.zeros((len(conditions), len(clips), len(classifier.labels)), np.float32)
    failed, notes = {}, _resume(clips, cache, logits)
    remaining = [index for index in range(len(clips)) if index not in notes]
    progress = tqdm(total=len(clips), initial=len(notes), desc=title, unit="clip", disable=quiet)
    opened = prediction_cache.open_to_append(*cache) if cache else nullcontext()
    with progress, opened as file:
        status = partial(progress.set_postfix_str, refresh=sys.stderr.isatty())
        apply = partial(_apply, classifier, conditions, status)
        for index, mean, clip_notes in _predict_clips(apply, clips, sampling, remaining, batch):
            progress.update()
            if isinstance(mean, Exception):
                failed[index] = str(mean)
                continue
            logits[:, index], notes[index] = mean, clip_notes
            if file:
                cached = prediction_cache.CachedLogits(clips.key(index), mean, clip_notes)
                prediction_cache.write(file, cached)
    scored = [index for index in range(len(clips)) if index not in failed]
    if not scored:
        first = next(iter(failed.values()))
        raise ValueError(f"none of {len(clips)} clips could be scored; the first: {first}")
    by_condition = dict(zip(conditions, logits[:, scored], strict=True))
    return Result(by_condition, scored, failed, {i: notes[i] for i in scored})


def _resume(clips: Source, cache, logits: np.ndarray) -> dict[int, tuple[str, ...]]:
    """Fill in the logits [S, clips, C] that the cache has; return {number of a clip: its notes}."""
    notes: dict[int, tuple[str, ...]] = {}
    if not cache:
        return notes
    path, header = cache
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {clips.key(index): index for index in range(len(clips))}
    for cached in prediction_cache.resume(path, header, (logits.shape[0], logits.shape[2])):
        if cached.key in numbers:
            index = numbers[cached.key]
            logits[:, index], notes[index] = cached.logits, cached.notes
    return notes


def _apply(classifier: Classifier, conditions: Sequence[str], status, rgb, spec) -> np.ndarray:
    """Logits [rows, S, C] of a batch of windows; `status` shows the condition in progress."""
    clip, logits = normalize(rgb, spec, classifier.clip_config.front_end), []
    if len(conditions) > 1:
        clip = classifier.prefix(clip)
    for name in conditions:
        status(name)
        logits.append(classifier.logits(clip, BLANKED[name] if len(conditions) > 1 else None))
    return np.stack(logits, axis=1)


def _predict_clips(apply, clips: Source, sampling, indices, batch: int) -> Iterator[tuple]:
    """(number, logits [S, C] averaged over windows, notes) per clip, or (number, error, ())."""
    errors, windows, outputs = [], {}, {}

    def rows():
        for index, clip in read_clips(clips, sampling, indices):
            if isinstance(clip, Exception):
                errors.append((index, clip, ()))
                continue
            windows[index], outputs[index] = clip, []
            for rgb, spec in zip(clip.rgb, clip.spec, strict=True):
                yield index, rgb, spec

    for index, output in predict_batches(apply, rows(), batch):
        while errors:
            yield errors.pop(0)
        outputs[index].append(output)
        if len(outputs[index]) == len(windows[index].rgb):
            notes, mean = windows.pop(index).notes, np.mean(outputs.pop(index), axis=0)
            yield index, _finite(mean, clips.name(index)), notes
    yield from errors


def _finite(logits: np.ndarray, name: str) -> np.ndarray | ValueError:
    if np.isfinite(logits).all():
        return logits
    return ValueError(f"{name}: the logits are not finite; the model's weights may be damaged.")


def _scores(result: Result, clips: Source, labels: Sequence[str]) -> dict:
    """All scores that are reported."""
    truth = np.stack([clips.targets(index) for index in result.scored])
    if isinstance(clips, WorldSource):
        scores = {
            name: metrics.world_scores(logits, truth) for name, logits in result.logits.items()
        }
        visible = np.array([len(clips.scene(index).things) for index in result.scored])
        scores["chance of matched"] = _chance(truth, visible)
    else:
        scores = {n: metrics.label_scores(x, truth, labels) for n, x in result.logits.items()}
    each = {name: metrics.average_precisions(x, truth) for name, x in result.logits.items()}
    present = truth.any(0)
    scores["average precision"] = {
        label: {name: float(values[c]) for name, values in each.items()}
        for c, label in enumerate(labels)
        if present[c]
    }
    scores["classes without a clip"] = _absent(labels, present, each)
    names = [clips.name(index) for index in result.scored]
    if len(result.logits) > 1:
        scores["modality confusion"] = modality_confusion(result.logits, truth, labels, names)
    scores["failed"] = [{"clip": clips.name(i), "error": why} for i, why in result.failed.items()]
    unusual = {clips.name(i): list(notes) for i, notes in result.notes.items() if notes}
    return scores | {"left out": list(clips.notes), "unusual": unusual}


def _chance(truth: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """Accuracy of the best guess of the singing shape from one modality alone.

    `visible` [clips] counts the shapes on screen.
    """
    sung = truth[:, world.KINDS["matched"]].any(1)
    by_video = float((1 / visible[sung]).mean()) if sung.any() else float("nan")
    return {VIDEO_ONLY: by_video, AUDIO_ONLY: 1 / len(world.SHAPES)}


def _absent(labels: Sequence[str], present: np.ndarray, each: dict[str, np.ndarray]) -> dict:
    """The classes that no clip has, and the mAP if they counted as 0.

    scikit-learn counts them so since 1.1; here they have no average precision and are left out of
    the mean.
    """
    names = [label for label, exists in zip(labels, present, strict=True) if not exists]
    if not names:
        return {"count": 0, "labels": []}
    as_zero = {name: float(np.nan_to_num(values).mean()) for name, values in each.items()}
    return {"count": len(names), "labels": names, "mAP if they counted as 0": as_zero}


def modality_confusion(
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
