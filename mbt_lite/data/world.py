"""Generate the micro-world: clips of moving shapes and sounds, with an answer key.

Shapes move over a textured background while sounds are heard. Four kinds of classes, one head:

    seen     "circle rises"     a shape and its motion: only the video shows it
    heard    "pitch rises", "bell heard"      an invisible source: only the audio contains it
    both     "siren", "thunder", "rain"       lamp and wail, flash and rumble: either suffices
    matched  "circle sings"     the pitch of a tone follows the height of one of the shapes

The last kind needs both modalities. Video, audio and the choice of the singer are drawn from three
independent random generators; the tone copies the chosen shape's contour, and contours are assigned
to shapes by a uniform shuffle. So given the video every visible shape is equally likely to sing
(1 / number of shapes), and given the audio every kind of shape is equally likely (1 / 4).

A scene is determined by (seed, index). A `Scene` is a description without resolution: training
renders it small and on the fly, `render` writes large mp4 files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mbt_lite import media
from mbt_lite.config import STREAMS, ClipConfig
from mbt_lite.features import log_mel
from mbt_lite.paths import write_text

SECONDS = 2.0
RATE = 16_000  # Hz
SHAPES = ("circle", "ring", "cross", "ladder")
MOTIONS = ("rises", "falls", "arcs", "dips")
EVENTS = ("bell", "hiss", "knocking", "chirping")
BOTH = ("siren", "thunder", "rain")
LABELS = (
    *(f"{shape} {motion}" for shape in SHAPES for motion in MOTIONS),
    *(f"pitch {motion}" for motion in MOTIONS),
    *(f"{event} heard" for event in EVENTS),
    *BOTH,
    *(f"{shape} sings" for shape in SHAPES),
)
AUX_LABELS = (  # predicted in training only: shapes and motions separately
    *(f"{shape} seen" for shape in SHAPES),
    *(f"something {motion}" for motion in MOTIONS),
)
KINDS = {  # kind of class: its columns in LABELS
    "seen": slice(0, 16),
    "heard": slice(16, 24),
    "both": slice(24, 27),
    "matched": slice(27, 31),
}


@dataclass(frozen=True)
class Contour:
    """A motion between -1 and 1, perhaps there and back, over time 0..1."""

    motion: str
    bend: float  # 1: steady; above 1: slow at first; below 1: fast at first

    def __call__(self, u: np.ndarray) -> np.ndarray:
        v = np.clip(u, 0, 1) ** self.bend
        up = 2 * v - 1 if self.motion in ("rises", "falls") else 2 * np.sin(np.pi * v) - 1
        return up if self.motion in ("rises", "arcs") else -up


@dataclass(frozen=True)
class MovingShape:
    """A shape and its motion; lengths are fractions of the frame's side, height points up."""

    shape: str
    contour: Contour
    color: tuple[float, float, float]
    radius: float
    x: float
    sway: float  # amplitude of the sideways motion
    height: float  # of the middle of the motion
    swing: float  # half the distance between its ends
    tilt: float  # radians

    def center(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Center of the shape at each time, x and y [T]; y points down, as in images."""
        u = times / SECONDS
        x = self.x + self.sway * np.sin(2 * np.pi * (u + self.tilt))
        return x, 1 - (self.height + self.swing * self.contour(u))


@dataclass(frozen=True)
class Tone:
    """A singing voice whose pitch follows a contour."""

    contour: Contour
    middle: float  # Hz
    octaves: float  # half the range
    overtones: tuple[float, ...]  # their amplitudes, the fundamental first
    level: float

    def pitch(self, times: np.ndarray) -> np.ndarray:
        """Fundamental frequency in hertz at each time."""
        return self.middle * 2.0 ** (self.octaves * self.contour(times / SECONDS))


@dataclass(frozen=True)
class Scene:
    """Full description of a clip; `video_seed` and `audio_seed` determine texture and noise."""

    things: tuple[MovingShape, ...]
    singer: int | None  # number of the shape that the tone follows
    tone: Tone | None
    events: tuple[str, ...]  # only heard
    both: tuple[str, ...]  # seen and heard
    beat: float  # time of the flash and speed of the lamp, 0..1
    video_seed: int
    audio_seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The true labels."""
        return (
            *(f"{thing.shape} {thing.contour.motion}" for thing in self.things),
            *((f"pitch {self.tone.contour.motion}",) if self.tone else ()),
            *(f"{event} heard" for event in self.events),
            *self.both,
            *((f"{self.things[self.singer].shape} sings",) if self.singer is not None else ()),
        )

    @property
    def labels(self) -> np.ndarray:
        """The true labels as a multi-hot row [31]."""
        return np.isin(LABELS, self.names).astype(np.float32)

    @property
    def aux_labels(self) -> np.ndarray:
        """The true labels of `AUX_LABELS` as a multi-hot row [8]."""
        seen = self.labels[KINDS["seen"]].reshape(len(SHAPES), len(MOTIONS))
        return np.concatenate([seen.max(1), seen.max(0)])


def scene(seed: int, index: int) -> Scene:
    """Draw scene number `index` of the world `seed`."""
    video, audio, link = (np.random.default_rng([seed, index, part]) for part in range(3))
    things = _moving_shapes(video)
    fate = link.random()  # 80 %: a shape sings; 10 %: a tone that fits none; 10 %: no tone
    singer = int(link.integers(len(things))) if fate < 0.8 else None
    if fate < 0.8:
        contour = things[singer].contour
    else:
        unseen = [m for m in MOTIONS if m not in [t.contour.motion for t in things]]
        contour = Contour(link.choice(unseen), _bend(link))
    return Scene(
        things=things,
        singer=singer,
        tone=_tone(audio, contour) if fate < 0.9 else None,
        events=tuple(e for e in EVENTS if audio.random() < 0.2),
        both=tuple(b for b in BOTH if link.random() < 0.2),
        beat=float(link.random()),
        video_seed=int(video.integers(2**31)),
        audio_seed=int(audio.integers(2**31)),
    )


def _bend(rng: np.random.Generator) -> float:
    return float(2.0 ** rng.uniform(-0.6, 0.6))


def _moving_shapes(rng: np.random.Generator) -> tuple[MovingShape, ...]:
    count = 2 if rng.random() < 0.7 else 3
    shapes, motions = rng.permutation(SHAPES)[:count], rng.permutation(MOTIONS)[:count]
    lanes = (rng.permutation(count) + 0.5) / count
    return tuple(
        MovingShape(
            shape=str(shape),
            contour=Contour(str(motion), _bend(rng)),
            color=tuple(float(c) for c in rng.permutation([1.0, *rng.uniform(0.45, 1.0, 2)])),
            radius=float(rng.uniform(0.115, 0.155)),
            x=float(lane + rng.uniform(-0.25, 0.25) * (1 / count - 0.3)),
            sway=float(rng.uniform(-0.03, 0.03)),
            height=float(rng.uniform(0.46, 0.54)),
            swing=float(rng.uniform(0.2, 0.3)),
            tilt=float(rng.uniform(-0.15, 0.15)),
        )
        for shape, motion, lane in zip(shapes, motions, lanes, strict=True)
    )


def _tone(rng: np.random.Generator, contour: Contour) -> Tone:
    return Tone(
        contour=contour,
        middle=float(400 * 2 ** rng.uniform(0, 1)),
        octaves=float(rng.uniform(0.35, 0.6)),
        overtones=(1.0, *(float(x) for x in rng.uniform(0.1, 0.6, rng.integers(1, 4)))),
        level=float(rng.uniform(0.12, 0.3)),
    )


# --- video -----------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _pixels(size: int) -> np.ndarray:
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


@lru_cache(maxsize=16)
def _interpolation(cells: int, size: int) -> np.ndarray:
    """Linear interpolation [size, cells] from knots to pixels."""
    place = _pixels(size)[:, None] * (cells - 1) - np.arange(cells)
    return np.maximum(0, 1 - np.abs(place)).astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background [H, W, 3] in 0..1: a color with smooth noise at two scales."""
    ground = np.full((size, size, 3), rng.uniform(0.1, 0.45, 3), np.float32)
    for cells in (4, 16):
        knots = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32) * rng.uniform(0.02, 0.12)
        to_pixels = _interpolation(cells, size)
        ground += np.einsum("yi,ijc,xj->yxc", to_pixels, knots, to_pixels, optimize=True)
    return ground


def _coverage(thing: MovingShape, times: np.ndarray, size: int) -> np.ndarray:
    """Fraction of each pixel [T, H, W] that a shape covers, 0..1."""
    x, y = (c.astype(np.float32) for c in thing.center(times))
    right = _pixels(size)[None, None, :] - x[:, None, None]
    down = _pixels(size)[None, :, None] - y[:, None, None]
    cos, sin = np.float32(np.cos(thing.tilt)), np.float32(np.sin(thing.tilt))
    a, b = cos * right + sin * down, cos * down - sin * right
    return np.clip(0.5 - size * _distance(thing.shape, a, b, thing.radius), 0, 1)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """Signed distance to the outline, negative inside."""
    if shape == "circle":
        return np.sqrt(x * x + y * y) - np.float32(r)
    if shape == "ring":
        return np.abs(np.sqrt(x * x + y * y) - np.float32(0.75 * r)) - np.float32(0.3 * r)
    long, arm = np.float32(1.15 * r), np.float32(0.36 * r)
    x, y = np.abs(x), np.abs(y)
    if shape == "cross":
        return np.minimum(np.maximum(x - long, y - arm), np.maximum(y - long, x - arm))
    rungs = np.minimum(np.abs(y - np.float32(0.8 * r)), y) - np.float32(0.2 * r)  # a ladder
    return np.maximum(x - r, rungs)


def _lamp(scene: Scene, rng, times, size) -> tuple[np.ndarray, np.ndarray]:
    """The siren's lamp in an upper corner: coverage [T, H, W] and color [T, 1, 1, 3]."""
    corner, p = rng.choice([0.07, 0.93]), _pixels(size)
    spot = np.exp(-((((p[None, :] - corner) ** 2 + (p[:, None] - 0.07) ** 2) / 0.05**2) ** 2))
    first = (times * _siren_turns(scene)) % 1 < 0.5
    colors = np.where(first[:, None], (1.0, 0.1, 0.1), (0.15, 0.3, 1.0)).astype(np.float32)
    return np.broadcast_to(spot, (len(times), size, size)), colors[:, None, None]


def _siren_turns(scene: Scene) -> float:
    return 1.5 + 1.5 * scene.beat  # Hz


def _flash(scene: Scene, times: np.ndarray) -> np.ndarray:
    """Brightness [T] that lightning adds, decaying from its onset."""
    since = times - _flash_time(scene)
    return np.where(since >= 0, np.exp(-np.maximum(since, 0) / 0.35), 0).astype(np.float32)


def _flash_time(scene: Scene) -> float:
    return 0.1 + 1.2 * scene.beat  # s


def _rain(rng: np.random.Generator, times: np.ndarray, size: int) -> np.ndarray:
    """Coverage [T, H, W] of falling streaks, each a separable bump."""
    drops, p = 36, _pixels(size)
    x, start = rng.random(drops), rng.random(drops)
    y = (start[None] + times[:, None] * rng.uniform(1.0, 1.6, drops)) % 1.2 - 0.1  # [T, drops]
    across = np.exp(-(((p[:, None] - x) / 0.011) ** 2)).astype(np.float32)  # [W, drops]
    along = np.exp(-(((p[:, None] - y[:, None]) / 0.05) ** 2)).astype(np.float32)  # [T, H, drops]
    return np.minimum(along @ across.T, 1)


def frames(scene: Scene, times: np.ndarray, size: int) -> np.ndarray:
    """Render the frames uint8 [T, size, size, 3] at these times (s)."""
    rng = np.random.default_rng(scene.video_seed)
    video = np.broadcast_to(_background(rng, size), (len(times), size, size, 3)).copy()
    for thing in scene.things:
        _paint(video, _coverage(thing, times, size), np.float32(thing.color))
    if "siren" in scene.both:
        _paint(video, *_lamp(scene, rng, times, size))
    if "rain" in scene.both:
        _paint(video, 0.6 * _rain(rng, times, size), np.float32((0.8, 0.85, 1.0)))
    if "thunder" in scene.both:
        video += 0.6 * _flash(scene, times)[:, None, None, None]
    return (np.clip(video, 0, 1) * 255 + 0.5).astype(np.uint8)


def _paint(video: np.ndarray, coverage: np.ndarray, color: np.ndarray) -> None:
    video += coverage[..., None].astype(np.float32) * (color - video)


# --- audio -------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _times() -> np.ndarray:
    return (np.arange(int(SECONDS * RATE)) / RATE).astype(np.float32)


@lru_cache(maxsize=8)
def _noise(color: str) -> np.ndarray:
    """30 s of noise with unit power: white, pink, rumble, hiss or rain."""
    rng = np.random.default_rng(sum(color.encode()))
    count = 30 * RATE
    white = rng.standard_normal(count)
    if color == "rain":
        white *= rng.random(count) < 0.004
    hz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 1)
    shape = {
        "white": np.ones_like(hz),
        "pink": hz**-0.5,
        "rumble": 1 / (1 + (hz / 110) ** 4),
        "hiss": 1 / (1 + (3500 / hz) ** 8),
        "rain": 1 / (1 + ((hz - 2500) / 900) ** 2),
    }[color]
    noise = np.fft.irfft(np.fft.rfft(white) * shape, count)
    return (noise / noise.std()).astype(np.float32)


