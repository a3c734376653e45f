"""The tab Look: importance, attention and flow as pages that need no server.

Each holds its maps, frames and sound; its pickers never run the model or read the file again.
"""

from html import escape

from mbt_lite import explain
from mbt_lite.demo.engine import Asked, Engine, Progress, silent
from mbt_lite.demo.markup import hint
from mbt_lite.explain import html

KINDS = {
    "importance": ("Importance", "what the answer rests on"),
    "attention": ("Attention", "where the bottleneck tokens look, layer by layer"),
    "flow": ("Flow", "what passes between sound and picture"),
}
FIRST = next(iter(KINDS))
NOTHING = hint(
    "Choose a clip in the tab Ask first; then you can look at what the model read of it."
)


def look(engine: Engine, asked: Asked, first: str = FIRST, progress: Progress = silent) -> str:
    """Pickers and all three pages, of which `first` is shown."""
    made = []
    for i, kind in enumerate(KINDS):
        progress((i + 0.5) / len(KINDS), desc=f"{KINDS[kind][0]}: {KINDS[kind][1]}")
        made.append(_frame(kind, _page(kind, engine, asked)))
    buttons = "".join(
        f'<label><input type="radio" name="look" value="{kind}"{" checked" * (kind == first)}>'
        f"<span><b>{name}</b> {words}</span></label>"
        for kind, (name, words) in KINDS.items()
    )
    title = f"What the model read of {escape(asked.title)}"
    choice = f'<fieldset class="kinds"><legend>{title}</legend>{buttons}</fieldset>'
    return f'<div class="look">{choice}{"".join(made)}</div>'


def _page(kind: str, engine: Engine, asked: Asked) -> str:
    if kind == "attention":
        return html.attention(engine.classifier, asked.view).page()
    if kind == "importance":
        methods = ("occlusion", "gradient", "rollout") if engine.is_small else ("rollout",)
        return html.importance(engine.classifier, asked.view, methods, asked.label).page()
    flow = explain.flow(engine.classifier, asked.view, asked.label, effects=engine.is_small)
    return html.flow_page(flow)


def _frame(kind: str, document: str) -> str:
    name, words = KINDS[kind]
    return (
        f'<fitted-page class="{kind}"><iframe title="{name}: {words}"'
        f' srcdoc="{escape(document)}"></iframe></fitted-page>'
    )
