"""Endpoints for programs; they are tools where the page is an MCP server."""

import gradio as gr

from mbt_lite.demo.engine import Engine
from mbt_lite.demo.manners import MODEL_RUN, show_errors
from mbt_lite.model.label_heads import in_words


def endpoints(engine: Engine) -> None:
    """What programs can ask, of the model that the page began with."""

    @show_errors
    def predict(video: str) -> dict:
        """What the model sees and hears in the middle of a video.

        Probabilities by label, best first, for "both", "audio only" and "video only" (a modality
        in which there is nothing is left out), "probabilities" (sigmoid: any label can be true, or
        softmax: one is), "notes" on the file, and a "caution" on the model.
        """
        view = engine.read(video).views[0]
        answers = engine.answers(view)
        classifier = engine.classifier
        about = {"probabilities": in_words(classifier.label_heads), "caution": classifier.caution}
        return {**answers, "notes": list(view.notes), **about}

    @show_errors
    def windows(video: str) -> list[dict]:
        """What the model sees and hears, window by window, over the whole of a video.

        A list of windows with "start" and "end" in seconds, and per modality the probabilities by
        label, best first, as /predict has them.
        """
        found = engine.ask(video).windows
        return [{"start": w.start, "end": w.end, **w.answers} for w in found]

    @show_errors
    def attention(video: str) -> dict:
        """What each bottleneck token reads in the middle of a video, the mean over heads.

        "video" is [layer][bottleneck token][time][y][x], "audio" is [layer][bottleneck token][time][pitch]; "layers" are
        their numbers, "start" and "seconds" say where in the file the audio's times lie.
        """
        view = engine.read(video).views[0]
        return engine.attention(view)

    video, answer = gr.Video(label="Video", visible=False), gr.JSON(label="Answer", visible=False)
    asked = gr.Button(visible=False)
    for work in (predict, windows, attention):
        asked.click(work, video, answer, api_name=work.__name__, **MODEL_RUN)
