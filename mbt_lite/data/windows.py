"""Place the frames and spectrogram rows of a clip's windows into batch arrays.

Each kind of clip says how many frames and rows it has, and how to get at some of them; a frame
that several windows show is read once.

V windows of a clip   T frames   H, W of the canvas   N spectrogram rows   M mel bins   C classes
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from mbt_lite.config import ClipConfig
from mbt_lite.data.filler import Rows
from mbt_lite.data.sampling import Sampling, Window, indices


class Stream(NamedTuple):
    """One stream of a clip: how many frames or rows there are, and those at rising places.

    The places of frames may lie between whole numbers: at 2.5 frame 2 is on show.
    """

    count: int
    read: Callable[[np.ndarray], Iterable[np.ndarray]]


def multi_hot(labels: np.ndarray, numbers: Sequence[int]) -> None:
    """1 in the columns of the true classes, 0 elsewhere."""
    labels[:] = 0
    labels[:, list(numbers)] = 1


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


def write_frames(
    out: np.ndarray, windows: Sequence[Window], video: Stream, sampling: Sampling, rng
) -> tuple[int, int]:
    """Write the frames [V, T, H, W, 3] of all windows, each decoded once; the extent on the canvas.

    What a canvas does not hold of a video is cut off at a place that is drawn.
    """
    clip, (height, width) = sampling.clip, sampling.frame_size
    if not video.count:
        out[:] = 0
        return height, width
    first = [window.frame + sampling.frame_offset for window in windows]
    chosen = [indices(place, clip.frames, clip.stride, video.count) for place in first]
    wanted, places = np.unique(np.stack(chosen), return_inverse=True)
    places, size = places.reshape(out.shape[:2]), None
    for number, frame in enumerate(video.read(wanted)):
        if size is None:
            size = _scaled(frame.shape[:2], clip)
            top, left = (_begin(r, sampling, rng) for r in (size[0] - height, size[1] - width))
            valid_size = min(size[0], height), min(size[1], width)
        part = _resized(frame, size)[top : top + height, left : left + width]
        for view, step in zip(*np.nonzero(places == number), strict=True):
            out[view, step, : valid_size[0], : valid_size[1]] = part
    out[:, :, valid_size[0] :] = 0
    out[:, :, :, valid_size[1] :] = 0
    return valid_size


def _begin(room: int, sampling: Sampling, rng: np.random.Generator) -> int:
    """The first pixel that is kept where `room` pixels are too many."""
    room = max(room, 0)
    return int(rng.integers(room + 1)) if sampling.training else room // 2


def _scaled(size: tuple[int, int], clip: ClipConfig) -> tuple[int, int]:
    """Height and width of a video when its short side is `clip.resize`."""
    scale = clip.resize / min(size)
    return tuple(max(round(side * scale), clip.size) for side in size)


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))
