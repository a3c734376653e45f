"""A local web server that gives a list of answers, good and faulty ones, one per request."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        with server.lock:
            server.requests.append((self.path, dict(self.headers)))
            answers = server.answers[self.path]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        with contextlib.suppress(ConnectionError):  # the client may have hung up
            answer(self)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

    def head(self, status: int, **headers) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)
            self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}  # the last one of a path is repeated
        self.requests: list[tuple[str, dict]] = []
        self.lock, self.over = threading.Lock(), threading.Event()

    def url(self, path: str, *answers: Answer) -> str:
        """Set the answers to the requests for a file, and return its address."""
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, *_):
        pass


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def good(data: bytes, honest: bool = True, **headers) -> Answer:
    """The file or the requested range; if not `honest`, If-Range is ignored."""

    def answer(request: Handler) -> None:
        range_start = re.fullmatch(r"bytes=(\d+)-", request.headers["Range"] or "")
        only_if = request.headers["If-Range"]
        same = not only_if or only_if in (headers.get("ETag"), headers.get("Last_Modified"))
        if not range_start or (honest and not same):
            request.head(200, Content_Length=len(data), **headers)
            return request.body(data)
        start = int(range_start[1])
        if start >= len(data):
            return request.head(416, Content_Range=f"bytes */{len(data)}")
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        request.head(206, Content_Length=len(data) - start, Content_Range=content_range, **headers)
        request.body(data[start:])

    return answer


def deaf(data: bytes, length: int | None = None, sent: int | None = None, **headers) -> Answer:
    """The file from its first byte, without ranges; claims `length` bytes, sends `sent`."""

    def answer(request: Handler) -> None:
        request.head(200, Content_Length=len(data) if length is None else length, **headers)
        request.body(data[:sent])

    return answer


def cut(data: bytes, at: int, **headers) -> Answer:
    """Nothing after so many bytes."""
    return deaf(data, sent=at, **headers)


def stall(data: bytes, at: int, **headers) -> Answer:
    """Silence after so many bytes, until the server is shut down."""

    def answer(request: Handler) -> None:
        cut(data, at, **headers)(request)
        request.server.over.wait(60)

    return answer


def endless(data: bytes, **headers) -> Answer:
    """A file without Content-Length; it ends with the connection."""

    def answer(request: Handler) -> None:
        request.head(200, **headers)
        request.body(data)

    return answer


def status(code: int, **headers) -> Answer:
    return lambda request: request.head(code, Content_Length=0, **headers)


def page(kind: str = "text/html") -> Answer:
    """A web page instead of the file, such as the login page of a hotel's network."""
    text = b"<!DOCTYPE html><html><body>Please sign in.</body></html>"
    return deaf(text, Content_Type=kind)
