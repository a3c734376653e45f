"""Exercises of notebook 03b, the check of a student's MBT, and the data that it learns."""

import ast
from functools import lru_cache, partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from course.exercise import Exercise, Verdict
from mbt_lite.inference import load
from mbt_lite.model import MBT, Clip

TEXT = Path(__file__).resolve().parents[1] / "text" / "03b_build_mbt.py"

# ------------------------------------------------------------------------------- dot and tone

CONTOURS = ("rises", "falls", "arcs", "dips")
QUESTIONS = (*(f"dot {c}" for c in CONTOURS), *(f"tone {c}" for c in CONTOURS), "same contour")


def make_clips(rng: np.random.Generator, count: int) -> tuple[Clip, np.ndarray]:
    """Clips rgb [count, 8, 16, 16, 3], spec [count, 40, 16, 3], and their labels [count, 9].

    In each moves a dot, and a tone is heard. The height of the dot and the pitch of the tone follow
    one of four contours each; in half of the clips it is the same one. Only this last label needs
    both modalities.
    """
    seen = rng.integers(4, size=count)
    heard = (seen + rng.integers(1, 4, count) * rng.integers(2, size=count)) % 4
    time, cell = np.linspace(0, 1, 40), np.arange(16)
    arc = np.sin(np.pi * time)
    curves = 8 * np.stack([time, 1 - time, arc, 1 - arc])  # [4, 40], in cells of 16
    lowest, column = rng.uniform(2.5, 5.5, (2, count, 1)), rng.uniform(3, 13, (count, 1))
    height, pitch = lowest[0] + curves[seen, 2::5], lowest[1] + curves[heard]  # [count, 8 and 40]
    rows = (15 - cell - height[..., None]) ** 2  # [count, 8, 16]
    columns = (cell - column) ** 2  # [count, 16]
    dot = np.exp(-(rows[..., None] + columns[:, None, None]) / 4)  # [count, 8, 16, 16]
    tone = np.exp(-((cell - pitch[..., None]) ** 2) / 2)  # [count, 40, 16]
    noisy = [x + 0.3 * rng.standard_normal(x.shape, np.float32) for x in (dot, tone)]
    rgb, spec = (np.repeat(x[..., None], 3, axis=-1).astype(np.float32) for x in noisy)
    labels = np.concatenate([np.eye(4)[seen], np.eye(4)[heard], (seen == heard)[:, None]], axis=1)
    return Clip(rgb=rgb, spec=spec), labels.astype(np.float32)


# ------------------------------------------------------------------------------ check a module

PARTS = ("attention_norm", "attention/qkv", "attention/out", "mlp_norm", "mlp_in", "mlp_out", "")
MISTAKES = {  # what the mistake is: the line of the notebook's code, and what stands there instead
    "the patches are not transposed: the counts of the grid have to come first": (
        "x.transpose(0, *axes[::2], *axes[1::2], x.ndim - 1)",
        "x",
    ),
    "the CLS token stands behind the patches, and should stand before them": (
        "[jnp.tile(cls, (len(x), 1, 1)), x], axis=1",
        "[x, jnp.tile(cls, (len(x), 1, 1))], axis=1",
    ),
    "the scores are not divided by the square root of the head's width": (
        " / jnp.sqrt(D // self.heads)",
        "",
    ),
    "the scores are divided by the root of the model's width D, not of the head's width D / H": (
        "jnp.sqrt(D // self.heads)",
        "jnp.sqrt(D)",
    ),
    "the softmax runs over the queries; each query's weights over the keys should sum to one": (
        "jax.nn.softmax(scores)",
        "jax.nn.softmax(scores, axis=-2)",
    ),
    "queries and keys have changed places": ("q, k, v = jnp", "k, q, v = jnp"),
    "the heads are split before query, key and value: the order in the matrix is q, k, v": (
        "jnp.moveaxis(qkv, 2, 0)",
        "jnp.moveaxis(qkv.reshape(B, N, self.heads, 3, -1), 3, 0)",
    ),
    "the residual connection around attention is missing": (
        "x = x + Attention",
        "x = Attention",
    ),
    "the residual connection around the MLP is missing": (
        "return x + nn.Dense",
        "return nn.Dense",
    ),
    "the activation of the MLP is a ReLU, and should be a GELU": ("nn.gelu(", "nn.relu("),
    "the activation is the exact GELU; the weights were trained with its tanh form": (
        'name="mlp_in")(y))',
        'name="mlp_in")(y), approximate=False)',
    ),
    "fusion begins one layer late: the layer L_f is the first that fuses": (
        "if layer < c.fusion_layer:",
        "if layer <= c.fusion_layer:",
    ),
    "fusion begins one layer early: the layer L_f is the first that fuses": (
        "if layer < c.fusion_layer:",
        "if layer < c.fusion_layer - 1:",
    ),
    "the head reads the mean over all tokens; it should read the CLS token, `[:, 0]`": (
        "norm(x)[:, 0]",
        "norm(x).mean(axis=1)",
    ),
    "the logits of the modalities are summed, and should be averaged": (" / len(tokens)", ""),
}


