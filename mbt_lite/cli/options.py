"""Options that several commands share."""

import importlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import metadata
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

Debug = Annotated[bool, arg(help="Show the traceback of an error.")]
Model = Annotated[str, arg(help="A name of the zoo, a weights file, a folder or hf://user/repo.")]
FrontEndName = Annotated[
    str | None, arg(help="Use this preset instead of the model's own front end.")
]
AudioTrack = Annotated[
    int | None, arg(help="Number of the audio track, from 1. Default: the one that players choose.")
]


def benchmark(name: str):
    """Import a module of `benchmarks/`, which is in the repository but not in the package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / f"{name}.py").is_file():
        url = metadata("mbt-lite")["Project-URL"].partition(", ")[2]
        raise ValueError(
            "benchmarks are in the repository, not in the installed package: clone "
            f"{url} and run the command there."
        )
    if str(root) not in sys.path:
        sys.path.append(str(root))
    return importlib.import_module(f"benchmarks.{name}")


def media_files(paths: Iterable[Path]) -> list[Path]:
    """Replace each folder by the video and audio files in it, if it has some."""
    from mbt_lite.data.formats import is_clip

    files = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files += list(filter(is_clip, inside)) or [path]
    return files


def load_model(model: str, front_end: str | None = None, audio_track: int | None = None):
    """Load a `Classifier`, with compiled functions cached for the next command."""
    from mbt_lite.inference import load
    from mbt_lite.paths import cache_folder, keep_compilations
    from mbt_lite.progress import bar

    keep_compilations(cache_folder() / "compiled")
    with bar(model) as progress:
        progress(0, desc="reading the weights")
        classifier = load(model, front_end=front_end)
    if audio_track is not None:
        classifier.clip_config = replace(classifier.clip_config, audio_track=audio_track)
    return classifier
