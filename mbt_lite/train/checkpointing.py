"""Save and restore the training state with Orbax.

    state/40/state/            every array of the state at step 40
    state/40/record/           JSON from the caller, and type, shape and checksum of every array

Orbax writes in the background under a temporary name and renames the folder at the end. It does not
notice changed bytes of an array; the checksums do.
"""

import functools
import json
import logging
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

_STATE, _RECORD = "state", "record"
_REMOVED = "removed"  # the folder for states to delete
_DAMAGED = ".damaged"  # the ending of a damaged state's folder


class _Restored(NamedTuple):
    """A restored state, and the JSON that was saved with it."""

    step: int
    state: Any
    about: dict


class RunCheckpoints:
    """The latest `keep` states of a run.

    Every process of a run calls the same methods in the same order on a folder that all of them
    see. The first process reports problems by `tell`. Call `close` at the end.
    """

    def __init__(self, folder: Path, keep: int = 2, tell: Callable[[str], None] = print):
        self.folder, self.tell = Path(folder).absolute(), tell
        self._leads = jax.process_index() == 0
        self._saving: int | None = None  # the step of the save in progress
        _silence_orbax()
        if self._leads:
            self._clean()
        _in_any_process(False)  # a barrier: all look at the same folders
        self._reader = ocp.StandardCheckpointHandler()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                todelete_subdir=_REMOVED,  # a rename, so that no half state has a final name
                # Otherwise threads wait for a folder that a full disk does not allow.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                save_root_metadata=False,
            ),
        )

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def save(self, step: int, state, about: dict, wait: bool = False) -> None:
        """Start to save a tree of arrays and JSON; with `wait`, return when it is saved.

        The arrays may be donated as soon as this returns. A state that cannot be written, as on a
        full disk, is reported, and the older states stay.
        """
        self.wait()
        record = {"about": about, "arrays": _described(state), "checksums": _checksums(state)}
        text = json.dumps(record)
        record = {"text": text, "crc32": zlib.crc32(text.encode())}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
        )
        self._saving = step
        self._report(_attempt(self._manager.save, step, args=items, force=True))
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait for the save in progress."""
        if self._saving is not None:
            self._report(_attempt(self._manager.wait_until_finished))
            self._saving = None

    def close(self) -> None:
        """Wait for the save in progress; nothing can be saved afterwards."""
        self.wait()
        self._manager.close()
        self._reader.close()
        if self._leads:
            self._clean()

    def restore(self, abstract_state) -> _Restored | None:
        """The newest state that can be read, on the devices that `abstract_state` names, or None.

        `abstract_state` is a tree of `jax.ShapeDtypeStruct` or arrays, with shardings. Newer,
        damaged states are reported and renamed to end in .damaged. ValueError where no state can be
        read, or where the states are of another model.
        """
        self.wait()
        damaged: dict[int, str] = {}
        for step in reversed(self._manager.all_steps()):
            restored, problem = self._read(step, abstract_state)
            if restored:
                self._set_aside(damaged, step)
                return restored
            damaged[step] = problem
        if damaged:
            problems = "; ".join(f"step {step}: {problem}" for step, problem in damaged.items())
            raise ValueError(
                f"no state in {self.folder} can be read ({problems}); remove this folder to train "
                "from the start."
            )
        return None

    def _read(self, step: int, abstract_state) -> tuple[_Restored | None, str]:
        """The state of a step, or None and what is wrong with its files, alike in all processes.

        It is not read by the manager, in which a process that fails leaves the others waiting.
        """
        folder, record, state, problem = self.folder / str(step), None, None, ""
        try:
            record = _read_record(folder / _RECORD / "metadata")
        except (OSError, ValueError) as error:
            problem = f"{_RECORD}: {_reason(error)}"
        if record:
            self._check_model(record["arrays"], _described(abstract_state))
            try:
                arguments = ocp.args.StandardRestore(abstract_state)
                state = self._reader.restore(epath.Path(folder / _STATE), args=arguments)
            except Exception as error:
                problem = f"{_STATE}: {_reason(error)}"
        if _in_any_process(bool(problem)):
            return None, problem or "another process could not read it"
        sums, saved = _checksums(state), record["checksums"]
        changed = [name for name, checksum in sums.items() if checksum != saved[name]]
        if changed:
            return None, f"{_STATE}: {changed[0]} has changed"
        return _Restored(step, state, record["about"]), ""

    def _check_model(self, saved: dict[str, str], expected: dict[str, str]) -> None:
        """ValueError where the states have other arrays than the model."""
        names = [name for name in saved | expected if saved.get(name) != expected.get(name)]
        if names:
            before, now = (arrays.get(names[0], "absent") for arrays in (saved, expected))
            more = f", and {len(names) - 1} more differ" if len(names) > 1 else ""
            raise ValueError(
                f"the states in {self.folder} are of another model ({names[0]} was {before} and "
                f"now is {now}{more}); choose another --workdir."
            )

    def _set_aside(self, damaged: dict[int, str], step: int) -> None:
        """Report damaged states and rename them, as their steps will be saved anew."""
        for bad, problem in damaged.items():
            if self._leads:
                shutil.rmtree(self.folder / f"{bad}{_DAMAGED}", ignore_errors=True)
                (self.folder / str(bad)).rename(self.folder / f"{bad}{_DAMAGED}")
                self.tell(
                    f"the state of step {bad} in {self.folder} is damaged ({problem}); "
                    f"resuming from step {step}."
                )
        if damaged:
            _in_any_process(False)  # a barrier: the others look when the names have changed
            self._manager.reload()

    def _report(self, problem: str | None) -> None:
        """Report a state that could not be saved, and forget it."""
        if problem is None:
            return
        step, self._saving = self._saving, None
        self._manager.reload()
        if self._leads:
            self._clean()
            latest = self._manager.latest_step()
            left = "there is none yet" if latest is None else f"that of step {latest} stays"
            self.tell(
                f"the state of step {step} could not be saved in {self.folder} ({problem}); {left}."
            )

    def _clean(self) -> None:
        """Delete states that were replaced, or only half written."""
        for path in (self.folder / _REMOVED, *self.folder.glob("*.orbax-checkpoint-tmp*")):
            shutil.rmtree(path, ignore_errors=True)


def _read_record(path: Path) -> dict:
    """The JSON of a state; ValueError where it is not as it was written."""
    try:
        record = json.loads(path.read_bytes())
        text, checksum = record["text"], record["crc32"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("it has changed") from None
    if zlib.crc32(text.encode()) != checksum:
        raise ValueError("it has changed")
    return json.loads(text)


def _described(tree) -> dict[str, str]:
    """{path: type and shape} of all leaves, such as float32[8, 3]."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _leaves(tree)}


