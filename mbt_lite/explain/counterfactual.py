"""Counterfactuals: other audio, no audio, noise, reversed time, shifted audio."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mbt_lite import features
from mbt_lite.config import MODALITIES
from mbt_lite.explain.maps import batched, label_index
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

    def probabilities(self, label: str) -> np.ndarray:
        """The label's probabilities [2, 2], by the model's label heads."""
        return probabilities(self.logits, self.label_heads)[..., label_index(self.labels, label)]

    def cells(self, label: str) -> np.ndarray:
        """The label's logits [2, 2]."""
        return self.logits[..., label_index(self.labels, label)].astype(np.float64)

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

    def summary(self, label: str) -> str:
        """One line: the effects of video and audio, their interaction, and the audio's share."""
        names = ("video", "audio", "interaction")
        effects = ", ".join(f"{name} {getattr(self, name)(label):+.2f}" for name in names)
        share = self.audio_share(label)
        effects += "" if share is None else f"; {share:.0%} audio"
        return f"logit of {label} with the first clip instead of the second: {effects}"

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
    """Logits of a clip as it is, which comes first, and after each perturbation of one stream."""

    labels: tuple[str, ...]
    names: tuple[str, ...]  # [K]: "as it is", then the perturbations
    logits: np.ndarray  # [K, C]
    label_heads: tuple[Head, ...] = ()

    def probabilities(self, label: str) -> np.ndarray:
        """The label's probabilities [K], by the model's label heads."""
        return probabilities(self.logits, self.label_heads)[..., label_index(self.labels, label)]

    def table(self, label: str) -> str:
        """Lines with the label's logit under each perturbation."""
        logits = self.logits[:, label_index(self.labels, label)]
        return "\n".join(f"{x:+8.2f}  {name}" for x, name in zip(logits, self.names, strict=True))


def swap_audio(
    classifier: Classifier, clip, other, names: tuple[str, str] = ("first", "second")
) -> Swap:
    """Swap the audio of two clips, each a file (its middle), a `View` or a `Clip`."""
    clips = [batched(classifier, each) for each in (clip, other)]
    if any(x is None for each in clips for x in each):
        raise ValueError("swapping audio needs a model and two clips with both video and audio.")
    prefixes = [classifier.prefix(each) for each in clips]
    pairs = [Tokens(rgb=a.rgb, spec=b.spec) for a in prefixes for b in prefixes]
    logits = classifier.logits(_concatenate(pairs)).reshape(2, 2, -1)
    return Swap(classifier.labels, names, logits, classifier.label_heads)


def perturb(classifier: Classifier, clip) -> Perturbations:
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
        for name, change in _perturbations().items():
            changed = {stream: jnp.asarray(change(x))[None]}
            perturbed[f"{MODALITIES[stream]} {name}"] = batch._replace(**changed)
    return _classify(classifier, batch, perturbed)


def _perturbations() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Perturbations of one stream [time, ...]; the three channels of the audio stay equal."""
    rng = np.random.default_rng(0)

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
    classifier: Classifier, clip, seconds: Sequence[float] = (-2, -1.5, -1, -0.5, 0.5, 1, 1.5, 2)
) -> Perturbations:
    """Delay the audio of a file's middle, a `View` or a `Clip`; the gap is silent.

    Negative `seconds` advance it.
    """
    batch, front = batched(classifier, clip), classifier.clip_config.front_end
    if batch.spec is None:
        raise ValueError("there is no audio to shift.")
    silence = np.asarray(features.blank(batch, "spec", front).spec)
    shifted = {}
    for delay in seconds:
        rows = round(delay / front.hop)
        spec = np.roll(np.asarray(batch.spec), rows, axis=1)
        gap = slice(0, rows) if rows >= 0 else slice(rows, None)
        spec[:, gap] = silence[:, gap]
        side = "late" if delay >= 0 else "early"
        shifted[f"audio {abs(delay):.2f} s {side}"] = batch._replace(spec=jnp.asarray(spec))
    return _classify(classifier, batch, shifted)


def _classify(classifier: Classifier, clip: Clip, variants: dict[str, Clip]) -> Perturbations:
    """The `Perturbations` of a clip by variants, in each of which one stream has changed."""
    prefix = classifier.prefix(clip)
    prefixes = [prefix]
    for variant in variants.values():
        changed = {
            stream: getattr(variant, stream)
            for stream in classifier.config.streams
            if getattr(variant, stream) is not getattr(clip, stream)
        }
        tokens = classifier.prefix(Clip(**changed))
        prefixes.append(prefix._replace(**{stream: getattr(tokens, stream) for stream in changed}))
    logits = classifier.logits(_concatenate(prefixes))
    return Perturbations(classifier.labels, ("as it is", *variants), logits, classifier.label_heads)


def _concatenate(clips: Iterable[Tokens]) -> Tokens:
    """One batch of several batches."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *clips)
