"""Initialize MBT from an image ViT: copy blocks, inflate patches, resize positions.

The paper (section 4.2) says in one sentence that every model starts from a ViT-B/16 trained on
ImageNet-21k; the code is in Scenic's `mbt/model_utils.py`. `from_vit` names each decision.
"""

import json
import math
import os
import re
from pathlib import Path

import jax
import numpy as np

from mbt_lite.checkpoints import formats, scenic
from mbt_lite.checkpoints.formats import flatten
from mbt_lite.checkpoints.io import nest
from mbt_lite.config import MBTConfig
from mbt_lite.model.flops import parameter_shapes
from mbt_lite.model.mbt import init_params

POSITIONS = "Transformer/posembed_input/pos_embedding"
_ATTENTION = "MultiHeadDotProductAttention_0"
NAMES = (  # Hugging Face's ViTModel, timm's and big_vision's names to Scenic's, each in turn
    (r"^vit\.", ""),
    (r"^(embeddings\.)?cls_token$", "cls"),
    (r"^(embeddings\.position_embeddings|pos_embed|pos_embedding)$", POSITIONS),
    (r"^(embeddings\.patch_embeddings\.projection|patch_embed\.proj)\.", "embedding/"),
    (r"^(encoder\.layer|blocks)\.(\d+)\.", r"Transformer/encoderblock_\2/"),
    (r"/(attention\.output\.dense|attn\.proj)\.", f"/{_ATTENTION}/out/"),
    (r"/(attention\.attention|attn)\.(query|key|value|qkv)\.", rf"/{_ATTENTION}/\2/"),
    (r"/(layernorm_before|norm1)\.", "/LayerNorm_0/"),
    (r"/(layernorm_after|norm2)\.", "/LayerNorm_1/"),
    (r"/(intermediate\.dense|mlp\.fc1)\.", "/MlpBlock_0/Dense_0/"),
    (r"/(output\.dense|mlp\.fc2)\.", "/MlpBlock_0/Dense_1/"),
    (r"^(layernorm|norm)\.", "Transformer/encoder_norm/"),
    (r"((?:LayerNorm_\d|encoder_norm)/)weight$", r"\1scale"),
    (r"/weight$", "/kernel"),
)
_DROPPED = r"(output_projection|pre_logits|head|classifier|pooler)[/.]|(embeddings\.)?mask_token$"
OPTIONS = {
    "inflate": ("central", "average", "arp"),
    "bottleneck": ("positions", "normal"),
    "audio_cls": ("copy", "zeros"),
}


def from_vit(
    source: str | os.PathLike,
    config: MBTConfig,
    *,
    inflate: str = "central",
    bottleneck: str = "positions",
    audio_cls: str = "copy",
    seed: int = 0,
) -> dict:
    """Initialize parameters of `config`, a tree of float32 arrays, from an image ViT.

    `source` is a Scenic or big_vision ViT checkpoint, an npz of vision_transformer, a folder or
    safetensors file of Hugging Face's ViTModel or of a timm ViT, or hf://user/repo. Both streams'
    patches must be as large as the ViT's.

    Always, as in Scenic's code: every stream gets a copy of all blocks, of the patch embedding's
    bias and of the class token; the final norm is copied; the ViT's head is dropped and ours starts
    at zero; `pre_logits` is copied if both have it. The spectrogram has three equal channels, so
    that audio takes the same patch kernel as video. The ViT's grid of positions is resized
    (bilinear, aligned corners) to one frame's grid and repeated over time, for audio to time x mel,
    with the class token's in front. The options are:

    `inflate`, how the patch kernel of one image becomes one of t frames:
        "central": at frame t // 2, zero elsewhere (the released configs);
        "average": divided by t, at each frame (filter inflation, Carreira & Zisserman 2017);
        "arp": weighted by approximate rank pooling over t (Bilen et al. 2018, equation 3): the
        weights sum to zero, so that the patches respond to change only. With t = 1 all are copies.
    `bottleneck`:
        "positions": the class token's position and the grid resized to B - 1 tokens (the code);
        "normal": Gaussian with standard deviation 0.02 (the paper, section 3.2).
    `audio_cls`, the class token of audio if there is video, too:
        "copy": the ViT's, as the code intends;
        "zeros": as the code does, since it looks for a name that no model has.
    `seed` determines the parameters that start fresh.

    A ViT without a class token gives a zero token with a zero position. Scenic's ViTs compute as
    ours do; Hugging Face's and timm's use the exact GELU instead of the tanh form, and Hugging
    Face's a LayerNorm epsilon of 1e-12 instead of 1e-6. Their safetensors do not give the number of
    heads: it is taken from config.json, or else from `config.heads`.

    Raises one ValueError with all sizes that differ, or with all arrays that are missing, unused or
    mis-shaped; OSError if a download fails.
    """
    options = {"inflate": inflate, "bottleneck": bottleneck, "audio_cls": audio_cls}
    for option, value in options.items():
        if value not in OPTIONS[option]:
            raise ValueError(f"{option}={value!r} is none of {', '.join(OPTIONS[option])}.")
    path = formats.find(source)
    vit = _scenic_vit(formats.read(path), _heads_in_config(path) or config.heads, str(path))
    _check_geometry(vit, config, str(path))
    fresh = _fresh(vit, config, bottleneck, audio_cls, seed)
    arrays = _arrays(vit, config, fresh, inflate, str(path))
    return nest(scenic.to_ours(arrays, config, str(path)), str(path))