def source(fuse: str | None = None) -> str:
    """The code of the notebook's modules, with this code of the function `fuse`."""
    code = TEXT.read_text("utf-8")
    modules = [node for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]
    parts = ["\n".join(code.splitlines()[n.lineno - 1 : n.end_lineno]) for n in modules]
    given = f"{FUSE.given}\nfrom mbt_lite import config"
    return "\n\n\n".join([given, fuse or FUSE.solution, *parts])


def define(code: str, config) -> nn.Module:
    """The `MiniMBT` that a piece of code defines."""
    names: dict = {}
    exec(code, names)
    return names["MiniMBT"](config)


def check_module(module: nn.Module, name: str = "world-tiny") -> Verdict:
    """Load a shipped model's weights into a student's module and name the first layer that differs.

    The module gets a `Clip` and returns logits [B, C]; its parameters have the shipped names.
    """
    clip, config, params, expected = _reference(name)
    try:
        shapes = jax.eval_shape(module.init, jax.random.key(0), clip)["params"]
        words = misfit(shapes, params)
        outputs = {} if words else _outputs(module, params, clip)
    except NotImplementedError:
        return Verdict(False, "a part is not written yet.")
    except Exception as error:  # a learner's error, of whatever kind
        return Verdict(False, f"it stopped with {type(error).__name__}: {error}".rstrip(".") + ".")
    if words:
        return Verdict(False, words)
    for place in places(config):
        if place in outputs and (apart := distance(outputs[place], expected[place])):
            where = f"the first that differs is {place}, {apart}."
            return Verdict(False, f"{where} {_likely(place, outputs[place], name)}".strip())
    apart = np.abs(outputs["logits"][0] - expected["logits"][0]).max()
    number = sum(place in outputs for place in places(config))
    return Verdict(True, f"all of {number} layers agree, the logits within {apart:.0e}.")


def places(config) -> list[str]:
    """Names of the layers with parameters, and of the blocks, in the order in which they run."""
    blocks = [f"{s}_block_{i}" for i in range(config.depth) for s in config.streams]
    inside = [f"{block}/{part}".rstrip("/") for block in blocks for part in PARTS]
    return [*(f"{s}_embedding" for s in config.streams), *inside, "head", "logits"]


def misfit(ours, theirs) -> str:
    """What is missing, unused or of another shape among the parameters, in a sentence or ""."""
    ours, theirs = (
        {jax.tree_util.keystr(k, simple=True, separator="/"): x.shape for k, x in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (ours, theirs))
    )
    lists = {
        "lacks": [name for name in theirs if name not in ours],
        "has besides": [name for name in ours if name not in theirs],
    }
    shapes = [n for n in theirs if n in ours and ours[n] != theirs[n]]
    lists["gives another shape to"] = [f"{n} {ours[n]} instead of {theirs[n]}" for n in shapes]
    said = [f"{verb} {_few(names)}" for verb, names in lists.items() if names]
    return f"the weights do not fit: the module {'; it '.join(said)}." if said else ""


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def distance(ours: list, theirs: list) -> str:
    """How far the outputs of a layer are from the expected ones, in words; "" if they agree."""
    for a, b in zip(ours, theirs, strict=False):
        if a.shape != b.shape:
            return f"with shape {a.shape} instead of {b.shape}"
        if not np.allclose(a, b, rtol=1e-5, atol=2e-5):
            return f"by up to {np.abs(a - b).max():.2g}"
    return ""


