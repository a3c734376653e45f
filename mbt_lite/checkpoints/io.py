"""Load, save and convert weights: Scenic's checkpoints to ours and back, safetensors for sharing.

A conversion is complete or refused: each of our arrays must find its counterpart in the right
shape, and each array of the file must be used. Linen would silently ignore the others, and a lost
layer looks like a bad model.
"""

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from flax import serialization, traverse_util

from mbt_lite.checkpoints import formats, scenic
from mbt_lite.checkpoints.formats import BFLOAT16, flatten
from mbt_lite.config import ClipConfig, MBTConfig, from_dict, to_dict
from mbt_lite.model.flops import parameter_shapes
from mbt_lite.paths import replacing

DTYPES = {"float32": np.dtype("float32"), "bfloat16": BFLOAT16}
SUFFIXES = (".safetensors", ".npz", ".msgpack")
EARLIER = {"taper": "window_fn", "scale": "amplitude", "centred": "centered"}  # of a front end


def load(path: str | os.PathLike, **overrides) -> tuple[MBTConfig, dict, dict]:
    """Load (config, params, meta) from our safetensors, a Scenic checkpoint or an npz, as float32.

    `path` is a file, a folder that holds one, or hf://user/repo. `overrides` are fields of
    `MBTConfig`, for what another project's file does not say (`fusion_layer`, `rgb_shape`, ...) or
    to run a model differently than it was saved. `meta` has the keys `clip` (ClipConfig), `labels`
    and `license`, None where unknown, and the `extra` of `save`. Raises ValueError if the file is
    damaged or altered, or holds numbers that are not finite.
    """
    path = formats.find(path)
    if formats.is_safetensors(path):
        return _load_safetensors(path, overrides)
    config, params = from_arrays(formats.read(path), overrides, str(path))
    return config, params, {"clip": None, "labels": None, "license": None}


def save(
    path: str | os.PathLike,
    params: Mapping,
    config: MBTConfig,
    *,
    clip: ClipConfig | None = None,
    labels: Sequence[str] | None = None,
    license: str | None = None,
    dtype: str = "float32",
    **extra,
) -> Path:
    """Save weights as safetensors; the file appears only when it is complete.

    `extra` is any JSON. dtype="bfloat16" halves the file and rounds every weight to 8 bits of
    precision; it loads as float32 again.
    """
    path, leaves = Path(path), dict(flatten(params))
    labels = None if labels is None else list(labels)
    check_dtype(dtype)
    _check_leaves(leaves, config, labels, f"{path} was not written: its parameters")
    meta = {"license": license, "labels": labels, **extra, "dtype": dtype}
    meta |= {"config": to_dict(config), "clip": clip and to_dict(clip)}
    metadata = {name: json.dumps(value) for name, value in meta.items()} | {"format": "mbt_lite"}
    arrays = {name: np.ascontiguousarray(x, DTYPES[dtype]) for name, x in leaves.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata))
    return path


