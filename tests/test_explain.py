"""Explanations equal plain definitions, conserve attention mass, and hold under interventions."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from mbt_lite import explain, features
from mbt_lite.config import BASE, ClipConfig, FrontEnd
from mbt_lite.data import world
from mbt_lite.explain import (
    blocks,
    counterfactual,
    interventions,
    maps,
)
from mbt_lite.explain.faithfulness import Question, agreement, singing
from mbt_lite.explain.flow import crossings
from mbt_lite.inference import Classifier, load
from mbt_lite.model.label_heads import make_heads
from mbt_lite.model.mbt import MBT, Clip, init_params
from mbt_lite.model.observe import apply_with_hooks

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]

TINY = replace(TINY, depth=4)
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles sooner
LABELS = ("ant", "bee", "cat", "dog", "eel")
HEAR = ClipConfig(frames=4, size=16, resize=16, spec_frames=32, front_end=FrontEnd(mels=16))
FUSIONS = {
    "bottleneck": TINY,
    "one encoder": replace(TINY, shared_encoder=True),
    "mean of tokens": replace(TINY, pool="mean"),
    "joint": replace(TINY, fusion="joint", shared_encoder=True),
    "cross": replace(TINY, fusion="joint"),
    "late": replace(TINY, fusion="late"),
}
every_fusion = pytest.mark.parametrize("config", FUSIONS.values(), ids=FUSIONS)
with_bottleneck = pytest.mark.parametrize(
    "config", list(FUSIONS.values())[:3], ids=list(FUSIONS)[:3]
)


@cache
def model(config=TINY) -> Classifier:
    """A model of random weights, larger than fresh ones, so that every path carries something."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    params = tree.unflatten([0.6 * rng.normal(size=x.shape).astype("f4") for x in leaves])
    return Classifier(config, params, HEAR, LABELS)


def clip_of(config=TINY, seed=1) -> Clip:
    rng = np.random.default_rng(seed)
    rgb, spec = (rng.normal(size=(*config.shape(s), 3)).astype("f4") for s in ("rgb", "spec"))
    return Clip(rgb=np.clip(rgb, -1, 1), spec=np.repeat(spec[..., :1], 3, axis=-1))