@lru_cache
def _reference(name: str) -> tuple:
    """A random clip, the shipped model's configuration and parameters, and its layers' outputs."""
    model = load(name)
    keys = jax.random.split(jax.random.key(1))
    shapes = {s: (1, *model.config.shape(s), 3) for s in ("rgb", "spec")}
    pairs = zip(shapes.items(), keys, strict=True)
    clip = Clip(**{s: jax.random.normal(key, shape) for (s, shape), key in pairs})
    params = jax.tree.map(jnp.asarray, model.params)
    return clip, model.config, params, _outputs(MBT(model.config), params, clip)


def _outputs(module: nn.Module, params, clip: Clip) -> dict[str, list[np.ndarray]]:
    """What each layer gave out while the module ran, by the name of its parameters."""
    run = partial(module.apply, capture_intermediates=True, mutable=["intermediates"])
    logits, state = run({"params": params}, clip)
    captured: dict = {"logits": [np.asarray(getattr(logits, "logits", logits))]}
    for keys, value in jax.tree_util.tree_leaves_with_path(state["intermediates"]):
        names = [key.key for key in keys if hasattr(key, "key")]
        if names[-1] == "__call__" and len(names) > 1:
            captured.setdefault("/".join(names[:-1]), []).append(np.asarray(value))
    return captured


def _likely(place: str, output: list, name: str) -> str:
    """The known mistake that gives this output in this layer, as a sentence, or ""."""
    codes = {words: source().replace(*change) for words, change in MISTAKES.items()}
    codes |= {words: source(code) for words, code in FUSE.mistakes.items()}
    for words, code in codes.items():
        wrong = _of_mistake(code, name).get(place)
        if wrong is not None and not distance(output, wrong):
            return f"It looks as if {words}."
    return ""


@lru_cache(maxsize=64)
def _of_mistake(code: str, name: str) -> dict[str, list[np.ndarray]]:
    clip, config, params, _ = _reference(name)
    try:
        return _outputs(define(code, config), params, clip)
    except Exception:  # this mistake does not run at all
        return {}


# ----------------------------------------------------------------------------------- exercises


def _streams() -> list[tuple]:
    rng = np.random.default_rng(0)
    probes = []
    for audio, video, bottlenecks in ((4, 3, 2), (2, 5, 1)):
        w, u = rng.normal(size=(2, 3, 3))
        blocks = {"spec": _block(w), "rgb": _block(u)}
        tokens = {"spec": rng.normal(size=(2, audio, 3)), "rgb": rng.normal(size=(2, video, 3))}
        for sequential in (False, True):
            probes.append((blocks, tokens, rng.normal(size=(2, bottlenecks, 3)), sequential))
    return probes


def _block(w: np.ndarray):
    """A block in which every token reads all: as attention does, but simple."""

    def block(x):
        return x + jnp.tanh(x @ w + x.sum(1, keepdims=True) * (1 + np.arange(x.shape[2])))

    return block


