"""Turn `Media` into model input: log-mel spectrogram, sampled frames, one `Clip`.

F samples of one FFT   N spectrogram frames   M mel bins   T video frames
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mbt_lite import media
from mbt_lite.config import WORLD_FRONT_END, ClipConfig, FrontEnd
from mbt_lite.media.decode import SAME

if TYPE_CHECKING:  # JAX is imported where it is needed, so that loader processes stay light
    from mbt_lite.model.mbt import Clip

# Every recipe that may have fed the released weights. The paper gives 16 kHz mono, a 25 ms Hamming
# window, a 10 ms hop and 128 log-mel bins; Scenic's loader reads finished spectrograms, applies no
# logarithm and standardises with 1.102 and 2.762, "over the entire unbalanced train set" of
# AudioSet. No natural logarithm of these energies has a mean near 1.1: on four clips of real video
# the ones below gave -1.5 to -3.4 (9 at 16-bit scale), while the energies themselves gave mean 0.78
# and deviation 2.07. Their ratio, 0.38, is near 1.102 / 2.762 = 0.40. Therefore "linear-mel" with
# Scenic's own numbers is the default of the released weights. It stays an open question, and
# `mbt-lite match-front-end` helps to settle it.
#
# Each other mean and std was measured over the audio of the first 100 scenes of world:train with
#   statistics([world.wave(world.scene(0, i)) for i in range(100)], front_end)
# and tests/test_features.py measures them again. Audio of another kind has others.
#
# Recipes that make their filters straight in mel, not in hertz, differ from ours by 0.0025 at most.
FRONT_ENDS = {
    front.name: front
    for front in (
        # The energies as they are, which is all that Scenic's loader would need.
        FrontEnd("linear-mel", compression="none", mean=1.102, std=2.762),
        # librosa's melspectrogram squares them; a user's fork of DMVR stored that.
        FrontEnd("linear-mel-power", compression="none", power=2, mean=6.93, std=41.32),
        # The paper's words with the offsets that are common; 1e-6 is DMVR's, 1e-10 librosa's amin.
        FrontEnd("ln-magnitude-1e-10", offset=1e-10, mean=-1.77, std=1.74),
        FrontEnd("ln-magnitude-1e-6", offset=1e-6, mean=-1.77, std=1.74),
        FrontEnd("ln-magnitude-1e-3", offset=1e-3, mean=-1.76, std=1.72),
        FrontEnd("ln-magnitude-1e-2", offset=1e-2, mean=-1.64, std=1.61),
        FrontEnd("ln-power-1e-10", power=2, offset=1e-10, mean=-3.8, std=3.45),
        FrontEnd("ln-power-1e-6", power=2, offset=1e-6, mean=-3.8, std=3.45),
        FrontEnd("ln-power-1e-3", power=2, offset=1e-3, mean=-3.45, std=3.09),
        FrontEnd("ln-power-1e-2", power=2, offset=1e-2, mean=-2.68, std=2.55),
        # Frames around k * hop, as librosa's default. All others begin there and pad the end, as
        # AV-MAE's 62 and 50 patches over 10 s and 8 s ask for.
        FrontEnd("ln-magnitude-centred", offset=1e-6, centred=True, mean=-1.77, std=1.74),
        # DMVR's own "logmf" with the paper's lengths, and what a user made of it.
        FrontEnd(
            "dmvr-hann", window_fn="hann", low=80.0, high=7600.0, offset=1e-6, mean=-2.05, std=2.18
        ),
        FrontEnd("dmvr-hamming", fft=400, low=80.0, high=7600.0, offset=1e-6, mean=-2.31, std=2.49),
        # The audio models of AudioSet's authors, with 128 bins for their 64.
        FrontEnd("vggish", window_fn="hann", low=125.0, high=7500.0, offset=1e-2, mean=-1.8, std=1.73),
        FrontEnd("yamnet", window_fn="hann", low=125.0, high=7500.0, offset=1e-3, mean=-1.98, std=1.92),
        # 16-bit samples taken as they are.
        FrontEnd("ln-int16", amplitude=32768.0, offset=1.0, mean=8.62, std=1.73),
        # Speech recognition in Lingvo (MelAsrFrontend), which takes the larger of energy and 1
        # where we add 1, and adds a little noise.
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


COVER = 4  # windows of a file, at most, where nobody says how many
BLOCK = 400  # rows of a spectrogram that are made at a time, so that they stay in the cache


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

    Row k covers the samples from k * hop on, or around it; both ends are padded with silence, so
    N = ceil(S / hop). With compression "none" the values are the mel energies themselves.
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
    """Mel energies [N, M] of untapered frames [N, window].

    The squares of the parts are cheaper than a complex magnitude, and SciPy's transform does
    several rows at once.
    """
    from scipy import fft

    tapered = frames * (window_fn(front) * np.float32(front.amplitude))
    spectrum = fft.rfft(tapered, front.fft)  # [N, F/2+1]
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
        room = max((rows - 1) * hop + window - waves.shape[-1] - lead, 0)
        along = [(0, 0)] * (waves.ndim - 1)
        if front.pre_emphasis:
            before = jnp.pad(waves, [*along, (1, 0)])[..., :-1]
            waves = waves - front.pre_emphasis * before
        padded = jnp.pad(waves, [*along, (lead, room)])
        index = hop * np.arange(rows)[:, None] + np.arange(window)  # [N, window]
        tapered = padded[..., index] * (window_fn(front) * np.float32(front.amplitude))
        spectrum = jnp.abs(jnp.fft.rfft(tapered, front.fft))
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
    """One window of a file: what a person sees and hears, and the model's input."""

    rgb: np.ndarray  # uint8 [T, H, W, 3], the sampled and cropped frames
    times: np.ndarray  # [T], s on the file's clock, when the frames were on show
    spec: np.ndarray  # [N, M], log-mel, not standardised
    wave: np.ndarray  # [S], 16 kHz
    start: float  # s, of the audio's window on the file's clock
    notes: tuple[str, ...]  # what was unusual
    front_end: FrontEnd  # that made `spec`
    window: tuple[float, float] = (0.0, 0.0)  # s, from where to where the file was read
    total: float | None = None  # s, of the whole file, where it is known

    @cached_property
    def clip(self) -> Clip:
        """rgb [T, H, W, 3] in [-1, 1] and spec [N, M, 3] standardized; computed on first access."""
        return normalize(self.rgb, self.spec, self.front_end)


