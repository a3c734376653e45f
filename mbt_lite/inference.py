"""Load a trained model and classify clips: `load`, `Classifier`, `Prediction`, `AttentionMaps`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mbt_lite import checkpoints, features
from mbt_lite.checkpoints import zoo
from mbt_lite.checkpoints.download import hub_file
from mbt_lite.checkpoints.model_card import model_card
from mbt_lite.config import BASE, ClipConfig, FrontEnd, MBTConfig, to_dict
from mbt_lite.model.flops import model_cost
from mbt_lite.model.label_heads import (
    Head,
    check_heads,
    in_words,
    make_heads,
    probabilities,
    ranked,
    read_heads,
)
from mbt_lite.model.mbt import MBT, Clip, Output
from mbt_lite.model.observe import attention_rows, query_layers
from mbt_lite.paths import DOWNLOAD, address, write_text
from mbt_lite.progress import Progress, compiling, silent

SAID = {"spec": "audio", "rgb": "video"}  # what a stream is called in a sentence

UNSAID = (
    "The file does not say with which loss its model was trained: each label has a probability by "
    'itself, by sigmoid; where only one label can be true, load it with loss="softmax".'
)


@dataclass(frozen=True)
class Prediction:
    """Probabilities [C] of the labels, by sigmoid or softmax as in training (see `kind`)."""

    labels: tuple[str, ...]
    probabilities: np.ndarray  # [C]
    streams: dict[str, "Prediction"] = field(default_factory=dict)  # what each stream alone says
    notes: tuple[str, ...] = ()  # what was unusual about the file
    caution: str = ""  # what to know of the model before believing it
    label_heads: tuple[Head, ...] = ()  # which belong together; none: each label for itself
    windows: tuple[tuple[float, float], ...] = ()  # s, the parts of the file that were asked
    seconds: float | None = None  # of the whole file, where it is known

    def __repr__(self) -> str:
        best = ", ".join(f"{label} {p:.0%}" for label, p in self.top(3))
        kind = ", softmax" * (self.kind == "softmax")
        return f"<Prediction of {len(self.labels)} labels{kind}: {best} ...>"

    @property
    def kind(self) -> str:
        """Return "sigmoid" if labels are independent, "softmax" if one per head is true."""
        return "softmax" if any(head.kind == "softmax" for head in self.label_heads) else "sigmoid"

    @property
    def asked(self) -> str:
        """Which windows were asked, in words; empty where it was no file."""
        *first, last = [f"{start:.1f}-{end:.1f} s" for start, end in self.windows] or [""]
        windows = " and ".join(filter(None, [", ".join(first), last]))
        whole = f" of {self.seconds:.1f} s" if self.seconds else ""
        return f"asked {windows}{whole}" if windows else ""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most probable labels with their probabilities, best first.

        Of several heads, verbs and nouns, they are `count` of each: the best of each head first,
        then the second of each.
        """
        best = ranked(self.probabilities, self.label_heads, count)
        return [(self.labels[i], float(self.probabilities[i])) for i in best]


@dataclass(frozen=True)
class AttentionMaps:
    """Attention of query tokens to the patches of each stream.

    `rgb` is [L, H, Q, time, y, x], `spec` is [L, H, Q, time, mel]: layers, heads, queries, then the
    stream's grid. A missing stream is None. Rows sum to the share that goes to patches (<= 1).
    """

    layers: tuple[int, ...] | tuple[str, ...]  # or what stands in their place
    query: str
    rgb: np.ndarray | None
    spec: np.ndarray | None

    def mean(self, stream: str, layer: int = -1, head: int | None = None, token: int | None = None):
        """Average over heads and query tokens (those not named) to one map over the grid.

        `layer` is a place in `layers`, not a number of the model's layers.
        """
        maps = getattr(self, stream)[layer]  # [H, Q, ...]
        maps = maps.mean(0) if head is None else maps[head]
        return maps.mean(0) if token is None else maps[token]


