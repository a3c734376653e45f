"""The micro-world: procedural clips with audio, and the answer key that real video lacks.

Shapes move over a textured ground while sounds are heard. Four kinds of classes, one head:

    seen     "circle rises"     a shape and how it moves: only the video tells
    heard    "pitch rises", "bell heard"      a source out of sight: only the audio tells
    both     "siren", "thunder", "rain"       lamp and wail, flash and rumble: either tells
    matched  "circle sings"     the tone's pitch follows the height of one shape: which one?

The last kind needs both modalities. Video, audio and the choice of the singer are drawn from three
independent random streams; the tone copies the chosen shape's contour, and contours are dealt to
shapes by a uniform shuffle. So the video leaves every visible shape equally likely to sing
(1 / number of shapes) and the audio leaves every kind of shape equally likely (1 / 4).

Everything follows from (seed, index). A `Scene` is a description without resolution: training
renders it small and at once, `render` makes large mp4 files of it.
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
KINDS = {  # kind: its columns among the labels
    "seen": slice(0, 16),
    "heard": slice(16, 24),
    "both": slice(24, 27),
    "matched": slice(27, 31),
}


@dataclass(frozen=True)
class Contour:
    """A way to move, from -1 to 1 and perhaps back, over time 0..1."""

    motion: str
    bend: float  # 1: even; above: late; below: early

    def __call__(self, u: np.ndarray) -> np.ndarray:
        v = np.clip(u, 0, 1) ** self.bend
        up = 2 * v - 1 if self.motion in ("rises", "falls") else 2 * np.sin(np.pi * v) - 1
        return up if self.motion in ("rises", "arcs") else -up


@dataclass(frozen=True)
class Thing:
    """A shape that moves; lengths are parts of the frame's side, heights grow upwards."""

    shape: str
    contour: Contour
    colour: tuple[float, float, float]
    radius: float
    x: float
    sway: float  # sideways
    height: float  # of the middle of the motion
    swing: float  # half the way travelled
    tilt: float  # radians

    def centre(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the middle of the shape is, x and y [T], y downwards as pixels count."""
        u = times / SECONDS
        x = self.x + self.sway * np.sin(2 * np.pi * (u + self.tilt))
        return x, 1 - (self.height + self.swing * self.contour(u))


@dataclass(frozen=True)
class Tone:
    """A singing voice whose pitch follows a contour."""

    contour: Contour
    middle: float  # Hz
    octaves: float  # half the way travelled
    overtones: tuple[float, ...]  # their levels, the fundamental first
    level: float

    def pitch(self, times: np.ndarray) -> np.ndarray:
        """The fundamental in hertz at each time."""
        return self.middle * 2.0 ** (self.octaves * self.contour(times / SECONDS))


@dataclass(frozen=True)
class Scene:
    """One clip, fully described; `video_seed` and `audio_seed` fix texture and noise."""

    things: tuple[Thing, ...]
    singer: int | None  # which thing the tone follows
    tone: Tone | None
    events: tuple[str, ...]  # heard only
    both: tuple[str, ...]  # seen and heard
    beat: float  # where in the clip the flash falls and how fast the lamp turns, 0..1
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
    def parts(self) -> np.ndarray:
        """What a model is also asked in training, shapes apart from motions, multi-hot [8]."""
        seen = self.labels[KINDS["seen"]].reshape(len(SHAPES), len(MOTIONS))
        return np.concatenate([seen.max(1), seen.max(0)])


def scene(seed: int, index: int) -> Scene:
    """The scene number `index` of the world `seed`."""
    video, audio, link = (np.random.default_rng([seed, index, part]) for part in range(3))
    things = _things(video)
    fate = link.random()
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


def _things(rng: np.random.Generator) -> tuple[Thing, ...]:
    count = 2 if rng.random() < 0.7 else 3
    shapes, motions = rng.permutation(SHAPES)[:count], rng.permutation(MOTIONS)[:count]
    lanes = (rng.permutation(count) + 0.5) / count
    return tuple(
        Thing(
            shape=str(shape),
            contour=Contour(str(motion), _bend(rng)),
            colour=tuple(float(c) for c in rng.permutation([1.0, *rng.uniform(0.45, 1.0, 2)])),
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


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured ground [H, W, 3] in 0..1: smooth colour and grain at two scales."""
    ground = np.full((size, size, 3), rng.uniform(0.1, 0.45, 3), np.float32)
    for cells in (4, 16):
        knots = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32) * rng.uniform(0.02, 0.12)
        to_pixels = _interpolation(cells, size)
        ground += np.einsum("yi,ijc,xj->yxc", to_pixels, knots, to_pixels, optimize=True)
    return ground


