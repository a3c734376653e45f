"""Intervene on the bottleneck: knock out edges; zero, freeze or patch bottleneck tokens.

Each intervention is converted to a few small arrays (`Edits`), so that one compiled forward pass
serves all of them and many run side by side.

K interventions   L fused layers   R streams   Z bottleneck tokens   D width
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mbt_lite.config import MODALITIES, MBTConfig
from mbt_lite.explain.maps import batched, label_index, parts
from mbt_lite.inference import Classifier
from mbt_lite.model.mbt import MBT, Clip, Output, Tokens
from mbt_lite.model.observe import apply_with_hooks
from mbt_lite.progress import Progress, compiling, silent

KINDS = {  # of interventions: what is done to a bottleneck token, in words
    "zero": "set to zero",
    "freeze": "frozen",
    "patch": "taken from the other clip",
    "knockout": "cut",
}


class Edits(NamedTuple):
    """Changes in each fused layer, as arrays; where the booleans are False nothing changes."""

    no_write: np.ndarray  # bool [L, R, Z]: the bottleneck token does not attend to the stream
    no_read: np.ndarray  # bool [L, R, Z]: the stream does not attend to the bottleneck token
    own_update: np.ndarray  # bool [L, R]: the stream goes on with its own update, not the mean
    freeze: np.ndarray  # bool [L, Z]: the bottleneck token is not updated
    overwrite: np.ndarray  # bool [L, Z]: the updated bottleneck token is replaced by `values`
    values: np.ndarray  # [L, Z, D]


@dataclass(frozen=True)
class Intervention:
    """One change of the bottleneck; a layer or token of None means all of them.

    After the layer, "zero" sets a bottleneck token to zero (zero ablation), "freeze" undoes its
    update, and "patch" replaces it with that of another clip. "knockout" withholds the other
    stream's update from the stream `reader`, which then goes on with its own update only.
    """

    kind: str
    layer: int | None = None
    token: int | None = None
    reader: str | None = None

    def __post_init__(self):
        if self.kind not in KINDS or (self.kind == "knockout") != (self.reader is not None):
            raise ValueError(
                f"{self}: a kind is one of {', '.join(KINDS)}; only a knockout has a reader."
            )

    @property
    def words(self) -> str:
        """Describe the intervention, such as "bottleneck token 2 frozen after layer 1"."""
        where = "after every layer" if self.layer is None else f"after layer {self.layer}"
        if self.kind == "knockout":
            writer = next(s for s in MODALITIES if s != self.reader)
            changed = f"{MODALITIES[writer]}→{MODALITIES[self.reader]}"
        elif self.token is None:
            changed = "all bottleneck tokens"
        else:
            changed = f"bottleneck token {self.token}"
        return f"{changed} {KINDS[self.kind]} {where}"


@dataclass(frozen=True)
class Effects:
    """Logits of a clip with and without each intervention."""

    labels: tuple[str, ...]
    logits: np.ndarray  # [C], without intervention
    operations: tuple[Intervention, ...]
    operated: np.ndarray  # [K, C], logits under each intervention

    def changes(self, label: str) -> np.ndarray:
        """A label's logit [K] under each intervention minus the logit without."""
        return (self.operated - self.logits)[:, label_index(self.labels, label)]

    def table(self, label: str) -> str:
        """List each intervention and its effect on a label's logit, strongest first."""
        changes = self.changes(label)
        order = np.argsort(-np.abs(changes), kind="stable")
        return "\n".join(f"{changes[i]:+8.2f}  {self.operations[i].words}" for i in order)


def fused_layers(config: MBTConfig) -> tuple[int, ...]:
    """Return the layers that exchange bottleneck tokens; raise ValueError if there are none."""
    layers = tuple(i for i in range(config.depth) if config.fuses(i, training=False))
    if config.fusion != "bottleneck" or not layers:
        raise ValueError("this model has no bottleneck between audio and video.")
    return layers


def _default_interventions(config: MBTConfig, kinds: Sequence[str]) -> tuple[Intervention, ...]:
    """All knockouts, and each kind on each bottleneck token after each layer that is still read."""
    layers, tokens = fused_layers(config)[:-1], range(config.bottlenecks)
    readers = reversed(config.streams)
    cuts = [Intervention("knockout", i, reader=s) for s in readers for i in (*layers, None)]
    return (*cuts, *(Intervention(kind, i, k) for kind in kinds for i in layers for k in tokens))


def intervene(
    classifier: Classifier,
    clip,
    operations: Sequence[Intervention] | None = None,
    other=None,
) -> Effects:
    """Measure how interventions change the logits of a file's middle, a `View` or a `Clip`.

    The default is all knockouts, and each bottleneck token after each layer zeroed and frozen, and
    with another clip also patched from that clip.
    """
    config, batch, patch = classifier.config, batched(classifier, clip), None
    if other is not None:
        fused_layers(config)
        patch = _bottlenecks(config, classifier.params, batched(classifier, other))
    if operations is None:
        kinds = ("zero", "freeze") if other is None else ("zero", "freeze", "patch")
        operations = _default_interventions(config, kinds)
    operations = tuple(operations)
    all_edits = [edits(config, operation, patch) for operation in operations]
    logits = operated(classifier, batch, all_edits).logits[:, 0]
    return Effects(classifier.labels, classifier.logits(batch)[0], operations, logits)


