"""The models that can be had by name, and what is in any weights file."""

import json
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import OmitSubcommandPrefixes, Positional, arg

from mbt_lite.cli.options import Debug

Json = Annotated[bool, arg(help="JSON instead of text.")]


@dataclass(frozen=True)
class List:
    """A table of all models; mAP as the Scenic README says, not measured here."""

    json: Json = False
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import zoo

        rows = [_row(entry, zoo.state(entry)) for entry in zoo.ENTRIES.values()]
        print(json.dumps(rows, indent=1) if self.json else _table(rows))
        return 0


@dataclass(frozen=True)
class Download:
    """Fetch a model, convert it once to safetensors, and print where that lies.

    An interrupted download goes on where it stopped. After the conversion it is deleted and only
    its sha256 kept. A file that was put into the cache folder by hand is used, and stays.
    """

    name: Positional[str]
    """A name of `mbt-lite zoo list`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 takes half the space and rounds every parameter to 8 bits of precision."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import zoo

        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            path = zoo.fetch(self.name, self.dtype)
        print(path)
        for note in noted:
            print(f"note: {note.message}")
        if caution := zoo.entry(self.name).caution:
            print(f"note: {caution}")
        return 0


@dataclass(frozen=True)
class Show:
    """All that is known of a model of the zoo (without network) or in a weights file."""

    model: Positional[str]
    """A name of the zoo, a weights file, a folder or hf://user/repo."""
    json: Json = False
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import zoo

        entry = zoo.find(self.model)
        facts = _entry_facts(entry) if entry else _file_facts(_path(self.model))
        print(json.dumps(facts, indent=1) if self.json else _text(facts))
        return int(facts.get("checksum", {}).get("state") == "wrong")


@dataclass(frozen=True)
class Zoo:
    """Every published weight: list them, download one, show one or what is in a file."""

    example: ClassVar[str] = "mbt-lite zoo show as500k-rgb-spec"

    do: OmitSubcommandPrefixes[List | Download | Show]

    @property
    def debug(self) -> bool:
        return self.do.debug

    def run(self) -> int:
        return self.do.run()


def _row(entry, state: str) -> dict:
    cost = entry.config.cost()
    return {
        "name": entry.name,
        "streams": list(entry.config.streams),
        "trained_on": entry.trained_on,
        "mAP_scenic_readme": entry.mAP,
        "parameters": cost.parameters,
        "gflops": round(cost.gflops, 3),
        "bytes": 4 * cost.parameters,
        "state": state,
    }


