"""Evaluate a model on labeled clips, with both modalities and with either one missing.

S conditions   C classes
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from mbt_lite import __version__
from mbt_lite.config import DataConfig, MBTConfig
from mbt_lite.data import labelled, world
from mbt_lite.data.labelled import Clips, Windows, WorldClips
from mbt_lite.evaluation import metrics, prediction_cache, report
from mbt_lite.features import normalize
from mbt_lite.inference import Classifier
from mbt_lite.model.flops import model_cost
from mbt_lite.model.label_heads import comparable, in_words

BOTH, AUDIO_ONLY, VIDEO_ONLY = "both", "audio only", "video only"
ALONE = {"spec": AUDIO_ONLY, "rgb": VIDEO_ONLY}
LARGE = 10_000_000  # parameters
MISSING = {
    BOTH: None,
    AUDIO_ONLY: "rgb",
    VIDEO_ONLY: "spec",
}  # condition: the stream that is blanked


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

    `source` is "world:test" (or train, validation), labelled files, see `tables.read`, prepared
    records or a TFDS dataset; `split` names a split of it. Of the data of an experiment the split
    is a role: test, or validation. `count` takes the first clips only. A file is seen in `views`
    windows, evenly spread, whose logits are averaged, as the paper tests (section 4.2); where the
    source says when to start, in one. A stream is missing when it is blanked: black frames, or
    digital silence. `batch` windows go through the model at once, never more than there are clips;
    the last batch is filled up, and what fills it never counts. By default a batch is 8, and 1
    where a large model runs on a CPU, whose cores one clip keeps busy.

    Under each condition: mAP over the classes with a positive, ranked by logits (of a model that
    was trained with softmax by log-probabilities, see `label_heads.comparable`), and top-1 and
    top-5, where any true class counts; of labels "verb:..." and "noun:..." top-1 and top-5 of each
    and of both together, the action; of the micro-world `metrics.world_scores`. Then the average
    precision of each class, the classes without a positive, how the modalities confuse or help each
    other (see `modality_confusion`), which files failed and what was unusual. A file that cannot be
    read does not stop the others.

    With `folder` there come `report.html` and `scores.json`, and `answers.jsonl` from which an
    interrupted evaluation goes on; `command` is what the report tells its readers to type. Raises
    ValueError for a source that cannot be used, and where the folder has answers of another model
    or of other data.
    """
    batch = _windows_at_once(classifier.config) if batch is None else batch
    if views < 1 or batch < 1:
        raise ValueError(f"views={views} and batch={batch}: each must be 1 or more.")
    clips = labelled.find(source, classifier.labels, classifier.clip_config, views, count, split)
    batch = min(batch, len(clips))
    title = labelled.title(source, split)
    for note in () if quiet else clips.notes:
        tqdm.write(f"{title}: {note}.", sys.stderr)
    found = _ask(classifier, clips, title, views, batch, Path(folder) if folder else None, quiet)
    heads = classifier.label_heads
    logits = {name: comparable(x, heads) for name, x in found.logits.items()}
    found = found._replace(logits=logits)
    scores = {"data": title, "clips": len(found.scored), "views": views}
    scores["probabilities"] = in_words(heads)
    if isinstance(clips, WorldClips):
        scores["views"] = 1  # its clips are as long as a window
    if classifier.caution:
        scores["caution"] = classifier.caution
    scores |= _without_nan(_scores(found, clips, classifier.labels))
    if folder:
        name = str(classifier.card.get("name") or "model")
        asked = repr(str(source)) + (f", split={split!r}" if split else "")
        command = command or f"mbt_lite.evaluate(mbt_lite.load({name!r}), {asked})"
        evidence = report.Evidence(
            name, classifier.labels, clips, found.scored, found.logits, heads
        )
        report.write(Path(folder), scores, evidence, command)
    return scores


class Found(NamedTuple):
    """What the model answered."""

    logits: dict[str, np.ndarray]  # per condition float32 [scored clips, C]
    scored: list[int]  # numbers of the clips that were answered
    failed: dict[int, str]  # number of the clip: why it was not
    notes: dict[int, tuple[str, ...]]


