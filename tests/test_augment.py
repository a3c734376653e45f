"""What augmentation may change of a clip, and what it leaves: video, audio, mixing, presets."""

import colorsys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt_lite import features
from mbt_lite.config import NONE, PAPER, RELEASED, AugmentConfig, ClipConfig, FrontEnd
from mbt_lite.train import augment

pytestmark = pytest.mark.usefixtures("compiled_quickly")

GOLDEN = Path(__file__).parent / "golden" / "mixup.npz"
FRONT = FrontEnd(mean=-1.5, std=2.0)
CLIP = ClipConfig(frames=3, size=12, resize=16, spec_frames=40, front_end=FRONT)
B, T, H, W, N, M, C = 4, 3, 16, 28, 40, 16, 5
LUMA = np.array([0.2989, 0.5870, 0.1140])  # of an NTSC video, rounded as TensorFlow does

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles sooner
changed = jit(augment.augment, static_argnums=(2, 3))
LITTLE = replace(NONE, random_crop=True, flip=0.5, mel_masks=1)


def noise(shape=(B, T, H, W, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def batch(**others):
    rng = np.random.default_rng(1)
    return {
        "rgb": noise(),
        "spec": rng.normal(-1.5, 2, (B, N, M)).astype(np.float32),
        "labels": rng.integers(0, 2, (B, C)).astype(np.float32),
        "mask": np.ones(B, np.float32),
        "valid_size": np.full((B, 2), (H, W), np.int32),
        **others,
    }


def run(values, seed=0, config=RELEASED):
    return changed(values, jax.random.key(seed), config, CLIP)


def window(scaled, corner=(0, 0), flipped=False):
    return augment._Window(jnp.array(scaled), jnp.array(corner), jnp.array(flipped))


cut = jit(augment._cut, static_argnums=3)


# --- evaluation ----------------------------------------------------------------------------------


def test_without_augmentation_a_clip_is_its_middle_normalised_as_everywhere_else():
    given = batch()
    del given["valid_size"]
    out = run(given, config=NONE)
    middle = features.normalize(given["rgb"][:, :, 2:14, 8:20], given["spec"], FRONT)
    np.testing.assert_allclose(out["rgb"], middle.rgb, atol=2e-7)
    np.testing.assert_allclose(out["spec"], middle.spec[..., 0], atol=1e-6)
    for stream in ("rgb", "spec"):
        np.testing.assert_array_equal(out["labels"][stream], given["labels"])


def test_the_middle_is_that_of_each_picture_and_not_of_its_canvas():
    valid_size = np.array([[16, 28], [16, 16], [12, 13], [14, 21]], np.int32)
    given = batch(valid_size=valid_size)
    out = run(given, config=NONE)
    assert "valid_size" not in out
    for i, (height, width) in enumerate(valid_size):
        top, left = (height - 12) // 2, (width - 12) // 2
        crop = given["rgb"][i, :, top : top + 12, left : left + 12]
        np.testing.assert_allclose(out["rgb"][i], crop / 127.5 - 1, atol=2e-7)


# --- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PAPER, RELEASED], ids=["paper", "released"])
def test_every_value_stays_in_range_and_every_shape_as_promised(config):
    given = batch(rgb=np.where(noise() > 127, 255, 0).astype(np.uint8))  # the hardest colors
    for seed in range(3):
        out = run(given, seed, config)
        assert out["rgb"].shape == (B, T, 12, 12, 3) and out["spec"].shape == (B, N, M)
        assert np.abs(out["rgb"]).max() <= 1 and np.isfinite(out["spec"]).all()
        for stream in ("rgb", "spec"):
            labels = np.asarray(out["labels"][stream])
            assert labels.shape == (B, C) and 0 <= labels.min() and labels.max() <= 1


def test_the_same_key_gives_the_same_batch_and_another_key_another_one():
    first, again, other = (run(batch(), seed, RELEASED) for seed in (7, 7, 8))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for stream in ("rgb", "spec"):
        assert (np.abs(first[stream] - other[stream]).max(axis=(1, 2)) > 1e-3).all()


def test_all_frames_of_a_clip_are_changed_alike():
    still = np.repeat(noise((B, 1, H, W, 3)), T, 1)
    for seed in range(3):
        out = run(batch(rgb=still), seed)["rgb"]
        np.testing.assert_allclose(out, np.repeat(out[:, :1], T, 1), atol=1e-6)


# --- scale, crop, flip ---------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [(16, 28), (14, 25), (21, 37), (13, 36), (12, 12)])
def test_one_sampling_equals_scaling_then_cropping_then_flipping(scaled):
    frames = noise((T, H, W, 3))
    corner = (scaled[0] - 12) // 3, scaled[1] - 12
    whole = jax.image.resize(
        frames.astype(np.float32), (T, *scaled, 3), "linear", antialias=False
    )  # [T, *scaled, 3]
    crop = whole[:, corner[0] : corner[0] + 12, corner[1] : corner[1] + 12]
    for flipped, expected in ((False, crop), (True, crop[:, :, ::-1])):
        got = cut(frames, jnp.array([H, W]), window(scaled, corner, flipped), 12)
        np.testing.assert_allclose(got, expected, atol=1e-3)  # of 255


def test_no_pixel_of_the_padding_is_ever_seen():
    """The padding is white and the video black, so a leak of any share would be bright."""
    valid_size = np.array([[16, 16], [12, 28], [13, 19], [0, 0]], np.int32)  # one without video
    shown = np.maximum(valid_size, 1)
    inside = (np.arange(H)[:, None] < shown[:, :1, None]) & (np.arange(W) < shown[:, 1:, None])
    rgb = np.broadcast_to(
        np.where(inside, 0, 255).astype(np.uint8)[:, None, ..., None], noise().shape
    )
    config = replace(NONE, random_crop=True, flip=0.5, scale=(0.6, 1.6))
    for seed in range(20):
        out = run(batch(rgb=rgb, valid_size=valid_size), seed, config)
        np.testing.assert_array_equal(out["rgb"], -1)


def test_crops_reach_every_corner_and_both_sides_and_scales_stop_at_the_crop():
    keys = jax.random.split(jax.random.key(0), 512)
    config = replace(NONE, random_crop=True, flip=0.5, scale=(0.5, 2.0))
    draw = jit(jax.vmap(lambda key: augment._draw_window(key, jnp.array([20, 40]), config, 12)))
    scaled, corner, flipped = map(np.asarray, draw(keys))
    assert scaled[:, 0].min() == 12 and 12 < scaled[:, 1].min() < 24
    assert (scaled.max(0) >= [37, 75]).all() and (scaled < [40, 80]).all()
    assert abs(np.corrcoef(scaled.T)[0, 1]) < 0.15
    room = scaled - 12
    assert (corner >= 0).all() and (corner <= room).all()
    assert (corner == 0).any(0).all() and (corner == room).any(0).all()
    assert 0.4 < flipped.mean() < 0.6


# --- color --------------------------------------------------------------------------------------


def by_colorsys(color, change):
    out = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*p))) for p in color[..., 0].T.tolist()]
    return np.array(out).T[..., None]