FUSE = Exercise(
    name="fuse",
    title="The fusion layer",
    level="medium",
    minutes=15,
    task=(
        "Write equations (8) and (9). `blocks` and `tokens` are dictionaries by modality; a block "
        "takes tokens `[B, N, D]` and returns the same shape. Each block runs over its modality's "
        "tokens with the bottleneck tokens `z` `[B, Z, D]` *behind* them. Return the new tokens, "
        "a dictionary, and the new `z`: the mean of the updates. With `sequential=True` there is "
        "no mean: the second modality's block reads the `z` that the first has updated, and its "
        "own update is the new `z`. The model below is built with your function."
    ),
    hint=(
        "`y = blocks[s](jnp.concatenate([x, z], axis=1))`; its first `x.shape[1]` tokens are the "
        "modality's, the rest is its update of the bottleneck. For the sequential form assign that "
        "to `z` within the loop; for the mean collect the updates, and leave `z` alone."
    ),
    start='''
def fuse(blocks, tokens, z, sequential=False):
    """New tokens {modality: [B, N, D]} and bottleneck tokens [B, Z, D] after one fused layer."""
    raise NotImplementedError
''',
    solution='''
def fuse(blocks, tokens, z, sequential=False):
    """New tokens {modality: [B, N, D]} and bottleneck tokens [B, Z, D] after one fused layer."""
    new, updates = {}, []
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, z], axis=1))  # eq. (8)
        new[s] = y[:, : x.shape[1]]
        updates.append(y[:, x.shape[1] :])
        if sequential:
            z = updates[-1]
    return new, z if sequential else sum(updates) / len(updates)  # eq. (9)
''',
    mistakes={
        "the update is always sequential: by default both modalities read the same old `z`": """
def fuse(blocks, tokens, z, sequential=False):
    new = {}
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, z], axis=1))
        new[s], z = y[:, : x.shape[1]], y[:, x.shape[1] :]
    return new, z
""",
        "the second modality reads the updated `z` also where the mean is asked for": """
def fuse(blocks, tokens, z, sequential=False):
    new, updates = {}, []
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, z], axis=1))
        new[s], z = y[:, : x.shape[1]], y[:, x.shape[1] :]
        updates.append(z)
    return new, z if sequential else sum(updates) / len(updates)
""",
        "the update is never sequential: `sequential` is not used": """
def fuse(blocks, tokens, z, sequential=False):
    new, updates = {}, []
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, z], axis=1))
        new[s] = y[:, : x.shape[1]]
        updates.append(y[:, x.shape[1] :])
    return new, sum(updates) / len(updates)
""",
        "the updates are summed, and their mean is asked for": """
def fuse(blocks, tokens, z, sequential=False):
    new, updates = {}, []
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, z], axis=1))
        new[s] = y[:, : x.shape[1]]
        updates.append(y[:, x.shape[1] :])
        if sequential:
            z = updates[-1]
    return new, z if sequential else sum(updates)
""",
        "the new `z` is the last modality's update alone, not the mean": """
def fuse(blocks, tokens, z, sequential=False):
    new, old = {}, z
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, z if sequential else old], axis=1))
        new[s], z = y[:, : x.shape[1]], y[:, x.shape[1] :]
    return new, z
""",
        "the bottleneck tokens stand before the modality's tokens, but are cut off at the end": """
def fuse(blocks, tokens, z, sequential=False):
    new, updates = {}, []
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([z, x], axis=1))
        new[s] = y[:, : x.shape[1]]
        updates.append(y[:, x.shape[1] :])
        if sequential:
            z = updates[-1]
    return new, z if sequential else sum(updates) / len(updates)
""",
        "the bottleneck tokens are still at the end of the new tokens": """
def fuse(blocks, tokens, z, sequential=False):
    new, updates = {}, []
    for s, x in tokens.items():
        new[s] = blocks[s](jnp.concatenate([x, z], axis=1))
        updates.append(new[s][:, x.shape[1] :])
        if sequential:
            z = updates[-1]
    return new, z if sequential else sum(updates) / len(updates)
""",
        "the old `z` is returned, and the updates are lost": """
def fuse(blocks, tokens, z, sequential=False):
    new, old = {}, z
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, z], axis=1))
        new[s] = y[:, : x.shape[1]]
        if sequential:
            z = y[:, x.shape[1] :]
    return new, old
""",
    },
    probes=_streams,
    praise=(
        "with the mean the order of the modalities makes no difference. With the sequential update "
        "it does: the second modality learns of the first within the same layer."
    ),
    given="import flax.linen as nn\nimport jax\nimport jax.numpy as jnp\nimport numpy as np",
)


def _gradients() -> list[tuple]:
    rng = np.random.default_rng(1)
    large = {"head": {"kernel": rng.normal(size=(3, 4)), "bias": 3 * rng.normal(size=4)}}
    small = {"w": 0.01 * rng.normal(size=5), "b": 0.02 * rng.normal(size=2)}
    return [(large, 1.0), (small, 1.0), (large, 2.5)]