def _scenic_vit(arrays: dict, heads: int, source: str) -> dict[str, np.ndarray]:
    """{Scenic's name: float array} of a ViT in any of the known naming schemes."""
    torch = any(name.endswith(".weight") for name in arrays)
    vit = {}
    for name, array in arrays.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if not re.match(_DROPPED, name) or name.startswith("pre_logits/"):
            vit |= _from_torch(name, array, heads, source) if torch else {name: array}
    if "embedding/kernel" not in vit:
        raise ValueError(f"{source} is no ViT of a known layout; its arrays: {list(arrays)[:3]}.")
    return vit


def _from_torch(name: str, array: np.ndarray, heads: int, source: str) -> dict[str, np.ndarray]:
    """{Scenic's name: array} of a PyTorch array, which has outputs before inputs."""
    if name == "embedding/kernel":
        return {name: array.transpose(2, 3, 1, 0)}  # [h, w, 3, D]
    array = array.T if name.endswith("/kernel") else array
    if f"/{_ATTENTION}/" not in name or name.endswith("/out/bias"):
        return {name: array}
    if array.shape[0 if "/out/" in name else -1] % heads:
        raise ValueError(f"{source}: {name} {array.shape} does not divide into {heads} heads.")
    if "/out/" in name:
        return {name: array.reshape(heads, -1, array.shape[-1])}
    parts = ("query", "key", "value") if "/qkv/" in name else ("qkv",)
    return {
        name.replace("/qkv/", f"/{part}/"): x.reshape(*x.shape[:-1], heads, -1)
        for part, x in zip(parts, np.split(array, len(parts), axis=-1), strict=True)
    }


def _heads_in_config(path: Path) -> int | None:
    """The number of heads in a config.json beside the weights, None if it is not there."""
    try:
        values = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    heads = values.get("num_attention_heads") if isinstance(values, dict) else None
    return heads if isinstance(heads, int) and heads > 0 else None


def _check_geometry(vit: dict, config: MBTConfig, source: str) -> None:
    """One ValueError with all sizes in which the ViT differs from the model."""
    block = "Transformer/encoderblock_0"
    blocks = {m[1] for name in vit if (m := re.match(r"Transformer/encoderblock_(\d+)/", name))}
    kernel = vit["embedding/kernel"].shape

    def size(name: str) -> int | None:
        shape = vit[name].shape if name in vit else ()
        return shape[1] if len(shape) > 1 else None

    sizes = {"width": (0, *kernel)[-1], "depth": len(blocks)}
    sizes["heads"] = size(f"{block}/{_ATTENTION}/query/kernel")
    sizes["mlp_dim"] = size(f"{block}/MlpBlock_0/Dense_0/kernel")
    pairs = [(name, size, getattr(config, name)) for name, size in sizes.items()]
    pairs += [(f"{s} patch", kernel[:-2], config.patch(s)[-2:]) for s in config.streams]
    wrong = [f"{name} {a} where the model has {b}" for name, a, b in pairs if a != b]
    if wrong:
        raise ValueError(f"{source} is a ViT that does not fit: {', '.join(wrong)}.")


def _fresh(vit: dict, config: MBTConfig, bottleneck: str, audio_cls: str, seed: int) -> dict:
    """{our name: array} of those that the ViT cannot initialize, or shall not."""
    conditions = {
        "head/.*": True,
        "pre_logits/.*": "pre_logits/kernel" not in vit,
        "bottleneck": bottleneck == "normal",
        ".*_cls": "cls" not in vit,
        "spec_cls": audio_cls == "zeros" and "rgb" in config.streams,
    }
    pattern = "|".join(name for name, fresh in conditions.items() if fresh)

    @jax.jit
    def draw(key):
        leaves = flatten(init_params(config, key))
        return {name: leaf for name, leaf in leaves if re.fullmatch(pattern, name)}

    return {name: np.asarray(x) for name, x in draw(jax.random.key(seed)).items()}


