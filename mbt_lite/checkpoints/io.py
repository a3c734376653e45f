"""Load, save and convert weights: Scenic's checkpoints to ours and back, safetensors for sharing.

Conversion is total or refuses: every array of ours must find its counterpart in the right shape,
and every array of the file must be wanted. Linen would ignore the rest in silence, and a lost layer
looks like a bad model. Arrays go through one by one, so that no file takes much more memory than
its weights.
"""

import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np
from flax import traverse_util

from mbt_lite.checkpoints import flaxfile, formats, scenic
from mbt_lite.checkpoints.flaxfile import BFLOAT16
from mbt_lite.checkpoints.formats import flatten
from mbt_lite.config import (
    ClipConfig,
    MBTConfig,
    from_dict,
    to_dict,
)
from mbt_lite.model.mbt import init_params
from mbt_lite.paths import replacing

DTYPES = {"float32": np.dtype("float32"), "bfloat16": BFLOAT16}


def load(path: str | os.PathLike, **overrides) -> tuple[MBTConfig, dict, dict]:
    """Load (config, params, meta) from our safetensors, a Scenic checkpoint or an npz, as float32.

    `path` is a file, a folder that holds one, or hf://user/repo. `overrides` are fields of
    `MBTConfig`, for what a foreign file does not say (`fusion_layer`, `rgb_shape`, ...) or to run a
    model otherwise than it was saved. `meta` has the keys `clip` (ClipConfig), `labels` and
    `licence`, None where unknown, and whatever else `save` was given. ValueError with a sentence
    where the file is damaged, altered, or holds numbers that are not finite.
    """
    path = formats.find(path)
    if formats.is_safetensors(path):
        return _load_safetensors(path, overrides)
    config, params = _convert(formats.read(path), overrides, str(path))
    return config, params, {"clip": None, "labels": None, "licence": None}


def save(
    path: str | os.PathLike,
    params: Mapping,
    config: MBTConfig,
    *,
    clip: ClipConfig | None = None,
    labels: Sequence[str] | None = None,
    licence: str | None = None,
    dtype: str = "float32",
    **extra,
) -> Path:
    """Save weights as safetensors, whole or not at all; `extra` is any JSON.

    dtype="bfloat16" halves the file and rounds every weight to 8 bits of precision; it loads as
    float32 again.
    """
    path, leaves = Path(path), dict(flatten(params))
    labels = None if labels is None else list(labels)
    _check_dtype(dtype)
    _check_ours(leaves, config, labels, f"{path} was not written: its parameters")
    meta = {"licence": licence, "labels": labels, **extra, "dtype": dtype}
    meta |= {"config": to_dict(config), "clip": clip and to_dict(clip)}
    metadata = {name: json.dumps(value) for name, value in meta.items()} | {"format": "mbt_lite"}
    return _write_whole(path, partial(_write_safetensors, leaves, DTYPES[dtype], metadata))


def convert(
    source: str | os.PathLike, target: str | os.PathLike, *, dtype: str = "float32", **overrides
) -> Path:
    """Convert the weights of `source` to the format that the suffix of `target` names.

    .safetensors is ours, with all that is known about the model. .npz (flat) and .msgpack (nested,
    as Flax writes {"params": tree}) hold nothing but the arrays, by Scenic's names. `overrides` are
    those of `load`.
    """
    source, target = formats.find(source), Path(target)
    _check_dtype(dtype)
    if target.suffix not in (".safetensors", *WRITERS):
        known = ", ".join([".safetensors", *WRITERS])
        raise ValueError(f"{target} ends in none of {known}, which name the layouts.")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the source itself; give the target another name.")
    config, params, meta = load(source, **overrides)
    if target.suffix == ".safetensors":
        return save(target, params, config, dtype=dtype, **meta)
    return _write_whole(target, partial(WRITERS[target.suffix], params, config, DTYPES[dtype]))


