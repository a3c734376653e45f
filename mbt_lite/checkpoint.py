"""Weights in and out: Scenic's checkpoints into ours, safetensors to keep and to give away.

Conversion is total or refuses: every array of ours must find its counterpart in the right shape,
and every array of the file must be wanted. Linen would ignore the rest in silence, and a lost layer
looks like a bad model. Nothing here reads a pickle.
"""

import json
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import serialization, traverse_util

from .config import BASE, ClipConfig, MBTConfig, from_dict, to_dict
from .model import init_params

LARGEST = 8 << 30  # bytes; the largest published file, with its optimiser, is 1.4 GB
STREAMS = {"rgb": "rgb", "spectrogram": "spec"}  # Scenic's name: ours
SUFFIXES = {"rgb": "", "spec": "_spectrogram"}
POOLS = {"token": "token", "gap": "mean", "gmp": "max", "gsp": "sum"}

NAMES = (  # ours to Scenic's, every line applied in turn
    (r"^rgb_embedding/", "embedding/"),
    (r"^spec_embedding/", "embedding_spectrogram/"),
    (r"^rgb_cls$", "cls"),
    (r"^spec_cls$", "clsspectrogram"),
    (r"^rgb_positions$", "Transformer/posembed_input/pos_embedding"),
    (r"^spec_positions$", "Transformer/posembed_input_spectrogram/pos_embedding"),
    (r"^(?:rgb_)?block_(\d+)/", r"Transformer/encoderblock_\1/"),
    (r"^spec_block_(\d+)/", r"Transformer/encoderblock_\1_spectrogram/"),
    (r"/attention_norm/", "/LayerNorm_0/"),
    (r"/attention/", "/MultiHeadDotProductAttention_0/"),
    (r"/mlp_norm/", "/LayerNorm_1/"),
    (r"/mlp_in/", "/MlpBlock_0/Dense_0/"),
    (r"/mlp_out/", "/MlpBlock_0/Dense_1/"),
    (r"^final_norm/", "Transformer/encoder_norm/"),
    (r"^head/", "output_projection/"),
)
WRAPPERS = ("optimizer/target/", "opt/target/", "params/", "params/")  # what parameters lie in


def load(path: str | os.PathLike, **overrides) -> tuple[MBTConfig, dict, dict]:
    """(config, params, meta) of our safetensors, a Scenic checkpoint file or folder, or an npz.

    `overrides` are fields of `MBTConfig`, for what a foreign file does not say (`fusion_layer`,
    `rgb_shape`, ...) or to run a model otherwise than it was saved. `meta` has the keys `clip`
    (ClipConfig), `labels` and `licence`, None where unknown, and whatever else `save` was given.
    """
    path = _checkpoint_file(Path(path))
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return _load_safetensors(path, overrides)
    config, params = _convert(_parameters(_read_foreign(path, head)), overrides, str(path))
    return config, params, {"clip": None, "labels": None, "licence": None}


def save(
    path: str | os.PathLike,
    params: Mapping,
    config: MBTConfig,
    *,
    clip: ClipConfig | None = None,
    labels: Sequence[str] | None = None,
    licence: str | None = None,
    **extra,
) -> Path:
    """The path of a new safetensors file, whole or not there at all; `extra` is any JSON."""
    path = Path(path)
    arrays = {name: np.ascontiguousarray(x) for name, x in flatten(params)}
    labels = None if labels is None else list(labels)
    _check_ours(arrays, config, labels, f"{path} was not written: its parameters")
    meta = {"licence": licence, "labels": labels, **extra}
    meta |= {"config": to_dict(config), "clip": clip and to_dict(clip)}
    metadata = {name: json.dumps(value) for name, value in meta.items()} | {"format": "mbt_lite"}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        safetensors.numpy.save_file(arrays, partial_file, metadata)
        partial_file.chmod(0o644)
        os.replace(partial_file, path)
    finally:
        partial_file.unlink(missing_ok=True)
    return path


