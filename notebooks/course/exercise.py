"""Exercises that check themselves and name the mistake behind a wrong answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax
import numpy as np

NOTHING = "nothing is here yet: write the function, then run the cell."


@dataclass(frozen=True)
class Verdict:
    """Whether a solution is right, and an explanation."""

    right: bool
    words: str

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.words}"


@dataclass(frozen=True)
class Exercise:
    """A function that the learner writes, called `name`.

    `start`, `solution` and each of `mistakes` are code that defines it; the code `given` runs
    before it. `probes()` are the arguments that it is tested on. The key of a mistake describes it,
    such as "the scores are not divided by the root of the width".
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

    def define(self, code: str) -> Callable:
        """Return the function that a piece of code defines."""
        names: dict = {}
        exec(f"{self.given}\n{code}", names)
        return names[self.name]

    def check(self, answer: Callable) -> Verdict:
        """Return the `Verdict` on a function: right, a known mistake, or how its results differ."""
        try:
            results = [answer(*arguments) for arguments in self.probes()]
        except NotImplementedError:
            return Verdict(False, NOTHING)
        except Exception as error:  # a learner's error, of whatever kind
            sentence = f"it stopped with {type(error).__name__}: {error}".rstrip(".")
            return Verdict(False, f"{sentence}. Hint: {self.hint}")
        if any(result is None or result is Ellipsis for result in results):
            return Verdict(False, f"it returns nothing yet. Hint: {self.hint}")
        expected = _outputs(self, self.solution)
        results = [like(a, b) for a, b in zip(results, expected, strict=True)]
        if alike(results, expected, self.tolerance):
            return Verdict(True, self.praise)
        for words, code in self.mistakes.items():
            if alike(results, _outputs(self, code), self.tolerance):
                return Verdict(False, f"it looks as if {words}.")
        for arguments, a, b in zip(self.probes(), results, expected, strict=True):
            if not alike([a], [b], self.tolerance):
                sentence = f"{difference([a], [b])} The arguments were {shown(arguments)}."
                return Verdict(False, f"{sentence} Hint: {self.hint}")
        raise AssertionError("results that differ together differ one by one")

    def __hash__(self) -> int:
        return hash(self.name)


@lru_cache(maxsize=256)
def _outputs(exercise: Exercise, code: str) -> list:
    """Results of the function that this code defines, on the exercise's probes."""
    function = exercise.define(code)
    return [function(*arguments) for arguments in exercise.probes()]


def like(result, expected):
    """Convert a result to the container of the expected one: list, tuple or array of numbers."""
    if (
        isinstance(expected, tuple)
        and isinstance(result, list | tuple)
        and len(result) == len(expected)
    ):
        return tuple(like(a, b) for a, b in zip(result, expected, strict=True))
    if isinstance(expected, list) and isinstance(result, tuple | np.ndarray):
        result = list(result)
    if isinstance(expected, list) and isinstance(result, list) and len(result) == len(expected):
        return [like(a, b) for a, b in zip(result, expected, strict=True)]
    if isinstance(expected, np.ndarray | jax.Array) and isinstance(result, list | tuple):
        return _stacked(result)
    return result


def _stacked(result: Sequence):
    """Stack a sequence to one array, unless its parts have different shapes."""
    try:
        return np.asarray(result)
    except ValueError:
        return result


def shown(arguments: tuple) -> str:
    """Describe arguments: shapes of arrays, small values as they are."""
    return ", ".join(map(_shown, arguments))


def _shown(value) -> str:
    if isinstance(value, np.ndarray | jax.Array) and value.size > 4:
        return f"an array {value.shape}"
    words = "a function" if callable(value) else str(value)
    return words if len(words) <= 60 else f"a {type(value).__name__} of {len(value)}"


def alike(result: Sequence, expected: Sequence, tolerance: float) -> bool:
    """Whether all results have equal structures and shapes, and nearly equal values."""
    if jax.tree.structure(list(result)) != jax.tree.structure(list(expected)):
        return False
    pairs = zip(jax.tree.leaves(list(result)), jax.tree.leaves(list(expected)), strict=True)
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


def difference(result: Sequence, expected: Sequence) -> str:
    """How the first result differs, in a sentence."""
    if jax.tree.structure(list(result)) != jax.tree.structure(list(expected)):
        return f"It gives {_kind(result[0])}, and {_kind(expected[0])} was expected."
    pairs = zip(jax.tree.leaves(list(result)), jax.tree.leaves(list(expected)), strict=True)
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
                return "The shapes are right, but there are values that are not numbers (nan)."
            return f"The shapes are right, the values up to {apart.max():.3g} apart."
    return "It is nearly right, but not exactly enough."


def _kind(value) -> str:
    """Describe a result, such as "a tuple of 2"."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    shape = np.shape(value) if isinstance(value, np.ndarray | jax.Array) else ()
    return f"one array {shape}" if shape else "one value"
