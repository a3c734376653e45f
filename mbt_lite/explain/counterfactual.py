"""Counterfactuals: other audio, no audio, noise, reversed time, shifted audio."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mbt_lite import features
from mbt_lite.config import MODALITIES
from mbt_lite.explain.interventions import column
from mbt_lite.explain.maps import batched
from mbt_lite.inference import Classifier
from mbt_lite.model.label_heads import Head, probabilities
from mbt_lite.model.mbt import Clip, Tokens


@dataclass(frozen=True)
class Swap:
    """Predictions for each video of two clips combined with each audio.

    The methods return numbers in logits for one label. The effect of a modality is the mean change
    from the second clip's to the first clip's, over the two partners; these are the Shapley values
    of two players.
    """

    labels: tuple[str, ...]
    names: tuple[str, str]  # of the clips
    logits: np.ndarray  # [2, 2, C]: video of clip i, audio of clip j
    label_heads: tuple[Head, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """[2, 2, C], by the model's label heads."""
        return probabilities(self.logits, self.label_heads)

    def cells(self, label: str) -> np.ndarray:
        """The label's logits [2, 2]."""
        return self.logits[..., column(self.labels, label)].astype(np.float64)

    def video(self, label: str) -> float:
        """How much the first video, instead of the second, adds to the label's logit."""
        cells = self.cells(label)
        return float((cells[0] - cells[1]).mean())

    def audio(self, label: str) -> float:
        """How much the first audio, instead of the second, adds to the label's logit."""
        cells = self.cells(label)
        return float((cells[:, 0] - cells[:, 1]).mean())

    def interaction(self, label: str) -> float:
        """How much both modalities of the first clip together add beyond their single effects."""
        (both, video), (audio, neither) = self.cells(label)
        return float(both - video - audio + neither)

    def audio_share(self, label: str) -> float | None:
        """The audio's share of the difference between the clips, 0..1.

        It is None where video and audio have opposite effects, or there is no difference.
        """
        video, audio = self.video(label), self.audio(label)
        if video * audio < 0 or abs(video + audio) < 1e-6:
            return None
        return audio / (video + audio)


