"""Cache folders, atomic file writes, and what a path refers to."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

DOWNLOAD = "download it first, then name the file"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left: on disk, in a quota, in a file
_WEB_PAGE = "a web page, not the file itself; download it from its raw address"
_PLACEHOLDERS = {  # first bytes of a file that was stored instead of the real one: what it is
    b"version https://git-lfs": (
        "a git-lfs pointer, not the file itself; run git lfs pull in its repository"
    ),
    b"<!doctype html": _WEB_PAGE,
    b"<html": _WEB_PAGE,
}


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary name that replaces `path` after the block.

    If the block fails, the temporary file is deleted and `path` is unchanged. An OSError about the
    temporary file names `path` instead.
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
    """Name `path` in an OSError for a full disk, which does not say which file it was."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or path is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def stand_in(begin: bytes) -> str | None:
    """Describe a placeholder (git-lfs pointer, web page) by its first bytes; None if it is none."""
    begin = begin.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    matches = (text for prefix, text in _PLACEHOLDERS.items() if begin.startswith(prefix))
    return next(matches, None)


def address(path) -> str | None:
    """Return a path that is an internet address, with the slashes that `Path` drops, or None."""
    match = re.match(r"([a-z][a-z0-9+.-]+):/+(?=.)", str(path), flags=re.IGNORECASE)
    return match and f"{match[1]}://{str(path)[match.end() :]}"


def cache_folder() -> Path:
    """The folder of weights: $MBT_LITE_CACHE, or mbt_lite in $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("MBT_LITE_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbt_lite"


def keep_compilations(folder: Path) -> None:
    """Use `folder` as JAX's persistent compilation cache, unless another is set.

    Does nothing where the folder is not writable.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
