"""Training in a notebook: live curves, and a stop button that keeps the state."""

import base64
import io
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

pytestmark = pytest.mark.usefixtures("compiled_quickly")

HERE = Path(__file__).parent
FIT = """
import os, signal, sys
sys.path.insert(0, {here!r})
import runner
from mbt_lite.train import fit, loop

experiment = runner.experiment(steps=6, save_every=100)
"""
STOPPED = """
step = loop.Meter.add
def press_stop_at_three(meter, metrics, finite):
    step(meter, metrics, finite)
    if meter.steps == 1 and len(pressed) < 3:
        pressed.append(1)
        if len(pressed) == 3:
            os.kill(os.getpid(), signal.SIGINT)  # what Jupyter sends
pressed, loop.Meter.add = [], press_stop_at_three
run = fit(experiment, {folder!r}, quiet=True)
loop.Meter.add = step
print("finished", run.finished, "at", run.records[-1]["step"])
"""
AGAIN = """
run = fit(experiment, {folder!r}, quiet=True)
print("finished", run.finished, "at", run.records[-1]["step"])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_curves_are_drawn_live_and_the_stop_button_keeps_the_state(tmp_path):
    cells = [
        nbformat.v4.new_code_cell(text.format(here=str(HERE), folder=str(tmp_path / "run")))
        for text in (FIT, STOPPED, AGAIN)
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    kernel = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=240, resources=kernel, kernel_name="python3").execute()
    printed = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
    assert (
        re.search("finished False at [345]", printed[1]) and "finished True at 6" in printed[2]
    ), printed
    for cell in notebook.cells[1:]:
        images = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
        assert len(images) == 1  # drawn anew in its place, not one below the other
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[0]))))
        assert pixels.shape[1] > 600 and pixels.std() > 5


def test_outside_notebooks_nothing_is_drawn():
    from mbt_lite.train.logger import live_plot

    assert "ipykernel.kernelapp" not in sys.modules and live_plot() is None