@pytest.mark.parametrize(
    "shift, saturation, contrast, hue", [(0.1, 1.3, 0.7, 0.15), (0.0, 0.0, 1.0, -0.5), (0, 9, 1, 0)]
)
def test_light_is_brightness_saturation_contrast_and_hue_in_this_order(
    shift, saturation, contrast, hue
):
    frames = np.random.default_rng(0).uniform(0.1, 0.8, (2, 5, 4, 3)).astype(np.float32)
    frames[:, 0] = frames[:, 0, :, :1]  # grays
    frames[:, 1, :, 1] = frames[:, 1, :, 0]  # two channels alike
    got = augment._relight(
        jnp.asarray(frames), *map(jnp.float32, (shift, saturation, contrast, hue))
    )
    color = np.moveaxis(frames, -1, 0) + shift
    rich = by_colorsys(color.reshape(3, -1, 1), lambda h, s, v: (h, min(s * saturation, 1), v))
    rich = rich.reshape(color.shape)
    mean = rich.mean((-2, -1), keepdims=True)
    spread = (rich - mean) * contrast + mean
    assert spread.min() >= 0  # so that HSV by hand needs no clipping
    turned = by_colorsys(spread.reshape(3, -1, 1), lambda h, s, v: ((h + hue) % 1, s, v))
    np.testing.assert_allclose(got, np.moveaxis(turned.reshape(color.shape), 0, -1), atol=5e-6)


def test_light_changes_as_often_and_as_far_as_the_configuration_says():
    """Of 400 gray clips, which only brightness changes: share changed, and by how much."""
    frames = jnp.zeros((1, 2, 2, 3))
    keys = jax.random.split(jax.random.key(0), 400)
    draw = jit(jax.vmap(lambda key: augment._random_light(frames, key, RELEASED)))
    change = np.asarray(draw(keys))[:, 0, 0, 0, 0]
    assert 0.75 < (change != 0).mean() < 0.85
    assert 0.24 < np.abs(change).max() <= 2 * 32 / 255 + 1e-6
    assert abs(change.mean()) < 0.02


def test_a_clip_without_colors_has_equal_channels_and_its_luma():
    given = batch()
    config = replace(NONE, gray=1.0)
    out = np.asarray(run(given, config=config)["rgb"])
    np.testing.assert_array_equal(out, np.repeat(out[..., :1], 3, -1))
    plain = np.asarray(run(given, config=NONE)["rgb"])
    np.testing.assert_allclose(out[..., 0], plain @ LUMA, atol=1e-6)


# --- audio ---------------------------------------------------------------------------------------


def bands(config, clips=400, shape=(800, 128), seed=0):
    """Which rows [clips, N] and which columns [clips, M] are silenced."""
    spec = jnp.ones((clips, *shape))
    masked = jit(augment.spec_augment, static_argnums=2)(spec, jax.random.key(seed), config) == 0
    return np.asarray(masked.all(2)), np.asarray(masked.all(1)), np.asarray(masked)


