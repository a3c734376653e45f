"""The line above the tabs: which model answers, and for the owner a button to change it."""

from collections.abc import Callable, Mapping
from html import escape

import gradio as gr

from mbt_lite.config import BASE
from mbt_lite.data import world
from mbt_lite.demo.engine import Engine
from mbt_lite.demo.markup import bar
from mbt_lite.demo.switch import ModelSwitch
from mbt_lite.demo.theme import NO_PROGRESS, Page

Renewed = Mapping[gr.blocks.Block, Callable[[Engine], object]]  # what a change renews on the page


def model_bar(page: Page, switch: ModelSwitch, renewed: Renewed) -> None:
    """Add the line and its events; while a change goes on, the page looks every second."""
    with gr.Row(elem_id="model"):
        line = gr.HTML(_line(switch.engine))
        change = gr.Button(visible=False, size="sm")
        stop = gr.Button("Stop the download", visible=False, size="sm")
    status, timer = gr.HTML(visible=False, elem_id="change"), gr.Timer(1, active=False)
    shown = gr.State(switch.engine.name)

    def look(name: str, request: gr.Request, act: Callable = lambda: None):
        is_owner = is_for_the_owner(page, request)
        if is_owner:
            act()
        busy, engine, offer = switch.busy, switch.engine, switch.offer
        text, share = switch.progress()
        return [
            _line(engine),
            gr.Button(offer, visible=is_owner and bool(offer) and not busy),
            gr.Button(visible=is_owner and switch.downloading),
            gr.HTML(_status(text, share), visible=is_owner and bool(text)),
            gr.Timer(active=is_owner and busy),
            engine.name,
            *(gr.skip() if name == engine.name else renew(engine) for renew in renewed.values()),
        ]

    def start(name: str, request: gr.Request):
        return look(name, request, switch.start)

    def end(name: str, request: gr.Request):
        return look(name, request, switch.stop)

    outputs = [line, change, stop, status, timer, shown, *renewed]
    events = {page.load: look, timer.tick: look, change.click: start, stop.click: end}
    for event, work in events.items():
        event(work, shown, outputs, **NO_PROGRESS)


def is_for_the_owner(page: Page, request: gr.Request) -> bool:
    """Whether the page is served on this machine alone, so that its visitor owns the server."""
    shared = page.share or page.auth or page.space_id or "x-forwarded-for" in request.headers
    return not shared and getattr(page, "server_name", "") in ("127.0.0.1", "localhost", "::1")


def _line(engine: Engine) -> str:
    """The name of the model, and what it knows."""
    labels = engine.classifier.labels
    if set(world.LABELS) <= set(labels):
        known = "generated clips of shapes that sing"
    elif len(labels) == BASE.classes:
        known = f"real videos, by AudioSet's {len(labels)} names"
    else:
        known = f"{len(labels)} things, such as {', '.join(labels[:3])}"
    return f"<p><b>{escape(engine.name)}</b> answers: it knows {escape(known)}</p>"


def _status(text: str, share: float | None) -> str:
    """What a change of the model does, or how it ended."""
    return f'<p role="status">{escape(text)}</p>{"" if share is None else bar(share)}'
