"""The demo: `python app.py [--model NAME|PATH]`, then open http://127.0.0.1:7860.

A person gives a video and sees what the model makes of picture and sound, and what passes between
the two. Programs ask `gradio_client.Client(url).predict(handle_file(path), api_name="/predict")`.
The environment variable MBT_MODEL names another model too, GRADIO_SERVER_PORT another port.
"""

import argparse
import atexit
import base64
import csv
import io
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from html import escape
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
if "GRADIO_TEMP_DIR" not in os.environ:  # uploads: readable by this user only, gone at the end
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="mbt_lite_")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

import gradio as gr
import numpy as np

import mbt_lite as mbt
from mbt_lite import explain, features, media, plot

WIDTH = 4.6  # inches: on a telephone, too, the letters in a picture stay legible
SAMPLES = Path(__file__).resolve().parent / "data_samples"
NAMES = {
    "both": "Sound and picture",
    "sound alone": "Sound alone",
    "picture alone": "Picture alone",
}
LEAD = """<h1>What do you see, what do you hear?</h1><p class="lead">Give this small neural network
a short video with sound, and it names what it sees and hears. It looks and listens separately, then
lets both senses talk through a few slots, the bottleneck; you can watch what goes through. Nothing
leaves your computer.</p>"""
HINT = """<p class="small">Up to 200 MB, in any format, even one that the browser cannot play. The
model takes the middle of a long video.</p>"""
BOTTLENECK = """<h2>What is a bottleneck?</h2>
<svg class="bottleneck" viewBox="0 0 520 200" role="img" aria-label="Picture and sound pass through
 layers side by side; later layers are joined by a few slots between them.">
<path d="M80 47H520M80 157H520M284 102L325 64M284 102L325 140M357 64L404 102L445 64M357 140L404
102L445 140"/><g fill="#0072b2"><rect x="95" y="30"/><rect x="205" y="30"/><rect x="315" y="30"/>
<rect x="425" y="30"/></g><g fill="#d55e00"><rect x="95" y="140"/><rect x="205" y="140"/>
<rect x="315" y="140"/><rect x="425" y="140"/></g><g fill="#7c89b8"><circle cx="284" cy="102"/>
<circle cx="404" cy="102"/></g><text y="54">picture</text><text y="164">sound</text>
<text x="165" y="109">bottleneck</text></svg>
<p>Picture and sound are cut into small patches. In the first layers each side is by itself; later
they may talk, but only through a few slots: each side writes there what it found, and reads what
the other side wrote. So only little gets through. This model has {depth} layers, numbered from 0,
and {bottlenecks} slots from layer {fusion_layer} on; what the slots read in the last layer nobody
reads any more, so it is not shown.</p>"""
CSS = """
.fillable.app {max-width: 980px !important}
.lead {font-size: 1.1em; max-width: 46em; line-height: 1.5}
.grid {display: grid; gap: 20px 28px; margin: 6px 0 16px}
.grid {grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--narrowest)), 1fr))}
.panel h3 {margin: 0 0 8px; padding-bottom: 4px; border-bottom: 3px solid var(--hue)}
.panel ol {list-style: none; margin: 0; padding: 0}
.panel li {margin: 0 0 9px; display: flex; flex-wrap: wrap; justify-content: space-between}
.panel li.likely {font-weight: 600}
.panel u {flex: 0 0 100%; height: 7px; border-radius: 4px; background: var(--border-color-primary)}
.panel i {display: block; height: 100%; border-radius: 4px; background: var(--hue)}
figure {margin: 0} figure img {width: 100%; border-radius: 8px}
figcaption, .small {font-size: .92em; line-height: 1.45; opacity: .8}
.notes {padding: 2px 16px; border-left: 3px solid var(--color-accent); align-self: start}
.notes ul {padding-left: 1.1em; list-style: disc}
.bottleneck {width: 100%; max-width: 560px; display: block; margin: 8px auto}
.bottleneck text {fill: var(--body-text-color); font-size: 20px}
.bottleneck path {stroke: var(--body-text-color); stroke-width: 1.5; opacity: .6; fill: none}
.bottleneck rect {width: 52px; height: 34px; rx: 7px}
.bottleneck circle {r: 10px}
#samples .grid-wrap {padding-top: 40px}
button[aria-label^=Trim] {display: none} /* it would fetch a program from the network */
"""


def ready(model: str) -> tuple[mbt.Classifier, tuple[int, ...]]:
    """A classifier that is compiled, and its layers with a bottleneck; exits with a sentence."""
    print(f"Loading and compiling {model}: some seconds ...", file=sys.stderr, flush=True)
    try:
        loaded = mbt.load(model)
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")
    config = loaded.config
    if len(config.streams) < 2 or config.fusion != "bottleneck":
        sys.exit(f"app.py: {model} has no bottleneck between sound and picture to show.")
    shapes = (*config.rgb_shape, 3), (*config.spec_shape, 3)
    empty = mbt.Clip(*(np.zeros(shape, np.float32) for shape in shapes))
    loaded.predict(empty)
    return loaded, loaded.attention(empty).layers


