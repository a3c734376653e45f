"""Plot spectrograms.   N spectrogram frames   M mel bins"""

from typing import Any

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from mbt_lite.config import FrontEnd
from mbt_lite.features import hz_to_mel, mel_to_hz
from mbt_lite.plot.style import add_colorbar, finish, new_figure

AUDIO_MAP = "magma"
HERTZ = (250, 500, 1000, 2000, 4000)


def spectrogram(
    spec: Num[Any, "N M *channels"],
    front_end: FrontEnd,
    ax: Axes | None = None,
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Axes with a log-mel spectrogram [N, M] or [N, M, 3] over time in seconds and frequency."""
    ax = ax or new_figure(6.4, 2.8).subplots()
    image = draw_spectrogram(ax, spec, front_end, AUDIO_MAP, 0.0)
    if colorbar:
        add_colorbar(ax, image, "log-mel")
    return finish(ax, title)


def spectrogram_alt(
    spec: Num[Any, "N M *channels"], front_end: FrontEnd, start: float = 0.0
) -> str:
    """A sentence such as "spectrogram, 2.0 s, loudest at 0.6 s near 880 Hz"."""
    values = _one_channel(spec)
    length = f"spectrogram, {len(values) * front_end.hop:.1f} s"
    if np.ptp(values) < 1e-6:
        return f"{length}, the same level throughout"
    row, mel = peak(values)
    return f"{length}, loudest at {start + row * front_end.hop:.1f} s near {pitch(mel, front_end)}"


def draw_spectrogram(ax: Axes, spec, front_end: FrontEnd, cmap: str, start: float):
    """The image of a spectrogram; its pixel (row, column) is (mel bin, spectrogram frame)."""
    values = _one_channel(spec)
    image = ax.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=cmap,
        extent=spectrogram_extent(values, front_end, start),
    )
    ax.set(xlabel="time (s)", ylabel="frequency (Hz)")
    marks = _marks(front_end)
    ax.yaxis.set_major_locator(FixedLocator(list(marks.values())))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_yticklabels(marks)
    return image


def spectrogram_extent(values, front_end: FrontEnd, start: float):
    """Edges of the image in seconds and mel bins; the middle of bin k is at k."""
    return start, start + len(values) * front_end.hop, -0.5, values.shape[1] - 0.5


def _marks(front: FrontEnd) -> dict[str, float]:
    """The marks of the axis of mel bins, and their places; bin k has its peak at k."""
    low, high = hz_to_mel(front.low), hz_to_mel(front.high)
    shown = [hz for hz in HERTZ if front.low <= hz <= front.high]
    return {
        f"{hz:,}": float((hz_to_mel(hz) - low) / (high - low) * (front.mels + 1) - 1)
        for hz in shown
    }


def hertz_marks(front: FrontEnd) -> list[tuple[str, float]]:
    """The marks of the pitch axis, and how far up each stands, from 0 to 1."""
    return [(mark, (place + 0.5) / front.mels) for mark, place in _marks(front).items()]


def pitch(mel: int, front: FrontEnd) -> str:
    """The frequency of a mel bin in words, such as "880 Hz"."""
    low, high = hz_to_mel(front.low), hz_to_mel(front.high)
    return f"{float(mel_to_hz(low + (high - low) * (mel + 1) / (front.mels + 1))):.0f} Hz"


def _one_channel(spec) -> np.ndarray:
    """A spectrogram as [N, M]; of the model's three channels, which are copies, the first."""
    values = np.asarray(spec, np.float32)
    if values.ndim != 2 and values.shape[2:] not in ((1,), (3,)):
        raise ValueError(
            f"a spectrogram is [time, mel] or [time, mel, 3], not {list(values.shape)}; take one "
            "clip out of a batch first."
        )
    return values if values.ndim == 2 else values[..., 0]


def peak(array: np.ndarray) -> tuple[int, ...]:
    """The indices of the highest value."""
    return tuple(int(i) for i in np.unravel_index(array.argmax(), array.shape))
