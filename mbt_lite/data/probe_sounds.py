"""Synthesize sounds that AudioSet has a name for, so that their label is known for certain.

Each call draws new pitches, rhythms, levels, echoes and background noise, so a class has any number
of variants. `CLASSES` are AudioSet's own names.

    t [n] times in s   hz a frequency, or frequencies [n]
"""

from collections.abc import Callable

import numpy as np
from scipy import signal

Wave = np.ndarray  # [n]


def render(label: str, rng: np.random.Generator, seconds: float, rate: int = 16_000) -> np.ndarray:
    """Synthesize a sound of a class of `CLASSES`: float32 [seconds * rate] in [-1, 1].

    ValueError if there is no such class.
    """
    if label not in _SOUNDS:
        raise ValueError(f"no sound is made for {label!r}; there are {', '.join(CLASSES)}.")
    t = np.arange(round(seconds * rate)) / rate
    wave = _SOUNDS[label](rng, t)
    if label == "Silence":
        return wave.astype(np.float32)
    if label not in _ELECTRIC:
        wave = _reverberate(
            rng, wave, t, _log_uniform(rng, 0.03, 0.12), _log_uniform(rng, 0.1, 0.6)
        )
    wave = wave * (10 ** rng.uniform(-0.5, 0.0) / max(np.abs(wave).max(), 1e-9))
    wave = wave + 10 ** rng.uniform(-3.3, -1.7) * _noise(rng, t, 1.0)
    return np.clip(wave, -1, 1).astype(np.float32)


# --- parts ---------------------------------------------------------------------------------------


def _rate(t: Wave) -> int:
    return round(1 / (t[1] - t[0]))


def _log_uniform(rng, low, high) -> float:
    return float(low * (high / low) ** rng.random())


