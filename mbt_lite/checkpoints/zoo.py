"""Published weights by name: what they are, where they are stored, how they are downloaded.

The six files of the Scenic README are Flax checkpoints with their optimizer. `fetch` downloads one,
converts it once to safetensors that hold the parameters alone, and keeps these in `cache_folder()`.
A published file that was copied there by hand serves as well.
"""

import csv
import difflib
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mbt_lite.checkpoints import download, formats, io, scenic
from mbt_lite.config import (
    BASE,
    WORLD,
    WORLD_CLIP,
    ClipConfig,
    FrontEnd,
    MBTConfig,
    from_dict,
    to_dict,
)
from mbt_lite.features import FRONT_ENDS
from mbt_lite.model.flops import model_cost, parameter_shapes
from mbt_lite.model.label_heads import Head
from mbt_lite.paths import cache_folder

BUCKET = "https://storage.googleapis.com/scenic-bucket/mbt/"
LABELS = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/class_labels_indices.csv"
AUDIOSET = "AudioSet's 527 names, downloaded when they are first needed"
MEMORY = 4.5  # times the size of the weights that a conversion takes at most
LIKELIEST = {0: "Speech", 137: "Music"}  # the labels of most clips of AudioSet
ORDER = "Their classes are taken to be in AudioSet's official order, which nobody documented."
UNTESTED = (
    "How the released weights' spectrograms were made was never published, nor the order of their "
    "classes; `mbt-lite zoo verify` finds out in a few minutes. Until then a plain log-mel and "
    "AudioSet's official order are assumed, so scores may be too low."
)
Weights = tuple[MBTConfig, dict, dict]  # (config, params, meta), as `io.load` gives them


@dataclass(frozen=True)
class Entry:
    """One model of the zoo."""

    name: str
    url: str | None  # None: embedded in the package
    file: str  # its published name
    mAP: float | None  # from the Scenic README, not measured here
    trained_on: str
    config: MBTConfig
    clip: ClipConfig
    license: str
    labels: str  # where the names of its classes come from

    @property
    def released(self) -> bool:
        """Whether the paper's authors released the weights."""
        return self.url is not None

    @property
    def caution(self) -> str | None:
        """A warning to show with its predictions: what is unknown about released weights."""
        if not self.released:
            return None
        return UNTESTED if "spec" in self.config.streams else ORDER


def released_clip() -> ClipConfig:
    """The clips of the released models: 2.56 s of video and 8 s of audio.

    Frames and crop are those of Scenic's AudioSet config. The front end is the paper's log-mel,
    with its mean and deviation over the sounds of the self-test; what that finds replaces it.
    """
    return ClipConfig(front_end=replace(FRONT_ENDS["ln-magnitude-1e-6"], mean=-1.85, std=2.39))


def _released(trained_on: str, streams: str, mAP: float) -> Entry:
    corpus = {"as-mini": "AudioSet mini (20,361 clips)", "as-500k": "AudioSet 500K"}[trained_on]
    file = f"mbtb32_{trained_on}_{streams}"
    config = replace(BASE, streams=tuple(s for s in BASE.streams if s in streams.split("-")))
    if len(config.streams) == 1:
        config = replace(config, fusion="late", fusion_layer=BASE.depth)
    return Entry(
        name=f"{trained_on.replace('as-500k', 'as500k')}-{streams}",
        url=BUCKET + file,
        file=file,
        mAP=mAP,
        trained_on=corpus,
        config=config,
        clip=released_clip(),
        license="Apache-2.0 (that of the Scenic repository; the files carry none of their own)",
        labels=AUDIOSET,
    )


ENTRIES = {
    entry.name: entry
    for entry in (
        _released("as-mini", "spec", 30.9),
        _released("as-mini", "rgb", 27.0),
        _released("as-mini", "rgb-spec", 43.9),
        _released("as-500k", "spec", 44.0),
        _released("as-500k", "rgb", 33.9),
        _released("as-500k", "rgb-spec", 52.3),
        Entry(
            name="world-tiny",
            url=None,
            file="world-tiny.safetensors",
            mAP=None,
            trained_on="the micro-world",
            config=WORLD,
            clip=WORLD_CLIP,
            license="Apache-2.0",
            labels="in the file",
        ),
    )
}


def find(name: str) -> Entry | None:
    """The entry of a plain or published name, None if there is none."""
    return next((model for model in ENTRIES.values() if name in (model.name, model.file)), None)


