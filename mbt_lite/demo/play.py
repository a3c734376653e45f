"""The tab Play: change the audio, the video or the bottleneck of a clip.

The audio that is played here is the very one that the model gets.

S samples
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from mbt_lite import features
from mbt_lite.demo.engine import AnsweredClip, Engine
from mbt_lite.demo.markup import HUES, bar, grid, hint
from mbt_lite.demo.player import address
from mbt_lite.explain import Intervention, interventions
from mbt_lite.explain.html.page import data_uri, wav
from mbt_lite.features import View
from mbt_lite.media import RATE
from mbt_lite.plot.style import percent

AUDIO_CHOICES = ("as it is", "muted", "of another clip")
VIDEO_CHOICES = ("as it is", "black")
CUTS = {"sound to picture": "rgb", "picture to sound": "spec"}  # the stream that cannot read
BARS = 6  # labels
NO_CLIP = hint("Choose a clip in the tab Ask first; then you can change it here.")


@dataclass(frozen=True)
class Change:
    """What a person changes in a clip or in the model."""

    audio: str = AUDIO_CHOICES[0]
    delay: float = 0.0  # s, of the audio
    video: str = VIDEO_CHOICES[0]
    emptied: tuple[int, ...] = ()  # bottleneck tokens by number
    cut: tuple[str, ...] = ()  # keys of CUTS
    other: View | None = None  # the clip whose audio is used instead
    other_name: str = ""

    def words(self) -> Iterator[str]:
        """Each change in words."""
        if self.audio == AUDIO_CHOICES[1]:
            yield "the sound is muted"
        if self.audio == AUDIO_CHOICES[2]:
            yield f"the sound is that of {self.other_name}"
        if self.delay and self.audio != AUDIO_CHOICES[1]:
            side = "later" if self.delay > 0 else "earlier"
            yield f"the sound comes {abs(self.delay):.1f} s {side}"
        if self.video == VIDEO_CHOICES[1]:
            yield "the picture is black"
        for token in self.emptied:
            yield f"bottleneck token {token} is kept empty"
        for direction in self.cut:
            yield f"nothing goes from {direction.replace(' to ', ' to the ')}"


def _changed_view(view: View, change: Change) -> View:
    """The view after a change of its audio and video, as the model gets it."""
    wave = view.wave
    if change.audio == AUDIO_CHOICES[1]:
        wave = np.zeros_like(wave)
    elif change.audio == AUDIO_CHOICES[2] and change.other is not None:
        wave = change.other.wave
    wave = delayed(wave, change.delay)
    spec = features.log_mel(wave, view.front_end)[: len(view.spec)]
    rgb = np.zeros_like(view.rgb) if change.video == VIDEO_CHOICES[1] else view.rgb
    return replace(view, wave=wave, spec=spec, rgb=rgb)


def delayed(wave: np.ndarray, seconds: float) -> np.ndarray:
    """The wave [S] delayed by `seconds` (earlier if negative), padded with silence."""
    samples = round(seconds * RATE)
    shifted = np.zeros_like(wave)
    if samples >= 0:
        shifted[samples:] = wave[: len(wave) - samples]
    else:
        shifted[:samples] = wave[-samples:]
    return shifted


def ask_changed(engine: Engine, view: View, change: Change) -> dict[str, float]:
    """Probabilities by label of the changed clip, best first."""
    classifier = engine.classifier
    batch = interventions.batched(classifier, _changed_view(view, change))
    output = interventions.operated(classifier, batch, [_edits_of(classifier.config, change)])
    return engine.by_label(classifier.probabilities(output.logits[0, 0]))


def _edits_of(config, change: Change) -> interventions.Edits:
    """All interventions of a change as one `Edits`."""
    chosen = [Intervention("zero", token=token) for token in change.emptied]
    chosen += [Intervention("knockout", reader=CUTS[direction]) for direction in change.cut]
    parts = [
        interventions.untouched(config),
        *(interventions.edits(config, intervention) for intervention in chosen),
    ]
    *switches, values = zip(*parts, strict=True)
    return interventions.Edits(*(np.logical_or.reduce(each) for each in switches), values[0])


def report(engine: Engine, clip: AnsweredClip, change: Change) -> str:
    """The changed clip to watch and hear, and bars of its probabilities before and after."""
    before, after = clip.answers["both"], ask_changed(engine, clip.view, change)
    seconds = engine.classifier.clip_config.audio_seconds
    bars = _bars(before, after, list(change.words()), clip.label)
    return grid([_screen(clip, change, seconds), bars], 300)


def _screen(clip: AnsweredClip, change: Change, seconds: float) -> str:
    """The part of the clip that the model gets, changed."""
    view = _changed_view(clip.view, change)
    black = " black" * (change.video == VIDEO_CHOICES[1])
    audio = data_uri(wav(view.wave), "audio/wav")
    return (
        f'<clip-player data-offset="{clip.reading.playable_start}" data-from="{view.start:.3f}"'
        f' data-to="{view.start + seconds:.3f}"><div class="screen{black}">'
        f'<video controls playsinline muted data-mute preload="auto" src="{escape(address(clip))}"'
        f' aria-label="the changed clip"></video><audio src="{audio}"></audio></div>'
        f'<p class="small">Press play: this is what the model now sees and hears.</p></clip-player>'
    )


def _bars(
    before: dict[str, float], after: dict[str, float], words: Sequence[str], label: str
) -> str:
    """Two bars a label, before and after the change; `label` is always among them."""
    most = max(before, key=lambda label: abs(after[label] - before[label]))
    changes = f"You changed: {'; '.join(words)}." if words else "Nothing is changed yet."
    changes += f" {_largest_change(most, before[most], after[most])}"
    labels = _labels_shown(before, after, [label, most])
    rows = "".join(_row(label, before[label], after[label]) for label in labels)
    return (
        f'<section class="changes" style="--hue:{HUES["both"]}"><h3>What it says now</h3>'
        f'<p aria-live="polite">{escape(changes)}</p>'
        f'<p class="key"><span class="was"></span> as it was <span class="is"></span> now</p>'
        f"<ol>{rows}</ol></section>"
    )


def _row(label: str, was: float, now: float) -> str:
    return (
        f"<li><span>{escape(label)}</span><span>{percent(was)} → <b>{percent(now)}</b></span>"
        f'<span class="was">{bar(was)}</span><span class="is">{bar(now)}</span></li>'
    )


def _labels_shown(
    before: dict[str, float], after: dict[str, float], always: Sequence[str]
) -> list[str]:
    """`always` and the likeliest labels before and after, in their order before the change."""
    labels = dict.fromkeys([*always, *list(before)[: BARS - 2], *list(after)[: BARS - 2]])
    return sorted(list(labels)[:BARS], key=lambda label: -before[label])


def _largest_change(label: str, was: float, now: float) -> str:
    """A sentence about the label that changed most."""
    if abs(now - was) < 0.05:
        return "The answer stays nearly the same."
    verb = "rises" if now > was else "falls"
    return f"Most of all, “{label}” {verb} from {percent(was)} to {percent(now)}."
