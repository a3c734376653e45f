"""Launch options, colors and error messages of the page."""

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path

import gradio as gr

from mbt_lite.demo.samples import folder
from mbt_lite.media import MediaError
from mbt_lite.plot import COLORS

HERE = Path(__file__).parent
HUES = "".join(f"--{name}: {COLORS[name]};" for name in ("both", "spec", "rgb"))
CSS = f":root {{{HUES}}}\n{(HERE / 'style.css').read_text('utf-8')}"
SCRIPT = (HERE / "player.js").read_text("utf-8")
MODEL_RUN = {"concurrency_limit": 1, "concurrency_id": "model"}  # one at a time
PRIVATE = {"api_visibility": "private"}
NO_PROGRESS = {"show_progress": "hidden", **PRIVATE}


class Page(gr.Blocks):
    """Blocks with the page's look and limits, whoever launches them: app.py or `gradio app.py`."""

    options: dict = {}

    def launch(self, *args, **options):
        """As `gr.Blocks.launch`; `options` override `self.options`, and those the defaults."""
        defaults = {
            "theme": theme(),
            "css": CSS,
            "head": f"<script>{SCRIPT}</script>",
            "footer_links": ["api", "settings"],
            "run_history": False,
            "allowed_paths": [str(folder())],
            "max_file_size": "200mb",
            "state_session_capacity": 100,
            "enable_monitoring": False,
            "mcp_server": find_spec("mcp") is not None,
            "_frontend": False,  # no second look at the page: on a busy machine 3 s end too soon
        }
        return super().launch(*args, **{**defaults, **self.options, **options})


def theme() -> gr.themes.Base:
    """Gradio's default theme with more contrast and the fonts of the reader's machine."""
    default = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
    return default.set(
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_600",
        color_accent="*primary_600",
        color_accent_soft="*primary_100",
    )


def show_errors(work: Callable) -> Callable:
    """Wrap `work` so that the page shows its errors about a file or a model in one sentence."""

    @wraps(work)
    def safe(*args, **options):
        try:
            return work(*args, **options)
        except (MediaError, ValueError, OSError) as error:
            raise gr.Error(str(error), title="No answer", print_exception=False) from None

    return safe
