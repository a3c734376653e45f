"""Scenes in which picture and sound go on together: a voice, a siren, a storm.

Each function without arguments returns frames uint8 [T, H, W, 3], the wave and its rate.
"""

import io
import itertools
import subprocess
import wave

import numpy as np
from studio.drawing import (
    FPS,
    RATE,
    X,
    Y,
    add,
    box,
    clock,
    disc,
    film,
    glow,
    level,
    noise,
    paint,
    ramp,
    round_light,
    stroke,
)

# --- a face that speaks ---------------------------------------------------------------------------

SENTENCE = "Hello! I am a voice made by a computer. Watch my mouth, and hear me speak."


def speech():
    program = ["espeak-ng", "-v", "en-gb", "-s", "165", "-p", "55", "--stdout", SENTENCE]
    spoken = subprocess.run(program, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        said = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    track = level(np.pad(np.trim_zeros(said), RATE // 4))
    seconds = len(track) / RATE
    power = np.convolve(track**2, np.hanning(RATE // 20), "same")  # 50 ms
    loudness = np.sqrt(np.maximum(power, 0) / power.max())

    def draw(t):
        return face(t, np.interp(t + 0.5 / FPS, clock(seconds), loudness))

    return film(seconds, draw), track, RATE


def face(t, loud):
    image = ramp((0.20, 0.36, 0.42), (0.09, 0.16, 0.22))
    glow(image, disc(160, 105, 60), (0.16, 0.19, 0.16), 60)
    y, lid = 108 - 2.5 * loud + 1.5 * np.sin(1.7 * t), abs((t + 0.4) % 1.9 - 1.2) < 0.07
    paint(image, box(160, 250, 92, 58, 50), ramp((0.80, 0.42, 0.26), (0.5, 0.22, 0.16), 190))
    paint(image, box(160, y + 72, 22, 34, 14), (0.72, 0.50, 0.38))
    paint(image, disc(160, y - 14, 78, 84), (0.20, 0.12, 0.08))
    skin = round_light(160, y, 82, 88, (0.98, 0.80, 0.66), (0.60, 0.38, 0.28))
    for side in (-1, 1):
        paint(image, disc(160 + 70 * side, y + 6, 12, 17), (0.78, 0.56, 0.44))
    paint(image, disc(160, y + 4, 70, 78), skin)
    hair = np.maximum(disc(160, y - 14, 77, 82), Y - y + 40 + 0.004 * (X - 120) ** 2)
    paint(image, hair, ramp((0.34, 0.21, 0.13), (0.22, 0.13, 0.08), 20, 80), 2)
    for side in (-1, 1):
        eye(image, 160 + 28 * side, y - 8, lid, loud)
    paint(image, disc(163, y + 22, 9, 10), (0.70, 0.45, 0.34), 8, 0.5)
    mouth(image, y + 46, loud)
    return image


def eye(image, x, y, lid, loud):
    brow = y - 20 - 4 * loud
    paint(image, stroke(x - 12, brow, x + 12, brow, 2.2), (0.25, 0.15, 0.1))
    if lid:
        paint(image, stroke(x - 11, y + 1, x + 11, y + 1, 1.3), (0.35, 0.2, 0.15))
        return
    paint(image, disc(x, y, 13, 9.5), (0.42, 0.27, 0.22), 3)
    paint(image, disc(x, y + 0.7, 12, 8.5), (0.97, 0.97, 0.95))
    paint(image, np.maximum(disc(x, y, 7), disc(x, y + 0.7, 12, 8.5)), (0.25, 0.42, 0.36))
    paint(image, disc(x, y, 3.6), (0.05, 0.05, 0.06))
    paint(image, disc(x - 2.4, y - 2.6, 1.7), (1, 1, 1))


def mouth(image, y, loud):
    """Lips that part, up to 20 pixels each way, their corners raised a little."""
    y = y - 4 * ((X - 160) / 28) ** 2
    width, height = 25 - 6 * loud, 1.2 + 19 * loud
    inside = disc(160, y, width, height)
    paint(image, disc(160, y, width + 5, height + 5), (0.78, 0.33, 0.32), 1.5)
    paint(image, inside, (0.22, 0.05, 0.07))
    tongue = np.maximum(inside, disc(160, y + height, width * 0.7, height * 0.8))
    paint(image, tongue, (0.80, 0.36, 0.38))
    paint(image, np.maximum(inside, Y - y + 0.55 * height), (0.96, 0.95, 0.92))


# --- an ambulance ---------------------------------------------------------------------------------

TURN = 0.5  # s that each of the two tones lasts, and each of the two lamps


def siren():
    t = clock(5)
    hz = np.where(t % (2 * TURN) < TURN, 585.0, 440.0)
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    horn = sum(np.sin(k * phase) / k for k in range(1, 9))
    edge = np.minimum(1, np.minimum(t % TURN, TURN - t % TURN) / 0.015)
    return film(5, siren_image), level(edge * horn + 0.12 * noise(5, 40, 220), 0.5), RATE


def siren_image(t):
    image = street(t)
    first, beat = t % (2 * TURN) < TURN, 0.35 + 0.65 * np.sin(np.pi * (t % TURN) / TURN)
    blue, red = np.array((0.25, 0.45, 1.0)), np.array((1.0, 0.16, 0.12))
    y = 0.7 * np.sin(11 * t)
    paint(image, disc(160, 206, 116, 7), (0.01, 0.01, 0.02), 8, 0.8)
    van(image, y, t)
    for x, color, lit in ((142, blue, first), (166, red, not first)):
        paint(image, box(x, 83 + y, 10, 8, 5), 0.3 * color + 0.05)
        if lit:
            paint(image, box(x, 83 + y, 9, 7, 5), 0.4 * color + 0.6, 3, beat)
            glow(image, disc(x, 83 + y, 9), color, 17, 0.85 * beat)
            glow(image, disc(x, 83 + y, 9), color, 90, 0.28 * beat)
    return image


def street(t):
    """A town at dusk that passes by."""
    image = ramp((0.05, 0.07, 0.16), (0.36, 0.26, 0.34), 0, 170)
    rng = np.random.default_rng(5)
    for speed, low, color in ((1, 45, (0.12, 0.12, 0.22)), (2, 85, (0.06, 0.07, 0.13))):
        along = (X + speed * round(t * FPS)) % 640
        house, roof = (along // 40).astype(int), rng.integers(low, low + 50, 16)
        paint(image, roof[house] - Y, color)
        lit = rng.random((16, 24, 4)) < 0.3
        row, column = (Y // 11).astype(int), (along % 40 // 10).astype(int)
        pane = (Y % 11 > 4) & (along % 10 > 3) & (Y > roof[house] + 5) & lit[house, row, column]
        image += (pane * 0.17 * speed)[..., None] * np.array((1.0, 0.8, 0.45))
    paint(image, 176 - Y, ramp((0.17, 0.17, 0.20), (0.07, 0.07, 0.09), 176))
    paint(image, np.abs(Y - 177) - 1, (0.36, 0.36, 0.38))
    dash = np.abs((X + 7 * round(t * FPS)) % 80 - 40) - 22
    paint(image, np.maximum(dash, np.abs(Y - 224) - 2), (0.75, 0.75, 0.68))
    return image


def van(image, y, t):
    white = ramp((0.93, 0.94, 0.96), (0.62, 0.63, 0.70), 90, 195)
    paint(image, box(135, 142 + y, 87, 52, 9), white)
    cab = np.maximum(box(214, 155 + y, 48, 39, 14), 0.8 * (X - 232) - 0.6 * (Y - 118 - y))
    paint(image, cab, white)
    glass = np.maximum(box(219, 141 + y, 24, 16, 4), 0.8 * (X - 225) - 0.6 * (Y - 118 - y))
    paint(image, glass, ramp((0.30, 0.40, 0.52), (0.10, 0.14, 0.20), 124, 160))
    paint(image, box(157, 165 + y, 105, 6), (0.86, 0.20, 0.12))
    paint(image, box(157, 174 + y, 105, 1.5), (0.95, 0.72, 0.15))
    for half_width, half_height in ((17, 5.5), (5.5, 17)):
        paint(image, box(98, 131 + y, half_width, half_height, 1), (0.16, 0.36, 0.80))
    pane = ramp((0.5, 0.56, 0.62), (0.24, 0.28, 0.33), 115, 147)
    paint(image, box(152, 131 + y, 17, 14, 4), pane)
    paint(image, box(184, 145 + y, 0.4, 46), (0.5, 0.5, 0.56))
    paint(image, box(256, 172 + y, 5, 5, 3), (1.0, 0.95, 0.75))
    glow(image, disc(266, 178 + y, 6, 4), (0.5, 0.45, 0.28), 20)
    for x in (90, 220):
        paint(image, disc(x, 192, 21), (0.03, 0.03, 0.04))
        paint(image, disc(x, 192, 10), (0.62, 0.63, 0.66))
        for spoke in range(5):
            angle = 9 * t + spoke * 2 * np.pi / 5
            paint(image, disc(x + 6 * np.cos(angle), 192 + 6 * np.sin(angle), 2), (0.2, 0.2, 0.22))


# --- rain on a window -----------------------------------------------------------------------------

BOLTS, DELAY = (1.0, 3.4), 0.4  # s; thunder needs 0.4 s from 140 m away


def storm():
    track = 0.10 * noise(6, 900, 6000) + 0.05 * noise(6, 200, 900, 1)
    for number, (start, *_) in enumerate(splashes()):
        t = clock(0.03)
        add(track, 0.35 * np.sin(2 * np.pi * (900 + 90 * number) * t) * np.exp(-t / 0.006), start)
    for number, bolt in enumerate(BOLTS):
        add(track, thunder(number), bolt + DELAY)
    return film(6, storm_image), level(track, 0.9), RATE


def thunder(number):
    t = clock(2.2)
    swell = np.minimum(1, t / 0.02) * np.exp(-t / 0.75) * (1 + 0.4 * np.sin(21 * t + 3 * number))
    crack = noise(2.2, 300, 2500, 7 + number) * np.exp(-t / 0.12)
    return swell * noise(2.2, 35, 150, 5 + number) + 0.5 * crack


def splashes():
    """Drops on the pane [42, 4]: when they hit in s, x, y and size in pixels."""
    rng = np.random.default_rng(11)
    starts = np.concatenate([np.zeros(16), np.sort(rng.uniform(0.1, 5.8, 26))])
    where = rng.uniform((30, 22, 2.2), (290, 186, 5.4), (len(starts), 3))
    return np.column_stack([starts, where])


def storm_image(t):
    flash = sum(fading(t - b, 0.05) + 0.8 * fading(t - b - 0.16, 0.15) for b in BOLTS)
    image = outside(t, flash)
    for start, x, y, size in splashes():
        if t >= start:
            since = t - start
            drop(image, x, y + max(0.0, size - 4.0) * 18 * since, size * min(1, 0.6 + 4 * since))
    window(image, flash)
    return image


def fading(since, seconds):
    return np.exp(-since / seconds) if since >= 0 else 0.0


def outside(t, flash):
    image = ramp((0.07, 0.10, 0.17), (0.16, 0.20, 0.28), 0, 190)
    image += 0.5 * flash * np.array((0.8, 0.85, 1.0))
    for number, bolt in enumerate(BOLTS):
        if 0 <= t - bolt < 0.24:
            lightning(image, number, 1 - (t - bolt) / 0.3)
    hills = 150 + 14 * np.sin(X / 47 + 1) + 6 * np.sin(X / 17)
    paint(image, hills - Y, np.array((0.03, 0.05, 0.06)) + 0.06 * flash, 3)
    rng = np.random.default_rng(3)
    for x, y, r, warm in rng.uniform((30, 158, 4, 0.4), (290, 186, 8, 0.8), (9, 4)):
        paint(image, disc(x, y, r), np.array((1.0, warm, 0.25)), 3, 0.5)
    x, start, speed = rng.uniform((20, 0, 1.4), (300, 1, 2.0), (60, 3)).T
    fall = (start + speed * t) % 1.2 * 240 - 20
    across = np.exp(-(((X[0][:, None] - x) / 0.8) ** 2))
    along = np.exp(-(((Y[:, 0][:, None] - fall) / 9) ** 2))
    image += 0.22 * (along @ across.T)[..., None] * np.array((0.75, 0.85, 1.0))
    return image


def lightning(image, number, power):
    rng = np.random.default_rng(20 + number)
    points = np.cumsum(rng.uniform((-17, 14), (17, 22), (8, 2)), axis=0) + (90 + 130 * number, 0)
    bolt = np.minimum.reduce([stroke(*a, *b, 0.7) for a, b in itertools.pairwise(points)])
    glow(image, bolt, (0.8, 0.85, 1.0), 1.2, power)
    glow(image, bolt, (0.5, 0.6, 1.0), 12, 0.4 * power)


def drop(image, x, y, size):
    """A lens of water: dark above, bright below, one highlight."""
    shape = disc(x, y, size, 1.2 * size)
    paint(image, shape, np.array((0.10, 0.14, 0.20)), 1.2, 0.55)
    paint(image, disc(x, y + 0.45 * size, 0.7 * size, 0.6 * size), (0.55, 0.64, 0.74), 2, 0.6)
    paint(image, disc(x - 0.3 * size, y - 0.4 * size, 0.28 * size), (1, 1, 1), 1, 0.85)


def window(image, flash):
    """The frame, and a warm room around it."""
    pane = np.abs(X - 160) - 5
    pane = np.maximum(box(160, 105, 138, 90, 2), -np.minimum(pane, np.abs(Y - 100) - 5))
    wood = ramp((0.60, 0.46, 0.34), (0.44, 0.32, 0.23)) * (1 + 0.12 * flash)
    wall = ramp((0.42, 0.27, 0.20), (0.30, 0.18, 0.14))
    paint(image, -pane, wood)
    paint(image, np.abs(pane + 1) - 1, (0.14, 0.09, 0.07), 3, 0.7)
    paint(image, -box(160, 105, 148, 100, 3), wall, 2)
    paint(image, box(160, 211, 158, 7, 3), ramp((0.72, 0.56, 0.42), (0.46, 0.33, 0.24), 204, 218))
    paint(image, box(160, 222, 156, 4), (0.10, 0.06, 0.05), 8, 0.6)