def _excerpt(rng: np.random.Generator, color: str) -> np.ndarray:
    """A random excerpt of 2 s from the noise."""
    start = rng.integers(len(_noise(color)) - len(_times()))
    return _noise(color)[start : start + len(_times())]


def _sing(tone: Tone) -> np.ndarray:
    t = _times()
    phase = (2 * np.pi / RATE) * np.cumsum(tone.pitch(t))
    wave = sum(level * np.sin((k + 1) * phase) for k, level in enumerate(tone.overtones))
    fade = np.minimum(1, np.minimum(t, SECONDS - t) / 0.05)
    return tone.level * fade * wave


def _decay(start: float, seconds: float) -> np.ndarray:
    since = _times() - np.float32(start)
    return np.where(since >= 0, np.exp(-np.maximum(since, 0) / np.float32(seconds)), 0)


def _bell(rng: np.random.Generator) -> np.ndarray:
    """A strike, then decaying inharmonic partials, which no voice has."""
    hz, start, t = rng.uniform(1200, 1800), rng.uniform(0, 1.2), _times()
    partials = sum(
        a * np.sin(np.float32(2 * np.pi * hz * k) * t)
        for k, a in ((1, 1.0), (1.51, 0.6), (2.63, 0.6), (4.17, 0.6))
    )
    strike = 0.6 * _excerpt(rng, "white") * _decay(start, 0.015)
    return 0.25 * (partials * _decay(start, 0.4) + strike)


