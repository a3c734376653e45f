"""Initialize MBT from an image ViT: copy blocks, inflate patches, resize positions.

The paper (section 4.2) starts every model from a ViT-B/16 trained on ImageNet-21k and says so in
one sentence; how, is in Scenic's `mbt/model_utils.py`. `from_vit` names each decision.
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
from mbt_lite.checkpoints.io import leaf_shapes, nest
from mbt_lite.config import MBTConfig
from mbt_lite.model.mbt import init_params

POSITIONS = "Transformer/posembed_input/pos_embedding"
ATTENTION = "MultiHeadDotProductAttention_0"
NAMES = (  # Hugging Face's ViTModel, timm's and big_vision's names to Scenic's, each in turn
    (r"^vit\.", ""),
    (r"^(embeddings\.)?cls_token$", "cls"),
    (r"^(embeddings\.position_embeddings|pos_embed|pos_embedding)$", POSITIONS),
    (r"^(embeddings\.patch_embeddings\.projection|patch_embed\.proj)\.", "embedding/"),
    (r"^(encoder\.layer|blocks)\.(\d+)\.", r"Transformer/encoderblock_\2/"),
    (r"/(attention\.output\.dense|attn\.proj)\.", f"/{ATTENTION}/out/"),
    (r"/(attention\.attention|attn)\.(query|key|value|qkv)\.", rf"/{ATTENTION}/\2/"),
    (r"/(layernorm_before|norm1)\.", "/LayerNorm_0/"),
    (r"/(layernorm_after|norm2)\.", "/LayerNorm_1/"),
    (r"/(intermediate\.dense|mlp\.fc1)\.", "/MlpBlock_0/Dense_0/"),
    (r"/(output\.dense|mlp\.fc2)\.", "/MlpBlock_0/Dense_1/"),
    (r"^(layernorm|norm)\.", "Transformer/encoder_norm/"),
    (r"((?:LayerNorm_\d|encoder_norm)/)weight$", r"\1scale"),
    (r"/weight$", "/kernel"),
)
DROPPED = r"(output_projection|pre_logits|head|classifier|pooler)[/.]|(embeddings\.)?mask_token$"
OPTIONS = {
    "inflate": ("central", "average", "arp"),
    "positions": ("resize_tile", "fresh"),
    "bottleneck": ("positions", "normal"),
    "audio_cls": ("copy", "zeros"),
}


def from_vit(
    source: str | os.PathLike,
    config: MBTConfig,
    *,
    inflate: str = "central",
    positions: str = "resize_tile",
    bottleneck: str = "positions",
    audio_cls: str = "copy",
    seed: int = 0,
) -> dict:
    """Initialize parameters of `config`, a tree of float32 arrays, from an image ViT.

    `source` is a Scenic or big_vision ViT checkpoint, an npz of vision_transformer, a folder or
    safetensors file of Hugging Face's ViTModel or of a timm ViT, or hf://user/repo. Both streams'
    patches must be as large as the ViT's.

    Always, as Scenic's code: every stream gets a copy of all blocks, of the patch embedding's bias
    and of the class token; the final norm is copied; the ViT's head is left behind and ours starts
    at zero; `pre_logits` is copied if both have it. The audio reads three equal channels, so that
    its patch kernel is the video's. The rest is open:

    `inflate`, from a patch kernel of one image to one of t frames:
        "central": at frame t // 2, zero elsewhere (the released configs);
        "average": divided by t, at each (filter inflation, Carreira & Zisserman 2017);
        "arp": weighted by approximate rank pooling over t (Bilen et al. 2018, equation 3): the
        weights sum to zero, so that the patches see change only. With t = 1 all are copies.
    `positions`:
        "resize_tile": the ViT's grid, bilinear between its corners, resized to one frame's grid and
        repeated over time; to time x mel for the audio; the class token's in front (the code);
        "fresh": our own initialisation.
    `bottleneck`:
        "positions": the class token's position and the grid resized to B places (the code);
        "normal": Gaussian with standard deviation 0.02 (the paper, section 3.2).
    `audio_cls`, the class token of the audio beside the video:
        "copy": the ViT's, as the code means to;
        "zeros": as the code does, since it asks for a name that no model has.
    What starts fresh depends on `seed`.

    A ViT without class token gives a zero one with a zero position. Scenic's ViTs compute as ours
    do; Hugging Face's and timm's have the exact GELU for our tanh form, and Hugging Face's a
    LayerNorm epsilon of 1e-12 for our 1e-6. Their safetensors do not say how many heads they have:
    without a config.json that does, `config.heads` is believed.

    ValueError for what does not fit: all sizes at once, or all lost, unknown and mis-shaped arrays.
    OSError if a download fails.
    """
    chosen = {"inflate": inflate, "positions": positions}
    chosen |= {"bottleneck": bottleneck, "audio_cls": audio_cls}
    for option, value in chosen.items():
        if value not in OPTIONS[option]:
            raise ValueError(f"{option}={value!r} is none of {', '.join(OPTIONS[option])}.")
    path = formats.find(source)
    vit = _scenic_vit(formats.read(path), _heads_said(path) or config.heads, str(path))
    _check_geometry(vit, config, str(path))
    start = _fresh(config, _starts_fresh(vit, config, chosen), seed)
    arrays = _arrays(vit, config, start, inflate, str(path))
    return nest(scenic.to_ours(arrays, config, leaf_shapes(config), str(path)), str(path))


def resize(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize [H, W, D] to [h, w, D] bilinearly with aligned corners.

    It is scipy.ndimage.zoom(order=1) without that one's zeros, by rounding, in some last rows.
    """
    for axis, count in enumerate(shape):
        places = np.linspace(0, grid.shape[axis] - 1, count)
        before = np.minimum(places.astype(int), max(grid.shape[axis] - 2, 0))
        share = np.expand_dims(places - before, [i for i in range(grid.ndim) if i != axis])
        after = np.minimum(before + 1, grid.shape[axis] - 1)
        grid = grid.take(before, axis) * (1 - share) + grid.take(after, axis) * share
    return grid


