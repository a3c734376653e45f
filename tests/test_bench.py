"""The benchmarks on small stand-ins: the two sides do the same, take turns, and are told apart."""

import json
import os
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import (
    beside_torch,
    growth,
    model,
    others,
    parts,
    run,
    throughput,
    train_step,
)
from benchmarks.reference import translated
from benchmarks.timing import Program, compare
from mbt_lite import cli, features
from mbt_lite.config import BASE, WORLD
from mbt_lite.model.flops import model_cost
from mbt_lite.model.mbt import MBT
from mbt_lite.train import losses, sharding, step
from mbt_lite.train.optimizer import make_optimizer

TINY = replace(BASE, width=16, heads=2, mlp_dim=16, depth=2, fusion_layer=1, classes=527)
TINY = replace(TINY, rgb_shape=(2, 224, 224), rgb_patch=(1, 56, 56), spec_patch=(16, 64))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_quickly")]


@pytest.fixture
def place(tmp_path):
    return parts.Place(tmp_path, sys.executable)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sharding, "MATRIX_SIZE", 256)
    for module in (model, parts):
        monkeypatch.setattr(module, "ROUNDS", 1)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


def test_pytorchs_model_has_the_same_logits_loss_and_gradient(tmp_path):
    config = replace(TINY, drop_path=0.0)
    params, clip = beside_torch.drawn(config)
    train = train_step.experiment(config, 1, remat=False).train
    names = "learning_rate", "label_smoothing", "clip_norm"
    settings = {name: getattr(train, name) for name in names}
    file = beside_torch.write(tmp_path / "torch.npz", config, params, clip, **settings)

    def loss(params):
        output = MBT(config).apply({"params": params}, clip)
        labels = dict.fromkeys(config.streams, jnp.zeros((1, config.classes)))
        return losses.batch_losses(output, labels, "sigmoid", train.label_smoothing)["loss"].mean()

    value, gradient = jax.value_and_grad(loss)(params)
    python = os.environ.get("TORCH_PYTHON", sys.executable)
    try:
        with Program(python, beside_torch.PROGRAM, "forward", str(file)) as program:
            theirs = program.facts["logits"]
        with Program(python, beside_torch.PROGRAM, "step", str(file)) as program:
            facts = program.facts
    except ValueError as error:
        pytest.skip(f"{error}; TORCH_PYTHON can name a Python that has PyTorch")
    np.testing.assert_allclose(theirs, model.logits(config, params, clip)[0], atol=1e-5)
    np.testing.assert_allclose(facts["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(facts["gradient_norm"], optax.tree.norm(gradient), rtol=1e-4)


# ---- taking turns ----


class Late:
    """A result that is there only once it was waited for, as JAX gives them."""

    def __init__(self, log: list):
        self.log = log

    def block_until_ready(self):
        self.log.append("ready")


def test_a_comparison_begins_when_nothing_is_under_way_any_more():
    log = []

    def start():
        log.append("begun")
        return Late(log)

    compare(start, start, "the same", rounds=1)
    assert log == ["begun", "ready"] * 4  # a warm-up and a round of either


def test_a_program_elsewhere_tells_its_own_seconds():
    code = "print('ready', flush=True)\nfor _ in __import__('sys').stdin: print(9, flush=True)"
    with Program(sys.executable, "-c", code) as program:
        row = compare(lambda: None, program, "elsewhere", rounds=2)
        assert program.facts == {} and (program.peak_bytes() or 2**20) >= 2**20
    assert row["alternative_seconds"] == 9 and row["ratio"] > 9
    with Program(sys.executable, "-c", "print('ready {}')") as program:
        with pytest.raises(ValueError, match="it ended with code 0"):
            program()


def test_what_is_no_python_is_said():
    with pytest.raises(ValueError, match="nowhere/python is no Python"):
        Program("nowhere/python", "-c", "")


# ---- the cases ----


def test_the_two_train_steps_learn_the_same():
    experiment, mesh = train_step.experiment(TINY, 1, remat=False), sharding.make_mesh()
    experiment = replace(experiment, train=replace(experiment.train, warmup=0))
    batch = sharding.shard_batch(mesh, train_step.drawn_batch(experiment))
    state = step.first_state(experiment, mesh)
    start = jax.tree.map(jax.numpy.copy, translated(TINY, state.params))
    theirs = start, make_optimizer(experiment.train).init(start)
    before = jax.tree.map(np.array, start)
    state, result = step.train_step(experiment, train_step.LABELS, mesh)(state, batch)
    (after, _), loss = model.usual_step(experiment)(theirs, batch)
    assert float(loss) == pytest.approx(float(result["loss"]), rel=1e-5)
    ours = translated(TINY, state.params)
    for mine, other, first in zip(*map(jax.tree.leaves, (ours, after, before)), strict=True):
        np.testing.assert_allclose(mine - first, other - first, rtol=1e-3, atol=1e-6)
    assert np.abs(after["head"]["bias"] - before["head"]["bias"]).max() > 1e-4


def test_the_forward_pass_is_timed_beside_the_usual_formulation():
    row = model.forward(replace(TINY, depth=1, fusion_layer=0))
    assert row["of_peak"] > 0 and min(row["bytes"]) > 0 and min(row["compile_seconds"]) > 0
    assert row["alternative"] == "the usual formulation"


SMALL_SIDE = """
import runpy
from dataclasses import replace
from benchmarks import train_step
from mbt_lite.train import sharding
sharding.MATRIX_SIZE = 256
narrow = {"width": 16, "heads": 2, "mlp_dim": 16, "depth": 1, "fusion_layer": 0}
small = replace(train_step.CASES["8 frames"], **narrow)
train_step.CASES["8 frames"] = replace(small, rgb_patch=(2, 56, 56), spec_patch=(16, 64))
runpy.run_module("benchmarks.side", run_name="__main__")
"""


def test_train_steps_are_timed_in_processes_of_their_own(monkeypatch, tmp_path):
    program = tmp_path / "side.py"
    monkeypatch.setattr(model, "SIDE", (sys.executable, str(program)))
    program.write_text(SMALL_SIDE)
    row = model.train("8 frames", together=True)
    assert min(row["peak_bytes"]) > min(row["bytes"]) > 0 and min(row["compile_seconds"]) > 0
    assert row["of_peak"] > 0 and row["seconds"] > 0
    program.write_text("import os; os.kill(os.getpid(), 9)")
    assert "where memory runs out" in model.train("8 frames", together=False)


def test_attention_rows_are_timed_beside_the_plain_pass():
    row = model.rows_of_the_bottleneck(WORLD)
    assert 0 < row["seconds"] and abs(row["more_bytes"]) < 1e6


@pytest.mark.filterwarnings("ignore:Empty filters")  # so many bands leave some without a bin
@pytest.mark.parametrize("name", ["world", "ln-magnitude-centered"])
def test_the_log_mel_is_timed_beside_the_same_from_librosa(name):
    front = features.FRONT_ENDS[name]
    waves = np.random.default_rng(0).normal(0, 0.1, (2, 8123)).astype(np.float32)
    theirs = parts.librosa_log_mels(waves, front)
    ours = np.stack([features.log_mel(wave, front) for wave in waves])
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_both_readers_give_the_same_clip(tmp_path):
    file = tmp_path / "film.mp4"
    throughput.write_film(file, np.random.default_rng(0), (232, 320))
    wanted = list(range(93, 157, 2))
    frames, wave = others.pyav(str(file), wanted, (320, 232), 1.0, 8.0)
    instants = (np.array(wanted) + 0.5) / 25 - 1
    result = parts.media.read(file, 1.0, 8.0, at=lambda length: instants)
    pairs = zip(frames, result.frames, strict=True)
    apart = [np.abs(np.float32(frame) - own).mean() for frame, own in pairs]
    assert max(apart) < 3 < np.abs(np.float32(frames[0]) - result.frames[1]).mean()
    assert np.corrcoef(wave, result.wave)[0, 1] > 0.99


def test_the_batch_is_asked(place):
    assert parts.answers_in_a_batch(place)["seconds"] > 0


def test_growth_is_measured_counted_and_drawn(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(growth, "BASE", TINY)
    monkeypatch.setattr(growth.train_step, "CASES", {"8 frames": TINY})
    monkeypatch.setattr(growth, "FUSIONS", dict(list(growth.FUSIONS.items())[:2]))
    monkeypatch.setattr(growth, "FRAMES", (1,))
    monkeypatch.setattr(growth, "LAYERS", (0,))
    monkeypatch.setattr(growth, "BOTTLENECKS", (1, 600))
    assert cli.main(["bench", "growth", "--out", str(tmp_path)]) == 0
    points = json.loads((tmp_path / "growth.json").read_text())["points"]
    assert len(points) == 2 * (1 + 1) + 2 and all(point["seconds"] > 0 for point in points)
    few, many = (p["gflop"] for p in points if p["axis"] == "bottleneck tokens")
    assert many > 2 * few
    assert capsys.readouterr().out.count("| bottleneck tokens | bottleneck |") == 2
    assert (tmp_path / "growth.png").stat().st_size > 10_000


# ---- what is told ----


@pytest.fixture
def cases(monkeypatch):
    row = compare(lambda: None, lambda: None, "nothing", 1)
    more = {"of_peak": 0.5, "bytes": [2**30, 2**31], "compile_seconds": [2.0, 3.0]}
    more |= {"peak_bytes": [2**31, 2**32]}
    results = {"an audio": row | {"bound": row["seconds"] / 2}, "a model": row | more}
    results |= {"rows": row | {"more_bytes": 10**6}, "absent": "that is not there"}
    cases = {name: lambda place, result=result: result for name, result in results.items()}
    monkeypatch.setattr(run, "CASES", cases)


def test_the_figures_are_told_with_the_machine_and_kept(cases, tmp_path, capsys):
    assert cli.main(["bench", "--out", str(tmp_path / "kept")]) == 0
    table = capsys.readouterr().out
    assert "GFLOP/s" in table and "Left out: absent: that is not there." in table
    assert "| memory, planned | 1.00 GiB | 2.00 GiB | 2.00 |" in table
    assert "| memory, most of the process | 2.00 GiB | 4.00 GiB | 2.00 |" in table
    assert "| compilation | 2.0 s | 3.0 s | 1.50 |" in table and "50% of ours" in table
    kept = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert kept["machine"]["memory in GiB"] > 0 and set(kept["rows"]) == {
        "an audio",
        "a model",
        "rows",
    }
    assert (tmp_path / "kept" / "results.md").read_text() == table


def test_some_cases_can_be_picked(cases):
    assert list(run.measure("audio")["rows"]) == ["an audio"]
    with pytest.raises(ValueError, match="no case holds 'huge'; there are an audio"):
        run.measure("huge")


def test_speed_memory_and_share_of_a_matrix_product_are_told(monkeypatch):
    """Of train steps alone; the full models are those of the paper and of the released files."""
    sizes = {name: model_cost(config).parameters for name, config in train_step.CASES.items()}
    assert sizes == {"32 frames": 175_009_295, "8 frames": 173_215_247}
    monkeypatch.setattr(train_step, "CASES", {"8 frames": replace(TINY, rgb_shape=(8, 224, 224))})
    results = train_step.measure(batch=1, steps=2, only="8 frames")
    assert list(results["rows"]) == ["8 frames, float32", "8 frames, bfloat16"]
    for row in results["rows"].values():
        assert row["clips a second"] == pytest.approx(1 / row["seconds"])
        assert 0 < row["mfu"] < 1.5 and row["bytes"] > 2**20
    assert train_step.table(results).count("| 8 frames") == 2