def _windows_at_once(config: MBTConfig) -> int:
    """The default batch: 8, and 1 where a large model runs on a CPU."""
    large = model_cost(config).parameters > LARGE and jax.default_backend() == "cpu"
    return 1 if large else 8


def _conditions(streams: Sequence[str]) -> list[str]:
    """A model of one stream has nothing to compare with."""
    return list(MISSING) if len(streams) == 2 else [ALONE[streams[0]]]


def _ask(classifier, clips, title: str, views: int, batch: int, folder, quiet: bool) -> Found:
    """The answers to all clips, those of the folder's journal first."""
    conditions = _conditions(classifier.config.streams)
    logits = np.zeros((len(conditions), len(clips), len(classifier.labels)), np.float32)
    failed, notes = {}, {}
    known, opened = _journal(classifier, clips, title, views, folder, logits)
    notes |= known
    todo = [index for index in range(len(clips)) if index not in known]
    bar = tqdm(total=len(clips), initial=len(known), desc=title, unit="clip", disable=quiet)
    with bar, opened as file:
        say = partial(bar.set_postfix_str, refresh=sys.stderr.isatty())
        for index, answer, remarks in _answers(classifier, clips, todo, conditions, batch, say):
            bar.update()
            if isinstance(answer, Exception):
                failed[index] = str(answer)
                continue
            logits[:, index], notes[index] = answer, remarks
            if file:
                prediction_cache.write(
                    file, prediction_cache.CachedLogits(clips.key(index), answer, remarks)
                )
    scored = [index for index in range(len(clips)) if index not in failed]
    if not scored:
        first = next(iter(failed.values()))
        raise ValueError(f"none of {len(clips)} clips could be answered; the first: {first}")
    whole = dict(zip(conditions, logits[:, scored] if failed else logits, strict=True))
    return Found(whole, scored, failed, {i: notes[i] for i in scored})


def _journal(classifier, clips, title: str, views: int, folder: Path | None, logits: np.ndarray):
    """{number of a clip: its notes} of the answers that were there, and the file for the others."""
    if folder is None:
        return {}, nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    path, known = folder / "answers.jsonl", {}
    header = {"mbt_lite": __version__, "model": prediction_cache.fingerprint(classifier)}
    header |= {"data": title, "views": views}
    numbers = {clips.key(index): index for index in range(len(clips))}
    for answer in prediction_cache.resume(path, header, (logits.shape[0], logits.shape[2])):
        if answer.key in numbers:
            index = numbers[answer.key]
            logits[:, index], known[index] = answer.logits, answer.notes
    return known, prediction_cache.begin(path, header)


class Row(NamedTuple):
    """One window on its way through the model."""

    index: int  # of its clip
    rgb: np.ndarray  # uint8 [T, H, W, 3]
    spec: np.ndarray  # float32 [N, M]
    last: Windows | None  # the whole clip, at its last window


def _answers(classifier, clips, todo, conditions, batch: int, say) -> Iterator[tuple]:
    """(number, logits [S, C] averaged over windows, notes) per clip, or (number, error, ()).

    `say` is told what is under way.
    """
    errors, sums = [], {}
    for rows in _batches(_rows(labelled.prefetched(clips, todo), errors), batch):
        while errors:
            yield (*errors.pop(0), ())
        answered = _forward(classifier, rows, conditions, batch, say)
        for row, logits in zip(rows, answered, strict=True):
            sums[row.index] = sums.get(row.index, 0) + logits
            if row.last is not None:
                mean = sums.pop(row.index) / len(row.last.rgb)
                yield row.index, _finite(mean, clips.name(row.index)), row.last.notes
    for index, error in errors:
        yield index, error, ()


def _finite(logits: np.ndarray, name: str) -> np.ndarray | ValueError:
    if np.isfinite(logits).all():
        return logits
    return ValueError(f"{name}: the model's answer is not finite; its weights may be damaged.")