def rank_pooling(frames: int) -> np.ndarray:
    """[T] weights of approximate rank pooling (Bilen et al. 2018, equation 3)."""
    harmonic = np.cumsum([0.0, *(1 / np.arange(1, frames + 1))])  # H_0 .. H_T
    left = frames - np.arange(frames)  # T - t + 1 for t = 1 .. T
    return 2 * left - (frames + 1) * (harmonic[-1] - harmonic[:-1])


def _scenic_vit(arrays: dict, heads: int, source: str) -> dict[str, np.ndarray]:
    """{Scenic's name: float array} of a ViT in anybody's names."""
    torch = any(name.endswith(".weight") for name in arrays)
    vit = {}
    for name, array in arrays.items():
        for theirs, scenics in NAMES:
            name = re.sub(theirs, scenics, name)
        if not re.match(DROPPED, name) or name.startswith("pre_logits/"):
            vit |= _from_torch(name, array, heads, source) if torch else {name: array}
    if "embedding/kernel" not in vit:
        raise ValueError(f"{source} is no ViT that is known here; its arrays: {list(arrays)[:3]}.")
    return vit


def _from_torch(name: str, array: np.ndarray, heads: int, source: str) -> dict[str, np.ndarray]:
    """{Scenic's name: array} of one of PyTorch's, which puts outputs before inputs."""
    if name == "embedding/kernel":
        return {name: array.transpose(2, 3, 1, 0)}  # [h, w, 3, D]
    array = array.T if name.endswith("/kernel") else array
    if f"/{ATTENTION}/" not in name or name.endswith("/out/bias"):
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


def _heads_said(path: Path) -> int | None:
    """How many heads a config.json beside the weights gives them."""
    try:
        said = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    heads = said.get("num_attention_heads") if isinstance(said, dict) else None
    return heads if isinstance(heads, int) and heads > 0 else None


def _check_geometry(vit: dict, config: MBTConfig, source: str) -> None:
    """One ValueError with all sizes in which the ViT differs from the model."""
    blocks = {m[1] for name in vit if (m := re.match(r"Transformer/encoderblock_(\d+)/", name))}
    kernel = vit["embedding/kernel"].shape
    query = vit.get(f"Transformer/encoderblock_0/{ATTENTION}/query/kernel", np.zeros(0)).shape
    dense = vit.get("Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel", np.zeros(0)).shape
    found = {"width": kernel[-1], "depth": len(blocks), "heads": query[1:2], "mlp_dim": dense[1:]}
    found = {k: x[0] if isinstance(x, tuple) and x else x for k, x in found.items()}
    pairs = [(k, x, getattr(config, k)) for k, x in found.items()]
    pairs += [(f"{s} patch", kernel[:-2], config.patch(s)[-2:]) for s in config.streams]
    wrong = [f"{what} {x} where the model has {want}" for what, x, want in pairs if x != want]
    if wrong:
        raise ValueError(f"{source} is a ViT that does not fit: {', '.join(wrong)}.")