def _hiss(rng: np.random.Generator) -> np.ndarray:
    start, length = rng.uniform(0, 1.2), rng.uniform(0.4, 0.8)
    on = (_times() > start) & (_times() < start + length)
    return 0.15 * on * _excerpt(rng, "hiss")


def _repeat(sample: np.ndarray, starts: np.ndarray) -> np.ndarray:
    wave = np.zeros_like(_times())
    for start in (starts * RATE).astype(int):
        piece = wave[start : start + len(sample)]
        piece += sample[: len(piece)]
    return wave


def _knocking(rng: np.random.Generator) -> np.ndarray:
    t = _times()[:1600]
    knock = np.sin(2 * np.pi * rng.uniform(150, 260) * t) * np.exp(-t / 0.02)
    starts = rng.uniform(0, 0.3) + rng.uniform(0.2, 0.35) * np.arange(rng.integers(3, 6))
    return _repeat(0.6 * knock, starts)


def _chirping(rng: np.random.Generator) -> np.ndarray:
    t, low = _times()[:1920], rng.uniform(3000, 4000)
    chirp = np.sin(2 * np.pi * (low * t + 7000 * t * t)) * np.sin(np.pi * t / t[-1])
    starts = rng.uniform(0, 0.3) + rng.uniform(0.18, 0.3) * np.arange(rng.integers(3, 7))
    return _repeat(0.15 * chirp, starts)


