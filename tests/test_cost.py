"""What a model costs: as counted of the original, and by XLA."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import pytest

from mbt_lite.checkpoints import flatten
from mbt_lite.config import BASE, WORLD
from mbt_lite.model.flops import model_cost, parameter_shapes
from mbt_lite.model.mbt import MBT, blank_clip, init_params

RECORDED = json.loads((Path(__file__).parent / "golden/flops.json").read_text())
LIGHT = {"rgb_shape": (8, 224, 224), "rgb_patch": (1, 16, 16)}
FUSIONS = {
    "bottleneck": {},
    "vanilla": {"fusion": "joint", "shared_encoder": True},
    "cross": {"fusion": "joint"},
    "none": {"fusion": "late"},
}
STREAMS = {"spectrogram+rgb": ("spec", "rgb"), "rgb": ("rgb",), "spectrogram": ("spec",)}


def config_of(row: dict):
    return replace(
        BASE,
        streams=STREAMS[row["mods"]],
        fusion_layer=row["fusion_layer"],
        bottlenecks=row["B"] + 1,  # Scenic adds one where it pools by class token
        **FUSIONS[row["fusion"]],
        **(LIGHT if row["size"] == "light" else {}),
    )


def name_of(row: dict) -> str:
    return "-".join(str(row[key]) for key in ("size", "mods", "fusion", "fusion_layer", "B"))


@pytest.mark.parametrize("row", RECORDED, ids=name_of)
def test_the_count_is_that_of_the_original_model(row):
    cost = model_cost(config_of(row))
    assert cost.parameters == row["params"]
    assert 2 * cost.macs == row["matmul_flops"]
    assert cost.flops == pytest.approx(row["flops"], rel=0.005)


VARIANTS = {
    "released": BASE,
    "embedded": WORLD,
    "mean": replace(BASE, pool="mean"),
    "pre-logits": replace(BASE, representation=100, **LIGHT),
    "bottlenecks off at test": replace(BASE, bottlenecks_at_test=False),
    "frames sampled inside": replace(BASE, rgb_patch=(1, 16, 16), rgb_sampled=8),
    "shared encoder": replace(BASE, shared_encoder=True, fusion_layer=0, bottlenecks=1025),
    "joint, mean": replace(BASE, fusion="joint", pool="mean", fusion_layer=3),
    "audio only": replace(BASE, streams=("spec",), fusion="late"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_shapes_are_those_of_initialized_parameters(name):
    params = jax.eval_shape(partial(init_params, VARIANTS[name]), jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in flatten(params)}
    assert parameter_shapes(VARIANTS[name]) == shapes


def written_out(config, params, clip):
    """Logits of an observed pass: XLA counts what stands in a loop once, as if it did not loop."""
    return MBT(config).apply({"params": params}, clip, mutable=["intermediates"])[0].logits


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.full
def test_the_count_is_xlas_for_our_model_within_two_percent(name, record_property):
    config = VARIANTS[name]
    params = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    clip = jax.eval_shape(partial(blank_clip, config))
    counted = jax.jit(partial(written_out, config)).lower(params, clip).cost_analysis()["flops"]
    cost = model_cost(config)
    record_property("error GFLOPs", f"{cost.flops / counted - 1:.0e}")
    assert cost.flops == pytest.approx(counted, rel=0.02)
