"""`mbt-lite playground`: models that run in the browser."""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class Playground:
    """Serve the playground: bend a pitch, and watch a model change its mind, in the browser.

    The models run in the page itself; nothing is sent anywhere.
    """

    example: ClassVar[str] = "mbt-lite playground"

    out: Path | None = None
    """Write the pages into this folder, for any static host, instead of serving them."""
    port: int = 8765
    """Port of the pages on this machine; 0: a free one."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import playground

        if self.out:
            print(playground.write(self.out))
            return 0
        with tempfile.TemporaryDirectory() as folder:
            playground.write(folder)
            try:
                server = playground.server(folder, self.port)
            except OSError as error:
                sentence = f"port {self.port} cannot be used ({error.strerror}); try --port 0."
                raise ValueError(sentence) from None
            with server, contextlib.suppress(KeyboardInterrupt):
                print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
                server.serve_forever()
        return 0
