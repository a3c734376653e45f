"""Exercises that check themselves: what is wrong is named by the mistake that gives the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax
import numpy as np


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and what to say of it."""

    right: bool
    words: str

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.words}"


@dataclass(frozen=True)
class Exercise:
    """A function to write, of the name `name`.

    `start`, `solution` and each of `mistakes` are code that defines it; `given` is code that runs
    before. `probes()` are the arguments it is tried on. A mistake's key says what went wrong, such
    as "the scores are not divided by the root of the width".
    """

    name: str
    title: str
    level: str  # easy, medium or hard
    minutes: int
    task: str  # Markdown
    hint: str
    start: str
    solution: str
    mistakes: Mapping[str, str]
    probes: Callable[[], Sequence[tuple]]
    praise: str  # what to notice once it is right
    given: str = "import numpy as np"
    tolerance: float = 1e-4

    def made(self, code: str) -> Callable:
        """The function that a piece of code defines."""
        names: dict = {}
        exec(f"{self.given}\n{code}", names)
        return names[self.name]

    def check(self, answer: Callable) -> Verdict:
        """The `Verdict` on a function: right, a known mistake, or what is different about it."""
        try:
            found = [answer(*arguments) for arguments in self.probes()]
        except NotImplementedError:
            return Verdict(False, f"nothing is here yet. Hint: {self.hint}")
        except Exception as error:  # a learner's error, of whatever kind
            return Verdict(False, f"it stopped with {type(error).__name__}: {error}")
        if any(one is None or one is Ellipsis for one in found):
            return Verdict(False, f"it returns nothing yet. Hint: {self.hint}")
        wanted = self.outputs(self.solution)
        if alike(found, wanted, self.tolerance):
            return Verdict(True, self.praise)
        for words, code in self.mistakes.items():
            if alike(found, self.outputs(code), self.tolerance):
                return Verdict(False, f"it looks as if {words}.")
        return Verdict(False, f"{difference(found, wanted)} Hint: {self.hint}")

    def outputs(self, code: str) -> list:
        """What the function of this code gives on the probes; kept."""
        return _outputs(self, code)

    def __hash__(self) -> int:
        return hash(self.name)


@lru_cache(maxsize=256)
def _outputs(exercise: Exercise, code: str) -> list:
    function = exercise.made(code)
    return [function(*arguments) for arguments in exercise.probes()]


def alike(found: Sequence, wanted: Sequence, tolerance: float) -> bool:
    """Whether all results have the same structure, shapes and, nearly, values."""
    if jax.tree.structure(list(found)) != jax.tree.structure(list(wanted)):
        return False
    pairs = zip(jax.tree.leaves(list(found)), jax.tree.leaves(list(wanted)), strict=True)
    return all(_close(a, b, tolerance) for a, b in pairs)


def _close(a, b, tolerance: float) -> bool:
    if isinstance(b, str) or isinstance(a, str):
        return isinstance(a, str) and isinstance(b, str) and a == b
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not _numbers(a):
        return False
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def _numbers(x: np.ndarray) -> bool:
    return x.dtype.kind not in "OSUMm"  # objects, bytes, words, times


def difference(found: Sequence, wanted: Sequence) -> str:
    """How the first result differs, in a sentence."""
    if jax.tree.structure(list(found)) != jax.tree.structure(list(wanted)):
        return "It gives another structure (a list, a dict, more or fewer results)."
    pairs = zip(jax.tree.leaves(list(found)), jax.tree.leaves(list(wanted)), strict=True)
    for a, b in pairs:
        if isinstance(a, str) or isinstance(b, str):
            if not _close(a, b, 0.0):
                return f"It gives {a!r}, and {b!r} was expected."
            continue
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape:
            return f"It gives shape {a.shape}, and {b.shape} was expected."
        if not _numbers(a):
            return f"It gives {a.ravel()[0]!r} where a number was expected."
        if not _close(a, b, 1e-4):
            apart = np.abs(np.float64(a) - np.float64(b))
            if np.isnan(apart).any():
                return "The shapes are right, but there are values that are no numbers (nan)."
            return f"The shapes are right, the values up to {apart.max():.3g} apart."
    return "It is nearly right, but not exactly enough."
