"""Training losses: cross entropy per clip, and its reduction to one number.

B clips   C classes
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Num

from mbt_lite.model.mbt import Output, mean_of

TINY = 1e-8  # so that a batch of nothing but padding has a mean


def clip_losses(
    logits: Float[Array, "B C"],
    labels: Num[Array, "B C"],
    kind: str,
    smoothing: float = 0.0,
    heads: Mapping | None = None,
) -> Float[Array, " B"]:
    """The loss of each clip [B], in nats; labels may be mixed.

    "sigmoid": cross entropy of each class by itself, summed over classes, so that a learning rate
    of the paper means what it meant there. "softmax": one class is true; with `heads`, columns by
    name, one of each head, and the mean over the heads. Smoothed labels are
    (1 - smoothing) * label + smoothing / classes, of each head's own classes, with either kind.
    As Scenic's base_models/model_utils.py.
    """
    if kind == "softmax" and heads:
        each = [
            clip_losses(logits[:, columns], labels[:, columns], kind, smoothing)
            for columns in heads.values()
        ]
        return sum(each) / len(each)
    labels = labels * (1 - smoothing) + smoothing / labels.shape[1]
    if kind == "softmax":
        return optax.softmax_cross_entropy(logits, labels)
    return optax.sigmoid_binary_cross_entropy(logits, labels).sum(1)


def stream_losses(
    output: Output,
    labels: Mapping[str, Array],
    kind: str,
    smoothing: float = 0.0,
    heads: Mapping | None = None,
) -> dict[str, Float[Array, " B"]]:
    """{stream: [B]}: each stream's own logits against its own labels, which mixup can part."""
    return {
        stream: clip_losses(logits, labels[stream], kind, smoothing, heads)
        for stream, logits in output.stream_logits.items()
    }


def total_loss(
    output: Output,
    labels: Mapping[str, Array],
    kind: str,
    smoothing: float = 0.0,
    heads: Mapping | None = None,
    pool: str = "token",
) -> Float[Array, " B"]:
    """The loss [B] that is trained on.

    By class token the mean of the streams' losses, not the loss of their mean: each stream learns
    to answer (Scenic's mbt/model.py). Pooled otherwise there is one answer, whose labels are the
    mean of the streams'.
    """
    told = (kind, smoothing, heads)
    if pool == "token":
        return mean_of(stream_losses(output, labels, *told))
    together = mean_of({stream: labels[stream] for stream in output.stream_logits})
    return clip_losses(output.logits, together, *told)


def weighted_mean(
    values: Float[Array, " B"],
    mask: Num[Array, " B"] | None = None,
    clips: Num[Array, ""] | None = None,
) -> Float[Array, ""]:
    """The mean of the values by their weights in the mask; without one, of all.

    Of a part of a batch, `clips` is the sum of the whole batch's mask: what the parts give so adds
    up to the mean of the whole.
    """
    mask = jnp.ones_like(values) if mask is None else mask
    clips = mask.sum() if clips is None else clips
    return (values * mask).sum() / (clips + TINY)


def l2_penalty(params) -> Float[Array, ""]:
    """Half the sum of squares of all that Scenic keeps in two axes or more.

    That is every matrix, with class tokens, positions and bottlenecks, and the biases of queries,
    keys and values, one row per head there.
    """
    squares = jax.tree_util.tree_map_with_path(_square, params)
    return sum(jax.tree.leaves(squares), jnp.zeros(())) / 2


def _square(path, leaf: Array) -> Array:
    of_heads = jax.tree_util.keystr(path, simple=True, separator="/").endswith("qkv/bias")
    return (leaf**2).sum() if leaf.ndim > 1 or of_heads else jnp.zeros(())
