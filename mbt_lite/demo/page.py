"""The page: four tabs, and what happens when a person uses them."""

from dataclasses import replace
from html import escape
from pathlib import Path

import gradio as gr

from mbt_lite.demo import about, look, play, quiz
from mbt_lite.demo.api import endpoints
from mbt_lite.demo.engine import Asked, Engine, choices, titled
from mbt_lite.demo.manners import MODEL_RUN, NO_PROGRESS, PRIVATE, Page, show_errors
from mbt_lite.demo.markup import bottleneck, bullets, hint, lesson, note, panels
from mbt_lite.demo.player import player
from mbt_lite.demo.samples import Sample, cards, samples

LEAD = """<h1>What do you see, what do you hear?</h1><p class="lead">This network names what is in
a short video with sound. It looks and listens separately; only a few tokens, the bottleneck, join
the two.</p>"""
PRIVACY = """<p class="small">Up to 200 MB, of any kind; of a long one, five places. It goes only to
the computer that runs this page, and is deleted there within two hours. The samples are drawn and
synthesised by mbt_lite (CC0 1.0).</p>"""
NOTHING = hint("Choose a sample, drop a video of your own, or record one: the answer comes here.")
PICK = """element.addEventListener("click", (event) => {
  const card = event.target.closest(".sample");
  if (card) trigger("select", { index: Number(card.dataset.index) });
});"""
SHOW = """() => { // where the answer would be out of sight
  const found = document.querySelector("#found"), { top } = found.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 3) found.scrollIntoView();
}"""
LABELS = 8  # to choose from, of what flow explains
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}, "audio": True}


def build(engine: Engine, name: str) -> Page:
    """The whole page, with its public endpoints, on a model that is there already."""
    clips = samples()
    with Page(title="mbt_lite", delete_cache=(3600, 3600)) as page:
        model, asked = gr.State(name), gr.State(time_to_live=3600)
        gr.HTML(LEAD)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Ask"):
                picked, found = ask_tab(model, asked, clips, engine.classifier.labels)
            with gr.Tab("Look") as look_here:
                look_tab(look_here, asked)
            with gr.Tab("Play") as play_here:
                bottlenecks = play_tab(play_here, model, asked, clips, engine)
                quiz_part(model, clips)
            with gr.Tab("About"):
                about_tab(engine, name, clips, (model, asked, picked, found, bottlenecks))
        endpoints(engine)
    return page.queue(max_size=20)


# ---- Ask ----


