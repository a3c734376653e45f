"""Turn `Media` into model input: log-mel spectrogram, sampled frames, one `Clip`.

F samples of one FFT   N spectrogram frames   M mel bins   T video frames
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mbt_lite import media
from mbt_lite.config import WORLD_FRONT_END, ClipConfig, FrontEnd
from mbt_lite.media.decode import SAME

if TYPE_CHECKING:  # JAX is imported where it is needed, so that loader processes stay light
    from mbt_lite.model.mbt import Clip

# Candidates for the front end of the released weights. The paper gives 16 kHz mono, a 25 ms Hamming
# window, a 10 ms hop and 128 log-mel bins; Scenic's loader reads stored spectrograms, applies no
# logarithm, and standardizes with 1.102 and 2.762, "over the entire unbalanced train set" of
# AudioSet. No natural logarithm of these energies has a mean near 1.1: on four clips of real video
# the presets below gave -1.5 to -3.4 (9 at 16-bit scale), while the energies themselves gave a mean
# of 0.78 and a deviation of 2.07. Their ratio, 0.38, is near 1.102 / 2.762 = 0.40, so "linear-mel"
# with these numbers is a candidate. The question is open; `mbt-lite zoo verify` asks the weights.
#
# Every other mean and std was measured over the audio of the first 100 scenes of world:train with
#   statistics([world.wave(world.scene(0, i)) for i in range(100)], front_end)
# and tests/test_features.py measures them again. Audio of another kind has other statistics.
#
# Libraries that build their filters in mel instead of hertz differ from ours by at most 0.0025.
FRONT_ENDS = {
    front.name: front
    for front in (
        # Energies without a logarithm, as Scenic's loader would need them.
        FrontEnd("linear-mel", compression="none", mean=1.102, std=2.762),
        # Squared, as in librosa's melspectrogram; a user's fork of DMVR stored these.
        FrontEnd("linear-mel-power", compression="none", power=2, mean=6.93, std=41.32),
        # The paper's description with common offsets; 1e-6 is DMVR's, 1e-10 librosa's amin.
        FrontEnd("ln-magnitude-1e-10", offset=1e-10, mean=-1.77, std=1.74),
        FrontEnd("ln-magnitude-1e-6", offset=1e-6, mean=-1.77, std=1.74),
        FrontEnd("ln-magnitude-1e-3", offset=1e-3, mean=-1.76, std=1.72),
        FrontEnd("ln-magnitude-1e-2", offset=1e-2, mean=-1.64, std=1.61),
        FrontEnd("ln-power-1e-10", power=2, offset=1e-10, mean=-3.8, std=3.45),
        FrontEnd("ln-power-1e-6", power=2, offset=1e-6, mean=-3.8, std=3.45),
        FrontEnd("ln-power-1e-3", power=2, offset=1e-3, mean=-3.45, std=3.09),
        FrontEnd("ln-power-1e-2", power=2, offset=1e-2, mean=-2.68, std=2.55),
        # Frames centered on k * hop, librosa's default. All others begin there and pad the end,
        # which AV-MAE's 62 and 50 patches over 10 s and 8 s require.
        FrontEnd("ln-magnitude-centered", offset=1e-6, centered=True, mean=-1.77, std=1.74),
        # DMVR's "logmf" with the paper's lengths, and a user's variant of it.
        FrontEnd(
            "dmvr-hann", window_fn="hann", low=80.0, high=7600.0, offset=1e-6, mean=-2.05, std=2.18
        ),
        FrontEnd("dmvr-hamming", fft=400, low=80.0, high=7600.0, offset=1e-6, mean=-2.31, std=2.49),
        # The audio models of AudioSet's authors, with 128 bins for their 64.
        FrontEnd(
            "vggish", window_fn="hann", low=125.0, high=7500.0, offset=1e-2, mean=-1.8, std=1.73
        ),
        FrontEnd(
            "yamnet", window_fn="hann", low=125.0, high=7500.0, offset=1e-3, mean=-1.98, std=1.92
        ),
        # 16-bit samples that are not scaled to [-1, 1].
        FrontEnd("ln-int16", amplitude=32768.0, offset=1.0, mean=8.62, std=1.73),
        # Speech recognition in Lingvo (MelAsrFrontend), which takes max(energy, 1) where we add 1,
        # and adds a little noise.
        FrontEnd(
            "lingvo", fft=1024, window_fn="hann", low=125.0, high=7600.0, offset=1.0,
            amplitude=32768.0, pre_emphasis=0.97, mean=8.65, std=2.16,
        ),
        # Kaldi's fbank as AST and CAV-MAE call it.
        FrontEnd(
            "kaldi", window_fn="hann", low=20.0, high=8000.0, power=2, offset=1.2e-7,
            pre_emphasis=0.97, mean=-5.43, std=4.39,
        ),
        WORLD_FRONT_END,
    )
}  # fmt: skip


COVER = 4  # most windows of a file where `views` is None
SHORT = 0.1  # s that may lack at the end of a window: containers pad the last frame
BLOCK = 400  # spectrogram rows that are computed at a time, so that they stay in the cache


def front_end(name: str) -> FrontEnd:
    """Return the preset of this name, with other statistics as in "yamnet:-1.6:1.6" (mean, std)."""
    preset, *numbers = name.split(":")
    try:
        mean, std = map(float, numbers or ("nan", "nan"))
    except ValueError:
        preset = None
    if preset not in FRONT_ENDS:
        raise ValueError(
            f"there is no front end {name!r}; the presets are {', '.join(FRONT_ENDS)}, as they "
            "are or with a mean and a deviation: linear-mel:0.78:2.07."
        )
    return replace(FRONT_ENDS[preset], mean=mean, std=std) if numbers else FRONT_ENDS[preset]


def hz_to_mel(hz):
    """Convert hertz to HTK mel."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def mel_to_hz(mel):
    """Convert HTK mel to hertz."""
    return 700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0)


