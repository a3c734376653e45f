"""The player: a clip, its answers as subtitles and over time, and its spectrogram.

All of them share the clock of the video; player.js moves the cursors.

C columns of the spectrogram   M mel bins
"""

from collections.abc import Iterator, Sequence
from html import escape
from urllib.parse import quote

import numpy as np

from mbt_lite import plot
from mbt_lite.config import FrontEnd
from mbt_lite.demo.engine import NAMES, AnsweredClip, Window
from mbt_lite.demo.markup import HUES, says
from mbt_lite.explain.html.page import data_uri, png_uri
from mbt_lite.features import View
from mbt_lite.plot.audio import hertz_marks

MAX_COLUMNS = 1200  # of the spectrogram


def address(clip: AnsweredClip) -> str:
    """The address of the clip for the browser: the file, or a copy that every browser plays."""
    if clip.reading.playable:
        return data_uri(clip.reading.playable, "video/mp4")
    return f"gradio_api/file={quote(str(clip.path))}"


def player(clip: AnsweredClip, front: FrontEnd, below: str, beside: str) -> str:
    """The player of a clip, with `below` under the screen and `beside` at its side."""
    offset = clip.reading.playable_start
    track = data_uri(subtitles(clip.windows, offset).encode(), "text/vtt")
    return f"""
<clip-player data-offset="{offset}" data-length="{clip.length:.3f}">
<div class="stage"><div class="screen">
<video controls playsinline preload="auto" src="{escape(address(clip))}"
 aria-label="{escape(clip.title)}">
<track kind="captions" label="What the model says" srclang="en" default
 src="{track}"></video></div>
<div class="beside">{beside}</div>{below}</div>
{_timeline(clip, front)}
</clip-player>"""


def _timeline(clip: AnsweredClip, front: FrontEnd) -> str:
    """The position slider and the lanes below it: the answers by window, and the spectrogram."""
    length = clip.length
    names = [name for name in NAMES if name in clip.answers]
    rows = [_lane(NAMES[n], _segments(clip.windows, n, length), HUES[n]) for n in names]
    return (
        '<div class="timeline"><label class="lane"><span class="name">Position'
        ' <span class="now">0.0 s</span></span><span class="across"><input type="range" min="0"'
        f' max="{length:.2f}" step="0.05" value="0"></span></label>'
        f"{''.join(rows)}{_spectrogram(clip, front)}</div>"
    )


def _lane(name: str, content: str, hue: str) -> str:
    """A row along the time axis, with a cursor."""
    return (
        f'<div class="lane" style="--hue:{hue}"><span class="name">{name}</span>'
        f'<div class="across">{content}<i class="cursor"></i></div></div>'
    )


def _segments(windows: Sequence[Window], name: str, length: float) -> str:
    """A button per window with its answer, which moves the player there."""
    parts = []
    for window, (start, end) in zip(windows, spans(windows), strict=True):
        if name not in window.answers:
            continue
        words = escape(says(window.answers[name]))
        probability = next(iter(window.answers[name].values()))
        parts.append(
            f'<button type="button" class="segment" data-from="{start:.3f}" data-to="{end:.3f}"'
            f' style="left:{start / length:.2%};width:{(end - start) / length:.2%}"'
            f' title="{start:.1f} to {end:.1f} s: {words}"><span>{words}</span>'
            f'<i style="width:{probability:.1%}"></i></button>'
        )
    return "".join(parts)


def spans(windows: Sequence[Window]) -> list[tuple[float, float]]:
    """(start, end) of each window; two that overlap meet in the middle of the overlap."""
    cuts = [
        (min(a.end, (a.end + b.start) / 2), max(b.start, (a.end + b.start) / 2))
        for a, b in zip(windows[:-1], windows[1:], strict=True)
    ]
    starts = [windows[0].start, *(after for _, after in cuts)]
    ends = [*(before for before, _ in cuts), windows[-1].end]
    return list(zip(starts, ends, strict=True))


def subtitles(windows: Sequence[Window], offset: float = 0.0) -> str:
    """WebVTT of the answers, on the clock of a copy that begins at `offset` seconds."""
    return "\n\n".join(["WEBVTT", *_cues(windows, offset)]) + "\n"


def _cues(windows: Sequence[Window], offset: float) -> Iterator[str]:
    for window, (start, end) in zip(windows, spans(windows), strict=True):
        if end > offset:
            words = escape(says(window.answers["both"]), quote=False)
            yield f"{_stamp(max(0.0, start - offset))} --> {_stamp(end - offset)}\n{words}"


def _stamp(seconds: float) -> str:
    """Seconds as WebVTT writes them."""
    whole, milli = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{milli:03}"


def _spectrogram(clip: AnsweredClip, front: FrontEnd) -> str:
    """The lane with the spectrogram of the windows that the model got."""
    views = [view for view in clip.reading.views if view.wave.any()]
    if not views:
        return ""
    uri = png_uri(joined_spectrogram(views, front, clip.length))
    words = plot.spectrogram_alt(clip.view.spec, front, clip.view.start)
    marks = "".join(
        f'<span class="mark" style="bottom:{up:.1%}">{hertz} Hz</span>'
        for hertz, up in hertz_marks(front)[1:]
    )
    image = f'<img src="{uri}" alt="{escape(words)}">{marks}'
    return f'<div class="sound">{_lane("What it heard", image, HUES["audio only"])}</div>'


def joined_spectrogram(views: Sequence[View], front: FrontEnd, length: float) -> np.ndarray:
    """The spectrogram [C, M] of a whole clip from its windows; silent between them."""
    count = max(1, min(MAX_COLUMNS, round(length / front.hop)))
    times = (np.arange(count) + 0.5) * length / count
    silence = min(view.spec.min() for view in views)
    joined = np.full((count, front.mels), silence, np.float32)
    for view in views:
        rows = np.floor((times - view.start) / front.hop).astype(int)
        inside = (rows >= 0) & (rows < len(view.spec))
        joined[inside] = view.spec[rows[inside]]
    return joined
