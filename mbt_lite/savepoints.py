"""The states of a run on disk, so that it can go on: whole ones, or none.

    state/00000040/state/       every array of the state, by Orbax
    state/00000040/about/       JSON: what else there is to know, the score, a mark of every array

Orbax writes in the background, under another name that is changed at the end. The marks tell
whether what is read is what was written: no bit of it may differ.
"""

import json
import logging
import math
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from jax.experimental import multihost_utils

NAME, DAMAGED = re.compile(r"\d{8}"), ".damaged"
PRIME = np.uint32(2_654_435_761)  # spreads places over 32 bits (Knuth's multiplicative hashing)


class Restored(NamedTuple):
    """A saved state."""

    step: int
    state: Any
    about: dict


class Savepoints:
    """The newest states in a folder, and the one with the best score.

    Every process of a run calls the same methods in the same order. `tell` gets sentences for the
    person who watches.
    """

    def __init__(self, folder: str | Path, keep: int = 2, tell: Callable[[str], None] = print):
        self.folder, self.keep, self.tell = Path(folder).absolute(), keep, tell
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        self.scores = {step: self._read(step).get("score") for step in self.steps()}
        self._saver, self._pending = None, None

    def steps(self) -> list[int]:
        """The steps of which there is a state, in order."""
        found = [path.name for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        return sorted(map(int, found))

    def save(
        self, step: int, state: Any, about: dict, score: float | None = None, wait: bool = False
    ) -> None:
        """Begin to save a state, and what JSON there is about it; with `wait`, until it is done.

        The state's arrays may be used up as soon as this returns. Where it fails, as on a full
        disk, the older states stay, and `tell` hears of it now or when the next one is saved.
        """
        self._finish()
        told = {"about": about, "score": score, "arrays": described(state), "marks": marks(state)}
        if jax.default_backend() == "cpu":  # there Orbax reads the very memory that is used up
            state = jax.tree.map(jnp.copy, state)
        items = {"state": ocp.args.StandardSave(state), "about": ocp.args.JsonSave(told)}
        self._pending = (step, score)
        with self._failing_softly(), _quietly():
            self._saver = self._saver or ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
            self._saver.save(self._place(step), ocp.args.Composite(**items), force=True)
        if wait:
            self._finish()

    def restore(self, like: Any) -> Restored | None:
        """The newest whole state, on the devices that `like` names; None where there is none.

        `like` is a tree of arrays or `jax.ShapeDtypeStruct`, with shardings. A state that is
        damaged is put aside, under a name that ends in .damaged, and the one before is taken.
        ValueError where all are damaged, or where they are of another model.
        """
        self._finish()
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._restored(step, like)
            except _Damage as error:
                self._put_aside(step)
                before = [other for other in steps if other < step]
                on = f"going on from step {before[-1]}" if before else "there is none before it"
                self.tell(f"the state of step {step} in {self.folder} is damaged ({error}); {on}.")
        if steps:
            raise ValueError(
                f"no state in {self.folder} can be read any more; remove the folder of the run to "
                "begin anew."
            )
        return None

    def close(self) -> None:
        """Wait for what is being saved."""
        self._finish()
        if self._saver:
            self._saver.close()
            self._saver = None

    def __enter__(self) -> "Savepoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # ---- saving ----

    def _finish(self) -> None:
        """Wait for the state that is being saved; then remove those that need not stay."""
        if self._pending is None:
            return
        with self._failing_softly(), _quietly():
            self._saver.wait_until_finished()
        if self._pending:
            step, score = self._pending
            self.scores[step] = score
            self._pending = None
            self._remove_old()

    @contextmanager
    def _failing_softly(self):
        """An error of saving becomes a sentence, and nothing is pending any more."""
        try:
            yield
        except Exception as error:  # of the system, of Orbax or of its storage library
            step, _ = self._pending
            self._pending, self._saver = None, None
            self._remove_unfinished()
            there = self.steps()
            left = f"that of step {there[-1]} stays" if there else "there is none yet"
            self.tell(
                f"the state of step {step} could not be saved ({_first_line(error)}); {left}."
            )

    def _remove_old(self) -> None:
        ranked = [step for step, score in self.scores.items() if _ranks(score)]
        best = max(ranked, key=lambda step: (self.scores[step], step), default=None)
        for step in sorted(self.scores)[: -self.keep]:
            if step != best:
                del self.scores[step]
                self._remove(self._place(step))

    def _remove_unfinished(self) -> None:
        for path in list(self.folder.iterdir()):
            if ".orbax-checkpoint-tmp" in path.name:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove a folder, as the leading process; it is renamed first, and so never half there."""
        if jax.process_index() == 0:
            gone = path.with_name(f"{path.name}.orbax-checkpoint-tmp-removed")
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _place(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    # ---- reading ----

    def _read(self, step: int) -> dict:
        """What a state says of itself; empty where it says nothing that can be read."""
        try:
            text = (self._place(step) / "about" / "metadata").read_text(encoding="utf-8")
            told = json.loads(text)
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) and {"about", "arrays", "marks"} <= set(told) else {}

    def _restored(self, step: int, like: Any) -> Restored:
        told = self._read(step)
        if not told:
            raise _Damage("what it says of itself cannot be read")
        if told["arrays"] != described(like):
            raise ValueError(
                f"the state of step {step} in {self.folder} is of another model "
                f"({_difference(told['arrays'], described(like))}); choose another --workdir."
            )
        item = ocp.args.StandardRestore(jax.tree.map(_abstract, like))
        try:
            _ignore_late_reads()
            with _quietly(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                state = reader.restore(self._place(step), ocp.args.Composite(state=item)).state
        except Exception as error:  # of the system, of Orbax or of its storage library
            raise _Damage(_first_line(error)) from None
        if marks(state) != told["marks"]:
            raise _Damage("its arrays are not those that were saved")
        return Restored(step, state, told["about"])

    def _put_aside(self, step: int) -> None:
        self.scores.pop(step, None)
        if jax.process_index() == 0:
            aside = self.folder / f"{step:08d}{DAMAGED}"
            shutil.rmtree(aside, ignore_errors=True)
            self._place(step).rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"damaged {step}")


class _Damage(Exception):
    """Why a state cannot be used."""


def _ignore_late_reads() -> None:
    """Of the reads that Orbax leaves under way when one fails, nothing is heard later on."""
    before = sys.unraisablehook
    if getattr(before, "without_late_reads", False):
        return

    def hook(lost) -> None:
        said = str(lost.exc_value)
        if "Event loop is closed" not in said and "while reading array index" not in said:
            before(lost)

    hook.without_late_reads = True
    sys.unraisablehook = hook


def described(tree: Any) -> dict[str, list]:
    """{name of an array: [type, size of each axis]}, ready for JSON."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): [str(x.dtype), *x.shape] for path, x in leaves}


def marks(tree: Any) -> list[int]:
    """One number for each array that changes with any of its bits, however it lies on devices."""
    return [int(mark) for mark in jax.device_get(_marks(jax.tree.leaves(tree)))]


@jax.jit
def _marks(leaves: list[Array]) -> list[Array]:
    return [_mark(leaf) for leaf in leaves]


def _mark(leaf: Array) -> Array:
    """The sum of all 32-bit words, each times an odd number that depends on its place."""
    kind = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    words = jax.lax.bitcast_convert_type(leaf, kind).astype(jnp.uint32)
    place = jnp.arange(leaf.size, dtype=jnp.uint32).reshape(leaf.shape)
    return jnp.sum(words * (place * PRIME | 1), dtype=jnp.uint32)


def _abstract(leaf) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _ranks(score: float | None) -> bool:
    return score is not None and math.isfinite(score)


def _difference(before: dict, now: dict) -> str:
    name = next(k for k in [*before, *now] if before.get(k) != now.get(k))
    return f"{name} was {before.get(name, 'not there')} and now is {now.get(name, 'not there')}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


@contextmanager
def _quietly():
    """Without what Orbax logs, of which nothing is for the person who watches."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