@dataclass(frozen=True)
class Perturbations:
    """Logits of a clip unchanged, and after perturbations of its video or audio."""

    labels: tuple[str, ...]
    logits: np.ndarray  # [C], of the unchanged clip
    names: tuple[str, ...]  # of the perturbations
    perturbed: np.ndarray  # [K, C]
    label_heads: tuple[Head, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """[1 + K, C], by the model's label heads; the unchanged clip comes first."""
        return probabilities(np.vstack([self.logits, self.perturbed]), self.label_heads)

    def table(self, label: str) -> str:
        """Lines with the label's logit under each perturbation; the unchanged clip comes first."""
        logits = [self.logits, *self.perturbed]
        return _table(self.labels, label, logits, ("as it is", *self.names))


@dataclass(frozen=True)
class Shift:
    """Logits of a clip whose audio is delayed (positive) or advanced."""

    labels: tuple[str, ...]
    seconds: np.ndarray  # [K]
    logits: np.ndarray  # [K, C]
    label_heads: tuple[Head, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """[K, C], by the model's label heads."""
        return probabilities(self.logits, self.label_heads)

    def table(self, label: str) -> str:
        """Lines with the label's logit at each delay of the audio."""
        return _table(self.labels, label, self.logits, [f"{s:+.2f} s" for s in self.seconds])


def _table(labels: Sequence[str], label: str, logits, names: Sequence[str]) -> str:
    at = column(labels, label)
    return "\n".join(f"{row[at]:+8.2f}  {name}" for row, name in zip(logits, names, strict=True))


def swap_audio(
    classifier: Classifier, clip, other, names: tuple[str, str] = ("first", "second")
) -> Swap:
    """Swap the audio of two clips, each a file (its middle), a `View` or a `Clip`."""
    first, second = batched(classifier, clip), batched(classifier, other)
    if any(x is None for x in (*first, *second)):
        raise ValueError("swapping audio needs a model and two clips with both video and audio.")
    return _swap(classifier, first, second, names)


def modality_shapley(classifier: Classifier, clip) -> Swap:
    """Swap a clip with black frames and silence: the Shapley value of each modality."""
    first = second = batched(classifier, clip)
    if any(x is None for x in first):
        raise ValueError("Shapley values of the modalities need both video and audio.")
    for stream in MODALITIES:
        second = features.blank(second, stream, classifier.clip_config.front_end)
    return _swap(classifier, first, second, ("the clip", "nothing"))


def _swap(classifier: Classifier, first: Clip, second: Clip, names: tuple[str, str]) -> Swap:
    prefixes = [classifier.prefix(clip) for clip in (first, second)]
    pairs = [Tokens(rgb=a.rgb, spec=b.spec) for a in prefixes for b in prefixes]
    logits = classifier.logits(_concatenate(pairs)).reshape(2, 2, -1)
    return Swap(classifier.labels, names, logits, classifier.label_heads)


def perturb(classifier: Classifier, clip, seed: int = 0) -> Perturbations:
    """Perturb a file's middle, a `View` or a `Clip` in each way, and classify it.

    The audio is muted and the video black, or either is replaced by noise of its own mean and
    deviation, reversed, or shuffled in time. Reversed audio means the frames of the spectrogram:
    their magnitudes are nearly those of audio played backwards.
    """
    batch, perturbed = batched(classifier, clip), {}
    for stream, blank_name in (("spec", "audio muted"), ("rgb", "video black")):
        if getattr(batch, stream) is None:
            continue
        front = classifier.clip_config.front_end
        perturbed[blank_name] = features.blank(batch, stream, front)
        x = np.asarray(getattr(batch, stream)[0])
        for name, change in _perturbations(seed).items():
            changed = {stream: jnp.asarray(change(x))[None]}
            perturbed[f"{MODALITIES[stream]} {name}"] = batch._replace(**changed)
    logits = _variants(classifier, batch, perturbed.values())
    names = tuple(perturbed)
    return Perturbations(classifier.labels, logits[0], names, logits[1:], classifier.label_heads)


def _perturbations(seed: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Perturbations of one stream [time, ...]; the three channels of the audio stay equal."""
    rng = np.random.default_rng(seed)

    def noise(x: np.ndarray) -> np.ndarray:
        is_video = x.ndim == 4
        shape = x.shape if is_video else (*x.shape[:-1], 1)
        values = x.mean() + x.std() * rng.standard_normal(shape, np.float32)
        return np.broadcast_to(np.clip(values, -1, 1) if is_video else values, x.shape)

    return {
        "replaced by noise": noise,
        "reversed": lambda x: x[::-1],
        "shuffled in time": lambda x: x[rng.permutation(len(x))],
    }


def shift_audio(
    classifier: Classifier, clip, seconds: Sequence[float] = tuple(np.linspace(-2, 2, 17))
) -> Shift:
    """Shift the audio of a file's middle, a `View` or a `Clip`; the gap is silent."""
    batch, front = batched(classifier, clip), classifier.clip_config.front_end
    if batch.spec is None:
        raise ValueError("there is no audio to shift.")
    silence = np.asarray(features.blank(batch, "spec", front).spec)
    shifted = []
    for rows in np.round(np.asarray(seconds) / front.hop).astype(int):
        spec = np.roll(np.asarray(batch.spec), rows, axis=1)
        gap = slice(0, rows) if rows >= 0 else slice(rows, None)
        spec[:, gap] = silence[:, gap]
        shifted.append(batch._replace(spec=jnp.asarray(spec)))
    logits = _variants(classifier, batch, shifted)[1:]
    return Shift(classifier.labels, np.asarray(seconds), logits, classifier.label_heads)


def _variants(classifier: Classifier, clip: Clip, variants: Iterable[Clip]) -> np.ndarray:
    """Logits [1 + K, C] of a clip and of variants, in each of which one stream has changed."""
    prefix = classifier.prefix(clip)
    prefixes = [prefix]
    for variant in variants:
        changed = {
            stream: getattr(variant, stream)
            for stream in classifier.config.streams
            if getattr(variant, stream) is not getattr(clip, stream)
        }
        tokens = classifier.prefix(Clip(**changed))
        prefixes.append(prefix._replace(**{stream: getattr(tokens, stream) for stream in changed}))
    return classifier.logits(_concatenate(prefixes))


def _concatenate(clips: Sequence[Tokens]) -> Tokens:
    """One batch of several batches."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *clips)
