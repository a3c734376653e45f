"""Scenes in which one instant is seen and heard: a ball, a bell, a guitar.

Each function without arguments returns frames uint8 [T, H, W, 3], the wave and its rate.
"""

import numpy as np
from studio.drawing import (
    HEIGHT,
    RATE,
    X,
    Y,
    add,
    box,
    clock,
    disc,
    film,
    level,
    noise,
    paint,
    ramp,
    round_light,
    turned,
)

# --- a ball that bounces --------------------------------------------------------------------------

FLOOR, DROP, FALL, KEEP = 196, 138, 0.45, 0.8  # pixels, pixels, s, part of the speed kept
IMPACTS = FALL + 2 * FALL * np.concatenate([[0], np.cumsum(KEEP ** np.arange(1, 12))])  # s


def ball_height(t):
    """Pixels above the floor."""
    bounce = int(np.searchsorted(IMPACTS, t, side="right"))
    if bounce == len(IMPACTS):
        return 0.0
    half = FALL * KEEP**bounce
    return DROP * KEEP ** (2 * bounce) * (1 - ((IMPACTS[bounce] - half - t) / half) ** 2)


def ball():
    track = 0.003 * noise(5, 60, 900)
    t = clock(0.5)
    for number, impact in enumerate(IMPACTS):
        thud = np.sin(2 * np.pi * (75 * t - 6 * np.exp(-t / 0.03))) * np.exp(-t / 0.055)
        slap = noise(0.5, 700, 3000, number) * np.exp(-t / 0.006)
        add(track, KEEP**number * (thud + 0.25 * slap), impact)
    return film(5, ball_image), level(track), RATE


def ball_image(t):
    image = ramp((0.93, 0.87, 0.74), (0.80, 0.68, 0.52), 0, 170)
    boards = 0.04 * np.sin((X - 160) / (Y - 60) * 9) ** 16 + 0.02 * np.sin(Y * 0.9 + X * 0.01)
    paint(image, 170 - Y, ramp((0.58, 0.38, 0.22), (0.40, 0.24, 0.13), 170) - boards[..., None])
    paint(image, box(160, 168, 170, 4), (0.96, 0.94, 0.90))
    paint(image, np.abs(Y - 173), (0.25, 0.15, 0.08), 5, 0.7)
    up, x = ball_height(t), 70 + 36 * min(t, IMPACTS[-1])
    near = np.exp(-up / 60)
    shadow = disc(x + 0.3 * up + 6, FLOOR + 3, 32 + 0.1 * up, 7)
    paint(image, shadow, (0.12, 0.07, 0.04), 8 + 0.15 * up, 0.2 + 0.6 * near)
    nearest = np.abs(IMPACTS - t).argmin()
    squash = 0.26 * KEEP**nearest * np.exp(-(((IMPACTS[nearest] - t) / 0.035) ** 2))
    rx, ry = 28 * (1 + 0.6 * squash), 28 * (1 - squash)
    y = FLOOR - up - ry
    red = round_light(x, y, rx, ry, (0.90, 0.16, 0.14), (0.32, 0.03, 0.06))
    white = round_light(x, y, rx, ry, (0.99, 0.98, 0.94), (0.42, 0.38, 0.40))
    stripes = beach_stripes((X - x) / rx, (Y - y) / ry, x / 28)[..., None]
    paint(image, disc(x, y, rx, ry), red + stripes * (white - red))
    return image


def beach_stripes(u, v, angle):
    """Where a rolling beach ball is white, 0..1 [H, W]."""
    up = np.sqrt(np.maximum(0, 1 - u * u - v * v))
    a, b = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
    return np.clip(0.5 + 6 * np.sin(3 * np.arctan2(b, 0.75 * a - 0.66 * up)), 0, 1)


# --- a bell ---------------------------------------------------------------------------------------

PERIOD = 1.6  # s, there and back; the clapper strikes at both ends
STRIKES = np.arange(PERIOD / 4, 4.8, PERIOD / 2)
# Pixels below the crown, and half the width there.
PROFILE = ((0, 3, 8, 16, 30, 55, 75, 88, 98, 106, 110), (4, 18, 25, 29, 31, 34, 39, 45, 53, 61, 61))

