"""Map Scenic's MBT to ours: names of arrays, their shapes, and the geometry that follows."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from mbt_lite.config import BASE, MBTConfig, from_dict
from mbt_lite.model.flops import parameter_shapes

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


def scenic_names(name: str, config: MBTConfig) -> list[str]:
    """Names of the Scenic arrays of one of ours: the array itself, or its query, key and value."""
    if name == "spec_cls" and config.streams == ("spec",):
        return ["cls"]  # a single stream has the plain name, whichever it is
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    if "/qkv/" not in name:
        return [name]
    return [name.replace("/qkv/", f"/{part}/") for part in ("query", "key", "value")]


def scenic_shape(name: str, shape: tuple[int, ...], config: MBTConfig) -> tuple[int, ...]:
    """The shape that one of our arrays, or its query, key or value part, has in Scenic."""
    heads = (config.heads, config.width // config.heads)
    if name.endswith("_embedding/kernel"):
        stream = name.split("_")[0]
        flat = stream == "rgb" and config.rgb_sampled
        return (*config.patch(stream)[1 if flat else 0 :], 3, config.width)
    if "/qkv/" in name:
        return (*shape[:-1], *heads)
    return (*heads, config.width) if name.endswith("attention/out/kernel") else shape


def to_ours(
    arrays: dict[str, np.ndarray], config: MBTConfig, source: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (our name, array) from flat Scenic arrays, which are removed from `arrays` one by one.

    One ValueError names all that does not fit.
    """
    ours = parameter_shapes(config)
    parts = {name: scenic_names(name, config) for name in ours}
    shapes = {k: scenic_shape(n, ours[n], config) for n in parts for k in parts[n]}
    check(source, arrays, shapes)
    for name, names in parts.items():
        qkv = [arrays.pop(part) for part in names]
        array = np.stack(qkv, axis=-3) if len(qkv) > 1 else qkv[0]
        yield name, array.reshape(ours[name])


def from_ours(name: str, array: np.ndarray, config: MBTConfig) -> dict[str, np.ndarray]:
    """{Scenic's name: view} of one of our arrays."""
    names = scenic_names(name, config)
    shape = scenic_shape(name, array.shape, config)
    if len(names) == 1:
        return {names[0]: array.reshape(shape)}
    qkv = array.reshape(*array.shape[:-1], len(names), *shape[-2:])  # [D, 3, H, d], or [3, H, d]
    return {part: qkv[..., i, :, :] for i, part in enumerate(names)}


def geometry(arrays: dict, known_fields: dict, source: str) -> tuple[MBTConfig, list[str]]:
    """(config, phrases on what had to be assumed) from the shapes of flat Scenic arrays.

    `known_fields` of `MBTConfig` take precedence.
    """
    assumed = []

    def assume(field: str, value):
        assumed.append(f"{field} (taken: {value!r})")
        return value

    def size(pattern: str, axis: int, default: int | None) -> int | None:
        """The commonest size of this axis among such arrays, so that one bad array is outvoted."""
        shapes = [x.shape for name, x in arrays.items() if re.search(pattern, name)]
        votes = Counter(shape[axis] for shape in shapes if -len(shape) <= axis < len(shape))
        return votes.most_common(1)[0][0] if votes else default

    blocks = re.findall(r"encoderblock_(\d+)(_spectrogram)?/", "\n".join(arrays))
    if not blocks:
        raise ValueError(f"{source} is no MBT: no encoderblock_0 beside {list(arrays)[:3]}.")
    embedded = tuple(s for s in BASE.streams if f"embedding{SUFFIXES[s]}/kernel" in arrays)
    streams = known_fields.get("streams", embedded or BASE.streams)
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
    } | known_fields
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
    """The fields of one stream: its patch, its input shape, its number of sampled frames."""
    names = (f"embedding{SUFFIXES[stream]}/kernel", scenic_names(f"{stream}_positions", BASE)[0])
    refuse(source, [name for name in names if name not in arrays])
    kernel, positions = (arrays[name].shape for name in names)
    rank = (4, 5) if stream == "rgb" else (4,)
    if len(kernel) not in rank or len(positions) != 3 or 0 in kernel:
        raise ValueError(f"{source}: {names[0]} {kernel} with {names[1]} {positions} is no stream.")
    single = stream == "rgb" and len(kernel) == 4  # patches of single frames, sampled in the model
    patch = (1, *kernel[:-2]) if single else kernel[:-2]
    tokens = positions[1] - (fields["pool"] == "token")

    def tokens_per_step(shape):
        """Number of tokens at one position of the first axis, time."""
        return math.prod(n // p for n, p in zip(shape[1:], patch[1:], strict=True))

    shape = fields.get(f"{stream}_shape")
    if shape is None:
        base = BASE.shape(stream)  # only the time is open: 224 x 224 pixels, 128 mels
        per_step = tokens_per_step(base)
        if single or per_step == 0 or tokens % per_step:
            raise ValueError(
                f"{source} leaves open which grid the {tokens} tokens of {stream!r} form; pass "
                f"{stream}_shape=({'frames, height, width' if stream == 'rgb' else 'time, mels'})."
            )
        shape = assume(f"{stream}_shape", (tokens // per_step * patch[0], *base[1:]))
    grid = {f"{stream}_patch": patch, f"{stream}_shape": tuple(shape)}
    if single and "rgb_sampled" not in fields:
        grid["rgb_sampled"] = assume("rgb_sampled", tokens // max(1, tokens_per_step(shape)))
    return grid


def config_fields(model: Mapping) -> dict:
    """{field of MBTConfig: value} that a Scenic `config.model` gives beyond the arrays."""
    for key, names in (("modality_fusion", STREAMS), ("classifier", POOLS)):
        value = model.get(key) or ()
        unknown = set([value] if isinstance(value, str) else value) - set(names)
        if unknown:
            raise ValueError(f"config.{key} says {sorted(unknown)}; known are {sorted(names)}.")
    temporal = model.get("temporal_encoding_config") or {}
    method = temporal.get("method") or model.get("temporal_encoding_method")
    frames = temporal.get("n_sampled_frames") or model.get("n_sampled_frames")
    streams, use = model.get("modality_fusion"), model.get("use_bottleneck")
    fields = {
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
    return {field: value for field, value in fields.items() if value is not None}


def check(source: str, arrays: Mapping, shapes: Mapping[str, Sequence[int]]) -> None:
    """One ValueError unless the arrays are floats of exactly these names and shapes."""
    misshaped = [
        f"{name} is {x.dtype} {x.shape}, should be float {tuple(shapes[name])}"
        for name, x in arrays.items()
        if name in shapes
        if x.shape != tuple(shapes[name]) or not jnp.issubdtype(x.dtype, jnp.floating)
    ]
    refuse(source, sorted(shapes.keys() - arrays), sorted(arrays.keys() - shapes), misshaped)


def refuse(
    source: str, missing: Sequence[str] = (), unused: Sequence[str] = (), misshaped=(), most=40
) -> None:
    """One ValueError with all three lists, unless all are empty."""
    lines = []
    for kind, names in (("missing", missing), ("unused", unused), ("mis-shaped", misshaped)):
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            lines.append(f"\n  {kind} ({len(names)}): {', '.join(names[:most])}{more}")
    if lines:
        raise ValueError(
            f"{source} does not fit the model{''.join(lines)}\n"
            "All arrays must match; check the config or overrides, or get the file anew."
        )