def from_scenic(
    tree: Mapping,
    config: Mapping | None = None,
    *,
    rgb_shape: tuple[int, int, int] | None = None,
    spec_shape: tuple[int, int] | None = None,
) -> tuple[MBTConfig, dict]:
    """Convert a Scenic parameter tree, nested or with slash-joined names, to (config, params).

    `config` is the `config.model` of a Scenic config. Sizes come from the arrays; what they cannot
    tell comes from `config`, or else from the paper, and then a warning says so. The shapes
    (frames, height, width) and (time, mels) settle the grid of tokens.
    """
    known = scenic.said_by(config or {})
    known |= {"rgb_shape": tuple(rgb_shape)} if rgb_shape is not None else {}
    known |= {"spec_shape": tuple(spec_shape)} if spec_shape is not None else {}
    leaves = formats.parameters(dict(flatten(tree)))
    arrays = {name: np.asarray(x) for name, x in leaves.items()}
    return _convert(arrays, known, "The parameter tree")


def to_scenic(config: MBTConfig, params: Mapping) -> dict[str, np.ndarray]:
    """Convert our parameters to {Scenic's slash-joined name: array}; inverse of `from_scenic`.

    The arrays share memory with `params` where a CPU holds these.
    """
    leaves = dict(flatten(params))
    _check_ours(leaves, config, None, "The parameters")
    arrays = {}
    for name, leaf in leaves.items():
        arrays |= scenic.from_ours(name, np.asarray(leaf), config)
    return arrays


def nest(arrays: Iterable[tuple[str, np.ndarray]], source: str) -> dict:
    """Our tree of float32 leaves from flat arrays; ValueError where one is NaN or infinite."""
    leaves = {name: np.array(x, np.float32) for name, x in arrays}  # JAX shares what it is given
    _check_finite(leaves, source)
    return traverse_util.unflatten_dict(jax.device_put(leaves), sep="/")


