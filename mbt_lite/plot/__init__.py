"""Plot arrays: spectrograms, attention over frames and audio, probabilities, training curves.

These functions only draw: they do not decode, predict or show. One panel is returned as `Axes`,
several panels as a `Figure`, outside pyplot, so that they are safe in the threads of a server; in a
notebook, end a cell with `plot.spectrogram(spec, front_end).figure`. A function `..._alt` describes
the data of a figure in words.
"""

from mbt_lite.plot.audio import spectrogram, spectrogram_alt
from mbt_lite.plot.doctor import doctor
from mbt_lite.plot.evaluation import (
    conditions,
    conditions_alt,
    front_end_match,
    front_end_match_alt,
)
from mbt_lite.plot.faithfulness import (
    deletion,
    deletion_alt,
    faithfulness,
    faithfulness_alt,
)
from mbt_lite.plot.flow import flow, flow_alt
from mbt_lite.plot.maps import attention, attention_alt, film, saliencies, saliencies_alt
from mbt_lite.plot.scores import chart, compare_bars, curves, curves_alt
from mbt_lite.plot.style import COLORS, CYCLE, save
from mbt_lite.plot.training import (
    Sample,
    samples,
    samples_alt,
    sweep,
    sweep_alt,
    training,
    training_alt,
)

__all__ = [
    "COLORS", "CYCLE", "Sample", "attention", "attention_alt", "chart", "compare_bars",
    "conditions", "conditions_alt", "curves", "curves_alt", "deletion", "deletion_alt",
    "doctor", "faithfulness", "faithfulness_alt", "film", "flow", "flow_alt", "front_end_match",
    "front_end_match_alt", "saliencies", "saliencies_alt", "samples", "samples_alt", "save",
    "spectrogram", "spectrogram_alt", "sweep", "sweep_alt", "training", "training_alt",
]  # fmt: skip
