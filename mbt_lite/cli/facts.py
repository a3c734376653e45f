"""Facts about a model as text, for `mbt-lite zoo show`."""

import json
import math
import re
import textwrap
import warnings
from collections import Counter
from pathlib import Path

from mbt_lite import checkpoints, paths
from mbt_lite.checkpoints import download, zoo
from mbt_lite.checkpoints.model_card import geometry
from mbt_lite.config import ClipConfig, MBTConfig
from mbt_lite.model.flops import model_cost


def of_entry(entry: zoo.Entry) -> str:
    """Facts about a model of the zoo, and about its weights if they are on this machine."""
    mAP = entry.mAP and f"{entry.mAP} (Scenic README, not measured here)"
    rows = [("name", entry.name), ("published as", entry.file), ("trained on", entry.trained_on)]
    rows += [("mAP", mAP), *_model(entry.config, entry.clip, entry.caution)]
    rows += [("labels", entry.labels), ("license", entry.license), ("here", zoo.state(entry))]
    here = [path for path in zoo.places(entry).values() if path.exists()]
    place = paths.cache_folder() / entry.file
    if here:
        rows += _weights(*_load(here[0]))
    else:
        rows += [("to get it", f"mbt-lite zoo download {entry.name}")]
        rows += [("", f"or fetch {entry.url}"), ("", f"and put it at {place}")]
    if entry.released:
        sha256 = download.remembered(place) or "not known before the first good download"
        rows += [("sha256", sha256), *_arrays(entry.config)]
    return _lay_out(rows)


def of_file(path: Path) -> str:
    """Facts that a weights file contains."""
    (config, params, meta), notes = _load(path)
    labels = f"{len(meta['labels'])} names in the file" if meta["labels"] else "none in the file"
    source = meta.get("source") and json.dumps(meta["source"])
    rows = [("file", path), ("name", meta.get("name")), ("trained on", meta.get("trained_on"))]
    rows += _model(config, meta["clip"], meta.get("caution"))
    rows += [("labels", labels), ("license", meta["license"] or "none in the file")]
    return _lay_out([*rows, ("source", source), *_weights((config, params, meta), notes)])


def _load(path: Path) -> tuple[tuple, list[str]]:
    """(what `checkpoints.load` returns, its warnings)."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        return checkpoints.load(path), [str(note.message) for note in notes]


def _model(config: MBTConfig, clip: ClipConfig | None, caution: str | None) -> list[tuple]:
    cost = model_cost(config)
    counts = f"{cost.parameters:,} parameters, {cost.gflops:,.4g} GFLOPs ({cost.gmacs:,.4g} GMACs)"
    rows = [("streams", " and ".join(config.streams)), *geometry(config, clip)]
    rows += [("cost", f"{counts} a clip")]
    return rows + [("caution", line) for line in textwrap.wrap(caution or "", 86)]


def _weights(loaded: tuple, notes: list[str]) -> list[tuple]:
    """The largest biases of the head, what they say about the order of classes, and notes."""
    config, params, meta = loaded
    best = zoo.largest_biases(params, meta["labels"])
    biases = ", ".join(f"{i} {name} {bias:.3f}" for i, name, bias in best)
    rows = [("biases", f"largest of the head: {biases}")]
    likely = " and ".join(f"{i} ({name})" for i, name in zoo.LIKELIEST.items())
    if config.classes == zoo.BASE.classes and {i for i, *_ in best[:2]} == set(zoo.LIKELIEST):
        rows += [("", f"{likely} lead, as in AudioSet's official order")]
    elif config.classes == zoo.BASE.classes:
        rows += [("", f"{likely} do not lead: the classes may not be in AudioSet's order")]
    return rows + [("note", note) for note in notes]


def _arrays(config: MBTConfig) -> list[tuple]:
    """The arrays that conversion expects; those of all blocks are one line."""
    shapes = zoo.expected_arrays(config)
    numbers = sum(map(math.prod, shapes.values()))
    kinds = Counter(
        (re.sub(r"encoderblock_\d+", "encoderblock_*", name), shape)
        for name, shape in shapes.items()
    )
    lines = [f"{len(shapes)} are expected, {numbers:,} numbers; * counts the blocks from 0"]
    for (name, shape), count in sorted(kinds.items()):
        lines.append(f"{name} {shape}" + (f"  x {count}" if count > 1 else ""))
    return [("arrays", line) for line in lines]


def _lay_out(rows: list[tuple]) -> str:
    """Rows in two columns; a row without a value and a repeated name are left out."""
    lines, before = [], None
    for name, value in rows:
        if value:
            lines.append(f"{'' if name == before else name:22}{value}")
        before = name
    return "\n".join(lines)
