"""Facts about a model, as a dictionary and as text, for `mbt-lite zoo show`."""

import json
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

from mbt_lite import checkpoints, paths
from mbt_lite.checkpoints import download, zoo
from mbt_lite.config import to_dict
from mbt_lite.model.flops import model_cost


def of_entry(entry) -> dict:
    """Facts about a model of the zoo, and about its weights if they are on this machine."""
    facts = {
        "name": entry.name,
        "published_as": entry.file,
        "trained_on": entry.trained_on,
        "mAP_scenic_readme": entry.mAP,
        "labels": entry.labels,
        "license": entry.license,
        **_model_facts(entry.config, entry.clip),
        "here": zoo.state(entry),
    }
    if entry.released:
        facts["url"] = entry.url
        facts["put_at"] = str(paths.cache_folder() / entry.file)
        facts["checksum"] = _checksum(entry)
        facts["caution"] = entry.caution
        facts["arrays"] = _arrays(entry.config)
    here = [path for path in zoo.places(entry).values() if path.exists()]
    return facts | (_read(here[0])[1] if here else {})


def of_file(path: Path) -> dict:
    """Facts that a weights file contains."""
    (config, clip, meta), facts = _read(path)
    count = len(meta["labels"]) if meta["labels"] else None
    return {
        "file": str(path),
        **{key: meta[key] for key in ("name", "trained_on", "source") if meta.get(key)},
        "labels": f"{count} names in the file" if count else "none in the file",
        "license": meta["license"] or "none in the file",
        **_model_facts(config, clip),
        **({"caution": meta["caution"]} if meta.get("caution") else {}),
        **facts,
    }