CLIP_GRADIENT = Exercise(
    name="clip_gradient",
    title="Clip by the global norm",
    level="easy",
    minutes=10,
    task=(
        "A gradient is a *pytree*: here nested dictionaries of arrays. Its global norm is the root "
        "of the sum of *all* squares in it. If that is larger than `limit`, scale the whole tree "
        "so that it is `limit`; otherwise return it as it is. Write "
        "`optax.clip_by_global_norm(limit)` by hand."
    ),
    hint=(
        "`jax.tree.leaves(tree)` lists the arrays, `jax.tree.map(lambda g: ..., tree)` makes a "
        "tree of the same structure. The factor is `limit / norm`, but never more than 1."
    ),
    start='''
def clip_gradient(gradient, limit):
    """The gradient, a pytree, scaled down so that its global norm is at most `limit`."""
    raise NotImplementedError
''',
    solution='''
def clip_gradient(gradient, limit):
    """The gradient, a pytree, scaled down so that its global norm is at most `limit`."""
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
    return jax.tree.map(lambda g: g * jnp.minimum(1, limit / norm), gradient)
''',
    mistakes={
        "each array is clipped by its own norm; that changes the direction of the whole": """
def clip_gradient(gradient, limit):
    return jax.tree.map(lambda g: g * jnp.minimum(1, limit / jnp.sqrt((g**2).sum())), gradient)
""",
        "a small gradient is scaled up: the factor should never be more than 1": """
def clip_gradient(gradient, limit):
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
    return jax.tree.map(lambda g: g * limit / norm, gradient)
""",
        "single values are clipped, not the norm": """
def clip_gradient(gradient, limit):
    return jax.tree.map(lambda g: jnp.clip(g, -limit, limit), gradient)
""",
        "the root is missing: that is the square of the norm": """
def clip_gradient(gradient, limit):
    norm = sum((g**2).sum() for g in jax.tree.leaves(gradient))
    return jax.tree.map(lambda g: g * jnp.minimum(1, limit / norm), gradient)
""",
        "the norm is a mean over the values, and should be a sum": """
def clip_gradient(gradient, limit):
    leaves = jax.tree.leaves(gradient)
    norm = jnp.sqrt(sum((g**2).sum() for g in leaves) / sum(g.size for g in leaves))
    return jax.tree.map(lambda g: g * jnp.minimum(1, limit / norm), gradient)
""",
        "the norms of the arrays are added; the squares should be, before the root": """
def clip_gradient(gradient, limit):
    norm = sum(jnp.sqrt((g**2).sum()) for g in jax.tree.leaves(gradient))
    return jax.tree.map(lambda g: g * jnp.minimum(1, limit / norm), gradient)
""",
    },
    probes=_gradients,
    praise=(
        "one factor for all arrays: the step gets shorter and keeps its direction. Early in "
        "training, when gradients are large and noisy, this keeps a single batch from undoing all."
    ),
    given="import jax\nimport jax.numpy as jnp",
)


def _reaches() -> list[tuple]:
    return [(4, f, sequential) for f in range(5) for sequential in (False, True)]


VIDEO_KNOWS = Exercise(
    name="video_knows",
    title="When does the video know of the audio?",
    level="easy",
    minutes=10,
    task=(
        "After which layer do the video tokens first depend on the audio? Layers count from 0, the "
        "model has `depth` of them, the audio block runs first. `fusion_layer` is L_f; "
        "`sequential` is how the bottleneck tokens are updated. Return the number of the layer, or "
        "`depth` if they never do."
    ),
    hint=(
        "With the mean, the audio is written into the bottleneck in layer L_f and read in the "
        "next. With the sequential update, who comes second reads it in the same layer."
    ),
    start='''
def video_knows(depth, fusion_layer, sequential):
    """The first layer after which the video tokens depend on the audio; `depth` if none."""
    raise NotImplementedError
''',
    solution='''
def video_knows(depth, fusion_layer, sequential):
    """The first layer after which the video tokens depend on the audio; `depth` if none."""
    return min(depth, fusion_layer if sequential else fusion_layer + 1)
''',
    mistakes={
        "the mean was taken for sequential: a bottleneck is written in one layer, read in the "
        "next": """
def video_knows(depth, fusion_layer, sequential):
    return min(depth, fusion_layer)
""",
        "the sequential update was not used: the second modality reads what the first has just "
        "written": """
def video_knows(depth, fusion_layer, sequential):
    return min(depth, fusion_layer + 1)
""",
        "mean and sequential have changed places": """
def video_knows(depth, fusion_layer, sequential):
    return min(depth, fusion_layer + 1 if sequential else fusion_layer)
""",
        "a layer that the model does not have was returned: at most it is `depth`": """
def video_knows(depth, fusion_layer, sequential):
    return fusion_layer if sequential else fusion_layer + 1
""",
    },
    probes=_reaches,
    praise=(
        "so with the mean and L_f = 3 of 4 layers the model is one of late fusion, and with the "
        "sequential update it is not."
    ),
    given="import numpy as np",
)

EXERCISES = (FUSE, VIDEO_KNOWS, CLIP_GRADIENT)
