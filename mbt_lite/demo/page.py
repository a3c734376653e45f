"""The page: start it, its four tabs, and what happens when a person or a program uses it."""

import hmac
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from types import ModuleType

import gradio as gr

from mbt_lite import explain
from mbt_lite.demo import markup, play
from mbt_lite.demo.engine import AnsweredClip, Engine, choices, plain_name, title_of
from mbt_lite.demo.player import player
from mbt_lite.demo.samples import Sample, cards, samples
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
    model = plain_name(model)
    sys.modules.setdefault("__main__", ModuleType("__main__"))
    print(f"Loading and compiling {model}: up to half a minute ...", file=sys.stderr)
    with bar(model) as progress:
        engine = Engine.of(model, progress)
    page = build(engine, model)
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


def build(engine: Engine, name: str) -> Page:
    """Build the whole page, with its public endpoints, on a loaded model."""
    clips = samples()
    with Page(title="mbt_lite", delete_cache=(3600, 3600)) as page:
        model, answered = gr.State(name), gr.State(time_to_live=3600)
        gr.HTML(LEAD)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Ask"):
                picker, answer = ask_tab(model, answered, clips, engine.classifier.labels)
            with gr.Tab("Look") as look:
                look_tab(look, answered)
            with gr.Tab("Play") as playing:
                tokens = play_tab(playing, model, answered, clips, engine)
                quiz_section(model, clips)
            with gr.Tab("About"):
                about_tab(engine, name, clips, (model, answered, picker, answer, tokens))
        endpoints(engine)
    return page.queue(max_size=20)


# ---- Ask ----