def dense(config, weights: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Per layer one float64 matrix over all tokens, by the plain definition."""
    counts = [config.patches(s) + (config.pool == "token") for s in config.streams]
    bottlenecks = config.bottlenecks if config.fusion == "bottleneck" else 0
    total, ends = sum(counts) + bottlenecks, np.cumsum(counts)
    own = {s: np.arange(e - n, e) for s, n, e in zip(config.streams, counts, ends, strict=True)}
    bottleneck = np.arange(total - bottlenecks, total)
    matrices = []
    for layer, seen in enumerate(weights):
        matrix = np.zeros((total, total))
        fused = config.fuses(layer, training=False)
        if not fused and bottlenecks:
            matrix[bottleneck, bottleneck] = 1
        for s, one in seen.items():
            if s is None:
                matrix[: ends[-1], : ends[-1]] = one
            elif fused and bottlenecks:
                columns = np.concatenate([own[s], bottleneck])
                matrix[np.ix_(own[s], columns)] = one[: len(own[s])]
                matrix[np.ix_(bottleneck, columns)] += one[len(own[s]) :] / 2
            elif fused:
                other = next(o for o in own if o != s)
                columns = np.concatenate([own[other], own[s]])
                matrix[np.ix_(own[s], columns)] = one[-len(own[s]) :]
            else:
                matrix[np.ix_(own[s], own[s])] = one
        matrices.append(matrix)
    return matrices


def raw_maps(classifier, clip) -> list[dict]:
    """Of each layer, {stream: weights [1, H, queries, keys]} as the model computed them."""
    run = partial(blocks.observe, classifier.config, reduce=lambda weights: weights)
    return jit(run)(classifier.params, maps.batched(classifier, clip))[1]


def every_map(classifier, clip) -> list[dict[str, np.ndarray]]:
    """Of each layer, {stream: the mean over heads [queries, keys]} in float64."""
    seen = raw_maps(classifier, clip)
    return [{s: np.float64(w[0]).mean(0) for s, w in one.items()} for one in seen]


def at_the_answer(config) -> np.ndarray:
    counts = [config.patches(s) + (config.pool == "token") for s in config.streams]
    bottlenecks = config.bottlenecks if config.fusion == "bottleneck" else 0
    if config.pool != "token":
        return np.concatenate([np.full(sum(counts), 1 / sum(counts)), np.zeros(bottlenecks)])
    rows = [np.eye(n)[0] / len(counts) for n in counts]
    return np.concatenate([*rows, np.zeros(bottlenecks)])


def patches_of(config, row: np.ndarray) -> dict[str, np.ndarray]:
    result, start, first = {}, 0, int(config.pool == "token")
    for s in config.streams:
        stop = start + first + config.patches(s)
        result[s], start = row[start + first : stop].reshape(config.grid(s)), stop
    return result


@every_fusion
def test_rollout_equals_the_plain_definition_in_float64(config, agree):
    classifier, clip = model(config), clip_of(config)
    row = at_the_answer(config)
    for matrix in reversed(dense(config, every_map(classifier, clip))):
        np.testing.assert_allclose(matrix.sum(1)[row > 0], 1, atol=1e-6)
        row = row @ (0.5 * matrix + 0.5 * np.eye(len(matrix)))
    result = explain.rollout(classifier, clip)
    for s, expected in patches_of(config, row).items():
        agree(s, getattr(result, s), expected, 1e-7)


@pytest.mark.parametrize("fusion", ["bottleneck", "joint", "cross"])
def test_gradient_weighted_relevance_equals_the_plain_definition(fusion, agree):
    config = FUSIONS[fusion]
    classifier, clip = model(config), clip_of(config)
    batch, seen = maps.batched(classifier, clip), raw_maps(classifier, clip)

    def logit(shifts):
        def attention_probs(layer, stream, weights):
            return weights + shifts[layer][stream]

        return apply_with_hooks(MBT(config), classifier.params, batch, attention_probs).logits[0, 2]

    slopes = jit(jax.grad(logit))(jax.tree.map(jnp.zeros_like, seen))
    products = jax.tree.map(lambda w, g: np.maximum(np.float64(w * g)[0], 0), seen, slopes)
    weighted = [{s: x.mean(0) for s, x in one.items()} for one in products]
    row = at_the_answer(config)
    for matrix in reversed(dense(config, weighted)):
        if config.fusion == "bottleneck":  # undo the identity rows of layers without fusion
            bottlenecks = np.arange(len(matrix) - config.bottlenecks, len(matrix))
            matrix[bottlenecks, bottlenecks] -= matrix[bottlenecks, bottlenecks] == 1
        row = row @ (matrix + np.eye(len(matrix)))
    result = explain.relevance(classifier, clip, "cat")
    for s, expected in patches_of(config, row).items():
        agree(s, getattr(result, s), expected, 2e-6)


def even(config) -> Classifier:
    """A model whose attention is even everywhere, because its weights are zero."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return Classifier(config, params, HEAR, LABELS)


def test_flow_of_uniform_attention_has_its_closed_form():
    config = replace(TINY, depth=2, fusion_layer=0)
    flow = explain.flow(even(config), clip_of(config), "ant", effects=False)
    audio, video, bottlenecks = 9, 13, 3
    np.testing.assert_allclose(flow.mass[1, 2:, 0], 0.5 * 0.5 / (audio + bottlenecks), rtol=1e-6)
    np.testing.assert_allclose(flow.mass[1, 2:, 1], 0.5 * 0.5 / (video + bottlenecks), rtol=1e-6)
    held = flow.mass[1, 2].sum()
    np.testing.assert_allclose(
        flow.mass[0, 0, 2:], held * 0.5 * 0.5 * audio / (audio + bottlenecks), rtol=1e-6
    )


@with_bottleneck
def test_the_mass_of_a_flow_is_conserved_at_every_node_and_its_maps_sum_to_one(config):
    flow = explain.flow(model(config), clip_of(config), "bee", effects=False)
    np.testing.assert_allclose(flow.mass.sum((1, 2)), 1, atol=1e-6)
    np.testing.assert_allclose(flow.mass[:-1].sum(1), flow.mass[1:].sum(2), atol=1e-6)
    written = sum(x.sum(-1) for x in flow.write.values()) / 2
    np.testing.assert_allclose(written + flow.carry.sum(-1), 1, atol=1e-6)
    for reader in flow.streams:
        for layer in flow.layers[:-1]:
            parts = flow.through(reader, layer)
            assert parts["rgb" if reader == "spec" else "spec"].max() > 0
            np.testing.assert_allclose(sum(x.sum(-1) for x in parts.values()), 1, atol=1e-6)


def test_audio_reaches_video_only_through_bottleneck_tokens():
    flow = explain.flow(model(), clip_of(), "bee", effects=False)
    assert flow.groups == (
        "audio",
        "video",
        "bottleneck token 0",
        "bottleneck token 1",
        "bottleneck token 2",
    )
    assert (flow.mass[:, 0, 1] == 0).all() and (flow.mass[:, 1, 0] == 0).all()
    assert (flow.mass[-1][:, 2:] == 0).all()  # nobody reads what the last layer writes
    assert (flow.mass[:-1, :2, 2:] > 0).all()


@pytest.mark.parametrize("layer", [3, 4])
def test_no_flow_before_the_fusion_layer_nor_in_a_last_one_alone(layer):
    config = replace(TINY, fusion_layer=layer)
    classifier, clip = model(config), clip_of(config)
    for reader, other in (("rgb", "spec"), ("spec", "rgb")):
        crossed = getattr(explain.rollout(classifier, clip, query=reader), other)
        assert crossed is None or not crossed.any()
    loud = clip._replace(spec=clip.spec + 1)
    one, two = (streams_of(classifier, c) for c in (clip, loud))
    np.testing.assert_array_equal(one["rgb"], two["rgb"])
    assert np.abs(one["spec"] - two["spec"]).max() > 1e-3


def streams_of(classifier, clip, *operations) -> dict[str, np.ndarray]:
    """{stream: logits [K, C]} of a clip under operations, or [1, C] as it is."""
    batch = maps.batched(classifier, clip)
    all_edits = [interventions.edits(classifier.config, one) for one in operations]
    if not all_edits and fused(classifier):
        all_edits = [interventions.untouched(classifier.config)]
    if not all_edits:
        output = MBT(classifier.config).apply({"params": classifier.params}, batch)
        return {s: np.asarray(x) for s, x in output.stream_logits.items()}
    output = interventions.operated(classifier, batch, all_edits)
    return {s: x[:, 0] for s, x in output.stream_logits.items()}


def fused(classifier) -> bool:
    return classifier.config.fuses(classifier.config.depth - 1, training=False)


@with_bottleneck
def test_with_audio_to_video_knocked_out_video_does_not_depend_on_audio(config):
    classifier, clip = model(config), clip_of(config)
    loud = clip._replace(spec=clip.spec + 1)
    cut = explain.Intervention("knockout", reader="rgb")
    quiet, loudly = (streams_of(classifier, c, cut) for c in (clip, loud))
    np.testing.assert_array_equal(quiet["rgb"], loudly["rgb"])
    assert np.abs(quiet["spec"] - loudly["spec"]).max() > 1e-3
    free = [streams_of(classifier, c)["rgb"] for c in (clip, loud)]
    assert np.abs(free[0] - free[1]).max() > 1e-3
    alone = MBT(config).apply({"params": classifier.params}, Clip(rgb=clip.rgb[None]))
    np.testing.assert_allclose(quiet["rgb"], alone.stream_logits["rgb"], atol=1e-5)


def test_a_knockout_after_one_layer_leaves_earlier_layers_and_the_other_direction():
    classifier, clip = model(), clip_of()
    last = explain.Intervention("knockout", TINY.depth - 2, reader="rgb")
    cut, free = streams_of(classifier, clip, last), streams_of(classifier, clip)
    np.testing.assert_allclose(cut["spec"], free["spec"], atol=1e-5)
    assert np.abs(cut["rgb"] - free["rgb"]).max() > 1e-3


def test_empty_edits_change_nothing():
    classifier, batch = model(), maps.batched(model(), clip_of())
    as_it_is = interventions.operated(classifier, batch, [interventions.untouched(TINY)]).logits[0]
    np.testing.assert_allclose(as_it_is, classifier.logits(batch), atol=1e-5)


def without_edge(classifier, clip, layer: int, stream: str, change) -> np.ndarray:
    """Logits [C] of a forward pass in which one attention map was changed, then scaled to one."""

    def attention_probs(at, who, weights):
        if (at, who) != (layer, stream):
            return weights
        changed = change(weights)
        return changed / changed.sum(-1, keepdims=True)

    batch = maps.batched(classifier, clip)
    return np.asarray(
        apply_with_hooks(MBT(classifier.config), classifier.params, batch, attention_probs).logits[
            0
        ]
    )


def test_the_effect_of_an_edge_is_the_difference_of_two_forward_passes():
    classifier, clip, column = model(), clip_of(), 1
    flow = explain.flow(classifier, clip, LABELS[column])
    assert np.isfinite(flow.effect).sum() == 3 * 2 * 2 * 3
    np.testing.assert_array_equal(
        np.isfinite(flow.effect[0]), crossings(2, 5) & (np.arange(5) >= 0)
    )
    full = classifier.logits(maps.batched(classifier, clip))[0]
    written = without_edge(  # layer 1, audio into bottleneck token 2
        classifier, clip, 1, "spec", lambda w: w.at[:, :, 9 + 2, :9].set(0)
    )
    read = without_edge(  # layer 2, bottleneck token 0 into the video
        classifier, clip, 2, "rgb", lambda w: w.at[:, :, :13, 13].set(0)
    )
    assert flow.effect[0, 0, 4] == pytest.approx(full[column] - written[column], abs=1e-5)
    assert flow.effect[1, 2, 1] == pytest.approx(full[column] - read[column], abs=1e-5)
    assert np.abs(flow.effect[1, 2, 1]) > 1e-3
    np.testing.assert_allclose(flow.effect[-1, :2, 2:], 0, atol=1e-5)  # written, never read


def test_the_strongest_edges_come_with_their_names_and_effects():
    flow = explain.flow(model(), clip_of(), "ant")
    edges = flow.edges()
    source, target, layer, mass, effect = edges[0]
    at = flow.layers.index(layer), flow.groups.index(source), flow.groups.index(target)
    assert mass == flow.mass[at] == flow.mass[:, crossings(2, 5)].max()
    assert effect == flow.effect[at] and len(edges) == 3 * 12


def test_zero_ablation_equals_a_forward_pass_with_zeros():
    classifier, clip = model(), clip_of()
    batch = maps.batched(classifier, clip)

    def merge(layer, old, written, shared):
        gone = {s: x.at[:, 1].set(0) for s, x in shared.items()}
        return gone if layer == 2 else shared

    output = apply_with_hooks(MBT(TINY), classifier.params, batch, merge_bottlenecks=merge)
    expected = output.logits[0]
    result = explain.intervene(classifier, clip, [explain.Intervention("zero", 2, 1)])
    np.testing.assert_allclose(result.operated[0], expected, atol=1e-5)
    np.testing.assert_allclose(result.change[0], expected - result.logits, atol=1e-5)


def test_a_bottleneck_token_frozen_from_the_start_keeps_its_learned_value():
    classifier, clip = model(), clip_of()
    batch, learnt = maps.batched(classifier, clip), classifier.params["bottleneck"][0, 1]

    def merge(layer, old, written, shared):
        return {s: x.at[:, 1].set(learnt) for s, x in shared.items()} if layer == 1 else shared

    output = apply_with_hooks(MBT(TINY), classifier.params, batch, merge_bottlenecks=merge)
    expected = output.logits[0]
    result = explain.intervene(classifier, clip, [explain.Intervention("freeze", 1, 1)])
    np.testing.assert_allclose(result.operated[0], expected, atol=1e-5)


def test_patching_from_the_same_clip_changes_nothing_and_from_another_much():
    classifier, clip = model(), clip_of()
    own = explain.intervene(
        classifier, clip, explain.bottleneck_interventions(TINY, "patch"), other=clip
    )
    np.testing.assert_allclose(own.change, 0, atol=1e-5)
    other = explain.intervene(
        classifier, clip, [explain.Intervention("patch")], other=clip_of(seed=2)
    )
    assert np.abs(other.change).max() > 1e-2


def test_the_mean_over_data_weighs_every_clip_alike():
    classifier = model()
    clips = [maps.batched(classifier, clip_of(seed=s)) for s in range(3)]
    pair = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *clips[:2])
    result = explain.bottleneck_means(classifier, [pair, clips[2]])
    each = [interventions.bottlenecks_of(classifier, clip) for clip in clips]
    np.testing.assert_allclose(result, np.mean(each, axis=0), atol=1e-6)
    assert result.shape == (3, 3, 16)
    effects = explain.intervene(classifier, clip_of(), means=result)
    assert {one.kind for one in effects.operations} == {"knockout", "zero", "freeze", "mean"}


