"""`av_digits`: the same digit written and spoken, both in noise."""

import io
import shutil
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from mbt_lite.checkpoints.download import by_hand
from mbt_lite.config import ClipConfig
from mbt_lite.data.tfds import digits
from mbt_lite.data.tfds.base import Builder
from mbt_lite.features import log_mel

_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_SPOKEN = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/"
URLS = {
    "train_pictures": _MNIST + "train-images-idx3-ubyte.gz",
    "train_labels": _MNIST + "train-labels-idx1-ubyte.gz",
    "test_pictures": _MNIST + "t10k-images-idx3-ubyte.gz",
    "test_labels": _MNIST + "t10k-labels-idx1-ubyte.gz",
    "recordings": _SPOKEN + "v1.0.9.tar.gz",
}
FILES = (  # what a manual folder holds; their checksums are in checksums.tsv
    *(url.rpartition("/")[2] for url in URLS.values() if url.startswith(_MNIST)),
    "free-spoken-digit-dataset-1.0.9.tar.gz",
)
SPLITS = ("train", "validation", "test")


@dataclass(eq=False)
class AvDigitsConfig(tfds.core.BuilderConfig):
    """How much noise covers each stream. Another choice of values takes another name."""

    snr: float | None = -10.0  # dB, voice over white noise; None: no noise
    pixel_noise: float = 1.5  # standard deviation on the 0..1 scale, before clipping
    pairs: int = 8  # images for each recording
    seed: int = 0


class AvDigits(Builder):
    """Pairs of a PNG image (28 x 28) and a WAV audio (1 s, 8 kHz) of the same digit.

    Images are MNIST's, sounds those of the Free Spoken Digit Dataset. Tested are its official
    recordings 0-4 of each speaker and digit with MNIST's test images; recordings 5-9 with every
    sixth training video are for validation. No video is used twice.

    The noise is part of the stored examples: whoever opens the folder, with whatever loader,
    learns from and is tested on the same bytes.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        AvDigitsConfig(name="noisy", description="Audio at -10 dB, pixels at deviation 1.5."),
        AvDigitsConfig(name="clean", description="Without noise.", snr=None, pixel_noise=0.0),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Without a network: put {', '.join(FILES)} into the manual folder."
    )

    @property
    def made_of(self) -> dict:
        """What decides the examples, besides the published files."""
        config = self.builder_config
        return {name: getattr(config, name) for name in ("snr", "pixel_noise", "pairs", "seed")}

    def _info(self) -> tfds.core.DatasetInfo:
        return self._described(
            {
                "id": tfds.features.Text(),
                "image": tfds.features.Tensor(shape=(), dtype=np.object_),  # a PNG file
                "audio": tfds.features.Tensor(shape=(), dtype=np.object_),  # a WAV file
                "label": tfds.features.ClassLabel(names=digits.LABELS),
            },
            homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
            license="CC BY-SA 4.0 (sounds), CC BY-SA 3.0 (images)",
        )

    def _split_generators(self, dl_manager):
        files = _fetched(dl_manager)
        recordings = digits.recordings(files["recordings"])
        written = {
            origin: digits.mnist(files[f"{origin}_pictures"], files[f"{origin}_labels"])
            for origin in ("train", "test")
        }
        return {
            split: self._generate_examples(split, recordings, *written[_origin(split)])
            for split in SPLITS
        }

    def _generate_examples(self, split, recordings, images, labels) -> Iterator[tuple]:
        config, part = self.builder_config, SPLITS.index(split)
        spoken = [r for r in recordings if r.split == split]
        seen = _images_of(split, len(images))
        rng = np.random.default_rng([config.seed, part])
        voices = np.array([recording.digit for recording in spoken])
        made = digits.pairs(voices, labels[seen], config.pairs, rng)
        for i, (heard, shown) in enumerate(made):
            recording, number = spoken[heard], int(seen[shown])
            noise = np.random.default_rng([config.seed, part, i])
            image = digits.noisy_image(images[number], config.pixel_noise, noise)
            audio = digits.noisy_audio(recording.wave, config.snr, noise)
            name = f"{recording.name}-{_origin(split)}{number:05}"
            files = {"image": _png(image), "audio": _wav(audio)}
            yield name, {"id": name, **files, "label": recording.digit}


def _fetched(dl_manager) -> dict:
    """Where the published files lie: in the manual folder, among the downloads, or now fetched.

    One after the other, so that none is under way any more when one fails.
    """
    try:
        return {name: dl_manager.download(url) for name, url in URLS.items()}
    except NonMatchingChecksumError as error:
        _tidy(dl_manager)
        found = str(error).splitlines()[0].rstrip(":")
        raise ValueError(
            f"{found}: it is not the published file. Try again; in the manual folder, replace it."
        ) from None
    except (DownloadError, OSError) as error:
        _tidy(dl_manager)
        raise OSError(f"the digits could not be downloaded ({error}). {_by_hand()}") from None


def _by_hand() -> str:
    """Every published file with its size, its address and its name in the manual folder."""
    known = Path(__file__).with_name("checksums.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in known.splitlines()]
    manual = Path("DIR of --manual DIR")
    return by_hand([(int(size), url, manual / name) for url, size, _, name in rows])


def _tidy(dl_manager) -> None:
    """Remove what TFDS leaves of downloads that failed."""
    for part in Path(dl_manager.download_dir).glob(f"{AvDigits.name}/*.tmp.*"):
        shutil.rmtree(part, ignore_errors=True)


def _origin(split: str) -> str:
    return "test" if split == "test" else "train"


def _images_of(split: str, count: int) -> np.ndarray:
    """Which of a file's images a split may use."""
    every = np.arange(count)
    return {"test": every, "validation": every[5::6], "train": every[every % 6 != 5]}[split]


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(digits.RATE)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def image(stored: Mapping) -> np.ndarray:
    """uint8 [28, 28] of a stored example."""
    return np.asarray(Image.open(io.BytesIO(stored["image"])))


def audio(stored: Mapping) -> np.ndarray:
    """float32 [8000] in [-1, 1], 8 kHz, of a stored example."""
    with wave.open(io.BytesIO(stored["audio"])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return samples.astype(np.float32) / 32768


def sample(stored: Mapping, clip: ClipConfig) -> dict:
    """What a loader hands on: id, rgb uint8 [T, H, W, 3], spec float32 [N, M], labels [10].

    The video stands still for all frames; the second of audio is repeated to the clip's length,
    brought to the front end's rate (nothing is added above 4 kHz).
    """
    shown = Image.fromarray(image(stored)).convert("RGB")
    frame = np.asarray(shown.resize((clip.size, clip.size), Image.Resampling.BILINEAR))
    front = clip.front_end
    heard = _resampled(audio(stored), round(digits.SECONDS * front.rate))
    heard = np.resize(heard, clip.spec_frames * front.hop_samples)
    return {
        "id": stored["id"].decode(),
        "rgb": np.broadcast_to(frame, (clip.frames, *frame.shape)),
        "spec": log_mel(heard, front)[: clip.spec_frames],
        "labels": np.eye(len(digits.LABELS), dtype=np.float32)[stored["label"]],
    }


def _resampled(samples: np.ndarray, wanted: int) -> np.ndarray:
    """float32 [wanted]: the same second with so many samples, by its Fourier series."""
    return (np.fft.irfft(np.fft.rfft(samples), wanted) * (wanted / len(samples))).astype(np.float32)