def _tone(t: Wave, hz, levels=(1.0,)) -> Wave:
    """A tone of a constant or changing frequency; `levels` are those of its harmonics."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, t.shape)) / _rate(t)
    count = min(len(levels), max(int(0.45 * _rate(t) / np.max(hz)), 1))
    return sum(levels[k] * np.sin((k + 1) * phase) for k in range(count))


def _square(t: Wave, hz) -> Wave:
    return _tone(t, hz, [(k % 2) / k for k in range(1, 20)])


def _noise(rng, t: Wave, slope=0.0) -> Wave:
    """Noise of unit power with the spectrum 1 / f^slope: 0 is white, 1 pink, 2 brown."""
    hz = np.maximum(np.fft.rfftfreq(len(t), 1 / _rate(t)), 20.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(t))) * hz ** (-slope / 2), len(t))
    return noise / noise.std()


def _band(wave: Wave, t: Wave, low, high, order=1) -> Wave:
    """The part of a wave between two frequencies in Hz."""
    edges = (low, min(high, 0.45 * _rate(t)))
    return signal.sosfilt(signal.butter(order, edges, "bandpass", fs=_rate(t), output="sos"), wave)


def _reverberate(rng, wave: Wave, t: Wave, decay, level) -> Wave:
    """Add an echo of noise that decays in `decay` s."""
    times = t[: round(4 * decay * _rate(t))]
    echo = rng.standard_normal(len(times)) * np.exp(-times / decay)
    echo *= level / np.sqrt(np.square(echo).sum())
    return wave + signal.fftconvolve(wave, echo)[: len(wave)]


def _gate(t: Wave, on, off, fade=0.005) -> Wave:
    """1 for `on` s and 0 for `off` s in turn, with soft edges."""
    position = t % (on + off)
    return np.clip(np.minimum(position, on - position) / fade, 0, 1)


def _curve(rng, t: Wave, every, values=None) -> Wave:
    """A random curve with a knot each `every` s: between 0 and 1, or through some of `values`."""
    count = int(t[-1] / every) + 2
    knots = rng.random(count) if values is None else rng.choice(values, count)
    return np.interp(t / every, np.arange(count), knots)


def _beats(rng, t: Wave, every, jitter=0.0) -> Wave:
    """Start times in s of events `every` s apart, from a random first."""
    starts = np.arange(rng.uniform(0, min(every, 1.0)), t[-1], every)
    return np.maximum(starts + every * jitter * rng.uniform(-1, 1, len(starts)), 0)


def _events(t: Wave, starts, sound: Callable[[Wave, int], Wave], length=8.0) -> Wave:
    """The sum of `sound(times since its start, its number)`; each ends after `length` s."""
    wave = np.zeros_like(t)
    for number, start in enumerate(starts):
        first = int(np.ceil(start * _rate(t)))
        part = wave[first : first + int(length * _rate(t))]
        if len(part) > 1:
            part += sound(t[: len(part)], number)
    return wave


def _struck(since: Wave, hz, partials) -> Wave:
    """A struck body: partials (frequency relative to `hz`, level, decay in s)."""
    return sum(
        level * np.exp(-since / decay) * np.sin(2 * np.pi * hz * ratio * since)
        for ratio, level, decay in partials
        if hz * ratio < 0.45 * _rate(since)
    )


# --- signals and alarms --------------------------------------------------------------------------


def _sine(rng, t):
    return _tone(t, _log_uniform(rng, 250, 2500))


def _chirp(rng, t):
    low, high = _log_uniform(rng, 100, 400), _log_uniform(rng, 2000, 6000)
    position = (t / rng.uniform(1, 4) + rng.random()) % 1
    return _tone(t, low * (high / low) ** (position if rng.random() < 0.7 else 1 - position))


def _silence(rng, t):
    return rng.choice([0.0, 1e-5, 1e-4]) * _noise(rng, t, rng.uniform(0, 2))


def _dial_tone(rng, t):
    low, high = [(350, 440), (425, 425), (400, 450)][rng.integers(3)]
    return _tone(t, low) + _tone(t, high)


def _busy_signal(rng, t):
    low, high, on = [(480, 620, 0.5), (480, 620, 0.25), (425, 425, 0.5)][rng.integers(3)]
    return (_tone(t, low) + _tone(t, high)) * _gate(t + rng.random(), on, on)


def _dialing(rng, t):
    keys = [(low, high) for low in (697, 770, 852, 941) for high in (1209, 1336, 1477)]
    starts = _beats(rng, t, rng.uniform(0.2, 0.3))
    pressed = rng.integers(len(keys), size=len(starts))
    called = starts[np.arange(len(starts)) % 14 < 11]
    return _events(t, called, lambda s, k: sum(_tone(s, hz) for hz in keys[pressed[k]]), 0.1)


def _telephone_bell(rng, t):
    hz, gongs = _log_uniform(rng, 900, 1600), (1.0, rng.uniform(1.15, 1.3))
    partials = [(1.0, 1.0, 0.25), (2.1, 0.8, 0.2), (2.9, 0.7, 0.12), (4.2, 0.6, 0.08)]
    on, off = rng.uniform(1.2, 2.2), rng.uniform(0.8, 2.2)
    starts = _beats(rng, t, 1 / rng.uniform(18, 26), 0.05)
    starts = starts[(starts + rng.uniform(0, on)) % (on + off) < on]
    return _events(t, starts, lambda s, k: _struck(s, hz * gongs[k % 2], partials), 0.8)


def _siren(rng, t):
    low, high = _log_uniform(rng, 450, 650), _log_uniform(rng, 1100, 1600)
    position = (t / (rng.uniform(3, 6), rng.uniform(0.25, 0.4))[rng.integers(2)]) % 1
    rise = np.minimum(position / 0.4, (1 - position) / 0.6)
    return _tone(t, low + (high - low) * rise, [1, 0.5, 0.4, 0.25, 0.2, 0.1])


def _civil_defense_siren(rng, t):
    position = (t / rng.uniform(7, 12) + rng.uniform(0, 0.3)) % 1
    speed = np.clip(np.minimum(position / 0.3, (1 - position) / 0.3), 0, 1) ** 0.5
    hz = _log_uniform(rng, 400, 550) * (0.5 + 0.5 * speed)
    wave = _tone(t, hz, [1, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2]) * (0.2 + speed)
    return _reverberate(rng, wave, t, 0.5, 1.0)


def _smoke_alarm(rng, t):
    position = (t + rng.random()) % 4.0  # three long beeps and a pause
    return _square(t, rng.uniform(2900, 3400)) * _gate(position, 0.5, 0.5) * (position < 3)


def _beep(rng, t):
    on = rng.uniform(0.08, 0.3)
    return _tone(t, _log_uniform(rng, 800, 2200)) * _gate(t, on, on * rng.uniform(1, 4))


def _alarm_clock(rng, t):
    four = (t + rng.random()) % 1.0 < 0.48
    return _square(t, rng.uniform(1900, 2300)) * _gate(t, 0.06, 0.06, 0.002) * four


def _car_horn(rng, t):
    hz, levels = _log_uniform(rng, 350, 450), 1 / np.sqrt(np.arange(1, 14))
    horns = _tone(t, hz, levels) + _tone(t, 1.25 * hz, levels)
    return horns * _gate(t, rng.uniform(0.2, 1.2), 0.4, 0.02)


# --- music ---------------------------------------------------------------------------------------

_SCALE = 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
_CHURCH_BELL = [
    (ratio * beat, level / 2, decay)  # pairs of partials beat, because no bell is quite round
    for ratio, level, decay in (
        (0.5, 0.5, 4.0), (1.0, 0.8, 3.0), (1.19, 0.8, 2.0), (1.5, 0.3, 1.5), (2.0, 1.0, 2.0),
        (2.51, 0.5, 1.0), (2.66, 0.4, 1.0), (3.01, 0.6, 0.8), (4.17, 0.6, 0.6), (5.43, 0.5, 0.4),
        (6.79, 0.4, 0.3), (8.21, 0.3, 0.2),
    )
    for beat in (0.9985, 1.0015)
]  # fmt: skip


def _melody(rng, t, hz, every, partials) -> Wave:
    starts = _beats(rng, t, every)
    notes, loud = rng.choice(_SCALE, len(starts)), rng.uniform(0.5, 1, len(starts))
    return _events(t, starts, lambda s, k: loud[k] * _struck(s, hz * notes[k], partials), 3.0)


def _church_bell(rng, t):
    hz, starts = _log_uniform(rng, 280, 520), _beats(rng, t, rng.uniform(1.2, 2.0), 0.05)
    wave = _events(t, starts, lambda s, _: _struck(s, hz, _CHURCH_BELL))
    return _reverberate(rng, wave, t, 0.5, 1.0)


def _glockenspiel(rng, t):
    partials = [(1, 1, 0.6), (2.76, 0.4, 0.3), (5.4, 0.3, 0.12)]
    return _melody(rng, t, _log_uniform(rng, 900, 1300), rng.uniform(0.2, 0.4), partials)


def _piano(rng, t):
    partials = [(k, 1 / k, 0.9 / k**0.6) for k in range(1, 12)]
    return _melody(rng, t, _log_uniform(rng, 150, 300), rng.uniform(0.2, 0.4), partials)


def _synthesizer(rng, t):
    every, notes = rng.uniform(0.15, 0.4), rng.choice(_SCALE, 64)
    hz = _log_uniform(rng, 100, 200) * notes[(t / every).astype(int) % 64]
    wave = _band(_tone(t, hz, 1 / np.arange(1, 30)), t, 30, 2500)
    return wave * np.exp(-rng.uniform(0, 2) * (t / every % 1))


def _theremin(rng, t):
    glide = 2 ** (1.2 * _curve(rng, t, 0.7)) * (1 + 0.02 * _tone(t, 6.0))
    return _tone(t, _log_uniform(rng, 300, 500) * glide, [1, 0.4, 0.2, 0.1])


def _drums(rng, t, beat=None):
    beat, noise = beat or rng.uniform(0.2, 0.3), _band(_noise(rng, t), t, 1500, 7000, 2)

    def hit(since, number):
        if number % 4 == 0:
            turns = 50 * since + 6 * (1 - np.exp(-since / 0.03))
            return 1.5 * np.exp(-since / 0.12) * np.sin(2 * np.pi * turns)
        level, decay = (0.8, 0.08) if number % 4 == 2 else (0.3, 0.025)
        return level * np.exp(-since / decay) * noise[: len(since)]

    return _events(t, np.arange(0, t[-1], beat), hit, 1.0)


def _music(rng, t):
    hz, beat = _log_uniform(rng, 200, 320), rng.uniform(0.2, 0.3)
    partials = [(1, 1, 0.4), (2, 0.5, 0.3), (3, 0.3, 0.2), (4, 0.2, 0.15)]
    bass = _melody(rng, t, hz / 2, 4 * beat, partials)
    return _melody(rng, t, hz, beat, partials) + bass + 0.5 * _drums(rng, t, beat)


# --- nature, machines and bodies -----------------------------------------------------------------


def _bangs(rng, t, starts, slope, band, decay) -> Wave:
    noise = _band(_noise(rng, t, slope), t, *band)
    return _events(t, starts, lambda s, _: np.exp(-s / decay) * noise[: len(s)])


def _explosion(rng, t):
    starts, decay = _beats(rng, t, rng.uniform(2.5, 4)), rng.uniform(0.3, 0.6)
    return _bangs(rng, t, starts, 1.5, (30, 3000), decay)


def _machine_gun(rng, t):
    starts = _beats(rng, t, 1 / rng.uniform(8, 13), 0.02)
    starts = starts[starts % 1.5 < rng.uniform(0.7, 1.3)]
    return _bangs(rng, t, starts, 0.7, (100, 5000), 0.03)


def _thunder(rng, t):
    starts, loud = rng.uniform(0, 0.6 * t[-1], 3), rng.uniform(0.4, 1, 3)
    rolls = _events(t, starts, lambda s, k: loud[k] * (1 - np.exp(-s / 0.05)) * np.exp(-s / 1.2))
    return rolls * (0.6 + _curve(rng, t, 0.12)) * _band(_noise(rng, t, 2), t, 25, 250)


def _rain(rng, t):
    drops = _noise(rng, t) * (rng.random(len(t)) < 0.004) * rng.uniform(0.3, 3, len(t))
    return _band(drops, t, 1000, 6500, 2) + 0.15 * _band(_noise(rng, t, 0.5), t, 400, 7000)


def _fire(rng, t):
    crackles = _noise(rng, t) * (rng.random(len(t)) < 0.002) * rng.uniform(0.2, 3, len(t)) ** 2
    return _band(crackles, t, 600, 7000, 2) + 0.05 * _noise(rng, t, 1.5)


def _wind(rng, t):
    howl = _curve(rng, t, 0.6) ** 2 * _band(_noise(rng, t), t, 350, 500, 2)
    gusts = 0.3 + _curve(rng, t, 0.8) ** 2
    return gusts * _band(_noise(rng, t, 1.5), t, 60, 900) + 0.3 * howl


def _steam(rng, t):
    return _band(_noise(rng, t), t, 3500, 7900, 2) * (0.5 + _curve(rng, t, 0.8))


def _helicopter(rng, t):
    speed = rng.uniform(11, 18)
    thumps = np.exp(-(t * speed % 1) / 0.15) * _band(_noise(rng, t, 1), t, 40, 800)
    return thumps + 0.1 * _noise(rng, t, 1) + 0.1 * _tone(t, speed * 9, [1, 0.5, 0.3])


def _bird(rng, t):
    starts = [b + 0.15 * k for b in _beats(rng, t, rng.uniform(0.8, 1.5)) for k in range(4)]
    hz, slope = rng.uniform(2500, 4500, len(starts)), rng.uniform(-9000, 9000, len(starts))

    def chirp(since, number):
        turns = hz[number] * since + slope[number] * since**2
        return np.sin(2 * np.pi * turns) * np.sin(np.pi * since / since[-1])

    return _events(t, starts, chirp, 0.12)


def _heartbeat(rng, t):
    every, hz = rng.uniform(0.7, 1.0), rng.uniform(45, 70)
    starts = [b + d for b in _beats(rng, t, every) for d in (0, 0.3 * every)]
    pair = [(1.0, 1.0, 0.04)], [(1.2, 0.7, 0.04)]
    beats = _events(t, starts, lambda s, k: _struck(s, hz, pair[k % 2]), 0.5)
    return beats + 0.02 * _band(_noise(rng, t, 2), t, 20, 200)


def _whistling(rng, t):
    notes = 2 ** _curve(rng, t, 0.35, np.array([0, 2, 4, 7]) / 12)
    hz = _log_uniform(rng, 900, 1400) * notes * (1 + 0.01 * _tone(t, 5.5))
    return (_tone(t, hz, [1, 0.05]) + 0.02 * _noise(rng, t)) * (0.3 + _curve(rng, t, 0.3))


_VOWELS = np.array([
    [270, 2290, 3010], [390, 1990, 2550], [530, 1840, 2480], [660, 1720, 2410], [730, 1090, 2440],
    [570, 840, 2410], [440, 1020, 2240], [300, 870, 2240], [640, 1190, 2390],
])  # Hz of three formants  # fmt: skip


def _speech(rng, t):
    """Syllables of a consonant and a vowel, with pauses."""
    pitch, size, wave, start = _log_uniform(rng, 95, 220), rng.uniform(0.95, 1.2), 0 * t, 0.1
    before = size * _VOWELS[0]
    while start < t[-1] - 0.1:
        length, vowel = rng.uniform(0.13, 0.28), size * rng.choice(_VOWELS)
        part = t[round(start * _rate(t)) : round((start + length) * _rate(t))] - start
        octaves = 0.3 * np.sin(2.1 * start) - 0.16 * (start % 2.5) + 0.1 * part / length
        first = round(start * _rate(t))
        wave[first : first + len(part)] = _syllable(rng, part, pitch * 2**octaves, before, vowel)
        start += length + (rng.uniform(0.3, 0.6) if rng.random() < 0.1 else 0.02)
        before = vowel
    return wave


def _syllable(rng, t: Wave, hz: Wave, before: np.ndarray, vowel: np.ndarray) -> Wave:
    source = _tone(t, hz, 1 / np.arange(1, 40) ** 1.2) + 0.02 * rng.standard_normal(len(t))
    formants = before + (vowel - before) * np.clip(t / 0.08, 0, 1)[:, None]
    bands = ((70, 1.0), (100, 0.6), (140, 0.3))  # width in Hz, level
    voice = sum(a * _formant(source, formants[:, k], w, t) for k, (w, a) in enumerate(bands))
    envelope = np.clip(np.minimum((t - 0.03) / 0.03, (t[-1] - t) / 0.05), 0, 1)
    voice = envelope * voice / max(np.abs(voice).max(), 1e-9)
    if rng.random() < 0.5:
        return voice
    consonant = np.clip(np.minimum(t / 0.02, (0.08 - t) / 0.03), 0, 1) * _noise(rng, t)
    return voice + 0.15 * _band(consonant, t, rng.choice([1500, 3000]), 7000, 2)


def _formant(source: Wave, hz: Wave, width, t: Wave) -> Wave:
    """A moving resonance: its frequency is set anew every 10 ms."""
    radius, size, state, out = np.exp(-np.pi * width / _rate(t)), _rate(t) // 100, np.zeros(2), []
    for first in range(0, len(source), size):
        poles = [1, -2 * radius * np.cos(2 * np.pi * hz[first] / _rate(t)), radius**2]
        piece, state = signal.lfilter([1 - radius], poles, source[first : first + size], zi=state)
        out.append(piece)
    return np.concatenate(out)


_SOUNDS: dict[str, Callable[[np.random.Generator, Wave], Wave]] = {
    "Speech": _speech,
    "Whistling": _whistling,
    "Heart sounds, heartbeat": _heartbeat,
    "Bird": _bird,
    "Music": _music,
    "Piano": _piano,
    "Synthesizer": _synthesizer,
    "Drum machine": _drums,
    "Glockenspiel": _glockenspiel,
    "Church bell": _church_bell,
    "Theremin": _theremin,
    "Wind": _wind,
    "Thunder": _thunder,
    "Rain": _rain,
    "Steam": _steam,
    "Fire": _fire,
    "Vehicle horn, car horn, honking": _car_horn,
    "Helicopter": _helicopter,
    "Telephone bell ringing": _telephone_bell,
    "Telephone dialing, DTMF": _dialing,
    "Dial tone": _dial_tone,
    "Busy signal": _busy_signal,
    "Alarm clock": _alarm_clock,
    "Siren": _siren,
    "Civil defense siren": _civil_defense_siren,
    "Smoke detector, smoke alarm": _smoke_alarm,
    "Explosion": _explosion,
    "Machine gun": _machine_gun,
    "Beep, bleep": _beep,
    "Silence": _silence,
    "Sine wave": _sine,
    "Chirp tone": _chirp,
    "White noise": _noise,
    "Pink noise": lambda rng, t: _noise(rng, t, 1.0),
}
_ELECTRIC = {  # heard without a room
    "Dial tone", "Busy signal", "Telephone dialing, DTMF", "Sine wave", "Chirp tone", "White noise",
    "Pink noise",
}  # fmt: skip

CLASSES: tuple[str, ...] = tuple(_SOUNDS)