def leaf_shapes(config: MBTConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Return {name: shape} of every parameter without allocating one."""
    return dict(flatten(jax.eval_shape(partial(init_params, config), jax.random.key(0))))


def _convert(arrays: dict, known: dict, source: str) -> tuple[MBTConfig, dict]:
    """(config, params) of flat Scenic arrays, or one ValueError with all that does not fit."""
    config, assumed = scenic.geometry(arrays, known, source)
    if len(config.streams) == 1:
        arrays.pop("bottleneck", None)  # Scenic makes it for single streams too and never uses it
    _check_depth(arrays, config, source)
    params = nest(scenic.to_ours(arrays, config, leaf_shapes(config), source), source)
    if assumed:
        assumed = " nor ".join(assumed)
        warnings.warn(f"{source} does not say {assumed}; pass it if that is wrong.", stacklevel=3)
    return config, params


def _load_safetensors(path: Path, overrides: dict) -> tuple[MBTConfig, dict, dict]:
    """(config, params, meta) of a file that `save` wrote."""
    arrays, metadata = formats.read_safetensors(path)
    try:
        config, meta = _read_metadata(metadata)
    except (ValueError, RecursionError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"{path} is no safetensors file of mbt_lite ({reason}); get it anew, or write it with "
            "`checkpoints.save`."
        ) from None
    config = from_dict(MBTConfig, to_dict(config) | overrides, "model")
    _check_ours(arrays, config, meta["labels"], str(path))
    return config, nest(((name, arrays.pop(name)) for name in list(arrays)), str(path)), meta


def _read_metadata(metadata: dict[str, str]) -> tuple[MBTConfig, dict]:
    """(config, meta) of the texts in a safetensors header, any of which may have been altered."""
    if metadata.pop("format", None) != "mbt_lite":
        raise ValueError("its metadata is not mbt_lite's")
    meta = {name: json.loads(value) for name, value in metadata.items()}
    meta.pop("dtype", None)
    config = from_dict(MBTConfig, meta.pop("config", None), "config")
    missing = [name for name in ("clip", "labels", "licence") if name not in meta]
    if missing:
        raise ValueError(f"its metadata lacks {', '.join(missing)}")
    if meta["clip"] is not None:
        meta["clip"] = from_dict(ClipConfig, meta["clip"], "clip")
    _check_kinds(meta, {"labels": list, "licence": str, "name": str, "caution": str, "card": dict})
    _check_kinds(meta.get("card") or {}, {"name": str, "caution": str, "scores": dict})
    if not all(isinstance(label, str) for label in meta["labels"] or ()):
        raise ValueError("its labels are no texts")
    return config, meta


def _check_kinds(meta: Mapping, kinds: Mapping[str, type]) -> None:
    words = {list: "a list", str: "a text", dict: "fields in {}"}
    for name, kind in kinds.items():
        if not isinstance(meta.get(name), kind | None):
            raise ValueError(f"its {name} must be {words[kind]}")


def _write_whole(path: Path, write: Callable[[BinaryIO], None]) -> Path:
    """`path`, written under another name first, so that no half of it is ever there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        write(file)
    return path


def _write_safetensors(leaves: dict, dtype: np.dtype, metadata: dict, file: BinaryIO) -> None:
    """The format is a length, a JSON header and the arrays: the library would want all at once."""
    header, start = {"__metadata__": metadata}, 0
    for name, leaf in leaves.items():
        stop = start + math.prod(leaf.shape) * dtype.itemsize
        kind = "F32" if dtype == "float32" else "BF16"
        header[name] = {"dtype": kind, "shape": leaf.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for leaf in leaves.values():
        file.write(_stored(leaf, dtype).tobytes())


def _write_npz(params: Mapping, config: MBTConfig, dtype: np.dtype, file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in to_scenic(config, params).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _stored(array, dtype), allow_pickle=False)


def _write_msgpack(params: Mapping, config: MBTConfig, dtype: np.dtype, file: BinaryIO) -> None:
    tree = traverse_util.unflatten_dict(to_scenic(config, params), sep="/")
    flaxfile.write(file, {"params": tree}, dtype)


WRITERS = {".npz": _write_npz, ".msgpack": _write_msgpack}


def _stored(leaf, dtype: np.dtype) -> np.ndarray:
    return np.asarray(leaf).astype(dtype, copy=False)


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: weights are kept as {' or '.join(DTYPES)}.")


def _check_depth(arrays: Iterable[str], config: MBTConfig, source: str) -> None:
    """Refuse a config with far more blocks than there are, whose shapes take long to work out."""
    blocks = {int(n) for name in arrays for n in re.findall(r"block_(\d{1,9})/", name)}
    if config.depth > 2 * max(len(blocks), 8):
        raise ValueError(
            f"{source} holds {len(blocks)} blocks, but its config has depth={config.depth}; get "
            "the file anew, or check the overrides."
        )


def _check_finite(arrays: Mapping, source: str) -> None:
    """Refuse weights that are NaN or infinite: every answer of theirs would be NaN."""
    bad = [name for name, x in arrays.items() if not np.isfinite(x).all()]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(
            f"{source} holds weights that are NaN or infinite, in {', '.join(bad[:3])}{more}; its "
            "training diverged, or the file is damaged: use an earlier state, or get it anew."
        )


def _check_ours(arrays: dict, config: MBTConfig, labels: list | None, source: str) -> None:
    _check_depth(arrays, config, source)
    wanted = leaf_shapes(config)
    missing, unused = sorted(wanted.keys() - arrays), sorted(arrays.keys() - wanted)
    both = {name: x for name, x in arrays.items() if name in wanted}
    shapes = {name: x.shape for name, x in wanted.items()}
    scenic.refuse(source, missing, unused, scenic.misshaped(both, shapes))
    if labels is not None and len(labels) != config.classes:
        raise ValueError(f"{source}: {len(labels)} labels do not name {config.classes} classes.")
