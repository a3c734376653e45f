"""Intervene on the bottleneck: knock out edges; zero, average, freeze or patch tokens.

An operation is a few small arrays, so that one compiled forward pass serves all of them and many
run side by side.

K operations   L fused layers   R streams   Z bottleneck tokens
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mbt_lite.config import MBTConfig
from mbt_lite.explain.maps import batched, parts
from mbt_lite.inference import Classifier
from mbt_lite.model.mbt import MBT, Clip, Output
from mbt_lite.model.observe import apply_with_hooks
from mbt_lite.progress import Progress, compiling, silent

MODALITIES = {"spec": "audio", "rgb": "video"}
KINDS = ("zero", "mean", "freeze", "swap", "cut")


class Edits(NamedTuple):
    """Arrays of changes per fused layer; where all is False nothing changes."""

    write: (
        np.ndarray
    )  # bool [L, R, Z]: the bottleneck token reads no token of the stream in this layer
    read: (
        np.ndarray
    )  # bool [L, R, Z]: the stream's tokens do not read the bottleneck token in this layer
    cut: np.ndarray  # bool [L, R]: after this layer the stream gets only what it wrote itself
    hold: np.ndarray  # bool [L, Z]: after this layer the bottleneck token holds what it held before
    put: np.ndarray  # bool [L, Z]: after this layer the bottleneck token holds `value`
    value: np.ndarray  # [L, Z, D]


@dataclass(frozen=True)
class Intervention:
    """One change of the bottleneck; a layer or token of None means all of them.

    "zero", "mean", "freeze" and "swap" say what a bottleneck token holds after the layer: nothing, its mean
    over data, what it held before the layer, what it holds in another clip. "cut" keeps from the
    stream `reader` what the other one wrote in that layer, so that it gets only its own.
    """

    kind: str
    layer: int | None = None
    token: int | None = None
    reader: str | None = None

    def __post_init__(self):
        if self.kind not in KINDS or (self.kind == "cut") != (self.reader is not None):
            raise ValueError(
                f"{self}: a kind is one of {KINDS}; a cut, and no other, has a reader."
            )

    @property
    def words(self) -> str:
        """Describe the intervention as a person would."""
        where = "after every layer" if self.layer is None else f"after layer {self.layer}"
        if self.kind == "cut":
            writer = next(s for s in MODALITIES if s != self.reader)
            return f"{MODALITIES[writer]}→{MODALITIES[self.reader]} cut {where}"
        done = {"zero": "set to zero", "mean": "set to the mean over data"}
        done |= {"freeze": "frozen", "swap": "taken from the other clip"}
        who = "all bottleneck tokens" if self.token is None else f"bottleneck token {self.token}"
        return f"{who} {done[self.kind]} {where}"


@dataclass(frozen=True)
class Effects:
    """Logits of a clip with and without each intervention."""

    labels: tuple[str, ...]
    logits: np.ndarray  # [C], as they are
    operations: tuple[Intervention, ...]
    operated: np.ndarray  # [K, C], after each operation

    @property
    def change(self) -> np.ndarray:
        """Logits [K, C] with each intervention minus the logits without."""
        return self.operated - self.logits

    def strongest(self, label: str) -> Intervention:
        """The operation that changes this label's logit most; among bottleneck tokens, the one it hangs on."""
        return self.operations[int(np.abs(self.change[:, column(self.labels, label)]).argmax())]

    def table(self, label: str) -> str:
        """List each intervention and its effect on a label's logit, strongest first."""
        changes = self.change[:, column(self.labels, label)]
        order = np.argsort(-np.abs(changes), kind="stable")
        return "\n".join(f"{changes[i]:+8.2f}  {self.operations[i].words}" for i in order)


def column(labels: Sequence[str], label: str) -> int:
    """Return the column of a label in a result; raise ValueError if it is not there."""
    if label not in labels:
        raise ValueError(f"there is no label {label!r} here; there are {', '.join(labels[:8])} ...")
    return labels.index(label)