def runs(row):
    """How many separate bands a row of booleans holds."""
    return int((np.diff(np.concatenate([[0], row.astype(int)])) == 1).sum())


def test_the_paper_silences_one_band_of_time_and_one_of_frequency():
    rows, columns, masked = bands(PAPER)
    np.testing.assert_array_equal(masked, rows[:, :, None] | columns[:, None])
    for each, widest in ((rows, 192), (columns, 48)):
        assert max(map(runs, each)) == 1
        widths = each.sum(1)
        assert widest - 6 < widths.max() < widest
        assert abs(widths.mean() - (widest - 1) / 2) < 0.1 * widest
        assert each.any(0).mean() > 0.97  # nearly every place is silenced in some clip
    rows, columns, _ = bands(RELEASED)  # its time masks have a ratio of 0, which switches them off
    assert RELEASED.time_masks == 4 and not rows.any() and 40 < columns.sum(1).max() < 48
    short = replace(NONE, time_masks=1, mel_masks=1, time_mask_ratio=0.1)
    rows, columns, _ = bands(short, shape=(40, 8))
    assert rows.sum(1).max() == 3 and columns.sum(1).max() == 7


# --- mixing of clips -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["mixup", "mixmod", "single_rgb_mixmod"])
def test_mixing_equals_scenics(case, record_property):
    golden = np.load(GOLDEN, allow_pickle=False)
    names = {"rgb": "rgb", "spec": "spectrogram"}
    names = {ours: name for ours, name in names.items() if f"{case}/inputs/{name}" in golden}
    given = {ours: golden[f"inputs/{name}"] for ours, name in names.items()}
    given["labels"] = dict.fromkeys(names, golden["label"])
    drawn = golden["weights"] if "mixmod" in case else np.repeat(golden["weights"][:1], 2)
    weights = {s: jnp.float32(w) for s, w in zip(names, drawn, strict=False)}
    out = jit(augment.mix)(given, weights)
    errors = []
    for ours, name in names.items():
        errors.append(np.abs(out[ours] - golden[f"{case}/inputs/{name}"]).max())
        errors.append(np.abs(out["labels"][ours] - golden[f"{case}/label/{name}"]).max())
    record_property("error", f"{max(errors):.1e}")
    assert max(errors) < 1e-6


def weights_of(given, out):
    """The share of itself that each clip kept, per stream [B], from one-hot labels."""
    own = given["labels"].argmax(1)
    return {s: np.asarray(v)[np.arange(len(own)), own] for s, v in out["labels"].items()}


def one_hot():
    return batch(labels=np.eye(B, C, dtype=np.float32))


MIXUP = replace(NONE, mixup=0.4)


@pytest.mark.parametrize("mixmod", [False, True])
def test_streams_share_one_weight_unless_each_has_its_own(mixmod):
    shares = weights_of(one_hot(), run(one_hot(), 3, replace(MIXUP, mixmod=mixmod)))
    for stream in ("rgb", "spec"):
        np.testing.assert_allclose(shares[stream], shares[stream][0], rtol=1e-6)
    assert (abs(shares["rgb"][0] - shares["spec"][0]) > 1e-3) == mixmod


def test_the_weight_follows_its_beta_distribution():
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)): 0.139 for the 0.4 of this test."""
    given = {"labels": {"spec": jnp.eye(2)}, "spec": jnp.zeros((2, 1, 1))}
    draw = jit(jax.vmap(lambda key: augment.mixup(given, key, MIXUP)["labels"]["spec"][0, 0]))
    shares = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / (4 * 1.8)) < 0.01


def test_padding_is_never_mixed_into_a_clip():
    given = one_hot() | {"mask": np.array([1, 1, 1, 0], np.float32)}
    given["spec"][3] = np.nan
    plain, out = run(given, config=NONE), run(given, config=MIXUP)
    for stream in ("rgb", "spec"):
        np.testing.assert_array_equal(out[stream][0], plain[stream][0])  # its partner is padding
        assert np.abs(out[stream][1] - plain[stream][1]).max() > 1e-3  # its partner is a clip
    np.testing.assert_array_equal(out["labels"]["rgb"][0], given["labels"][0])


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"flip": 1.5}, "augment.flip=1.5 must lie in 0..1"),
        ({"scale": (1.33, 0.9)}, "augment.scale=.* must rise"),
        ({"scale": (0.0, 1.0)}, "must be above 0"),
        ({"time_mask": -1}, "augment.time_mask=-1 must be 0 or more"),
        ({"hue": 0.7}, "half a turn"),
        ({"mixmod": True}, "Beta"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_in_a_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        AugmentConfig(**fields)


@pytest.mark.parametrize(
    "values, config, sentence",
    [
        ({"rgb": noise().astype(np.float32)}, NONE, r"float32 \[4, 3, 16, 28, 3\].*must be uint8"),
        (
            {"rgb": noise((B, T, 10, 28, 3))},
            NONE,
            "does not fit frames padded to 10 x 28",
        ),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_in_a_sentence(values, config, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(batch(**values), config=config)