def _rows(read: Iterator[tuple], errors: list) -> Iterator[Row]:
    """The windows of all clips, one after the other; what could not be read goes to `errors`."""
    for index, found in read:
        if isinstance(found, Exception):
            errors.append((index, found))
            continue
        end = len(found.rgb) - 1
        for number, (rgb, spec) in enumerate(zip(found.rgb, found.spec, strict=True)):
            yield Row(index, rgb, spec, found if number == end else None)


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Lists of `size` rows, the last one perhaps shorter."""
    held = []
    for row in rows:
        held.append(row)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def _forward(classifier, rows: list[Row], conditions: Sequence[str], size: int, say) -> np.ndarray:
    """Logits [rows, S, C]; a short batch is filled up with its first row, to keep one shape."""
    filled = rows + rows[:1] * (size - len(rows))
    rgb, spec = np.stack([row.rgb for row in filled]), np.stack([row.spec for row in filled])
    clip = normalize(rgb, spec, classifier.clip_config.front_end)
    logits = []
    for name in conditions:
        say(name)
        logits.append(classifier.logits(clip, MISSING[name] if len(conditions) > 1 else None))
    return np.stack(logits, axis=1)[: len(rows)]


def _scores(found: Found, clips: Clips, labels: Sequence[str]) -> dict:
    """Everything that is reported, from the answers."""
    truth = clips.truth[found.scored]
    if isinstance(clips, WorldClips):
        scores = {
            name: metrics.world_scores(logits, truth) for name, logits in found.logits.items()
        }
        scores["chance of matched"] = _chance(truth, clips.visible[found.scored])
    else:
        scores = {n: metrics.label_scores(x, truth, labels) for n, x in found.logits.items()}
    each = {name: metrics.average_precisions(x, truth) for name, x in found.logits.items()}
    present = truth.any(0)
    scores["average precision"] = {
        label: {name: float(values[c]) for name, values in each.items()}
        for c, label in enumerate(labels)
        if present[c]
    }
    scores["classes without a clip"] = _absent(labels, present, each)
    names = [clips.name(index) for index in found.scored]
    if len(found.logits) > 1:
        scores["modality confusion"] = modality_confusion(found.logits, truth, labels, names)
    scores["failed"] = [{"clip": clips.name(i), "error": why} for i, why in found.failed.items()]
    unusual = {clips.name(i): list(notes) for i, notes in found.notes.items() if notes}
    return scores | {"left out": list(clips.notes), "unusual": unusual}


def _chance(truth: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """What the best guess of the singer reaches by the video only and by the audio only."""
    sung = truth[:, world.KINDS["matched"]].any(1)
    by_video = float((1 / visible[sung]).mean()) if sung.any() else float("nan")
    return {VIDEO_ONLY: by_video, AUDIO_ONLY: 1 / len(world.SHAPES)}


def _absent(labels: Sequence[str], present: np.ndarray, each: dict[str, np.ndarray]) -> dict:
    """Which classes no clip has, and what the mAP would be if they counted as 0.

    scikit-learn does so since 1.1; before, and here, they have no average precision and are left
    out of the mean.
    """
    names = [label for label, there in zip(labels, present, strict=True) if not there]
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
    said = {name: _said(values, labels) for name, values in logits.items()}

    def listed(chosen: np.ndarray, alone: str) -> list[dict]:
        return [
            {"clip": names[i], alone: said[alone][i], BOTH: said[BOTH][i]}
            for i in np.flatnonzero(chosen)
        ]

    return {
        f"{added} added": {
            "became wrong": listed(right[alone] & ~right[BOTH], alone),
            "became right": listed(~right[alone] & right[BOTH], alone),
        }
        for added, alone in (("video", AUDIO_ONLY), ("audio", VIDEO_ONLY))
    }


def _said(logits: np.ndarray, labels: Sequence[str]) -> list[str]:
    """The label with the highest logit of each clip; of verbs and nouns, one of each."""
    best = [c[logits[:, c].argmax(1)] for c in metrics.questions(labels)]
    return [", ".join(labels[c] for c in row) for row in zip(*best, strict=True)]


def _without_nan(value):
    """The same scores, with None (null in JSON) for what these clips cannot tell."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
