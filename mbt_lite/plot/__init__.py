"""Plot arrays: spectrograms, attention over frames and audio, probabilities, training curves.

These functions only draw: they do not decode, predict or show. One panel is returned as `Axes`,
several panels as a `Figure`, outside pyplot, so that they are safe in the threads of a server; in a
notebook, end a cell with `plot.spectrogram(spec).figure`. Every figure has a function `..._alt`
that describes the data in words.
"""

from mbt_lite.plot.audio import AUDIO_MAP, spectrogram, spectrogram_alt
from mbt_lite.plot.doctor import doctor, doctor_alt
from mbt_lite.plot.effects import (
    CHANGE_MAP,
    effects,
    effects_alt,
    perturbations,
    perturbations_alt,
    shift,
    shift_alt,
    swap,
    swap_alt,
)
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
    saliencies,
    saliencies_alt,
)
from mbt_lite.plot.flow import flow, flow_alt
from mbt_lite.plot.maps import (
    ATTENTION_MAP,
    attention,
    attention_alt,
    attention_on_frames,
    attention_on_frames_alt,
    attention_on_spectrogram,
    attention_on_spectrogram_alt,
    film,
    upsample,
)
from mbt_lite.plot.scores import bars, bars_alt, compare_bars, curves, curves_alt
from mbt_lite.plot.style import COLORS, CYCLE, save
from mbt_lite.plot.training import (
    Sample,
    samples,
    samples_alt,
    scrubber,
    scrubber_alt,
    sweep,
    sweep_alt,
    training,
    training_alt,
)

__all__ = [
    "ATTENTION_MAP", "AUDIO_MAP", "CHANGE_MAP", "COLORS", "CYCLE", "Sample", "attention",
    "attention_alt", "attention_on_frames", "attention_on_frames_alt", "attention_on_spectrogram",
    "attention_on_spectrogram_alt", "bars", "bars_alt", "compare_bars", "conditions",
    "conditions_alt", "curves", "curves_alt", "deletion", "deletion_alt", "doctor", "doctor_alt",
    "effects", "effects_alt", "faithfulness", "faithfulness_alt", "film", "flow", "flow_alt",
    "front_end_match", "front_end_match_alt", "perturbations", "perturbations_alt", "saliencies",
    "saliencies_alt", "samples", "samples_alt", "save", "scrubber", "scrubber_alt", "shift",
    "shift_alt", "spectrogram", "spectrogram_alt", "swap", "swap_alt", "sweep", "sweep_alt",
    "training", "training_alt", "upsample",
]  # fmt: skip
