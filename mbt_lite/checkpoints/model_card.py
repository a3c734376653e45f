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
    parts = [_front_matter(about), _lead(config, about)]
    parts += [f"> {about['caution']}"] if about.get("caution") else []
    parts += [_use(config), _geometry(config, clip, dtype, about), _origin(about), _labels(labels)]
    return "\n\n".join(parts) + "\n"


def _front_matter(about: Mapping) -> str:
    license = str(about.get("license") or "")
    identifier = license.split()[0].lower() if license else "unknown"
    tags = "- video-classification\n- audio-classification\n- jax\n- mbt"
    return f"---\nlibrary_name: mbt_lite\nlicense: {identifier}\ntags:\n{tags}\n---"


def _lead(config: MBTConfig, about: Mapping) -> str:
    name = about.get("name") or "A Multimodal Bottleneck Transformer"
    streams = " and ".join(MODALITIES[stream] for stream in config.streams)
    cost = model_cost(config)
    return (
        f"# {name}\n\nA Multimodal Bottleneck Transformer "
        "([Nagrani et al., 2021](https://arxiv.org/abs/2107.00135)) that classifies video by "
        f"{streams}: {cost.parameters:,} parameters, {cost.gflops:,.3g} GFLOPs "
        f"a clip, {config.classes} classes."
    )


def _use(config: MBTConfig) -> str:
    streams = '\nclf.predict("clip.mp4").streams["spec"].top(3)  # from audio only'
    return (
        "## Use\n\n```python\nimport mbt_lite as mbt\n\n"
        'clf = mbt.load("path/of/this/folder")  # or hf://user/repo\n'
        f'clf.predict("clip.mp4").top(5){streams if len(config.streams) > 1 else ""}\n```'
    )


def _geometry(config: MBTConfig, clip: ClipConfig, dtype: str, about: Mapping) -> str:
    front = clip.front_end
    rows = [("width, layers, heads", f"{config.width}, {config.depth}, {config.heads}")]
    if len(config.streams) > 1:
        fused = f"{config.fusion} from layer {config.fusion_layer} (counted from 0)"
        if config.fusion == "bottleneck":
            fused += f", {config.bottlenecks} bottleneck tokens"
        rows.append(("fusion", fused))
    if "rgb" in config.streams:
        size = f"{clip.frames} frames of {clip.size} x {clip.size} in {clip.video_seconds:g} s"
        rows.append(("video", f"{size}, patches {config.rgb_patch}"))
    if "spec" in config.streams:
        size = f"log-mel {config.spec_shape[0]} x {config.spec_shape[1]}, {clip.audio_seconds:g} s"
        rows.append(("audio", f"{size}, patches {config.spec_patch}"))
        rows.append(("front end", f"{front.name}, mean {front.mean:g}, std {front.std:g}"))
    if about.get("probabilities"):
        rows.append(("probabilities", about["probabilities"]))
    rows.append(("weights saved as", dtype))
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## Geometry\n\n| | |\n| --- | --- |\n{lines}"


def _origin(about: Mapping) -> str:
    lines = [f"- License: {about.get('license') or 'not stated'}."]
    lines += [
        f"- {name}: {about[name]}." for name in ("source", "training data") if about.get(name)
    ]
    scores = about.get("scores") or {}
    lines += [f"- {name}: {value}" for name, value in scores.items()] or [
        "- No scores came with these weights; measure them with `mbt-lite evaluate`."
    ]
    return "## Origin and scores\n\n" + "\n".join(lines)


def _labels(labels: Sequence[str]) -> str:
    names = "; ".join(labels)
    return f"## Classes\n\n<details><summary>{len(labels)} names</summary>\n\n{names}\n\n</details>"


def run_card(
    card: str, training: Mapping, minutes: float, curves: str, scores: Mapping | None
) -> str:
    """Extend the card of a trained model by its recipe, its curves and its scores.

    `training` is the experiment as a dictionary, `curves` describes curves.png in words, and
    `scores` are those of `evaluate`, None if there is no test split.
    """
    parts = [card.rstrip(), _recipe(training, minutes, curves), _scores(scores)]
    return "\n\n".join([*parts, *_worth(scores or {})]) + "\n"


def _worth(scores: Mapping) -> list[str]:
    """What simple models reach on the same clips, and sentences that compare the run with them."""
    simple, sentences = scores.get("simple models"), scores.get("verdict")
    streams = list(next(iter(simple.values()))) if simple else []
    names = [MODALITIES.get(stream, stream) for stream in streams]
    rows = [
        f"| {model} | " + " | ".join(f"{by_stream[stream]:.3f}" for stream in streams) + " |"
        for model, by_stream in (simple or {}).items()
    ]
    table = [f"| top-1 | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|", *rows]
    lines = [f"- {sentence[0].upper()}{sentence[1:]}." for sentence in sentences or ()]
    parts = ["Simple models on the same clips:", "\n".join(table)] if simple else []
    return [*parts, "\n".join(lines)] if lines else parts


def _recipe(training: Mapping, minutes: float, curves: str) -> str:
    config, data, start = (training[name] for name in ("train", "data", "start"))
    source = start["model"] or start["vit"]
    decay = "weight decay {weight_decay}, " if config["weight_decay"] else ""
    recipe = (
        "{optimizer}, learning rate {learning_rate} after a warm-up of {warmup:g}, {schedule}, "
        + decay
        + "gradient clipped at {clip_norm}, batch {batch}, {steps:,} steps, {loss} loss, label "
        "smoothing {label_smoothing}, seed {seed}"
    ).format(**config)
    lines = [
        f"- Data: `{data['path']}`" + (f", split {data['train']}." if data["train"] else "."),
        f"- Start: {f'`{source}`' if source else 'from scratch'}.",
        f"- Recipe: {recipe}.",
        f"- Time: {minutes:.1f} min for {config['steps'] * config['batch']:,} clips, from the "
        "run's log.",
        "- Everything else: `experiment.json`.",
    ]
    return "## Training\n\n" + "\n".join(lines) + f"\n\n![{curves}](curves.png)"


def _scores(scores: Mapping | None) -> str:
    if scores is None:
        return "No clips were kept for a test."
    conditions = [name for name in CONDITIONS if name in scores]
    names = list(scores[conditions[0]])
    rows = [
        f"| {name} | " + " | ".join(f"{scores[c][name]:.3f}" for c in conditions) + " |"
        for name in names
        if all(scores[c].get(name) is not None for c in conditions)
    ]
    lines = [
        f"Scores on {scores['clips']:,} clips of `{scores['data']}`, not used in training:",
        "",
        f"| | {' | '.join(conditions)} |",
        "| --- " * (len(conditions) + 1) + "|",
        *rows,
    ]
    chance = scores.get("chance of matched")
    if chance:
        lines += ["", 'Chance for "matched accuracy" (which shape sings): ']
        lines[-1] += ", ".join(f"{value:.3f} by the {name}" for name, value in chance.items()) + "."
    return "\n".join(lines)
