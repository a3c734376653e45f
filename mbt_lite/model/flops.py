"""Count a model's parameters, multiply-adds and operations from its architecture."""

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
    return ModelCost(_parameters(config), macs, 2 * macs + other)


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


def _parameters(config: MBTConfig) -> int:
    width, mlp = config.width, config.mlp_dim
    block = 4 * width + 4 * width * (width + 1) + 2 * width * mlp + mlp + width
    encoders = 1 if config.shared_encoder else len(config.streams)
    total = encoders * config.depth * block + 2 * width  # the last two are the final norm's
    for stream in config.streams:
        total += (_patch_size(config, stream) + 1) * width  # patch embedding
        total += _tokens(config, stream) * width  # positions
        total += (config.pool == "token") * width  # class token
    if config.fusion == "bottleneck" and len(config.streams) > 1:
        total += config.bottlenecks * width
    biases = (config.representation or 0) + config.classes
    return total + _head_size(config) + biases
