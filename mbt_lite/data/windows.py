"""Write the frames and spectrogram rows of a clip's windows into batch arrays.

Each kind of clip says how many frames and rows it has, and reads some of them; a frame that several
windows contain is read once.

V windows of a clip   T frames   H, W of the padded frames   N spectrogram rows   M mel bins
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from mbt_lite.config import ClipConfig
from mbt_lite.data.sampling import Sampling, Window, indices
from mbt_lite.data.source import Rows


class Stream(NamedTuple):
    """One stream of a clip: how many frames or rows it has, and a function that reads some.

    The function takes rising positions, those of frames perhaps between whole numbers: at 2.5,
    frame 2 is on screen.
    """

    count: int
    read: Callable[[np.ndarray], Iterable[np.ndarray]]


def write(
    out: Rows, sampling: Sampling, rng: np.random.Generator, video: Stream, audio: Stream
) -> None:
    """Write the windows that are drawn of a clip; a stream that it lacks is black or silent."""
    clip = sampling.clip
    rgb, spec = ("rgb" in out) * video.count, ("spec" in out) * audio.count
    windows = sampling.draw(rgb, spec, rng)
    if "rgb" in out:
        valid_size = write_frames(out["rgb"], windows, video, sampling, rng)
        out.get("valid_size", np.zeros((1, 2)))[:] = valid_size
    if "spec" in out:
        out["spec"][:] = clip.front_end.silence
        for view, window in enumerate(windows if spec else []):
            out["spec"][view] = audio.read(indices(window.row, clip.spec_frames, 1, spec))


def write_one(out: Rows, sample: Mapping, size: int) -> None:
    """Write a clip that is one window: labels, and rgb [T, size, size, 3], spec [N, M] or both."""
    out["labels"][:] = sample["labels"]
    if "spec" in out:
        out["spec"][:] = sample["spec"]
    if "rgb" in out:
        out["rgb"][:] = 0  # the padding
        out["rgb"][:, :, :size, :size] = sample["rgb"]
    if "valid_size" in out:
        out["valid_size"][:] = size


def write_frames(
    out: np.ndarray, windows: Sequence[Window], video: Stream, sampling: Sampling, rng
) -> tuple[int, int]:
    """Write the frames [V, T, H, W, 3] of all windows, each decoded once; return the valid size.

    Frames that are larger are cropped, in training at a random position.
    """
    clip, (height, width) = sampling.clip, sampling.frame_size
    if not video.count:
        out[:] = 0
        return height, width
    starts = [window.frame + sampling.frame_offset for window in windows]
    times = np.stack([indices(start, clip.frames, clip.stride, video.count) for start in starts])
    unique, places = np.unique(times, return_inverse=True)
    places, size = places.reshape(out.shape[:2]), None
    for number, frame in enumerate(video.read(unique)):
        if size is None:
            size = _scaled(frame.shape[:2], clip)
            top, left = (_offset(r, sampling, rng) for r in (size[0] - height, size[1] - width))
            valid_size = min(size[0], height), min(size[1], width)
        part = resize(frame, size)[top : top + height, left : left + width]
        for view, step in zip(*np.nonzero(places == number), strict=True):
            out[view, step, : valid_size[0], : valid_size[1]] = part
    out[:, :, valid_size[0] :] = 0
    out[:, :, :, valid_size[1] :] = 0
    return valid_size


def _offset(excess: int, sampling: Sampling, rng: np.random.Generator) -> int:
    """The first pixel that is kept of a side with `excess` pixels too many."""
    excess = max(excess, 0)
    return int(rng.integers(excess + 1)) if sampling.training else excess // 2


def _scaled(size: tuple[int, int], clip: ClipConfig) -> tuple[int, int]:
    """Height and width of a video when its short side is `clip.resize`."""
    scale = clip.resize / min(size)
    return tuple(max(round(side * scale), clip.size) for side in size)


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a frame uint8 [H, W, 3] to height and width."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))
