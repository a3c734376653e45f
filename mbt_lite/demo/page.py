"""The page: start it, its five tabs, and what happens when a person or a program uses it."""

import atexit
import hmac
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import gradio as gr

from mbt_lite import explain, paths, playground
from mbt_lite.config import UNFAMILIAR
from mbt_lite.demo import markup, play
from mbt_lite.demo.engine import AnsweredClip, Engine, title_of
from mbt_lite.demo.model_bar import Renewed, model_bar
from mbt_lite.demo.player import player
from mbt_lite.demo.samples import Sample, cards, samples
from mbt_lite.demo.switch import ModelSwitch
from mbt_lite.demo.theme import MODEL_RUN, NO_PROGRESS, PRIVATE, Page, show_errors
from mbt_lite.explain import html
from mbt_lite.model.label_heads import in_words
from mbt_lite.progress import Progress, bar

LEAD = """<h1>What do you see, what do you hear?</h1><p class="lead">This network names what is in
a short video with sound. It looks and listens separately; only a few tokens, the bottleneck, join
the two.</p>"""
PRIVACY = """<p class="small">Up to 200 MB, of any kind; of a long one, five places. It goes only to
the computer that runs this page, and is deleted there within two hours. The samples are drawn and
synthesized by mbt_lite (CC0 1.0).</p>"""
NO_ANSWER = markup.hint(
    "Choose a sample, drop a video of your own, or record one: the answer comes here."
)
NO_MAPS = markup.hint(
    "Choose a clip in the tab Ask first; then you can look at what the model read of it."
)
PICK = """element.addEventListener("click", (event) => {
  const card = event.target.closest(".sample");
  if (card) trigger("select", { index: Number(card.dataset.index) });
});"""
SCROLL = """() => { // where the answer would be out of sight
  const answer = document.querySelector("#answer"), { top } = answer.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 3) answer.scrollIntoView();
}"""
MAPS = {
    "importance": ("Importance", "what the answer rests on"),
    "attention": ("Attention", "where the bottleneck tokens look, layer by layer"),
    "flow": ("Flow", "what passes between sound and picture"),
}
LABELS = 8  # to choose from, of what the maps explain
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}, "audio": True}


# ---- the start ----


def start(
    model: str = "world-tiny",
    port: int | None = None,
    share: bool = False,
    password: str | None = None,
) -> Page:
    """Load and compile a model and build its page; ValueError or OSError where that fails.

    Under `gradio app.py` this runs again after each change of the code, without the main module
    that starting a process needs.
    """
    sys.modules.setdefault("__main__", ModuleType("__main__"))
    print(f"Loading and compiling {model}: up to half a minute ...", file=sys.stderr)
    paths.keep_compilations(paths.cache_folder() / "compiled")
    engine = Engine(model)
    with bar(model) as progress:
        engine.compile(progress)
    page = build(engine)
    page.options = {"share": share or None, "server_port": port}
    if password:
        page.options["auth"] = password_check(password)
        page.options["auth_message"] = "Any user name will do; the password was given to you."
    return page


def password_check(password: str) -> Callable[[str, str], bool]:
    """A check that accepts every user name with this password."""

    def check(_user: str, entered: str) -> bool:
        return hmac.compare_digest(entered.encode(), password.encode())

    return check