def test_the_strongest_intervention_is_named_and_the_table_is_sorted():
    effects = explain.Effects(
        LABELS,
        np.zeros(5),
        (explain.Intervention("zero", 1, 0), explain.Intervention("zero", 1, 2)),
        np.array([[0, 0.5, 0, 0, 0], [0, -2, 0, 0, 0]]),
    )
    assert effects.strongest("bee") == explain.Intervention("zero", 1, 2)
    assert effects.table("bee").splitlines() == [
        "   -2.00  bottleneck token 2 set to zero after layer 1",
        "   +0.50  bottleneck token 0 set to zero after layer 1",
    ]
    cut = explain.Intervention("knockout", reader="rgb")
    assert cut.words == "audio→video cut after every layer"


@pytest.mark.parametrize(
    ("operation", "sentence"),
    [
        (lambda: explain.Intervention("burn"), "a kind is one of"),
        (lambda: explain.Intervention("knockout"), "only a knockout has a reader"),
        (
            lambda: explain.intervene(model(), clip_of(), [explain.Intervention("zero", 0)]),
            "layers",
        ),
        (
            lambda: explain.intervene(model(), clip_of(), [explain.Intervention("zero", 1, 9)]),
            "3 bottleneck tokens",
        ),
        (
            lambda: explain.intervene(model(), clip_of(), [explain.Intervention("patch")]),
            "needs `other`",
        ),
        (lambda: explain.flow(model(FUSIONS["late"]), clip_of()), "no bottleneck"),
        (lambda: explain.relevance(model(), clip_of(), "cow"), "no label 'cow'"),
        (lambda: explain.bottleneck_means(model(), []), "at least one batch"),
    ],
)
def test_impossible_interventions_are_refused_in_a_sentence(operation, sentence):
    with pytest.raises(ValueError, match=sentence):
        operation()


