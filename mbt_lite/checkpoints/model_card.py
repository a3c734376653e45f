"""Write model cards in the style of Hugging Face: use, geometry, origin and scores of a model."""

from collections.abc import Mapping, Sequence

from mbt_lite.config import MODALITIES, ClipConfig, MBTConfig
from mbt_lite.model.flops import model_cost

CONDITIONS = ("both", "audio only", "video only")  # as `evaluate` calls them


def model_card(
    config: MBTConfig, clip: ClipConfig, labels: Sequence[str], about: Mapping, dtype: str
) -> str:
    """README.md of a model, in Markdown; `about` is its `Classifier.card`.

    The card claims only what comes with the weights: without scores it says so.
    """
    return _render(
        "model_card",
        about=about,
        modalities=[MODALITIES[stream] for stream in config.streams],
        cost=model_cost(config),
        geometry=geometry(config, clip),
        labels=labels,
        dtype=dtype,
    )


def geometry(config: MBTConfig, clip: ClipConfig | None) -> list[tuple[str, str]]:
    """(name, value) of what a model is and what it takes, the rows of a table."""
    rows = [("width, layers, heads", f"{config.width}, {config.depth}, {config.heads}")]
    if len(config.streams) > 1:
        fused = f"{config.fusion} from layer {config.fusion_layer} (counted from 0)"
        if config.fusion == "bottleneck":
            fused += f", {config.bottlenecks} bottleneck tokens"
        rows.append(("fusion", fused))
    if clip is None:
        return [*rows, ("clip", "not said in the file")]
    front = clip.front_end
    if "rgb" in config.streams:
        size = f"{clip.frames} frames of {clip.size} x {clip.size} in {clip.video_seconds:g} s"
        rows.append(("video", f"{size}, patches {config.rgb_patch}"))
    if "spec" in config.streams:
        size = f"log-mel {config.spec_shape[0]} x {config.spec_shape[1]}, {clip.audio_seconds:g} s"
        rows.append(("audio", f"{size}, patches {config.spec_patch}"))
        rows.append(("front end", f"{front.name}, mean {front.mean:g}, std {front.std:g}"))
    return rows


def run_card(
    card: str, training: Mapping, minutes: float, curves: str, scores: Mapping | None
) -> str:
    """Extend the card of a trained model by its recipe, its curves and its scores.

    `training` is the experiment as a dictionary, `curves` describes curves.png in words, and
    `scores` are those of `evaluate`, None if there is no test split.
    """
    conditions = [name for name in CONDITIONS if name in (scores or ())]
    rows = []
    for name in scores[conditions[0]] if conditions else ():
        values = [scores[condition].get(name) for condition in conditions]
        if None not in values:
            rows.append((name, values))
    chance = (scores or {}).get("chance of matched") or {}
    return _render(
        "run_card",
        card=card,
        **training,
        minutes=minutes,
        curves=curves,
        scores=scores,
        conditions=conditions,
        rows=rows,
        chance=[f"{value:.3f} by the {name}" for name, value in chance.items()],
        simple=(scores or {}).get("simple models"),
        modalities=MODALITIES,
        verdict=(scores or {}).get("verdict", ()),
    )


def _render(template: str, **values) -> str:
    from jinja2 import Environment, PackageLoader  # loading a model needs no card

    loader = PackageLoader("mbt_lite.checkpoints", ".")
    environment = Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(f"{template}.jinja").render(values)
