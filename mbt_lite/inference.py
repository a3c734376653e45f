"""A trained model that answers: `load`, `Classifier`, `Prediction`, `AttentionMaps`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mbt_lite import checkpoint, features
from mbt_lite.config import ClipConfig, MBTConfig
from mbt_lite.model import MBT, Clip, Output, attention_rows, query_layers

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Prediction:
    """Probabilities [C] of labels that do not exclude each other."""

    labels: tuple[str, ...]
    probabilities: np.ndarray  # [C]
    streams: dict[str, "Prediction"] = field(default_factory=dict)  # what each stream alone says
    notes: tuple[str, ...] = ()  # what was unusual about the file

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable labels with their probabilities, best first."""
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.labels[i], float(self.probabilities[i])) for i in best]


@dataclass(frozen=True)
class AttentionMaps:
    """What query tokens read from the patches of each stream.

    `rgb` is [L, H, Q, time, y, x], `spec` is [L, H, Q, time, mel]: layers, heads, queries, then the
    stream's grid. A missing stream is None. Rows sum to the share that goes to patches (<= 1).
    """

    layers: tuple[int, ...]
    query: str
    rgb: np.ndarray | None
    spec: np.ndarray | None

    def mean(self, stream: str, layer: int = -1, head: int | None = None, slot: int | None = None):
        """One map over the stream's grid: the mean over heads and query tokens not named.

        `layer` is a place in `layers`, not a number of the model's layers.
        """
        maps = getattr(self, stream)[layer]  # [H, Q, ...]
        maps = maps.mean(0) if head is None else maps[head]
        return maps.mean(0) if slot is None else maps[slot]


class Classifier:
    """A model with its weights, its labels and the way it wants its clips."""

    def __init__(
        self,
        config: MBTConfig,
        params: dict,
        clip_config: ClipConfig,
        labels: Sequence[str],
        card: dict | None = None,
    ):
        if len(labels) != config.classes:
            raise ValueError(f"{len(labels)} labels do not fit a head of {config.classes} classes.")
        self.config, self.params, self.clip_config = config, params, clip_config
        self.labels, self.card = tuple(labels), card or {}

    def logits(self, clip: Clip, without: str | None = None) -> np.ndarray:
        """Logits [B, C] of a batched clip; `without` blanks one stream (black, or silence)."""
        if without:
            clip = features.blank(clip, without, self.clip_config.front_end)
        return np.asarray(_forward(self.config, self.params, clip).logits)

    def predict(self, clip, views: int = 1, start: float | None = None) -> Prediction:
        """The `Prediction` for a video file or a `Clip` without batch axis.

        Of a file, `views` windows are read, evenly spread (or one from `start` seconds on), and
        their logits averaged. `streams` tells what the model answers when the other stream is
        blanked; a stream in which the file has nothing (no sound, black) is left out. Raises
        `media.MediaError` for a file that cannot be used.
        """
        if isinstance(clip, Clip):
            return self._answer([clip], self.config.streams, ())
        found = features.read_views(clip, self.clip_config, views, start)
        notes = tuple(dict.fromkeys(note for view in found for note in view.notes))
        full = {"rgb": any(v.rgb.any() for v in found), "spec": any(v.wave.any() for v in found)}
        streams = [stream for stream in self.config.streams if full[stream]]
        return self._answer([view.clip for view in found], streams, notes)

    def _answer(self, clips: list[Clip], streams, notes: tuple[str, ...]) -> Prediction:
        batch = _stack([self._only_own(clip) for clip in clips])

        def prediction(without=None, **more):
            logits = self.logits(batch, without).mean(0)
            return Prediction(self.labels, 1 / (1 + np.exp(-logits)), **more)

        alone = {}
        for stream in streams if len(self.config.streams) == 2 else ():
            alone[stream] = prediction(next(s for s in self.config.streams if s != stream))
        return prediction(streams=alone, notes=notes)

    def attention(
        self, clip, query: str = "bottleneck", layers: Sequence[int] | None = None
    ) -> AttentionMaps:
        """The `AttentionMaps` of a video file's middle or of a `Clip` without batch axis.

        `query` is "bottleneck" (its slots, in fused layers) or "cls" (each stream's class token);
        `layers` counts from 0, or from the end when negative; None: all that have the query, but
        the last one of the bottleneck, whose reading no answer depends on.
        """
        if not isinstance(clip, Clip):
            clip = features.read_views(clip, self.clip_config)[0].clip
        layers = tuple(layers) if layers is not None else None
        batch = _stack([self._only_own(clip)])
        _, rows = attention_rows(MBT(self.config), self.params, batch, query, layers)
        grids = {
            stream: np.asarray(maps[0]).reshape(*maps.shape[1:4], *self.config.grid(stream))
            for stream, maps in rows.items()
        }
        shown = tuple(query_layers(self.config, query, layers))
        return AttentionMaps(shown, query, grids.get("rgb"), grids.get("spec"))

    def save(self, path) -> Path:
        """The path of a safetensors file with the weights and all that `load` needs to know."""
        return checkpoint.save(
            path,
            self.params,
            self.config,
            clip=self.clip_config,
            labels=self.labels,
            licence="Apache-2.0",
            card=self.card,
        )

    def _only_own(self, clip: Clip) -> Clip:
        """The clip without streams that this model does not have."""
        return Clip(**{s: getattr(clip, s) for s in self.config.streams})


@partial(jax.jit, static_argnames="config")
def _forward(config: MBTConfig, params: dict, clip: Clip) -> Output:
    return MBT(config).apply({"params": params}, clip)


def _stack(clips: list[Clip]) -> Clip:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *clips)


def load(source: str | Path = "world-tiny", **overrides) -> Classifier:
    """The `Classifier` of an embedded model's name, a weights file, or a run folder.

    `overrides` set what array shapes cannot tell (`heads`, `fusion_layer`, ...). Raises ValueError
    with a sentence where the file does not hold a whole model.
    """
    if (Path(source) / "experiment.json").exists() and not _finished(Path(source)):
        raise ValueError(f"the training in {source} has not finished; give its command again.")
    path = WEIGHTS / f"{source}.safetensors"
    if not path.exists():
        path = Path(source)
        if _finished(path):
            path = path / "model.safetensors"
        elif not path.exists():
            names = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
            raise ValueError(f"{source} is neither a file nor an embedded model ({names}).")
    config, params, meta = checkpoint.load(path, **overrides)
    labels = meta["labels"] or [f"class {i}" for i in range(config.classes)]
    clip_config = meta["clip"] or _clip_config(config)
    return Classifier(config, params, clip_config, labels, meta.get("card"))


def _finished(run: Path) -> bool:
    return (run / "model.safetensors").is_file()


def _clip_config(config: MBTConfig) -> ClipConfig:
    """The released models' way to see and hear, in the size that a model without one asks for."""
    frames, size, _ = config.rgb_shape
    stride = max(1, round(64 / frames))  # 2.56 s at 25 frames per second, as released
    return ClipConfig(
        frames=frames,
        stride=stride,
        size=size,
        resize=max(size, round(size * 256 / 224)),
        spec_frames=config.spec_shape[0],
    )