def ask_tab(model: gr.State, asked: gr.State, clips: list[Sample], labels) -> tuple:
    """Where a clip comes from, and beside it what the model says; samples and answer come back."""

    @show_errors
    def ask(name: str, path: str | None, progress=gr.Progress()):  # noqa: B008
        return *answer(name, path, "", progress), None

    @show_errors
    def ask_recorded(name: str, path: str | None, progress=gr.Progress()):  # noqa: B008
        return *answer(name, path, "Your recording", progress), None

    @show_errors
    def pick(name: str, event: gr.EventData, progress=gr.Progress()):  # noqa: B008
        return answer(name, clips[int(event.index)].path, "", progress)

    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="choose"):
            picked = gr.HTML(
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
            found = gr.HTML(NOTHING, elem_id="found")
    shown = {"show_progress_on": found, **MODEL_RUN, **PRIVATE}
    picked.select(pick, model, [asked, found], **shown).success(None, js=SHOW)
    for event, work in ((video.upload, ask), (video.stop_recording, ask_recorded)):
        answered = event(work, [model, video], [asked, found, video], **shown)
        answered.success(None, js=SHOW)
        answered.failure(lambda: None, None, video, **NO_PROGRESS)
    return picked, found


def answer(name: str, path: str | Path | None, title: str, progress) -> tuple[Asked, str]:
    """A clip with its answers, and how they are shown."""
    engine = Engine.of(name, progress)
    asked = engine.ask(path, name, title, progress)
    return asked.kept(), report(engine, asked)


def report(engine: Engine, asked: Asked) -> str:
    """The clip in its player, the best labels, and what the doctor has to say."""
    front, middle = engine.classifier.clip_config.front_end, asked.windows[len(asked.windows) // 2]
    where = f"seconds {middle.start:.1f} to {middle.end:.1f}"
    lead = f'<p class="small">The five best answers for {where}; the lines below tell the rest.</p>'
    notes = asked.reading.notes or ("Nothing unusual: picture and sound are fit for the model.",)
    parts = [note("The doctor on this file", bullets(notes))]
    parts.append(note("The model", bullets(cautions(engine))))
    figure = bottleneck(engine.classifier.config)
    beside = lesson(asked.answers, asked.label) + panels(asked.answers) + lead
    shown = player(asked, front, figure, beside)
    return f'<h2 class="asked">{escape(asked.title)}</h2>{shown}{"".join(parts)}'


def cautions(engine: Engine) -> list[str]:
    """What to know of the model before believing its answers."""
    limit = f"It can name {len(engine.classifier.labels)} things, which About lists, and knows "
    limit += "nothing else: of any other clip it tells what comes closest, however sure it sounds."
    return [limit, *filter(None, [engine.classifier.caution])]


# ---- Look ----


def look_tab(tab: gr.Tab, asked: gr.State) -> None:
    """The pages of what was read, made when a person first comes here after an answer."""

    @show_errors
    def show(clip: Asked | None, seen: tuple | None, progress=gr.Progress()):  # noqa: B008
        if clip is None or seen == (clip.path, clip.model):
            return gr.skip()
        return made(clip, look.FIRST, progress)

    @show_errors
    def explain(clip: Asked, label: str, progress=gr.Progress()):  # noqa: B008
        return made(replace(clip, chosen=label), look.FIRST, progress)

    def made(clip: Asked, kind: str, progress):
        pages = look.look(Engine.of(clip.model), clip, kind, progress)
        labels = list(dict.fromkeys([clip.label, *list(clip.answers["both"])[:LABELS]]))
        return pages, (clip.path, clip.model), gr.Dropdown(labels, value=clip.label, visible=True)

    label = gr.Dropdown([], label="The label to explain", visible=False, elem_id="label")
    pages, seen = gr.HTML(look.NOTHING, elem_id="look"), gr.State()
    shown = {"show_progress_on": pages, **MODEL_RUN, **PRIVATE}
    tab.select(show, [asked, seen], [pages, seen, label], **shown)
    label.input(explain, [asked, label], [pages, seen, label], **shown)


# ---- Play ----


def play_tab(tab: gr.Tab, model: gr.State, asked: gr.State, clips, engine) -> gr.CheckboxGroup:
    """What can be changed, and beside it what the model then says; the bottleneck tokens come back."""

    @show_errors
    def show(clip: Asked | None, other: tuple, audio, later, video, emptied, cut):
        if clip is None:
            return play.NOTHING
        if audio == play.AUDIO_CHOICES[2] and not play.fits(other[0], clip.view):
            raise ValueError("Choose the other clip first: a sample, or upload one.")
        change = play.Change(audio, later, video, tuple(emptied), tuple(cut), *other)
        return play.report(Engine.of(clip.model), clip, change)

    @show_errors
    def take(name: str, path: str):
        reading = Engine.of(name).read(path)
        return (reading.views[0], titled(path)), play.AUDIO_CHOICES[2]

    def take_sample(name: str, index: int):
        return take(name, str(clips[index].path))

    gr.HTML("<h2>Change the clip, and see what the model makes of it</h2>", elem_classes="head")
    other = gr.State((None, ""))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            audio = gr.Radio(play.AUDIO_CHOICES, value=play.AUDIO_CHOICES[0], label="Sound")
            titles = [(one.title, i) for i, one in enumerate(clips)]
            sample = gr.Dropdown(titles, value=None, label="The other clip: a sample")
            upload = gr.UploadButton("or upload one", file_types=["video", "audio"], size="sm")
            later = gr.Slider(-1, 1, 0, step=0.1, label="Sound comes later by (s)")
            video = gr.Radio(play.VIDEO_CHOICES, value=play.VIDEO_CHOICES[0], label="Picture")
            numbers = token_choices(engine)
            emptied = gr.CheckboxGroup(
                numbers, label="Bottleneck tokens of the bottleneck kept empty"
            )
            cut = gr.CheckboxGroup(list(play.CUTS), label="Ways through the bottleneck cut")
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(play.NOTHING, elem_id="changed")
    inputs = [asked, other, audio, later, video, emptied, cut]
    touched = [one.input for one in (audio, later, video, emptied, cut)]
    run = {"trigger_mode": "always_last", **MODEL_RUN, **NO_PROGRESS}
    gr.on([tab.select, *touched], show, inputs, result, **run)
    for event, work, source in (
        (sample.input, take_sample, sample),
        (upload.upload, take, upload),
    ):
        taken = event(work, [model, source], [other, audio], **MODEL_RUN, **NO_PROGRESS)
        taken.success(show, inputs, result, **run)
    return emptied


def token_choices(engine: Engine) -> list[tuple[str, int]]:
    return [(f"bottleneck token {i}", i) for i in range(engine.classifier.config.bottlenecks)]


def quiz_part(model: gr.State, clips: list[Sample]) -> None:
    """A game: guess before the model tells."""

    @show_errors
    def begin(name: str, score: quiz.Score):
        one = quiz.new_round(Engine.of(name), [clip.path for clip in clips])
        return one, score, *shown(one, score)

    @show_errors
    def guess(one: quiz.Round | None, score: quiz.Score, said: str | None):
        if one is None or one.over or not said:
            raise ValueError("Choose one of the answers first.")
        one = one.guessed(said)
        score = score.after(one) if one.over else score
        return one, score, *shown(one, score)

    def shown(one: quiz.Round, score: quiz.Score):
        options = gr.Radio(one.options, value=None, visible=not one.over)
        board = quiz.scoreboard(score)
        again = gr.Button("Another clip" if one.over else "Skip this clip")
        return quiz.stage(one), options, gr.Button(visible=not one.over), again, board

    one, score = gr.State(time_to_live=3600), gr.State(quiz.Score())
    gr.HTML(quiz.RULES, elem_classes="head")
    stage = gr.HTML(elem_id="quiz")
    said = gr.Radio([], label="Your guess", visible=False, elem_id="guess")
    with gr.Row():
        sure = gr.Button("That is my guess", variant="primary", visible=False)
        again = gr.Button("Begin")
    board = gr.HTML(elem_id="score")
    outputs = [one, score, stage, said, sure, again, board]
    again.click(begin, [model, score], outputs, show_progress_on=stage, **MODEL_RUN, **PRIVATE)
    sure.click(guess, [one, score, said], outputs, **NO_PROGRESS)


# ---- About ----


def about_tab(engine: Engine, name: str, clips: list[Sample], others: tuple) -> None:
    """What all this is, and which model answers; `others` change where another one is taken."""
    model, asked, *_ = others

    @show_errors
    def change(wanted: str, clip: Asked | None, progress=gr.Progress()):  # noqa: B008
        engine = Engine.of(wanted, progress)
        again, found = (
            answer(wanted, clip.path, clip.title, progress) if clip else (None, gr.skip())
        )
        offered = cards(clips, engine.classifier.labels)
        kept = gr.CheckboxGroup(token_choices(engine), value=[])
        return wanted, again, offered, found, kept, *told_about(engine, wanted)

    def told_about(engine: Engine, name: str) -> tuple[str, str, str]:
        return about.explanation(engine), about.model(engine, name), about.whole_card(engine)

    words, facts, whole = told_about(engine, name)
    explained = gr.HTML(words)
    offered = list(choices(name))
    wanted = gr.Dropdown(offered, value=name, label="Model", elem_id="model")
    gr.HTML(f'<p class="small">{about.MORE}</p>')
    known = gr.HTML(facts, elem_id="facts")
    with gr.Accordion("Its whole model card", open=False):
        whole = gr.Markdown(whole)
    gr.HTML(about.citation())
    outputs = [*others, explained, known, whole]
    shown = {"show_progress_on": known, **MODEL_RUN, **PRIVATE}
    changed = wanted.input(change, [wanted, asked], outputs, **shown)
    changed.failure(lambda name: name, model, wanted, **NO_PROGRESS)
