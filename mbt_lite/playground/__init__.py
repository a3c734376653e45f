"""The playground: models run in the browser, on pages that need no network.

`write` assembles a folder for any static host, `server` serves one on this machine.
"""

import csv
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfile

from mbt_lite import checkpoints
from mbt_lite.configs import fusion_grid

STATIC = Path(__file__).parent / "static"
WEIGHTS = Path(__file__).parents[1] / "weights"
EVERYDAY = "everyday"  # answers camera and microphone, if it is embedded


def write(folder: str | Path) -> Path:
    """Write the pages and the models that they run into a folder; return it.

    The weights are rounded to bfloat16, so that the pages load in half of the time.
    """
    folder = Path(folder)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for file in STATIC.iterdir():
        copyfile(file, folder / file.name)
    models = ["world-tiny", *filter(_is_embedded, [EVERYDAY])]
    for name in models:
        target = folder / "models" / f"{name}.safetensors"
        checkpoints.convert(WEIGHTS / target.name, target, dtype="bfloat16")
    grid = _grid()
    for model in grid:
        name = f"{model['name']}.safetensors"
        copyfile(WEIGHTS / "grid" / name, folder / "models" / name)
    listed = {"live": models[-1], "grid": grid}
    (folder / "models.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return folder


def _is_embedded(name: str) -> bool:
    return (WEIGHTS / f"{name}.safetensors").is_file()


def _grid() -> list[dict]:
    """Name, description and score of the grid's models, by bottlenecks and by fusion layer.

    The score is that of the model itself, the run of seed 0.
    """
    with (WEIGHTS / "grid" / "sweep.csv").open(encoding="utf-8", newline="") as file:
        scores = {
            (row["group"], row["variant"]): float(row["seeds"].split()[0])
            for row in csv.DictReader(file)
        }
    models = {}
    for group in ("bottlenecks", "fusion layer"):
        for variant, experiment in fusion_grid.grid()[group].items():
            config = experiment.model
            words = f"B = {config.bottlenecks}, L_f = {config.fusion_layer}"
            if config.fusion == "late":
                words = "no bottleneck"
            models[experiment.name] = {"words": words, "score": scores[group, variant]}
    return [{"name": name, **about} for name, about in models.items()]


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