def convert(
    source: str | os.PathLike, target: str | os.PathLike, *, dtype: str = "float32", **overrides
) -> Path:
    """Convert the weights of `source` to the format that the suffix of `target` names.

    .safetensors is ours, with all that is known about the model. .npz (flat) and .msgpack (nested,
    as Flax writes {"params": tree}) hold only the arrays, by Scenic's names. `overrides` are those
    of `load`.
    """
    source, target = formats.find(source), Path(target)
    check_dtype(dtype)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target} ends in none of {', '.join(SUFFIXES)}, which name the formats.")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the source itself; give the target another name.")
    config, params, meta = load(source, **overrides)
    if target.suffix == ".safetensors":
        return save(target, params, config, dtype=dtype, **meta)
    scenic_arrays = to_scenic(config, params)
    arrays = {name: x.astype(DTYPES[dtype], copy=False) for name, x in scenic_arrays.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary, temporary.open("wb") as file:
        if target.suffix == ".npz":
            np.savez(file, **arrays)
        else:
            tree = traverse_util.unflatten_dict(arrays, sep="/")
            file.write(serialization.msgpack_serialize({"params": tree}))
    return target


def from_scenic(
    tree: Mapping,
    config: Mapping | None = None,
    *,
    rgb_shape: tuple[int, int, int] | None = None,
    spec_shape: tuple[int, int] | None = None,
) -> tuple[MBTConfig, dict]:
    """Convert a Scenic parameter tree, nested or with slash-joined names, to (config, params).

    `config` is the `config.model` of a Scenic config. Sizes come from the arrays; what they leave
    open comes from `config`, or else from the paper, and then a warning says so. `rgb_shape`
    (frames, height, width) and `spec_shape` (time, mels) determine the grid of tokens.
    """
    fields = scenic.config_fields(config or {})
    shapes = {"rgb_shape": rgb_shape, "spec_shape": spec_shape}
    fields |= {name: tuple(shape) for name, shape in shapes.items() if shape is not None}
    leaves = formats.parameters(dict(flatten(tree)))
    arrays = {name: np.asarray(x) for name, x in leaves.items()}
    return from_arrays(arrays, fields, "The parameter tree")


def to_scenic(config: MBTConfig, params: Mapping) -> dict[str, np.ndarray]:
    """Convert our parameters to {Scenic's slash-joined name: array}; inverse of `from_scenic`.

    The arrays share memory with `params` if these are on a CPU.
    """
    leaves = dict(flatten(params))
    _check_leaves(leaves, config, None, "The parameters")
    arrays = {}
    for name, leaf in leaves.items():
        arrays |= scenic.from_ours(name, np.asarray(leaf), config)
    return arrays


def nest(arrays: Iterable[tuple[str, np.ndarray]], source: str) -> dict:
    """Build our tree of float32 leaves from flat arrays; ValueError if one is NaN or infinite."""
    leaves = {name: np.array(x, np.float32) for name, x in arrays}  # JAX would share the memory
    _check_finite(leaves, source)
    return traverse_util.unflatten_dict(jax.device_put(leaves), sep="/")


def from_arrays(arrays: dict, fields: dict, source: str) -> tuple[MBTConfig, dict]:
    """(config, params) of flat Scenic arrays, or one ValueError with everything that does not fit.

    `fields` of `MBTConfig` take precedence over what the arrays say. `source` names the file.
    """
    config, assumed = scenic.geometry(arrays, fields, source)
    if len(config.streams) == 1:
        arrays.pop("bottleneck", None)  # Scenic saves it for single streams too and never uses it
    _check_depth(arrays, config, source)
    params = nest(scenic.to_ours(arrays, config, source), source)
    if assumed:
        unsaid = " nor ".join(assumed)
        warnings.warn(f"{source} does not say {unsaid}; pass it if that is wrong.", stacklevel=3)
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
    _check_leaves(arrays, config, meta["labels"], str(path))
    return config, nest(((name, arrays.pop(name)) for name in list(arrays)), str(path)), meta


def _read_metadata(metadata: dict[str, str]) -> tuple[MBTConfig, dict]:
    """(config, meta) from the strings of a safetensors header, any of which may be altered."""
    if metadata.pop("format", None) != "mbt_lite":
        raise ValueError("its metadata is not mbt_lite's")
    if "licence" in metadata:  # a file of an earlier version
        metadata["license"] = metadata.pop("licence")
    meta = {name: json.loads(value, object_hook=_rename) for name, value in metadata.items()}
    meta.pop("dtype", None)
    config = from_dict(MBTConfig, meta.pop("config", None), "config")
    missing = [name for name in ("clip", "labels", "license") if name not in meta]
    if missing:
        raise ValueError(f"its metadata lacks {', '.join(missing)}")
    if meta["clip"] is not None:
        meta["clip"] = from_dict(ClipConfig, meta["clip"], "clip")
    _check_types(meta, {"labels": list, "license": str, "name": str, "caution": str, "card": dict})
    _check_types(meta.get("card") or {}, {"name": str, "caution": str, "scores": dict})
    if not all(isinstance(label, str) for label in meta["labels"] or ()):
        raise ValueError("its labels must be strings")
    return config, meta


def _rename(keys: dict) -> dict:
    """Give the front end of an earlier version's file today's names; other objects stay."""
    earlier = EARLIER if "taper" in keys else {}
    return {earlier.get(key, key): value for key, value in keys.items()}


def _check_types(meta: Mapping, types: Mapping[str, type]) -> None:
    words = {list: "a list", str: "a string", dict: "an object in {}"}
    for name, kind in types.items():
        if not isinstance(meta.get(name), kind | None):
            raise ValueError(f"its {name} must be {words[kind]}")


def check_dtype(dtype: str) -> None:
    """Refuse a number format in which weights are not saved."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: weights are saved as {' or '.join(DTYPES)}.")


def _check_depth(arrays: Iterable[str], config: MBTConfig, source: str) -> None:
    """Refuse a config with far more blocks than the file: their shapes take long to compute."""
    blocks = {int(n) for name in arrays for n in re.findall(r"block_(\d{1,9})/", name)}
    if config.depth > 2 * max(len(blocks), 8):
        raise ValueError(
            f"{source} holds {len(blocks)} blocks, but its config has depth={config.depth}; get "
            "the file anew, or check the overrides."
        )


def _check_finite(arrays: Mapping, source: str) -> None:
    """Refuse weights that are NaN or infinite: every prediction would be NaN."""
    bad = [name for name, x in arrays.items() if not np.isfinite(x).all()]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(
            f"{source} holds weights that are NaN or infinite, in {', '.join(bad[:3])}{more}; its "
            "training diverged, or the file is damaged: use an earlier state, or get it anew."
        )


def _check_leaves(leaves: dict, config: MBTConfig, labels: list | None, source: str) -> None:
    """Refuse leaves and labels that are not exactly those of our model."""
    _check_depth(leaves, config, source)
    scenic.check(source, leaves, parameter_shapes(config))
    if labels is not None and len(labels) != config.classes:
        raise ValueError(f"{source}: {len(labels)} labels do not name {config.classes} classes.")
