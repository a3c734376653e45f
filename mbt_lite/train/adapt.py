"""Adapt an experiment to the clips that it will learn from, with a reason for every choice.

A pure function of the experiment and `survey.DataFacts`. What the user has set stays.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from mbt_lite.config import MODALITIES, Experiment
from mbt_lite.configs import folder
from mbt_lite.data.survey import DataFacts
from mbt_lite.train.probe import LEAST, MARGIN, MODEL, Probed

SLICE = 10  # spectrogram frames of an audio patch, which holds all mel bins
LONGEST = 5.0  # s of a window
SIDES = (16, 48)  # pixels, of the smallest and the largest frame
PATCHES = 4  # video patches along each side
MOVING = 0.1  # share of the videos
FRAMES = {False: 2, True: 8}  # of a still picture; of a video that moves
ZOOM = (1.0, 1.15)  # of the frames, which are cropped at random afterwards
SHIFT = 0.04  # of the window
SPEED = 0.05
PITCH = 1.0  # mel bins
CLIPS = 120_000  # that a run sees at most: noisy ones take long, `patience` ends other runs
EPOCHS = (15, 60)
BATCHES = {0: 16, 1000: 64}  # clips to learn from: batch
VALIDATIONS = 12
VIEWS = 4  # windows of a long file that are scored
NEAR = 0.05  # s; files and windows of the same length differ by less


class Choice(NamedTuple):
    """The value of a field, such as "train.batch", and why: "" if it follows from another."""

    field: str
    value: Any
    reason: str


class Adapted(NamedTuple):
    """An experiment for certain clips, and a sentence on each choice."""

    experiment: Experiment
    sentences: list[str]


def adapt(
    experiment: Experiment,
    facts: DataFacts,
    fixed: Collection[str] = frozenset(),
    probed: Probed | None = None,
) -> Adapted:
    """The experiment with streams, start, clip, augmentation and training chosen by the data.

    Fields in `fixed`, such as "train.batch", keep their values. A model to start from keeps its own
    clip and geometry, and the recipe's batch and epochs.
    """
    sentences: list[str] = []

    def take(choices: Iterable[Choice]) -> Experiment:
        choices = list(choices)
        changed = _with(experiment, [choice for choice in choices if choice.field not in fixed])
        sentences.extend(
            _sentence(changed, choice, choice.field in fixed) for choice in choices if choice.reason
        )
        return changed

    experiment = take(_streams(experiment, facts))
    if experiment.start.probe:
        experiment = take(_start(probed))
    if experiment.start.model is None:
        experiment = take(_clip(experiment, facts))
        experiment = take(_geometry(experiment))
    experiment = take(_augmentation(experiment))
    if experiment.start.model is None:
        experiment = take(_training(experiment, facts))
    experiment = take(_validating(experiment, facts))
    experiment = take(_views(experiment, facts))
    data, start = (replace(experiment.data, adapt=False), replace(experiment.start, probe=False))
    return Adapted(replace(experiment, data=data, start=start), sentences)


def _streams(experiment: Experiment, facts: DataFacts) -> Iterator[Choice]:
    shares = {"spec": facts.audio, "rgb": facts.video}
    held = [f"{share:.0%} of the files have {MODALITIES[s]}" for s, share in shares.items()]
    streams = tuple(stream for stream, share in shares.items() if share >= 0.5)
    yield Choice("model.streams", streams, " and ".join(held))
    if experiment.start.model and streams != experiment.model.streams:
        yield Choice("start.rewire", True, "the model to start from has both streams")


def _start(probed: Probed | None) -> Iterator[Choice]:
    """The embedded model and the training of `folder.finetune`, or the recipe's own start."""
    if probed is None:
        needs = f"one class a clip, {LEAST} clips a class, both streams, and a free choice of model"
        yield Choice("start.model", None, f"{MODEL} was not tried, which takes {needs} and clip")
        return
    better = probed.frozen > probed.simple + MARGIN
    yield Choice(
        "start.model",
        MODEL if better else None,
        f"a linear model is right on {probed.frozen:.0%} of the clips with the features of "
        f"{MODEL}, on {probed.simple:.0%} with simple ones",
    )
    if better:
        tuned = folder.finetune()
        yield Choice("model.drop_path", tuned.model.drop_path, "")
        for part in ("augment", "train"):
            before, after = (vars(getattr(e, part)) for e in (folder.scratch(), tuned))
            for name in before:
                if before[name] != after[name]:
                    yield Choice(f"{part}.{name}", after[name], "")


