"""The optimizer: learning-rate schedule, update rules, moving average of the weights."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from mbt_lite.config import TrainConfig

HEAD = ("head", "pre_logits")  # all else is the backbone


def schedule(config: TrainConfig) -> Callable[[ArrayLike], Array]:
    """step, counted from 0 → learning rate: a linear warm-up times half a cosine, or times one.

    With a warm-up the first step has the rate 0. The cosine is all but 0 at the last step, and
    would begin anew after it (Scenic's schedule "constant * cosine_decay * linear_warmup").
    """
    warmup, steps = config.warmup_steps, config.steps

    def rate(step: ArrayLike) -> Array:
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.minimum(1.0, step / warmup) if warmup else jnp.ones_like(step)
        if config.schedule == "constant":
            return config.learning_rate * rising
        length = max(steps - int(warmup), 1)
        progress = jnp.maximum(0.0, step - warmup) / length
        return config.learning_rate * rising * 0.5 * (1 + jnp.cos(jnp.pi * (progress % 1.0)))

    return rate


def make_optimizer(
    config: TrainConfig, rate: Callable[[ArrayLike], Array] | None = None
) -> optax.GradientTransformation:
    """Gradient → update: clipped as a whole, then AdamW, or momentum as Scenic's trainer has it.

    The learning rate is that of the `schedule`, unless another function of the step is given.

    AdamW's weight decay is taken off matrices alone. Momentum is m = beta m + (g + decay p) and
    p -= rate m (no dampening); `kernel_decay` afterwards takes its share of the rate off kernels.
    """
    rate = rate or schedule(config)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    slower = [_slower_backbone(config.backbone_rate)] * (config.backbone_rate != 1)
    if config.optimizer == "adamw":
        matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
        decay = {"weight_decay": config.weight_decay, "mask": matrices}
        return optax.chain(clip, optax.adamw(rate, b2=config.beta2, **decay), *slower)
    parts = [clip]
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay))
    if config.momentum:
        parts.append(optax.trace(config.momentum, config.nesterov))
    parts.append(optax.scale_by_learning_rate(rate))
    if config.kernel_decay:
        parts.append(_decayed_kernels(rate, config.kernel_decay))
    return optax.chain(*parts, *slower)


def _slower_backbone(share: float) -> optax.GradientTransformation:
    """Updates of all but the head are a share of what they would be."""

    def update(updates, state, params=None):
        def scaled(name, part):
            return part if name in HEAD else jax.tree.map(lambda u: share * u, part)

        return {name: scaled(name, part) for name, part in updates.items()}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _decayed_kernels(rate: Callable, decay: float) -> optax.GradientTransformation:
    """p + u becomes (p + u) (1 - rate decay) in kernels."""

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params):
        share = rate(state.count) * decay

        def shrunk(path, u, p):
            kernel = "kernel" in jax.tree_util.keystr(path)
            return u - share * (p + u) if kernel else u

        changed = jax.tree_util.tree_map_with_path(shrunk, updates, params)
        return changed, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def ema_update(average: dict, params: dict, step: Array, decay: float) -> dict:
    """The running average after one more step; at first it forgets faster, so that it starts well.

    `step` counts from 0.
    """
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, average, 1 - decay)


def group_norms(gradient: dict, streams: Sequence[str]) -> dict[str, Array]:
    """{stream: norm of the gradient of all that belongs to this stream alone}."""
    return {
        stream: optax.tree.norm({k: v for k, v in gradient.items() if k.startswith(f"{stream}_")})
        for stream in streams
    }
