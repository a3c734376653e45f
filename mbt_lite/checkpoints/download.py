"""Download files over HTTP and from the Hugging Face hub: resumed, verified, locked.

Beside a file NAME there may be NAME.partial (the bytes received so far; the next call resumes
there), NAME.partial.json (the address, size and validator that these bytes belong to), NAME.sha256
(of the first good download, in the format of sha256sum) and an empty .NAME.lock.
"""

import contextlib
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epy
from filelock import FileLock, Timeout
from tqdm import tqdm

from mbt_lite import __version__
from mbt_lite.paths import FULL, write_text

with epy.lazy_imports():  # most models are on disk
    import requests
    import urllib3

_HEADERS = {"User-Agent": f"mbt_lite/{__version__}", "Accept-Encoding": "identity"}
TIMEOUT = 30.0  # s without a byte
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # s before each new attempt
_CHUNK = 1 << 20  # bytes
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass
_HUB_WEIGHTS = "model.safetensors"
_HUB_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")


class DownloadError(OSError):
    """A download failed; the message is a sentence with the address, the reason and what to do."""


class _Incomplete(Exception):
    """An attempt ended before the end of the file; another one may succeed."""


class _Partial:
    """The bytes of a file received so far, and the response header that identifies the file."""

    def __init__(self, url: str, path: Path):
        self.url, self.path = url, path
        self.file = path.with_name(f"{path.name}.partial")
        self.note = path.with_name(f"{path.name}.partial.json")
        try:
            self.header = json.loads(self.note.read_text(encoding="utf-8"))
            usable = self.header["url"] == url and self.resumable
        except (OSError, ValueError, KeyError, TypeError):
            usable = False
        if not usable:
            self.drop()

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def resumable(self) -> bool:
        """Whether there are bytes, and a validator that ties the rest of the file to them."""
        return bool(self.header.get("validator")) and 0 < self.size <= (self.header["total"] or 0)

    def drop(self) -> None:
        self.header = {}
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def start(self, headers) -> None:
        """Discard what there is; a response with these headers sends the file from its start."""
        self.drop()
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        self.header = {"url": self.url, "validator": _validator(headers), "total": total}
        write_text(self.note, json.dumps(self.header))

    def range_headers(self) -> dict[str, str]:
        """Request headers for the rest, if the file on the server is still the same."""
        if not self.resumable:
            return _HEADERS
        return _HEADERS | {"Range": f"bytes={self.size}-", "If-Range": self.header["validator"]}

    def continued_by(self, headers) -> bool:
        """Whether a partial response is the rest of this file."""
        total = self.header.get("total") or 0
        same = _validator(headers) in (None, self.header.get("validator"))
        return same and headers.get("Content-Range") == f"bytes {self.size}-{total - 1}/{total}"

    def error(self, reason: str, advice: str = "") -> DownloadError:
        """The sentence of a failure."""
        advice = advice or f"Try again later, or download it elsewhere and put it at {self.path}."
        return DownloadError(f"{self.url}: {reason}.{self.resume_note()} {advice}")

    def resume_note(self) -> str:
        if not self.resumable:
            return ""
        size = amount(self.size)
        return f" {self.file} keeps the {size} received; the next attempt resumes there."


def _validator(headers) -> str | None:
    """What If-Range may name: a strong ETag, or else the date of the last change."""
    etag = headers.get("ETag")
    return headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag


