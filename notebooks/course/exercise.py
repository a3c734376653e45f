"""Exercises that check themselves and name the mistake behind a wrong answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax
import numpy as np

NOTHING = "nothing is here yet: write the function, then run the cell."


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
            return Verdict(False, NOTHING)
        except Exception as error:  # a learner's error, of whatever kind
            said = f"it stopped with {type(error).__name__}: {error}".rstrip(".")
            return Verdict(False, f"{said}. {self.hinted}")
        if any(one is None or one is Ellipsis for one in found):
            return Verdict(False, f"it returns nothing yet. {self.hinted}")
        wanted = self.outputs(self.solution)
        found = [like(a, b) for a, b in zip(found, wanted, strict=True)]
        if alike(found, wanted, self.tolerance):
            return Verdict(True, self.praise)
        for words, code in self.mistakes.items():
            if alike(found, self.outputs(code), self.tolerance):
                return Verdict(False, f"it looks as if {words}.")
        for arguments, a, b in zip(self.probes(), found, wanted, strict=True):
            if not alike([a], [b], self.tolerance):
                said = f"{difference([a], [b])} It was asked for {shown(arguments)}."
                return Verdict(False, f"{said} {self.hinted}")
        raise AssertionError("results that differ together differ one by one")

    @property
    def hinted(self) -> str:
        """The hint as a sentence."""
        return f"Hint: {self.hint}"

    def outputs(self, code: str) -> list:
        """What the function of this code gives on the probes; kept."""
        return _outputs(self, code)

    def __hash__(self) -> int:
        return hash(self.name)


@lru_cache(maxsize=256)
def _outputs(exercise: Exercise, code: str) -> list:
    function = exercise.made(code)
    return [function(*arguments) for arguments in exercise.probes()]


def like(found, wanted):
    """A result in the shape of the wanted one where only the kind of container differs.

    Lists, tuples and arrays of numbers are as good as one another.
    """
    if isinstance(wanted, tuple) and isinstance(found, list | tuple) and len(found) == len(wanted):
        return tuple(like(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(wanted, list) and isinstance(found, tuple | np.ndarray):
        found = list(found)
    if isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        return [like(a, b) for a, b in zip(found, wanted, strict=True)]
    if isinstance(wanted, np.ndarray | jax.Array) and isinstance(found, list | tuple):
        return _stacked(found)
    return found


def _stacked(found: Sequence):
    """One array of a sequence; the sequence where its parts have different shapes."""
    try:
        return np.asarray(found)
    except ValueError:
        return found


def shown(arguments: tuple) -> str:
    """What a function was given: shapes of arrays, small values as they are."""
    return ", ".join(map(_shown, arguments))


def _shown(value) -> str:
    if isinstance(value, np.ndarray | jax.Array) and value.size > 4:
        return f"an array {value.shape}"
    words = "a function" if callable(value) else str(value)
    return words if len(words) <= 60 else f"a {type(value).__name__} of {len(value)}"


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
        return f"It gives {_kind(found[0])}, and {_kind(wanted[0])} was expected."
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


def _kind(value) -> str:
    """What a result is, such as "a tuple of 2"."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    shape = np.shape(value) if isinstance(value, np.ndarray | jax.Array) else ()
    return f"one array {shape}" if shape else "one value"
