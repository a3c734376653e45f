"""Training losses: cross entropy per clip, and its reduction to one number.

B clips   C classes
"""

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from mbt_lite.model.mbt import Output, mean_of

_TINY = 1e-8  # so that a batch of padding only has a mean


def clip_losses(
    logits: Float[Array, "B C"],
    labels: Num[Array, "B C"],
    kind: str,
    smoothing: ArrayLike = 0.0,
    heads: Mapping | None = None,
) -> Float[Array, " B"]:
    """The loss of each clip [B], in nats; labels may be mixed.

    "sigmoid": binary cross entropy summed over classes, so that the paper's learning rates apply.
    "softmax": one class is true; with `heads` {name: columns} one class of each head, and the loss
    is the mean over heads. Smoothed labels are (1 - smoothing) * label + smoothing / classes, with
    the classes of each head.
    As Scenic's base_models/model_utils.py.
    """
    if kind == "softmax" and heads:
        per_head = [
            clip_losses(logits[:, columns], labels[:, columns], kind, smoothing)
            for columns in heads.values()
        ]
        return sum(per_head) / len(per_head)
    labels = labels * (1 - smoothing) + smoothing / labels.shape[1]
    if kind == "softmax":
        return optax.softmax_cross_entropy(logits, labels)
    return optax.sigmoid_binary_cross_entropy(logits, labels).sum(1)


def batch_losses(
    output: Output,
    labels: Mapping[str, Array],
    kind: str,
    smoothing: ArrayLike = 0.0,
    heads: Mapping | None = None,
    pool: str = "token",
    columns: Mapping | None = None,
) -> dict[str, Float[Array, " B"]]:
    """{"loss": [B], and "loss_rgb", "loss_spec": [B] of each stream's logits and labels}.

    With class tokens the loss is the mean of the streams' losses, not the loss of their mean: each
    stream learns to classify (Scenic's mbt/model.py). With other pooling there is one vector of
    logits, and its labels are the mean of the streams', which differ with modality mixup.
    `columns` {stream: columns} are those that a stream predicts, by default all.
    """
    options, every = (kind, smoothing, heads), slice(None)
    chosen = {s: columns[s] if columns else every for s in output.stream_logits}
    losses = {
        s: clip_losses(x[:, chosen[s]], labels[s][:, chosen[s]], *options)
        for s, x in output.stream_logits.items()
    }
    if pool == "token":
        loss = mean_of(losses)
    else:
        loss = clip_losses(output.logits, mean_of({s: labels[s] for s in losses}), *options)
    return {"loss": loss} | {f"loss_{stream}": value for stream, value in losses.items()}


def weighted_mean(
    values: Float[Array, " B"],
    mask: Num[Array, " B"] | None = None,
    clips: Num[Array, ""] | None = None,
) -> Float[Array, ""]:
    """The mean of the values, weighted by the mask.

    For a part of a batch pass the sum of the whole batch's mask as `clips`: then the results of all
    parts sum to the mean of the whole batch.
    """
    mask = jnp.ones_like(values) if mask is None else mask
    clips = mask.sum() if clips is None else clips
    return (values * mask).sum() / (clips + _TINY)