def _arrays(
    vit: dict, config: MBTConfig, fresh: dict, inflate: str, source: str
) -> dict[str, np.ndarray]:
    """{Scenic's MBT name: array} from the fresh arrays of ours and from the ViT."""
    names = {name: scenic.scenic_names(name, config) for name in parameter_shapes(config)}
    arrays = {names[name][0]: x for name, x in fresh.items()}
    origins = {x: _origin(x) for name, parts in names.items() if name not in fresh for x in parts}
    missing = sorted(set(origins.values()) - set(vit))
    unused = sorted(set(vit) - set(origins.values()))
    optional = rf"pre_logits/|cls$|{POSITIONS}$"
    scenic.refuse(source, missing, [name for name in unused if not re.match(optional, name)])
    for part, origin in origins.items():
        arrays[part] = vit[origin]
        if origin == POSITIONS:
            arrays[part] = _positions(vit, config, part, source)
        elif part == "embedding/kernel" and not config.rgb_sampled:
            arrays[part] = _inflated(vit[origin], config.rgb_patch[0], inflate)
    return arrays


def _origin(name: str) -> str:
    """The name of the ViT's array that initializes one of Scenic's MBT."""
    if name in ("bottleneck", "clsspectrogram"):
        return {"bottleneck": POSITIONS, "clsspectrogram": "cls"}[name]
    return name.replace("_spectrogram", "")


def _inflated(kernel: np.ndarray, frames: int, how: str) -> np.ndarray:
    """[t, h, w, 3, D] from [h, w, 3, D]."""
    weights = {
        "central": np.arange(frames) == frames // 2,
        "average": np.full(frames, 1 / frames),
        "arp": _rank_pooling(frames) / frames,
    }[how if frames > 1 else "average"]
    return np.multiply.outer(weights, kernel)


def _rank_pooling(frames: int) -> np.ndarray:
    """[T] weights of approximate rank pooling (Bilen et al. 2018, equation 3)."""
    harmonic = np.cumsum([0.0, *(1 / np.arange(1, frames + 1))])  # H_0 .. H_T
    remaining = frames - np.arange(frames)  # T - t + 1 for t = 1 .. T
    return 2 * remaining - (frames + 1) * (harmonic[-1] - harmonic[:-1])


def _positions(vit: dict, config: MBTConfig, part: str, source: str) -> np.ndarray:
    """[1, N, D] position embeddings of a stream, or initial bottleneck tokens [1, B, D]."""
    from scipy import ndimage  # takes a while to import

    table = vit[POSITIONS]  # [1, 1 + side * side, D]
    token = "cls" in vit
    side = math.isqrt(max(table.shape[1] - token, 0)) if table.ndim == 3 else 0
    if table.shape != (1, token + side * side, config.width) or side == 0:
        raise ValueError(f"{source}: positions {table.shape} form no square grid.")
    grid = table[0, token:].reshape(side, side, -1)
    if part == "bottleneck":
        shape, times = _bottleneck_grid(config), 1
    elif part == POSITIONS:
        shape, times = config.rgb_grid[1:], config.rgb_grid[0]
    else:
        shape, times = config.spec_grid, 1
    scale = (shape[0] / side, shape[1] / side, 1)
    # without "nearest", rounding leaves zeros in the last rows
    resized = ndimage.zoom(grid, scale, order=1, mode="nearest")
    patches = np.tile(resized.reshape(-1, config.width), (times, 1))
    front = table[0, :1] if token else np.zeros((1, config.width))
    return np.concatenate([front, patches] if config.pool == "token" else [patches])[None]


def _bottleneck_grid(config: MBTConfig) -> tuple[int, int]:
    """Rows and columns of the bottleneck tokens after the one of the class token's position."""
    count = config.bottlenecks - (config.pool == "token")
    rows = math.isqrt(count)
    columns = count // max(rows, 1)
    if rows * columns != count:
        raise ValueError(
            f"bottlenecks={config.bottlenecks} cannot start from positions: Scenic arranges {count}"
            f" in {rows} equal rows. {rows * columns + config.bottlenecks - count} are possible, "
            "and any number with bottleneck='normal'."
        )
    return rows, columns