def edits(config: MBTConfig, operation: Intervention, patch: Array | None = None) -> Edits:
    """Convert an intervention to arrays; `patch` [L, Z, D] are the tokens of another clip."""
    changes, layers = untouched(config), fused_layers(config)
    if operation.layer is not None and operation.layer not in layers:
        raise ValueError(f"{operation.words}: the streams meet in layers {layers} only.")
    if operation.token is not None and not 0 <= operation.token < config.bottlenecks:
        raise ValueError(
            f"{operation.words}: there are {config.bottlenecks} bottleneck tokens, from 0."
        )
    layer = slice(None) if operation.layer is None else layers.index(operation.layer)
    token = slice(None) if operation.token is None else operation.token
    if operation.kind == "knockout":
        changes.own_update[layer, config.streams.index(operation.reader)] = True
    elif operation.kind == "freeze":
        changes.freeze[layer, token] = True
    else:
        changes.overwrite[layer, token] = True
    if operation.kind == "patch":
        if patch is None:
            raise ValueError(f"{operation.words}: a patch needs another clip, `other`.")
        changes.values[:] = patch
    return changes


def untouched(config: MBTConfig) -> Edits:
    """Return `Edits` that change nothing, to be filled in."""
    L, R, Z = len(fused_layers(config)), len(config.streams), config.bottlenecks
    shapes = (L, R, Z), (L, R, Z), (L, R), (L, Z), (L, Z)
    values = np.zeros((L, Z, config.width), np.float32)
    return Edits(*(np.zeros(shape, bool) for shape in shapes), values)


def operated(
    classifier: Classifier, clip: Clip, all_edits: Sequence[Edits], progress: Progress = silent
) -> Output:
    """Compute outputs [K, B, ...] of the batched clip under each of K edits."""
    config, count, outputs = classifier.config, len(all_edits), []
    progress(0, desc="layers below fusion")
    prefix = classifier.prefix(clip)
    for part in parts(config, count, len(next(x for x in clip if x is not None))):
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *all_edits[part])
        if not outputs:
            compiling(progress, _operated, config, classifier.params, prefix, stacked)
        progress(part.start / count, desc=f"cut {part.start + 1} of {count}")
        outputs.append(jax.device_get(_operated(config, classifier.params, prefix, stacked)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *outputs)


@partial(jax.jit, static_argnames="config")
def _operated(config: MBTConfig, params: dict, prefix: Tokens, all_edits: Edits) -> Output:
    return jax.vmap(lambda edits: _apply_edits(config, params, prefix, edits))(all_edits)


def _apply_edits(config: MBTConfig, params: dict, clip: Clip | Tokens, edits: Edits) -> Output:
    """Run a forward pass under one `Edits`."""
    layers, streams = fused_layers(config), config.streams

    def attention_probs(layer, stream, weights):
        if layer not in layers:
            return weights
        at = layers.index(layer), streams.index(stream)
        return _without_edges(weights, edits.no_write[at], edits.no_read[at])

    def merge_bottlenecks(layer, previous, updates, merged):
        i, tokens = layers.index(layer), {}
        for s in merged:
            x = jnp.where(edits.own_update[i, streams.index(s)], updates[s], merged[s])
            x = jnp.where(edits.freeze[i][:, None], previous[s], x)
            tokens[s] = jnp.where(edits.overwrite[i][:, None], edits.values[i], x)
        return tokens

    return apply_with_hooks(MBT(config), params, clip, attention_probs, merge_bottlenecks)


def _without_edges(weights: Array, no_write: Array, no_read: Array) -> Array:
    """Remove edges from weights [B, H, N + Z, N + Z] and renormalize each row.

    `no_write` [Z]: the bottleneck token attends to no token of the stream; `no_read` [Z]: no token
    of the stream attends to the bottleneck token.
    """
    Z = len(no_write)
    N = weights.shape[-1] - Z
    keep = jnp.ones(weights.shape[-2:], weights.dtype)
    keep = keep.at[N:, :N].set(jnp.broadcast_to(~no_write[:, None], (Z, N)))
    keep = keep.at[:N, N:].set(jnp.broadcast_to(~no_read, (N, Z)))
    weights = weights * keep
    return weights / weights.sum(-1, keepdims=True)


@partial(jax.jit, static_argnames="config")
def _bottlenecks(config: MBTConfig, params: dict, clip: Clip) -> Array:
    """Bottleneck tokens [L, Z, D] of a batch of one after each fused layer."""
    layers = []

    def record(layer, previous, updates, merged):
        layers.append(next(iter(merged.values()))[0])
        return merged

    apply_with_hooks(MBT(config), params, clip, merge_bottlenecks=record)
    return jnp.stack(layers)
