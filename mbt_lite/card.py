"""The model card: what a person should know of weights before using them (Hugging Face style)."""

from collections.abc import Mapping, Sequence

from mbt_lite.config import ClipConfig, MBTConfig

STREAM_NAMES = {"rgb": "picture", "spec": "sound"}


def model_card(
    config: MBTConfig, clip: ClipConfig, labels: Sequence[str], about: Mapping, dtype: str
) -> str:
    """README.md of a model, in Markdown; `about` is what its `Classifier.card` knows.

    Nothing is claimed that the weights do not bring along: without scores the card says so.
    """
    parts = [_front_matter(about), _lead(config, about)]
    parts += [f"> {about['caution']}"] if about.get("caution") else []
    parts += [_use(config), _geometry(config, clip, dtype), _origin(about), _labels(labels)]
    return "\n\n".join(parts) + "\n"


def _front_matter(about: Mapping) -> str:
    licence = str(about.get("licence") or "")
    known = licence.split()[0].lower() if licence else "unknown"
    tags = "- video-classification\n- audio-classification\n- jax\n- mbt"
    return f"---\nlibrary_name: mbt_lite\nlicense: {known}\ntags:\n{tags}\n---"


def _lead(config: MBTConfig, about: Mapping) -> str:
    name = about.get("name") or "A Multimodal Bottleneck Transformer"
    streams = " and ".join(STREAM_NAMES[stream] for stream in config.streams)
    return (
        f"# {name}\n\nA Multimodal Bottleneck Transformer "
        "([Nagrani et al., 2021](https://arxiv.org/abs/2107.00135)) that classifies video by "
        f"{streams}: {config.cost().parameters:,} parameters, {config.cost().gflops:,.3g} GFLOPs "
        f"a clip, {config.classes} classes."
    )


def _use(config: MBTConfig) -> str:
    streams = '\nclf.predict("clip.mp4").streams["spec"].top(3)  # what the sound alone says'
    return (
        "## Use\n\n```python\nimport mbt_lite as mbt\n\n"
        'clf = mbt.load("path/of/this/folder")  # or hf://user/repo\n'
        f'clf.predict("clip.mp4").top(5){streams if len(config.streams) > 1 else ""}\n```'
    )


def _geometry(config: MBTConfig, clip: ClipConfig, dtype: str) -> str:
    front = clip.front_end
    rows = [("width, layers, heads", f"{config.width}, {config.depth}, {config.heads}")]
    if len(config.streams) > 1:
        fused = f"{config.fusion} from layer {config.fusion_layer} (counted from 0)"
        bottled = f", {config.bottlenecks} bottleneck tokens"
        rows.append(("fusion", fused + bottled * (config.fusion == "bottleneck")))
    if "rgb" in config.streams:
        size = f"{clip.frames} frames of {clip.size} x {clip.size} in {clip.video_seconds:g} s"
        rows.append(("picture", f"{size}, patches {config.rgb_patch}"))
    if "spec" in config.streams:
        size = f"log-mel {config.spec_shape[0]} x {config.spec_shape[1]}, {clip.sound_seconds:g} s"
        rows.append(("sound", f"{size}, patches {config.spec_patch}"))
        rows.append(("front end", f"{front.name}, mean {front.mean:g}, std {front.std:g}"))
    rows.append(("weights kept in", dtype))
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## Geometry\n\n| | |\n| --- | --- |\n{lines}"


def _origin(about: Mapping) -> str:
    lines = [f"- Licence: {about.get('licence') or 'not stated'}."]
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
