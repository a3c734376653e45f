"""Experiment fields on the command line: list them, and refuse those without effect."""

import dataclasses
import sys
import typing
from collections.abc import Sequence
from dataclasses import replace

import tyro

from mbt_lite.config import BASE, KEPT, WIRING, ClipConfig, Experiment, MBTConfig

DEFAULTS = Experiment("", BASE, ClipConfig())


def _rules(e: Experiment) -> tuple[tuple[object, str, str], ...]:
    """(whether some fields have an effect, these fields, what to set so that they have)."""
    start, train, data, augment = e.start, e.train, e.data, e.augment
    own, jitter = data.path != "world", "augment.brightness augment.saturation augment.contrast"
    weights = "--start.model None, because the initial weights bring their own"
    geometry = [f.name for f in dataclasses.fields(MBTConfig) if f.name not in KEPT + WIRING]
    return (
        (start.model, "start.rewire", "--start.model"),
        (start.vit, "start.inflate start.bottleneck start.audio_cls", "--start.vit"),
        (not train.epochs, "train.steps", "--train.epochs 0"),
        (train.optimizer == "momentum", "train.momentum", "--train.optimizer momentum"),
        (train.optimizer == "adamw", "train.beta2", "--train.optimizer adamw"),
        (train.trained == "all", "train.backbone_rate", "--train.trained all"),
        (augment.color, f"{jitter} augment.hue", "--augment.color above 0"),
        (
            augment.time_masks,
            "augment.time_mask augment.time_mask_ratio",
            "--augment.time_masks above 0",
        ),
        (augment.mel_masks, "augment.mel_mask", "--augment.mel_masks above 0"),
        (not own, "data.clips", "--data.path world"),
        (
            own,
            "data.videos data.labels data.holdout data.group data.pairing data.views",
            "clips of your own, --data.path DIR",
        ),
        (not data.cache_dir, "data.workers data.memory", "--data.cache-dir ''"),
        (
            data.validation or data.holdout,
            "train.evaluate_every train.evaluate_clips train.patience",
            "--data.validation or --data.holdout",
        ),
        (data.test or data.holdout, "train.test_clips", "--data.test or --data.holdout"),
        (False, "model.classes", "other data, which decides how many classes there are"),
        (
            len(e.model.streams) > 1,
            "model.fusion model.fusion_layer model.bottlenecks model.bottlenecks_at_test",
            "--model.streams spec rgb",
        ),
        (
            e.model.fusion == "bottleneck",
            "model.bottlenecks model.bottlenecks_at_test",
            "--model.fusion bottleneck",
        ),
        (start.rewire or not start.model, _fields("model", WIRING), "--start.rewire"),
        (not start.model, _fields("model", geometry), weights),
        (not start.model, _fields("clip", vars(e.clip)), weights),
    )


def _fields(part: str, names) -> str:
    return " ".join(f"{part}.{name}" for name in names)


def named(words: Sequence[str]) -> set[str]:
    """The fields that options name, such as {"train.steps"} for --train.steps=5.

    --clip.front-end.mels names clip.front_end, --start.no-rewire names start.rewire.
    """
    options = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    parts = [option.replace("-", "_").split(".") for option in options]
    return {f"{part}.{field.removeprefix('no_')}" for part, field, *_ in parts}


def settled(experiment: Experiment, names: set[str]) -> Experiment:
    """Make the named fields effective; raise ValueError for one that cannot have an effect.

    Steps replace a recipe's epochs. Wiring fields turn on `start.rewire`.
    """
    if "train.steps" in names and "train.epochs" not in names:
        experiment = replace(experiment, train=replace(experiment.train, epochs=0.0))
    wiring = sorted(f"model.{name}" for name in WIRING if f"model.{name}" in names)
    start = experiment.start
    if wiring and start.model and "start.rewire" not in names and not start.rewire:
        experiment = replace(experiment, start=replace(start, rewire=True))
        print(
            f"mbt-lite: --{wiring[0]} turns on --start.rewire: {', '.join(WIRING)} are those of "
            f"the recipe and the command line, not those of {start.model}.",
            file=sys.stderr,
        )
    for has_effect, fields, needed in _rules(experiment):
        idle = [name for name in fields.split() if name in names]
        if idle and not has_effect:
            raise ValueError(f"--{idle[0]} has no effect here; it needs {needed}.")
    return experiment


def print_help() -> None:
    """List the fields of an experiment with their defaults; exit."""
    hints = typing.get_type_hints(Experiment)
    parts = [(name, hints[name], part) for name, part in vars(DEFAULTS).items() if name != "name"]
    experiment = dataclasses.make_dataclass("Fields", parts, frozen=True)
    title = "Fields of the experiment, with the defaults that a recipe may replace."
    tyro.cli(experiment, args=["--help"], prog="mbt-lite train", description=title)