def _wail(scene: Scene) -> np.ndarray:
    t = _times()
    high = (t * _siren_turns(scene)) % 1 < 0.5
    phase = (2 * np.pi / RATE) * np.cumsum(np.where(high, 2400.0, 1900.0))
    return 0.1 * np.sign(np.sin(phase)).astype(np.float32)


def _rumble(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    return 0.35 * _excerpt(rng, "rumble") * _decay(_flash_time(scene), 0.6)


def wave(scene: Scene) -> np.ndarray:
    """Synthesize the audio, float32 [2 s at 16 kHz] in [-1, 1]."""
    rng = np.random.default_rng(scene.audio_seed)
    audio = 10 ** rng.uniform(-3.0, -1.7) * _excerpt(rng, rng.choice(["white", "pink"]))
    if scene.tone:
        audio = audio + _sing(scene.tone)
    generators = {"bell": _bell, "hiss": _hiss, "knocking": _knocking, "chirping": _chirping}
    for event in scene.events:
        audio = audio + 10 ** rng.uniform(-0.2, 0.2) * generators[event](rng)
    if "siren" in scene.both:
        audio = audio + _wail(scene)
    if "thunder" in scene.both:
        audio = audio + _rumble(scene, rng)
    if "rain" in scene.both:
        audio = audio + 0.08 * _excerpt(rng, "rain")
    return np.clip(audio * 10 ** rng.uniform(-0.4, 0.1), -1, 1).astype(np.float32)


# --- clips -------------------------------------------------------------------------------------

SPLITS = {"train": 0, "test": 1, "validation": 2}
SAMPLES = {  # name of a sample clip: (its index in the test split, what it shows)
    "circle_sings": (20, "a circle dips, and a tone with it; a cross goes its own way"),
    "ring_sings_with_bell": (
        1,
        "a ring goes up and down, and a tone with it; a bell is heard, but not seen",
    ),
    "ladder_sings_with_siren": (
        14,
        "a ladder rises, and a tone with it; a lamp blinks in step with a siren",
    ),
    "cross_sings_in_rain": (
        264,
        "a cross falls, and a tone with it, in rain that is seen and heard",
    ),
    "nobody_sings": (362, "a ring and a circle move; the tone goes with neither"),
    "thunder_and_knocking": (
        787,
        "two shapes move without a tone; lightning with thunder, and knocking out of sight",
    ),
}


def sample(
    scene: Scene,
    clip: ClipConfig,
    rng: np.random.Generator | None = None,
    streams: Sequence[str] = STREAMS,
) -> dict:
    """Render a training example: rgb uint8 [T, H, W, 3], spec float32 [N, M], labels.

    With `rng` the clip is degraded as by cameras and codecs, and in 8 % of the clips each a stream
    is blanked (black frames, digital silence), so that the model learns to use one modality alone;
    the labels [31] are then followed by those of AUX_LABELS [8]. Fewer `streams` leave the values
    of the others unchanged.
    """
    times = (np.arange(clip.frames) + 0.5) * clip.frame_step
    blank = rng.random() if rng else 1.0
    if rng:
        times = times + rng.uniform(-0.06, 0.06)
    black, silent = blank <= 0.08, 0.08 < blank < 0.16
    if "rgb" in streams and not black:
        video = frames(scene, times, clip.size)
    else:
        video = np.zeros((clip.frames, clip.size, clip.size, 3), np.uint8)
    audio = wave(scene) if "spec" in streams and not silent else np.zeros_like(_times())
    if rng:
        video, audio = _degrade(video, audio, rng)
    example = {"labels": np.concatenate([scene.labels, scene.aux_labels]) if rng else scene.labels}
    if "rgb" in streams:
        example["rgb"] = video
    if "spec" in streams:
        example["spec"] = log_mel(audio, clip.front_end)[: clip.spec_frames]
    return example


def _degrade(video: np.ndarray, audio: np.ndarray, rng: np.random.Generator):
    """Random blur, grain and contrast of the video, and random gain of the audio."""
    video = video.astype(np.float32)
    soft = np.float32(rng.uniform(0, 0.6))
    video[:, 1:-1] += soft / 4 * (video[:, :-2] - 2 * video[:, 1:-1] + video[:, 2:])
    video[:, :, 1:-1] += soft / 4 * (video[:, :, :-2] - 2 * video[:, :, 1:-1] + video[:, :, 2:])
    grain = rng.standard_normal(video.shape[1:], dtype=np.float32) * np.float32(rng.uniform(0, 5))
    video = video * np.float32(rng.uniform(0.9, 1.1)) + grain + np.float32(rng.uniform(-8, 8))
    return np.clip(video, 0, 255).astype(np.uint8), audio * np.float32(10 ** rng.uniform(-0.3, 0.0))


def render_samples(folder) -> Path:
    """Write the clips of `SAMPLES`, 256 x 256 pixels, into a folder, as `render` does."""
    scenes = [scene(SPLITS["test"], index) for index, _ in SAMPLES.values()]
    return render(scenes, folder, size=256, names=list(SAMPLES))


def render(
    scenes: Sequence[Scene],
    folder,
    size: int = 160,
    fps: float = 25.0,
    names: Sequence[str] | None = None,
) -> Path:
    """Write each scene as an mp4 file (H.264 + AAC), and labels.csv and key.json; the folder.

    The files are named world_0000.mp4 and so on, or by `names`, one per scene. key.json holds the
    `answer_key` of each file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows, keys = ["file,labels"], {}
    for number, scene in enumerate(tqdm(scenes, str(folder), unit="clip", disable=None)):
        name = f"{names[number] if names else f'world_{number:04d}'}.mp4"
        times = np.arange(round(SECONDS * fps)) / fps
        media.write(folder / name, frames(scene, times, size), fps, wave(scene), RATE)
        rows.append(f"{name},{'|'.join(scene.names)}")
        keys[name] = {k: np.round(v, 4).tolist() for k, v in answer_key(scene, times).items()}
    write_text(folder / "labels.csv", "\n".join(rows) + "\n")
    write_text(folder / "key.json", json.dumps(keys))
    return folder


def answer_key(scene: Scene, times: np.ndarray) -> dict[str, np.ndarray]:
    """Position and pitch of the singing shape: times [T] in s, box [T, 4], pitch [T] in Hz.

    The box is as `box` returns it, empty [0, 4] if no shape sings; the pitch is empty [0] if there
    is no tone.
    """
    pitch = scene.tone.pitch(times) if scene.tone else np.zeros(0)
    sings = scene.tone and scene.singer is not None
    boxes = box(scene.things[scene.singer], times) if sings else np.zeros((0, 4))
    return {"times": times, "box": boxes, "pitch": pitch}


def box(thing: MovingShape, times: np.ndarray) -> np.ndarray:
    """Bounding box [T, 4] of a shape: left, top, right, bottom as fractions of the frame's side."""
    x, y = thing.center(times)
    r = 1.2 * thing.radius  # the arms of a tilted cross reach 1.19
    return np.clip(np.stack([x - r, y - r, x + r, y + r], axis=1), 0, 1)
