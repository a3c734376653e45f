"""The sample clips, each with a thumbnail and a description.

In a checkout they lie in data_samples. Elsewhere the micro-world's are rendered once, into the
cache folder. All of them are drawn and synthesised by this project and in the public domain.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from mbt_lite import media, paths
from mbt_lite.data import world
from mbt_lite.demo.engine import titled
from mbt_lite.explain.html.page import jpeg_uri

CHECKOUT = Path(__file__).resolve().parents[2] / "data_samples"


@dataclass(frozen=True)
class Sample:
    """A clip of ours."""

    path: Path
    description: str
    labels: frozenset[str] = frozenset()  # of the micro-world; a clip more like life has none

    @property
    def title(self) -> str:
        return titled(self.path)

    @cached_property
    def poster(self) -> str:
        """The address of a frame out of the middle."""
        frames = media.read(self.path, fps=2, short_side=120).frames
        return jpeg_uri(frames[len(frames) // 2][None])


def folder() -> Path:
    """Where the clips lie, or where they are put."""
    return CHECKOUT if _complete(CHECKOUT) else paths.cache_folder() / "samples"


def _complete(place: Path) -> bool:
    return (place / "labels.csv").is_file()  # it is written last


def samples() -> list[Sample]:
    """The clips in the order of labels.csv, rendered first where that has not been done yet.

    None where the cache folder cannot be written, which stderr tells.
    """
    place = folder()
    try:
        if not _complete(place):
            print(f"Rendering {len(world.SAMPLES)} sample clips into {place} ...", file=sys.stderr)
            world.render_samples(place)
    except OSError as error:
        print(f"The demo has no samples: {error}", file=sys.stderr)
        return []
    with open(place / "labels.csv", newline="", encoding="utf-8") as table:
        found = [_sample(place / row["file"], row) for row in csv.DictReader(table)]
    return [one for one in found if one.path.is_file()]


def _sample(path: Path, row: Mapping[str, str]) -> Sample:
    """The clip of a line of labels.csv; of rendered ones, the package has the description."""
    description = row.get("description") or world.SAMPLES[path.stem][1]
    return Sample(path, description, frozenset(filter(None, row["labels"].split("|"))))


def cards(clips: Sequence[Sample], labels: Sequence[str]) -> str:
    """A button per clip, those first that a model with these labels was taught.

    `data-index` says which clip it is.
    """
    worldly = [i for i, one in enumerate(clips) if one.labels]
    others = [i for i, one in enumerate(clips) if not one.labels]
    if set(world.LABELS) <= set(labels):
        groups = {"The model knows these": worldly, "It was never taught these": others}
    else:
        groups = {"More like life": others, "Micro-world, never taught": worldly}
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