class Classifier:
    """A trained model with its weights, labels and input settings."""

    def __init__(
        self,
        config: MBTConfig,
        params: dict,
        clip_config: ClipConfig,
        labels: Sequence[str],
        card: dict | None = None,
        label_heads: Sequence[Head] | None = None,
    ):
        """Without `label_heads` any label can be true: probabilities are by sigmoid, each alone."""
        if len(labels) != config.classes:
            raise ValueError(f"{len(labels)} labels do not fit a head of {config.classes} classes.")
        self.config, self.params, self.clip_config = config, params, clip_config
        self.labels, self.card = tuple(labels), card or {}
        self.label_heads = tuple(label_heads or make_heads("sigmoid", labels))
        check_heads(self.label_heads, config.classes)

    def __repr__(self) -> str:
        name, cost = self.card.get("name") or "model", model_cost(self.config)
        return (
            f"<Classifier {name}: {' and '.join(self.config.streams)}, {len(self.labels)} labels, "
            f"{cost.parameters:,} parameters>"
        )

    def logits(self, clip: Clip, without: str | None = None) -> np.ndarray:
        """Compute logits [B, C] of a batched clip; `without` blanks one stream."""
        if without:
            clip = features.blank(clip, without, self.clip_config.front_end)
        return np.asarray(_forward(self.config, self.params, clip).logits)

    def _finite_logits(self, clip: Clip, without: str | None = None) -> np.ndarray:
        """As `logits`; ValueError where one of them is no number."""
        found = self.logits(clip, without)
        if not np.isfinite(found).all():
            raise ValueError(
                "the model's answer is not a number (NaN or infinite); its weights may be damaged "
                "or too large."
            )
        return found

    def probabilities(self, logits) -> np.ndarray:
        """Convert logits [..., C] to probabilities [..., C], as the model was trained."""
        return probabilities(np.asarray(logits), self.label_heads)

    def predict(
        self,
        clip,
        views: int | None = None,
        start: float | None = None,
        audio_track: int | None = None,
        progress: Progress = silent,
    ) -> Prediction:
        """Classify a video file or a `Clip` without batch axis.

        Of a file, `views` windows are read, evenly spread (or one from `start` seconds on); without
        both, as many as cover the whole file, up to 4. Their logits are averaged, then turned into
        probabilities; `windows` says where they lay. `streams` tells what the model answers when
        the other stream is blanked; a stream in which the file has nothing (no audio, black) is
        left out. `audio_track` counts from 1; without it, the track that players choose. `progress`
        is told each stage: reading, compiling, either stream alone, both. Raises `media.MediaError`
        for a file that cannot be used.
        """
        if isinstance(clip, Clip):
            return self._answer([clip], self.config.streams, (), progress)
        progress(0, desc="reading")
        config = self.clip_config
        if audio_track is not None:
            config = replace(config, audio_track=audio_track)
        found = features.read_views(clip, config, views, start)
        notes = tuple(dict.fromkeys(note for view in found for note in view.notes))
        full = {"rgb": any(v.rgb.any() for v in found), "spec": any(v.wave.any() for v in found)}
        streams = [stream for stream in self.config.streams if full[stream]]
        where = {"windows": tuple(view.window for view in found), "seconds": found[0].total}
        if views is None and start is None:
            notes += _uncovered(**where)
        return self._answer([view.clip for view in found], streams, notes, progress, **where)

    def _answer(
        self, clips: list[Clip], streams, notes: tuple[str, ...], progress: Progress, **where
    ) -> Prediction:
        batch = _stack([self._only_own(clip) for clip in clips])
        streams = streams if len(self.config.streams) == 2 else ()
        compiling(progress, _forward, self.config, self.params, batch)

        def prediction(number, words, without=None, **more):
            progress(number / (1 + len(streams)), desc=words)
            logits = self._finite_logits(batch, without).mean(0)
            more |= {"caution": self.caution, "label_heads": self.label_heads, **where}
            return Prediction(self.labels, self.probabilities(logits), **more)

        alone = {}
        for number, stream in enumerate(streams):
            other = next(s for s in self.config.streams if s != stream)
            alone[stream] = prediction(number, f"{SAID[stream]} only", other)
        whole = prediction(len(streams), "both", streams=alone, notes=notes)
        progress(1, desc="done")
        return whole

    def attention(
        self,
        clip,
        query: str | tuple = "bottleneck",
        layers: Sequence[int] | None = None,
    ) -> AttentionMaps:
        """Compute attention maps of the middle of a video file, or of a `Clip` without batch axis.

        `query` is "bottleneck" (its bottleneck tokens, in fused layers), "cls" (each stream's class token),
        "mean" (the mean over all patches of a stream), or one patch by its stream and place on the
        grid, ("rgb", time, y, x) or ("spec", time, mel), which has a map of its own stream only.
        `layers` counts from 0, or from the end when negative; None: all that have the query, but
        the last one of the bottleneck, whose reading no answer depends on.
        """
        if not isinstance(clip, Clip):
            clip = features.read_views(clip, self.clip_config)[0].clip
        layers, token, words = tuple(layers) if layers is not None else None, 0, query
        if not isinstance(query, str):
            query, token = query[0], self._token(*query)
            words = f"{words[0]} patch {words[1:]}"
        batch = _stack([self._only_own(clip)])
        _, rows = attention_rows(MBT(self.config), self.params, batch, query, layers, token)
        grids = {
            stream: np.asarray(maps[0]).reshape(*maps.shape[1:4], *self.config.grid(stream))
            for stream, maps in rows.items()
        }
        shown = tuple(query_layers(self.config, query, layers))
        return AttentionMaps(shown, words, grids.get("rgb"), grids.get("spec"))

    def _token(self, stream: str, *place: int) -> int:
        """The number of a patch from its place on the stream's grid."""
        if stream not in self.config.streams:
            raise ValueError(f"query: this model has no stream {stream!r}.")
        grid = self.config.grid(stream)
        if len(place) != len(grid) or not all(0 <= i < n for i, n in zip(place, grid, strict=True)):
            raise ValueError(f"query: {place} is no place on the {stream} grid of {grid}.")
        return int(np.ravel_multi_index(place, grid))

    @property
    def caution(self) -> str:
        """What to know about the weights before believing their answers; usually empty."""
        return self.card.get("caution") or ""

    def save(self, path: str | Path, dtype: str = "float32") -> Path:
        """Save a folder to share, or one weights file if the path ends in .safetensors.

        The folder gets model.safetensors, config.json and a README.md that is its model card;
        `load` reads both kinds, and everything it needs is in the safetensors file alone. With
        dtype "bfloat16" the file is half as large, and rounded.
        """
        path = Path(path)
        if path.is_file() and path.suffix != ".safetensors":
            raise ValueError(f"{path} is a file; name a folder, or a file ending in .safetensors.")
        card = {name: value for name, value in self.card.items() if name != "licence"}
        about = {"clip": self.clip_config, "labels": self.labels, "card": card}
        about |= {"label_heads": [to_dict(head) for head in self.label_heads]}
        about |= {"licence": self.card.get("licence")}
        if path.suffix == ".safetensors":
            return checkpoints.save(path, self.params, self.config, dtype=dtype, **about)
        target = path / "model.safetensors"
        checkpoints.save(target, self.params, self.config, dtype=dtype, **about)
        values = {"format": "mbt_lite", "model": to_dict(self.config), **about}
        values["clip"] = to_dict(self.clip_config)
        write_text(path / "config.json", json.dumps(values, indent=1) + "\n")
        named = self.card | {"probabilities": in_words(self.label_heads)}
        words = model_card(self.config, self.clip_config, self.labels, named, dtype)
        write_text(path / "README.md", words)
        return path

    def _only_own(self, clip: Clip) -> Clip:
        """The clip without streams that this model does not have."""
        return Clip(**{s: getattr(clip, s) for s in self.config.streams})


