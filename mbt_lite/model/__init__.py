"""The Multimodal Bottleneck Transformer: the model, its attention, how to observe it, its cost."""

from mbt_lite.model.attention import Attention, attention_weights
from mbt_lite.model.mbt import MBT, Block, Clip, Output, blank_clip, init_params, patchify

__all__ = [
    "MBT",
    "Attention",
    "Block",
    "Clip",
    "Output",
    "attention_weights",
    "blank_clip",
    "init_params",
    "patchify",
]
