"""Download files over HTTP and from the Hugging Face hub: resumed, verified, locked.

Beside a file NAME there may be NAME.partial (the bytes received so far; the next call resumes
there), NAME.partial.json (the address, size and validator that these bytes belong to), NAME.sha256
(of the first good download, in the format of sha256sum) and an empty .NAME.lock.
"""

import base64
import contextlib
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import Retry
from urllib3.exceptions import HTTPError, ReadTimeoutError

from mbt_lite import __version__
from mbt_lite.paths import FULL, write_text

HEADERS = {"User-Agent": f"mbt_lite/{__version__}", "Accept-Encoding": "identity"}
TIMEOUT = 30.0  # s without a byte
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass
RETRY = Retry(  # before the first byte; `_fetch` itself resumes what breaks later
    total=5,
    connect=0,
    read=False,
    backoff_factor=1,
    status_forcelist=BUSY,
    raise_on_status=False,
    respect_retry_after_header=False,  # it may ask for hours
)
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # s before each new attempt; progress starts them again
CHUNK = 1 << 20  # bytes
MAKE_ROOM = "Make room and try again."
HUB_WEIGHTS = "model.safetensors"
HUB_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")


class DownloadError(OSError):
    """A download failed; the message is a sentence with the address, the reason and what to do."""


class Unreachable(DownloadError):
    """There is no connection, and no byte was received."""


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

    def start(self, response: requests.Response) -> None:
        """Discard what there is; this response sends the file from its first byte."""
        self.drop()
        headers = response.headers
        length = headers.get("Content-Length", "")
        md5 = re.search(r"md5=([\w+/]+=*)", headers.get("x-goog-hash", ""))
        self.header = {
            "url": self.url,
            "validator": _validator(headers),
            "total": int(length) if length.isdigit() else None,
            "md5": md5 and md5[1],  # in base64, by Google's storage
        }
        write_text(self.note, json.dumps(self.header))

    def range_headers(self) -> dict[str, str]:
        """Request headers for the rest, if the file on the server is still the same."""
        if not self.resumable:
            return HEADERS
        return HEADERS | {"Range": f"bytes={self.size}-", "If-Range": self.header["validator"]}

    def continued_by(self, response: requests.Response) -> bool:
        """Whether a partial response is the rest of this file."""
        total = self.header.get("total") or 0
        same = _validator(response.headers) in (None, self.header.get("validator"))
        content_range = f"bytes {self.size}-{total - 1}/{total}"
        return same and response.headers.get("Content-Range") == content_range


def _validator(headers) -> str | None:
    """What If-Range may name: a strong ETag, or else the date of the last change."""
    etag = headers.get("ETag")
    return headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag


def download(
    url: str,
    path: Path,
    *,
    check: Callable[[Path], object],
    spare: int = 0,
) -> Path:
    """Download a file to `path`, which appears only when it is complete; hold `locked(path)`.

    An unfinished earlier download is resumed. Broken and stalled connections and busy servers are
    tried again after growing waits. The download is refused if the file is a web page, differs from
    the server's checksum or from the remembered one, if `check(file)` raises ValueError, or if the
    disk has no room for the file and `spare` more bytes. Raises DownloadError; then at most a
    `.partial` is left, which the next call resumes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Partial(url, path)
    try:
        _fetch(part, spare)
        _accept(part, check)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted.{_resume_note(part)}") from None
    finally:
        if not part.resumable:
            part.drop()
    return path


def _fetch(part: _Partial, spare: int) -> None:
    """Request the file, and its rest, until all bytes are here."""
    failures, start = 0, part.size
    furthest = start
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=RETRY))
        while True:
            try:
                return _attempt(session, part, spare)
            except (requests.Timeout, ReadTimeoutError):
                reason = f"the server was silent for {TIMEOUT:g} s"
            except (_Incomplete, HTTPError) as error:
                reason = f"the connection broke ({error})"
            except requests.ConnectionError as error:
                reason = f"no connection ({_root(error)})"
                if part.size == start:
                    raise Unreachable(_sentence(part, reason)) from None
            except requests.RequestException as error:
                raise DownloadError(_sentence(part, str(error))) from None
            failures = failures + 1 if part.size <= furthest else 1
            furthest = max(furthest, part.size)
            if failures > len(WAITS):
                raise DownloadError(_sentence(part, reason)) from None
            time.sleep(WAITS[failures - 1])


def _root(error: BaseException) -> BaseException:
    """The first cause of an error, such as "Connection refused"."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _attempt(session: requests.Session, part: _Partial, spare: int) -> None:
    """Request the bytes that are missing once; return when all of them are here."""
    if part.size and part.size == part.header["total"]:
        return
    request = dict(headers=part.range_headers(), stream=True, timeout=TIMEOUT)
    with session.get(part.url, **request) as response:
        status = response.status_code
        if status == 416 or (status == 206 and not part.continued_by(response)):
            part.drop()
            raise _Incomplete("the file on the server has changed")
        if not response.ok:
            reason = f"the server answers {status} ({response.reason})"
            raise DownloadError(_sentence(part, reason))
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise DownloadError(_sentence(part, "the server sends a web page, not the file"))
        if status != 206:
            part.start(response)
        total = part.header["total"]
        if lack := lack_of_room(part.path.parent, (total or 0) - part.size + spare):
            raise DownloadError(_sentence(part, lack, MAKE_ROOM))
        _store(part, response)
    if total not in (None, part.size):
        raise _Incomplete(f"only {part.size:,} of {total:,} bytes came")