def normalize(rgb, spec, front: FrontEnd) -> Clip:
    """Convert uint8 frames [..., T, H, W, 3] and log-mels [..., N, M] to a `Clip`, also in jit.

    Frames go to [-1, 1]; log-mels are standardised and repeated on three channels, because the
    patch kernels of both streams descend from one trained on images (paper, section 4.2).
    """
    import jax.numpy as jnp

    from mbt_lite.model.mbt import Clip

    spec = (jnp.asarray(spec, jnp.float32) - front.mean) / front.std
    return Clip(
        rgb=jnp.asarray(rgb, jnp.float32) / 127.5 - 1,
        spec=jnp.broadcast_to(spec[..., None], (*spec.shape, 3)),
    )


def blank(clip: Clip, stream: str, front: FrontEnd) -> Clip:
    """Blank one stream of a clip: black frames, or the log-mel of digital silence."""
    import jax.numpy as jnp

    value = -1.0 if stream == "rgb" else (front.silence - front.mean) / front.std
    return clip._replace(**{stream: jnp.full_like(getattr(clip, stream), value)})


def read_views(
    path, config: ClipConfig, views: int | None = 1, start: float | None = None
) -> list[View]:
    """Read `views` evenly spaced windows of a video file as model input.

    Video and audio of a window share its middle. One view is the middle of the file, or begins
    at `start` seconds; None is as many as cover the whole file, but not more than `COVER`. A file
    shorter than a window is looped, as the reference does (its sampling wraps around), and
    `View.notes` says so. Raises `media.MediaError` where nothing can be used.
    """
    if views is not None and (views < 1 or (views > 1 and start is not None)):
        raise ValueError(
            f"views={views}, start={start}: ask for one view or more; a start names the only one."
        )
    length = max(config.video_seconds, config.audio_seconds)
    total = media.seconds(path, config.audio_track)
    while True:
        begins = starts(total, length, views) if start is None else [start]
        try:
            return [replace(view, total=total) for view in _views(path, config, begins)]
        except media.PastEnd as error:
            if start is not None:
                raise
            total = error.end  # where what can be decoded ends


