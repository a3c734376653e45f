"""Information flow between modalities, by layer and bottleneck token, and whether it matters.

G groups: the streams, then the bottleneck tokens   L fused layers   N tokens   Z bottleneck tokens
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mbt_lite.config import MBTConfig
from mbt_lite.explain.blocks import BOTTLENECK, back, first_rows, mean_maps, token_counts
from mbt_lite.explain.interventions import (
    MODALITIES,
    Edits,
    fused_layers,
    operated,
    untouched,
)
from mbt_lite.explain.maps import batched, best_label, label_index
from mbt_lite.inference import Classifier
from mbt_lite.model.mbt import Clip
from mbt_lite.progress import Progress, silent


@dataclass(frozen=True)
class Flow:
    """Attention mass between groups of tokens, and the effect of each edge on a label's logit.

    `write`, `carry` and `read` are attention, the mean over the heads: what a bottleneck token
    takes from the tokens of a stream in that stream's block, what it takes from the old bottleneck
    tokens (the mean over the streams' blocks), and what the tokens take from the bottleneck tokens.
    The mean over the streams of what is written into a bottleneck token, and what is carried, sum
    to one.
    """

    streams: tuple[str, ...]
    layers: tuple[int, ...]  # the fused ones
    label: str  # whose logit the effects are about
    mass: (
        np.ndarray
    )  # [L, G, G], from the group at a layer's input to that at its output; sums to 1
    effect: np.ndarray | None  # [L, G, G], logit as it is less that with the edge cut; nan: not cut
    write: dict[str, np.ndarray]  # {stream: [L, Z, N]}
    carry: np.ndarray  # [L, Z, Z]
    read: dict[str, np.ndarray]  # {stream: [L, N, Z]}

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups: "audio", "video", "bottleneck token 0", ..."""
        bottlenecks = self.mass.shape[-1] - len(self.streams)
        return (
            *(MODALITIES[s] for s in self.streams),
            *(f"bottleneck token {k}" for k in range(bottlenecks)),
        )

    def through(self, reader: str, layer: int) -> dict[str, np.ndarray]:
        """Where what `reader` takes from the bottleneck tokens came from: {source: [N of reader, N of source]}.

        Written in `layer`, averaged over the streams, read in the next: the exact product of the
        three steps. The sources are the streams and "bottleneck", what the bottleneck tokens held before; all
        of a token's row together sum to one.
        """
        if reader not in self.streams or layer not in self.layers[:-1]:
            raise ValueError(f"{reader!r} reads what layers {self.layers[:-1]} wrote, not {layer}.")
        i = self.layers.index(layer)
        read = self.read[reader][i + 1]
        shares = read / read.sum(-1, keepdims=True)  # [N, Z]
        written = {s: x[i] / len(self.streams) for s, x in self.write.items()}  # {s: [Z, N]}
        return {source: shares @ x for source, x in {**written, BOTTLENECK: self.carry[i]}.items()}

    def edges(self) -> list[tuple[str, str, int, float, float]]:
        """(from, to, layer, mass, effect) of the edges that write or read, most mass first."""
        names, streams = self.groups, len(self.streams)
        found = []
        for i, layer in enumerate(self.layers):
            for a, b in np.argwhere(crossings(streams, len(names))):
                effect = float("nan") if self.effect is None else float(self.effect[i, a, b])
                found.append((names[a], names[b], layer, float(self.mass[i, a, b]), effect))
        return sorted(found, key=lambda edge: -edge[3])


def flow(
    classifier: Classifier,
    clip,
    label: str | None = None,
    effects: bool = True,
    progress: Progress = silent,
) -> Flow:
    """Compute the `Flow` of a file's middle, a `View` or a `Clip` for a label (default: the best).

    Mass starts at the class tokens, where the answer is read, and runs back through the layers as
    in a rollout: half of a token is kept, half is what its attention reads. With `effects` every
    edge between a stream and a bottleneck token is also cut on its own, one forward pass each: the
    attention along it is taken out and the rest of the row scaled up to one; `progress` is told
    which.
    """
    config, one = classifier.config, batched(classifier, clip)
    layers = fused_layers(config)
    if any(getattr(one, s) is None for s in config.streams):
        raise ValueError("a flow needs a clip with both video and audio.")
    progress(0, desc="both")
    label = best_label(classifier, clip) if label is None else label
    column = label_index(classifier, label)
    progress(0, desc="attention maps")
    mass, maps = jax.device_get(flow_maps(config, classifier.params, one))
    cut = edge_effects(classifier, one, column, progress) if effects else None
    return Flow(tuple(config.streams), layers, label, np.float64(mass), cut, **maps)


@partial(jax.jit, static_argnames="config")
def flow_maps(config: MBTConfig, params: dict, clip: Clip):
    """The mass [L, G, G] and {"write", "carry", "read": {stream: ...}} of a batch of one."""
    _, maps = mean_maps(config, params, clip)
    lengths, fused = token_counts(config, clip), fused_layers(config)
    rows = {**first_rows(config, lengths), BOTTLENECK: jnp.zeros((1, 1, config.bottlenecks))}
    mass = []
    for layer in reversed(fused):
        mass.append(_edges(rows, maps[layer], list(lengths)))
        rows = back(rows, maps[layer])
    blocks = [maps[layer] for layer in fused]
    share = len(lengths)
    found = {
        "write": {s: jnp.stack([share * b[BOTTLENECK][s][0] for b in blocks]) for s in lengths},
        "carry": jnp.stack([b[BOTTLENECK][BOTTLENECK][0] for b in blocks]),
        "read": {s: jnp.stack([b[s][BOTTLENECK][0] for b in blocks]) for s in lengths},
    }
    return jnp.stack(mass[::-1]), found


def _edges(rows: dict[str, Array], layer, streams: list[str]) -> Array:
    """[G, G]: the mass of a layer's edges, from rows [1, 1, N] at its output."""
    groups = len(streams) + rows[BOTTLENECK].shape[-1]
    places = {s: slice(i, i + 1) for i, s in enumerate(streams)} | {
        BOTTLENECK: slice(len(streams), groups)
    }
    mass = jnp.zeros((groups, groups))
    for reader, row in rows.items():
        kept = _summed(0.5 * row[0, 0], reader)  # [readers]
        at = jnp.arange(groups)[places[reader]]
        mass = mass.at[at, at].add(kept)
        for source, weights in layer[reader].items():
            edges = 0.5 * row[0, 0][:, None] * weights[0]  # [readers, sources]
            edges = _summed(_summed(edges, source).T, reader)  # [sources, readers]
            mass = mass.at[places[source], places[reader]].add(edges)
    return mass


def _summed(values: Array, group: str) -> Array:
    """The last axis summed where the group is a stream, which is one node; bottleneck tokens stay apart."""
    return values if group == BOTTLENECK else values.sum(-1, keepdims=True)


def crossings(streams: int, groups: int) -> np.ndarray:
    """bool [G, G]: the edges from a stream into a bottleneck token and from a bottleneck token into a stream."""
    stream = np.arange(groups) < streams
    return stream[:, None] != stream[None]


def edge_effects(
    classifier: Classifier, clip: Clip, column: int, progress: Progress = silent
) -> np.ndarray:
    """[L, G, G]: a logit of a batch of one as it is less that with the edge cut, nan elsewhere."""
    config = classifier.config
    layers, streams = len(fused_layers(config)), len(config.streams)
    groups = streams + config.bottlenecks
    edges = np.argwhere(np.broadcast_to(crossings(streams, groups), (layers, groups, groups)))
    knock_outs = [knock_out(config, *edge) for edge in edges.tolist()]
    logits = operated(classifier, clip, knock_outs, progress).logits[:, 0, column]
    effect = np.full((layers, groups, groups), np.nan)
    effect[tuple(edges.T)] = classifier.logits(clip)[0, column] - logits
    return effect


def knock_out(config: MBTConfig, layer: int, source: int, target: int) -> Edits:
    """Return the edit that removes the edge between two groups in the `layer`-th fused layer."""
    made, streams = untouched(config), len(config.streams)
    if source < streams:
        made.write[layer, source, target - streams] = True
    else:
        made.read[layer, target, source - streams] = True
    return made
