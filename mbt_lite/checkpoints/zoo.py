"""Published weights by name: what they are, where they are stored, how they are fetched.

The six files of the Scenic README are Flax checkpoints with their optimiser. `fetch` downloads one,
converts it once to safetensors that hold the parameters alone, and keeps that in `cache_folder()`.
A file put there by hand under its published name does as well.
"""

import csv
import difflib
import sys
import urllib.parse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from mbt_lite.checkpoints import download, formats, io, scenic
from mbt_lite.config import BASE, WORLD, WORLD_CLIP, ClipConfig, MBTConfig, to_dict
from mbt_lite.features import FRONT_ENDS
from mbt_lite.model.flops import model_cost
from mbt_lite.model.label_heads import Head
from mbt_lite.model.mbt import init_params
from mbt_lite.paths import cache_folder

BUCKET = "https://storage.googleapis.com/scenic-bucket/mbt/"
LABELS = "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/class_labels_indices.csv"
LABELS_SIZE = 15_000  # bytes, about
AUDIOSET = "AudioSet's 527 names, fetched when they are first needed"
SIZES = {"float32": 4, "bfloat16": 2}  # bytes a parameter
LIKELIEST = {0: "Speech", 137: "Music"}  # what most clips of AudioSet are labelled with
UNCERTAIN_FRONT_END = (
    "How the released weights' spectrograms were made was never published: the front end "
    '"linear-mel" with Scenic\'s mean 1.102 and deviation 2.762 is the likeliest guess, so scores '
    "may be too low; `mbt-lite match-front-end` ranks the alternatives on your clips."
)
ORDER = "Their classes are taken to be in AudioSet's official order, which nobody documented."
CAUTION = f"{UNCERTAIN_FRONT_END} {ORDER}"


@dataclass(frozen=True)
class Entry:
    """One model of the zoo."""

    name: str
    url: str | None  # None: embedded in the package
    file: str  # its published name
    mAP: float | None  # as the Scenic README says, not measured here
    trained_on: str
    config: MBTConfig
    clip: ClipConfig
    licence: str
    labels: str  # whose names the classes have

    @property
    def released(self) -> bool:
        """Whether the weights are the paper's authors', with all that is open about them."""
        return self.url is not None

    @property
    def caution(self) -> str | None:
        """What must be said beside its predictions."""
        if not self.released:
            return None
        return CAUTION if "spec" in self.config.streams else ORDER


def released_clip() -> ClipConfig:
    """What the released models eat: 2.56 s of video, 8 s of audio, and the likeliest front end.

    Frames, crop and statistics are those of Scenic's AudioSet config; see `CAUTION`.
    """
    return ClipConfig(front_end=replace(FRONT_ENDS["linear-mel"], mean=1.102, std=2.762))


def _released(trained_on: str, streams: str, mAP: float) -> Entry:
    corpus = {"as-mini": "AudioSet mini (20,361 clips)", "as-500k": "AudioSet 500K"}[trained_on]
    file = f"mbtb32_{trained_on}_{streams}"
    held = tuple(stream for stream in BASE.streams if stream in streams.split("-"))
    alone = {"fusion": "late", "fusion_layer": BASE.depth} if len(held) == 1 else {}
    return Entry(
        name=f"{trained_on.replace('as-500k', 'as500k')}-{streams}",
        url=BUCKET + file,
        file=file,
        mAP=mAP,
        trained_on=corpus,
        config=replace(BASE, streams=held, **alone),
        clip=released_clip(),
        licence="Apache-2.0 (that of the Scenic repository; the files carry none of their own)",
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
            licence="Apache-2.0",
            labels="in the file",
        ),
    )
}


def find(name: str) -> Entry | None:
    """The entry of a plain or published name, None if there is none."""
    plain = name.lower().replace("_", "-").removeprefix("mbtb32-").replace("as-500k", "as500k")
    return ENTRIES.get(plain.replace("asmini", "as-mini"))


def entry(name: str) -> Entry:
    """The entry of a plain or published name; ValueError with the nearest ones if there is none."""
    found = find(name)
    if found is None:
        near = difflib.get_close_matches(name.lower(), ENTRIES, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(ENTRIES)}."
        raise ValueError(f"the zoo has no {name!r}. {hint}")
    return found


def fetch(name: str, dtype: str | None = None) -> Path:
    """The safetensors of an entry; downloaded and converted if that has not been done yet.

    Without a `dtype` it is the one that is here, float32 if both or none are. The download
    (parameters and optimiser) is deleted after its conversion and its sha256 kept; a file that was
    put into the cache folder by hand stays. Raises DownloadError or ValueError with a sentence.
    """
    found = entry(name)
    here = [each for each, path in places(found).items() if path.exists()]
    dtype = dtype or (here or ["float32"])[0]
    made = converted(found, dtype)
    if not made.exists():
        with download.locked(cache_folder() / found.file):
            if not made.exists():  # another process may have made it meanwhile
                _make(found, dtype, made)
    return made


def converted(found: Entry, dtype: str = "float32") -> Path:
    """Where the safetensors of an entry lie, or will lie."""
    if dtype not in SIZES:
        raise ValueError(f"dtype {dtype!r}: weights are kept in {' or '.join(SIZES)}.")
    if found.released:
        half = "-bf16" if dtype == "bfloat16" else ""
        return cache_folder() / f"{found.name}{half}.safetensors"
    if dtype != "float32":
        raise ValueError(f"{found.name} is embedded in the package, in float32 only.")
    return Path(__file__).parents[1] / "weights" / found.file


