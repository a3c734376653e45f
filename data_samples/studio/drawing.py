"""What the scenes are drawn and synthesised with.

Shapes are painted from their signed distances in pixels, which gives soft edges and shadows; images
are float [H, W, 3] in 0..1.
"""

import numpy as np

WIDTH, HEIGHT, FPS = 320, 240, 25
RATE = 22_050  # Hz, as espeak-ng speaks
X, Y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)


def disc(x, y, rx, ry=None):
    """Distance [H, W] to an ellipse, negative inside; the next three likewise."""
    ry = ry or rx
    return (np.hypot((X - x) / rx, (Y - y) / ry) - 1) * min(rx, ry)


def box(x, y, half_width, half_height, corner=0.0, at=(X, Y)):
    a, b = np.abs(at[0] - x) - half_width + corner, np.abs(at[1] - y) - half_height + corner
    return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - corner


def stroke(x0, y0, x1, y1, radius):
    along = ((X - x0) * (x1 - x0) + (Y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    u = np.clip(along, 0, 1)
    return np.hypot(X - x0 - u * (x1 - x0), Y - y0 - u * (y1 - y0)) - radius


def turned(x, y, angle):
    """Coordinates [H, W] right and down of a point, for an observer turned by `angle`."""
    right, down = X - x, Y - y
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * right + sin * down, cos * down - sin * right


def paint(image, distance, color, soft=1.0, opacity=1.0):
    """Cover the inside of a shape; `soft` is the width of its edge."""
    image += (opacity * np.clip(0.5 - distance / soft, 0, 1))[..., None] * (color - image)


def glow(image, distance, color, reach, power=1.0):
    """Add light that fades with the distance from a shape."""
    light = power * np.exp(-np.maximum(distance, 0) / reach)
    image += light[..., None] * np.asarray(color)


def ramp(above, below, start=0, end=HEIGHT):
    """A vertical blend [H, W, 3] between two colors."""
    u = np.clip((Y - start) / (end - start), 0, 1)[..., None]
    return (1 - u) * np.asarray(above) + u * np.asarray(below)


def round_light(x, y, rx, ry, base, dark):
    """The color [H, W, 3] of a ball lit from the upper left."""
    u, v = (X - x) / rx, (Y - y) / ry
    up = np.sqrt(np.maximum(0, 1 - u * u - v * v))
    light = np.clip(0.35 + 0.75 * (-0.4 * u - 0.55 * v + 0.73 * up), 0, 1.05)[..., None]
    shine = np.clip(-0.3 * u - 0.45 * v + 0.84 * up, 0, 1)[..., None] ** 40
    return np.asarray(dark) + light * (np.asarray(base) - dark) + 0.45 * shine


def film(seconds, draw):
    """Frames uint8 [T, H, W, 3] of a function from time to image."""
    images = (draw(k / FPS) for k in range(round(seconds * FPS)))
    return np.stack([(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8) for image in images])


# --- sound ---------------------------------------------------------------------------------------


def clock(seconds):
    return np.arange(round(seconds * RATE)) / RATE


def add(track, sound, start):
    """Mix a sound into the track [S] from `start` seconds on."""
    piece = track[round(start * RATE) :][: len(sound)]
    piece += sound[: len(piece)]


def noise(seconds, low, high, seed=0):
    """Noise of unit power between two frequencies, with gentle slopes."""
    white = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    hz = np.maximum(np.fft.rfftfreq(len(white), 1 / RATE), 1)
    shape = 1 / ((1 + (low / hz) ** 4) * (1 + (hz / high) ** 4))
    sound = np.fft.irfft(np.fft.rfft(white) * shape, len(white))
    return sound / sound.std()


def level(track, peak=0.7):
    """The track as float32 [S], as loud as `peak`, faded out over its last 0.3 s."""
    track = track * np.minimum(1, np.arange(len(track))[::-1] / (0.3 * RATE))
    return (track * peak / np.abs(track).max()).astype(np.float32)
