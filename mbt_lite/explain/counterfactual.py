"""Counterfactuals: other audio, no audio, noise, reversed time, shifted audio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mbt_lite import features
from mbt_lite.explain.interventions import column
from mbt_lite.explain.maps import batched
from mbt_lite.inference import Classifier
from mbt_lite.model.label_heads import Head, probabilities
from mbt_lite.model.mbt import Clip


@dataclass(frozen=True)
class Swap:
    """Answers to two videos combined with two audio tracks.

    In all methods the numbers are of one label, in logits. An effect is the mean over the two
    partners of the change from the second clip to the first; that of two players who enter in both
    orders, their Shapley values, are the same numbers.
    """

    labels: tuple[str, ...]
    names: tuple[str, str]  # what the clips are called
    logits: np.ndarray  # [2, 2, C]: video of clip i, audio of clip j
    label_heads: tuple[Head, ...] = ()  # how probabilities are made of logits

    @property
    def probabilities(self) -> np.ndarray:
        """[2, 2, C], as the model was trained."""
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
        """How much the two streams of the first clip do together beyond their single effects."""
        (both, video), (audio, none) = self.cells(label)
        return float(both - video - audio + none)

    def audio_share(self, label: str) -> float | None:
        """The audio's part of the difference between the clips, 0..1.

        None where video and audio pull in opposite directions, or nothing differs: then there
        is no whole to have a part of.
        """
        video, audio = self.video(label), self.audio(label)
        whole = video + audio
        if video * audio < 0 or abs(whole) < 1e-6:
            return None
        return audio / whole


@dataclass(frozen=True)
class Perturbations:
    """Logits of a clip unchanged, and after perturbations of its video or audio."""

    labels: tuple[str, ...]
    logits: np.ndarray  # [C], as it is
    names: tuple[str, ...]  # what was done
    perturbed: np.ndarray  # [K, C]
    label_heads: tuple[Head, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """[1 + K, C], as the model was trained, first of the clip as it is."""
        return probabilities(np.vstack([self.logits, self.perturbed]), self.label_heads)

    def table(self, label: str) -> str:
        """Lines with each condition and the label's logit in it, first as it is."""
        at = column(self.labels, label)
        pairs = zip(("as it is", *self.names), [self.logits, *self.perturbed], strict=True)
        return "\n".join(f"{logits[at]:+8.2f}  {name}" for name, logits in pairs)


@dataclass(frozen=True)
class Shift:
    """Logits of a clip whose audio is delayed (positive) or advanced."""

    labels: tuple[str, ...]
    seconds: np.ndarray  # [K]
    logits: np.ndarray  # [K, C]
    label_heads: tuple[Head, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """[K, C], as the model was trained."""
        return probabilities(self.logits, self.label_heads)

    def table(self, label: str) -> str:
        """Lines with the label's logit by the seconds that the audio comes late."""
        logits = self.logits[:, column(self.labels, label)]
        pairs = zip(self.seconds, logits, strict=True)
        return "\n".join(f"{logit:+8.2f}  {seconds:+.2f} s" for seconds, logit in pairs)


def swap_audio(
    classifier: Classifier, clip, other, names: tuple[str, str] = ("first", "second")
) -> Swap:
    """Swap the audio of two clips, each a file (its middle), a `View` or a `Clip`."""
    one, two = batched(classifier, clip), batched(classifier, other)
    if any(x is None for x in (*one, *two)):
        raise ValueError("swapping sounds needs two clips with video and audio, and such a model.")
    pairs = [Clip(rgb=a.rgb, spec=b.spec) for a in (one, two) for b in (one, two)]
    logits = classifier.logits(_together(pairs))
    return Swap(classifier.labels, names, logits.reshape(2, 2, -1), classifier.label_heads)


def modality_shapley(classifier: Classifier, clip) -> Swap:
    """Swap a clip with black frames and silence: the Shapley value of each modality."""
    one, nothing = batched(classifier, clip), batched(classifier, clip)
    for stream in ("rgb", "spec"):
        if getattr(one, stream) is None:
            raise ValueError("sharing an answer among the modalities needs video and audio.")
        nothing = features.blank(nothing, stream, classifier.clip_config.front_end)
    pairs = [Clip(rgb=a.rgb, spec=b.spec) for a in (one, nothing) for b in (one, nothing)]
    logits = classifier.logits(_together(pairs)).reshape(2, 2, -1)
    return Swap(classifier.labels, ("the clip", "nothing"), logits, classifier.label_heads)


def perturb(classifier: Classifier, clip, seed: int = 0) -> Perturbations:
    """Perturb a file's middle, a `View` or a `Clip` in each way, and classify it.

    Muted and blanked are digital silence and black frames; noise has the stream's own mean and
    deviation; reversed and shuffled are its frames (those of the spectrogram: an audio played
    backwards has nearly the same magnitudes) in another order.
    """
    one = batched(classifier, clip)
    done = {}
    for stream, word in (("spec", "audio"), ("rgb", "video")):
        if getattr(one, stream) is None:
            continue
        blank = features.blank(one, stream, classifier.clip_config.front_end)
        done[{"audio": "audio muted", "video": "video black"}[word]] = blank
        for name, change in _changes(seed).items():
            changed = change(np.asarray(getattr(one, stream)[0]))
            done[f"{word} {name}"] = one._replace(**{stream: jnp.asarray(changed)[None]})
    logits = classifier.logits(_together([one, *done.values()]))
    names = tuple(done)
    return Perturbations(classifier.labels, logits[0], names, logits[1:], classifier.label_heads)


def _changes(seed: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What can be done to one stream [time, ...]; the three channels of an audio stay equal."""
    rng = np.random.default_rng(seed)

    def noise(x: np.ndarray) -> np.ndarray:
        shape = x.shape if x.ndim == 4 else (*x.shape[:-1], 1)
        made = x.mean() + x.std() * rng.standard_normal(shape, np.float32)
        return np.broadcast_to(np.clip(made, -1, 1) if x.ndim == 4 else made, x.shape)

    return {
        "replaced by noise": noise,
        "reversed": lambda x: x[::-1],
        "shuffled in time": lambda x: x[rng.permutation(len(x))],
    }


def shift_audio(
    classifier: Classifier, clip, seconds: Sequence[float] = tuple(np.linspace(-2, 2, 17))
) -> Shift:
    """Shift the audio of a file's middle, a `View` or a `Clip`; the gap is silent."""
    one, front = batched(classifier, clip), classifier.clip_config.front_end
    if one.spec is None:
        raise ValueError("there is no audio to shift.")
    silent = np.asarray(features.blank(one, "spec", front).spec)
    spec, moved = np.asarray(one.spec), []
    for rows in np.round(np.asarray(seconds) / front.hop).astype(int):
        late = np.roll(spec, rows, axis=1)
        empty = slice(0, rows) if rows >= 0 else slice(rows, None)
        late[:, empty] = silent[:, empty]
        moved.append(one._replace(spec=jnp.asarray(late)))
    logits = classifier.logits(_together(moved))
    return Shift(classifier.labels, np.asarray(seconds), logits, classifier.label_heads)


def _together(clips: Sequence[Clip]) -> Clip:
    """One batch of several batches of one."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *clips)