def _store(part: _Partial, response: requests.Response) -> None:
    """Append the body of a response, each piece at once, so that a later failure loses none."""
    total = part.header["total"]
    shown = dict(desc=part.path.name, unit="B", unit_scale=True, leave=False, disable=None)
    try:
        with part.file.open("ab") as file, tqdm(total=total, initial=part.size, **shown) as bar:
            while chunk := response.raw.read1(CHUNK):
                file.write(chunk)
                file.flush()
                bar.update(len(chunk))
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = amount(shutil.disk_usage(part.path.parent).free)
        missing = amount((total or 0) - part.size)
        reason = f"the disk is full: {missing} more are needed, {free} are free"
        raise DownloadError(_sentence(part, reason, MAKE_ROOM)) from None


def _accept(part: _Partial, check: Callable[[Path], object]) -> None:
    """Give a complete file its name and remember its checksum, or refuse and delete it."""
    sha256, expected = _digest(part.file, "sha256").hex(), remembered(part.path)
    md5 = part.header.get("md5")
    reason = None
    if md5 and md5 != base64.b64encode(_digest(part.file, "md5")).decode():
        reason = "the file is damaged: its md5 is not the one that the server gives"
    elif expected not in (None, sha256):
        reason = f"this is another file than the first time (sha256 {sha256}, before {expected})"
    else:
        try:
            check(part.file)
        except ValueError as error:
            reason = str(error).replace(part.file.name, part.path.name)
    if reason:
        part.drop()
        raise DownloadError(_sentence(part, reason))
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
    if not note.exists():
        return None
    match = re.match(r"[0-9a-f]{64}\b", note.read_text(encoding="utf-8"))
    if not match:
        raise ValueError(f"{note} holds no sha256; delete it.")
    return match[0]


def remember(path: Path, sha256: str) -> None:
    """Write the sha256 of a file beside it."""
    write_text(path.with_name(f"{path.name}.sha256"), f"{sha256}  {path.name}\n")


def verify(file: Path, path: Path | None = None) -> str:
    """The sha256 of a file; ValueError if another one is remembered for `path` (or itself)."""
    path = path or file
    sha256, expected = _digest(file, "sha256").hex(), remembered(path)
    if expected not in (None, sha256):
        raise ValueError(
            f"{file} is not the file of the first download: its sha256 is {sha256}, remembered is "
            f"{expected}. Delete it to download it again, or delete {path.name}.sha256 beside it "
            "if you trust it."
        )
    return sha256


def _digest(file: Path, algorithm: str) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).digest()


def by_hand(files: Sequence[tuple[int, str, Path]]) -> str:
    """Instructions for a machine without network: (bytes, address, place) of every file."""
    lines = [f"  {amount(size):>7}  {url}\n{'':11}to {place}" for size, url, place in files]
    return "\n".join(["Download these files elsewhere, and copy each to its place:", *lines])


def amount(size: float) -> str:
    """A number of bytes for people: 1.4 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}"
        size /= 1000


def lack_of_room(folder: Path, size: int) -> str | None:
    """Why `size` bytes do not fit into a folder, None if they do."""
    free = shutil.disk_usage(folder).free
    if free >= size:
        return None
    return f"{amount(size)} are needed in {folder}, {amount(free)} are free"


def _resume_note(part: _Partial) -> str:
    if not part.resumable:
        return ""
    return f" {part.file} keeps the {amount(part.size)} received; the next attempt resumes there."


def _sentence(part: _Partial, reason: str, advice: str = "") -> str:
    advice = advice or f"Try again later, or download it elsewhere and put it at {part.path}."
    return f"{part.url}: {reason}.{_resume_note(part)} {advice}"


def hub_file(reference: str) -> Path:
    """The local path of hf://user/repo[@revision][/file], downloaded if it is not here.

    Without a file it is model.safetensors, and the repository's config.json, if it has one, is
    downloaded beside it. Raises ValueError for another address, DownloadError on failure.
    """
    match = HUB_ADDRESS.fullmatch(reference)
    if not match:
        raise ValueError(f"{reference!r} is no address like hf://user/repo[@revision][/file].")
    from huggingface_hub import errors, hf_hub_download

    repository, revision, file = match.groups()
    try:
        path = Path(hf_hub_download(repository, file or HUB_WEIGHTS, revision=revision))
        if not file:
            with contextlib.suppress(errors.EntryNotFoundError, errors.LocalEntryNotFoundError):
                hf_hub_download(repository, "config.json", revision=revision)
    except errors.HFValidationError as error:
        raise ValueError(f"{reference} is no name of the hub: {_first_line(error)}.") from None
    except Exception as error:  # the hub's own, its HTTP library's and the system's
        file, reason = file or HUB_WEIGHTS, _hub_reason(error, file or HUB_WEIGHTS)
        raise DownloadError(
            f"{reference}: {reason}. Check the name, or download {file} elsewhere and give its "
            "path."
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
    }
    return next((x for kind, x in reasons.items() if isinstance(error, kind)), _first_line(error))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".: ")
