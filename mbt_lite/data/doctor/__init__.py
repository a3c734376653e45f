"""Check whether a clip is fit for a model: inspect the file, measure the model's input, advise.

    report = examine("clip.mp4"); print(note(report))

survey.py reads what lies in the file, measure.py what the model gets of it, advise.py judges by
thresholds that have reasons, words.py says it. The doctor looks where `predict` looks: at the
window in the middle, and at a few more to see whether another part of the file would do better.
"""

from dataclasses import replace
from pathlib import Path

from mbt_lite.config import STREAMS, WORLD_CLIP, ClipConfig
from mbt_lite.data.doctor.advise import findings, unreadable
from mbt_lite.data.doctor.measure import (
    FAULT,
    LOOKS,
    NOTE,
    WARNING,
    Finding,
    Look,
    Report,
    measure,
    survey_file,
)
from mbt_lite.data.doctor.words import facts, note, to_dict
from mbt_lite.media import MediaError

__all__ = [
    "FAULT",
    "NOTE",
    "WARNING",
    "Finding",
    "Look",
    "Report",
    "examine",
    "facts",
    "note",
    "to_dict",
]


def examine(
    path,
    config: ClipConfig = WORLD_CLIP,
    streams: tuple[str, ...] = STREAMS,
    looks: int = LOOKS,
) -> Report:
    """The `Report` on one media file, for a model that eats `config` and takes `streams`.

    It looks at so many windows, an odd number; one is the middle alone, which is soon done. A file
    that cannot be read is a report too, with a fault; nothing is raised for its sake.
    """
    report = Report(Path(path), config, tuple(streams))
    try:
        report = survey_file(report)
        report = measure(report, looks)
    except MediaError as error:
        return replace(report, findings=(unreadable(report, error),))
    return replace(report, findings=tuple(findings(report)))
