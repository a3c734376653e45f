"""The optimizer: learning-rate schedule, update rules, moving average of the weights."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from mbt_lite.config import TrainConfig

HEAD = ("head", "pre_logits")  # all other parameters are the backbone


class Hyperparameters(NamedTuple):
    """Numbers of a run that are arguments of the compiled step, so that others share it."""

    steps: ArrayLike
    learning_rate: ArrayLike
    warmup: ArrayLike  # steps
    weight_decay: ArrayLike
    clip_norm: ArrayLike
    ema: ArrayLike
    label_smoothing: ArrayLike

    @classmethod
    def of(cls, config: TrainConfig) -> "Hyperparameters":
        """Those of a run, float32 each."""
        values = {name: getattr(config, name) for name in cls._fields}
        values["warmup"] = config.warmup_steps
        return cls(**{name: jnp.float32(value) for name, value in values.items()})


def schedule(
    config: TrainConfig, hyperparameters: Hyperparameters | None = None
) -> Callable[[ArrayLike], Array]:
    """step, counted from 0 → learning rate: linear warm-up, times half a cosine or constant.

    With a warm-up the first step has the rate 0. The cosine is almost 0 at the last step, and
    would restart after it (Scenic's schedule "constant * cosine_decay * linear_warmup").
    """
    hyperparameters = hyperparameters or Hyperparameters.of(config)
    warmup = hyperparameters.warmup

    def rate(step: ArrayLike) -> Array:
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.where(step < warmup, step / jnp.maximum(warmup, 1e-6), 1.0)
        if config.schedule == "constant":
            return hyperparameters.learning_rate * rising
        length = jnp.maximum(hyperparameters.steps - jnp.floor(warmup), 1)
        progress = jnp.maximum(0.0, step - warmup) / length
        falling = 0.5 * (1 + jnp.cos(jnp.pi * (progress % 1.0)))
        return hyperparameters.learning_rate * rising * falling

    return rate


def make_optimizer(
    config: TrainConfig,
    hyperparameters: Hyperparameters | None = None,
    rate: Callable[[ArrayLike], Array] | None = None,
) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW or Scenic's momentum, at the rate of the `schedule` or `rate`.

    AdamW decays matrices only. Momentum is m = beta m + (g + decay p) and p -= rate m, without
    dampening.
    """
    hyperparameters = hyperparameters or Hyperparameters.of(config)
    rate = rate or schedule(config, hyperparameters)
    parts = [optax.clip_by_global_norm(hyperparameters.clip_norm)] if config.clip_norm else []
    if config.optimizer == "adamw":
        decay = {"weight_decay": hyperparameters.weight_decay, "mask": _matrices}
        parts.append(optax.adamw(rate, b2=config.beta2, **decay))
    else:
        if config.weight_decay:
            parts.append(optax.add_decayed_weights(hyperparameters.weight_decay))
        if config.momentum:
            parts.append(optax.trace(config.momentum))
        parts.append(optax.scale_by_learning_rate(rate))
    if config.backbone_rate != 1:
        rates = {"head": optax.identity(), "backbone": optax.scale(config.backbone_rate)}
        parts.append(optax.partition(rates, _head_or_backbone))
    return optax.chain(*parts)


def _matrices(params: dict) -> dict:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _head_or_backbone(params: dict) -> dict:
    return {name: "head" if name in HEAD else "backbone" for name in params}


def ema_update(average: dict, params: dict, step: Array, decay: ArrayLike) -> dict:
    """The moving average after one more step; its decay starts lower, for a good start.

    `step` counts from 0.
    """
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, average, 1 - decay)


def group_norms(gradient: dict, streams: Sequence[str]) -> dict[str, Array]:
    """{stream: norm of the gradient of the parameters that belong to this stream alone}."""
    return {
        stream: optax.tree.norm({k: v for k, v in gradient.items() if k.startswith(f"{stream}_")})
        for stream in streams
    }
