"""Say in sentences what the scores of a finished run mean.

It is compared with simple models; it may overfit or underfit, make no use of a stream, or have too
few clips of a class. Pure functions of numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mbt_lite.config import MODALITIES
from mbt_lite.evaluation import yardstick

FEW = 10  # clips to learn a class from
GAP = 0.1  # of top-1 between training and validation, from which on a run has overfitted
LOW = 0.9  # top-1 on training clips, below which a run has not learned even those
RISE = 0.01  # of top-1 over the last third of the validations
UNUSED = 0.01  # of top-1 that a stream must add


@dataclass(frozen=True)
class Outcome:
    """The numbers of a finished run; each top-1 is a share from 0 to 1."""

    held_out: float  # top-1 on clips that are not trained on
    training: float | None = None  # top-1 on clips that are
    curve: Sequence[float] = ()  # top-1 of all validations, in order
    alone: Mapping[str, float] = field(default_factory=dict)  # {stream: top-1 without the other}
    simple: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # `yardstick.scores`
    clips: Mapping[str, int] = field(default_factory=dict)  # {class: clips to learn from}


def sentences(outcome: Outcome) -> list[str]:
    """What to know about a run, the most important first."""
    return [
        *_against_simple_models(outcome),
        *_fit(outcome),
        *_unused_streams(outcome),
        *_few_clips(outcome.clips),
    ]


def _against_simple_models(outcome: Outcome) -> list[str]:
    if not outcome.simple:
        return []
    name, score = yardstick.best(outcome.simple)
    verdict = "less" if outcome.held_out < score else "as much or more"
    return [
        f"with simple features of the same clips, top-1 of {name} is {score:.3f}: this run, with "
        f"{outcome.held_out:.3f}, has learned {verdict}"
    ]


def _fit(outcome: Outcome) -> list[str]:
    if outcome.training is None:
        return []
    seen, held_out = f"{outcome.training:.3f}", f"{outcome.held_out:.3f}"
    if outcome.training - outcome.held_out > GAP:
        return [
            f"it is right on {seen} of the clips that it was trained on and on {held_out} of "
            "others: it overfits; more clips, stronger augmentation or a smaller model may help"
        ]
    if outcome.training < LOW:
        rising = " and still rising" * _rising(outcome.curve)
        return [
            f"it is right on only {seen} even of the clips that it was trained on{rising}: it "
            "underfits; more epochs, a larger model or weaker augmentation may help"
        ]
    return []


def _rising(curve: Sequence[float]) -> bool:
    last = len(curve) // 3
    return last > 0 and max(curve[-last:]) > max(curve[:-last]) + RISE


def _unused_streams(outcome: Outcome) -> list[str]:
    """A sentence on each stream without which the model is as good."""
    if len(outcome.alone) < 2:
        return []
    lines = []
    for stream in outcome.alone:
        rest = max(score for other, score in outcome.alone.items() if other != stream)
        if outcome.held_out - rest < UNUSED:
            name = MODALITIES[stream]
            lines.append(f"without {name} it is right on {rest:.3f}: it makes no use of the {name}")
    return lines


def _few_clips(clips: Mapping[str, int]) -> list[str]:
    few = {label: count for label, count in clips.items() if count < FEW}
    if not few:
        return []
    named = ", ".join(f"{label} ({count})" for label, count in list(few.items())[:5])
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    return [f"fewer than {FEW} clips to learn from: {named}{more}; their scores mean little"]
