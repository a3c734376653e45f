"""Front-end matching: a model's answers tell which front end it was trained with."""

import csv
import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks import front_end_recovery
from mbt_lite import (
    cli,
    features,
    media,
    plot,
)
from mbt_lite.config import WORLD, WORLD_CLIP
from mbt_lite.data import datasets, world
from mbt_lite.evaluation import front_end_match
from mbt_lite.evaluation.front_end_match import match_front_end_waves
from mbt_lite.features import FRONT_ENDS
from mbt_lite.inference import Classifier, load
from mbt_lite.model.mbt import init_params

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]

RNG = np.random.default_rng(0)
HEARS = replace(front_end_recovery.EXPERIMENT.model, width=32, depth=1, mlp_dim=32)
SMALL = replace(
    front_end_recovery.EXPERIMENT,
    model=HEARS,
    train=replace(front_end_recovery.EXPERIMENT.train, steps=300, warmup=30),
)
FEW = ("ln-magnitude-1e-6", "ln-power-1e-6", "linear-mel")


def untrained(
    model=HEARS, clip=front_end_recovery.EXPERIMENT.clip, labels=front_end_recovery.LABELS
) -> Classifier:
    """A classifier whose answers depend on what it hears, but are worth nothing."""
    params = init_params(model, jax.random.key(0))
    kernel = params["head"]["kernel"]  # zero at first
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), kernel.shape)
    return Classifier(model, params, clip, labels)


@pytest.fixture(scope="module")
def sounds():
    return front_end_recovery.sounds("test", 24)


def test_front_ends_are_ranked_with_statistics_of_the_given_audio(sounds):
    waves, truth = sounds
    match = match_front_end_waves(untrained(), waves, truth, FEW, quiet=True)
    floats = [wave / np.float32(32768) for wave in waves]
    for row in match.rows:
        front, preset = row.front_end, FRONT_ENDS[row.front_end.name]
        measured = features.statistics(floats, preset)
        expected = measured if row.own_statistics else (1.102, 2.762)
        assert (front.mean, front.std) == pytest.approx(expected, rel=1e-4)
        assert row.own_statistics or front.name == "linear-mel"
    assert len(match.rows) == len(FEW) + 1  # linear-mel also with Scenic's own numbers
    values = [row.log_likelihood for row in match.rows]
    assert values == sorted(values, reverse=True)
    assert match.best.gap_ci95 == (0, 0) and match.best in match.ties
    for row in match.rows:
        low, high = row.gap_ci95
        assert low <= values[0] - row.log_likelihood <= high
        assert row.within_ci == (low <= 0)


# --- ranking -------------------------------------------------------------------------------------


def test_windows_of_one_clip_are_averaged_before_they_count(sounds):
    waves, truth = sounds
    twice = match_front_end_waves(
        untrained(), np.repeat(waves, 2, axis=0), truth, FEW, owner=np.repeat(np.arange(24), 2),
        quiet=True,
    )  # fmt: skip
    once = match_front_end_waves(untrained(), waves, truth, FEW, quiet=True)
    assert twice.clips == once.clips == 24
    for a, b in zip(twice.rows, once.rows, strict=True):
        assert a.label == b.label
        assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-4)


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def labeled_table(tmp_path):
    """A folder of four clips of the world, one silent and one that is no video."""
    rows = []
    for index in range(4):
        scene = world.scene(1, index)
        path = tmp_path / f"{index}.mp4"
        media.write(path, np.zeros((8, 32, 32, 3), np.uint8), 4, world.wave(scene))
        rows.append((path.name, "|".join(scene.names)))
    silence = np.zeros(2 * world.RATE, np.float32)
    media.write(tmp_path / "silent.mp4", np.zeros((8, 32, 32, 3), np.uint8), 4, silence)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows += [("silent.mp4", world.LABELS[16]), ("broken.mp4", world.LABELS[17])]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "labels"), *rows])
    return tmp_path


def test_files_are_decoded_once_and_silent_or_damaged_ones_are_left_out(labeled_table, monkeypatch):
    read, opened = media.read, []
    monkeypatch.setattr(
        media, "read", lambda path, *a, **k: opened.append(path) or read(path, *a, **k)
    )
    match = front_end_match.match_front_end(untrained(), labeled_table, FEW, quiet=True)
    heard = [path.name for path in opened if path.name != "broken.mp4"]
    assert sorted(heard) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "silent.mp4"]
    assert match.clips == 4
    assert "labels unknown" in match.notes[0]  # those of the video
    assert "silent.mp4 is silent" in match.notes[-2] and "broken.mp4" in match.notes[-1]

    source = datasets.open_files(labeled_table, front_end_recovery.LABELS, count=4)
    clip = front_end_recovery.EXPERIMENT.clip
    waves = np.stack([features.read_views(row.path, clip)[0].wave for row in source.rows])
    truth = np.stack([source.targets(index) for index in range(4)])
    assert match.rows == match_front_end_waves(untrained(), waves, truth, FEW, quiet=True).rows


def test_a_model_with_a_video_stream_gets_the_frames_of_each_clip(labeled_table):
    source = datasets.open_files(labeled_table, world.LABELS, count=2)
    match = front_end_match.match_front_end(load("world-tiny"), source, ("world",), quiet=True)
    views = [features.read_views(item.path, WORLD_CLIP)[0] for item in source.rows]
    mean, std = features.statistics([view.wave for view in views], WORLD_CLIP.front_end)
    front = replace(WORLD_CLIP.front_end, mean=mean, std=std)
    clip = features.normalize(
        np.stack([v.rgb for v in views]), np.stack([v.spec for v in views]), front
    )
    expected = front_end_match.log_likelihood(
        load("world-tiny").logits(clip), np.stack([source.targets(index) for index in range(2)])
    ).mean()
    own = next(row for row in match.rows if row.own_statistics)
    assert own.log_likelihood == pytest.approx(float(expected), rel=1e-3)
    assert {row.front_end for row in match.rows} == {own.front_end, WORLD_CLIP.front_end}