def _checksums(state) -> dict[str, int]:
    """{path: sum of the leaf's bits as words}, the same however many devices share the leaf."""
    names, leaves = zip(*_leaves(state), strict=True)
    sums = np.array([_sum_of_words(leaf) for leaf in leaves], np.uint32)
    sums = multihost_utils.process_allgather(sums).reshape(-1, len(leaves))
    totals = sums.sum(0, dtype=np.uint32)
    return {name: int(total) for name, total in zip(names, totals, strict=True)}


def _sum_of_words(leaf: jax.Array) -> int:
    """The sum over the parts of the leaf that this process holds, modulo 2**32."""
    parts = [np.asarray(s.data).reshape(-1) for s in leaf.addressable_shards if s.replica_id == 0]
    words = [part.view(f"u{part.dtype.itemsize}").sum(dtype=np.uint32) for part in parts]
    return sum(map(int, words)) % 2**32


def _leaves(tree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _in_any_process(flag: bool) -> bool:
    """Whether it is true in one of the processes; each of them asks."""
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def _attempt(function: Callable, *arguments, **options) -> str | None:
    """Why a call failed, or None."""
    try:
        function(*arguments, **options)
    except Exception as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    """An error in one line; where the operating system refused something, in its words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore quotes the system
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, ValueError):
        return str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


@functools.cache
def _silence_orbax() -> None:
    """Hide the log of Orbax, and TensorStore's tracebacks after a failed write."""
    logging.getLogger("absl").addFilter(lambda record: "/orbax/" not in record.pathname)
    previous = sys.unraisablehook

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = hook