def starts(total: float | None, length: float, views: int | None) -> list[float]:
    """Start times of windows of `length` s spaced evenly over `total` s; one window: the middle."""
    last, views = max((total or 0.0) - length, 0.0), views or _covering(total or 0.0, length)
    return [last / 2] if views == 1 else np.linspace(0, last, views).tolist()


def _views(path, config: ClipConfig, begins: list[float]) -> list[View]:
    thin = {"short_side": config.resize, "at": partial(_instants, config)}
    thin["audio_track"] = config.audio_track
    length = max(config.video_seconds, config.audio_seconds)
    return [make_view(media.read(path, start, length, **thin), config) for start in begins]


def _covering(total: float, length: float) -> int:
    """Windows of this length that cover a file; a tenth of one may stay uncovered."""
    return min(max(math.ceil(total / length - 0.1), 1), COVER)


def read_clip(path, config: ClipConfig, start: float | None = None) -> Clip:
    """Read the `Clip` in the middle of a video file, or from `start` seconds on.

    rgb [T, H, W, 3] in [-1, 1], spec [N, M, 3] standardised. What was unusual about the file is
    warned of; `read_views` hands it out instead, with the frames and the audio.
    """
    view = read_views(path, config, start=start)[0]
    if view.notes:
        warnings.warn(f"{path}: {'; '.join(view.notes)}", stacklevel=2)
    return view.clip


def make_view(found: media.Media, config: ClipConfig) -> View:
    """Convert a `Media` window to a `View`."""
    notes = list(found.notes)
    start, wave = _fit_wave(found, config, notes)
    times, rgb = _fit_frames(found, config, notes)
    spec = log_mel(wave, config.front_end)[: config.spec_frames]
    return View(
        rgb=rgb,
        times=found.start + times,
        spec=spec,
        wave=wave,
        start=found.start + start,
        notes=tuple(notes),
        front_end=config.front_end,
        window=(found.start, found.start + found.duration),
        total=found.total,
    )


def _fit_wave(found: media.Media, config: ClipConfig, notes: list[str]):
    """Start within the window, in s, and wave [S] of the audio around the window's middle."""
    samples = config.spec_frames * config.front_end.hop_samples
    wave, length = found.wave, found.duration
    if not len(wave):
        return 0.0, np.zeros(samples, np.float32)
    if length < config.audio_seconds - 0.05:
        notes.append(f"{length:.1f} s of audio looped to {config.audio_seconds:g} s")
    first = max(round((length - config.audio_seconds) / 2 * found.rate), 0)
    return first / found.rate, np.take(wave, first + np.arange(samples), mode="wrap")


def _fit_frames(found: media.Media, config: ClipConfig, notes: list[str]):
    """Times [T] within the window and frames uint8 [T, size, size, 3], those on show then."""
    if not len(found.frames):
        size = (config.frames, config.size, config.size, 3)
        return np.zeros(config.frames), np.zeros(size, np.uint8)
    length = max(found.duration, 1e-3)
    if length < config.video_seconds - 0.05:
        notes.append(f"{length:.1f} s of video looped to {config.video_seconds:g} s")
    wanted = _instants(config, length)
    chosen = np.maximum(np.searchsorted(found.times, wanted + SAME, side="right") - 1, 0)
    unique, place = np.unique(chosen, return_inverse=True)
    return wanted, np.stack([_crop(found.frames[i], config) for i in unique])[place]


def _instants(config: ClipConfig, length: float) -> np.ndarray:
    """[T] in s: when, in a window of this length, the frames are on show; short ones are looped."""
    first = max((length - config.video_seconds) / 2, 0)
    return (first + (np.arange(config.frames) + 0.5) * config.frame_step) % length


def _crop(frame: np.ndarray, config: ClipConfig) -> np.ndarray:
    """The middle square [size, size, 3] of a frame whose short side is brought to `resize`."""
    height, width = frame.shape[:2]
    scale = config.resize / min(height, width)
    if scale != 1:
        size = (max(round(width * scale), config.size), max(round(height * scale), config.size))
        frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
    top, left = ((side - config.size) // 2 for side in frame.shape[:2])
    return frame[top : top + config.size, left : left + config.size]