def test_occlusion_is_the_drop_of_the_logit_without_a_patch():
    classifier, clip = model(), clip_of()
    result = explain.occlusion(classifier, clip, "dog")
    full = classifier.logits(maps.batched(classifier, clip))[0, 3]
    rgb, spec = clip.rgb.copy(), clip.spec.copy()
    rgb[2:4, 8:16, 16:24] = clip.rgb.mean((0, 1, 2))
    spec[8:16, 0:8] = clip.spec.mean(0)[:8]
    for changed, fall in (
        (clip._replace(rgb=rgb), result.rgb[1, 1, 2]),
        (clip._replace(spec=spec), result.spec[1, 0]),
    ):
        without = classifier.logits(maps.batched(classifier, changed))[0, 3]
        assert fall == pytest.approx(full - without, abs=1e-5)


def test_windows_tile_the_grid_and_neighbors_share_their_drop():
    windows = maps._windows((3, 5), (2, 2))
    assert windows.shape == (6, 3, 5) and (windows.sum(0) == 1).all()
    result = explain.occlusion(model(), clip_of(), "dog", {"rgb": (2, 2, 3), "spec": (2, 2)})
    assert np.ptp(result.rgb) == 0 and len(np.unique(result.spec)) == 2


def test_hidden_frames_are_those_that_the_model_samples():
    config = replace(TINY, rgb_sampled=2, rgb_patch=(1, 8, 8))
    clip = jax.tree.map(lambda x: x[None], clip_of(config))
    cells = np.zeros((1, *config.rgb_grid), bool)
    cells[0, 1] = True
    hidden = maps.hide(config, clip, {"rgb": jnp.asarray(cells)})
    changed = (np.asarray(hidden.rgb) != clip.rgb).any((0, 2, 3, 4))
    assert changed.tolist() == [False, False, False, True]


