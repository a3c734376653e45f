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
    front_end: FrontEnd | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    colorbar: bool = True,
    start: float = 0.0,
) -> Axes:
    """Axes with a log-mel spectrogram [N, M] or [N, M, 3] over time and frequency.

    With `front_end` the vertical axis is in hertz; without, in mel bins, with a hop of 10 ms. The
    time axis begins at `start` seconds.
    """
    ax = ax or new_figure(6.4, 2.8).subplots()
    image = draw_spectrogram(ax, spec, front_end, AUDIO_MAP, start)
    if colorbar:
        add_colorbar(ax, image, "log-mel")
    return finish(ax, title)


def spectrogram_alt(
    spec: Num[Any, "N M *channels"], front_end: FrontEnd | None = None, start: float = 0.0
) -> str:
    """A sentence such as "spectrogram, 2.0 s, loudest at 0.6 s near 880 Hz"."""
    values, front = one_channel(spec), front_end or FrontEnd()
    length = f"spectrogram, {len(values) * front.hop:.1f} s"
    if np.ptp(values) < 1e-6:
        return f"{length}, the same level throughout"
    row, mel = peak(values)
    return f"{length}, loudest at {start + row * front.hop:.1f} s near {pitch(mel, front_end)}"


def draw_spectrogram(ax: Axes, spec, front_end: FrontEnd | None, cmap: str, start: float):
    """The image of a spectrogram; its pixel (row, column) is (mel bin, spectrogram frame)."""
    values = one_channel(spec)
    image = ax.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=cmap,
        extent=spectrogram_extent(values, front_end, start),
    )
    ax.set(xlabel="time (s)", ylabel="mel bin" if front_end is None else "frequency (Hz)")
    if front_end is not None:
        shown = [hz for hz in HERTZ if front_end.low <= hz <= front_end.high]
        ax.yaxis.set_major_locator(FixedLocator([mel_bin(hz, front_end) for hz in shown]))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_yticklabels([f"{hz:,}" for hz in shown])
    return image


def spectrogram_extent(values, front_end: FrontEnd | None, start: float):
    """Edges of the image in seconds and mel bins; the middle of bin k is at k."""
    frames, mels = values.shape
    return start, start + frames * (front_end or FrontEnd()).hop, -0.5, mels - 0.5


def mel_bin(hz: float, front: FrontEnd) -> float:
    """Place of a frequency on the axis of mel bins; bin k has its peak at k."""
    low, high = hz_to_mel(front.low), hz_to_mel(front.high)
    return float((hz_to_mel(hz) - low) / (high - low) * (front.mels + 1) - 1)


def pitch(mel: int, front: FrontEnd | None) -> str:
    """A mel bin in words: hertz where the front end is known."""
    if front is None:
        return f"mel bin {mel}"
    low, high = hz_to_mel(front.low), hz_to_mel(front.high)
    return f"{float(mel_to_hz(low + (high - low) * (mel + 1) / (front.mels + 1))):.0f} Hz"


def one_channel(spec) -> np.ndarray:
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
