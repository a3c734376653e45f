"""Information flow between modalities, by layer and bottleneck token, and its causal effect.

G groups: the streams, then the bottleneck tokens   L fused layers   N tokens   Z bottleneck tokens
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mbt_lite.config import MODALITIES, MBTConfig
from mbt_lite.explain.blocks import BOTTLENECK, back, first_rows, mean_maps, token_counts
from mbt_lite.explain.interventions import Edits, fused_layers, operated, untouched
from mbt_lite.explain.maps import batched, best_label, label_index
from mbt_lite.inference import Classifier
from mbt_lite.model.mbt import Clip
from mbt_lite.progress import Progress, silent


@dataclass(frozen=True)
class Flow:
    """Attention mass between groups of tokens, and the effect of each edge on a label's logit."""

    streams: tuple[str, ...]
    layers: tuple[int, ...]  # the fused ones
    label: str  # of the logit that the effects are about
    mass: np.ndarray  # [L, G, G], from the group at a layer's input to the one at its output; sum 1
    effect: np.ndarray | None  # [L, G, G], logit minus logit without the edge; nan: not measured

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups: "audio", "video", "bottleneck token 0", ..."""
        count = self.mass.shape[-1] - len(self.streams)
        tokens = (f"bottleneck token {k}" for k in range(count))
        return (*(MODALITIES[s] for s in self.streams), *tokens)

    def edges(self) -> list[tuple[str, str, int, float, float]]:
        """(from, to, layer, mass, effect) of the edges that write or read, most mass first."""
        names, edges = self.groups, []
        for i, layer in enumerate(self.layers):
            for a, b in np.argwhere(crossings(len(self.streams), len(names))):
                effect = float("nan") if self.effect is None else float(self.effect[i, a, b])
                edges.append((names[a], names[b], layer, float(self.mass[i, a, b]), effect))
        return sorted(edges, key=lambda edge: -edge[3])


def flow(
    classifier: Classifier,
    clip,
    label: str | None = None,
    effects: bool = True,
    progress: Progress = silent,
) -> Flow:
    """Compute the `Flow` of a file's middle, a `View` or a `Clip` for a label (default: the best).

    Mass starts at the class tokens, which the classifier reads, and is propagated back through the
    layers as in attention rollout: half by the residual, half by attention. With `effects` every
    edge between a stream and a bottleneck token is also knocked out on its own, one forward pass
    each: its attention is removed and the row renormalized. `progress` reports each edge.
    """
    config, batch = classifier.config, batched(classifier, clip)
    layers = fused_layers(config)
    if any(getattr(batch, s) is None for s in config.streams):
        raise ValueError("a flow needs a clip with both video and audio.")
    progress(0, desc="both")
    label = best_label(classifier, clip) if label is None else label
    column = label_index(classifier.labels, label)
    progress(0, desc="attention maps")
    mass = np.asarray(_mass(config, classifier.params, batch), np.float64)
    effect = _edge_effects(classifier, batch, column, progress) if effects else None
    return Flow(tuple(config.streams), layers, label, mass, effect)


@partial(jax.jit, static_argnames="config")
def _mass(config: MBTConfig, params: dict, clip: Clip) -> Array:
    """The mass [L, G, G] of a `Flow`, for a batch of one."""
    _, maps = mean_maps(config, params, clip)
    lengths = token_counts(config, clip)
    blocks = [maps[layer] for layer in fused_layers(config)]
    rows = {**first_rows(config, lengths), BOTTLENECK: jnp.zeros((1, 1, config.bottlenecks))}
    mass = []
    for layer in reversed(blocks):
        mass.append(_layer_mass(rows, layer, list(lengths)))
        rows = back(rows, layer)
    return jnp.stack(mass[::-1])


def _layer_mass(rows: dict[str, Array], layer, streams: list[str]) -> Array:
    """The mass [G, G] of a layer's edges, from rows [1, 1, N] at its output."""
    R, G = len(streams), len(streams) + rows[BOTTLENECK].shape[-1]
    at = {s: slice(i, i + 1) for i, s in enumerate(streams)} | {BOTTLENECK: slice(R, G)}
    mass = jnp.zeros((G, G))
    for reader, row in rows.items():
        row = 0.5 * row[0, 0]  # [N of reader]: half by the residual, half by attention
        diagonal = jnp.arange(G)[at[reader]]
        mass = mass.at[diagonal, diagonal].add(_by_group(row, reader))
        for source, weights in layer[reader].items():
            edges = row[:, None] * weights[0]  # [N of reader, N of source]
            edges = _by_group(_by_group(edges, source).T, reader)  # [sources, readers]
            mass = mass.at[at[source], at[reader]].add(edges)
    return mass


def _by_group(values: Array, group: str) -> Array:
    """Sum the last axis over a stream, which is one group; each bottleneck token is its own."""
    return values if group == BOTTLENECK else values.sum(-1, keepdims=True)


def crossings(streams: int, groups: int) -> np.ndarray:
    """Mask bool [G, G] of the edges between a stream and a bottleneck token, either way."""
    is_stream = np.arange(groups) < streams
    return is_stream[:, None] != is_stream[None]


def _edge_effects(classifier: Classifier, clip: Clip, column: int, progress: Progress):
    """Logit of a batch of one minus the logit without each edge [L, G, G]; nan elsewhere."""
    config = classifier.config
    L, R = len(fused_layers(config)), len(config.streams)
    G = R + config.bottlenecks
    edges = np.argwhere(np.broadcast_to(crossings(R, G), (L, G, G)))
    knockouts = [_edge_knockout(config, *edge) for edge in edges.tolist()]
    logits = operated(classifier, clip, knockouts, progress).logits[:, 0, column]
    effect = np.full((L, G, G), np.nan)
    effect[tuple(edges.T)] = classifier.logits(clip)[0, column] - logits
    return effect


def _edge_knockout(config: MBTConfig, layer: int, source: int, target: int) -> Edits:
    """Return the `Edits` that remove the edge between two groups in the `layer`-th fused layer."""
    edits, R = untouched(config), len(config.streams)
    if source < R:
        edits.no_write[layer, source, target - R] = True
    else:
        edits.no_read[layer, target, source - R] = True
    return edits
