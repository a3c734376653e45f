"""The sample clips, each with a thumbnail and a description.

In a checkout they are in data_samples. Elsewhere those of the micro-world are rendered once, into
the cache folder. All are drawn and synthesized by this project and in the public domain.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import numpy as np

from mbt_lite import media, paths
from mbt_lite.data import world
from mbt_lite.demo.engine import title_of
from mbt_lite.explain.html.page import jpeg_uri

CHECKOUT = Path(__file__).resolve().parents[2] / "data_samples"


@dataclass(frozen=True)
class Sample:
    """A clip that comes with the package."""

    path: Path
    description: str
    labels: frozenset[str] = frozenset()  # of the micro-world; other clips have none

    @property
    def title(self) -> str:
        return title_of(self.path)

    @cached_property
    def poster(self) -> str:
        """The data URI of a frame from the middle."""
        middle = media.read(self.path, short_side=120, at=lambda seconds: np.array([seconds / 2]))
        return jpeg_uri(middle.frames[:1])


def folder() -> Path:
    """The folder of the clips, which is in the cache where this is no checkout."""
    return CHECKOUT if _complete(CHECKOUT) else paths.cache_folder() / "samples"


def _complete(path: Path) -> bool:
    return (path / "labels.csv").is_file()  # it is written last


def samples() -> list[Sample]:
    """The clips in the order of labels.csv, rendered first if they are not there yet.

    An empty list, and a message on stderr, where the cache folder cannot be written.
    """
    path = folder()
    try:
        if not _complete(path):
            print(f"Rendering {len(world.SAMPLES)} sample clips into {path} ...", file=sys.stderr)
            world.render_samples(path)
    except OSError as error:
        print(f"The demo has no samples: {error}", file=sys.stderr)
        return []
    with open(path / "labels.csv", newline="", encoding="utf-8") as table:
        clips = [_sample(path / row["file"], row) for row in csv.DictReader(table)]
    return [clip for clip in clips if clip.path.is_file()]


def _sample(path: Path, row: Mapping[str, str]) -> Sample:
    """The clip of a row of labels.csv; the package describes the rendered ones."""
    description = row.get("description") or world.SAMPLES[path.stem][1]
    return Sample(path, description, frozenset(filter(None, row["labels"].split("|"))))


def cards(clips: Sequence[Sample], labels: Sequence[str]) -> str:
    """HTML buttons of the clips; those come first that a model with these labels was trained on.

    `data-index` is the clip's place in `clips`.
    """
    of_the_world = [i for i, clip in enumerate(clips) if clip.labels]
    others = [i for i, clip in enumerate(clips) if not clip.labels]
    if set(world.LABELS) <= set(labels):
        groups = {"The model knows these": of_the_world, "It was never taught these": others}
    else:
        groups = {"More like life": others, "Micro-world, never taught": of_the_world}
    return "".join(
        f"<h3>{title}</h3><div>{''.join(_card(clips[i], i) for i in chosen)}</div>"
        for title, chosen in groups.items()
        if chosen
    )


def _card(clip: Sample, index: int) -> str:
    return (
        f'<button type="button" class="sample" data-index="{index}"'
        f' title="{escape(clip.description)}"><img src="{clip.poster}" alt="">'
        f"<b>{escape(clip.title)}</b><span>{escape(clip.description)}</span></button>"
    )
