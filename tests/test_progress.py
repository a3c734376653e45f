"""Progress of long work: steps and time left, in a terminal and as callbacks."""

import io

import numpy as np
import pytest

from mbt_lite import explain, load, progress
from mbt_lite.config import STREAMS
from mbt_lite.inference import Classifier
from mbt_lite.model.mbt import Clip


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module")
def model():
    """The embedded model and a clip of noise."""
    noise = np.random.default_rng(0).random
    clip = Clip(noise((8, 48, 48, 3), np.float32), noise((200, 128, 3), np.float32))
    return load("world-tiny"), clip


def calls_of(work) -> list[tuple[float, str]]:
    calls = []
    work(lambda share, desc: calls.append((share, desc)))
    return calls


def test_a_prediction_reports_its_steps(model):
    classifier, clip = model
    calls = calls_of(lambda tell: classifier.predict(clip, progress=tell))
    assert calls == [(0, "compiling"), (1 / 2, "predicting"), (1, "done")]


def test_a_large_model_answers_in_steps_and_the_same(model, monkeypatch):
    classifier, clip = model
    at_once = classifier.predict(clip)
    monkeypatch.setattr(Classifier, "is_large", True)
    calls = calls_of(lambda tell: classifier.predict(clip, progress=tell))
    words = ["compiling", "compiling", "layers below fusion"]
    words += ["both", "audio only", "video only", "done"]
    assert [desc for _, desc in calls] == words
    assert [share for share, _ in calls] == pytest.approx([0, 0, 0, 1 / 4, 2 / 4, 3 / 4, 1])
    in_steps = classifier.predict(clip)
    for a, b in [
        (at_once, in_steps),
        *((at_once.streams[s], in_steps.streams[s]) for s in STREAMS),
    ]:
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)


@pytest.mark.full
def test_a_flow_counts_its_edges(model):
    classifier, clip = model
    calls = calls_of(lambda tell: explain.flow(classifier, clip, progress=tell))
    edges = 3 * 2 * 2 * 4  # fused layers, streams, ways, bottleneck tokens
    words = ["both", "attention maps", "layers below fusion", "compiling"]
    assert [desc for _, desc in calls[:4]] == words
    assert calls[4] == (0, f"cut 1 of {edges}")
    assert all(0 <= share < 1 and desc.endswith(f" of {edges}") for share, desc in calls[4:])


def test_a_bar_shows_the_step_in_a_terminal_only(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for screen in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", screen)
        with progress.bar("clip.mp4") as tell:
            tell(0, desc="compiling")
            tell(0.5, desc="video only")
        drawn = screen.getvalue()
        words = "clip.mp4", "compiling", "50%", "video only"
        assert all(word in drawn for word in words) if screen.isatty() else not drawn


def test_a_subtask_reports_its_share_of_the_whole():
    calls = calls_of(lambda tell: progress.part(tell, 0.5, 0.75)(0.5, "window 3"))
    assert calls == [(0.625, "window 3")]