def _check_clip(config: MBTConfig, clip: ClipConfig, source: str) -> None:
    """ValueError where clips that are read so would not fit the model."""
    shapes = {"rgb": (clip.frames, clip.size, clip.size)}
    shapes |= {"spec": (clip.spec_frames, clip.front_end.mels)}
    for stream in config.streams:
        if config.grid_of(stream, shapes[stream]) != config.grid(stream):
            raise ValueError(
                f"{source}: clips of {stream} {shapes[stream]} do not fit its model of {stream} "
                f"{config.shape(stream)}; get it anew, or choose another front end."
            )


def _uncovered(windows: Sequence[tuple[float, float]], seconds: float | None) -> tuple[str, ...]:
    """What to say where the windows leave more of a file out than a tenth of one."""
    lengths = [end - start for start, end in windows]
    if not seconds or sum(lengths) >= seconds - 0.11 * max(lengths):
        return ()
    return (f"{len(windows)} windows do not cover all {seconds:.1f} s; ask for more (views)",)


@partial(jax.jit, static_argnames="config")
def _forward(config: MBTConfig, params: dict, clip: Clip) -> Output:
    return MBT(config).apply({"params": params}, clip)


def _stack(clips: list[Clip]) -> Clip:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *clips)


def load(
    source: str | Path = "world-tiny",
    *,
    front_end: str | FrontEnd | None = None,
    loss: str | None = None,
    **overrides,
) -> Classifier:
    """Load a `Classifier`: a name of the zoo, a weights file, a folder or "hf://user/repo".

    A released model's weights are fetched and converted on first use. `front_end` is what to hear
    with instead of the model's own, or its name for `features.front_end`; `loss` ("sigmoid" or
    "softmax") what it was trained with, where the file does not say so; `overrides` set what array
    shapes cannot tell (`heads`, `fusion_layer`, ...). Raises ValueError with a sentence where no
    whole model can be had.
    """
    config, params, meta = checkpoints.load(weights(source), **overrides)
    foreign = meta["clip"] is None
    card = {**(meta.get("card") or {}), "licence": meta["licence"]}
    card |= {name: meta[name] for name in ("name", "source") if meta.get(name)}
    clip_config = _released_clip(config) if foreign else meta["clip"]
    labels, nameless = _labels(meta["labels"], config.classes)
    heads, unsaid = _heads(meta, card, labels, loss)
    cautions = [zoo.CAUTION if foreign else meta.get("caution") or card.get("caution"), nameless]
    card["caution"] = " ".join(filter(None, [*cautions, unsaid]))
    if loss is not None:
        card["caution"] = card["caution"].replace(UNSAID, "").strip()
    if front_end is not None:
        named = isinstance(front_end, str)
        front_end = features.front_end(front_end) if named else front_end
        clip_config = replace(clip_config, front_end=front_end)
        if card["caution"]:
            card["caution"] += f' Here they hear through "{front_end.name}", as asked.'
    if not foreign:
        _check_clip(config, clip_config, str(source))
    return Classifier(config, params, clip_config, labels, card, heads)