def download(url: str, path: Path, *, check: Callable[[Path], object]) -> Path:
    """Download a file to `path`, which appears only when it is complete; hold `locked(path)`.

    An unfinished earlier download is resumed. Broken and stalled connections and busy servers are
    tried again after growing waits. The download is refused if the file is a web page, differs from
    the remembered checksum, or if `check(file)` raises ValueError. Raises DownloadError; then at
    most a `.partial` is left, which the next call resumes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Partial(url, path)
    try:
        _fetch(part)
        _accept(part, check)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted.{part.resume_note()}") from None
    finally:
        if not part.resumable:
            part.drop()
    return path


def _fetch(part: _Partial) -> None:
    """Request the file, and its rest, until all bytes are here."""
    start = part.size
    for wait in (*WAITS, None):
        try:
            return _attempt(part)
        except (_Incomplete, urllib3.exceptions.HTTPError, requests.RequestException) as error:
            offline = isinstance(error, requests.ConnectionError) and part.size == start
            if offline or wait is None:
                raise part.error(_reason(error)) from None
        time.sleep(wait)


def _reason(error: BaseException) -> str:
    """Why an attempt failed, by the first cause of an error, such as "Connection refused"."""
    if isinstance(error, _Incomplete):
        return str(error)
    while error.__context__ is not None:
        error = error.__context__
    if isinstance(error, TimeoutError):
        return f"the server was silent for {TIMEOUT:g} s"
    return f"no connection ({error})"


def _attempt(part: _Partial) -> None:
    """Request the bytes that are missing once; return when all of them are here."""
    if part.size and part.size == part.header["total"]:
        return
    request = dict(headers=part.range_headers(), stream=True, timeout=TIMEOUT)
    with requests.get(part.url, **request) as response:
        status, headers = response.status_code, response.headers
        if status == 416 or (status == 206 and not part.continued_by(headers)):
            part.drop()
            raise _Incomplete("the file on the server has changed")
        refusal = f"the server answers {status} ({response.reason})"
        if status in _BUSY:
            raise _Incomplete(refusal)
        if not response.ok:
            raise part.error(refusal)
        if headers.get("Content-Type", "").startswith("text/html"):
            raise part.error("the server sends a web page, not the file")
        if status != 206:
            part.start(headers)
        _check_room(part)
        _store(part, response)
    total = part.header["total"]
    if total not in (None, part.size):
        raise _Incomplete(f"the connection broke: only {part.size:,} of {total:,} bytes came")


def _store(part: _Partial, response: "requests.Response") -> None:
    """Append the body of a response, each piece at once, so that a later failure loses none."""
    total = part.header["total"]
    shown = dict(desc=part.path.name, unit="B", unit_scale=True, leave=False, disable=None)
    try:
        with part.file.open("ab") as file, tqdm(total=total, initial=part.size, **shown) as bar:
            while chunk := response.raw.read1(_CHUNK):
                file.write(chunk)
                file.flush()
                bar.update(len(chunk))
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise _disk_full(part) from None


def _check_room(part: _Partial) -> None:
    """Raise DownloadError before the first byte if the disk has no room for the rest."""
    if (part.header["total"] or 0) - part.size > shutil.disk_usage(part.path.parent).free:
        raise _disk_full(part)


def _disk_full(part: _Partial) -> DownloadError:
    free = amount(shutil.disk_usage(part.path.parent).free)
    missing = amount((part.header["total"] or 0) - part.size)
    reason = f"the disk is full: {missing} more are needed, {free} are free"
    return part.error(reason, "Make room and try again.")


def _accept(part: _Partial, check: Callable[[Path], object]) -> None:
    """Give a complete file its name and remember its checksum, or refuse and delete it."""
    try:
        sha256 = verify(part.file, part.path)
        check(part.file)
    except ValueError as error:
        part.drop()
        raise part.error(str(error).replace(part.file.name, part.path.name).rstrip(".")) from None
    part.file.replace(part.path)
    remember(part.path, sha256)
    part.drop()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to write this file; other processes wait for it, and say so."""
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
    return note.read_text(encoding="utf-8").partition(" ")[0] if note.exists() else None


def remember(path: Path, sha256: str) -> None:
    """Write the sha256 of a file beside it."""
    write_text(path.with_name(f"{path.name}.sha256"), f"{sha256}  {path.name}\n")


def verify(file: Path, path: Path) -> str:
    """The sha256 of a file; ValueError if another one is remembered for `path`."""
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if remembered(path) not in (None, sha256):
        raise ValueError(
            f"{file} is not the file of the first download: its sha256 is {sha256}, that of the "
            f"first is in {path.name}.sha256. Delete the one of them that you do not trust."
        )
    return sha256


def amount(size: float) -> str:
    """A number of bytes for people: 1.4 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}"
        size /= 1000


def hub_file(reference: str) -> Path:
    """The local path of hf://user/repo[@revision][/file], downloaded if it is not here.

    Without a file it is model.safetensors, and the repository's config.json, if it has one, is
    downloaded beside it. Raises ValueError for another address, DownloadError on failure.
    """
    match = _HUB_ADDRESS.fullmatch(reference)
    if not match:
        raise ValueError(f"{reference!r} is no address like hf://user/repo[@revision][/file].")
    from huggingface_hub import errors, hf_hub_download

    repository, revision, file = match.groups()
    try:
        path = Path(hf_hub_download(repository, file or _HUB_WEIGHTS, revision=revision))
        if not file:
            with contextlib.suppress(errors.EntryNotFoundError, errors.LocalEntryNotFoundError):
                hf_hub_download(repository, "config.json", revision=revision)
    except Exception as error:  # the hub's own, its HTTP library's and the system's
        file = file or _HUB_WEIGHTS
        raise DownloadError(
            f"{reference}: {_hub_reason(error, file)}. Check the name, or download {file} "
            "elsewhere and give its path."
        ) from None
    return path


def _hub_reason(error: Exception, file: str) -> str:
    """Why the hub did not send a file."""
    from huggingface_hub import errors

    reasons = {  # subclasses first
        errors.GatedRepoError: "its owner gives access on request only; see its page",
        errors.RepositoryNotFoundError: "there is no such repository, or it is private",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.LocalEntryNotFoundError: "the hub is out of reach and no copy is on this machine",
        errors.EntryNotFoundError: f"the repository has no {file}",
        Exception: f"{error} ".splitlines()[0].rstrip(".: "),
    }
    return next(reason for kind, reason in reasons.items() if isinstance(error, kind))