def read(path: str | None) -> features.View:
    """The middle of a file; what cannot be used is told in one sentence."""
    try:
        if not path:
            raise media.MediaError("Choose a sample or a video first.")
        view = features.read_views(path, classifier.clip_config)[0]
        if not (view.rgb.any() or view.wave.any()):
            raise media.MediaError(f"{path} shows nothing but black and is silent; try another.")
        return view
    except media.MediaError as error:
        sentence = str(error).replace(str(path), Path(path or "").name)
        raise gr.Error(sentence, title="No answer", print_exception=False) from None


def answers(view: features.View) -> dict[str, dict[str, float]]:
    """Probabilities by label: of both streams, and of each in which there is anything, alone."""
    prediction = classifier.predict(view.clip)
    found = {"both": prediction}
    if view.wave.any():
        found["sound alone"] = prediction.streams["spec"]
    if view.rgb.any():
        found["picture alone"] = prediction.streams["rgb"]
    return {name: dict(one.top(len(one.labels))) for name, one in found.items()}


def predict(video: str) -> dict:
    """Probabilities by label for "both", "sound alone" and "picture alone", "notes", "caution"."""
    view = read(video)
    return {**answers(view), "notes": list(view.notes), "caution": classifier.caution}


def panel(name: str, probabilities: dict[str, float]) -> str:
    """The five most probable labels as bars."""
    rows = "".join(
        f'<li class="{"likely" * (p >= 0.5)}"><span>{escape(label)}</span>'
        f"<span>{'< 1' if p < 0.005 else round(100 * p)} %</span>"
        f'<u><i style="width:{p:.1%}"></i></u></li>'
        for label, p in list(probabilities.items())[:5]
    )
    hue = f"--hue:{plot.COLOURS[name]}"
    return f'<section class="panel" style="{hue}"><h3>{NAMES[name]}</h3><ol>{rows}</ol></section>'


def picture(drawn, height: float, alt: str, caption: str) -> str:
    """A matplotlib figure as an HTML figure, narrow enough for a telephone."""
    drawn.set_size_inches(WIDTH, height)
    png = io.BytesIO()
    drawn.savefig(png, format="png", dpi=200)
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    words = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure><img src="{source}" alt="{escape(alt)}">{words}</figure>'


def grid(parts: list[str], narrowest: int) -> str:
    """Parts side by side where there is room, else below each other."""
    return f'<div class="grid" style="--narrowest:{narrowest}px">{"".join(parts)}</div>'


def report(view: features.View) -> str:
    """The answers, what was heard, and what was unusual about the file."""
    found, front = answers(view), classifier.clip_config.front_end
    if len(found) == 2:  # then both together are that one
        del found["both"]
    end, parts = view.start + classifier.clip_config.sound_seconds, []
    notes = [f"the model looked at seconds {view.start:.1f} to {end:.1f}", *view.notes]
    if "sound alone" in found:
        alt = plot.spectrogram_alt(view.spec, front, view.start)
        ax = plot.spectrogram(view.spec, front, colorbar=False, start=view.start)
        caption = "The sound it heard: time runs to the right, pitch upwards, bright is loud."
        parts.append(picture(ax.figure, 2.4, alt, caption))
    rows = "".join(f"<li>{escape(note)}</li>" for note in notes)
    if classifier.caution:
        rows += f"<li><b>About this model</b>: {escape(classifier.caution)}</li>"
    parts.append(f'<div class="notes"><h3>About this file</h3><ul>{rows}</ul></div>')
    bars = [panel(name, probabilities) for name, probabilities in found.items()]
    return grid(bars, 230) + grid(parts, 380)


def attention(seen: tuple, layer: int, slot: int) -> str:
    """What the bottleneck reads in one layer, by one slot or (-1) by all of them."""
    view, maps = seen
    which = (view, maps, classifier.clip_config, layer, None, None if slot < 0 else slot)
    words, drawn = plot.attention_alt(*which), plot.attention(*which, colorbar=False)
    height = 1.15 * drawn.get_figheight() * WIDTH / drawn.get_figwidth()
    worth = explain.caption(classifier, "attention")
    return picture(drawn, height, words, f"In words: {words}. How far to believe it: {worth}.")


def ask(path: str | None, layer: int, slot: int):
    """The results, now visible, and what is needed to draw another layer."""
    view = read(path)
    maps = classifier.attention(view.clip)
    absent = {s: None for s, x in (("rgb", view.rgb), ("spec", view.wave)) if not x.any()}
    seen = view, replace(maps, **absent)
    return gr.Column(visible=True), report(view), attention(seen, layer, slot), seen


