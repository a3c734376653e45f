"""Style and limits of the page: colors, size limits, errors in one sentence."""

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path

import gradio as gr

from mbt_lite.demo.samples import folder
from mbt_lite.media import MediaError
from mbt_lite.plot import COLOURS

HERE = Path(__file__).parent
HUES = "".join(f"--{name}: {COLOURS[name]};" for name in ("both", "spec", "rgb"))
CSS = f":root {{{HUES}}}\n{(HERE / 'style.css').read_text('utf-8')}"
SCRIPT = (HERE / "player.js").read_text("utf-8")
MODEL_RUN = {"concurrency_limit": 1, "concurrency_id": "model"}  # one at a time
PRIVATE = {"api_visibility": "private"}
NO_PROGRESS = {"show_progress": "hidden", **PRIVATE}


class Page(gr.Blocks):
    """Blocks that are launched with their looks, bounds and manners, whoever launches them."""

    given: dict = {}

    def launch(self, *args, **options):
        """As `gr.Blocks.launch`; what is named here goes before what the page has by itself."""
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
        }
        return super().launch(*args, **{**defaults, **self.given, **options})


def theme() -> gr.themes.Base:
    """Gradio's own, with more contrast and the letters that the reader's machine has."""
    quiet = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
    return quiet.set(
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_600",
        color_accent="*primary_600",
        color_accent_soft="*primary_100",
    )


def show_errors(work: Callable) -> Callable:
    """`work` whose errors about a file or a model are told in one sentence."""

    @wraps(work)
    def safe(*args, **named):
        try:
            return work(*args, **named)
        except (MediaError, ValueError, OSError) as error:
            raise gr.Error(str(error), title="No answer", print_exception=False) from None

    return safe
