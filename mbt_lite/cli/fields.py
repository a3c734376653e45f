"""Experiment fields on the command line: list them, and refuse those without effect."""

import ast
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from mbt_lite.config import (
    KEPT,
    WIRING,
    AugmentConfig,
    ClipConfig,
    DataConfig,
    Experiment,
    MBTConfig,
    StartConfig,
    TrainConfig,
)

PARTS = {
    "train": TrainConfig,
    "data": DataConfig,
    "start": StartConfig,
    "augment": AugmentConfig,
    "model": MBTConfig,
    "clip": ClipConfig,
}
FROM_WEIGHTS = "--start.model None, because the initial weights bring their own"
# (fields, condition under which they have an effect, what to set otherwise)
RULES: tuple[tuple[str, Callable[[Experiment], object], str], ...] = (
    ("start.rewire", lambda e: e.start.model, "--start.model"),
    ("start.inflate start.bottleneck start.audio_cls", lambda e: e.start.vit, "--start.vit"),
    ("train.steps", lambda e: not e.train.epochs, "--train.epochs 0"),
    (
        "train.momentum train.nesterov train.kernel_decay",
        lambda e: e.train.optimizer == "momentum",
        "--train.optimizer momentum",
    ),
    ("train.beta2", lambda e: e.train.optimizer == "adamw", "--train.optimizer adamw"),
    ("train.backbone_rate", lambda e: e.train.trained == "all", "--train.trained all"),
    ("train.mixup_groups", lambda e: e.augment.mixup, "--augment.mixup above 0"),
    (
        "augment.brightness augment.saturation augment.contrast augment.hue",
        lambda e: e.augment.color,
        "--augment.color above 0",
    ),
    (
        "augment.time_mask augment.time_mask_ratio",
        lambda e: e.augment.time_masks,
        "--augment.time_masks above 0",
    ),
    ("augment.mel_mask", lambda e: e.augment.mel_masks, "--augment.mel_masks above 0"),
    ("data.clips", lambda e: e.data.path == "world", "--data.path world"),
    (
        "data.videos data.labels data.holdout data.pairing data.views",
        lambda e: e.data.path != "world",
        "clips of your own, --data.path DIR",
    ),
    ("data.workers data.memory", lambda e: not e.data.cache_dir, "--data.cache-dir ''"),
    (
        "train.evaluate_every train.evaluate_clips train.samples train.best",
        lambda e: e.data.validation or e.data.holdout,
        "--data.validation or --data.holdout",
    ),
    (
        "train.test_clips",
        lambda e: e.data.test or e.data.holdout,
        "--data.test or --data.holdout",
    ),
    ("model.classes", lambda e: False, "other data, which decides how many classes there are"),
    (
        "model.fusion model.fusion_layer model.bottlenecks model.bottlenecks_at_test",
        lambda e: len(e.model.streams) > 1,
        "--model.streams spec rgb",
    ),
    (
        "model.bottlenecks model.bottlenecks_at_test",
        lambda e: e.model.fusion == "bottleneck",
        "--model.fusion bottleneck",
    ),
    (
        " ".join(f"model.{name}" for name in WIRING),
        lambda e: e.start.rewire or not e.start.model,
        "--start.rewire",
    ),
    (
        " ".join(
            f"model.{field.name}"
            for field in dataclasses.fields(MBTConfig)
            if field.name not in KEPT + WIRING
        ),
        lambda e: not e.start.model,
        FROM_WEIGHTS,
    ),
    (
        " ".join(f"clip.{field.name}" for field in dataclasses.fields(ClipConfig)),
        lambda e: not e.start.model,
        FROM_WEIGHTS,
    ),
)


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
    for fields, has_effect, needed in RULES:
        idle = [name for name in fields.split() if name in names]
        if idle and not has_effect(experiment):
            raise ValueError(f"--{idle[0]} has no effect here; it needs {needed}.")
    return experiment


def listing() -> str:
    """List the fields: option, type, default and meaning, one line each."""
    lines = [
        "fields of the experiment, with the defaults that a recipe may replace",
        "(switch a bool on by --start.rewire and off by --start.no-rewire):",
    ]
    for part, cls in PARTS.items():
        lines.append("")
        for name, kind, default, comment in described(cls):
            option = f"--{part}.{name} {kind} = {default}"
            lines.append(f"  {option:52}  {comment}".rstrip())
    return "\n".join(lines)


def described(cls: type) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, default, comment beside it) of each field of a dataclass, from its source."""
    source = inspect.getsource(cls)
    lines, defaults = source.splitlines(), {f.name: f.default for f in dataclasses.fields(cls)}
    for node in ast.parse(source).body[0].body:
        if not isinstance(node, ast.AnnAssign) or defaults[node.target.id] is dataclasses.MISSING:
            continue  # not a field, or one with fields of its own
        source_lines = lines[node.lineno - 1 : node.end_lineno]
        comment = next(filter(None, (line.partition("  # ")[2] for line in source_lines)), "")
        default = _as_typed(defaults[node.target.id])
        yield node.target.id, ast.unparse(node.annotation), default, comment


def _as_typed(value) -> str:
    """A default as one would type it."""
    if isinstance(value, tuple):
        return " ".join(map(_as_typed, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if value != "" else "''"