def test_silent_files_only_and_models_without_audio_are_refused(labeled_table):
    source = datasets.open_files(labeled_table, world.LABELS)
    source.rows = source.rows[4:]
    with pytest.raises(ValueError, match="no clip is left to match on; left out: .*silent"):
        front_end_match.match_front_end(untrained(), source, FEW, quiet=True)
    deaf = untrained(replace(WORLD, streams=("rgb",), depth=1), WORLD_CLIP, world.LABELS)
    with pytest.raises(ValueError, match="no audio stream"):
        front_end_match.match_front_end(deaf, source, FEW, quiet=True)


# --- command and video -------------------------------------------------------------------------


def test_the_command_ranks_says_how_to_go_on_and_draws(labeled_table, tmp_path, capsys):
    figure = tmp_path / "c.png"
    command = ["match-front-end", "--model", "world-tiny", "--data", str(labeled_table)]
    assert cli.main([*command, "--out", str(figure), "--presets", "world", "linear-mel"]) == 0
    out = capsys.readouterr().out
    assert "linear-mel (1.102, 2.762)" in out and "left out: " in out
    assert "Nothing speaks against the front end that the model was loaded with: keep it." in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert cli.main([*command, "--presets", "ln-magnitude-1e-2"]) == 0
    use, load_it = capsys.readouterr().out.splitlines()[-2:]
    argument = use.split()[-1]
    assert use == f"Use it: mbt-lite predict CLIP --model world-tiny --front-end {argument}"
    assert load_it == f'    or: mbt.load("world-tiny", front_end="{argument}")'
    front = load("world-tiny", front_end=argument).clip_config.front_end
    assert front == features.front_end(argument) and front.name == "ln-magnitude-1e-2"
    assert cli.main([*command, "--presets", "world", "--json"]) == 0
    match = json.loads(capsys.readouterr().out)
    assert match["clips"] == 4 and match["rows"][0]["argument"].startswith("world:")


@pytest.mark.parametrize(
    "more, sentence",
    [
        ([], "labeled clips are needed"),
        (["--data", "x", "--presets", "none"], "no front end 'none'"),
        (["--data", "x", "--out", "x.gif"], "only .png"),
        (["--data", "nowhere", "--model", "world-tiny"], "neither a table"),
    ],
)
def test_the_command_refuses_in_a_sentence(more, sentence, capsys):
    assert cli.main(["match-front-end", *more]) == 1
    assert sentence in capsys.readouterr().err


def test_the_figure_has_a_mark_and_an_interval_for_every_front_end(sounds):
    match = match_front_end_waves(untrained(), *sounds, FEW, quiet=True)
    nats, points = plot.front_end_match(match).axes
    assert [t.get_text() for t in nats.get_yticklabels()] == [row.label for row in match.rows]
    marks = [line.get_xdata()[0] for line in nats.lines if line.get_marker() == "o"]
    assert marks == [row.log_likelihood for row in match.rows]
    marks = [line.get_xdata()[0] for line in points.lines if line.get_marker() == "o"]
    assert marks == [row.mean_average_precision for row in match.rows]
    assert not points.get_title(loc="left")  # what a filled dot means is no title of one panel
    legend = [text.get_text() for text in nats.figure.legends[0].get_texts()]
    assert legend == ["not told apart from the first", "behind it"]
    words = plot.front_end_match_alt(match)
    assert f"best is {match.best.label}" in words and "4 front ends ranked on 24 clips" in words


# --- is a hidden front end found? ---------------------------------------------------------------


def test_a_model_that_was_trained_through_a_hidden_front_end_does_not_say_so():
    waves, labels = front_end_recovery.sounds("train", 8)
    short = replace(SMALL, train=replace(SMALL.train, steps=1))
    classifier = front_end_recovery.train_through(FRONT_ENDS["kaldi"], waves, labels, short)
    assert classifier.clip_config.front_end == front_end_recovery.HIDDEN and not classifier.card


@pytest.mark.slow
def test_a_hidden_front_end_is_found():
    hidden = ("linear-mel", "ln-magnitude-1e-2", "lingvo")
    trials = front_end_recovery.prove(
        hidden[::2], against=hidden, experiment=SMALL, training=600, held_out=100, quiet=True
    )
    assert [trial.answer for trial in trials] == ["found"] * 2
    assert "2 hidden presets: 2 found" in front_end_recovery.table(trials)
    ax = front_end_recovery.figure(trials).axes[0]
    best = [line.get_xdata()[0] for line in ax.lines if line.get_mfc() != "none"]
    across = [label.get_text() for label in ax.get_xticklabels()]
    assert [across[x] for x in best] == ["linear-mel", "lingvo"]
    assert front_end_recovery.figure_alt(trials).endswith(
        "found: linear-mel, lingvo; tied: none; missed: none"
    )
    assert [row["hidden"] for row in json.loads(front_end_recovery.to_json(trials))] == [
        "linear-mel",
        "lingvo",
    ]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_hidden_front_end_ranks_first_or_ties_but_squared_energies():
    trials = front_end_recovery.prove(quiet=True)
    assert [trial.hidden for trial in trials] == list(FRONT_ENDS)
    missed = {trial.hidden for trial in trials if trial.answer == "missed"}
    assert missed <= {"linear-mel-power"}  # see benchmarks/front_end_recovery.py
    assert sum(trial.answer == "found" for trial in trials) >= 10
