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

    Programs have an API, which the page's footer describes. If gradio[mcp] is installed, the demo
    is an MCP server, too.
    """

    example: ClassVar[str] = "mbt-lite demo --model as500k-rgb-spec"

    model: Model = field(default_factory=lambda: os.environ.get("MBT_MODEL", "world-tiny"))
    port: int | None = None
    """Port of the page; the first free one from 7860 on by default."""
    share: bool = False
    """Give the page a public address for three days, through gradio.live."""
    password: str | None = None
    """Ask visitors for this password; any user name will do."""
    debug: Debug = False

    def page(self):
        """Build the `mbt_lite.demo.theme.Page`; ValueError where Gradio is missing."""
        try:
            from mbt_lite.demo.page import start
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise ValueError(str(error)) from None
        return start(self.model, self.port, self.share, self.password)

    def run(self) -> int:
        page = self.page()
        from mbt_lite.demo.page import exit_on_sigterm

        exit_on_sigterm()
        page.launch()
        return 0


def page(arguments: Sequence[str]):
    """Build the page from the arguments of app.py; exit with a sentence where that fails."""
    options = tyro.cli(Demo, args=arguments, prog="app.py", description=Demo.__doc__)
    try:
        return options.page()
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")
