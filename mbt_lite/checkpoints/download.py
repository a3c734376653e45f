"""Download files whole or not at all: resumed, verified, locked.

The standard library's urllib does the talking: requests or httpx would be one more dependency and
leave resuming, stalls and wrong lengths to us, which is nearly all there is to do.

Beside a file NAME there may be NAME.partial (what has come so far; the next call goes on there),
NAME.partial.json (how to recognise the rest), NAME.sha256 (of the first good download, as sha256sum
writes it) and an empty .NAME.lock.
"""

import base64
import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from mbt_lite import __version__

TIMEOUT = 30.0  # s without a byte
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # s before each new attempt
PROGRESS = 1 << 20  # bytes; an attempt that brings so many gets all new attempts again
LONGEST_WAIT = 60.0  # s, whatever the server asks for
CHUNK = 1 << 20  # bytes
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that may be better the next time
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAKE_ROOM = "Make room and try again."
PAGE = re.compile(rb"\s*<(!doctype html|html|head|\?xml)", re.IGNORECASE)


class DownloadError(OSError):
    """Why a file did not come, in a sentence with its address and what to do."""


class Unreachable(DownloadError):
    """There is no connection, and nothing has come."""


class _Again(Exception):
    """Why an attempt failed that may succeed the next time, and the wait the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class _Unreached(_Again):
    """No connection at all."""


class _Partial:
    """What has come so far of an address, and the signs by which its rest is recognised."""

    def __init__(self, url: str, path: Path):
        self.url, self.path = url, path
        self.file = path.with_name(f"{path.name}.partial")
        self.note = path.with_name(f"{path.name}.partial.json")
        try:
            self.signs = json.loads(self.note.read_text(encoding="utf-8"))
            usable = self.signs["url"] == url and self.resumable
        except (OSError, ValueError, KeyError, TypeError):
            usable = False
        if not usable:
            self.drop()

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on with, and a sign that the rest belongs to it."""
        known = any(self.signs.get(sign) for sign in ("etag", "modified", "total"))
        return self.size > 0 and known and self.signs["ranges"]

    def drop(self) -> None:
        self.signs = {}
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def begin(self, answer: http.client.HTTPResponse, total: int | None) -> None:
        """Start anew with this answer, which has so many bytes."""
        found = {
            "etag": answer.headers["ETag"],
            "modified": answer.headers["Last-Modified"],
            "total": total,
        }
        same = found.items() <= self.signs.items()
        ignored = same and (self.resumable or not self.signs["ranges"])  # only the rest was wanted
        self.drop()
        self.signs = found | {"url": self.url, "md5": _told_md5(answer), "ranges": not ignored}
        _write(self.note, json.dumps(self.signs))

    def request(self) -> urllib.request.Request:
        """What asks for the rest if the file is still the same, or else for all."""
        headers = {"User-Agent": f"mbt_lite/{__version__}", "Accept-Encoding": "identity"}
        if self.resumable:
            etag = self.signs["etag"] or "W/"  # a weak one must not be used here
            same = self.signs["modified"] if etag.startswith("W/") else etag
            headers |= {"Range": f"bytes={self.size}-"} | ({"If-Range": same} if same else {})
        return urllib.request.Request(self.url, headers=headers)

    def goes_on_with(self, answer: http.client.HTTPResponse) -> bool:
        """Whether a part of the file is the rest of what is here."""
        start, total = _told_range(answer)
        told = {"etag": answer.headers["ETag"], "total": total}
        both = [(value, self.signs.get(sign)) for sign, value in told.items()]
        return start == self.size > 0 and all(a == b for a, b in both if a and b)


