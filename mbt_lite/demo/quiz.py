"""The guessing game: a clip by its audio, by its video, then by both, against the model.

Where the model knows the micro-world, a round is a fresh scene of it with the question who sings,
which neither sense can answer alone. Of other models' clips nobody knows the truth; there the
model's own answer by both senses counts.
"""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from mbt_lite.data import world
from mbt_lite.demo.engine import NAMES, Engine
from mbt_lite.demo.markup import grid
from mbt_lite.explain.html.page import data_uri

STEPS = ("audio only", "video only", "both")
TASKS = ("Only listen", "Now only watch: the same clip without its sound", "Now watch and listen")
RULES = """<h2>Guess first</h2><p>You get a clip in three steps: only its sound, only its picture,
then both. Guess each time; then see what the model said. Can you beat it?</p>"""
SINGERS = world.LABELS[world.KINDS["matched"]]
OPTIONS = 5  # labels to choose from where the world has no question of its own
MARKS = {True: "right", False: "wrong"}


@dataclass(frozen=True)
class Round:
    """A clip to guess at, what the model says by each of STEPS, and what was guessed so far."""

    video: str  # address
    options: tuple[str, ...]
    truth: str
    known: bool  # whether it is the truth, or only what the model says by both senses
    model: tuple[str, ...]  # [step]
    guesses: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        return len(self.guesses) == len(STEPS)

    def guessed(self, label: str) -> "Round":
        return replace(self, guesses=(*self.guesses, label))

    def hits(self, said: Sequence[str]) -> int:
        return sum(label == self.truth for label in said)


@dataclass(frozen=True)
class Score:
    """How often somebody was right so far, of how many guesses."""

    you: int = 0
    model: int = 0
    guesses: int = 0

    def after(self, one: Round) -> "Score":
        you, model = one.hits(one.guesses), one.hits(one.model)
        return Score(self.you + you, self.model + model, self.guesses + len(STEPS))


def new_round(engine: Engine, clips: Sequence[Path], dice: random.Random | None = None) -> Round:
    """A round on a scene of the micro-world, or on one of these clips."""
    dice = dice or random.Random()
    if set(SINGERS) <= set(engine.classifier.labels):
        return _scene_round(engine, dice)
    return _clip_round(engine, dice.choice(list(clips)), dice)


def _scene_round(engine: Engine, dice: random.Random) -> Round:
    scene = world.scene(world.SPLITS["test"], dice.randrange(1_000_000))
    while scene.singer is None:
        scene = world.scene(world.SPLITS["test"], dice.randrange(1_000_000))
    with tempfile.TemporaryDirectory() as folder:
        path = world.render([scene], folder, size=256).joinpath("world_0000.mp4")
        return _round(engine, path, SINGERS, scene.names[-1])


def _clip_round(engine: Engine, path: Path, dice: random.Random) -> Round:
    found = engine.answers(engine.read(path).views[0])
    likely = [next(iter(found[step])) for step in STEPS if step in found]
    options = list(dict.fromkeys([*likely, *found["both"]]))[:OPTIONS]
    dice.shuffle(options)
    return _round(engine, path, options, None)


def _round(engine: Engine, path: Path, options: Sequence[str], truth: str | None) -> Round:
    found = engine.answers(engine.read(path).views[0])
    model = tuple(max(options, key=found.get(s, found["both"]).get) for s in STEPS)
    video = data_uri(path.read_bytes(), "video/mp4")
    return Round(video, tuple(options), truth or model[-1], truth is not None, model)


def stage(one: Round) -> str:
    """What may be heard or seen at this step; all of it when the round is over."""
    step = min(len(one.guesses), len(STEPS) - 1)
    head = "The answers" if one.over else f"Step {step + 1} of {len(STEPS)}: {TASKS[step]}"
    tag = "audio" if STEPS[step] == "audio only" else "video"
    quiet = " muted data-mute" * (STEPS[step] == "video only")
    shown = (
        f'<{tag} controls playsinline preload="auto"{quiet} src="{one.video}"'
        f' aria-label="{TASKS[step]}"></{tag}>'
    )
    parts = [f'<div class="screen {tag}">{shown}</div>', _answers(one) if one.over else ""]
    return f'<div class="quiz"><h3>{head}</h3>{grid(filter(None, parts), 280)}</div>'


def _answers(one: Round) -> str:
    """What you and the model said at each step."""
    rows = "".join(
        f"<tr><th scope='row'>{NAMES[step]}</th>{_cell(one, mine)}{_cell(one, model)}</tr>"
        for step, mine, model in zip(STEPS, one.guesses, one.model, strict=True)
    )
    whose = "The truth" if one.known else "What the model says by both senses"
    return (
        f"<div><p>{whose}: <b>{escape(one.truth)}</b>.</p><table><thead><tr><td></td>"
        f"<th scope='col'>you</th><th scope='col'>the model</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(one: Round, label: str) -> str:
    mark = MARKS[label == one.truth]
    return f"<td class='{mark}'>{escape(label)} <span>({mark})</span></td>"


def scoreboard(score: Score) -> str:
    """The score in a line."""
    if not score.guesses:
        return ""
    return (
        f'<p class="score">You: <b>{score.you}</b> of {score.guesses} right; '
        f"the model: <b>{score.model}</b> of {score.guesses}.</p>"
    )
