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
with_bottleneck = pytest.mark.parametrize("name", ["bottleneck", "one encoder"])


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


@pytest.mark.parametrize("fusion", ["bottleneck", "mean of tokens", "joint", "cross"])
def test_rollout_equals_the_plain_definition_in_float64(fusion, agree):
    config = FUSIONS[fusion]
    classifier, clip = model(config), clip_of(config)
    row = at_the_answer(config)
    for matrix in reversed(dense(config, every_map(classifier, clip))):
        np.testing.assert_allclose(matrix.sum(1)[row > 0], 1, atol=1e-6)
        row = row @ (0.5 * matrix + 0.5 * np.eye(len(matrix)))
    result = explain.saliency(classifier, clip, "rollout")
    for s, expected in patches_of(config, row).items():
        agree(s, getattr(result, s), expected, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["bottleneck", "cross"])
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
    result = explain.saliency(classifier, clip, "gradient", "cat")
    for s, expected in patches_of(config, row).items():
        agree(s, getattr(result, s), expected, 2e-6)


@with_bottleneck
def test_the_mass_of_a_flow_is_conserved_and_crosses_only_through_bottleneck_tokens(name):
    config = FUSIONS[name]
    flow = explain.flow(model(config), clip_of(config), "bee", effects=False)
    assert flow.groups == ("audio", "video", *(f"bottleneck token {k}" for k in range(3)))
    np.testing.assert_allclose(flow.mass.sum((1, 2)), 1, atol=1e-6)
    np.testing.assert_allclose(flow.mass[:-1].sum(1), flow.mass[1:].sum(2), atol=1e-6)
    assert (flow.mass[:, 0, 1] == 0).all() and (flow.mass[:, 1, 0] == 0).all()
    assert (flow.mass[-1][:, 2:] == 0).all()  # nobody reads what the last layer writes
    assert (flow.mass[:-1, :2, 2:] > 0).all()


def test_the_map_of_the_flow_is_the_part_of_the_rollout_that_crossed():
    classifier, clip = model(), clip_of()
    whole, crossed = (explain.saliency(classifier, clip, m) for m in ("rollout", "flow"))
    assert 0 < crossed.rgb.sum() < whole.rgb.sum()
    apart = explain.saliency(model(FUSIONS["late"]), clip, "flow")
    assert not apart.rgb.any() and not apart.spec.any()


def streams_of(classifier, clip, *operations) -> dict[str, np.ndarray]:
    """{stream: logits [K, C]} of a clip under operations, or [1, C] as it is."""
    all_edits = [interventions.edits(classifier.config, one) for one in operations]
    all_edits = all_edits or [interventions.untouched(classifier.config)]
    output = interventions.operated(classifier, maps.batched(classifier, clip), all_edits)
    return {s: x[:, 0] for s, x in output.stream_logits.items()}


@with_bottleneck
def test_with_audio_to_video_knocked_out_video_does_not_depend_on_audio(name):
    config = FUSIONS[name]
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


@pytest.mark.parametrize(("kind", "layer"), [("zero", 2), ("freeze", 1)])
def test_ablation_equals_a_forward_pass_with_zeros_or_the_learned_value(kind, layer):
    classifier, clip = model(), clip_of()
    batch, learned = maps.batched(classifier, clip), classifier.params["bottleneck"][0, 1]

    def merge(at, old, written, merged):
        value = 0 if kind == "zero" else learned
        changed = {s: x.at[:, 1].set(value) for s, x in merged.items()}
        return changed if at == layer else merged

    output = apply_with_hooks(MBT(TINY), classifier.params, batch, merge_bottlenecks=merge)
    expected = output.logits[0]
    result = explain.intervene(classifier, clip, [explain.Intervention(kind, layer, 1)])
    np.testing.assert_allclose(result.operated[0], expected, atol=1e-5)
    np.testing.assert_allclose(result.changes("bee")[0], (expected - result.logits)[1], atol=1e-5)


def test_patching_from_the_same_clip_changes_nothing_and_from_another_much():
    classifier, clip, patch = model(), clip_of(), [explain.Intervention("patch", 1)]
    own = explain.intervene(classifier, clip, patch, other=clip)
    np.testing.assert_allclose(own.operated[0], own.logits, atol=1e-5)
    other = explain.intervene(classifier, clip, other=clip_of(seed=2))
    kinds = [one.kind for one in other.operations]
    assert list(dict.fromkeys(kinds)) == ["knockout", "zero", "freeze", "patch"]
    assert np.abs(other.operated[-kinds.count("patch") :] - other.logits).max() > 1e-2


