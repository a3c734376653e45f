"""Convert HDR and wide-gamut frames to BT.709, as a screen without HDR shows them.

Camera phones record HLG or PQ in BT.2020; read as ordinary video it looks gray. Here a signal
becomes linear light (ITU-R BT.2100), whose reference white of 203 cd/m2 (ITU-R BT.2408) is 1; then
its primaries become those of BT.709, highlights are compressed, and the light is coded for an
ordinary screen (ITU-R BT.1886).
"""

from functools import lru_cache

import numpy as np

# Numbers of ITU-T H.273, which video files use.
TRANSFERS = {16: "PQ", 18: "HLG"}
BT2020, P3 = 9, 12  # primaries

WHITE = 203.0  # cd/m2, of paper in HDR video
PEAK = 1000.0 / WHITE  # the brightest light that is kept apart; HLG screens nominally end there
KNEE = 0.75  # linear light from which on highlights are compressed
GAMMA = 2.4  # of an ordinary screen
TO_BT709 = {  # linear light, one row for each of R, G, B
    BT2020: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    P3: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
LUMINANCE = np.array((0.2627, 0.6780, 0.0593), np.float32)  # of BT.2020


def kind(transfer: int, primaries: int) -> str:
    """The color standard to convert from: "HLG", "PQ" or "BT.2020"; "" for ordinary video."""
    return TRANSFERS.get(transfer) or ("BT.2020" if primaries == BT2020 else "")


def to_bt709(rgb: np.ndarray, kind: str, primaries: int) -> np.ndarray:
    """Convert a frame uint16 [H, W, 3], full scale at 65535, to BT.709, uint8 [H, W, 3]."""
    light = _linear(kind)[rgb]  # [H, W, 3]
    if kind == "HLG":  # from the light of the scene to that of a screen of 1000 cd/m2
        light *= ((light @ LUMINANCE) ** np.float32(0.2))[..., None] * np.float32(PEAK)
    matrix = TO_BT709.get(primaries, np.eye(3) if primaries == 1 else TO_BT709[BT2020])
    light = np.maximum(light @ np.array(matrix, np.float32).T, 0)
    if kind in TRANSFERS.values():
        light *= _compression(light.max(axis=-1))[..., None]
    return np.round(255 * np.minimum(light, 1) ** np.float32(1 / GAMMA)).astype(np.uint8)


@lru_cache
def _linear(kind: str) -> np.ndarray:
    """Linear light float32 [65536] of each signal: 1 is white, of HLG the peak of the scene."""
    signal = np.arange(65536) / 65535
    if kind == "HLG":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    elif kind == "PQ":
        m, n, c1, c2, c3 = 2523 / 32, 1305 / 8192, 107 / 128, 2413 / 128, 2392 / 128
        root = signal ** (1 / m)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / n) * 10_000 / WHITE
    else:
        light = signal**GAMMA
    return light.astype(np.float32)


def _compression(brightest: np.ndarray) -> np.ndarray:
    """Factors [H, W] that bring light from `KNEE` to `PEAK` smoothly below 1; 1 up to `KNEE`."""
    over = np.clip(brightest - KNEE, 0, PEAK - KNEE) / (1 - KNEE)
    end = (PEAK - KNEE) / (1 - KNEE)
    lowered = KNEE + (1 - KNEE) * over * (1 + over / end**2) / (1 + over)
    return np.where(brightest > KNEE, lowered / np.maximum(brightest, KNEE), 1).astype(np.float32)