def test_the_attention_map_is_the_mean_over_layers_heads_and_bottleneck_tokens():
    classifier, clip = model(), clip_of()
    seen, result = classifier.attention(clip), explain.attention(classifier, clip)
    np.testing.assert_allclose(result.rgb, seen.rgb.mean((0, 1, 2)), atol=1e-7)
    np.testing.assert_allclose(result.spec, seen.spec.mean((0, 1, 2)), atol=1e-7)


def test_swapped_audio_gives_four_predictions_whose_effects_add_up():
    classifier, one, two = model(), clip_of(), clip_of(seed=2)
    swap = explain.swap_audio(classifier, one, two)
    mixed = classifier.logits(maps.batched(classifier, Clip(rgb=one.rgb, spec=two.spec)))[0]
    np.testing.assert_allclose(swap.logits[0, 1], mixed, atol=1e-5)
    cells = swap.cells("ant")
    whole = cells[0, 0] - cells[1, 1]
    assert swap.video("ant") + swap.audio("ant") == pytest.approx(whole, abs=1e-9)
    assert abs(swap.interaction("ant")) > 1e-3


def test_without_fusion_nothing_interacts():
    swap = explain.swap_audio(model(FUSIONS["late"]), clip_of(), clip_of(seed=2))
    assert max(abs(swap.interaction(label)) for label in LABELS) < 1e-5
    assert max(abs(swap.audio(label)) for label in LABELS) > 1e-2