def test_the_table_of_effects_is_sorted():
    effects = explain.Effects(
        LABELS,
        np.zeros(5),
        (explain.Intervention("zero", 1, 0), explain.Intervention("knockout", reader="rgb")),
        np.array([[0, 0.5, 0, 0, 0], [0, -2, 0, 0, 0]]),
    )
    assert effects.table("bee").splitlines() == [
        "   -2.00  audio→video cut after every layer",
        "   +0.50  bottleneck token 0 set to zero after layer 1",
    ]


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
            "needs another clip, `other`",
        ),
        (lambda: explain.flow(model(FUSIONS["late"]), clip_of()), "no bottleneck"),
        (lambda: explain.saliency(model(), clip_of(), "gradient", "cow"), "no label 'cow'"),
        (lambda: explain.saliency(model(), clip_of(), "guess"), "no map 'guess'"),
    ],
)
def test_impossible_interventions_are_refused_in_a_sentence(operation, sentence):
    with pytest.raises(ValueError, match=sentence):
        operation()


def test_occlusion_is_the_drop_of_the_logit_without_a_patch():
    classifier, clip = model(), clip_of()
    result = explain.saliency(classifier, clip, "occlusion", "dog")
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


def test_of_many_patches_windows_of_neighbors_are_hidden(monkeypatch):
    windows = maps._windows((3, 5), (2, 2))
    assert windows.shape == (6, 3, 5) and (windows.sum(0) == 1).all()
    assert maps.window_sizes(BASE, ("rgb", "spec")) == {"rgb": (16, 2, 2), "spec": (8, 2)}
    monkeypatch.setattr(maps, "MOST_PATCHES", 10)
    result = explain.saliency(model(), clip_of(), "occlusion", "dog")
    np.testing.assert_array_equal(result.rgb[0], result.rgb[1])  # a window has all frames


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
    seen, result = classifier.attention(clip), explain.saliency(classifier, clip, "attention")
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
    for result in (explain.swap_audio(soft, clip, clip_of(seed=2)), explain.perturb(soft, clip)):
        total = sum(result.probabilities(label) for label in LABELS)
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_perturbed_clips_are_the_clip_with_one_stream_changed():
    classifier, clip = model(), clip_of()
    result = explain.perturb(classifier, clip)
    assert len(result.names) == 9 and result.logits.shape == (9, 5)
    backwards = clip._replace(spec=clip.spec[::-1])
    for name, (changed, without) in {
        "as it is": (clip, None),
        "audio reversed": (backwards, None),
        "audio muted": (clip, "spec"),
    }.items():
        expected = classifier.logits(maps.batched(classifier, changed), without)[0]
        np.testing.assert_allclose(result.logits[result.names.index(name)], expected, atol=1e-5)


def test_noise_keeps_the_level_and_the_three_equal_channels_of_audio():
    noise = counterfactual._perturbations()["replaced by noise"](
        np.repeat(np.random.default_rng(0).normal(3, 2, (200, 16, 1)).astype("f4"), 3, axis=-1)
    )
    assert (noise[..., 0] == noise[..., 2]).all()
    assert noise.mean() == pytest.approx(3, abs=0.2) and noise.std() == pytest.approx(2, abs=0.2)


def test_shifted_audio_moves_by_its_seconds_and_the_gap_is_silent():
    classifier, clip = model(), clip_of()
    result = explain.shift_audio(classifier, clip, [-0.05, 0.1])
    assert result.names == ("as it is", "audio 0.05 s early", "audio 0.10 s late")
    late = features.blank(maps.batched(classifier, clip), "spec", HEAR.front_end)
    late = np.array(late.spec[0])
    late[10:] = clip.spec[:-10]
    expected = classifier.logits(maps.batched(classifier, clip._replace(spec=late)))[0]
    np.testing.assert_allclose(result.logits[2], expected, atol=1e-5)


@pytest.fixture(scope="module")
def question():
    """Six clips with a singer, put to the embedded model."""
    return Question(load("world-tiny"), list(singing(6)))


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
    result = explain.faithfulness(load("world-tiny"), clips=6, methods=("attention", "gradient"))
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


def test_the_gradient_of_a_full_size_model_needs_memory(monkeypatch):
    clip = Clip(rgb=jnp.zeros(()), spec=jnp.zeros(()))
    monkeypatch.setattr(maps, "_memory", lambda: 24e9)
    large = Classifier(BASE, {}, HEAR, [""] * BASE.classes)
    with pytest.raises(ValueError, match="about 25 GB of memory.*choose occlusion"):
        maps.METHODS["gradient"](large, clip, jnp.array([0]))
