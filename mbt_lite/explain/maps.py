"""Importance maps: how much an answer depends on each patch of video and audio.

Five `METHODS`, from the attention of the bottleneck to the effect of hiding a patch. They need not
agree; `faithfulness` measures which of them can be trusted.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mbt_lite import features
from mbt_lite.config import MBTConfig, sampled_frames
from mbt_lite.explain.blocks import back, first_rows, gradient_maps, mean_maps, token_counts
from mbt_lite.inference import Classifier
from mbt_lite.model.mbt import MBT, Clip, Tokens
from mbt_lite.model.observe import attention_rows
from mbt_lite.progress import Progress, silent

Grids = dict[str, Array]  # {stream: [B, *grid]}
AT_ONCE = 2**26  # attention weights of one layer that may be in memory together: 256 MiB
COPIES = 4.4  # of all attention weights that a gradient map needs on a CPU, as XLA plans it
MOST_PATCHES = 512  # with more, occlusion hides windows of neighboring patches, about 50 a stream


@dataclass(frozen=True)
class Saliency:
    """Importance of each patch by one method, on the grids of the two streams.

    The unit depends on the method: shares of attention (never negative), attention times gradient,
    or the drop of the label's logit. A stream that the model or the clip does not have is None.
    """

    method: str
    label: str | None  # whose logit is explained; None for methods without a label
    rgb: np.ndarray | None  # [t, y, x]
    spec: np.ndarray | None  # [time, mel]

    @property
    def title(self) -> str:
        """The method and the label that it explains, such as "occlusion for “ring sings”"."""
        return self.method if self.label is None else f"{self.method} for “{self.label}”"


def saliency(
    classifier: Classifier,
    clip,
    method: str,
    label: str | None = None,
    progress: Progress = silent,
) -> Saliency:
    """Compute importance by one of `METHODS` for a label, by default the most probable.

    Attention, rollout and flow have no label. Occlusion of more than 512 patches hides about 50
    windows of neighbors per stream; `progress` reports each.
    """
    if method not in METHODS:
        raise ValueError(f"there is no map {method!r}; choose from {', '.join(METHODS)}.")
    batch = batched(classifier, clip)
    label = (label or best_label(classifier, clip)) if method in EXPLAIN_A_LABEL else None
    index = 0 if label is None else label_index(classifier.labels, label)
    maps = METHODS[method](classifier, batch, jnp.array([index]), progress)
    arrays = {s: np.asarray(values[0]) for s, values in maps.items()}
    return Saliency(method, label, arrays.get("rgb"), arrays.get("spec"))


def batched(classifier: Classifier, clip) -> Clip:
    """Return a file's middle, a `View` or a `Clip` as a batch of one, model streams only."""
    if not isinstance(clip, Clip | features.View):
        clip = features.read_views(clip, classifier.clip_config)[0]
    clip = clip if isinstance(clip, Clip) else clip.clip
    arrays = {s: getattr(clip, s) for s in classifier.config.streams}
    return Clip(**{s: jnp.asarray(x)[None] for s, x in arrays.items() if x is not None})


def label_index(labels: Sequence[str], label: str) -> int:
    """Return the column of a label; raise ValueError with close matches if it is unknown."""
    if label in labels:
        return labels.index(label)
    close = [name for name in labels if label.lower() in name.lower()]
    names = ", ".join((close or list(labels))[:8])
    raise ValueError(f"the model has no label {label!r}; it has {names} ...")


def best_label(classifier: Classifier, clip) -> str:
    """Return the most probable label of a clip as `batched` takes it."""
    return classifier.labels[int(classifier.logits(batched(classifier, clip))[0].argmax())]


@partial(jax.jit, static_argnames=("config", "query"))
def rollout_maps(config, params, clips: Clip, query: str | None = None) -> Grids:
    """{stream: [B, *grid]}: attention rollout from one stream's class token, or the mean of all.

    In every layer half of a token comes from the residual and half from attention, averaged over
    the heads; the row of a bottleneck token is the mean of its rows in the two streams (paper,
    figure 6; Abnar and Zuidema, 2020).
    """
    _, layers = mean_maps(config, params, clips)
    rows = first_rows(config, token_counts(config, clips))
    if query:
        rows = {query: rows[query] / rows[query].sum()}
    for layer in reversed(layers):
        rows = back(rows, layer)
    return _on_grids(config, rows)