def weights(source: str | Path) -> Path:
    """Find the file or folder of a model; fetch it first if it is a zoo name or hub address."""
    if str(source).startswith("hf://"):
        return hub_file(str(source))
    if found := address(source):
        raise ValueError(f"{found}: addresses are not opened but for hf://user/repo; {DOWNLOAD}.")
    path = Path(source)
    if (path / "experiment.json").exists() and not (path / "model.safetensors").is_file():
        raise ValueError(f"the training in {source} has not finished; give its command again.")
    if path.exists():
        return path
    try:
        name = zoo.entry(str(source)).name
    except ValueError as error:
        raise ValueError(f"{source} is no file, and {error}") from None
    return zoo.fetch(name)


def _labels(known: Sequence[str] | None, classes: int) -> tuple[Sequence[str], str]:
    """The classes' names, AudioSet's where a file of 527 has none; and why they are but numbers."""
    if known:
        return known, ""
    numbers = [f"class {i}" for i in range(classes)]
    if classes != BASE.classes:
        return numbers, "The file does not name its classes."
    try:
        return zoo.audioset_labels(), ""
    except (ValueError, OSError) as error:
        return numbers, f"The classes have no names yet: {error}"


def _heads(
    meta: dict, card: dict, labels: Sequence[str], loss: str | None
) -> tuple[tuple[Head, ...], str]:
    """The heads that a file names or was trained with; and what to say where it does not tell.

    Files of ours from before heads were kept have the settings of their training, if any.
    """
    if loss is None and meta.get("label_heads"):
        return read_heads(meta["label_heads"], len(labels)), ""
    training = card.get("training")
    if loss is None and isinstance(training, dict):
        loss = training.get("loss", "sigmoid")
    foreign = meta["clip"] is None and len(labels) == BASE.classes
    known = loss or foreign or zoo.find(str(card.get("name")))
    return make_heads(loss or "sigmoid", labels), "" if known else UNSAID


def _released_clip(config: MBTConfig) -> ClipConfig:
    """The released models' way to see and hear, in the size that a model without one asks for."""
    frames, size, _ = config.rgb_shape
    return replace(
        zoo.released_clip(),
        frames=frames,
        stride=max(1, round(64 / frames)),  # 2.56 s at 25 frames per second, as released
        size=size,
        resize=max(size, round(size * 256 / 224)),
        spec_frames=config.spec_shape[0],
    )