def samples() -> list[tuple[Path, str]]:
    """The clips in data_samples with what is in them, in the order of labels.csv."""
    table = SAMPLES / "labels.csv"
    rows = csv.DictReader(table.read_text("utf-8").splitlines()) if table.is_file() else ()
    words = {row["file"]: row["description"] for row in rows}
    names = [*words, *sorted({path.name for path in SAMPLES.glob("*.mp4")} - set(words))]
    clips = [(SAMPLES / name, words.get(name, "no description")) for name in names]
    return [(clip, description) for clip, description in clips if clip.is_file()]


def poster(clip: Path) -> tuple[np.ndarray, str]:
    """A frame out of the middle of a clip, and its name."""
    frames = media.read(clip, fps=2, short_side=240).frames
    return frames[len(frames) // 2], clip.stem.replace("_", " ")


def source() -> gr.Video:
    """The video input, beside the samples if there are any."""
    clips = samples()
    with gr.Row():
        with gr.Column():
            video = gr.Video(label="Your video", sources=["upload"], height=320)
        with gr.Column(visible=bool(clips)):
            posters = [poster(clip) for clip, _ in clips]
            look = {"columns": 3, "height": 320, "allow_preview": False, "buttons": []}
            gallery = gr.Gallery(posters, label="Or take a sample", elem_id="samples", **look)
    about = gr.HTML(HINT)

    def take(event: gr.SelectData):
        clip, words = clips[event.index]
        return str(clip), f'<p class="small">In this sample: {escape(words)}.</p>'

    gallery.select(take, None, [video, about], show_progress="hidden", api_visibility="private")
    changed = [video.upload, video.clear]
    gr.on(changed, lambda: HINT, None, about, queue=False, api_visibility="private")
    return video


def results() -> tuple:
    """The parts that `ask` fills: column, report, pickers, maps."""
    with gr.Column(visible=False) as column:
        found = gr.HTML()
        gr.HTML("<h2>What goes through the bottleneck</h2>")
        slots = [(f"slot {i}", i) for i in range(classifier.config.bottlenecks)]
        with gr.Row():
            with gr.Column(scale=1, min_width=240):
                gr.HTML("Where it shines, the slots read much. Look at another layer or slot:")
                numbers = [(f"layer {number}", i) for i, number in enumerate(layers)]
                layer = gr.Radio(numbers, value=len(layers) - 1, label="Layer")
                slot = gr.Radio([("all slots", -1), *slots], value=-1, label="Slot")
            with gr.Column(scale=2, min_width=320):
                maps = gr.HTML(elem_id="maps")
    return column, found, layer, slot, maps


def page() -> gr.Blocks:
    """The whole page; its public endpoint is /predict."""
    own = {"api_visibility": "private"}
    one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}
    with gr.Blocks(title="mbt_lite", delete_cache=(3600, 3600)) as blocks:
        gr.HTML(LEAD)
        video = source()
        button = gr.Button("Ask", variant="primary", size="lg")
        column, found, layer, slot, maps = results()
        gr.HTML(BOTTLENECK.format_map(vars(classifier.config)))
        with gr.Accordion(f"The {len(classifier.labels)} things this model can name", open=False):
            gr.HTML(
                f"<p>{escape(', '.join(classifier.labels))}</p><p>It knows nothing else: of any "
                "other video it tells what comes closest.</p>"
            )
        seen = gr.State(time_to_live=3600)
        outputs = [column, found, maps, seen]
        button.click(ask, [video, layer, slot], outputs, **one_at_a_time, **own)
        redraw = {"show_progress": "hidden", "trigger_mode": "always_last", **own}
        gr.on([layer.input, slot.input], attention, [seen, layer, slot], maps, **redraw)
        hide = {"queue": False, "show_progress": "hidden", **own}
        video.change(lambda: gr.Column(visible=False), None, column, **hide)
        endpoint, answer = gr.Button(visible=False), gr.JSON(visible=False)
        endpoint.click(predict, video, answer, api_name="predict", **one_at_a_time)
    return blocks.queue(max_size=20)


def options() -> argparse.Namespace:
    """What the command line says, or MBT_MODEL, or the embedded model."""
    parser = argparse.ArgumentParser(description="What a model sees and hears, in the browser.")
    default = os.environ.get("MBT_MODEL", "world-tiny")
    parser.add_argument("--model", default=default, help="a name or a path (default: %(default)s)")
    return parser.parse_args(None if __name__ == "__main__" else [])


classifier, layers = ready(options().model)
demo = page()

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the uploads go then, too
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="slate")
    look = {"theme": theme, "css": CSS, "footer_links": ["api", "settings"], "run_history": False}
    bounds = {"max_file_size": "200mb", "state_session_capacity": 100}
    demo.launch(allowed_paths=[str(SAMPLES)], **look, **bounds)
