"""The tab Play: change the audio, the video or the bottleneck of a clip and ask again.

The sound that is heard here is the very one that the model hears.

S samples
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from mbt_lite import features
from mbt_lite.demo.engine import Asked, Engine
from mbt_lite.demo.markup import HUES, bar, grid, hint, percent
from mbt_lite.demo.player import address
from mbt_lite.explain import Intervention, interventions
from mbt_lite.explain.html.page import data_uri, wav
from mbt_lite.features import View
from mbt_lite.media import RATE

AUDIO_CHOICES = ("as it is", "muted", "of another clip")
VIDEO_CHOICES = ("as it is", "black")
CUTS = {"sound to picture": "rgb", "picture to sound": "spec"}  # who reads no more
SHOWN = 6  # labels
NOTHING = hint("Choose a clip in the tab Ask first; then you can change it here.")


@dataclass(frozen=True)
class Change:
    """What a person wants to be different."""

    audio: str = AUDIO_CHOICES[0]
    later: float = 0.0  # s
    video: str = VIDEO_CHOICES[0]
    emptied: tuple[int, ...] = ()  # bottleneck tokens
    cut: tuple[str, ...] = ()  # keys of CUTS
    other: View | None = None  # whose sound it is instead
    other_name: str = ""

    def words(self) -> Iterator[str]:
        """What is different, piece by piece."""
        if self.audio == AUDIO_CHOICES[1]:
            yield "the sound is muted"
        if self.audio == AUDIO_CHOICES[2]:
            yield f"the sound is that of {self.other_name}"
        if self.later and self.audio != AUDIO_CHOICES[1]:
            side = "later" if self.later > 0 else "earlier"
            yield f"the sound comes {abs(self.later):.1f} s {side}"
        if self.video == VIDEO_CHOICES[1]:
            yield "the picture is black"
        for token in self.emptied:
            yield f"bottleneck token {token} is kept empty"
        for direction in self.cut:
            yield f"nothing goes from {direction.replace(' to ', ' to the ')}"


def fits(other: View | None, view: View) -> bool:
    """Whether there is another clip, read for the same model, which may have changed since."""
    return other is not None and other.wave.shape == view.wave.shape


def changed_view(view: View, change: Change) -> View:
    """The view as the model gets it after a change; of bottleneck tokens and cuts it knows nothing."""
    wave = view.wave
    if change.audio == AUDIO_CHOICES[1]:
        wave = np.zeros_like(wave)
    elif change.audio == AUDIO_CHOICES[2] and change.other is not None:
        wave = change.other.wave
    wave = later(wave, change.later)
    spec = features.log_mel(wave, view.front_end)[: len(view.spec)]
    rgb = np.zeros_like(view.rgb) if change.video == VIDEO_CHOICES[1] else view.rgb
    return replace(view, wave=wave, spec=spec, rgb=rgb)


def later(wave: np.ndarray, seconds: float) -> np.ndarray:
    """The wave [S] that begins so much later, or earlier; silence moves in."""
    samples = round(seconds * RATE)
    moved = np.zeros_like(wave)
    if samples >= 0:
        moved[samples:] = wave[: len(wave) - samples]
    else:
        moved[:samples] = wave[-samples:]
    return moved


def ask_changed(engine: Engine, view: View, change: Change) -> dict[str, float]:
    """Probabilities by label of the changed clip, best first, by both senses."""
    classifier = engine.classifier
    one = interventions.batched(classifier, changed_view(view, change))
    done = interventions.operated(classifier, one, [operation(classifier.config, change)])
    return engine.by_label(classifier.probabilities(done.logits[0, 0]))


def operation(config, change: Change) -> interventions.Edits:
    """All interventions of a change as one `Edits`."""
    wanted = [Intervention("zero", token=token) for token in change.emptied]
    wanted += [Intervention("knockout", reader=CUTS[direction]) for direction in change.cut]
    parts = [
        interventions.untouched(config),
        *(interventions.edits(config, one) for one in wanted),
    ]
    *switches, values = zip(*parts, strict=True)
    return interventions.Edits(*(np.logical_or.reduce(each) for each in switches), values[0])


def report(engine: Engine, asked: Asked, change: Change) -> str:
    """The changed clip to see and hear, and bars of what changed."""
    before, after = asked.answers["both"], ask_changed(engine, asked.view, change)
    seconds = engine.classifier.clip_config.audio_seconds
    bars = _bars(before, after, list(change.words()), asked.label)
    return grid([_screen(asked, change, seconds), bars], 300)


def _screen(asked: Asked, change: Change, seconds: float) -> str:
    """The part of the clip that the model gets, changed."""
    view = changed_view(asked.view, change)
    black = " black" * (change.video == VIDEO_CHOICES[1])
    audio = data_uri(wav(view.wave), "audio/wav")
    return (
        f'<clip-player data-offset="{asked.reading.playable_start}" data-from="{view.start:.3f}"'
        f' data-to="{view.start + seconds:.3f}"><div class="screen{black}">'
        f'<video controls playsinline muted data-mute preload="auto" src="{escape(address(asked))}"'
        f' aria-label="the changed clip"></video><audio src="{audio}"></audio></div>'
        f'<p class="small">Press play: this is what the model now sees and hears.</p></clip-player>'
    )


def _bars(
    before: dict[str, float], after: dict[str, float], words: Sequence[str], label: str
) -> str:
    """Two bars a label, as it was and after the change; `label` is always among them."""
    told = f"You changed: {'; '.join(words)}." if words else "Nothing is changed yet."
    most = max(before, key=lambda label: abs(after[label] - before[label]))
    chosen = _chosen(before, after, [label, most])
    rows = "".join(_row(label, before[label], after[label]) for label in chosen)
    return (
        f'<section class="changes" style="--hue:{HUES["both"]}"><h3>What it says now</h3>'
        f'<p aria-live="polite">{escape(f"{told} {_told(most, before[most], after[most])}")}</p>'
        f'<p class="key"><span class="was"></span> as it was <span class="is"></span> now</p>'
        f"<ol>{rows}</ol></section>"
    )


def _row(label: str, was: float, now: float) -> str:
    return (
        f"<li><span>{escape(label)}</span><span>{percent(was)} → <b>{percent(now)}</b></span>"
        f'<span class="was">{bar(was)}</span><span class="is">{bar(now)}</span></li>'
    )


def _chosen(before: dict[str, float], after: dict[str, float], always: Sequence[str]) -> list[str]:
    """`always` and the labels that are or were likeliest, in the old order, which bars keep."""
    wanted = dict.fromkeys([*always, *list(before)[: SHOWN - 2], *list(after)[: SHOWN - 2]])
    return sorted(list(wanted)[:SHOWN], key=lambda label: -before[label])


def _told(label: str, was: float, now: float) -> str:
    """How the label that changed most did so, in a sentence."""
    if abs(now - was) < 0.05:
        return "The answer stays nearly the same."
    turned = "rises" if now > was else "falls"
    return f"Most of all, “{label}” {turned} from {percent(was)} to {percent(now)}."