def _starts_fresh(vit: dict, config: MBTConfig, chosen: dict) -> str:
    """A pattern of our arrays that have nothing to start from, or shall not."""
    fresh = ["head/.*"]
    if "pre_logits/kernel" not in vit:
        fresh.append("pre_logits/.*")
    if chosen["positions"] == "fresh":
        fresh.append(".*_positions")
    if chosen["bottleneck"] == "normal":
        fresh.append("bottleneck")
    if "cls" not in vit:
        fresh.append(".*_cls")
    if chosen["audio_cls"] == "zeros" and "rgb" in config.streams:
        fresh.append("spec_cls")
    return "|".join(fresh)


def _fresh(config: MBTConfig, pattern: str, seed: int) -> dict[str, np.ndarray]:
    """{our name: array} of those that match, as `init_params` draws them; no others are made."""

    @jax.jit
    def draw(key):
        leaves = flatten(init_params(config, key))
        return {name: leaf for name, leaf in leaves if re.fullmatch(pattern, name)}

    return {name: np.asarray(x) for name, x in draw(jax.random.key(seed)).items()}


def _arrays(
    vit: dict, config: MBTConfig, start: dict, inflate: str, source: str
) -> dict[str, np.ndarray]:
    """{Scenic's MBT name: array}: what starts fresh, and what is made of the ViT."""
    names = {name: scenic.scenic_names(name, config) for name in leaf_shapes(config)}
    arrays = {names[name][0]: x for name, x in start.items()}
    origins = {x: _origin(x) for name, parts in names.items() if name not in start for x in parts}
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
    """The array of a ViT that one of Scenic's MBT starts from."""
    if name in ("bottleneck", "clsspectrogram"):
        return {"bottleneck": POSITIONS, "clsspectrogram": "cls"}[name]
    return name.replace("_spectrogram", "")


def _inflated(kernel: np.ndarray, frames: int, how: str) -> np.ndarray:
    """[t, h, w, 3, D] from [h, w, 3, D]."""
    weights = {
        "central": np.arange(frames) == frames // 2,
        "average": np.full(frames, 1 / frames),
        "arp": rank_pooling(frames) / frames,
    }[how if frames > 1 else "average"]
    return np.multiply.outer(weights, kernel)


def _positions(vit: dict, config: MBTConfig, part: str, source: str) -> np.ndarray:
    """[1, N, D] for the tokens of a stream, or for the bottleneck."""
    table = vit[POSITIONS]  # [1, 1 + side * side, D]
    token = "cls" in vit
    side = math.isqrt(max(table.shape[1] - token, 0)) if table.ndim == 3 else 0
    if table.shape != (1, token + side * side, config.width) or side == 0:
        raise ValueError(f"{source}: positions {table.shape} are those of no square grid.")
    grid = table[0, token:].reshape(side, side, -1)
    if part == "bottleneck":
        shape, times = _bottleneck_grid(config), 1
    elif part == POSITIONS:
        shape, times = config.rgb_grid[1:], config.rgb_grid[0]
    else:
        shape, times = config.spec_grid, 1
    patches = np.tile(resize(grid, shape).reshape(-1, config.width), (times, 1))
    front = table[0, :1] if token else np.zeros((1, config.width))
    return np.concatenate([front, patches] if config.pool == "token" else [patches])[None]


def _bottleneck_grid(config: MBTConfig) -> tuple[int, int]:
    """Rows and columns of the bottlenecks beside the one that takes the class token's position."""
    token = config.pool == "token"

    def cut(count: int) -> tuple[int, int]:
        rows = math.isqrt(count)
        return rows, count // max(rows, 1)

    def works(count: int) -> bool:
        return math.prod(cut(count - token)) == count - token

    if not works(config.bottlenecks):
        near = [n for n in range(1, config.bottlenecks + 4) if works(n)][-4:]
        raise ValueError(
            f"bottlenecks={config.bottlenecks} cannot start from positions: Scenic cuts them into "
            f"int(sqrt(n)) rows{' after the first' * token}. {', '.join(map(str, near))} would do, "
            "and any number with bottleneck='normal'."
        )
    return cut(config.bottlenecks - token)
