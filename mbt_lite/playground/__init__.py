"""The playground: models run in the browser, on pages that need no network.

`write` assembles a folder for any static host, `server` serves one on this machine.
"""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfile

from mbt_lite import checkpoints

STATIC = Path(__file__).parent / "static"
WEIGHTS = Path(__file__).parents[1] / "weights"


def write(folder: str | Path) -> Path:
    """Write the pages and the models that they run into a folder; return it.

    The weights are rounded to bfloat16, so that the pages load in half of the time. Camera and
    microphone are answered by the model `everyday` if it is embedded.
    """
    folder = Path(folder)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for file in STATIC.iterdir():
        copyfile(file, folder / file.name)
    listed = json.loads((STATIC / "models.json").read_text(encoding="utf-8"))
    embedded = (WEIGHTS / "everyday.safetensors").is_file()
    listed["live"] = "everyday" if embedded else "world-tiny"
    (folder / "models.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    for name in {"world-tiny", listed["live"]}:
        target = folder / "models" / f"{name}.safetensors"
        checkpoints.convert(WEIGHTS / target.name, target, dtype="bfloat16")
    for name in {name for group in listed["grid"].values() for name in group.values()}:
        copyfile(
            WEIGHTS / "grid" / f"{name}.safetensors", folder / "models" / f"{name}.safetensors"
        )
    return folder


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # a machine's own table may say otherwise
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".safetensors": "application/octet-stream",
    }

    def log_message(self, *_):
        """Log nothing."""


def server(folder: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of a folder for this machine only; port 0 is a free one."""
    handler = partial(_Handler, directory=str(folder))
    return ThreadingHTTPServer(("127.0.0.1", port), handler)