def _table(rows: list[dict]) -> str:
    from mbt_lite.download import amount

    heads = "name streams trained~on mAP~(Scenic~README) parameters GFLOPs size here"
    lines = [[head.replace("~", " ") for head in heads.split()]]
    for row in rows:
        mAP = "-" if row["mAP_scenic_readme"] is None else f"{row['mAP_scenic_readme']}"
        numbers = [f"{row['parameters']:,}", f"{row['gflops']:.3g}", amount(row["bytes"])]
        streams = " ".join(row["streams"])
        lines.append([row["name"], streams, row["trained_on"], mAP, *numbers, row["state"]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 3 <= i <= 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _path(model: str) -> Path:
    """The file that was meant by what is no name of the zoo."""
    from mbt_lite import zoo

    if model.startswith("hf://"):
        return zoo.hub_file(model)
    path = Path(model)
    if not path.exists() and path.name == model and not path.suffix:
        zoo.entry(model)  # refuses, with the nearest names
    return path


def _entry_facts(entry) -> dict:
    """What is known of a model of the zoo, and of its weights where they are here."""
    from mbt_lite import zoo

    facts = {
        "name": entry.name,
        "published_as": entry.file,
        "trained_on": entry.trained_on,
        "mAP_scenic_readme": entry.mAP,
        "labels": entry.labels,
        "licence": entry.licence,
        **_model_facts(entry.config, entry.clip),
        "here": zoo.state(entry),
    }
    if entry.released:
        facts["url"] = entry.url
        facts["put_at"] = str(zoo.cache_folder() / entry.file)
        facts["checksum"] = _checksum(entry)
        facts["caution"] = entry.caution
        facts["arrays"] = _arrays(entry.config)
    here = [path for path in zoo.all_converted(entry) if path.exists()]
    return facts | (_held(here[0])[1] if here else {})


def _file_facts(path: Path) -> dict:
    """What a weights file says of itself."""
    (config, clip, meta), held = _held(path)
    named = len(meta["labels"]) if meta["labels"] else None
    return {
        "file": str(path),
        **{key: meta[key] for key in ("name", "trained_on", "source") if meta.get(key)},
        "labels": f"{named} names in the file" if named else "none in the file",
        "licence": meta["licence"] or "none in the file",
        **_model_facts(config, clip),
        **({"caution": meta["caution"]} if meta.get("caution") else {}),
        **held,
    }


def _held(path: Path) -> tuple[tuple, dict]:
    """((config, clip, meta), facts) of a weights file: its largest biases, what it leaves open."""
    from mbt_lite import checkpoint, zoo

    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        config, params, meta = checkpoint.load(path)
    best = zoo.largest_biases(params, meta["labels"])
    facts = {"largest_biases": [list(row) for row in best]}
    if config.classes == zoo.BASE.classes:
        facts["class_order"] = _class_order([row[0] for row in best[:2]])
    if noted:
        facts["notes"] = [str(note.message) for note in noted]
    return (config, meta["clip"], meta), facts


def _class_order(first: list[int]) -> str:
    from mbt_lite.zoo import LIKELIEST

    likely = " and ".join(f"{i} ({name})" for i, name in LIKELIEST.items())
    if set(first) == set(LIKELIEST):
        return f"the largest head biases are {likely}, as in AudioSet's official order"
    return (
        f"the largest head biases are {first[0]} and {first[1]}, not {likely}: the classes may "
        "not be in AudioSet's official order"
    )


def _model_facts(config, clip) -> dict:
    from mbt_lite.config import to_dict

    cost = config.cost()
    counts = {"parameters": cost.parameters, "gflops": cost.gflops, "gmacs": cost.gmacs}
    return {**counts, "config": to_dict(config), "clip": clip and to_dict(clip)}


def _checksum(entry) -> dict:
    """Whether the published file is known, here, and still what it was."""
    from mbt_lite import download, zoo

    path, file = zoo.cache_folder() / entry.file, zoo.original(entry)
    known = {"sha256": download.remembered(path)}
    if not file:
        return known | {"state": "no published file here to verify"}
    try:
        sha256 = download.verify(file, path)
    except ValueError as error:
        return known | {"state": "wrong", "error": str(error)}
    agrees = "the file here agrees" if known["sha256"] else "remembered when it is converted"
    return {"sha256": sha256, "state": agrees}


def _arrays(config) -> list[dict]:
    """The arrays that conversion expects; those that differ only in the block's number as one."""
    from mbt_lite import zoo

    kinds = {}
    for name, shape in zoo.expected_arrays(config).items():
        kind = re.sub(r"encoderblock_\d+", "encoderblock_*", name)
        count = kinds.get((kind, shape), 0) + 1
        kinds[kind, shape] = count
    return [
        {"name": name, "shape": list(shape), "count": count}
        for (name, shape), count in sorted(kinds.items())
    ]


def _text(facts: dict) -> str:
    """Facts for people, a line or a few each."""
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
    rows += [("labels", facts["labels"]), ("licence", facts["licence"])]
    rows += [("source", json.dumps(facts["source"]) if facts.get("source") else None)]
    rows += [("here", facts.get("here"))] + [("", line) for line in _by_hand(facts)]
    rows += [("biases", line) for line in _biases(facts)]
    rows += [("note", note) for note in facts.get("notes", [])]
    rows += [("arrays", line) for line in _array_lines(facts.get("arrays"))]
    return _lay_out([(name, value) for name, value in rows if value])


def _lay_out(rows: list[tuple[str, str]]) -> str:
    """Rows in two columns; a name is given once."""
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
        slots = f", {config['bottlenecks']} bottlenecks" * (config["fusion"] == "bottleneck")
        lines.append(f"fusion {config['fusion']} from block {config['fusion_layer']} on{slots}")
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
    """How the weights come here, and what is known of the published file."""
    if "url" not in facts:
        return []
    check = facts["checksum"]
    known = f"sha256 {check['sha256'] or 'not known before the first good download'}"
    return [
        f"to get it: mbt-lite zoo download {facts['name']}",
        f"or fetch {facts['url']}",
        f"and put it at {facts['put_at']}",
        f"{known}: {check.get('error') or check['state']}",
    ]


def _biases(facts: dict) -> list[str]:
    best = facts.get("largest_biases", [])
    shown = ", ".join(f"{i} {name} {bias:.3f}" for i, name, bias in best)
    order = facts.get("class_order")
    return [f"largest of the head: {shown}"] * bool(best) + ([order] if order else [])


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