def _coverage(thing: Thing, times: np.ndarray, size: int) -> np.ndarray:
    """How much of each pixel [T, H, W] a shape covers, 0..1."""
    x, y = (c.astype(np.float32) for c in thing.centre(times))
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
    """The siren's lamp in an upper corner: coverage [T, H, W] and colour [T, 1, 1, 3]."""
    corner, p = rng.choice([0.07, 0.93]), _pixels(size)
    spot = np.exp(-((((p[None, :] - corner) ** 2 + (p[:, None] - 0.07) ** 2) / 0.05**2) ** 2))
    first = (times * _siren_turns(scene)) % 1 < 0.5
    colours = np.where(first[:, None], (1.0, 0.1, 0.1), (0.15, 0.3, 1.0)).astype(np.float32)
    return np.broadcast_to(spot, (len(times), size, size)), colours[:, None, None]


def _siren_turns(scene: Scene) -> float:
    return 1.5 + 1.5 * scene.beat  # Hz


def _flash(scene: Scene, times: np.ndarray) -> np.ndarray:
    """Brightness [T] that lightning adds, from its stroke on."""
    since = times - _stroke(scene)
    return np.where(since >= 0, np.exp(-np.maximum(since, 0) / 0.35), 0).astype(np.float32)


def _stroke(scene: Scene) -> float:
    return 0.1 + 1.2 * scene.beat  # s


def _rain(rng: np.random.Generator, times: np.ndarray, size: int) -> np.ndarray:
    """Streaks [T, H, W] falling down the frame, each a separable bump."""
    drops, p = 36, _pixels(size)
    x, start = rng.random(drops), rng.random(drops)
    y = (start[None] + times[:, None] * rng.uniform(1.0, 1.6, drops)) % 1.2 - 0.1  # [T, drops]
    across = np.exp(-(((p[:, None] - x) / 0.011) ** 2)).astype(np.float32)  # [W, drops]
    along = np.exp(-(((p[:, None] - y[:, None]) / 0.05) ** 2)).astype(np.float32)  # [T, H, drops]
    return np.minimum(along @ across.T, 1)


def frames(scene: Scene, times: np.ndarray, size: int) -> np.ndarray:
    """The video, uint8 [T, size, size, 3], at the given seconds."""
    rng = np.random.default_rng(scene.video_seed)
    video = np.broadcast_to(_ground(rng, size), (len(times), size, size, 3)).copy()
    for thing in scene.things:
        _paint(video, _coverage(thing, times, size), np.float32(thing.colour))
    if "siren" in scene.both:
        _paint(video, *_lamp(scene, rng, times, size))
    if "rain" in scene.both:
        _paint(video, 0.6 * _rain(rng, times, size), np.float32((0.8, 0.85, 1.0)))
    if "thunder" in scene.both:
        video += 0.6 * _flash(scene, times)[:, None, None, None]
    return (np.clip(video, 0, 1) * 255 + 0.5).astype(np.uint8)


def _paint(video: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> None:
    video += coverage[..., None].astype(np.float32) * (colour - video)


# --- audio -------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _clock() -> np.ndarray:
    return (np.arange(int(SECONDS * RATE)) / RATE).astype(np.float32)


@lru_cache(maxsize=8)
def _noise(colour: str) -> np.ndarray:
    """Half a minute of noise with unit power: white, pink, rumble, hiss or rain."""
    rng = np.random.default_rng(sum(colour.encode()))
    count = 30 * RATE
    white = rng.standard_normal(count)
    if colour == "rain":
        white *= rng.random(count) < 0.004
    hz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 1)
    shape = {
        "white": np.ones_like(hz),
        "pink": hz**-0.5,
        "rumble": 1 / (1 + (hz / 110) ** 4),
        "hiss": 1 / (1 + (3500 / hz) ** 8),
        "rain": 1 / (1 + ((hz - 2500) / 900) ** 2),
    }[colour]
    noise = np.fft.irfft(np.fft.rfft(white) * shape, count)
    return (noise / noise.std()).astype(np.float32)