def entry(name: str) -> Entry:
    """The entry of a plain or published name; ValueError with the nearest ones if there is none."""
    model = find(name)
    if model is None:
        near = difflib.get_close_matches(name.lower(), ENTRIES, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(ENTRIES)}."
        raise ValueError(f"the zoo has no {name!r}. {hint}")
    return model


def fetch(name: str, dtype: str | None = None) -> Path:
    """The safetensors of an entry; downloaded and converted if they are not here yet.

    Without a `dtype` the one that is here is used, float32 if both or none are. The download
    (parameters and optimizer) is deleted after its conversion and its sha256 kept; a file that was
    copied into the cache folder by hand stays. Raises DownloadError or ValueError with a sentence.
    """
    return _obtain(entry(name), dtype)[0]


def load(name: str, **overrides) -> Weights:
    """Load (config, params, meta) of an entry as `io.load` does, obtained as by `fetch`.

    On first use that is what was converted, which is not read again.
    """
    path, weights = _obtain(entry(name), None)
    return weights if weights and not overrides else io.load(path, **overrides)


def _obtain(model: Entry, dtype: str | None) -> tuple[Path, Weights | None]:
    """The safetensors of an entry, and what is in it if it was written just now."""
    here = [each for each, path in places(model).items() if path.exists()]
    dtype = dtype or (here or ["float32"])[0]
    path, weights = converted(model, dtype), None
    if not path.exists():
        with download.locked(cache_folder() / model.file):
            if not path.exists():  # another process may have converted it meanwhile
                weights = _make(model, dtype, path)
    return path, weights


def converted(model: Entry, dtype: str = "float32") -> Path:
    """Where the safetensors of an entry are, or will be."""
    io.check_dtype(dtype)
    if model.released:
        half = "-bf16" if dtype == "bfloat16" else ""
        return cache_folder() / f"{model.name}{half}.safetensors"
    if dtype != "float32":
        raise ValueError(f"{model.name} is embedded in the package, in float32 only.")
    return Path(__file__).parents[1] / "weights" / model.file


def places(model: Entry) -> dict[str, Path]:
    """{dtype: where the safetensors are, or will be} for each dtype that an entry can have."""
    dtypes = io.DTYPES if model.released else ["float32"]
    return {dtype: converted(model, dtype) for dtype in dtypes}


def original(model: Entry) -> Path | None:
    """The published file of an entry, copied here by hand or left by an interrupted call."""
    path = cache_folder() / model.file
    return path if path.is_file() else None


def received(model: Entry) -> int:
    """Bytes of an unfinished download of an entry."""
    try:
        return (cache_folder() / f"{model.file}.partial").stat().st_size
    except FileNotFoundError:
        return 0


def state(model: Entry) -> str:
    """Which files of an entry are on this machine, in a few words."""
    if not model.released:
        return "embedded"
    here = [dtype for dtype, path in places(model).items() if path.exists()]
    if original(model):
        here.append("the published file")
    if size := received(model):
        here.append(f"{download.amount(size)} of the download")
    return ", ".join(here) or "not here"


def expected_arrays(config: MBTConfig) -> dict[str, tuple[int, ...]]:
    """{Scenic's name: shape} of every array that conversion needs for such a model."""
    return {
        part: scenic.scenic_shape(name, shape, config)
        for name, shape in parameter_shapes(config).items()
        for part in scenic.scenic_names(name, config)
    }


def largest_biases(
    params: Mapping, labels: Sequence[str] | None, count: int = 5
) -> list[tuple[int, str, float]]:
    """(class, its name, bias) of the largest biases of a head, largest first.

    A head learns how frequent its classes are. If a released one follows AudioSet's official order,
    0 (Speech) and 137 (Music), by far the most frequent, must lead.
    """
    bias = np.asarray(params["head"]["bias"], np.float32)
    best = np.argsort(-bias, kind="stable")[:count].tolist()
    return [(i, labels[i] if labels else f"class {i}", float(bias[i])) for i in best]


def audioset_labels() -> tuple[str, ...]:
    """AudioSet's 527 class names in official order; downloaded once to the cache folder."""
    path = _labels_file()
    if not path.exists():
        with download.locked(path):
            if not path.exists():
                download.download(LABELS, path, check=_read_labels)
    return _read_labels(path)


def _labels_file() -> Path:
    return cache_folder() / LABELS.rpartition("/")[2]


