"""`mbt-lite demo`: start the web demo."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import tyro

from mbt_lite.cli.options import Debug, Model


@dataclass(frozen=True)
class Demo:
    """Start the demo: ask a model about a video in the browser, and look inside it.

    Programs have an API, which the page's footer describes; where gradio[mcp] is installed, the
    demo is an MCP server, too.
    """

    example: ClassVar[str] = "mbt-lite demo --model as500k-rgb-spec"

    model: Model = field(default_factory=lambda: os.environ.get("MBT_MODEL", "world-tiny"))
    port: int | None = None
    """Instead of the first free one from 7860 on."""
    share: bool = False
    """A public address for three days, through gradio.live."""
    password: str | None = None
    """Ask visitors for this password; any user name will do."""
    debug: Debug = False

    def page(self):
        """The `mbt_lite.demo.Page` with these options; ValueError where Gradio is missing."""
        try:
            from mbt_lite.demo import start
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise ValueError(str(error)) from None
        return start(self.model, self.port, self.share, self.password)

    def run(self) -> int:
        page = self.page()
        from mbt_lite.demo import end_tidily

        end_tidily()
        page.launch()
        return 0


def page(arguments: Sequence[str]):
    """The page that app.py's arguments ask for; it exits with a sentence where there is none."""
    made = tyro.cli(Demo, args=arguments, prog="app.py", description=Demo.__doc__)
    try:
        return made.page()
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")