@partial(jax.jit, static_argnames="config")
def _relevance_maps(config, params, clips: Clip, labels: Array) -> Grids:
    """{stream: [B, *grid]}: rollout of attention x gradient, with the residual counted fully."""
    rows = first_rows(config, token_counts(config, clips))
    for layer in reversed(gradient_maps(config, params, clips, labels)):
        rows = back(rows, layer, keep=1.0, read=1.0)
    return _on_grids(config, rows)


def _on_grids(config: MBTConfig, rows: dict[str, Array]) -> Grids:
    """{stream: [B, *grid]} of rows [B, 1, N] over the stream's tokens; class tokens left out."""
    first = int(config.pool == "token")
    return {
        s: rows[s][:, 0, first:].reshape(-1, *config.grid(s)) for s in config.streams if s in rows
    }


@partial(jax.jit, static_argnames="config")
def _crossing_maps(config, params, clips: Clip) -> Grids:
    """{stream: [B, *grid]}: rollout into each stream from the class tokens of the others only.

    All of it has passed through the bottleneck, so this is the flow of `explain.flow`.
    """
    streams = token_counts(config, clips)
    maps = {s: rollout_maps(config, params, clips, query=s) for s in streams}
    others = {s: next((maps[query] for query in streams if query != s), {}) for s in streams}
    return {s: others[s].get(s, jnp.zeros_like(maps[s][s])) for s in streams}


def _bottleneck_maps(config, params, clips: Clip) -> Grids:
    """{stream: [B, *grid]}: mean attention of the bottleneck, else of class tokens or patches."""
    fused = config.fusion == "bottleneck" and config.fuses(config.depth - 1, training=False)
    query = "bottleneck" if fused else "cls" if config.pool == "token" else "mean"
    _, rows = attention_rows(MBT(config), params, clips, query)
    return {s: x.mean((1, 2, 3)).reshape(-1, *config.grid(s)) for s, x in rows.items()}


def _occlusion_maps(
    classifier: Classifier, clips: Clip, labels: Array, progress: Progress = silent
) -> Grids:
    """{stream: [B, *grid]}: the drop of each clip's logit of its label when a patch is hidden.

    It is replaced by the clip's mean. Where single patches would be too many, windows of neighbors
    are hidden together, and each gets the same value.
    """
    config, params, maps = classifier.config, classifier.params, {}
    prefix = classifier.prefix(clips)
    full = _logit(config, params, prefix, labels)
    for s, size in window_sizes(config, token_counts(config, clips)).items():
        windows = _windows(config.grid(s), size)
        drops = np.zeros((len(windows), len(labels)))
        for part in parts(config, len(windows), len(labels)):
            progress(part.start / len(windows), desc=f"{s} without window {part.start + 1}")
            hidden, stream = jnp.asarray(windows[part]), Clip(**{s: getattr(clips, s)})
            drops[part] = full - _hidden_logits(config, params, stream, prefix, labels, hidden)
        maps[s] = jnp.asarray(np.einsum("w...,wb->b...", windows, drops))
    return maps


