"""Save and restore training state with Orbax: whole states, or none.

    state/00000040/state/         every array of the state, by Orbax
    state/00000040/record.json    what else there is to know, and a checksum of every file

Orbax writes in the background, under another name, which is changed at the end. It does not notice
by itself when bytes of an array change on disk; the checksums do.
"""

import asyncio
import functools
import json
import logging
import math
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

PARTIAL, REMOVED, DAMAGED = ".partial", ".removed", ".damaged"  # endings of folders' names
STATE, RECORD = "state", "record.json"
INTACT = "intact"  # in a partial folder; who fails to write removes it, as a full disk allows
NOTHING, NONE_WHOLE = -1, -2  # instead of a step
PATIENCE = 30 * 60  # s, in which the slowest process has to write or check
BLOCK = 2**20  # bytes read at a time

_meetings = count()  # of all processes, which hold them in the same order


class Restored(NamedTuple):
    """A saved state, and the JSON about it."""

    step: int
    state: Any
    about: dict


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


class CheckpointManager:
    """The newest `keep` states in a folder, and the one with the highest score.

    Every process of a run calls the same methods in the same order, on a folder that all of them
    see. The first process decides, and tells sentences to the person who watches; those about a
    save under way come from another thread. At the end, `close`.
    """

    def __init__(self, folder: str | Path, keep: int = 2, tell: Callable[[str], None] = _say):
        self.folder, self.keep, self.tell = Path(folder), keep, tell
        self._leads = jax.process_index() == 0
        _quieten()
        # Compressed, weights are a twelfth smaller and take three times as long.
        self._orbax = ocp.PyTreeCheckpointHandler(use_compression=False)
        # Orbax wants a thread without an event loop, and a notebook's main thread has one.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="savepoints")
        self._under_way: Future | None = None
        if self._leads:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def save(
        self, step: int, state, about: dict, score: float | None = None, wait: bool = False
    ) -> None:
        """Begin to save a tree of arrays, and JSON about it; with `wait`, until it is done.

        The arrays may be donated as soon as this returns. What cannot be written, as on a full
        disk, is told, and the older states stay. One of the same step is replaced.
        """
        self.wait()
        problem = _attempt(self._prepare, step) if self._leads else None
        if _of_leader(problem is not None):
            self._give_up(step, problem)
            return
        score = float(score) if score is not None and math.isfinite(score) else None
        record = {"step": step, "score": score, "about": about, "arrays": _described(state)}
        record = json.loads(json.dumps(record))  # now, as the caller may change it soon
        written = self._worker.submit(self._start, step, state).result()
        arguments = (step, written, record, next(_meetings))
        self._under_way = self._worker.submit(self._finish, *arguments)
        if wait:
            self.wait()

    def restore(self, like) -> Restored | None:
        """The newest whole state, on the devices that `like` names; None where there is none.

        `like` is a tree of arrays or `jax.ShapeDtypeStruct`, with shardings. Where newer ones are
        damaged, that is told, and they get names that end in .damaged. ValueError where all are,
        which then keep their names, or where the state is of another model.
        """
        self.wait()
        step, damaged = self._choose() if self._leads else (NOTHING, {})
        step = _of_leader(step)
        if step == NOTHING:
            return None
        if step == NONE_WHOLE:
            told = "; ".join(f"of step {step}: {problem}" for step, problem in damaged.items())
            raise ValueError(
                f"every state in {self.folder} is damaged ({told}); remove the folder of the run "
                "to begin anew."
            )
        self._set_aside(damaged, step)
        record = _read_record(self._path(step))
        self._refuse_others(record["arrays"], _described(like))
        state = self._worker.submit(self._load, step, like).result()
        return Restored(step, state, record["about"])

    def wait(self) -> None:
        """Wait for the save under way."""
        under_way, self._under_way = self._under_way, None
        if under_way:
            under_way.result()

    def close(self) -> None:
        """Wait for the save under way; nothing can be saved any more."""
        self.wait()
        self._worker.shutdown()
        self._orbax.close()

    # ---- writing ----

    def _prepare(self, step: int) -> None:
        partial = self._path(step, PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        (partial / STATE).mkdir(parents=True)
        (partial / INTACT).touch()

    def _start(self, step: int, state) -> list:
        """What Orbax has still to write; its values are out of harm's way when this returns.

        On a CPU they are the arrays' own memory, which JAX does not donate while it is looked at.
        """
        folder = _for_orbax(self._path(step, PARTIAL))
        return asyncio.run(self._orbax.async_save(folder, args=ocp.args.PyTreeSave(state)))

    def _finish(self, step: int, written: list, record: dict, meeting: int) -> None:
        """Wait until every process has written its part, and then, in the first one, commit."""
        problem = _attempt(lambda: [part.result() for part in written])
        if problem:
            (self._path(step, PARTIAL) / INTACT).unlink(missing_ok=True)
        _meet(meeting)
        if self._leads:
            problem = problem or _attempt(self._commit, step, record)
            if problem:
                self._give_up(step, problem)

    def _commit(self, step: int, record: dict) -> None:
        """Give a whole state its name, and remove those that need not stay."""
        partial, final = self._path(step, PARTIAL), self._path(step)
        _check_intact(partial)
        self._orbax.finalize(_for_orbax(partial))
        _write_record(partial, record | {"files": _checksums(partial / STATE)})
        _flush(partial)
        if final.exists():
            final.rename(self._path(step, REMOVED))
        partial.rename(final)
        for old in self._surplus():
            self._path(old).rename(self._path(old, REMOVED))  # so that none is ever half there
        self._clear()

    def _give_up(self, step: int, problem: str | None) -> None:
        if self._leads:
            self._clear()
            there = self.steps()
            left = f"that of step {there[-1]} stays" if there else "there is none yet"
            self.tell(
                f"the state of step {step} could not be saved in {self.folder} ({problem}); {left}."
            )

    # ---- reading ----

    def _choose(self) -> tuple[int, dict[int, str]]:
        """(newest step whose state is whole, {newer step: what is wrong with it})."""
        damaged = {}
        for step in reversed(self.steps()):
            problem = _damage(self._path(step))
            if problem is None:
                return step, damaged
            damaged[step] = problem
        return NONE_WHOLE if damaged else NOTHING, damaged

    def _set_aside(self, damaged: dict[int, str], step: int) -> None:
        for bad, problem in damaged.items():
            shutil.rmtree(self._path(bad, DAMAGED), ignore_errors=True)
            self._path(bad).rename(self._path(bad, DAMAGED))
            self.tell(
                f"the state of step {bad} in {self.folder} is damaged ({problem}); "
                f"going on from step {step}."
            )

    def _load(self, step: int, like):
        places = ocp.checkpoint_utils.construct_restore_args(like)
        asked = ocp.args.PyTreeRestore(item=like, restore_args=places)
        return self._orbax.restore(_for_orbax(self._path(step)), args=asked)

    def _refuse_others(self, there: dict[str, str], here: dict[str, str]) -> None:
        names = [name for name in there | here if there.get(name) != here.get(name)]
        if names:
            was, now = (arrays.get(names[0], "not there") for arrays in (there, here))
            more = f" and {len(names) - 1} more differ" if len(names) > 1 else ""
            raise ValueError(
                f"the states in {self.folder} are of another model ({names[0]} was {was} and now "
                f"is {now}{more}); choose another --workdir."
            )

    # ---- folders ----

    def steps(self) -> list[int]:
        """The steps of which there is a state, in order."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def _path(self, step: int, ending: str = "") -> Path:
        return self.folder / f"{step:08d}{ending}"

    def _surplus(self) -> list[int]:
        """Steps that are neither among the newest nor the best."""
        steps = self.steps()
        scores = {step: self._score(step) for step in steps}
        best = max(steps, key=lambda step: (scores[step], step))
        return [step for step in steps[: -self.keep] if step != best]

    def _score(self, step: int) -> float:
        try:
            score = _read_record(self._path(step))["score"]
        except (OSError, ValueError):
            score = None
        return -math.inf if score is None else score

    def _clear(self) -> None:
        """Remove what is not, or no longer, a state."""
        for path in self.folder.iterdir():
            if path.suffix in (PARTIAL, REMOVED):
                shutil.rmtree(path, ignore_errors=True)


# ---- the folder of one state ----


def _for_orbax(folder: Path) -> epath.Path:
    return epath.Path(folder.absolute() / STATE)


def _write_record(folder: Path, record: dict) -> None:
    text = json.dumps(record)
    checksum = google_crc32c.value(text.encode())
    (folder / RECORD).write_text(f"{checksum:08x} {text}", encoding="utf-8")


def _read_record(folder: Path) -> dict:
    """What was written as record; ValueError where it has changed since."""
    checksum, _, text = (folder / RECORD).read_bytes().partition(b" ")
    if checksum != b"%08x" % google_crc32c.value(text):
        raise ValueError(f"{RECORD} has changed")
    return json.loads(text)


def _checksums(folder: Path) -> dict[str, int]:
    """{path: CRC-32C} of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = google_crc32c.extend(checksum, block)
    return checksum


def _damage(folder: Path) -> str | None:
    """What is wrong with a state; None where all its bytes are as they were written."""
    try:
        wanted = _read_record(folder)["files"]
        found = _checksums(folder / STATE)
    except (OSError, ValueError) as error:
        return _why(error)
    for name, checksum in wanted.items():
        if found.get(name) != checksum:
            return f"{STATE}/{name} {'has changed' if name in found else 'is missing'}"
    return None


def _described(tree) -> dict[str, str]:
    """{path: type and shape} of all leaves, such as float32[8, 3]."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in leaves]
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in named}


def _flush(folder: Path) -> None:
    """Return when all that is in a folder has reached the disk, and would outlast a power cut."""
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_intact(partial: Path) -> None:
    try:
        (partial / INTACT).unlink()
    except FileNotFoundError:
        raise OSError("another process could not write its part") from None


# ---- several processes ----


def _of_leader(number: int) -> int:
    """The number that the first process has, however long that takes."""
    _meet(next(_meetings))
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _meet(number: int) -> None:
    """Wait until every process is here; also in a thread, where JAX could not compute together."""
    meet = ocp.multihost.get_barrier_sync_fn()
    meet(key=f"mbt_lite.train.checkpointing {number}", timeout_ms=PATIENCE * 1000)


# ---- in a phrase ----


def _attempt(do: Callable, *arguments) -> str | None:
    """Why it failed, or None where it did not."""
    try:
        do(*arguments)
    except Exception as error:
        return _why(error)
    return None


def _why(error: Exception) -> str:
    """A phrase; where the system refused something, in its words."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{Path(error.filename).name}: " if error.filename else ""
        return f"{where}{error.strerror}"
    code = re.search(r"os_error_code='(\d+)'", str(error))  # so TensorStore quotes the system
    if code:
        return os.strerror(int(code[1]))
    ours = isinstance(error, OSError | ValueError)
    return (str(error) if ours else f"{type(error).__name__}: {error}").partition("\n")[0][:200]


# ---- what Orbax says ----


@functools.cache
def _quieten() -> None:
    """Keep off the screen what is told here in a sentence, above all pages on a full disk."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_from_orbax)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize", RuntimeWarning)
    before = sys.unraisablehook

    def hook(caught) -> None:
        """Drops answers of TensorStore that come after a write beside them has failed."""
        if caught.object is not None or str(caught.exc_value) != "Event loop is closed":
            before(caught)

    sys.unraisablehook = hook


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    said = f"{record.pathname} {record.getMessage()}"
    return "/orbax/" not in said and f"{PARTIAL}/{STATE}" not in said