def _read(path: Path) -> tuple[tuple, dict]:
    """((config, clip, meta), facts) of a weights file: the largest biases, and open questions."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        config, params, meta = checkpoints.load(path)
    best = zoo.largest_biases(params, meta["labels"])
    facts = {"largest_biases": [list(row) for row in best]}
    if config.classes == zoo.BASE.classes:
        facts["class_order"] = _class_order([row[0] for row in best[:2]])
    if notes:
        facts["notes"] = [str(note.message) for note in notes]
    return (config, meta["clip"], meta), facts


def _class_order(first: list[int]) -> str:
    likely = " and ".join(f"{i} ({name})" for i, name in zoo.LIKELIEST.items())
    if set(first) == set(zoo.LIKELIEST):
        return f"the largest head biases are {likely}, as in AudioSet's official order"
    return (
        f"the largest head biases are {first[0]} and {first[1]}, not {likely}: the classes may "
        "not be in AudioSet's official order"
    )


def _model_facts(config, clip) -> dict:
    cost = model_cost(config)
    counts = {"parameters": cost.parameters, "gflops": cost.gflops, "gmacs": cost.gmacs}
    return {**counts, "config": to_dict(config), "clip": clip and to_dict(clip)}


def _checksum(entry) -> dict:
    """Checksum of the published file: remembered, and verified if it is on this machine."""
    path, file = paths.cache_folder() / entry.file, zoo.original(entry)
    row = {"sha256": download.remembered(path)}
    if not file:
        return row | {"state": "no published file here to verify"}
    try:
        sha256 = download.verify(file, path)
    except ValueError as error:
        return row | {"state": "wrong", "error": str(error)}
    agrees = "the file here agrees" if row["sha256"] else "remembered when it is converted"
    return {"sha256": sha256, "state": agrees}


def _arrays(config) -> list[dict]:
    """The arrays that conversion expects; those of all blocks are one entry."""
    kinds = {}
    for name, shape in zoo.expected_arrays(config).items():
        kind = re.sub(r"encoderblock_\d+", "encoderblock_*", name)
        kinds[kind, shape] = kinds.get((kind, shape), 0) + 1
    return [
        {"name": name, "shape": list(shape), "count": count}
        for (name, shape), count in sorted(kinds.items())
    ]


def text(facts: dict) -> str:
    """Format facts as text."""
    rows = [("name", facts.get("name")), ("file", facts.get("file"))]
    rows += [("published as", facts.get("published_as")), ("trained on", facts.get("trained_on"))]
    if facts.get("mAP_scenic_readme"):
        rows.append(("mAP", f"{facts['mAP_scenic_readme']} (Scenic README, not measured here)"))
    rows += [("streams", " and ".join(facts["config"]["streams"]))]
    rows += [("geometry", line) for line in _geometry(facts["config"])]
    cost = f"{facts['gflops']:,.4g} GFLOPs ({facts['gmacs']:,.4g} GMACs) a clip"
    rows.append(("cost", f"{facts['parameters']:,} parameters, {cost}"))
    rows += [("clip", line) for line in _clip(facts["clip"], facts["config"]["streams"])]
    rows += [("caution", line) for line in textwrap.wrap(facts.get("caution") or "", 86)]
    rows += [("labels", facts["labels"]), ("license", facts["license"])]
    rows += [("source", json.dumps(facts["source"]) if facts.get("source") else None)]
    rows += [("here", facts.get("here"))] + [("", line) for line in _by_hand(facts)]
    rows += [("biases", line) for line in _biases(facts)]
    rows += [("note", note) for note in facts.get("notes", [])]
    rows += [("arrays", line) for line in _array_lines(facts.get("arrays"))]
    return _lay_out([(name, value) for name, value in rows if value])


def _lay_out(rows: list[tuple[str, str]]) -> str:
    """Rows in two columns; a repeated name is left out."""
    lines, before = [], None
    for name, value in rows:
        lines.append(f"{'' if name == before else name:14}{value}")
        before = name or before
    return "\n".join(lines)


def _geometry(config: dict) -> list[str]:
    lines = [
        f"{config['depth']} blocks, width {config['width']}, {config['heads']} heads, MLP "
        f"{config['mlp_dim']}, pool {config['pool']}, {config['classes']} classes"
    ]
    if len(config["streams"]) > 1:
        bottlenecks = f", {config['bottlenecks']} bottlenecks" * (config["fusion"] == "bottleneck")
        lines.append(
            f"fusion {config['fusion']} from block {config['fusion_layer']} on{bottlenecks}"
        )
    for stream in config["streams"]:
        shape, patch = (" x ".join(map(str, config[f"{stream}_{of}"])) for of in ("shape", "patch"))
        lines.append(f"{stream} {shape} in patches of {patch}")
    return lines


def _clip(clip: dict | None, streams: Sequence[str]) -> list[str]:
    if clip is None:
        return ["not said in the file"]
    front, lines = clip["front_end"], []
    if "rgb" in streams:
        lines.append(
            f"{clip['frames']} frames at {clip['fps'] / clip['stride']:g} a second, "
            f"{clip['size']} x {clip['size']} pixels of a short side of {clip['resize']}"
        )
    if "spec" in streams:
        lines += [
            f"{clip['spec_frames']} spectrogram frames, one each {1000 * front['hop']:g} ms",
            f'front end "{front["name"]}", mean {front["mean"]:g}, deviation {front["std"]:g}',
        ]
    return lines


def _by_hand(facts: dict) -> list[str]:
    """How to get the weights, and the checksum of the published file."""
    if "url" not in facts:
        return []
    check, lines = facts["checksum"], []
    if "largest_biases" not in facts:
        lines = [
            f"to get it: mbt-lite zoo download {facts['name']}",
            f"or fetch {facts['url']}",
            f"and put it at {facts['put_at']}",
        ]
    sha256 = check["sha256"] or "not known before the first good download"
    return [*lines, f"sha256 {sha256}: {check.get('error') or check['state']}"]


def _biases(facts: dict) -> list[str]:
    best = facts.get("largest_biases", [])
    biases = ", ".join(f"{i} {name} {bias:.3f}" for i, name, bias in best)
    order = facts.get("class_order")
    return [f"largest of the head: {biases}"] * bool(best) + ([order] if order else [])


def _array_lines(arrays: list[dict] | None) -> list[str]:
    if arrays is None:
        return []
    total = sum(row["count"] for row in arrays)
    numbers = sum(row["count"] * math.prod(row["shape"]) for row in arrays)
    lines = [f"{total} are expected, {numbers:,} numbers; * counts the blocks from 0"]
    for row in arrays:
        times = f"  x {row['count']}" if row["count"] > 1 else ""
        lines.append(f"{row['name']} {tuple(row['shape'])}{times}")
    return lines