def _windows(grid: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Masks [W, *grid] that tile a grid with windows of this many cells, cut off at the end."""
    counts = [-(-n // side) for n, side in zip(grid, size, strict=True)]
    indices = [np.arange(n) // side for n, side in zip(grid, size, strict=True)]
    number = np.ravel_multi_index(np.meshgrid(*indices, indexing="ij"), counts)  # [*grid]
    return number == np.arange(np.prod(counts)).reshape(-1, *[1] * len(grid))


def window_sizes(config: MBTConfig, streams: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The cells {stream: cells along each axis} that occlusion hides together.

    It is one, or of more than `MOST_PATCHES` about 7 x 7 windows for each stream; those of the
    video cover all frames.
    """
    grids = {s: config.grid(s) for s in streams}
    if sum(map(math.prod, grids.values())) <= MOST_PATCHES:
        return {s: (1,) * len(grid) for s, grid in grids.items()}
    return {s: (*grid[:-2], *[-(-n // 7) for n in grid[-2:]]) for s, grid in grids.items()}


def parts(config: MBTConfig, count: int, clips: int) -> list[slice]:
    """Cut `count` forward passes of so many clips into slices that fit into memory."""
    longest = max(config.patches(s) for s in config.streams) + config.bottlenecks + 1
    step = max(1, AT_ONCE // (config.heads * longest**2 * clips))
    return [slice(start, start + step) for start in range(0, count, step)]


@partial(jax.jit, static_argnames="config")
def _logit(config, params, prefix: Tokens, labels: Array) -> Array:
    """[B] logits of one label per clip."""
    logits = MBT(config).apply({"params": params}, prefix).logits
    return logits[jnp.arange(len(labels)), labels]


@partial(jax.jit, static_argnames="config")
def _hidden_logits(
    config, params, clips: Clip, prefix: Tokens, labels: Array, windows: Array
) -> Array:
    """[W, B] logits with each window bool [W, *grid] hidden in the only stream of the clips.

    The prefix of all streams of the untouched clips is given; only that stream's is run again.
    """
    stream = next(s for s in config.streams if getattr(clips, s) is not None)

    def logit(window):
        cells = jnp.broadcast_to(window, (len(labels), *window.shape))
        clip = hide(config, clips, {stream: cells})
        tokens = MBT(config).apply({"params": params}, clip, prefix=True)
        tokens = prefix._replace(**{stream: getattr(tokens, stream)})
        return _logit(config, params, tokens, labels)

    return jax.vmap(logit)(windows)


def hide(config: MBTConfig, clips: Clip, cells: Grids) -> Clip:
    """Replace cells of the grid {stream: bool [B, *grid]} by the mean of the clip.

    The mean of the video is one color, that of the audio one spectrum.
    """
    hidden = {}
    for s, mask in cells.items():
        x = getattr(clips, s)
        mean = x.mean((1, 2, 3) if s == "rgb" else 1, keepdims=True)
        hidden[s] = jnp.where(_pixels(config, s, mask, x.shape[1:-1])[..., None], mean, x)
    return clips._replace(**hidden)


def _pixels(config: MBTConfig, stream: str, cells: Array, shape: Sequence[int]) -> Array:
    """Expand a mask over the grid to pixels [B, *shape]; False where there is no patch."""
    for axis, side in enumerate(config.patch(stream), 1):
        cells = jnp.repeat(cells, side, axis)
    if stream == "rgb" and config.rgb_sampled:
        frames = sampled_frames(shape[0], config.rgb_sampled)
        cells = jnp.zeros((len(cells), shape[0], *cells.shape[2:]), bool).at[:, frames].max(cells)
    padding = [(0, n - size) for n, size in zip(shape, cells.shape[1:], strict=True)]
    return jnp.pad(cells, [(0, 0), *padding])


def _memory() -> float:
    """Bytes of memory in this machine; infinite if the system does not say."""
    if not hasattr(os, "sysconf"):  # Windows
        return float("inf")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gradient_maps(classifier: Classifier, clips: Clip, labels: Array, _=silent) -> Grids:
    """`_relevance_maps`; raises ValueError on a machine without the memory for them."""
    config = classifier.config
    weights = config.heads * sum(n**2 for n in token_counts(config, clips).values())
    needed = COPIES * 4 * config.depth * len(labels) * weights  # bytes
    if jax.default_backend() == "cpu" and needed > _memory():
        raise ValueError(
            f"a gradient map of this model needs about {needed / 1e9:.0f} GB of memory, more than "
            "this machine has; choose occlusion or rollout."
        )
    return _relevance_maps(config, classifier.params, clips, labels)


METHODS: dict[str, Callable[..., Grids]] = {  # of a classifier, clips, labels and a `Progress`
    "attention": lambda c, clips, *_: _bottleneck_maps(c.config, c.params, clips),
    "rollout": lambda c, clips, *_: rollout_maps(c.config, c.params, clips),
    "gradient": _gradient_maps,
    "flow": lambda c, clips, *_: _crossing_maps(c.config, c.params, clips),
    "occlusion": _occlusion_maps,
}
EXPLAIN_A_LABEL = ("gradient", "occlusion")
