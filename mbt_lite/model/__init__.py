"""The Multimodal Bottleneck Transformer, its attention, what it shows of itself, what it costs."""

from mbt_lite.model.mbt import MBT, Clip, Output, blank_clip, init_params

__all__ = ["MBT", "Clip", "Output", "blank_clip", "init_params"]