PARTIALS = (  # of a church bell: part of the strike note, level, s until it has died down to 1/e
    (0.5, 0.5, 1.6), (1, 0.8, 1.1), (1.19, 0.7, 0.9), (1.5, 0.35, 0.7),
    (2, 0.9, 0.6), (2.66, 0.4, 0.35), (3.01, 0.3, 0.25), (4.16, 0.3, 0.15),
)  # fmt: skip


def bell():
    track, t = 0.004 * noise(5.2, 80, 500), clock(4)
    ring = sum(a * np.sin(2 * np.pi * 392 * k * t) * np.exp(-t / s) for k, a, s in PARTIALS)
    for strike in STRIKES:
        add(track, ring, strike)
    return film(5.2, bell_image), level(track), RATE


def bell_image(t):
    image = tower()
    swing = np.sin(2 * np.pi * t / PERIOD)
    x, y = turned(160, 44, -0.42 * swing)
    width = np.interp(y - 22, *PROFILE)
    shape = np.maximum(0.87 * (np.abs(x) - width), np.maximum(22 - y, y - 132))
    inside = 160 + 40 * np.sin(0.42 * swing), 44 + 40 * np.cos(0.42 * swing)
    clapper = turned(*inside, -(0.42 + 0.45) * swing)
    paint(image, box(0, 50, 2.2, 50, at=clapper), (0.16, 0.13, 0.12))
    paint(image, np.hypot(clapper[0], clapper[1] - 100) - 8, (0.22, 0.18, 0.16))
    paint(image, shape + 1, brass(x / np.maximum(width, 1), y - 22))
    paint(image, box(0, 16, 9, 9, 4, at=(x, y)), (0.42, 0.30, 0.10))
    yoke = ramp((0.46, 0.30, 0.18), (0.24, 0.14, 0.08), 30, 60)
    paint(image, box(0, 2, 46, 9, 3, at=(x, y)), yoke)
    paint(image, disc(160, 44, 5), (0.25, 0.25, 0.28))
    return image


def brass(across, down):
    """The color [H, W, 3] of the bell, -1..1 from its left edge to its right."""
    light = 0.30 + 0.65 * np.sqrt(np.clip(1 - (across + 0.25) ** 2 / 1.6, 0, 1))
    light += 0.5 * np.exp(-(((across + 0.42) / 0.13) ** 2))
    for ring in (28, 33, 84, 89):
        light -= 0.22 * np.exp(-(((down - ring) / 1.3) ** 2))
    return light[..., None] * np.array((0.93, 0.69, 0.28))


def tower():
    """An arch in a wall of stone, and evening behind it."""
    row = np.floor(Y / 24)
    along = (X + 24 * (row % 2)) % 48
    shade = 0.07 * np.sin(12.9 * row + 78.2 * np.floor((X + 24 * (row % 2)) / 48))
    joint = np.minimum(np.minimum(along, 48 - along), np.minimum(Y % 24, 24 - Y % 24))
    stone = ramp((0.34, 0.30, 0.30), (0.24, 0.21, 0.23))
    stone *= (1 + shade - 0.3 * (joint < 1))[..., None]
    arch = np.minimum(disc(160, 112, 112), np.maximum(np.abs(X - 160) - 112, 112 - Y))
    paint(stone, arch - 7, (0.44, 0.39, 0.37), 2)
    paint(stone, arch, ramp((0.22, 0.30, 0.52), (0.98, 0.68, 0.42), 10, 215))
    hills = 205 + 8 * np.sin(X / 37) + 4 * np.sin(X / 13)
    paint(stone, np.maximum(arch, hills - Y), (0.28, 0.26, 0.36), 1.5)
    paint(stone, np.abs(arch + 2) - 4, (0.05, 0.04, 0.06), 9, 0.45)
    paint(stone, np.maximum(np.abs(Y - 44) - 7, -arch - 3), (0.22, 0.14, 0.09), 1.5)
    return stone