def ask_tab(model: gr.State, answered: gr.State, clips: list[Sample], labels) -> tuple:
    """Where a clip comes from, and beside it the answer; returns the sample picker and the answer.

    `answered` gets the `AnsweredClip`, which the other tabs use.
    """

    @show_errors
    def ask_upload(name: str, path: str | None, progress=gr.Progress()):  # noqa: B008
        return *ask(name, path, "", progress), None

    @show_errors
    def ask_recording(name: str, path: str | None, progress=gr.Progress()):  # noqa: B008
        return *ask(name, path, "Your recording", progress), None

    @show_errors
    def ask_sample(name: str, event: gr.EventData, progress=gr.Progress()):  # noqa: B008
        return ask(name, clips[int(event.index)].path, "", progress)

    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="choose"):
            picker = gr.HTML(
                cards(clips, labels), elem_id="samples", js_on_load=PICK, visible=bool(clips)
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
    picker.select(ask_sample, model, [answered, answer], **options).success(None, js=SCROLL)
    for event, work in ((video.upload, ask_upload), (video.stop_recording, ask_recording)):
        asked = event(work, [model, video], [answered, answer, video], **options)
        asked.success(None, js=SCROLL)
        asked.failure(lambda: None, None, video, **NO_PROGRESS)
    return picker, answer


def ask(name: str, path: str | Path | None, title: str, progress) -> tuple[AnsweredClip, str]:
    """Ask a model about a clip; the clip with its answers, and how the page shows them."""
    engine = Engine.of(name, progress)
    clip = engine.ask(path, name, title, progress)
    return clip.with_middle_view_only(), answer_html(engine, clip)


def answer_html(engine: Engine, clip: AnsweredClip) -> str:
    """The clip in its player, the best labels, and notes on the file and the model."""
    classifier, middle = engine.classifier, clip.windows[len(clip.windows) // 2]
    where = f"seconds {middle.start:.1f} to {middle.end:.1f}"
    lead = f'<p class="small">The five best answers for {where}; the lines below tell the rest.</p>'
    notes = clip.reading.notes or ("Nothing unusual: picture and sound are fit for the model.",)
    limit = f"It can name {len(classifier.labels)} things, which About lists, and knows nothing "
    limit += "else: of any other clip it tells what comes closest, however sure it sounds."
    cautions = [limit, *filter(None, [classifier.caution])]
    beside = markup.lesson(clip.answers, clip.label) + markup.panels(clip.answers) + lead
    figure = markup.bottleneck(classifier.config)
    return (
        f'<h2 class="asked">{escape(clip.title)}</h2>'
        f"{player(clip, classifier.clip_config.front_end, figure, beside)}"
        f"{markup.note('The doctor on this file', markup.bullets(notes))}"
        f"{markup.note('The model', markup.bullets(cautions))}"
    )


# ---- Look ----


def look_tab(tab: gr.Tab, answered: gr.State) -> None:
    """The maps of a clip, made when a person first comes here after an answer."""

    @show_errors
    def show(clip: AnsweredClip | None, drawn: tuple | None, progress=gr.Progress()):  # noqa: B008
        if clip is None or drawn == (clip.path, clip.model):
            return gr.skip()
        return draw(clip, progress)

    @show_errors
    def explain_label(clip: AnsweredClip, label: str, progress=gr.Progress()):  # noqa: B008
        return draw(replace(clip, chosen_label=label), progress)

    def draw(clip: AnsweredClip, progress):
        pages = maps_html(Engine.of(clip.model), clip, progress)
        labels = list(dict.fromkeys([clip.label, *list(clip.answers["both"])[:LABELS]]))
        return pages, (clip.path, clip.model), gr.Dropdown(labels, value=clip.label, visible=True)

    label = gr.Dropdown([], label="The label to explain", visible=False, elem_id="label")
    pages, drawn = gr.HTML(NO_MAPS, elem_id="look"), gr.State()
    options = {"show_progress_on": pages, **MODEL_RUN, **PRIVATE}
    tab.select(show, [answered, drawn], [pages, drawn, label], **options)
    label.input(explain_label, [answered, label], [pages, drawn, label], **options)


def maps_html(engine: Engine, clip: AnsweredClip, progress: Progress) -> str:
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


def play_tab(
    tab: gr.Tab, model: gr.State, answered: gr.State, clips: list[Sample], engine: Engine
) -> gr.CheckboxGroup:
    """What can be changed, and beside it the new answer; returns the bottleneck tokens' boxes."""

    @show_errors
    def show(clip: AnsweredClip | None, other: tuple, audio, delay, video, emptied, cut):
        if clip is None:
            return play.NO_CLIP
        if audio == play.AUDIO_CHOICES[2] and not play.fits(other[0], clip.view):
            raise ValueError("Choose the other clip first: a sample, or upload one.")
        change = play.Change(audio, delay, video, tuple(emptied), tuple(cut), *other)
        return play.report(Engine.of(clip.model), clip, change)

    @show_errors
    def take_audio(name: str, path: str):
        reading = Engine.of(name).read(path)
        return (reading.views[0], title_of(path)), play.AUDIO_CHOICES[2]

    def take_audio_of_sample(name: str, index: int):
        return take_audio(name, str(clips[index].path))

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
                token_choices(engine), label="Bottleneck tokens that are kept empty"
            )
            cut = gr.CheckboxGroup(list(play.CUTS), label="Ways through the bottleneck cut")
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(play.NO_CLIP, elem_id="changed")
    controls = [audio, delay, video, emptied, cut]
    inputs = [answered, other, *controls]
    options = {"trigger_mode": "always_last", **MODEL_RUN, **NO_PROGRESS}
    gr.on([tab.select, *(control.input for control in controls)], show, inputs, result, **options)
    for event, work, source in (
        (sample.input, take_audio_of_sample, sample),
        (upload.upload, take_audio, upload),
    ):
        taken = event(work, [model, source], [other, audio], **MODEL_RUN, **NO_PROGRESS)
        taken.success(show, inputs, result, **options)
    return emptied


def token_choices(engine: Engine) -> list[tuple[str, int]]:
    """(label, number) of each bottleneck token."""
    return [(f"token {i}", i) for i in range(engine.classifier.config.bottlenecks)]


def quiz_section(model: gr.State, clips: list[Sample]) -> None:
    """A game: guess before the model answers."""

    @show_errors
    def begin(name: str, score: play.Score):
        quiz = play.new_quiz(Engine.of(name), [clip.path for clip in clips])
        return quiz, score, *shown(quiz, score)

    @show_errors
    def guess(quiz: play.Quiz | None, score: play.Score, label: str | None):
        if quiz is None or quiz.is_over or not label:
            raise ValueError("Choose one of the answers first.")
        quiz = quiz.with_guess(label)
        score = score.after(quiz) if quiz.is_over else score
        return quiz, score, *shown(quiz, score)

    def shown(quiz: play.Quiz, score: play.Score):
        return (
            play.stage(quiz),
            gr.Radio(quiz.options, value=None, visible=not quiz.is_over),
            gr.Button(visible=not quiz.is_over),
            gr.Button("Another clip" if quiz.is_over else "Skip this clip"),
            play.scoreboard(score),
        )

    quiz, score = gr.State(time_to_live=3600), gr.State(play.Score())
    gr.HTML(play.RULES, elem_classes="head")
    stage = gr.HTML(elem_id="quiz")
    label = gr.Radio([], label="Your guess", visible=False, elem_id="guess")
    with gr.Row():
        confirm = gr.Button("That is my guess", variant="primary", visible=False)
        again = gr.Button("Begin")
    board = gr.HTML(elem_id="score")
    outputs = [quiz, score, stage, label, confirm, again, board]
    again.click(begin, [model, score], outputs, show_progress_on=stage, **MODEL_RUN, **PRIVATE)
    confirm.click(guess, [quiz, score, label], outputs, **NO_PROGRESS)


# ---- About ----


def about_tab(engine: Engine, name: str, clips: list[Sample], others: tuple) -> None:
    """What MBT is, and which model answers; `others` are outputs that change with the model."""
    model, answered, *_ = others

    @show_errors
    def change(chosen: str, clip: AnsweredClip | None, progress=gr.Progress()):  # noqa: B008
        engine = Engine.of(chosen, progress)
        again, answer = ask(chosen, clip.path, clip.title, progress) if clip else (None, gr.skip())
        sample_cards = cards(clips, engine.classifier.labels)
        tokens = gr.CheckboxGroup(token_choices(engine), value=[])
        return chosen, again, sample_cards, answer, tokens, *texts(engine, chosen)

    def texts(engine: Engine, name: str) -> tuple[str, str, str]:
        classifier = engine.classifier
        return (
            f"<h2>What is a bottleneck?</h2>{markup.bottleneck(classifier.config)}"
            f"{markup.EXPLANATION}",
            markup.model_facts(classifier, name),
            markup.model_card(classifier),
        )

    explanation, facts, card = texts(engine, name)
    explanation = gr.HTML(explanation)
    choice = gr.Dropdown(list(choices(name)), value=name, label="Model", elem_id="model")
    gr.HTML(f'<p class="small">{markup.MORE_MODELS}</p>')
    facts = gr.HTML(facts, elem_id="facts")
    with gr.Accordion("Its whole model card", open=False):
        card = gr.Markdown(card)
    gr.HTML(markup.citation())
    outputs = [*others, explanation, facts, card]
    options = {"show_progress_on": facts, **MODEL_RUN, **PRIVATE}
    changed = choice.input(change, [choice, answered], outputs, **options)
    changed.failure(lambda name: name, model, choice, **NO_PROGRESS)


# ---- the API ----


def endpoints(engine: Engine) -> None:
    """Endpoints for programs; they ask the model that the page began with.

    Where the page is an MCP server, they are its tools.
    """

    @show_errors
    def predict(video: str) -> dict:
        """What the model sees and hears in the middle of a video.

        Probabilities by label, best first, for "both", "audio only" and "video only" (an empty
        modality is left out), "probabilities" (sigmoid: any label can be true, or softmax: one
        is), "notes" on the file, and a "caution" on the model.
        """
        view = engine.read(video).views[0]
        classifier = engine.classifier
        about = {"probabilities": in_words(classifier.label_heads), "caution": classifier.caution}
        return {**engine.answers(view), "notes": list(view.notes), **about}

    @show_errors
    def windows(video: str) -> list[dict]:
        """What the model sees and hears, window by window, over the whole of a video.

        A list of windows with "start" and "end" in seconds, and per modality the probabilities by
        label, best first, as /predict has them.
        """
        answered = engine.ask(video).windows
        return [{"start": round(w.start, 3), "end": round(w.end, 3), **w.answers} for w in answered]

    @show_errors
    def attention(video: str) -> dict:
        """What each bottleneck token reads in the middle of a video, the mean over heads.

        "video" is [layer][bottleneck token][time][y][x], "audio" is [layer][bottleneck
        token][time][mel bin]; "layers" are the layers' numbers; "start" and "seconds" say where in
        the file the audio's times lie.
        """
        return engine.attention(engine.read(video).views[0])

    video, answer = gr.Video(label="Video", visible=False), gr.JSON(label="Answer", visible=False)
    trigger = gr.Button(visible=False)
    for work in (predict, windows, attention):
        trigger.click(work, video, answer, api_name=work.__name__, **MODEL_RUN)