def download(
    url: str,
    path: Path,
    *,
    at_least: int = 1,
    spare: int = 0,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """`path`, once the whole file of an address is there; the caller holds `locked(path)`.

    Of a file that the last call left unfinished only the rest is fetched. Cuts, stalls and busy
    servers are tried again with growing waits. Refused are files of fewer bytes than `at_least`,
    web pages, files that contradict the server's checksum or the remembered one, files in which
    `check` finds a ValueError, and disks without room for the file and `spare` bytes more. Raises
    DownloadError; then only a `.partial` that the next call can use is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Partial(url, path)
    try:
        _fetch(part, at_least, spare)
        _accept(part, at_least, check)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted.{_kept(part)}") from None
    finally:
        if not part.resumable:
            part.drop()
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The right to make this file, which one process has at a time; the others wait and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting: another process is fetching {path.name}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remembered(path: Path) -> str | None:
    """The sha256 of the first good copy of a file, None if there was none yet."""
    note = path.with_name(f"{path.name}.sha256")
    if not note.exists():
        return None
    found = re.match(r"[0-9a-f]{64}\b", note.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{note} holds no sha256; delete it.")
    return found[0]


def remember(path: Path, sha256: str) -> None:
    _write(path.with_name(f"{path.name}.sha256"), f"{sha256}  {path.name}\n")


def verify(file: Path, path: Path | None = None) -> str:
    """The sha256 of a file; ValueError if it is not what was remembered for `path` (or itself)."""
    path = path or file
    sha256, known = digests(file)[0], remembered(path)
    if known not in (None, sha256):
        raise ValueError(
            f"{file} is not what came the first time: its sha256 is {sha256}, remembered is "
            f"{known}. Delete it to get it anew, or {path.name}.sha256 beside it if you trust it."
        )
    return sha256


def digests(file: Path) -> tuple[str, str]:
    """The sha256 of a file in hexadecimal and its md5 in base64, as Google's storage tells it."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(CHUNK):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), base64.b64encode(md5.digest()).decode()


def by_hand(files: Sequence[tuple[int, str, Path]]) -> str:
    """Lines that say how to do without a network: (bytes, address, place) of every file."""
    lines = [f"  {amount(size):>7}  {url}\n{'':11}to {place}" for size, url, place in files]
    return "\n".join(["Fetch elsewhere, and put in its place, each of:", *lines])


def amount(size: float) -> str:
    """A number of bytes for people: 1.4 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}"
        size /= 1000


def lack_of_room(folder: Path, wanted: int) -> str | None:
    """Why so many bytes do not fit into a folder, None if they do."""
    free = shutil.disk_usage(folder).free
    if free >= wanted:
        return None
    return f"{amount(wanted)} are needed in {folder}, {amount(free)} are free"


def _fetch(part: _Partial, at_least: int, spare: int) -> None:
    """Attempts until all is there; those that get on by much are not counted."""
    failures, before = 0, part.size
    while True:
        had = part.size
        try:
            return _attempt(part, at_least, spare)
        except _Again as again:
            failures = 1 if part.size - had >= PROGRESS else failures + 1
            offline = isinstance(again, _Unreached) and part.size == before
            if offline or failures > len(WAITS):
                kind = Unreachable if offline else DownloadError
                raise kind(_sentence(part, str(again))) from None
            time.sleep(min(max(WAITS[failures - 1], again.wait), LONGEST_WAIT))


def _attempt(part: _Partial, at_least: int, spare: int) -> None:
    """One go at the rest of the file; returns when all of it is here."""
    try:
        with urllib.request.urlopen(part.request(), timeout=TIMEOUT) as answer:
            _receive(part, answer, at_least, spare)
    except urllib.error.HTTPError as error:
        with error:
            _judge(part, error)
    except urllib.error.URLError as error:
        kind = _Again if isinstance(error.reason, TimeoutError) else _Unreached
        raise kind(f"no connection ({error.reason})") from None
    except TimeoutError:
        raise _Again(f"the server was silent for {TIMEOUT:g} s") from None
    except (ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
        raise _Again(f"the connection broke ({type(error).__name__})") from None


def _judge(part: _Partial, error: urllib.error.HTTPError) -> None:
    """What an answer without a file means; returns if it means that all is here."""
    reason = f"the server answers {error.code} ({error.reason})"
    if error.code == 416:  # nothing follows: all is here, or the file has changed
        if _told_range(error)[1] == part.size > 0:
            return
        part.drop()
        raise _Again(reason)
    if error.code in PASSING:
        wait = error.headers["Retry-After"] or ""
        raise _Again(reason, float(wait) if wait.isdigit() else 0.0)
    raise DownloadError(_sentence(part, reason))


def _receive(part: _Partial, answer, at_least: int, spare: int) -> None:
    if answer.status == 206:
        if not part.goes_on_with(answer):
            part.drop()
            raise _Again("the file on the server has changed meanwhile")
        chunk = answer.read1(CHUNK)
    else:
        total = answer.length  # counts down while it is read
        chunk = answer.read1(CHUNK)
        if answer.headers.get_content_type() == "text/html" or PAGE.match(chunk):
            raise DownloadError(_sentence(part, "a web page comes instead of the file"))
        part.begin(answer, total)
    total = part.signs["total"]
    _check_before(part, total, at_least, spare)
    _store(part, answer, chunk)
    if total is not None and part.size != total:
        if part.size > total:
            part.drop()
        raise _Again(f"only {part.size:,} of {total:,} bytes came")


def _check_before(part: _Partial, total: int | None, at_least: int, spare: int) -> None:
    """Refuse what cannot be the file, or cannot fit."""
    if total is not None and total < at_least:
        part.drop()
        raise DownloadError(_sentence(part, _too_small(total, at_least)))
    reason = lack_of_room(part.path.parent, (total or at_least) - part.size + spare)
    if reason:
        raise DownloadError(_sentence(part, reason, MAKE_ROOM))


def _store(part: _Partial, answer, chunk: bytes) -> None:
    """Append all that comes, each piece at once, so that a later fault loses none."""
    name, size, total = part.path.name, part.size, part.signs["total"]
    shown = dict(desc=name, unit="B", unit_scale=True, leave=False, disable=None)
    with (
        part.file.open("ab", buffering=0) as file,
        tqdm(total=total, initial=size, **shown) as bar,
    ):
        while chunk:
            bar.update(len(chunk))
            _append(part, file, chunk)
            chunk = answer.read1(CHUNK)


def _append(part: _Partial, file, chunk: bytes) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = amount(shutil.disk_usage(part.path.parent).free)
        wanted = amount((part.signs["total"] or 0) - part.size)
        reason = f"the disk is full: {wanted} more are needed, {free} are free"
        raise DownloadError(_sentence(part, reason, MAKE_ROOM)) from None


def _accept(part: _Partial, at_least: int, check: Callable[[Path], object] | None) -> None:
    """Give a whole file its name and remember its checksum, or refuse and remove it."""
    sha256, md5 = digests(part.file)
    known = remembered(part.path)
    reason = None
    if part.size < at_least:
        reason = _too_small(part.size, at_least)
    elif part.signs.get("md5") not in (None, md5):
        reason = "the file came damaged: its md5 is not the one that the server tells"
    elif known not in (None, sha256):
        reason = f"another file came than the first time (sha256 {sha256}, remembered {known})"
    try:
        if check and not reason:
            check(part.file)
    except ValueError as error:
        reason = str(error).replace(part.file.name, part.path.name)
    if reason:
        part.drop()
        raise DownloadError(_sentence(part, reason))
    os.replace(part.file, part.path)
    remember(part.path, sha256)
    part.drop()


def _told_range(answer) -> tuple[int | None, int | None]:
    """(first byte, bytes of the whole file) that a Content-Range tells."""
    pattern = r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)"
    found = re.fullmatch(pattern, answer.headers["Content-Range"] or "")
    start, total = found.groups() if found else (None, None)
    return start and int(start), int(total) if total and total != "*" else None


def _told_md5(answer) -> str | None:
    """The md5 that Google's storage tells of a file, in base64."""
    told = ",".join(answer.headers.get_all("x-goog-hash") or ())
    found = re.search(r"md5=([\w+/]+=*)", told)
    return found and found[1]


def _too_small(size: int, at_least: int) -> str:
    return f"{size:,} bytes are too few, {at_least:,} at least are expected"


def _kept(part: _Partial) -> str:
    if not part.resumable:
        return ""
    return f" {part.file} keeps the {amount(part.size)} that came; the next attempt goes on there."


def _sentence(part: _Partial, reason: str, advice: str = "") -> str:
    advice = advice or f"Try again later, or fetch it elsewhere and put it at {part.path}."
    return f"{part.url}: {reason}.{_kept(part)} {advice}"


def _write(path: Path, text: str) -> None:
    """A small text file, whole or not there."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