def exit_on_sigterm() -> None:
    """Let SIGTERM end this program as Ctrl-C does, so that the uploads are deleted.

    Under `gradio app.py` the file runs again in a thread, which may not set a signal handler.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())


def build(engine: Engine) -> Page:
    """Build the whole page, with its public endpoints, on a loaded model.

    A visitor who owns the server may change the model: events ask `switch` for the engine, and each
    tab returns its contents that then are renewed, {component: function of the engine}.
    """
    clips, switch = samples(), ModelSwitch(engine)
    with Page(title="mbt_lite", delete_cache=(3600, 3600)) as page:
        answered = gr.State(time_to_live=3600)
        gr.HTML(LEAD)
        top = gr.Column()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Ask"):
                renewed = dict(_ask_tab(switch, answered, clips))
            with gr.Tab("Look") as look:
                renewed |= _look_tab(switch, look, answered)
            with gr.Tab("Play") as playing:
                renewed |= _play_tab(switch, playing, answered, clips)
            with gr.Tab("Playground"):
                _playground_tab()
            with gr.Tab("About"):
                renewed |= _about_tab(engine)
        with top:
            model_bar(page, switch, renewed)
        _endpoints(switch)
    return page.queue(max_size=20)


# ---- Ask ----


def _ask_tab(switch: ModelSwitch, answered: gr.State, clips: list[Sample]) -> Renewed:
    """Where a clip comes from, and beside it the answer.

    `answered` gets the `AnsweredClip`, which the other tabs use.
    """

    def ask(path: str | Path | None, title: str, progress) -> tuple[AnsweredClip, str]:
        engine = switch.engine
        clip = engine.ask(path, title, progress)
        return clip.with_middle_view_only(), _answer_html(engine, clip)

    @show_errors
    def ask_upload(path: str | None, progress=gr.Progress()):  # noqa: B008
        return *ask(path, "", progress), None

    @show_errors
    def ask_recording(path: str | None, progress=gr.Progress()):  # noqa: B008
        return *ask(path, "Your recording", progress), None

    @show_errors
    def ask_sample(event: gr.EventData, progress=gr.Progress()):  # noqa: B008
        return ask(clips[int(event.index)].path, "", progress)

    def sample_cards(engine: Engine) -> str:
        return cards(clips, engine.classifier.labels)

    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="choose"):
            picker = gr.HTML(
                sample_cards(switch.engine),
                elem_id="samples",
                js_on_load=PICK,
                visible=bool(clips),
            )
            video = gr.Video(
                label="Or a clip of your own",
                sources=["upload", "webcam"],  # not the webcam alone: that would call ffmpeg
                webcam_options=gr.WebcamOptions(mirror=False, constraints=CAMERA),
                height=260,
                elem_id="clip",
            )
            gr.HTML(PRIVACY)
        with gr.Column(scale=3, min_width=330):
            answer = gr.HTML(NO_ANSWER, elem_id="answer")
    options = {"show_progress_on": answer, **MODEL_RUN, **PRIVATE}
    picker.select(ask_sample, None, [answered, answer], **options).success(None, js=SCROLL)
    for event, work in ((video.upload, ask_upload), (video.stop_recording, ask_recording)):
        asked = event(work, video, [answered, answer, video], **options)
        asked.success(None, js=SCROLL)
        asked.failure(lambda: None, None, video, **NO_PROGRESS)
    return {picker: sample_cards, answered: lambda _: None, answer: lambda _: NO_ANSWER}


def _answer_html(engine: Engine, clip: AnsweredClip) -> str:
    """The clip in its player, the best labels, and notes on the file and the model."""
    classifier, middle = engine.classifier, clip.windows[len(clip.windows) // 2]
    where = f"seconds {middle.start:.1f} to {middle.end:.1f}"
    lead = f'<p class="small">The five best answers for {where}; the lines below tell the rest.</p>'
    notes = clip.reading.notes or ("Nothing unusual: picture and sound are fit for the model.",)
    limit = f"It can name {len(classifier.labels)} things, which About lists, and knows nothing "
    limit += "else: of any other clip it tells what comes closest, however sure it sounds."
    cautions = [limit, *filter(None, [classifier.caution])]
    warning = markup.warning(f"{UNFAMILIAR}.") if clip.unfamiliar else ""
    lesson = markup.lesson(clip.answers, clip.label)
    beside = warning + lesson + markup.panels(clip.answers) + lead
    figure = markup.bottleneck(classifier.config)
    return (
        f'<h2 class="asked">{escape(clip.title)}</h2>'
        f"{player(clip, classifier.clip_config.front_end, figure, beside)}"
        f"{markup.note('The doctor on this file', markup.bullets(notes))}"
        f"{markup.note('The model', markup.bullets(cautions))}"
    )


# ---- Look ----


def _look_tab(switch: ModelSwitch, tab: gr.Tab, answered: gr.State) -> Renewed:
    """The maps of a clip, made when a person first comes here after an answer."""

    @show_errors
    def show(clip: AnsweredClip | None, drawn: Path | None, progress=gr.Progress()):  # noqa: B008
        if clip is None or drawn == clip.path:
            return gr.skip()
        return draw(clip, progress)

    @show_errors
    def explain_label(clip: AnsweredClip, label: str, progress=gr.Progress()):  # noqa: B008
        return draw(replace(clip, chosen_label=label), progress)

    def draw(clip: AnsweredClip, progress):
        pages = _maps_html(switch.engine_of(clip), clip, progress)
        labels = list(dict.fromkeys([clip.label, *list(clip.answers["both"])[:LABELS]]))
        return pages, clip.path, gr.Dropdown(labels, value=clip.label, visible=True)

    label = gr.Dropdown([], label="The label to explain", visible=False, elem_id="label")
    pages, drawn = gr.HTML(NO_MAPS, elem_id="look"), gr.State()
    options = {"show_progress_on": pages, **MODEL_RUN, **PRIVATE}
    tab.select(show, [answered, drawn], [pages, drawn, label], **options)
    label.input(explain_label, [answered, label], [pages, drawn, label], **options)
    return {
        pages: lambda _: NO_MAPS,
        drawn: lambda _: None,
        label: lambda _: gr.Dropdown(visible=False),
    }


def _maps_html(engine: Engine, clip: AnsweredClip, progress: Progress) -> str:
    """Importance, attention and flow as pages that need no server, with buttons for one of them.

    Each holds its maps, frames and audio; its pickers never run the model or read the file again.
    """
    frames, buttons = "", ""
    for i, (kind, (name, words)) in enumerate(MAPS.items()):
        progress((i + 0.5) / len(MAPS), desc=f"{name}: {words}")
        frames += (
            f'<fitted-page class="{kind}"><iframe title="{name}: {words}"'
            f' srcdoc="{escape(_map_page(kind, engine, clip))}"></iframe></fitted-page>'
        )
        buttons += (
            f'<label><input type="radio" name="look" value="{kind}"{" checked" * (i == 0)}>'
            f"<span><b>{name}</b> {words}</span></label>"
        )
    title = f"What the model read of {escape(clip.title)}"
    choice = f'<fieldset class="kinds"><legend>{title}</legend>{buttons}</fieldset>'
    return f'<div class="look">{choice}{frames}</div>'


def _map_page(kind: str, engine: Engine, clip: AnsweredClip) -> str:
    if kind == "attention":
        return html.attention(engine.classifier, clip.view).page()
    if kind == "importance":
        methods = ("occlusion", "gradient", "rollout") if engine.is_small else ("rollout",)
        return html.importance(engine.classifier, clip.view, methods, clip.label).page()
    flow = explain.flow(engine.classifier, clip.view, clip.label, effects=engine.is_small)
    return html.flow_page(flow)


# ---- Play ----


def _play_tab(switch: ModelSwitch, tab: gr.Tab, answered: gr.State, clips: list[Sample]) -> Renewed:
    """What can be changed, and beside it the new answer."""

    @show_errors
    def show(clip: AnsweredClip | None, other: tuple, audio, delay, video, emptied, cut):
        if clip is None:
            return play.NO_CLIP
        engine = switch.engine_of(clip)
        fits = other[0] is not None and len(other[0].wave) == len(clip.view.wave)
        if audio == play.AUDIO_CHOICES[2] and not fits:
            raise ValueError("Choose the other clip first: a sample, or upload one.")
        change = play.Change(audio, delay, video, tuple(emptied), tuple(cut), *other)
        return play.report(engine, clip, change)

    @show_errors
    def take_audio(source: int | str):
        path = clips[source].path if isinstance(source, int) else source
        return (switch.engine.read(path).views[0], title_of(path)), play.AUDIO_CHOICES[2]

    def tokens(engine: Engine) -> dict:
        numbers = range(engine.classifier.config.bottlenecks)
        return {"choices": [(f"token {i}", i) for i in numbers], "value": []}

    gr.HTML("<h2>Change the clip, and see what the model makes of it</h2>", elem_classes="head")
    other = gr.State((None, ""))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            audio = gr.Radio(play.AUDIO_CHOICES, value=play.AUDIO_CHOICES[0], label="Sound")
            titles = [(clip.title, i) for i, clip in enumerate(clips)]
            sample = gr.Dropdown(titles, value=None, label="The other clip: a sample")
            upload = gr.UploadButton("or upload one", file_types=["video", "audio"], size="sm")
            delay = gr.Slider(-1, 1, 0, step=0.1, label="Sound comes later by (s)")
            video = gr.Radio(play.VIDEO_CHOICES, value=play.VIDEO_CHOICES[0], label="Picture")
            emptied = gr.CheckboxGroup(
                label="Bottleneck tokens that are kept empty", **tokens(switch.engine)
            )
            cut = gr.CheckboxGroup(list(play.CUTS), label="Ways through the bottleneck cut")
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(play.NO_CLIP, elem_id="changed")
    controls = [audio, delay, video, emptied, cut]
    inputs = [answered, other, *controls]
    options = {"trigger_mode": "always_last", **MODEL_RUN, **NO_PROGRESS}
    gr.on([tab.select, *(control.input for control in controls)], show, inputs, result, **options)
    for event, source in ((sample.input, sample), (upload.upload, upload)):
        taken = event(take_audio, source, [other, audio], **MODEL_RUN, **NO_PROGRESS)
        taken.success(show, inputs, result, **options)
    return {
        other: lambda _: (None, ""),
        audio: lambda _: play.AUDIO_CHOICES[0],
        sample: lambda _: None,
        emptied: lambda engine: gr.CheckboxGroup(**tokens(engine)),
        result: lambda _: play.NO_CLIP,
    }


# ---- Playground ----


def _playground_tab() -> None:
    """The pages of `mbt_lite.playground`, whose models run in the visitor's browser."""
    folder = tempfile.mkdtemp(prefix="mbt_lite_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    gr.set_static_paths(playground.write(folder))
    address = f"gradio_api/file={quote(Path(folder).as_posix())}/index.html"
    gr.HTML(
        f'<iframe src="{address}" title="Playground" loading="lazy"'
        ' allow="camera; microphone; autoplay" class="playground"></iframe>'
    )


# ---- About ----


def _about_tab(engine: Engine) -> Renewed:
    """What MBT is, and the model card of the model that answers."""

    def lesson(engine: Engine) -> str:
        figure = markup.bottleneck(engine.classifier.config)
        return f"<h2>What is a bottleneck?</h2>{figure}{markup.EXPLANATION}"

    def card(engine: Engine) -> str:
        return markup.model_card(engine.classifier)

    renewed = {gr.HTML(lesson(engine)): lesson}
    gr.HTML(f"<h2>The model that answers</h2>{markup.OTHER_MODELS}")
    return {**renewed, gr.Markdown(card(engine), elem_id="card"): card}


# ---- the API ----


def _endpoints(switch: ModelSwitch) -> None:
    """Endpoints for programs; where the page is an MCP server, they are its tools."""

    @show_errors
    def predict(video: str) -> dict:
        """What the model sees and hears in the middle of a video.

        Probabilities by label, best first, for "both", "audio only" and "video only" (an empty
        modality is left out), "probabilities" (sigmoid: any label can be true, or softmax: one
        is), "notes" on the file, "unfamiliar" (the file is unlike what the model was trained on),
        and a "caution" on the model.
        """
        engine = switch.engine
        view, classifier = engine.read(video).views[0], engine.classifier
        about = {"probabilities": in_words(classifier.label_heads), "caution": classifier.caution}
        answers, unfamiliar = engine.answers(view)
        notes = [*[UNFAMILIAR] * unfamiliar, *view.notes]
        return {**answers, "notes": notes, "unfamiliar": unfamiliar, **about}

    @show_errors
    def windows(video: str) -> list[dict]:
        """What the model sees and hears, window by window, over the whole of a video.

        A list of windows with "start" and "end" in seconds, and per modality the probabilities by
        label, best first, as /predict has them.
        """
        answered = switch.engine.ask(video).windows
        return [{"start": round(w.start, 3), "end": round(w.end, 3), **w.answers} for w in answered]

    @show_errors
    def attention(video: str) -> dict:
        """What each bottleneck token reads in the middle of a video, the mean over heads.

        "video" is [layer][bottleneck token][time][y][x], "audio" is [layer][bottleneck
        token][time][mel bin]; "layers" are the layers' numbers; "start" and "seconds" say where in
        the file the audio's times lie.
        """
        engine = switch.engine
        return engine.attention(engine.read(video).views[0])

    video, answer = gr.Video(label="Video", visible=False), gr.JSON(label="Answer", visible=False)
    trigger = gr.Button(visible=False)
    for work in (predict, windows, attention):
        trigger.click(work, video, answer, api_name=work.__name__, **MODEL_RUN)