def _cut(rng: np.random.Generator, colour: str) -> np.ndarray:
    """Two seconds out of the noise, from a random place."""
    start = rng.integers(len(_noise(colour)) - len(_clock()))
    return _noise(colour)[start : start + len(_clock())]


def _sing(tone: Tone) -> np.ndarray:
    t = _clock()
    phase = (2 * np.pi / RATE) * np.cumsum(tone.pitch(t))
    wave = sum(level * np.sin((k + 1) * phase) for k, level in enumerate(tone.overtones))
    fade = np.minimum(1, np.minimum(t, SECONDS - t) / 0.05)
    return tone.level * fade * wave


def _decay(start: float, seconds: float) -> np.ndarray:
    since = _clock() - np.float32(start)
    return np.where(since >= 0, np.exp(-np.maximum(since, 0) / np.float32(seconds)), 0)


def _bell(rng: np.random.Generator) -> np.ndarray:
    """A strike, then partials of a bell that no voice has, ringing away."""
    hz, start, t = rng.uniform(1200, 1800), rng.uniform(0, 1.2), _clock()
    partials = sum(
        a * np.sin(np.float32(2 * np.pi * hz * k) * t)
        for k, a in ((1, 1.0), (1.51, 0.6), (2.63, 0.6), (4.17, 0.6))
    )
    strike = 0.6 * _cut(rng, "white") * _decay(start, 0.015)
    return 0.25 * (partials * _decay(start, 0.4) + strike)


def _hiss(rng: np.random.Generator) -> np.ndarray:
    start, length = rng.uniform(0, 1.2), rng.uniform(0.4, 0.8)
    on = (_clock() > start) & (_clock() < start + length)
    return 0.15 * on * _cut(rng, "hiss")


def _repeat(sample: np.ndarray, starts: np.ndarray) -> np.ndarray:
    wave = np.zeros_like(_clock())
    for start in (starts * RATE).astype(int):
        piece = wave[start : start + len(sample)]
        piece += sample[: len(piece)]
    return wave


def _knocking(rng: np.random.Generator) -> np.ndarray:
    t = _clock()[:1600]
    knock = np.sin(2 * np.pi * rng.uniform(150, 260) * t) * np.exp(-t / 0.02)
    starts = rng.uniform(0, 0.3) + rng.uniform(0.2, 0.35) * np.arange(rng.integers(3, 6))
    return _repeat(0.6 * knock, starts)


def _chirping(rng: np.random.Generator) -> np.ndarray:
    t, low = _clock()[:1920], rng.uniform(3000, 4000)
    chirp = np.sin(2 * np.pi * (low * t + 7000 * t * t)) * np.sin(np.pi * t / t[-1])
    starts = rng.uniform(0, 0.3) + rng.uniform(0.18, 0.3) * np.arange(rng.integers(3, 7))
    return _repeat(0.15 * chirp, starts)


def _wail(scene: Scene) -> np.ndarray:
    t = _clock()
    high = (t * _siren_turns(scene)) % 1 < 0.5
    phase = (2 * np.pi / RATE) * np.cumsum(np.where(high, 2400.0, 1900.0))
    return 0.1 * np.sign(np.sin(phase)).astype(np.float32)


