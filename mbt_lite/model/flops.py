"""Parameters, multiply-adds and operations of a model, from its architecture alone."""

import math
from typing import NamedTuple

from mbt_lite.config import MBTConfig

# Operations outside of matrix products, as XLA counts them: one for an addition or multiplication,
# none for exp and tanh, which it lists separately.
NORM = 7  # per value of a LayerNorm: sum, square, sum of squares; - mean, / std, * scale, + bias
SOFTMAX = 5  # per score: / sqrt(d), maximum, - maximum, sum, / sum
GELU = 8  # per value: cube (2), * 0.044715, + x, * sqrt(2 / pi); + 1, * 0.5, * x


class ModelCost(NamedTuple):
    """Cost of a model; the last two are for the forward pass of one clip."""

    parameters: int
    macs: int  # multiply-adds of its matrix products
    flops: int  # operations: two per multiply-add, plus norms, softmax and activations

    @property
    def gmacs(self) -> float:
        return self.macs / 1e9

    @property
    def gflops(self) -> float:
        return self.flops / 1e9


def model_cost(config: MBTConfig) -> ModelCost:
    """Count a model's parameters and operations at test time, from its architecture alone.

    Joint attention with separate encoders is counted as the original code runs it: each stream's
    block processes the tokens of all streams, and its results for the other stream are discarded.
    """
    runs = [length for layer in range(config.depth) for length in sequences(config, layer)]
    macs, other = _ends(config)
    macs += sum(_block_macs(config, length) for length in runs)
    other += sum(_block_other(config, length) for length in runs)
    parameters = sum(map(math.prod, parameter_shapes(config).values()))
    return ModelCost(parameters, macs, 2 * macs + other)


def _tokens(config: MBTConfig, stream: str) -> int:
    """Number of a stream's tokens, including the class token."""
    return config.patches(stream) + (config.pool == "token")


def sequences(config: MBTConfig, layer: int) -> list[int]:
    """The lengths of all sequences that go through the blocks of a layer at test time."""
    lengths = [_tokens(config, stream) for stream in config.streams]
    if not config.fuses(layer, training=False):
        return lengths
    if config.fusion == "bottleneck":
        return [length + config.bottlenecks for length in lengths]
    return [sum(lengths)] * (1 if config.shared_encoder else len(lengths))


def _block_macs(config: MBTConfig, length: int) -> int:
    dense = length * config.width * (4 * config.width + 2 * config.mlp_dim)
    return dense + 2 * length**2 * config.width


def _block_other(config: MBTConfig, length: int) -> int:
    biases_and_residuals = 5 * config.width + config.mlp_dim + 2 * config.width
    values = 2 * NORM * config.width + GELU * config.mlp_dim + biases_and_residuals
    return length * values + SOFTMAX * config.heads * length**2


def _ends(config: MBTConfig) -> tuple[int, int]:
    """(multiply-adds, other operations) of the embedding before and the head after the blocks."""
    patches = {stream: config.patches(stream) for stream in config.streams}
    values = sum(_tokens(config, stream) for stream in config.streams) * config.width
    macs = sum(n * _patch_size(config, s) * config.width for s, n in patches.items())
    macs += _heads(config) * _head_size(config)
    pooling = 0 if config.pool == "token" else 2 * values
    return macs, (NORM + 2) * values + pooling


def _heads(config: MBTConfig) -> int:
    """How often the head is applied: to each stream, and once more to the pooled tokens of all."""
    return len(config.streams) + (config.pool != "token")


def _head_size(config: MBTConfig) -> int:
    if not config.representation:
        return config.width * config.classes
    return config.representation * (config.width + config.classes)


def _patch_size(config: MBTConfig, stream: str) -> int:
    """Numbers in one patch, three channels each."""
    size = 3
    for side in config.patch(stream):
        size *= side
    return size


def parameter_shapes(config: MBTConfig) -> dict[str, tuple[int, ...]]:
    """{slash-joined name: shape} of every parameter; `init_params` makes arrays of these."""
    c, shapes = config, {}
    for s in c.streams:
        shapes |= _dense(f"{s}_embedding", _patch_size(c, s), c.width)
        shapes[f"{s}_positions"] = (1, _tokens(c, s), c.width)
        if c.pool == "token":
            shapes[f"{s}_cls"] = (1, 1, c.width)
    if c.fusion == "bottleneck" and len(c.streams) > 1:
        shapes["bottleneck"] = (1, c.bottlenecks, c.width)
    for layer in range(c.depth):
        for encoder in [""] if c.shared_encoder else [f"{s}_" for s in c.streams]:
            shapes |= _block_shapes(f"{encoder}block_{layer}", c)
    shapes |= _norm("final_norm", c.width)
    if c.representation:
        shapes |= _dense("pre_logits", c.width, c.representation)
    return shapes | _dense("head", c.representation or c.width, c.classes)


def _block_shapes(name: str, config: MBTConfig) -> dict[str, tuple[int, ...]]:
    width = config.width
    return {
        **_norm(f"{name}/attention_norm", width),
        **_dense(f"{name}/attention/qkv", width, 3 * width),
        **_dense(f"{name}/attention/out", width, width),
        **_norm(f"{name}/mlp_norm", width),
        **_dense(f"{name}/mlp_in", width, config.mlp_dim),
        **_dense(f"{name}/mlp_out", config.mlp_dim, width),
    }


def _dense(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}
