"""The command line as a person uses it: results on stdout, sentences on stderr, exit codes."""

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mbt_lite import checkpoints, cli, media
from mbt_lite.checkpoints import zoo
from mbt_lite.cli.train import read_experiment
from mbt_lite.config import to_dict
from mbt_lite.configs import world as world_recipe
from mbt_lite.data import world

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SAMPLES = Path(__file__).parent.parent / "data_samples"
TUNED = "--config folder --variant finetune"


def test_predict_prints_labels_from_both_streams_and_from_each_alone(capsys):
    assert cli.main(["predict", str(SAMPLES / "circle_sings.mp4"), "--model", "world-tiny"]) == 0
    out = capsys.readouterr().out
    assert "circle_sings.mp4" in out and "circle sings" in out
    assert "audio only:" in out and "video only:" in out


def test_a_bad_file_gets_an_error_and_the_others_predictions(capsys, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    files = [tmp_path / "text.mp4", SAMPLES / "ring_sings_with_bell.mp4", tmp_path / "none.mp4"]
    assert cli.main(["predict", *map(str, files), "--json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [Path(row["file"]) for row in rows] == files
    assert "error" in rows[0] and "error" in rows[2]
    assert np.isfinite(list(rows[1]["top"].values())).all()
    assert set(rows[1]["streams"]) == {"spec", "rgb"}
    assert err.count("mbt-lite: ") == 2 and "Traceback" not in err


def test_it_runs_as_a_program_of_its_own(tmp_path):
    """The only other process that the core stage starts."""
    clip = str(SAMPLES / "circle_sings.mp4")
    command = [sys.executable, "-m", "mbt_lite", "predict", clip, "--json"]
    command += ["--model", "world-tiny"]
    environment = os.environ | {"MBT_LITE_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "circle sings" in json.loads(done.stdout)["top"]


@pytest.mark.full
def test_attention_is_saved_as_a_figure_a_page_or_a_film_with_audio(capsys, tmp_path):
    clip = str(SAMPLES / "circle_sings.mp4")
    for name in ("map.png", "map.html", "map.mp4"):
        assert cli.main(["attention", clip, "--out", str(tmp_path / name)]) == 0
    with Image.open(tmp_path / "map.png") as image:
        assert min(image.size) > 200
    assert (tmp_path / "map.html").read_text("utf-8").startswith("<!doctype html>")
    film = media.read(tmp_path / "map.mp4")
    assert len(film.frames) == 8 and np.abs(film.wave).max() > 0.05
    assert film.duration == pytest.approx(2, abs=0.1)
    assert cli.main(["attention", clip, "--out", str(tmp_path / "map.gif")]) == 1
    assert "ends in .png or .html or .mp4" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.html", "map.mp4", "map.png"]


@pytest.mark.slow
def test_importance_maps_are_drawn_with_their_scores(capsys, tmp_path):
    command = ["attention", str(SAMPLES / "ring_sings_with_bell.mp4"), "--out"]
    page, figure = str(tmp_path / "map.html"), str(tmp_path / "map.png")
    methods = ["--map", "occlusion", "gradient", "flow"]
    assert cli.main([*command, page, *methods, "--label", "ring sings"]) == 0
    assert cli.main([*command, figure, "--map", "gradient"]) == 0
    sentence = capsys.readouterr().err
    assert all(f"How far to believe {method}: in" in sentence for method in methods[1:])
    text = (tmp_path / "map.html").read_text("utf-8")
    assert "<h1>What the answer rests on: ring sings</h1>" in text
    assert r"by occlusion for \u201cring sings\u201d; importance over" in text
    for more, cause in (
        (["--map", "gradient", "flow"], "only a page (.html) shows several"),
        (["--label", "ring sings"], "--label needs --map occlusion or gradient"),
    ):
        assert cli.main([*command, figure, *more]) == 1
        assert cause in capsys.readouterr().err


@pytest.mark.full
def test_flow_is_saved_as_a_figure_or_a_page_and_printed_as_a_sentence(capsys, tmp_path):
    clip = str(SAMPLES / "ring_sings_with_bell.mp4")
    for name in ("flow.png", "flow.html"):
        out = ["--out", str(tmp_path / name), "--label", "ring sings"]
        assert cli.main(["flow", clip, *out]) == 0
        assert "changes the logit of ring sings" in capsys.readouterr().out
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    assert "ring sings" in (tmp_path / "flow.html").read_text("utf-8")
    assert cli.main(["flow", clip, *out[:2], "--label", "ring"]) == 1
    assert "ring rises" in capsys.readouterr().err


@pytest.mark.full
def test_two_clips_swap_their_audio(capsys, tmp_path):
    clips = [str(SAMPLES / name) for name in ("ring_sings_with_bell.mp4", "circle_sings.mp4")]
    for name in ("swap.png", "swap.html"):
        out = ["--out", str(tmp_path / name), "--label", "ring sings"]
        assert cli.main(["swap", *clips, *out]) == 0
    sentence = capsys.readouterr().out
    assert "logit of ring sings with the first clip instead of the second: video" in sentence
    assert "% audio" in sentence and len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_faithfulness_prints_its_table_and_draws_it(capsys, tmp_path):
    out = ["--out", str(tmp_path / "scores.png"), "--methods", "attention", "rollout"]
    assert cli.main(["faithfulness", "--clips", "2", "--json", *out]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["methods"] == ["attention", "rollout"] and rows["chance"][-1] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.png", "scores_curves.png"]
    assert cli.main(["faithfulness", "--methods", "magic"]) == 1
    assert "there are attention, rollout" in capsys.readouterr().err


def test_world_renders_clips_with_labels_and_key(capsys, tmp_path):
    assert cli.main(["world", "--out", str(tmp_path), "-n", "2", "--size", "64"]) == 0
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"world_0000.mp4", "world_0001.mp4", "labels.csv", "key.json"}
    rows = (tmp_path / "labels.csv").read_text().splitlines()[1:]
    scene = world.scene(world.SPLITS["test"], 0)
    assert rows[0] == "world_0000.mp4," + "|".join(scene.names)
    key = json.loads((tmp_path / "key.json").read_text())["world_0000.mp4"]
    assert len(key["times"]) == 50 == len(media.read(tmp_path / "world_0000.mp4").frames)


def test_train_takes_fields_of_the_experiment(capsys, tmp_path):
    config = Path(cli.__file__).parent.parent / "configs" / "world.py"
    work = ["--config", str(config), "--workdir", str(tmp_path / "run")]
    for field, sentence in (
        (["--model.dept", "2"], "model.depth"),
        (["--train.steps", "-1"], "1 or more"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", *work, *field])
        assert stop.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_help_of_train_lists_every_field_with_its_type_and_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = " ".join(re.sub("[│\\s]+", " ", capsys.readouterr().out).split())
    for field in (
        "--train.batch INT clips of a step, over all devices (default: 32)",
        "--start.model {None}|STR a trained MBT: a name of the zoo, a file",
        "--augment.hue FLOAT maximum shift in turns of the color circle, either way (default: 0.2)",
        "--model.fusion STR through a few shared tokens; joint: all tokens; late: none (default: ",
        "--clip.frames INT (default: 32)",
    ):
        assert field in shown


@pytest.mark.parametrize(
    "words, sentence",
    [
        (f"{TUNED} --model.width 64", "--model.width has no effect here; it needs --start"),
        ("--config folder --start.inflate arp", "it needs --start.vit"),
        (f"{TUNED} --clip.front-end.mels 64", "--clip.front_end has no effect here"),
        ("--config world --train.momentum 0.5", "it needs --train.optimizer momentum"),
        ("--config world --train.epochs 2 --train.steps=9", "it needs --train.epochs 0"),
        ("--config world --augment.hue 0.1", "it needs --augment.color above 0"),
        ("--config world --model.streams spec --model.fusion_layer 2", "--model.streams spec rgb"),
        ("--config world --start.rewire", "it needs --start.model"),
        ("--config world --processes 2", "have no effect without --coordinator"),
        ("--config x.json --variant probe", "x.json is one experiment"),
    ],
)
def test_an_option_of_train_that_would_have_no_effect_is_refused(capsys, words, sentence):
    assert cli.main(["train", *words.split()]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_streams_and_steps_of_the_command_line_count(capsys):
    options = ("--model.streams", "spec", "--train.steps", "9")
    experiment = read_experiment(Path("folder"), "finetune", options)
    assert experiment.model.streams == ("spec",)
    assert experiment.start.rewire and experiment.start.model
    assert experiment.train.steps == 9 and experiment.train.epochs == 0
    assert "--model.streams turns on --start.rewire" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("predict", "no clip given"),
        ("predict x.mp4 --views 0", "--views 0"),
        ("attention x.mp4 --out nowhere/x.png", "there is no folder nowhere"),
        ("world --out x -n 0", "-n 0 must be 1 or more"),
        ("evaluate --count 0", "0 clips cannot be scored"),
        ("train --config=nowhere.py --workdir=x.1 --train.steps 2", "is no file"),
        ("predict x.mp4 --model nowhere", "nowhere is no file, and the zoo has no 'nowhere'"),
        ("evaluate --data moon:test", "data moon:test is unknown"),
        ("train --config nowhere.py --workdir x", "is no file"),
        ("attention nowhere.mp4 --out x.png", "nowhere.mp4"),
        ("predict https://a.b/watch?v=1", "https://a.b/watch?v=1: addresses are not opened; downl"),
        (
            "predict x.mp4 --model https://a.b/c",
            "https://a.b/c: the only addresses allowed are hf",
        ),
    ],
)
def test_an_error_in_the_input_is_a_sentence_and_exit_code_1(
    capsys, monkeypatch, tmp_path, line, sentence
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 1
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_letters_that_the_output_cannot_encode_are_written_as_numbers(monkeypatch, tmp_path):
    """As on Windows, where the output of a program into a file is cp1252; the folder goes on."""
    out = io.TextIOWrapper(io.BytesIO(), "cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "cp1252"))
    names = [tmp_path / name for name in ("a.mp4", "視.mp4", "b.mp4")]
    for name in names:
        shutil.copy(SAMPLES / "circle_sings.mp4", name)
    (tmp_path / "notes.txt").write_text("not a clip")
    assert cli.main(["predict", str(tmp_path), "--top", "1"]) == 0
    out.flush()
    shown = [line for line in out.buffer.getvalue().decode("cp1252").splitlines() if ".mp4" in line]
    assert [Path(line).name for line in shown] == ["a.mp4", "b.mp4", r"\u8996.mp4"]


@pytest.fixture
def nothing_compiled_is_kept():
    """A disk that is full leaves half of what JAX keeps there."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@pytest.mark.full
@pytest.mark.usefixtures("nothing_compiled_is_kept")
def test_a_full_disk_is_a_sentence_with_the_path_and_nothing_half_written_stays(capsys, tmp_path):
    resource = pytest.importorskip("resource")
    clip = str(SAMPLES / "circle_sings.mp4")
    commands = {
        "map.mp4": ["attention", clip],
        "bell.png": ["doctor", clip],
        "w": ["world", "-n", "1"],
        "w.npz": ["convert", "world-tiny"],
    }
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, command in commands.items():
        out = tmp_path / "out" / name
        out.parent.mkdir(exist_ok=True)
        where = [str(out)] if command[0] == "convert" else ["--out", str(out)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
        try:
            assert cli.main([*command, *where]) == 1, name
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        err = capsys.readouterr().err
        assert f"{out}" in err and "the disk is full" in err and "make room" in err, err
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()], name


EDITS = {  # of an experiment.json: (the part and its new value, or the text, and the sentence)
    "heads": ("model", {"heads": 0}, "model.heads=0 must lie in 1..65,536"),
    "streams": ("model", {"streams": "rgb"}, "model.streams must be tuple[str, ...]"),
    "extra": ("model", {"color": 1}, "model has no field color"),
    "steps": ("train", {"steps": "x"}, "train.steps must be int, not 'x'"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_experiment_that_was_edited_by_hand_is_refused_by_field(capsys, tmp_path, edit):
    part, change, sentence = EDITS[edit]
    experiment = to_dict(world_recipe.experiment())
    experiment[part] |= change
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(experiment))
    assert cli.main(["train", "--config", str(path), "--dry-run"]) == 1
    err = capsys.readouterr().err
    assert f"{path}: " in err and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("{", "Expecting"),
        ("{}", "Experiment lacks name, model, clip"),
        ('{"name": "x", "model": [], "clip": {}}', "model must be fields in {}, not ["),
    ],
)
def test_an_experiment_that_is_none_is_refused(capsys, tmp_path, text, sentence):
    path = tmp_path / "experiment.json"
    path.write_text(text)
    assert cli.main(["train", "--config", str(path), "--dry-run"]) == 1
    assert f"{path}: {sentence}" in capsys.readouterr().err


def test_class_folders_of_the_micro_world_can_be_evaluated(capsys, tmp_path):
    classes = ["--classes", "circle sings", "ring sings", "--size", "48"]
    assert cli.main(["world", "--out", str(tmp_path / "v"), "-n", "1", *classes]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "--data", str(tmp_path / "v"), "--views", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 2


def test_a_wrong_command_line_is_exit_code_2(capsys):
    assert cli.main([]) == 0
    assert cli.main(["predict", ""]) == 2
    assert "an empty name was given" in capsys.readouterr().err
    assert cli.main([]) == 0
    assert "examples:" in capsys.readouterr().out
    assert cli.main(["dance"]) == 2
    assert "no command 'dance'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", "x.mp4", "--tops", "3"])
    assert stop.value.code == 2


def test_every_command_explains_itself_with_an_example(capsys):
    for name, command in cli.COMMANDS.items():
        with pytest.raises(SystemExit) as stop:
            cli.main([name, "--help"])
        assert stop.value.code == 0
        assert command.example.split(" --")[0] in " ".join(capsys.readouterr().out.split())


def test_the_cost_of_a_model_is_printed_beside_other_ways_to_fuse(capsys):
    assert cli.main(["cost"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    costs = {row[:24].strip(): row[24:].split() for row in rows}
    assert costs["as it is"][0] == "175,009,295"
    gigaflops = {name: float(cost[2].replace(",", "")) for name, cost in costs.items()}
    assert gigaflops["joint, an encoder each"] > 1.3 * gigaflops["bottleneck"]


def test_weights_are_converted_there_and_back_unchanged(capsys, tmp_path):
    scenic, again = tmp_path / "scenic.npz", tmp_path / "again.safetensors"
    embedded = zoo.converted(zoo.entry("world-tiny"))
    assert cli.main(["convert", "world-tiny", str(scenic)]) == 0
    sizes = ["--rgb-shape", "8", "48", "48", "--spec-shape", "200", "128", "--fusion-layer", "1"]
    assert cli.main(["convert", str(scenic), str(again), *sizes]) == 0
    assert capsys.readouterr().out.split() == [str(scenic), str(again)]
    (config, params, _), (same_config, same_params, _) = map(checkpoints.load, (embedded, again))
    assert config == same_config
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, same_params)))
    assert cli.main(["convert", str(scenic), str(tmp_path / "model.h5")]) == 1
    assert "ends in none of .safetensors" in capsys.readouterr().err


def test_ctrl_c_stops_with_a_sentence(capsys, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.COMMANDS["bench"], "run", stop)
    assert cli.main(["bench"]) == 130
    assert "mbt-lite: interrupted; files that exist are complete" in capsys.readouterr().err
