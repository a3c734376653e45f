"""The demo: one page on which a person asks a model, looks inside it, and plays with it.

    from mbt_lite.demo import start

    demo = start("as500k-rgb-spec")  # a page, its model loaded and compiled
    demo.launch()                                 # with its looks, its bounds and its manners

start.py begins it, engine.py reads files and asks the model, player.py and markup.py
draw, look.py, play.py, quiz.py and about.py fill the tabs, page.py puts them together, api.py is
for programs, manners.py has the looks and bounds of everything.
"""

import atexit
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec

if find_spec("gradio") is None:
    MISSING = 'the demo needs Gradio; install it with: pip install "mbt-lite[demo]"'
    if sys.argv[:1] == ["-m"]:  # python -m mbt_lite.demo
        sys.exit(f"mbt-lite: {MISSING}")
    raise ModuleNotFoundError(MISSING, name="gradio")

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
if "GRADIO_TEMP_DIR" not in os.environ:  # uploads: readable by this user only, gone at the end
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="mbt_lite_")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

from mbt_lite.demo.manners import CSS, Page
from mbt_lite.demo.start import end_tidily, start

__all__ = ["CSS", "Page", "end_tidily", "start"]
