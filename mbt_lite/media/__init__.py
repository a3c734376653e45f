"""Read and write video and audio files, without JAX: `media.read("clip.mp4")` returns a `Media`."""

from mbt_lite.media.container import MAX_PIXELS, RATE, MediaError, PastEnd
from mbt_lite.media.decode import MAX_BYTES
from mbt_lite.media.encode import write
from mbt_lite.media.reader import Info, Media, probe, read, seconds

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "RATE",
    "Info",
    "Media",
    "MediaError",
    "PastEnd",
    "probe",
    "read",
    "seconds",
    "write",
]
