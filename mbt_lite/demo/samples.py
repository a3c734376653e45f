"""The clips that come along, each with a picture and a description."""

import csv
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from mbt_lite import media
from mbt_lite.demo.engine import titled
from mbt_lite.panels.page import jpeg_uri

FOLDER = Path(__file__).resolve().parents[2] / "data_samples"


@dataclass(frozen=True)
class Sample:
    """A clip of ours."""

    path: Path
    description: str

    @property
    def title(self) -> str:
        return titled(self.path)

    @cached_property
    def poster(self) -> str:
        """The address of a frame out of the middle."""
        frames = media.read(self.path, fps=2, short_side=120).frames
        return jpeg_uri(frames[len(frames) // 2][None])


def samples() -> list[Sample]:
    """The clips in data_samples in the order of labels.csv; none where there is no such folder."""
    table = FOLDER / "labels.csv"
    rows = csv.DictReader(table.read_text("utf-8").splitlines()) if table.is_file() else ()
    found = [Sample(FOLDER / row["file"], row["description"]) for row in rows]
    return [one for one in found if one.path.is_file()]


def cards(clips: list[Sample]) -> str:
    """A button per clip; `data-index` says which."""
    return "".join(
        f'<button type="button" class="sample" data-index="{i}"><img src="{one.poster}" alt="">'
        f"<b>{escape(one.title)}</b><span>{escape(one.description)}</span></button>"
        for i, one in enumerate(clips)
    )