def from_scenic(
    tree: Mapping,
    config: Mapping | None = None,
    *,
    rgb_shape: tuple[int, int, int] | None = None,
    spec_shape: tuple[int, int] | None = None,
) -> tuple[MBTConfig, dict]:
    """(config, params) of a Scenic parameter tree, nested or flat with slash-joined names.

    `config` is the `config.model` of a Scenic config. Sizes come from the arrays; what they cannot
    tell comes from `config`, or else from the paper, and then a warning says so. The shapes
    (frames, height, width) and (time, mels) settle the grid of tokens.
    """
    known = _from_scenic_config(config or {})
    known |= {"rgb_shape": tuple(rgb_shape)} if rgb_shape is not None else {}
    known |= {"spec_shape": tuple(spec_shape)} if spec_shape is not None else {}
    return _convert(_parameters(tree), known, "The parameter tree")


def flatten(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(slash-joined name, leaf) of everything in a nested tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def scenic_names(name: str, config: MBTConfig) -> list[str]:
    """The Scenic arrays that one of ours is made of: itself, or its query, key and value."""
    if name == "spec_cls" and config.streams == ("spec",):
        return ["cls"]  # a stream that is alone takes the plain name, whichever it is
    for ours, scenic in NAMES:
        name = re.sub(ours, scenic, name)
    if "/qkv/" not in name:
        return [name]
    return [name.replace("/qkv/", f"/{part}/") for part in ("query", "key", "value")]


def scenic_shape(name: str, shape: tuple[int, ...], config: MBTConfig) -> tuple[int, ...]:
    """The shape in Scenic of one of our arrays (of its query, key or value part, where fused)."""
    heads = (config.heads, config.width // config.heads)
    if name.endswith("_embedding/kernel"):
        stream = name.split("_")[0]
        flat = stream == "rgb" and config.rgb_sampled
        return (*config.patch(stream)[1 if flat else 0 :], 3, config.width)
    if "/qkv/" in name:
        return (*shape[:-1], *heads)
    return (*heads, config.width) if name.endswith("attention/out/kernel") else shape


def _convert(arrays: dict, known: dict, source: str) -> tuple[MBTConfig, dict]:
    """(config, params) of flat Scenic arrays, or one ValueError with all that does not fit."""
    config, assumed = _geometry(arrays, known, source)
    left = dict(arrays)
    if len(config.streams) == 1:
        left.pop("bottleneck", None)  # Scenic makes it for single streams too and never uses it
    wanted, parts = _leaves(config), {}
    missing, misshaped = [], []
    for name, leaf in wanted.items():
        names = scenic_names(name, config)
        missing += [part for part in names if part not in left]
        found = {part: left.pop(part) for part in names if part in left}
        misshaped += _misshaped(found, dict.fromkeys(found, scenic_shape(name, leaf.shape, config)))
        parts[name] = list(found.values())
    _refuse(source, missing, list(left), misshaped)
    if assumed:
        assumed = " nor ".join(assumed)
        warnings.warn(f"{source} does not say {assumed}; pass it if that is wrong.", stacklevel=3)
    made = {k: np.stack(x, axis=-3) if len(x) > 1 else x[0] for k, x in parts.items()}
    return config, _nest({name: x.reshape(wanted[name].shape) for name, x in made.items()})


def _geometry(arrays: dict, known: dict, source: str) -> tuple[MBTConfig, list[str]]:
    """(config, phrases on what had to be assumed); `known` fields go before the arrays."""
    assumed = []

    def assume(field: str, value):
        assumed.append(f"{field} (taken: {value!r})")
        return value

    def size(pattern: str, axis: int, default: int | None) -> int | None:
        """What most arrays with such a name have on this axis: one bad array is outvoted."""
        shapes = [x.shape for name, x in arrays.items() if re.search(pattern, name)]
        votes = Counter(shape[axis] for shape in shapes if -len(shape) <= axis < len(shape))
        return votes.most_common(1)[0][0] if votes else default

    blocks = re.findall(r"encoderblock_(\d+)(_spectrogram)?/", "\n".join(arrays))
    if not blocks:
        raise ValueError(f"{source} is no MBT: no encoderblock_0 beside {list(arrays)[:3]}.")
    held = tuple(s for s in BASE.streams if f"embedding{SUFFIXES[s]}/kernel" in arrays)
    streams = known.get("streams", held or BASE.streams)
    fields = {
        "streams": streams,
        "classes": size(r"^output_projection/", -1, BASE.classes),
        "width": size(r"LayerNorm_\d/scale$", 0, BASE.width),
        "depth": len({number for number, _ in blocks}),
        "heads": size(r"/(query|key|value)/bias$", 0, BASE.heads),
        "mlp_dim": size(r"/Dense_0/", -1, BASE.mlp_dim),
        "bottlenecks": size(r"^bottleneck$", 1, BASE.bottlenecks),
        "shared_encoder": "spec" in streams and not any(suffix for _, suffix in blocks),
        "representation": size(r"^pre_logits/", -1, None),
        "fusion": "bottleneck" if "bottleneck" in arrays else "joint",
    } | known
    if len(streams) == 1:
        fields |= {"fusion": "late", "fusion_layer": fields["depth"]}
    if "fusion_layer" not in fields:
        fields["fusion_layer"] = assume("fusion_layer", min(BASE.fusion_layer, fields["depth"]))
    if "pool" not in fields:
        fields["pool"] = "token" if "cls" in arrays else assume("pool", "mean")
    for stream in streams:
        fields |= _grid(stream, arrays, fields, source, assume)
    return from_dict(MBTConfig, fields), assumed


def _grid(stream: str, arrays: dict, fields: dict, source: str, assume) -> dict:
    """The fields of one stream: its patch, its input shape, how many frames are sampled."""
    names = (f"embedding{SUFFIXES[stream]}/kernel", scenic_names(f"{stream}_positions", BASE)[0])
    _refuse(source, [name for name in names if name not in arrays])
    kernel, positions = (arrays[name].shape for name in names)
    if len(kernel) not in ((4, 5) if stream == "rgb" else (4,)) or len(positions) != 3:
        raise ValueError(f"{source}: {names[0]} {kernel} with {names[1]} {positions} is no stream.")
    single = stream == "rgb" and len(kernel) == 4  # patches of single frames, picked in the model
    patch = (1, *kernel[:-2]) if single else kernel[:-2]
    tokens = positions[1] - (fields["pool"] == "token")

    def tokens_each(shape):
        """Tokens that share one place on the first axis, time."""
        return math.prod(n // p for n, p in zip(shape[1:], patch[1:], strict=True))

    shape = fields.get(f"{stream}_shape")
    if shape is None:
        usual = BASE.shape(stream)  # only the time is open: 224 x 224 pixels, 128 mels
        each = tokens_each(usual)
        if single or each == 0 or tokens % each:
            raise ValueError(
                f"{source} leaves open which grid the {tokens} tokens of {stream!r} form; pass "
                f"{stream}_shape=({'frames, height, width' if stream == 'rgb' else 'time, mels'})."
            )
        shape = assume(f"{stream}_shape", (tokens // each * patch[0], *usual[1:]))
    found = {f"{stream}_patch": patch, f"{stream}_shape": tuple(shape)}
    if single and "rgb_sampled" not in fields:
        found["rgb_sampled"] = assume("rgb_sampled", tokens // max(1, tokens_each(shape)))
    return found


def _from_scenic_config(model: Mapping) -> dict:
    """{field of MBTConfig: value} for what a Scenic `config.model` says beyond the arrays."""
    for key, names in (("modality_fusion", STREAMS), ("classifier", POOLS)):
        said = model.get(key) or ()
        unknown = set([said] if isinstance(said, str) else said) - set(names)
        if unknown:
            raise ValueError(f"config.{key} says {sorted(unknown)}; known are {sorted(names)}.")
    temporal = model.get("temporal_encoding_config") or {}
    method = temporal.get("method") or model.get("temporal_encoding_method")
    frames = temporal.get("n_sampled_frames") or model.get("n_sampled_frames")
    streams, use = model.get("modality_fusion"), model.get("use_bottleneck")
    found = {
        "streams": streams and tuple(STREAMS[name] for name in streams),
        "depth": model.get("num_layers"),
        "fusion": None if use is None else "bottleneck" if use else "joint",
        "fusion_layer": model.get("fusion_layer"),
        "bottlenecks_at_test": model.get("test_with_bottlenecks"),
        "shared_encoder": model.get("share_encoder"),
        "pool": POOLS.get(model.get("classifier")),
        "representation": model.get("representation_size") or None,
        "rgb_sampled": frames if method == "temporal_sampling" else None,
        "dropout": model.get("dropout_rate"),
        "attention_dropout": model.get("attention_dropout_rate"),
        "drop_path": model.get("stochastic_droplayer_rate"),
    }
    return {field: value for field, value in found.items() if value is not None}


def _parameters(tree: Mapping) -> dict[str, np.ndarray]:
    """{slash-joined name: array} of the parameters, out of whatever was saved around them."""
    leaves = dict(flatten(tree))
    for wrapper in WRAPPERS:
        inside = {k.removeprefix(wrapper): x for k, x in leaves.items() if k.startswith(wrapper)}
        leaves = inside or leaves
    return {name: np.asarray(x) for name, x in leaves.items()}


def _checkpoint_file(path: Path) -> Path:
    """The file to read: itself, or in a folder `checkpoint`, or the checkpoint_N of most steps."""
    while path.is_dir():
        steps = [p for p in path.glob("checkpoint*") if re.fullmatch(r"checkpoint(_\d+)?", p.name)]
        if not steps:
            raise ValueError(f"{path} is a folder without checkpoint_<step>; name the file itself.")
        path = max(steps, key=lambda p: int(p.name.partition("_")[2] or 0))
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a safetensors, Scenic or npz file.")
    if not 0 < path.stat().st_size <= LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, as no MBT file; get it anew.")
    return path


def _read_foreign(path: Path, head: bytes) -> Mapping:
    """The tree in an npz or a msgpack file; arrays only, nothing that could run."""
    kind = "npz" if head.startswith(b"PK") else "msgpack"
    try:
        if kind == "msgpack":
            return dict(serialization.msgpack_restore(path.read_bytes()))
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # broken bytes break NumPy, zip and msgpack in many ways
        raise ValueError(
            f"{path} is no whole checkpoint (read as {kind}: {error}); give a safetensors file, a "
            "Scenic checkpoint or an npz, or get it anew."
        ) from None


def _load_safetensors(path: Path, overrides: dict) -> tuple[MBTConfig, dict, dict]:
    """(config, params, meta) of a file that `save` wrote."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if metadata.pop("format", None) != "mbt_lite":
            raise ValueError("its metadata is not mbt_lite's")
        meta = {name: json.loads(value) for name, value in metadata.items()}
        config = from_dict(MBTConfig, meta.pop("config"))
        meta["clip"] = meta["clip"] and from_dict(ClipConfig, meta["clip"])
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is no whole safetensors file of mbt_lite ({error}); get it anew, or write it "
            "with `checkpoint.save`."
        ) from None
    config = from_dict(MBTConfig, to_dict(config) | overrides)
    _check_ours(arrays, config, meta["labels"], str(path))
    return config, _nest(arrays), meta


def _nest(arrays: dict) -> dict:
    """Our tree of float32 leaves from flat arrays."""
    leaves = {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}
    return traverse_util.unflatten_dict(leaves, sep="/")


def _leaves(config: MBTConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """{name: shape} of every parameter of the model, without making one."""
    return dict(flatten(jax.eval_shape(partial(init_params, config), jax.random.key(0))))


def _check_ours(arrays: dict, config: MBTConfig, labels: list | None, source: str) -> None:
    wanted = _leaves(config)
    missing, unused = sorted(wanted.keys() - arrays), sorted(arrays.keys() - wanted)
    both = {name: x for name, x in arrays.items() if name in wanted}
    _refuse(source, missing, unused, _misshaped(both, {k: x.shape for k, x in wanted.items()}))
    if labels is not None and len(labels) != config.classes:
        raise ValueError(f"{source}: {len(labels)} labels do not name {config.classes} classes.")


def _misshaped(arrays: dict, shapes: dict) -> list[str]:
    """A phrase for each array that has not the shape it should have, or no real numbers."""
    return [
        f"{name} is {x.dtype} {x.shape}, should be float {tuple(shapes[name])}"
        for name, x in arrays.items()
        if x.shape != tuple(shapes[name]) or not jnp.issubdtype(x.dtype, jnp.floating)
    ]


def _refuse(source: str, missing=(), unused=(), misshaped=()) -> None:
    """One ValueError with all three lists, unless all are empty."""
    lists = {"missing": missing, "unused": unused, "mis-shaped": misshaped}
    found = [f"\n  {what} ({len(x)}): {', '.join(x)}" for what, x in lists.items() if x]
    if found:
        raise ValueError(
            f"{source} does not fit the model{''.join(found)}\n"
            "Every array must find its place; check the config or overrides, or get the file anew."
        )