def _clip(experiment: Experiment, facts: DataFacts) -> Iterator[Choice]:
    """The window, front end and frames of a model from scratch."""
    front, seconds = facts.front_end, min(facts.seconds, LONGEST)
    if "spec" in experiment.model.streams:
        standard = f"mean {front.mean:g} and deviation {front.std:g} are those of these files"
        bins = f"{front.mels} mel bins up to {front.high:,.0f} Hz"
        stored = f"the audio is stored at {facts.rate:,} Hz"
        yield Choice("clip.front_end", front, f"{bins}, as {stored}; {standard}")
    rows = max(round(seconds / front.hop / SLICE), 1) * SLICE
    length = f"nine files in ten are not longer than {facts.seconds:.2g} s"
    yield Choice("clip.spec_frames", rows, f"a window of {rows * front.hop:g} s: {length}")
    if "rgb" in experiment.model.streams:
        frames = FRAMES[facts.moving >= MOVING]
        yield Choice("clip.frames", frames, f"{facts.moving:.0%} of the videos move")
        yield Choice("clip.stride", 1, "")
        yield Choice("clip.fps", round(frames / (rows * front.hop), 3), "they cover the window")
        side = min(max(facts.short_side, SIDES[0]), SIDES[1]) // PATCHES * PATCHES
        yield Choice("clip.size", side, f"the short side of the files is {facts.short_side} pixels")
        yield Choice("clip.resize", side, "")


def _geometry(experiment: Experiment) -> Iterator[Choice]:
    """The input shapes and patches of a model from scratch, which follow from the clip."""
    clip = experiment.clip
    mels, side = clip.front_end.mels, clip.size // PATCHES
    yield Choice("model.spec_shape", (clip.spec_frames, mels), "")
    yield Choice("model.spec_patch", (SLICE, mels), "")
    yield Choice("model.rgb_shape", (clip.frames, clip.size, clip.size), "")
    yield Choice("model.rgb_patch", (2, side, side), "")


def _augmentation(experiment: Experiment) -> Iterator[Choice]:
    """Small changes only: with strong ones a short run underfits (docs/training.md)."""
    places = "things lie elsewhere in other clips"
    yield Choice("augment.flip", 0.0, "mirrored digits, letters or signs would be others")
    yield Choice("augment.scale", ZOOM, places)
    yield Choice("augment.random_crop", True, places)
    voices = "sounds begin elsewhere, and are faster, slower, higher or lower in other clips"
    shift = round(SHIFT * experiment.clip.spec_frames, 1)
    for name, value in (("time_shift", shift), ("speed", SPEED), ("pitch", PITCH)):
        yield Choice(f"augment.{name}", value, voices)


def _training(experiment: Experiment, facts: DataFacts) -> Iterator[Choice]:
    clips = f"{facts.clips:,} clips to learn from"
    batch = max(size for least, size in BATCHES.items() if facts.clips >= least)
    epochs = min(max(round(CLIPS / facts.clips), EPOCHS[0]), EPOCHS[1])
    yield Choice("train.batch", batch, clips)
    if experiment.train.epochs:  # 0: a number of steps was asked for
        yield Choice("train.epochs", float(epochs), clips)


def _validating(experiment: Experiment, facts: DataFacts) -> Iterator[Choice]:
    train = experiment.train
    steps = train.epochs * facts.clips / train.batch or train.steps
    every = max(round(steps / VALIDATIONS), 1)
    times = f"{min(VALIDATIONS, math.ceil(steps))} validations in {math.ceil(steps):,} steps"
    yield Choice("train.evaluate_every", every, times)
    yield Choice("train.save_every", every, "")


def _views(experiment: Experiment, facts: DataFacts) -> Iterator[Choice]:
    clip = experiment.clip
    window = max(clip.video_seconds, clip.audio_seconds)
    views = min(max(math.ceil((facts.seconds - NEAR) / window), 1), VIEWS)
    length = f"nine files in ten are not longer than {facts.seconds:.2g} s"
    yield Choice("data.views", views, f"windows of {window:g} s that are scored: {length}")


def _with(experiment: Experiment, chosen: Iterable[Choice]) -> Experiment:
    """The experiment with these values, those of one part set together."""
    parts: dict[str, dict] = {}
    for choice in chosen:
        part, name = choice.field.split(".")
        parts.setdefault(part, {})[name] = choice.value
    new = {part: replace(getattr(experiment, part), **values) for part, values in parts.items()}
    return replace(experiment, **new)


def _sentence(experiment: Experiment, choice: Choice, is_fixed: bool) -> str:
    part, name = choice.field.split(".")
    value = getattr(getattr(experiment, part), name)
    shown = value.name if dataclasses.is_dataclass(value) else value
    return f"{choice.field} {shown}: {'as given' if is_fixed else choice.reason}"