def fused_layers(config: MBTConfig) -> tuple[int, ...]:
    """Return the layers that exchange bottleneck tokens; raise ValueError if there are none."""
    layers = tuple(i for i in range(config.depth) if config.fuses(i, training=False))
    if config.fusion != "bottleneck" or not layers:
        raise ValueError("this model has no bottleneck between audio and video to look into.")
    return layers


def bottleneck_interventions(config: MBTConfig, kind: str) -> tuple[Intervention, ...]:
    """One kind of intervention on each bottleneck token after each layer that is still read."""
    bottlenecks = range(config.bottlenecks)
    return tuple(Intervention(kind, i, k) for i in fused_layers(config)[:-1] for k in bottlenecks)


def knockouts(config: MBTConfig) -> tuple[Intervention, ...]:
    """Knock out each direction after each layer that is still read, and after all of them."""
    layers = (*fused_layers(config)[:-1], None)
    return tuple(Intervention("cut", i, reader=s) for s in reversed(config.streams) for i in layers)


def intervene(
    classifier: Classifier,
    clip,
    operations: Sequence[Intervention] | None = None,
    other=None,
    means: np.ndarray | None = None,
) -> Effects:
    """Measure how interventions change the logits of a file's middle, a `View` or a `Clip`.

    By default these are all knockouts, and each bottleneck token after each layer set to zero and
    frozen; with `means` [L, Z, D] from `bottleneck_means` also set to its mean; with another clip
    also patched with the token of that clip.
    """
    config, one = classifier.config, batched(classifier, clip)
    swapped = None if other is None else bottlenecks_of(classifier, batched(classifier, other))
    kinds = ["zero", "freeze"] + ["mean"] * (means is not None) + ["swap"] * (other is not None)
    if operations is None:
        operations = knockouts(config) + sum(
            (bottleneck_interventions(config, kind) for kind in kinds), ()
        )
    operations = tuple(operations)
    missing = {one.kind for one in operations} - {*kinds, "cut"}
    if missing:
        raise ValueError(f"{sorted(missing)}: a swap needs `other`, a mean needs `means`.")
    values = {"mean": means, "swap": swapped}
    all_edits = [edits(config, operation, values) for operation in operations]
    logits = operated(classifier, one, all_edits).logits[:, 0]
    as_it_is = classifier.logits(one)[0]
    return Effects(classifier.labels, as_it_is, operations, logits)


def edits(config: MBTConfig, operation: Intervention, values: dict | None = None) -> Edits:
    """Convert an intervention to arrays; `values` {kind: [L, Z, D]} are the new tokens."""
    made, layers = untouched(config), fused_layers(config)
    if operation.layer is not None and operation.layer not in layers:
        raise ValueError(f"{operation.words}: the streams meet in layers {layers} only.")
    if operation.token is not None and not 0 <= operation.token < config.bottlenecks:
        raise ValueError(
            f"{operation.words}: there are {config.bottlenecks} bottleneck tokens, from 0."
        )
    layer = slice(None) if operation.layer is None else layers.index(operation.layer)
    token = slice(None) if operation.token is None else operation.token
    if operation.kind == "cut":
        made.cut[layer, config.streams.index(operation.reader)] = True
    elif operation.kind == "freeze":
        made.hold[layer, token] = True
    else:
        made.put[layer, token] = True
        if operation.kind != "zero":
            made.value[:] = values[operation.kind]
    return made


def untouched(config: MBTConfig) -> Edits:
    """Return `Edits` that change nothing, to be filled in."""
    layers, streams, bottlenecks = (
        len(fused_layers(config)),
        len(config.streams),
        config.bottlenecks,
    )
    edges, token = (
        np.zeros((layers, streams, bottlenecks), bool),
        np.zeros((layers, bottlenecks), bool),
    )
    value = np.zeros((layers, bottlenecks, config.width), np.float32)
    cut = np.zeros((layers, streams), bool)
    return Edits(edges, edges.copy(), cut, token, token.copy(), value)