def places(found: Entry) -> dict[str, Path]:
    """{dtype: where the safetensors lie, or will lie} in each dtype that an entry can have."""
    dtypes = SIZES if found.released else ["float32"]
    return {dtype: converted(found, dtype) for dtype in dtypes}


def original(found: Entry) -> Path | None:
    """The published file of an entry where it was put by hand, or left by an interrupted call."""
    folder = cache_folder()
    names = (found.file, f"{found.file}/checkpoint_0", f"{found.name}/checkpoint_0")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def state(found: Entry) -> str:
    """What of an entry is on this machine, in a few words."""
    if not found.released:
        return "embedded"
    here = [dtype for dtype, path in places(found).items() if path.exists()]
    unfinished = cache_folder() / f"{found.file}.partial"
    if original(found):
        here.append("the published file")
    if unfinished.exists():
        here.append(f"{download.amount(unfinished.stat().st_size)} of the download")
    return ", ".join(here) or "not here"


def expected_arrays(config: MBTConfig) -> dict[str, tuple[int, ...]]:
    """{Scenic's name: shape} of every array that conversion needs for such a model."""
    ours = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    return {
        theirs: scenic.scenic_shape(name, leaf.shape, config)
        for name, leaf in formats.flatten(ours)
        for theirs in scenic.scenic_names(name, config)
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
    """AudioSet's 527 class names in official order; fetched once, then kept in the cache folder."""
    path = _labels_file()
    if not path.exists():
        with download.locked(path):
            if not path.exists():
                download.download(LABELS, path, check=read_labels)
    return read_labels(path)


def _labels_file() -> Path:
    return cache_folder() / Path(urllib.parse.urlsplit(LABELS).path).name


def read_labels(path: Path, count: int = BASE.classes) -> tuple[str, ...]:
    """The `count` class names of a CSV with the columns index, mid, display_name."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        indices = [int(row[0]) for row in rows]
        names = tuple(row[2] for row in rows)
    except (ValueError, IndexError, csv.Error):  # not text, no rows, or other columns
        header, indices, names = None, [], ()
    fits = header == ["index", "mid", "display_name"] and indices == list(range(count))
    if not fits or not all(names):
        raise ValueError(
            f"{path} is not the list of {count} classes (header index,mid,display_name and rows "
            f"0 to {count - 1} in order); replace it by {LABELS}."
        )
    return names


def _make(found: Entry, dtype: str, made: Path) -> None:
    """Convert an entry into `made`: from the other dtype, a file put by hand, or a download."""
    whole = converted(found)
    if whole.exists():  # bfloat16 is wanted, float32 is here
        config, params, meta = io.load(whole)
        return _save(found, dtype, made, config, params, (meta.get("source") or {}).get("sha256"))
    file = original(found)
    by_hand = file is not None
    file = file or _download(found, dtype)
    sha256 = download.verify(file, cache_folder() / found.file)
    print(f"converting {file.name} once", file=sys.stderr)
    config, params = _convert(found, file)
    _save(found, dtype, made, config, params, sha256)
    download.remember(cache_folder() / found.file, sha256)
    if not by_hand:
        file.unlink()


def _download(found: Entry, dtype: str) -> Path:
    parameters = model_cost(found.config).parameters
    try:
        return download.download(
            found.url,
            cache_folder() / found.file,
            check=formats.read,
            spare=parameters * SIZES[dtype],
        )
    except download.Unreachable as error:
        reason, files = str(error).partition(" Try again")[0], download.by_hand(wanted(found))
        raise download.Unreachable(f"{reason} {files}") from None


def download_size(found: Entry) -> int:
    """Bytes of a published file: its parameters, and its optimizer's momentum."""
    return 2 * SIZES["float32"] * model_cost(found.config).parameters


def wanted(found: Entry) -> list[tuple[int, str, Path]]:
    """(bytes, address, place) of every file that a released entry needs and that is not here."""
    files = []
    if original(found) is None and not any(path.exists() for path in places(found).values()):
        files.append((download_size(found), found.url, cache_folder() / found.file))
    if not _labels_file().exists():
        files.append((LABELS_SIZE, LABELS, _labels_file()))
    return files


def _convert(found: Entry, file: Path) -> tuple[MBTConfig, dict]:
    """(config, params) of a published file; what its shapes cannot tell is the entry's."""
    fields = ("streams", "fusion_layer", "rgb_shape", "spec_shape")
    try:
        said = {field: getattr(found.config, field) for field in fields}
        config, params, _ = io.load(file, **said)
    except ValueError as error:
        raise ValueError(
            f"{error}\nThe file was left where it is: delete it to have it downloaded anew, or "
            f"read it with other settings: mbt.load({str(file)!r}, ...)."
        ) from None
    return config, params


def _save(found: Entry, dtype: str, made: Path, config, params, sha256: str | None) -> None:
    lack = download.lack_of_room(made.parent, model_cost(config).parameters * SIZES[dtype])
    if lack:
        raise OSError(f"{made} was not written: {lack}. {download.MAKE_ROOM}")
    io.save(
        made,
        params,
        config,
        dtype=dtype,
        clip=found.clip,
        labels=_labels(found),
        licence=found.licence,
        name=found.name,
        source={"url": found.url, "sha256": sha256},
        caution=found.caution,
        label_heads=[to_dict(Head("", "sigmoid", config.classes))],
    )


def _labels(found: Entry) -> tuple[str, ...] | None:
    """The names to store; None, said in a warning, if they cannot be had now."""
    try:
        return audioset_labels()
    except (OSError, ValueError) as error:
        warnings.warn(f"{found.name} is kept without class names: {error}", stacklevel=2)
        return None