def test_the_audio_share_is_shapleys_and_none_where_the_modalities_disagree():
    logits = np.zeros((2, 2, 5))
    logits[..., 0] = [[4, 1], [2, 0]]  # both, video only; audio only, none
    logits[..., 1] = [[0, 1], [-1, 0]]
    swap = explain.Swap(LABELS, ("the clip", "nothing"), logits)
    audio = ((4 - 1) + (2 - 0)) / 2  # what it adds, in both orders of entering
    assert swap.audio("ant") == audio and swap.interaction("ant") == 1
    assert swap.audio_share("ant") == pytest.approx(audio / 4)
    assert swap.audio_share("bee") is None and swap.audio_share("cat") is None


def test_probabilities_of_a_softmax_model_sum_to_one_after_every_change():
    heads, clip = make_heads("softmax", LABELS), clip_of()
    soft = Classifier(TINY, model().params, HEAR, LABELS, None, heads)
    swapped = explain.swap_audio(soft, clip, clip_of(seed=2))
    for result in (swapped, explain.perturb(soft, clip), explain.shift_audio(soft, clip, (0, 0.5))):
        np.testing.assert_allclose(result.probabilities.sum(-1), 1, atol=1e-6)


def test_each_modality_is_compared_with_black_and_silence():
    classifier, clip = model(), clip_of()
    result = explain.modality_shapley(classifier, clip)
    batch = maps.batched(classifier, clip)
    np.testing.assert_allclose(result.logits[0, 1], classifier.logits(batch, "spec")[0], atol=1e-5)
    np.testing.assert_allclose(result.logits[1, 0], classifier.logits(batch, "rgb")[0], atol=1e-5)


def test_perturbed_clips_are_the_clip_with_one_stream_changed():
    classifier, clip = model(), clip_of()
    result = explain.perturb(classifier, clip)
    assert len(result.names) == 8 and result.perturbed.shape == (8, 5)
    backwards = classifier.logits(maps.batched(classifier, clip._replace(spec=clip.spec[::-1])))
    at = result.names.index("audio reversed")
    np.testing.assert_allclose(result.perturbed[at], backwards[0], atol=1e-5)
    muted = classifier.logits(maps.batched(classifier, clip), "spec")[0]
    at = result.names.index("audio muted")
    np.testing.assert_allclose(result.perturbed[at], muted, atol=1e-5)


def test_noise_keeps_the_level_and_the_three_equal_channels_of_audio():
    noise = counterfactual._perturbations(0)["replaced by noise"](
        np.repeat(np.random.default_rng(0).normal(3, 2, (200, 16, 1)).astype("f4"), 3, axis=-1)
    )
    assert (noise[..., 0] == noise[..., 2]).all()
    assert noise.mean() == pytest.approx(3, abs=0.2) and noise.std() == pytest.approx(2, abs=0.2)


def test_shifted_audio_moves_by_its_seconds_and_the_gap_is_silent():
    classifier, clip = model(), clip_of()
    result = explain.shift_audio(classifier, clip, [-0.05, 0.0, 0.1])
    as_it_is = classifier.logits(maps.batched(classifier, clip))[0]
    np.testing.assert_allclose(result.logits[1], as_it_is, atol=1e-5)
    late = features.blank(maps.batched(classifier, clip), "spec", HEAR.front_end)
    late = np.array(late.spec[0])
    late[10:] = clip.spec[:-10]
    expected = classifier.logits(maps.batched(classifier, clip._replace(spec=late)))[0]
    np.testing.assert_allclose(result.logits[2], expected, atol=1e-5)


@pytest.fixture(scope="module")
def question():
    """Six clips with a singer, put to the embedded model."""
    return Question(load(), list(singing(6)))


