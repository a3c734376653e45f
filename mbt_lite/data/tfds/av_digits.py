"""The TFDS dataset `av_digits`: the same digit written and spoken, both in noise."""

import contextlib
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from mbt_lite.config import ClipConfig
from mbt_lite.data.tfds import digits
from mbt_lite.data.tfds.base import Builder
from mbt_lite.features import log_mel

_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_SPOKEN = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/"
URLS = {
    "train_images": _MNIST + "train-images-idx3-ubyte.gz",
    "train_labels": _MNIST + "train-labels-idx1-ubyte.gz",
    "test_images": _MNIST + "t10k-images-idx3-ubyte.gz",
    "test_labels": _MNIST + "t10k-labels-idx1-ubyte.gz",
    "recordings": _SPOKEN + "v1.0.9.tar.gz",
}
FILES = (  # what a manual folder holds; their checksums are in checksums.tsv
    *(url.rpartition("/")[2] for url in URLS.values() if url.startswith(_MNIST)),
    "free-spoken-digit-dataset-1.0.9.tar.gz",
)
CONTENTS = {  # sha256 of what is in the gzipped files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SPLITS = ("train", "validation", "test")


@dataclass(eq=False)
class AvDigitsConfig(tfds.core.BuilderConfig):
    """The noise in each stream; other values need another name."""

    snr: float | None = -10.0  # dB, voice over white noise; None: no noise
    pixel_noise: float = 1.5  # standard deviation on the 0..1 scale, before clipping
    pairs: int = 8  # images for each recording
    seed: int = 0


class AvDigits(Builder):
    """Pairs of an image (28 x 28) and a recording (1 s, 8 kHz) of the same digit.

    The images are from MNIST, the recordings from the Free Spoken Digit Dataset. The test split has
    the official test recordings 0-4 of each speaker and digit with MNIST's test images; the
    validation split has recordings 5-9 with every sixth training image. No image is used twice.

    The noise is part of the stored examples, so that every loader trains and tests on the same
    bytes.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        AvDigitsConfig(name="noisy", description="Audio at -10 dB, pixels at deviation 1.5."),
        AvDigitsConfig(name="clean", description="Without noise.", snr=None, pixel_noise=0.0),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Without a network: put {', '.join(FILES)} into the manual folder. The images and labels "
        "may also be unzipped or in a tar archive."
    )

    @property
    def fingerprint(self) -> dict:
        """What determines the examples, besides the published files."""
        config = self.builder_config
        return {name: getattr(config, name) for name in ("snr", "pixel_noise", "pairs", "seed")}

    def _info(self) -> tfds.core.DatasetInfo:
        return self._described(
            {
                "id": tfds.features.Text(),
                "image": tfds.features.Tensor(shape=(28, 28), dtype=np.uint8),
                "audio": tfds.features.Tensor(shape=(digits.RATE,), dtype=np.int16),
                "label": tfds.features.ClassLabel(names=digits.LABELS),
            },
            homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
            license="CC BY-SA 4.0 (recordings), CC BY-SA 3.0 (images)",
        )

    def _split_generators(self, dl_manager):
        files = _download(dl_manager)
        recordings = digits.recordings(files["recordings"])
        mnist = {
            origin: digits.mnist(files[f"{origin}_images"], files[f"{origin}_labels"])
            for origin in ("train", "test")
        }
        return {
            split: self._generate_examples(split, recordings, *mnist[_origin(split)])
            for split in SPLITS
        }

    def _generate_examples(self, split, recordings, images, labels) -> Iterator[tuple]:
        config, part = self.builder_config, SPLITS.index(split)
        recordings = [recording for recording in recordings if recording.split == split]
        numbers = _images_of(split, len(images))
        rng = np.random.default_rng([config.seed, part])
        spoken = np.array([recording.digit for recording in recordings])
        pairs = digits.pairs(spoken, labels[numbers], config.pairs, rng)
        for i, (index, image_index) in enumerate(pairs):
            recording, number = recordings[index], int(numbers[image_index])
            noise = np.random.default_rng([config.seed, part, i])
            image = digits.noisy_image(images[number], config.pixel_noise, noise)
            audio = digits.noisy_audio(recording.wave, config.snr, noise)
            name = f"{recording.name}-{_origin(split)}{number:05}"
            yield name, {"id": name, "image": image, "audio": audio, "label": recording.digit}


def missing(folder: Path) -> list[str]:
    """Published files that a manual folder lacks in any form."""
    absent = [file for file in FILES if not (folder / file).is_file()]
    return [file for file in absent if not _unpacked(folder, file)]


def _unpacked(folder: Path, file: str) -> bytes | None:
    """The content of a gzipped file that is in a folder in whatever form; None if it is not."""
    name = file.removesuffix(".gz")
    return digits.find_idx(folder, name, CONTENTS[name]) if name in CONTENTS else None


def _download(dl_manager) -> dict:
    """The contents of the idx files, and the path of the archive of recordings.

    They are in the manual folder, among the downloads, or downloaded now: one after the other, so
    that no other download is running when one fails.
    """
    try:
        return {name: _get(dl_manager, url) for name, url in URLS.items()}
    except NonMatchingChecksumError as error:
        cause = str(error).splitlines()[0].rstrip(":")
        raise ValueError(
            f"{cause}: it is not the published file. Try again; in the manual folder, replace it."
        ) from None
    except (DownloadError, OSError) as error:
        files = ", ".join(
            f"{url} as {file}" for url, file in zip(URLS.values(), FILES, strict=True)
        )
        raise OSError(
            f"the digits could not be downloaded ({error}). To work without a network, put {files} "
            "into a folder and name it with --manual."
        ) from None


def _get(dl_manager, url: str) -> bytes | Path:
    """An idx file's content, or the path of another file; `download` looks into the folder, too."""
    file = url.rpartition("/")[2]
    with contextlib.suppress(AssertionError):  # there is no manual folder
        if content := _unpacked(Path(dl_manager.manual_dir), file):
            return content
    path = Path(dl_manager.download(url))
    return gzip.decompress(path.read_bytes()) if "-idx" in file else path


def _origin(split: str) -> str:
    return "test" if split == "test" else "train"


def _images_of(split: str, count: int) -> np.ndarray:
    """The numbers of the images of a file that belong to a split."""
    numbers = np.arange(count)
    return {"test": numbers, "validation": numbers[5::6], "train": numbers[numbers % 6 != 5]}[split]


def sample(stored: Mapping, clip: ClipConfig) -> dict:
    """A training example: id, rgb uint8 [T, H, W, 3], spec float32 [N, M], labels [10].

    All frames are the same; the second of audio is resampled to the front end's rate (nothing is
    added above 4 kHz) and repeated to the clip's duration.
    """
    image = Image.fromarray(np.asarray(stored["image"])).convert("RGB")
    frame = np.asarray(image.resize((clip.size, clip.size), Image.Resampling.BILINEAR))
    front, audio = clip.front_end, stored["audio"].astype(np.float32) / 32768
    second = _resampled(audio, round(digits.SECONDS * front.rate))
    samples = np.resize(second, clip.spec_frames * front.hop_samples)
    return {
        "id": stored["id"].decode(),
        "rgb": np.broadcast_to(frame, (clip.frames, *frame.shape)),
        "spec": log_mel(samples, front)[: clip.spec_frames],
        "labels": np.eye(len(digits.LABELS), dtype=np.float32)[stored["label"]],
    }


def _resampled(samples: np.ndarray, count: int) -> np.ndarray:
    """float32 [count]: the same duration with so many samples, by its Fourier series."""
    return (np.fft.irfft(np.fft.rfft(samples), count) * (count / len(samples))).astype(np.float32)
