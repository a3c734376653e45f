"""Augment a training batch on the accelerator: frames, spectrogram, mixup.

Pure functions of (batch, key) for use inside jit: the same key gives the same batch. Every clip has
its own random draws, which all its frames share. `NONE` is for evaluation: the center crop, scaled
as the model expects, without any draw.

B clips   T frames   H, W padded size   S side of the crop
N spectrogram frames   M mel bins   C classes

Shift, speed and pitch of the audio are ours. The rest differs from Scenic in four ways. Clips are
mixed over the whole batch, not on each device. Pixels are not rounded down to whole numbers after
scale jitter, which in Scenic darkens them by half a gray level on average. A video that the draw
would make smaller than the crop is scaled to the size of the crop, where Scenic's loader fails.
Padding is not mixed into clips.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer, Num, PRNGKeyArray, Scalar, UInt8

from mbt_lite.config import AugmentConfig, ClipConfig

_LUMA = (0.2989, 0.5870, 0.1140)  # of red, green and blue in a gray image (ITU-R BT.601)
_Color = tuple[Array, Array, Array]  # red, green and blue, each [..., H, W]


def augment(batch: dict, key: PRNGKeyArray, config: AugmentConfig, clip: ClipConfig) -> dict:
    """The batch as the model takes it: rgb [B, T, S, S, 3] in [-1, 1], spec [B, N, M] standardized.

    Takes rgb uint8 [B, T, H, W, 3], already at short side `clip.resize`; valid_size int [B, 2], the
    height and width of each video in the upper left of its padded frames (default: all); spec
    log-mel [B, N, M]; labels [B, C]; mask [B], 1 for clips and 0 for padding. A stream may be
    absent. Labels come back as {stream: [B, C]}, everything else as it was. Raises ValueError for
    shapes that do not fit. The order of changes is Scenic's (scenic/projects/mbt/datasets,
    dmvr/processors).
    """
    frames_key, spec_key, mix_key = jax.random.split(key, 3)
    out = {name: value for name, value in batch.items() if name != "valid_size"}
    labels = jnp.asarray(batch["labels"])
    out["labels"] = {stream: labels for stream in _streams(batch)}
    if "rgb" in batch:
        frames, valid_size = jnp.asarray(batch["rgb"]), _valid_size(batch, clip)
        out["rgb"] = _augment_frames(frames, valid_size, frames_key, config, clip)
    if "spec" in batch:
        front = clip.front_end
        standardized = (jnp.asarray(batch["spec"], jnp.float32) - front.mean) / front.std
        warped = warp_spec(standardized, jax.random.fold_in(spec_key, 2), config)
        out["spec"] = spec_augment(warped, spec_key, config)
    return mixup(out, mix_key, config) if config.mixup else out


def _streams(batch: dict) -> list[str]:
    return [stream for stream in ("rgb", "spec") if stream in batch]


def _valid_size(batch: dict, clip: ClipConfig) -> Array:
    """Height and width [B, 2] of each video in its padded frames, at least one pixel."""
    rgb = batch["rgb"]
    if rgb.ndim != 5 or rgb.shape[-1] != 3 or rgb.dtype != jnp.uint8:
        raise ValueError(
            f"frames are {rgb.dtype} {list(rgb.shape)}; they must be uint8 [clips, frames, height, "
            "width, 3]."
        )
    padded_size = rgb.shape[2:4]
    if min(padded_size) < clip.size:
        raise ValueError(
            f"a crop of {clip.size} pixels does not fit frames padded to {padded_size[0]} x "
            f"{padded_size[1]}; bring the frames to a short side of {clip.resize} first."
        )
    full = jnp.broadcast_to(jnp.array(padded_size), (len(rgb), 2))
    return jnp.clip(batch.get("valid_size", full), 1, full)  # a padding row may have 0


# --- video -------------------------------------------------------------------------------------


class _Window(NamedTuple):
    """A crop: the video is scaled to `scaled`, cropped at `corner`, and perhaps flipped."""

    scaled: Array  # int [2], height and width
    corner: Array  # int [2], top and left, in the scaled video
    flipped: Array  # bool, left and right are swapped


def _augment_frames(
    frames: UInt8[Array, "B T H W 3"],
    valid_size: Integer[Array, "B 2"],
    key: PRNGKeyArray,
    config: AugmentConfig,
    clip: ClipConfig,
) -> Float[Array, "B T S S 3"]:
    """Frames [B, T, S, S, 3] in [-1, 1]: scale jitter, crop, flip, color, gray, in this order."""
    uncut = frames.shape[2:4] == (clip.size, clip.size) and config.scale == (1, 1)

    def augment_clip(frames, valid_size, key):
        window_key, light_key, gray_key = jax.random.split(key, 3)
        if uncut and not config.flip:  # nothing to sample: pixels stay where they are
            pixels = frames.astype(jnp.float32) / 127.5 - 1
        else:
            window = _draw_window(window_key, valid_size, config, clip.size)
            pixels = _cut(frames, valid_size, window, clip.size) / 127.5 - 1
        pixels = _random_light(pixels, light_key, config)
        return jnp.clip(_random_gray(pixels, gray_key, config), -1, 1)

    return jax.vmap(augment_clip)(frames, valid_size, jax.random.split(key, len(frames)))


def _draw_window(
    key: PRNGKeyArray, valid_size: Integer[Array, " 2"], config: AugmentConfig, size: int
) -> _Window:
    """The crop of one clip: random for training, in the center for evaluation."""
    draws = jax.random.uniform(key, (5,))
    low, high = config.scale
    factors = low + (high - low) * draws[:2]
    scaled = jnp.maximum((factors * valid_size).astype(jnp.int32), size)
    room = scaled - size
    drawn = (draws[2:4] * (room + 1)).astype(jnp.int32)  # 0 to room
    return _Window(scaled, drawn if config.random_crop else room // 2, draws[4] < config.flip)


def _cut(
    frames: UInt8[Array, "T H W 3"], valid_size: Integer[Array, " 2"], window: _Window, size: int
) -> Float[Array, "T S S 3"]:
    """The frames [T, S, S, 3] of a crop, 0 to 255: scaled, cropped and flipped in one sampling.

    Bilinear between pixel centres and without antialiasing, as TensorFlow resizes; samples beyond
    the video's last pixel take that pixel, so padding is never sampled.
    """
    along = jnp.arange(size)
    across = jnp.where(window.flipped, size - 1 - along, along)

    def crop(frame):
        for axis, steps in enumerate((along, across)):
            per_pixel = valid_size[axis] / window.scaled[axis]
            places = (window.corner[axis] + steps + 0.5) * per_pixel - 0.5
            frame = _between(frame, places, valid_size[axis] - 1, axis)
        return frame

    return jax.lax.map(crop, frames)  # unrolled, each use of a pixel would sample anew


def _between(values: Num[Array, "..."], places: Array, last: Array, axis: int) -> Array:
    """Values at fractional places 0..last along an axis, linear between neighbors."""
    places = jnp.clip(places, 0, last)
    below = jnp.floor(places).astype(jnp.int32)
    share = jnp.expand_dims(places - below, [i for i in range(values.ndim) if i != axis])
    before, after = (
        jnp.take(values, index, axis, mode="clip").astype(jnp.float32)
        for index in (below, jnp.minimum(below + 1, last))
    )
    return before * (1 - share) + after * share


def _random_light(
    frames: Float[Array, "T S S 3"], key: PRNGKeyArray, config: AugmentConfig
) -> Float[Array, "T S S 3"]:
    """Frames in [-1, 1] with color jitter, which `config.color` of all clips get."""
    if not config.color:
        return frames
    coin, *draws = jax.random.uniform(key, (5,))
    bounds = [(-config.brightness, config.brightness), config.saturation, config.contrast]
    bounds += [(-config.hue, config.hue)]
    drawn = [low + (high - low) * draw for draw, (low, high) in zip(draws, bounds, strict=True)]
    lit = 2 * jnp.clip(_relight((frames + 1) / 2, *drawn), 0, 1) - 1
    return jnp.where(coin < config.color, lit, frames)


def _random_gray(
    frames: Float[Array, "T S S 3"], key: PRNGKeyArray, config: AugmentConfig
) -> Float[Array, "T S S 3"]:
    """Frames, in `config.gray` of all clips in gray: the luma in all three channels."""
    if not config.gray:
        return frames
    luma = sum(weight * frames[..., i] for i, weight in enumerate(_LUMA))
    return jnp.where(jax.random.uniform(key) < config.gray, luma[..., None], frames)


def _relight(
    frames: Float[Array, "T H W 3"], shift: Scalar, saturation: Scalar, spread: Scalar, turn: Scalar
) -> Float[Array, "T H W 3"]:
    """Frames in [0, 1] after changes of brightness, saturation, contrast and hue, in this order."""
    color = _saturate(tuple(frames[..., i] + shift for i in range(3)), saturation)
    return jnp.stack(_turn_hue(_contrast(color, spread), turn), -1)


def _saturate(color: _Color, factor: Scalar) -> _Color:
    """Color with the saturation (max - min) / max times `factor`, at most 1; hue and max stay."""
    high, low = _highest(color), _lowest(color)
    chroma = jnp.maximum(high - low, 1e-12)
    ratio = jnp.where(high > 0, jnp.minimum(factor, high / chroma), 0)
    return tuple(high - (high - channel) * ratio for channel in color)


def _contrast(color: _Color, factor: Scalar) -> _Color:
    """Each channel [T, H, W] of each frame spread by `factor` around its mean."""
    means = [channel.mean((-2, -1), keepdims=True) for channel in color]
    return tuple((c - mean) * factor + mean for c, mean in zip(color, means, strict=True))


def _turn_hue(color: _Color, turn: Scalar) -> _Color:
    """Color with the hue turned by `turn` of the color circle; max and min stay."""
    red, green, blue = color
    high = _highest(color)
    chroma = high - _lowest(color)
    divisor = jnp.where(chroma > 0, chroma, 1)
    from_red, from_green = (green - blue) / divisor, 2 + (blue - red) / divisor
    from_blue = 4 + (red - green) / divisor
    hue = jnp.where(high == red, from_red, jnp.where(high == green, from_green, from_blue))
    turned = hue + 6 * turn  # sixths of the circle, from red on

    def channel(offset):
        place = turned + offset
        place -= 6 * jnp.floor(place / 6)
        return high - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)

    return channel(5), channel(3), channel(1)


def _highest(color: _Color) -> Array:
    return jnp.maximum(jnp.maximum(*color[:2]), color[2])


def _lowest(color: _Color) -> Array:
    return jnp.minimum(jnp.minimum(*color[:2]), color[2])


# --- audio ---------------------------------------------------------------------------------------


def warp_spec(
    spec: Float[Array, "B N M"], key: PRNGKeyArray, config: AugmentConfig
) -> Float[Array, "B N M"]:
    """Spectrograms [B, N, M] a little later or earlier, faster or slower, higher or lower.

    Both ends are continued by their last frame or bin.
    """
    if not (config.time_shift or config.speed or config.pitch):
        return spec
    frames, bins = map(jnp.arange, spec.shape[1:])
    middle = spec.shape[1] / 2

    def warp(spec, draws):
        shift, speed, pitch = draws
        times = middle + (frames - middle) * (1 + config.speed * speed)
        rows = _hats(times - config.time_shift * shift, len(frames))  # [N, N]
        return rows @ spec @ _hats(bins - config.pitch * pitch, len(bins)).T

    draws = jax.random.uniform(key, (len(spec), 3), minval=-1, maxval=1)
    return jax.vmap(warp)(spec, draws)


def _hats(places: Float[Array, " P"], count: int) -> Float[Array, "P L"]:
    """Weights [P, count] with which values at 0..count - 1 are interpolated at these places.

    A product of matrices is several times faster than gathering two neighbors.
    """
    places = jnp.clip(places, 0, count - 1)
    return jnp.maximum(0, 1 - jnp.abs(places[:, None] - jnp.arange(count)))


def spec_augment(
    spec: Float[Array, "B N M"], key: PRNGKeyArray, config: AugmentConfig
) -> Float[Array, "B N M"]:
    """Standardized log-mels [B, N, M] with bands of time and of frequency set to 0, their mean."""
    longest = int(spec.shape[1] * config.time_mask_ratio)
    bands = [
        (1, config.time_masks, min(config.time_mask, longest)),
        (2, config.mel_masks, min(config.mel_mask, spec.shape[2])),
    ]
    for band_key, (axis, count, widest) in zip(jax.random.split(key), bands, strict=True):
        if count and widest:
            keep = 1 - _draw_bands(band_key, len(spec), spec.shape[axis], count, widest)
            spec = spec * jnp.expand_dims(keep, 3 - axis)
    return spec


def _draw_bands(
    key: PRNGKeyArray, clips: int, length: int, count: int, widest: int
) -> Float[Array, "B L"]:
    """1 inside any of `count` bands of 0 to `widest` - 1 places, 0 elsewhere: [B, length]."""
    draws = jax.random.uniform(key, (2, clips, count, 1))
    width = (draws[0] * widest).astype(jnp.int32)
    start = (draws[1] * (length - width + 1)).astype(jnp.int32)
    place = jnp.arange(length)
    return ((start <= place) & (place < start + width)).any(1).astype(jnp.float32)


# --- mixing of clips -----------------------------------------------------------------------------


def mixup(batch: dict, key: PRNGKeyArray, config: AugmentConfig) -> dict:
    """The batch with every clip and its labels blended into those of its partner.

    The weight is drawn from Beta(a, a), once or with `config.mixmod` for each stream (modality
    mixup, paper section 4.2), so that the streams' labels differ.
    """
    streams = _streams(batch)
    count = len(streams) if config.mixmod else 1
    weights = jax.random.beta(key, config.mixup, config.mixup, (count,))
    return mix(batch, dict(zip(streams, jnp.broadcast_to(weights, len(streams)), strict=True)))


def mix(batch: dict, weights: dict[str, Float[Array, ""]]) -> dict:
    """weight * clip + (1 - weight) * partner in each of these streams and in its labels.

    Clip i has the i-th last as partner, as in Scenic. Where either of the two is padding (mask 0),
    both stay as they are.
    """
    real = jnp.asarray(batch.get("mask", jnp.ones(len(next(iter(batch["labels"].values())))))) > 0
    both = real & real[::-1]

    def blend(values: Num[Array, "B ..."], weight: Array) -> Array:
        along = both.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(along, weight * values + (1 - weight) * values[::-1], values)

    mixed = batch | {"labels": dict(batch["labels"])}
    for stream, weight in weights.items():
        mixed[stream] = blend(batch[stream], weight)
        mixed["labels"][stream] = blend(batch["labels"][stream], weight)
    return mixed