@lru_cache(maxsize=32)
def mel_filters(front: FrontEnd) -> np.ndarray:
    """Triangular filters [F/2+1, M] of height 1, evenly spaced on the HTK mel scale."""
    bins = np.linspace(0, front.rate / 2, front.fft // 2 + 1)
    edges = mel_to_hz(np.linspace(hz_to_mel(front.low), hz_to_mel(front.high), front.mels + 2))
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


@lru_cache(maxsize=32)
def filter_groups(front: FrontEnd) -> list[tuple[slice, np.ndarray]]:
    """Group neighboring mel filters, each group with only the bins that it needs."""
    groups = []
    for group in np.array_split(mel_filters(front), max(front.mels // 32, 1), axis=1):
        used = np.flatnonzero(group.any(axis=1))
        bins = slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
        groups.append((bins, np.ascontiguousarray(group[bins])))
    return groups


@lru_cache(maxsize=32)
def window_fn(front: FrontEnd) -> np.ndarray:
    """The periodic Hamming or Hann window [samples] of a front end."""
    floor, n = {"hamming": 0.08, "hann": 0.0}[front.window_fn], front.window_samples
    high, low = (1 + floor) / 2, (1 - floor) / 2
    return (high - low * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


def log_mel(wave: np.ndarray, front: FrontEnd) -> np.ndarray:
    """Compute the log-mel spectrogram [N, M] of a waveform [S] in [-1, 1]; not standardized.

    Row k covers the samples from k * hop on, or centered there; both ends are padded with silence,
    so N = ceil(S / hop). With compression "none" the values are mel energies.
    """
    hop, window, lead = front.hop_samples, front.window_samples, front.left_pad
    rows = -(-len(wave) // hop)
    if front.pre_emphasis:
        wave = wave - np.float32(front.pre_emphasis) * np.append(np.float32(0), wave[:-1])
    padded = np.zeros((max(rows, 1) - 1) * hop + window, np.float32)
    padded[lead : lead + len(wave)] = wave[: len(padded) - lead]
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:rows]  # [N, window]
    blocks = [_energies(frames[i : i + BLOCK], front) for i in range(0, rows, BLOCK)]
    energy = np.concatenate(blocks) if blocks else np.zeros((0, front.mels), np.float32)
    return energy if front.compression == "none" else np.log(energy + np.float32(front.offset))


def _energies(frames: np.ndarray, front: FrontEnd) -> np.ndarray:
    """Mel energies [N, M] of frames [N, window] before the window function.

    Squaring real and imaginary parts is cheaper than a complex magnitude, and SciPy transforms
    several rows at once.
    """
    from scipy import fft

    windowed = frames * (window_fn(front) * np.float32(front.amplitude))
    spectrum = fft.rfft(windowed, front.fft)  # [N, F/2+1]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    values = np.sqrt(power) if front.power == 1 else power
    return np.concatenate([values[:, bins] @ group for bins, group in filter_groups(front)], axis=1)


@lru_cache(maxsize=32)
def _compiled_log_mel(front: FrontEnd):
    import jax
    import jax.numpy as jnp

    @jax.jit
    def log_mels(waves):
        hop, window, lead = front.hop_samples, front.window_samples, front.left_pad
        rows = -(-waves.shape[-1] // hop)
        missing = max((rows - 1) * hop + window - waves.shape[-1] - lead, 0)
        along = [(0, 0)] * (waves.ndim - 1)
        if front.pre_emphasis:
            before = jnp.pad(waves, [*along, (1, 0)])[..., :-1]
            waves = waves - front.pre_emphasis * before
        padded = jnp.pad(waves, [*along, (lead, missing)])
        index = hop * np.arange(rows)[:, None] + np.arange(window)  # [N, window]
        windowed = padded[..., index] * (window_fn(front) * np.float32(front.amplitude))
        spectrum = jnp.abs(jnp.fft.rfft(windowed, front.fft))
        energy = spectrum**front.power @ mel_filters(front)
        return energy if front.compression == "none" else jnp.log(energy + front.offset)

    return log_mels


def log_mels(waves, front: FrontEnd):
    """Compute log-mel spectrograms [..., N, M] of waveforms [..., S] in JAX, as `log_mel`."""
    return _compiled_log_mel(front)(waves)


def statistics(waves: Iterable[np.ndarray], front: FrontEnd) -> tuple[float, float]:
    """Mean and standard deviation of all log-mel values of these waveforms."""
    sums = np.zeros(3)
    for wave in waves:
        values = log_mel(wave, front).astype(np.float64)
        sums += values.size, values.sum(), (values**2).sum()
    mean = sums[1] / sums[0]
    return float(mean), float(np.sqrt(sums[2] / sums[0] - mean**2))


@dataclass(frozen=True)
class View:
    """One window of a file: frames and audio for people, `clip` for the model."""

    rgb: np.ndarray  # uint8 [T, H, W, 3], the sampled and cropped frames
    times: np.ndarray  # [T], s on the file's clock, sampling times of the frames
    spec: np.ndarray  # [N, M], log-mel, not standardized
    wave: np.ndarray  # [S], 16 kHz
    start: float  # s on the file's clock, start of the audio
    notes: tuple[str, ...]  # anything unusual about the file
    front_end: FrontEnd  # of `spec`
    window: tuple[float, float] = (0.0, 0.0)  # s, start and end of the part of the file
    total: float | None = None  # s, length of the file, if known

    @cached_property
    def clip(self) -> Clip:
        """rgb [T, H, W, 3] in [-1, 1] and spec [N, M, 3] standardized; computed on first access."""
        return normalize(self.rgb, self.spec, self.front_end)


def normalize(rgb, spec, front: FrontEnd) -> Clip:
    """Convert uint8 frames [..., T, H, W, 3] and log-mels [..., N, M] to a `Clip`, also in jit.

    Frames are scaled to [-1, 1]; log-mels are standardized and repeated on three channels, because
    the patch kernels of both streams start from one trained on images (paper, section 4.2). NumPy
    arrays give NumPy arrays, so that nothing is compiled; JAX's stay on their device.
    """
    from mbt_lite.model.mbt import Clip

    xp = spec.__array_namespace__()  # numpy or jax.numpy
    spec = (spec.astype(xp.float32) - front.mean) / front.std
    return Clip(
        rgb=rgb.astype(xp.float32) / 127.5 - 1,
        spec=xp.broadcast_to(spec[..., None], (*spec.shape, 3)),
    )


def blank(clip: Clip, stream: str, front: FrontEnd) -> Clip:
    """Blank one stream of a clip: black frames, or the log-mel of digital silence."""
    value, array = -1.0, getattr(clip, stream)
    if stream == "spec":
        value = (front.silence - front.mean) / front.std
    return clip._replace(**{stream: array.__array_namespace__().full_like(array, value)})


def read_views(
    path, config: ClipConfig, views: int | None = 1, start: float | None = None
) -> list[View]:
    """Read `views` evenly spaced windows of a video file as model input.

    Video and audio of a window have the same middle. One view is the middle of the file, or begins
    at `start` seconds; None gives as many as cover the file, but at most `COVER`. A file
    shorter than a window is looped, as in the reference (its sampling wraps around), and
    `View.notes` says so. Raises `media.MediaError` for a file that cannot be used.
    """
    if views is not None and (views < 1 or (views > 1 and start is not None)):
        raise ValueError(
            f"views={views}, start={start}: ask for one view or more; a start names the only one."
        )
    length = max(config.lengths.values())
    total = media.seconds(path, config.audio_track)
    while True:
        begins = starts(total, length, views) if start is None else [start]
        try:
            windows = [_read(path, config, begin, length) for begin in begins]
            return [replace(make_view(window, config), total=total) for window in windows]
        except media.PastEnd as error:
            if start is not None:
                raise
            total = error.end  # the end of what can be decoded


def starts(total: float | None, length: float, views: int | None) -> list[float]:
    """Start times of windows of `length` s spaced evenly over `total` s; one window: the middle."""
    total = total or 0.0
    if views is None:  # a tenth of a window may stay uncovered
        views = min(max(math.ceil(total / length - 0.1), 1), COVER)
    last = max(total - length, 0.0)
    return [last / 2] if views == 1 else np.linspace(0, last, views).tolist()


def read_windows(
    path,
    config: ClipConfig,
    starts: Sequence[Mapping[str, float]],
    clip: tuple[float, float],
    size: tuple[int, int],
    corners: Sequence[tuple[float, float]],
) -> list[View]:
    """Read windows of a clip, the part of a file from `clip` = (start, seconds), as `View`s.

    The streams of a window begin at {stream: s after the clip's start}; all windows have the same
    ones. A stream that runs past the end of the clip goes on at its beginning. `size` and `corners`
    say how frames are cropped, see `crop`. Windows that overlap are decoded together.
    """
    begin, seconds = clip
    first = max(min(start for window in starts for start in window.values()), 0.0)
    lengths = {stream: config.lengths[stream] for stream in starts[0]}
    end = max(start + lengths[stream] for window in starts for stream, start in window.items())
    if end > seconds + SAME:  # a window goes on at the beginning
        first, end = 0.0, seconds
    if len(starts) > 1 and end - first > len(starts) * max(lengths.values()):
        pairs = zip(starts, corners, strict=True)
        views = (read_windows(path, config, [a], clip, size, [b]) for a, b in pairs)
        return [view for (view,) in views]
    starts = [{stream: start - first for stream, start in window.items()} for window in starts]
    media_window = _read(path, config, begin + first, end - first, starts)
    return [
        make_view(media_window, config, window, size, corner)
        for window, corner in zip(starts, corners, strict=True)
    ]


def _read(
    path,
    config: ClipConfig,
    start: float,
    length: float,
    starts: Sequence[Mapping[str, float]] = (dict.fromkeys(("rgb", "spec")),),
) -> media.Media:
    """The `Media` of `length` s of a file, with the frames of the windows that begin at `starts`.

    {stream: s after `start`}; None: the window in the middle.
    """
    video, audio = (stream in starts[0] for stream in ("rgb", "spec"))

    def times(length: float) -> np.ndarray:
        return np.concatenate([frame_times(config, length, window["rgb"]) for window in starts])

    return media.read(
        path,
        start,
        length,
        short_side=config.resize,
        only=None if video == audio else "video" if video else "audio",
        audio_track=config.audio_track,
        at=times if video else None,
    )


def read_clip(path, config: ClipConfig, start: float | None = None) -> Clip:
    """Read the `Clip` in the middle of a video file, or from `start` seconds on.

    rgb [T, H, W, 3] in [-1, 1], spec [N, M, 3] standardized. Warns of anything unusual about the
    file; `read_views` returns these notes with the frames and the audio.
    """
    view = read_views(path, config, start=start)[0]
    if view.notes:
        warnings.warn(f"{path}: {'; '.join(view.notes)}", stacklevel=2)
    return view.clip


def make_view(
    window: media.Media,
    config: ClipConfig,
    starts: Mapping[str, float] | None = None,
    size: tuple[int, int] | None = None,
    corner: tuple[float, float] = (0.5, 0.5),
) -> View:
    """Convert a `Media` window to a `View`; video and audio are taken from its middle.

    Or they begin at `starts`, {stream: s after the window's start}. `size`, by default that of the
    model, and `corner` say how frames are cropped, see `crop`.
    """
    notes, starts = list(window.notes), starts or {}
    start, wave = _fit_wave(window, config, starts.get("spec"), notes)
    times, shown = _fit_frames(window, config, starts.get("rgb"), notes)
    size = size or (config.size, config.size)
    unique, places = np.unique(shown, return_inverse=True)
    return View(
        rgb=crop(window.frames[unique], config.resize, size, corner)[places]
        if len(shown)
        else black(config, size),
        times=window.start + times,
        spec=log_mel(wave, config.front_end) if len(window.wave) else silence(config),
        wave=wave,
        start=window.start + start,
        notes=tuple(notes),
        front_end=config.front_end,
        window=(window.start, window.start + window.duration),
        total=window.total,
    )


def _fit_wave(
    window: media.Media, config: ClipConfig, first: float | None, notes: list[str]
) -> tuple[float, np.ndarray]:
    """Start, in s within the window, and samples [S] of the audio; see `make_view`."""
    samples = config.spec_frames * config.front_end.hop_samples
    if not len(window.wave):
        return 0.0, np.zeros(samples, np.float32)
    if window.duration < config.audio_seconds - SHORT:
        notes.append(f"{window.duration:.1f} s of audio looped to {config.audio_seconds:g} s")
    if first is None:
        first = max((window.duration - config.audio_seconds) / 2, 0)
    begin = round(first * window.rate)
    return begin / window.rate, np.take(window.wave, begin + np.arange(samples), mode="wrap")


def _fit_frames(
    window: media.Media, config: ClipConfig, first: float | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Times [T], in s within the window, and the numbers of the frames shown then."""
    if not len(window.frames):
        return np.zeros(config.frames), np.zeros(0, int)
    length = max(window.duration, 1e-3)
    if len(window.frames) > 1 and length < config.video_seconds - SHORT:
        notes.append(f"{length:.1f} s of video looped to {config.video_seconds:g} s")
    times = frame_times(config, length, first)
    return times, np.maximum(np.searchsorted(window.times, times + SAME, side="right") - 1, 0)


def frame_times(config: ClipConfig, length: float, first: float | None = None) -> np.ndarray:
    """Sampling times [T] in s of the frames of a video that begins at `first`, by default centered.

    They are the middles of the steps; beyond `length` s it goes on at the beginning.
    """
    if first is None:
        first = max((length - config.video_seconds) / 2, 0)
    return (first + (np.arange(config.frames) + 0.5) * config.frame_step) % length


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a frame uint8 [H, W, 3] to height and width."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))


def crop(
    frames: np.ndarray,
    short_side: int,
    size: tuple[int, int],
    corner: tuple[float, float] = (0.5, 0.5),
) -> np.ndarray:
    """Resize frames [T, H, W, 3] to this short side, and crop what exceeds `size` (height, width).

    `corner`: the share of the excess that is cut off above and on the left; 0.5 keeps the middle.
    """
    scale = short_side / min(frames.shape[1:3])
    resized = tuple(round(side * scale) for side in frames.shape[1:3])
    if frames.shape[1:3] != resized:
        frames = np.stack([resize(frame, resized) for frame in frames])
    top, left = (
        int(share * max(side - kept, 0))
        for share, side, kept in zip(corner, resized, size, strict=True)
    )
    return frames[:, top : top + size[0], left : left + size[1]]


def black(config: ClipConfig, size: tuple[int, int]) -> np.ndarray:
    """The frames of a clip without video: uint8 [T, *size, 3]."""
    return np.zeros((config.frames, *size, 3), np.uint8)


def silence(config: ClipConfig) -> np.ndarray:
    """The log-mel of a clip without audio: [N, M]."""
    shape = config.spec_frames, config.front_end.mels
    return np.full(shape, config.front_end.silence, np.float32)
