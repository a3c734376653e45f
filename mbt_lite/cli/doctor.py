"""`mbt-lite doctor`: check whether clips are fit for a model, and say what to do if not."""

import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from tyro.conf import Positional

from mbt_lite.cli.options import AudioTrack, Debug, Model, load_model, media_files
from mbt_lite.config import UNFAMILIAR


@dataclass(frozen=True)
class Doctor:
    """Check whether clips are fit for a model: list the problems, and what to do about them.

    The exit code is 0 where all are fit, warnings or not, and 1 where one is not.
    """

    example: ClassVar[str] = "mbt-lite doctor data_samples/bell.mp4 --out bell.png"

    clips: Positional[tuple[Path, ...]]
    """Video or audio files, or folders of them."""
    model: Model = "world-tiny"
    audio_track: AudioTrack = None
    out: Path | None = None
    """Also draw what the model sees and hears: a .png, or a folder for several clips."""
    json: bool = False
    """One JSON object a line instead of text."""
    debug: Debug = False

    def run(self) -> int:
        from tqdm import tqdm

        from mbt_lite.checkpoints import zoo
        from mbt_lite.data import doctor

        if not self.clips:
            raise ValueError("no clip given; try: " + self.example)
        clips = media_files(self.clips)
        figures = _figures(clips, self.out)
        entry = zoo.find(self.model)
        released = entry if entry and entry.released else None  # its weights are not needed
        model = released or load_model(self.model)
        clip_config = released.clip if released else model.clip_config
        clip_config = replace(clip_config, audio_track=self.audio_track)
        streams, unfit = model.config.streams, 0
        for path in tqdm(clips, unit="clip", disable=len(clips) < 2 or None, leave=False):
            report = doctor.examine(path, clip_config, streams)
            if report.view and not released and model.is_unfamiliar(report.view.clip):
                advice = "The file is fit, but the model is not for it: mbt-lite zoo lists others."
                report = doctor.warned(report, f"The clip is {UNFAMILIAR}.", advice)
            unfit += not report.fit
            text = json.dumps(doctor.to_dict(report)) if self.json else doctor.note(report)
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
            if path in figures:
                _draw(report, figures[path])
        return int(unfit > 0)


def _figures(clips: list[Path], out: Path | None) -> dict[Path, Path]:
    """The figure of each clip: `out` itself, or in that folder, `bell.mp4.png` for `bell.mp4`."""
    if out is None:
        return {}
    if out.suffix.lower() == ".png":
        if len(clips) > 1:
            raise ValueError(f"--out {out} is one figure for {len(clips)} clips; name a folder.")
        return {clips[0]: out}
    if out.suffix.lower() in (".jpg", ".jpeg", ".svg", ".pdf"):
        raise ValueError(f"--out {out}: only .png images can be written.")
    names = Counter(clip.name for clip in set(clips))
    if repeated := sorted(name for name in names if names[name] > 1):
        raise ValueError(f"several clips are called {repeated[0]}; give them in separate commands.")
    out.mkdir(parents=True, exist_ok=True)
    return {clip: out / f"{clip.name}.png" for clip in clips}


def _draw(report, path: Path) -> None:
    """Save the figure of a report, if the clip could be read."""
    from tqdm import tqdm

    from mbt_lite import plot

    message = f"{report.path} gives nothing to draw."
    if report.view is not None:
        message = f"drawn: {plot.save(plot.doctor(report), path)}"
    tqdm.write(message, file=sys.stderr)