def _rumble(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    return 0.35 * _cut(rng, "rumble") * _decay(_stroke(scene), 0.6)


def wave(scene: Scene) -> np.ndarray:
    """The audio, float32 [2 s at 16 kHz] in [-1, 1]."""
    rng = np.random.default_rng(scene.audio_seed)
    audio = 10 ** rng.uniform(-3.0, -1.7) * _cut(rng, rng.choice(["white", "pink"]))
    if scene.tone:
        audio = audio + _sing(scene.tone)
    makers = {"bell": _bell, "hiss": _hiss, "knocking": _knocking, "chirping": _chirping}
    for event in scene.events:
        audio = audio + 10 ** rng.uniform(-0.2, 0.2) * makers[event](rng)
    if "siren" in scene.both:
        audio = audio + _wail(scene)
    if "thunder" in scene.both:
        audio = audio + _rumble(scene, rng)
    if "rain" in scene.both:
        audio = audio + 0.08 * _cut(rng, "rain")
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
    """What the loader hands on: rgb uint8 [T, H, W, 3], spec float32 [N, M], labels.

    With `rng` the clip is roughened as cameras and codecs do, and now and then a stream is blanked
    (black frames, digital silence) so that the model learns what one modality alone can tell; the
    labels [31] are then followed by the parts [8]. Without all `streams` the others stay the same.
    """
    times = (np.arange(clip.frames) + 0.5) * clip.frame_step
    blank = rng.random() if rng else 1.0
    if rng:
        times = times + rng.uniform(-0.06, 0.06)
    shown, heard = "rgb" in streams and blank > 0.08, not 0.08 < blank < 0.16
    video = frames(scene, times, clip.size) if shown else _black(clip)
    audio = wave(scene) if "spec" in streams and heard else np.zeros_like(_clock())
    if rng:
        video, audio = _roughen(video, audio, rng)
    made = {"labels": np.concatenate([scene.labels, scene.parts]) if rng else scene.labels}
    if "rgb" in streams:
        made["rgb"] = video
    if "spec" in streams:
        made["spec"] = log_mel(audio, clip.front_end)[: clip.spec_frames]
    return made


def _black(clip: ClipConfig) -> np.ndarray:
    return np.zeros((clip.frames, clip.size, clip.size, 3), np.uint8)


def _roughen(video: np.ndarray, audio: np.ndarray, rng: np.random.Generator):
    """Blur, grain and contrast of the video, and a gain of the audio, drawn at random."""
    video = video.astype(np.float32)
    soft = np.float32(rng.uniform(0, 0.6))
    video[:, 1:-1] += soft / 4 * (video[:, :-2] - 2 * video[:, 1:-1] + video[:, 2:])
    video[:, :, 1:-1] += soft / 4 * (video[:, :, :-2] - 2 * video[:, :, 1:-1] + video[:, :, 2:])
    grain = rng.standard_normal(video.shape[1:], dtype=np.float32) * np.float32(rng.uniform(0, 5))
    video = video * np.float32(rng.uniform(0.9, 1.1)) + grain + np.float32(rng.uniform(-8, 8))
    return np.clip(video, 0, 255).astype(np.uint8), audio * np.float32(10 ** rng.uniform(-0.3, 0.0))


def render_samples(folder) -> Path:
    """Write the clips of `SAMPLES`, 256 pixels a side, into a folder, as `render` does."""
    scenes = [scene(SPLITS["test"], index) for index, _ in SAMPLES.values()]
    return render(scenes, folder, size=256, names=list(SAMPLES))


def render(
    scenes: Sequence[Scene],
    folder,
    size: int = 160,
    fps: float = 25.0,
    names: Sequence[str] | None = None,
) -> Path:
    """The folder with each scene as an mp4 file (H.264 + AAC), labels.csv and key.json.

    The files are called world_0000.mp4 and so on, or by `names`, one a scene.

    `key.json` holds, per file, the boxes of the singing shape by time and the pitch it sings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows, keys = ["file,labels"], {}
    for number, one in enumerate(tqdm(scenes, str(folder), unit="clip", disable=None)):
        name = f"{names[number] if names else f'world_{number:04d}'}.mp4"
        times = np.arange(round(SECONDS * fps)) / fps
        media.write(folder / name, frames(one, times, size), fps, wave(one), RATE)
        rows.append(f"{name},{'|'.join(one.names)}")
        keys[name] = {k: np.round(v, 4).tolist() for k, v in answer_key(one, times).items()}
    for name, text in (("labels.csv", "\n".join(rows) + "\n"), ("key.json", json.dumps(keys))):
        write_text(folder / name, text)
    return folder


def answer_key(scene: Scene, times: np.ndarray) -> dict[str, np.ndarray]:
    """Where and when the sounding object is: times [T] in s, box [T, 4], pitch [T] in Hz.

    A box is (left, top, right, bottom) in parts of the frame's side, downwards; it is empty [0, 4]
    when no shape sings, and so is the pitch when there is no tone.
    """
    pitch = scene.tone.pitch(times) if scene.tone else np.zeros(0)
    sung = scene.tone and scene.singer is not None
    where = box(scene.things[scene.singer], times) if sung else np.zeros((0, 4))
    return {"times": times, "box": where, "pitch": pitch}


def box(thing: Thing, times: np.ndarray) -> np.ndarray:
    """The box [T, 4] around a shape: left, top, right, bottom in parts of the frame's side."""
    x, y = thing.centre(times)
    r = 1.2 * thing.radius  # the arms of a tilted cross reach 1.19
    return np.clip(np.stack([x - r, y - r, x + r, y + r], axis=1), 0, 1)
