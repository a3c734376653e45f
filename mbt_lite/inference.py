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
from mbt_lite.checkpoints import formats, zoo
from mbt_lite.checkpoints.download import hub_file
from mbt_lite.checkpoints.model_card import model_card
from mbt_lite.config import BASE, MODALITIES, UNFAMILIAR, ClipConfig, FrontEnd, MBTConfig, to_dict
from mbt_lite.model.familiarity import Familiarity, from_json
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
from mbt_lite.model.mbt import MBT, Clip, Output, Tokens
from mbt_lite.model.observe import attention_rows, query_layers
from mbt_lite.paths import DOWNLOAD, address, write_text
from mbt_lite.progress import Progress, compiling, silent

_UNKNOWN_LOSS = (
    "The file does not say with which loss its model was trained: each label gets its own "
    'probability, by sigmoid; where only one label can be true, load it with loss="softmax".'
)


@dataclass(frozen=True)
class Prediction:
    """Probabilities [C] of the labels, by sigmoid or softmax as in training (see `kind`)."""

    labels: tuple[str, ...]
    probabilities: np.ndarray  # [C]
    streams: dict[str, "Prediction"] = field(default_factory=dict)  # with each stream alone
    notes: tuple[str, ...] = ()  # anything unusual about the file
    caution: str = ""  # what to know about the model before trusting it
    label_heads: tuple[Head, ...] = ()  # none: each label has its own sigmoid
    windows: tuple[tuple[float, float], ...] = ()  # s, the parts of the file that were classified
    seconds: float | None = None  # of the whole file, where it is known
    unfamiliar: bool | None = None  # unlike what the model was trained on; None: it cannot tell

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
        """Describe the windows that were classified; empty if the input was a `Clip`."""
        *first, last = [f"{start:.1f}-{end:.1f} s" for start, end in self.windows] or [""]
        windows = " and ".join(filter(None, [", ".join(first), last]))
        length = f" of {self.seconds:.1f} s" if self.seconds else ""
        return f"classified {windows}{length}" if windows else ""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most probable labels with their probabilities, best first.

        A model with several heads (verb, noun) gives `count` of each: the best of each head first,
        then the second of each.
        """
        best = ranked(self.probabilities, self.label_heads, count)
        return [(self.labels[i], float(self.probabilities[i])) for i in best]


@dataclass(frozen=True)
class AttentionMaps:
    """Attention of query tokens to the patches of each stream.

    `rgb` is [L, H, Q, time, y, x], `spec` is [L, H, Q, time, mel]: layers, heads, queries, then the
    stream's grid. A missing stream is None. Rows sum to the share of attention on patches (<= 1).
    """

    layers: tuple[int, ...] | tuple[str, ...]  # or names instead of numbers
    query: str
    rgb: np.ndarray | None
    spec: np.ndarray | None

    def mean(self, stream: str, layer: int = -1, head: int | None = None, token: int | None = None):
        """Average over heads and query tokens (unless one is chosen) to one map over the grid.

        `layer` is an index into `layers`, not the number of a layer of the model.
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
        familiarity: Familiarity | None = None,
    ):
        """Without `label_heads` each label has its own sigmoid."""
        if len(labels) != config.classes:
            raise ValueError(f"{len(labels)} labels do not fit a head of {config.classes} classes.")
        self.config, self.params, self.clip_config = config, params, clip_config
        self.labels, self.card, self.familiarity = tuple(labels), card or {}, familiarity
        self._blank: dict[str, jax.Array] = {}  # the prefix of each stream without content
        self.label_heads = tuple(label_heads or make_heads("sigmoid", labels))
        check_heads(self.label_heads, config.classes)

    def __repr__(self) -> str:
        name, cost = self.card.get("name") or "model", model_cost(self.config)
        return (
            f"<Classifier {name}: {' and '.join(self.config.streams)}, {len(self.labels)} labels, "
            f"{cost.parameters:,} parameters>"
        )

    def output(self, clip: Clip | Tokens, without: str | None = None) -> Output:
        """Run the model on a batched clip or its `prefix`; `without` blanks one stream."""
        if without and isinstance(clip, Clip):
            clip = features.blank(clip, without, self.clip_config.front_end)
        elif without:
            shape = getattr(clip, without).shape
            clip = clip._replace(**{without: jnp.broadcast_to(self._blank_prefix(without), shape)})
        return _forward(self.config, self.params, clip)

    def logits(self, clip: Clip | Tokens, without: str | None = None) -> np.ndarray:
        """Compute the logits [B, C] of `output`."""
        return np.asarray(self.output(clip, without).logits)

    def features(self, clip: Clip | Tokens, without: str | None = None) -> np.ndarray:
        """Compute the features [B, D] of `output`: what the head reads, the mean over streams."""
        return np.asarray(self.output(clip, without).features)

    def is_unfamiliar(self, clip: Clip) -> bool | None:
        """Whether a `Clip` without batch axis is unlike the training clips; None if unknown."""
        if not self.familiarity:
            return None
        return self.familiarity.is_unfamiliar(self.features(self._batch([clip])))

    def prefix(self, clip: Clip) -> Tokens:
        """Compute the layers below fusion of a batched clip, for several calls of `logits`.

        No stream depends on the other there, so that the streams of two prefixes may be combined.
        """
        return _prefix(self.config, self.params, clip)

    def _blank_prefix(self, stream: str) -> jax.Array:
        """The prefix [1, N, D] of a blanked stream, which is the same for all clips."""
        if stream not in self._blank:
            clip = Clip(**{stream: jnp.zeros((1, *self.config.shape(stream), 3))})
            clip = features.blank(clip, stream, self.clip_config.front_end)
            self._blank[stream] = getattr(self.prefix(clip), stream)
        return self._blank[stream]

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

        A file is read in `views` evenly spread windows (or one from `start` seconds on); by default
        in as many as cover it, up to 4. Their logits are averaged, then converted to probabilities;
        `Prediction.windows` are their times. `Prediction.streams` has the predictions with the
        other stream blanked; a stream without content (no audio, black) is left out. `audio_track`
        counts from 1; by default it is the track that players choose. `progress` reports each step:
        reading, compiling, predicting; of a large model, each answer. Raises `media.MediaError` for
        a file that cannot be used.
        """
        if isinstance(clip, Clip):
            return self._predict([clip], self.config.streams, (), progress)
        progress(0, desc="reading")
        config = self.clip_config
        if audio_track is not None:
            config = replace(config, audio_track=audio_track)
        clips = features.read_views(clip, config, views, start)
        notes = tuple(dict.fromkeys(note for view in clips for note in view.notes))
        present = {"rgb": any(v.rgb.any() for v in clips), "spec": any(v.wave.any() for v in clips)}
        streams = [stream for stream in self.config.streams if present[stream]]
        times = {"windows": tuple(view.window for view in clips), "seconds": clips[0].total}
        if views is None and start is None:
            notes += _uncovered(**times)
        return self._predict([view.clip for view in clips], streams, notes, progress, **times)

    def _predict(
        self, clips: list[Clip], streams, notes: tuple[str, ...], progress: Progress, **times
    ) -> Prediction:
        """Predict from both streams, and from each of `streams` with the other one blanked."""
        streams = streams if len(self.config.streams) == 2 else ()
        blanked = {"both": None}  # {what remains: the stream that is blanked}
        for stream in streams:
            other = next(s for s in self.config.streams if s != stream)
            blanked[f"{MODALITIES[stream]} only"] = other
        answer = self._answer_in_steps if streams and self.is_large else self._answer_at_once
        logits, embedded = answer(self._batch(clips), blanked, progress)
        progress(1, desc="done")
        if not np.isfinite(logits).all():
            raise ValueError(
                "the model's logits are not finite (NaN or infinite); its weights may be damaged "
                "or too large."
            )
        fields = {"caution": self.caution, "label_heads": self.label_heads, **times}
        both, *alone = (
            Prediction(self.labels, self.probabilities(x.mean(0)), **fields) for x in logits
        )
        unfamiliar = self.familiarity and self.familiarity.is_unfamiliar(embedded)
        notes = (UNFAMILIAR, *notes) if unfamiliar else notes
        alone = dict(zip(streams, alone, strict=True))
        return replace(both, streams=alone, notes=notes, unfamiliar=unfamiliar)

    def _answer_at_once(
        self, clip: Clip, blanked: dict, progress: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits [conditions, B, C] of all conditions, and features [B, D] of the first one.

        They are one batch, compiled as one program.
        """
        front = self.clip_config.front_end
        clips = [features.blank(clip, s, front) if s else clip for s in blanked.values()]
        batch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *clips)
        compiling(progress, _forward, self.config, self.params, batch)
        progress(1 / 2, desc="predicting")
        output = jax.device_get(self.output(batch))
        logits = output.logits.reshape(len(blanked), -1, len(self.labels))
        return logits, output.features[: logits.shape[1]]

    def _answer_in_steps(
        self, clip: Clip, blanked: dict, progress: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_answer_at_once`, but step by step; the layers below fusion are computed once."""
        compiling(progress, _prefix, self.config, self.params, clip)
        tokens = jax.eval_shape(partial(_prefix, self.config), self.params, clip)
        compiling(progress, _forward, self.config, self.params, tokens)
        progress(0, desc="layers below fusion")
        tokens, outputs = self.prefix(clip), []
        for step, (name, stream) in enumerate(blanked.items(), start=1):
            progress(step / (1 + len(blanked)), desc=name)
            outputs.append(jax.device_get(self.output(tokens, stream)))
        return np.stack([output.logits for output in outputs]), outputs[0].features

    def attention(
        self,
        clip,
        query: str | tuple = "bottleneck",
        layers: Sequence[int] | None = None,
    ) -> AttentionMaps:
        """Compute attention maps of the middle of a video file, or of a `Clip` without batch axis.

        `query` is "bottleneck" (the bottleneck tokens, fused layers only), "cls" (each stream's
        class token), "mean" (the mean over all patches of a stream), or one patch by its stream and
        position on the grid, ("rgb", time, y, x) or ("spec", time, mel), which has a map of its own
        stream only. `layers` counts from 0, or from the end when negative. The default is every
        layer with such tokens, except the bottleneck's last one, which no logit depends on.
        """
        if not isinstance(clip, Clip):
            clip = features.read_views(clip, self.clip_config)[0].clip
        layers, token, title = tuple(layers) if layers is not None else None, 0, query
        if not isinstance(query, str):
            title = f"{query[0]} patch {query[1:]}"
            query, token = query[0], self._token(*query)
        batch = self._batch([clip])
        _, rows = attention_rows(MBT(self.config), self.params, batch, query, layers, token)
        grids = {
            stream: np.asarray(maps[0]).reshape(*maps.shape[1:4], *self.config.grid(stream))
            for stream, maps in rows.items()
        }
        layers = tuple(query_layers(self.config, query, layers))
        return AttentionMaps(layers, title, grids.get("rgb"), grids.get("spec"))

    def _token(self, stream: str, *position: int) -> int:
        """The index of a patch from its position on the stream's grid."""
        if stream not in self.config.streams:
            raise ValueError(f"query: this model has no stream {stream!r}.")
        grid = self.config.grid(stream)
        if len(position) != len(grid) or any(
            not 0 <= i < n for i, n in zip(position, grid, strict=True)
        ):
            raise ValueError(f"query: {position} is no position on the {stream} grid of {grid}.")
        return int(np.ravel_multi_index(position, grid))

    @property
    def is_large(self) -> bool:
        """Whether a CPU takes longer to run the model than to compile it."""
        return model_cost(self.config).parameters > 10_000_000

    @property
    def caution(self) -> str:
        """What to know about the weights before trusting their predictions; usually empty."""
        return self.card.get("caution") or ""

    def save(self, path: str | Path, dtype: str = "float32") -> Path:
        """Save a folder to share, or one weights file if the path ends in .safetensors.

        The folder gets model.safetensors, config.json and a model card, README.md. `load` reads
        both kinds; all it needs is in the safetensors file. With dtype "bfloat16" the file is half
        as large, and every parameter is rounded.
        """
        path = Path(path)
        if path.is_file() and path.suffix != ".safetensors":
            raise ValueError(f"{path} is a file; name a folder, or a file ending in .safetensors.")
        card = {name: value for name, value in self.card.items() if name != "license"}
        about = {"clip": self.clip_config, "labels": self.labels, "card": card}
        about |= {"label_heads": [to_dict(head) for head in self.label_heads]}
        about |= {"license": self.card.get("license")}
        if self.familiarity:
            about |= {"familiarity": self.familiarity.to_json()}
        if path.suffix == ".safetensors":
            return checkpoints.save(path, self.params, self.config, dtype=dtype, **about)
        target = path / "model.safetensors"
        checkpoints.save(target, self.params, self.config, dtype=dtype, **about)
        values = {"format": "mbt_lite", "model": to_dict(self.config), **about}
        values["clip"] = to_dict(self.clip_config)
        values.pop("familiarity", None)
        write_text(path / "config.json", json.dumps(values, indent=1) + "\n")
        card = self.card | {"probabilities": in_words(self.label_heads)}
        readme = model_card(self.config, self.clip_config, self.labels, card, dtype)
        write_text(path / "README.md", readme)
        return path

    def _batch(self, clips: list[Clip]) -> Clip:
        """Stack clips to a batch, without streams that this model does not have."""
        clips = [Clip(**{s: getattr(clip, s) for s in self.config.streams}) for clip in clips]
        return jax.tree.map(lambda *arrays: np.stack(arrays), *clips)


def _check_clip(config: MBTConfig, clip: ClipConfig, source: str) -> None:
    """Raise ValueError if clips of these settings do not fit the model."""
    shapes = {"rgb": (clip.frames, clip.size, clip.size)}
    shapes |= {"spec": (clip.spec_frames, clip.front_end.mels)}
    for stream in config.streams:
        if config.grid_of(stream, shapes[stream]) != config.grid(stream):
            raise ValueError(
                f"{source}: clips of {stream} {shapes[stream]} do not fit its model of {stream} "
                f"{config.shape(stream)}; download it again, or choose another front end."
            )


def _uncovered(windows: Sequence[tuple[float, float]], seconds: float | None) -> tuple[str, ...]:
    """A note if the windows leave out more of a file than a tenth of one window."""
    lengths = [end - start for start, end in windows]
    if not seconds or sum(lengths) >= seconds - 0.11 * max(lengths):
        return ()
    return (f"{len(windows)} windows do not cover all {seconds:.1f} s; ask for more (views)",)


@partial(jax.jit, static_argnames="config")
def _forward(config: MBTConfig, params: dict, clip: Clip | Tokens) -> Output:
    return MBT(config).apply({"params": params}, clip)


@partial(jax.jit, static_argnames="config")
def _prefix(config: MBTConfig, params: dict, clip: Clip) -> Tokens:
    return MBT(config).apply({"params": params}, clip, prefix=True)


def load(
    source: str | Path = "world-tiny",
    *,
    front_end: str | FrontEnd | None = None,
    loss: str | None = None,
    **overrides,
) -> Classifier:
    """Load a `Classifier`: a name of the zoo, a weights file, a folder or "hf://user/repo".

    Weights of the zoo are downloaded and converted on first use. `front_end` replaces the model's
    own (a `FrontEnd`, or a name for `features.front_end`). `loss` ("sigmoid" or "softmax") is the
    one the model was trained with, for files that do not say so. `overrides` set config fields that
    array shapes do not determine (`heads`, `fusion_layer`, ...). Raises ValueError where the model
    cannot be loaded completely.
    """
    place = _find(source)
    if isinstance(place, Path):
        config, params, meta = checkpoints.load(place, **overrides)
    else:
        config, params, meta = zoo.load(place.name, **overrides)
    file = formats.find(place) if isinstance(place, Path) else zoo.fetch(place.name)
    tested = zoo.read_self_test(file) or {}
    foreign = meta["clip"] is None
    card = {**(meta.get("card") or {}), "license": meta["license"]}
    card |= {name: meta[name] for name in ("name", "source") if meta.get(name)}
    clip_config = _released_clip(config) if foreign else meta["clip"]
    if tested.get("front_end"):
        clip_config = replace(clip_config, front_end=tested["front_end"])
    labels, missing_names = _labels(meta["labels"], config.classes)
    heads, unknown_loss = _heads(meta, card, labels, loss)
    untested = zoo.UNTESTED if foreign else meta.get("caution") or card.get("caution")
    cautions = [tested.get("caution") or untested, missing_names]
    card["caution"] = " ".join(filter(None, [*cautions, unknown_loss]))
    if loss is not None:
        card["caution"] = card["caution"].replace(_UNKNOWN_LOSS, "").strip()
    if front_end is not None:
        if isinstance(front_end, str):
            front_end = features.front_end(front_end)
        clip_config = replace(clip_config, front_end=front_end)
        if card["caution"]:
            card["caution"] += f' Here the front end is "{front_end.name}", as requested.'
    if not foreign:
        _check_clip(config, clip_config, str(source))
    familiarity = None
    if meta.get("familiarity") and not overrides:
        try:
            familiarity = from_json(meta["familiarity"], config.representation or config.width)
        except ValueError as error:
            raise ValueError(f"{source}: {error}; get the file anew.") from None
    return Classifier(config, params, clip_config, labels, card, heads, familiarity)


def weights(source: str | Path) -> Path:
    """Return the file or folder of a model; download a zoo name or hub address first."""
    place = _find(source)
    return place if isinstance(place, Path) else zoo.fetch(place.name)


def _find(source: str | Path) -> Path | zoo.Entry:
    """The file or folder that a model is in, or its entry in the zoo."""
    if str(source).startswith("hf://"):
        return hub_file(str(source))
    if url := address(source):
        raise ValueError(f"{url}: the only addresses allowed are hf://user/repo; {DOWNLOAD}.")
    path = Path(source)
    if (path / "experiment.json").exists() and not (path / "model.safetensors").is_file():
        raise ValueError(f"the training in {source} has not finished; run its command again.")
    if path.exists():
        return path
    try:
        return zoo.entry(str(source))
    except ValueError as error:
        raise ValueError(f"{source} is no file, and {error}") from None


def _labels(names: Sequence[str] | None, classes: int) -> tuple[Sequence[str], str]:
    """(class names, caution); 527 unnamed classes get AudioSet's names, others numbers."""
    if names:
        return names, ""
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
    """(label heads, caution): those in the file, or by the loss of its training.

    Older files of ours have no label heads, but the training settings.
    """
    if loss is None and meta.get("label_heads"):
        return read_heads(meta["label_heads"], len(labels)), ""
    training = card.get("training")
    if loss is None and isinstance(training, dict):
        loss = training.get("loss", "sigmoid")
    foreign = meta["clip"] is None and len(labels) == BASE.classes
    certain = loss or foreign or zoo.find(str(card.get("name")))
    return make_heads(loss or "sigmoid", labels), "" if certain else _UNKNOWN_LOSS


def _released_clip(config: MBTConfig) -> ClipConfig:
    """The released models' clip settings, in the input size of a model without settings."""
    frames, size, _ = config.rgb_shape
    return replace(
        zoo.released_clip(),
        frames=frames,
        stride=max(1, round(64 / frames)),  # 2.56 s at 25 frames per second, as released
        size=size,
        resize=max(size, round(size * 256 / 224)),
        spec_frames=config.spec_shape[0],
    )