def operated(
    classifier: Classifier, clip: Clip, all_edits: Sequence[Edits], progress: Progress = silent
) -> Output:
    """Compute outputs [K, B, ...] of the batched clip under each of K edits."""
    config, count, found = classifier.config, len(all_edits), []
    for part in parts(config, count, len(next(x for x in clip if x is not None))):
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *all_edits[part])
        if not found:
            compiling(progress, _operated, config, classifier.params, clip, stacked)
        progress(part.start / count, desc=f"cut {part.start + 1} of {count}")
        found.append(jax.device_get(_operated(config, classifier.params, clip, stacked)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *found)


@partial(jax.jit, static_argnames="config")
def _operated(config: MBTConfig, params: dict, clip: Clip, all_edits: Edits) -> Output:
    return jax.vmap(lambda one: apply_edits(config, params, clip, one))(all_edits)


def apply_edits(config: MBTConfig, params: dict, clip: Clip, edits: Edits) -> Output:
    """Run a forward pass under one `Edits`."""
    layers, streams = fused_layers(config), config.streams

    def weigh(layer, stream, weights):
        if layer not in layers:
            return weights
        place = layers.index(layer), streams.index(stream)
        return knocked_out(weights, edits.write[place], edits.read[place])

    def share(layer, old, written, shared):
        i = layers.index(layer)
        own = {s: edits.cut[i, streams.index(s)] for s in written}
        new = {s: jnp.where(own[s], written[s], shared[s]) for s in written}
        hold, put = edits.hold[i][:, None], edits.put[i][:, None]
        new = {s: jnp.where(hold, old[s], x) for s, x in new.items()}
        return {s: jnp.where(put, edits.value[i], x) for s, x in new.items()}

    return apply_with_hooks(MBT(config), params, clip, weigh, share)


def knocked_out(weights: Array, write: Array, read: Array) -> Array:
    """Remove edges from weights [B, H, N + Z, N + Z] and renormalize each row.

    `write` [Z]: the bottleneck token's row sees no token; `read` [Z]: no token's row sees the
    bottleneck token.
    """
    tokens, bottlenecks = weights.shape[-1] - len(write), len(write)
    seen = jnp.ones(weights.shape[-2:], weights.dtype)
    seen = seen.at[tokens:, :tokens].set(jnp.broadcast_to(~write[:, None], (bottlenecks, tokens)))
    seen = seen.at[:tokens, tokens:].set(jnp.broadcast_to(~read, (tokens, bottlenecks)))
    left = weights * seen
    return left / left.sum(-1, keepdims=True)


def bottlenecks_of(classifier: Classifier, clips: Clip) -> np.ndarray:
    """Bottleneck tokens after each fused layer, averaged over the batched clips [L, Z, D]."""
    return np.asarray(_bottlenecks(classifier.config, classifier.params, clips).mean(1))


@partial(jax.jit, static_argnames="config")
def _bottlenecks(config: MBTConfig, params: dict, clips: Clip) -> Array:
    """[L, B, Z, D] after each fused layer."""
    found = []

    def share(layer, old, written, shared):
        found.append(next(iter(shared.values())))
        return shared

    apply_with_hooks(MBT(config), params, clips, share=share)
    return jnp.stack(found)


def bottleneck_means(classifier: Classifier, batches: Iterable[Clip]) -> np.ndarray:
    """Bottleneck tokens after each fused layer, averaged over clips of batches [L, Z, D]."""
    fused_layers(classifier.config)
    total, count = 0.0, 0
    for clips in batches:
        size = len(next(x for x in clips if x is not None))
        total, count = total + size * bottlenecks_of(classifier, clips), count + size
    if not count:
        raise ValueError("a mean over data needs at least one batch of clips.")
    return np.asarray(total / count, np.float32)
