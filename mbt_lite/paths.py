"""Cache folders, files that are written whole or not at all, and what a path names."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

DOWNLOAD = "download it first, then name the file"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: of the disk, the user, one file
INSTEAD = {  # how a file begins that lies in place of another: what it is, and what to do
    b"version https://git-lfs": (
        "a git-lfs pointer, not the file itself; run git lfs pull in its repository"
    ),
    b"<!doctype html": "a web page, not the file itself; download it from its raw address",
    b"<html": "a web page, not the file itself; download it from its raw address",
}


def write_text(path: Path, text: str) -> None:
    """Write a text under another name first, then rename it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another name beside `path`, for a file that takes its place once the block has ended well.

    Where the block fails nothing is left of it; OSError names `path` where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with room(path):
            yield temporary
            temporary.replace(path)
    except OSError as error:
        if error.filename != str(temporary):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextlib.contextmanager
def room(path: Path | None) -> Iterator[None]:
    """OSError names `path` where the block finds the disk full: writing alone does not say it."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or path is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def stand_in(begin: bytes) -> str | None:
    """What a file that begins so is, if it lies in place of another; None: it may be the file."""
    begin = begin.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    return next((what for mark, what in INSTEAD.items() if begin.startswith(mark)), None)


def address(path) -> str | None:
    """The internet address that a path is, slashes restored that `Path` drops; None: it is none."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/+(?=.)", str(path), flags=re.IGNORECASE)
    return found and f"{found[1]}://{str(path)[found.end() :]}"


def cache_folder() -> Path:
    """Where weights are kept: $MBT_LITE_CACHE, or mbt_lite in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("MBT_LITE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbt_lite"


def keep_compilations(folder: Path) -> None:
    """Keep what was compiled for the next start, unless a folder was chosen already.

    Where nothing can be written there, nothing is kept.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
