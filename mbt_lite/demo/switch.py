"""Change the model that answers while the demo runs: the small one, or the large one of AudioSet.

Another process downloads, converts and tests the weights (`mbt-lite zoo download`): it can be ended
at any time, and gives its memory back. A thread waits for it, then loads and compiles the model.
"""

import atexit
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from mbt_lite.checkpoints import zoo
from mbt_lite.checkpoints.download import amount
from mbt_lite.demo.engine import AnsweredClip, Engine
from mbt_lite.model.flops import model_cost
from mbt_lite.paths import cache_folder
from mbt_lite.plot.style import percent

SMALL, LARGE = "world-tiny", "as500k-rgb-spec"
FETCH = [sys.executable, "-m", "mbt_lite", "zoo", "download", LARGE]


class ModelSwitch:
    """The engine that answers, and its change to another model; never two large ones at a time."""

    def __init__(self, engine: Engine):
        self.engine, self.busy, self._message = engine, False, ""
        self._home = SMALL if engine.name == LARGE else engine.source
        self._lock, self._process, self._stopped = threading.Lock(), None, False
        self._first = None  # (when, bytes) of the download at the first look
        atexit.register(self.stop)

    @property
    def _other(self) -> str | None:
        """The model to change to; None where another large one answers."""
        if self.engine.name == LARGE:
            return self._home
        return LARGE if self.engine.is_small else None

    @property
    def offer(self) -> str:
        """The words on the button; empty where there is nothing to change to."""
        if self._other != LARGE:
            return f"Back to {Path(self._other).stem}" if self._other else ""
        if _is_here():
            return "Use the AudioSet model"
        download, kept = map(amount, _sizes())
        return f"For real videos: the AudioSet model ({download} download, {kept} kept)"

    @property
    def downloading(self) -> bool:
        """Whether there is a download to stop; a conversion is too short for that."""
        return self._is_fetching() and not zoo.original(zoo.entry(LARGE))

    def engine_of(self, clip: AnsweredClip) -> Engine:
        """The engine that answered a clip; ValueError where another one answers now."""
        engine = self.engine
        if clip.model != engine.name:
            raise ValueError(f"Now {engine.name} answers, not {clip.model}: ask again in Ask.")
        return engine

    def start(self) -> None:
        """Begin to change to the other model."""
        with self._lock:
            if self.busy or not self._other:
                return
            self.busy, self._stopped, self._first = True, False, None
        threading.Thread(target=self._change, args=(self._other,), daemon=True).start()

    def stop(self) -> None:
        """Stop the download; what came is kept, and the next one resumes there."""
        if self.downloading:
            self._stopped = True
            self._process.terminate()

    def progress(self) -> tuple[str, float | None]:
        """(what is going on or has happened, share of the download or None)."""
        if not self._is_fetching():
            return self._message, None
        if _is_here():
            return "Testing the model with generated sounds, once: a few minutes ...", None
        size, total = zoo.received(zoo.entry(LARGE)), _sizes()[0]
        if zoo.original(zoo.entry(LARGE)) or size >= total:
            return "Checking and converting the weights, once: about half a minute ...", None
        if not size:
            return "Connecting ...", None
        text = f"Downloading: {amount(size)} of {amount(total)} ({percent(size / total)})"
        return text + self._time_left(size, total), size / total

    def _is_fetching(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _time_left(self, size: int, total: int) -> str:
        """An estimate from the mean speed since the first look."""
        now = time.monotonic()
        began, before = self._first = self._first or (now, size)
        if now < began + 2 or size == before:
            return ""
        seconds = (total - size) / (size - before) * (now - began)
        left = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{math.ceil(seconds)} s"
        return f", about {left} left"

    def _change(self, source: str) -> None:
        """Replace the engine, or leave it and say why."""
        try:
            if source == LARGE:
                check_room()
                if not _is_here():
                    self._fetch()
            self._message = "Loading and compiling the model: a minute or two ..."
            engine = Engine(source)
            engine.compile()
            self.engine = engine
            self._message = f"Now {engine.name} answers. Earlier clips are forgotten: ask again."
        except Exception as error:  # JAX has many of its own
            self._message = str(error) or f"The model cannot be loaded ({type(error).__name__})."
        finally:
            self.busy = False

    def _fetch(self) -> None:
        """Download and convert the weights; ValueError with a sentence where that fails."""
        options = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        options["env"] = os.environ | {"JAX_PLATFORMS": "cpu"}  # the GPU's memory is taken
        with subprocess.Popen(FETCH, **options) as self._process:
            errors = self._process.communicate()[1]
        if _is_here():  # even where its self-test was stopped or failed
            return
        if self._stopped:
            kept = amount(zoo.received(zoo.entry(LARGE)))
            raise ValueError(f"Stopped; the next download resumes after the {kept} that came.")
        if code := self._process.returncode:
            unknown = f"mbt-lite zoo download {LARGE} ended with code {code}; run it to see why."
            raise ValueError(errors.partition("mbt-lite: ")[2].strip() or unknown)


def check_room() -> None:
    """Raise ValueError where disk or memory are too small for the large model."""
    (download, kept), folder, entry = _sizes(), cache_folder(), zoo.entry(LARGE)
    disk, memory = 0, download  # to load: the arrays of the file, and those of the model
    if not _is_here():
        disk, memory = kept, 2 * download  # to convert: the file, and all that is in it
        disk += 0 if zoo.original(entry) else download - zoo.received(entry)
    folder.mkdir(parents=True, exist_ok=True)
    if disk > (free := shutil.disk_usage(folder).free):
        raise ValueError(
            f"The disk of {folder} is too full: {amount(disk)} are needed until the weights are "
            f"converted, and {amount(free)} are free. Make room and try again."
        )
    if memory > (free := free_memory()):
        raise ValueError(
            f"The memory is too small: about {amount(memory)} are needed, and {amount(free)} are "
            "free. Close other programs and try again."
        )


def free_memory() -> float:
    """Bytes of memory that programs may still take; infinite where the system does not say."""
    table = Path("/proc/meminfo")
    memory = table.exists() and re.search(r"MemAvailable:\s+(\d+) kB", table.read_text("utf-8"))
    return 1024 * int(memory[1]) if memory else math.inf


def _is_here() -> bool:
    """Whether the converted weights of the large model are on this machine."""
    return any(path.exists() for path in zoo.places(zoo.entry(LARGE)).values())


def _sizes() -> tuple[int, int]:
    """Bytes of the large model's published file, and of its converted weights."""
    entry = zoo.entry(LARGE)
    return zoo.download_size(entry), 4 * model_cost(entry.config).parameters