def test_a_map_of_the_singer_scores_full_and_an_even_map_like_chance(question):
    on = [c[s.singer] for c, s in zip(question.covers, question.scenes, strict=True)]
    truth = np.stack([np.where(x == x.max(), 1.0, 0.0) for x in on])
    mass, hit, shape = question.on_singer(truth)
    np.testing.assert_allclose(mass, [x.max() for x in on])
    assert hit.all() and shape.all()
    even = question.on_singer(np.ones_like(truth))[0]
    np.testing.assert_allclose(even, question.chance()[0])
    assert 0.05 < even.mean() < 0.2
    pairs = zip(question.covers, question.scenes, strict=True)
    wrong = np.stack([cover[scene.singer - 1] for cover, scene in pairs])
    assert not question.on_singer(wrong - np.stack(on))[2].any()


def test_covers_are_where_the_shapes_were_drawn(question):
    scene, cover = question.scenes[0], question.covers[0]
    clip = question.classifier.clip_config
    times = (np.arange(clip.frames) + 0.5) * clip.frame_step
    bare = world.frames(replace(scene, things=scene.things[:1]), times, clip.size)
    without = world.frames(replace(scene, things=()), times, clip.size)
    changed = (bare != without).any(-1).reshape(4, 2, 4, 12, 4, 12).mean((1, 3, 5))
    assert (changed[cover[0] == 0] == 0).all() and changed[cover[0] > 0.9].all()


def test_the_highest_patches_of_both_streams_are_deleted_first(question):
    config = question.classifier.config
    drawn = {s: np.zeros((6, *config.grid(s))) for s in config.streams}
    drawn["rgb"][:, 1, 2, 3], drawn["spec"][:, 4, 5] = 2, 1
    order = question.order(drawn)
    spec = config.patches("spec")
    assert (order[:, spec + np.ravel_multi_index((1, 2, 3), config.rgb_grid)] == 0).all()
    assert (order[:, np.ravel_multi_index((4, 5), config.spec_grid)] == 1).all()
    deletion, insertion = question.curves(order)
    clips = question.classifier.logits(question.clips)[np.arange(6), question.labels]
    np.testing.assert_allclose(deletion[:, 0], 1 / (1 + np.exp(-clips)), atol=1e-5)
    np.testing.assert_allclose(insertion[:, -1], deletion[:, 0], atol=1e-6)
    np.testing.assert_allclose(insertion[:, 0], deletion[:, -1], atol=1e-6)


def test_agreement_is_the_rank_correlation_of_maps():
    rng = np.random.default_rng(0)
    one = {"rgb": rng.random((4, 3, 5, 5)), "spec": rng.random((4, 6, 6))}
    same = {s: np.exp(x) for s, x in one.items()}
    np.testing.assert_allclose(agreement(one, same), 1)
    np.testing.assert_allclose(agreement(one, {s: -x for s, x in one.items()}), -1)


@pytest.mark.slow
def test_the_scores_come_with_intervals_and_say_who_beats_chance():
    result = explain.faithfulness(load(), clips=6, methods=("attention", "gradient"))
    assert result.mean.shape == result.half.shape == (2, 6) and result.clips == 6
    assert np.isfinite(result.mean).all() and (result.half >= 0).all()
    assert set(result.curves.deletion) == {"random", "attention", "gradient"}
    gradient = result.curves.deletion["gradient"]
    np.testing.assert_allclose(gradient.mean(), result.mean[1, 3], atol=1e-6)
    assert result.beats_chance("gradient", "deletion")
    assert not result.beats_chance("gradient", "random weights")
    lines = result.table().splitlines()
    assert len(lines) == 5 and lines[-1].startswith("| chance |")


def test_scores_need_a_model_of_the_micro_world():
    with pytest.raises(ValueError, match="the world's labels"):
        explain.faithfulness(model(), 1)


def test_a_full_size_model_is_occluded_in_windows_and_its_gradient_needs_memory(monkeypatch):
    clip = Clip(rgb=jnp.zeros(()), spec=jnp.zeros(()))
    assert maps.coarse_windows(TINY, clip) is None
    assert maps.coarse_windows(BASE, clip) == {"rgb": (16, 2, 2), "spec": (8, 2)}
    monkeypatch.setattr(maps, "_memory", lambda: 24e9)
    large = Classifier(BASE, {}, HEAR, [""] * BASE.classes)
    with pytest.raises(ValueError, match="about 25 GB of memory.*choose occlusion"):
        maps.METHODS["gradient"](large, clip, jnp.array([0]))