# --- a guitar -------------------------------------------------------------------------------------

NOTES = (98.0, 123.5, 146.8, 196.0, 246.9, 392.0)  # Hz, a chord of G
ORDER = (0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0)
PLUCKS = 0.3 + 0.42 * np.arange(len(ORDER))  # s


def string_height(string):
    return 176 - 22.4 * np.asarray(string)


def guitar():
    track = np.zeros(len(clock(5.6)))
    for number, (string, start) in enumerate(zip(ORDER, PLUCKS, strict=True)):
        add(track, pluck(NOTES[string], number), start)
    return film(5.6, guitar_image), level(track), RATE


def pluck(hz, seed, seconds=2.0):
    """Karplus and Strong: a burst of noise goes round, softened by a mean each time."""
    period = round(RATE / hz - 0.5)
    turn, turns = np.random.default_rng(seed).uniform(-1, 1, period), []
    for _ in range(round(seconds * RATE / period)):
        turns.append(turn)
        turn = 0.498 * (turn + np.roll(turn, 1))
    return np.concatenate(turns)


def guitar_image(t):
    image = guitar_body()
    for string in range(6):
        vibrating(image, t, string)
    y = np.interp(t, PLUCKS, string_height(ORDER)) - 4
    x, down = turned(206, y, 0.25)
    pick = np.maximum(0.9 * np.abs(x) + 0.42 * down, -down - 14) - 4
    paint(image, pick - 2, (0.05, 0.02, 0.01), 9, 0.4)
    paint(image, pick, ramp((0.98, 0.55, 0.18), (0.80, 0.26, 0.10), y - 20, y + 12))
    return image


def vibrating(image, t, string):
    """A string: the blur it swings in, and the string itself."""
    y, thick = string_height(string), 1.7 - 0.2 * string
    since = [t - s for n, s in zip(ORDER, PLUCKS, strict=True) if n == string and s <= t]
    swing = 6.5 * np.exp(-since[-1] / 0.5) if since else 0.0
    bow = swing * np.sin(np.pi * np.clip(X / 284, 0, 1))
    wire = ramp((0.98, 0.93, 0.80), (0.52, 0.44, 0.34), y - 2, y + 2)
    end = X - 284
    paint(image, np.maximum(np.abs(Y - y - 5) - thick, end), (0.05, 0.02, 0.01), 3, 0.35)
    paint(image, np.maximum(np.abs(Y - y) - bow - thick, end), wire, 1.5, 0.4 if swing > 1 else 0.0)
    wave_now = bow * np.cos(2 * np.pi * 5.5 * (since[-1] if since else 0))
    paint(image, np.maximum(np.abs(Y - y - wave_now) - thick, end), wire)


def guitar_body():
    grain = noise(1, 200, 2000, 2)[:HEIGHT][:, None] * 0.012 + 0.008 * np.sin(X / 70 + Y / 9)
    image = ramp((0.86, 0.58, 0.30), (0.66, 0.38, 0.16)) * (1 + 3 * grain)[..., None]
    hole = disc(112, 120, 72)
    dark, light = (0.24, 0.12, 0.06), (0.92, 0.80, 0.58)
    for ring, color in ((10, dark), (7, light), (4, dark)):
        paint(image, hole - ring, color)
    paint(image, hole, ramp((0.04, 0.02, 0.01), (0.15, 0.08, 0.04), 50, 200), 2)
    paint(image, box(0, 120, 58, 74, 3), ramp((0.20, 0.12, 0.09), (0.13, 0.07, 0.05)))
    for fret in (14, 46):
        paint(image, box(fret, 120, 1.6, 74), (0.80, 0.78, 0.72))
    paint(image, box(291, 127, 15, 82, 4), (0.05, 0.02, 0.01), 12, 0.6)
    paint(image, box(289, 120, 14, 80, 4), ramp((0.26, 0.14, 0.09), (0.15, 0.08, 0.05)))
    paint(image, box(284, 120, 2, 70), (0.95, 0.92, 0.84))
    return image