def _read_labels(path: Path) -> tuple[str, ...]:
    """The class names of a CSV with the columns index, mid, display_name."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        indices = [int(row[0]) for row in rows]
        names = tuple(row[2] for row in rows)
    except (ValueError, IndexError, csv.Error):  # not text, no rows, or other columns
        header, indices, names = None, [], ()
    count = BASE.classes
    fits = header == ["index", "mid", "display_name"] and indices == list(range(count))
    if not fits or not all(names):
        raise ValueError(
            f"{path} is not the list of {count} classes (header index,mid,display_name and rows "
            f"0 to {count - 1} in order); replace it by {LABELS}."
        )
    return names


def self_test_file(weights: Path) -> Path:
    """Where the result of the self-test of a weights file is stored."""
    return weights.with_suffix(".self-test.json")


def read_self_test(weights: Path) -> dict | None:
    """The stored result of a self-test; None where there is none that is newer than the weights."""
    path = self_test_file(weights)
    if not path.exists() or path.stat().st_mtime < weights.stat().st_mtime:
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        front = result["front_end"] and from_dict(FrontEnd, result["front_end"], "front_end")
        return {"caution": str(result["caution"]), "front_end": front}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it or test again.") from None


def download_size(model: Entry) -> int:
    """Bytes of a published file: its parameters, and its optimizer's momentum."""
    return 2 * 4 * model_cost(model.config).parameters


def _make(model: Entry, dtype: str, target: Path) -> Weights | None:
    """Convert an entry to `target`, from float32, a file copied by hand, or a download.

    Returns what a published file holds, unless it is rounded in `target`.
    """
    if (float32 := converted(model)).exists():
        io.convert(float32, target, dtype=dtype)
        return None
    published = cache_folder() / model.file
    by_hand = published.exists()
    arrays = {} if by_hand else _fetch_original(model, published)
    sha256 = download.verify(published, published) if by_hand else download.remembered(published)
    size = 4 * model_cost(model.config).parameters
    memory = f"it takes up to {download.amount(MEMORY * size)} of memory"
    print(f"converting {model.file} once; {memory} ...", file=sys.stderr)
    start = time.monotonic()
    weights = _convert(model, published, arrays, dtype, target, sha256)
    kept = f"{target} keeps {download.amount(target.stat().st_size)}"
    print(f"converted in {time.monotonic() - start:.0f} s; {kept}", file=sys.stderr)
    download.remember(published, sha256)
    if not by_hand:
        published.unlink()
    return weights if dtype == "float32" else None


def _fetch_original(model: Entry, path: Path) -> dict:
    """Download the published file; return its arrays, which were read to check it.

    A failure also names the list of classes if that is missing.
    """
    arrays = {}
    try:
        download.download(model.url, path, check=lambda file: arrays.update(formats.read(file)))
    except download.DownloadError as error:
        if _labels_file().exists():
            raise
        raise download.DownloadError(
            f"{error} It also needs the names of its classes: {LABELS}, at {_labels_file()}."
        ) from None
    return arrays


def _convert(
    model: Entry, file: Path, arrays: dict, dtype: str, target: Path, sha256: str
) -> Weights:
    """Convert the arrays of a published file, which is read if there are none yet.

    The entry has the fields that their shapes leave open.
    """
    fields = ("streams", "fusion_layer", "rgb_shape", "spec_shape")
    overrides = {field: getattr(model.config, field) for field in fields}
    try:
        arrays = arrays or formats.read(file)
        config, params = io.from_arrays(arrays, overrides, str(file))
    except ValueError as error:
        raise ValueError(
            f"{error}\nThe file was left where it is: delete it to have it downloaded again, or "
            f"read it with other settings: mbt.load({str(file)!r}, ...)."
        ) from None
    arrays.clear()
    labels = _labels(model)
    meta = {
        "clip": model.clip,
        "labels": labels and list(labels),
        "license": model.license,
        "name": model.name,
        "source": {"url": model.url, "sha256": sha256},
        "caution": model.caution,
        "label_heads": [to_dict(Head("", "sigmoid", config.classes))],
    }
    io.save(target, params, config, dtype=dtype, **meta)
    return config, params, meta


def _labels(model: Entry) -> tuple[str, ...] | None:
    """The class names to store; None, with a warning, if they cannot be downloaded now."""
    try:
        return audioset_labels()
    except (OSError, ValueError) as error:
        warnings.warn(f"{model.name} is saved without class names: {error}", stacklevel=2)
        return None
