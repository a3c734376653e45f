"""The demo: a web page to ask a model about a clip, to look inside it, and to change the clip.

    from mbt_lite.demo.page import start

    page = start("as500k-rgb-spec")  # its model loaded and compiled
    page.launch()

page.py starts it and holds the four tabs and the API; play.py is the content of Play;
model_bar.py and switch.py change the model; player.py and markup.py draw; theme.py has colors and
launch options; engine.py asks the model; sandbox.py reads uploaded files in a process of its own;
samples.py has the sample clips.
"""

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec

if find_spec("gradio") is None:
    raise ModuleNotFoundError(
        'the demo needs Gradio; install it with: pip install "mbt-lite[demo]"', name="gradio"
    )

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
if "GRADIO_TEMP_DIR" not in os.environ:  # uploads: readable by this user only, gone at the end
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="mbt_lite_")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
