"""Plot arrays: spectrograms, attention over frames and audio, probabilities, training curves.

A function here draws: it does not decode, predict or show. One panel comes back as `Axes`, a strip
of panels as `Figure`. Without `ax` the figure is made outside pyplot, so that threads of a server
do not meet; in a notebook, end a cell with `plot.spectrogram(spec).figure`. Every video has a
function `..._alt` beside it that says in words what the data shows.
"""

from mbt_lite.plot.audio import AUDIO_MAP, spectrogram, spectrogram_alt
from mbt_lite.plot.cost import cost, cost_alt
from mbt_lite.plot.doctor import doctor, doctor_alt
from mbt_lite.plot.effects import (
    CHANGE_MAP,
    bottleneck_tokens,
    bottleneck_tokens_alt,
    effects,
    effects_alt,
)
from mbt_lite.plot.evaluation import (
    conditions,
    conditions_alt,
    precision_recall,
    precision_recall_alt,
    turned,
    turned_alt,
)
from mbt_lite.plot.faithfulness import deletion, deletion_alt, faithfulness, faithfulness_alt
from mbt_lite.plot.flow import flow, flow_alt
from mbt_lite.plot.front_ends import (
    front_end_match,
    front_end_match_alt,
    front_end_recovery,
    front_end_recovery_alt,
)
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
from mbt_lite.plot.saliency import saliencies, saliencies_alt
from mbt_lite.plot.scores import (
    bars,
    bars_alt,
    compare_bars,
    curves,
    curves_alt,
)
from mbt_lite.plot.scrubber import scrubber, scrubber_alt
from mbt_lite.plot.style import COLOURS, CYCLE, save
from mbt_lite.plot.swap import perturbations, perturbations_alt, shift, shift_alt, swap, swap_alt
from mbt_lite.plot.sweep import sweep, sweep_alt
from mbt_lite.plot.training import samples, samples_alt, training, training_alt

__all__ = [
    "ATTENTION_MAP",
    "CHANGE_MAP",
    "COLOURS",
    "CYCLE",
    "AUDIO_MAP",
    "attention",
    "attention_alt",
    "attention_on_frames",
    "attention_on_frames_alt",
    "attention_on_spectrogram",
    "attention_on_spectrogram_alt",
    "bars",
    "bars_alt",
    "front_end_recovery",
    "front_end_recovery_alt",
    "front_end_match",
    "front_end_match_alt",
    "compare_bars",
    "conditions",
    "conditions_alt",
    "cost",
    "cost_alt",
    "curves",
    "curves_alt",
    "deletion",
    "deletion_alt",
    "doctor",
    "doctor_alt",
    "effects",
    "effects_alt",
    "faithfulness",
    "faithfulness_alt",
    "film",
    "flow",
    "flow_alt",
    "precision_recall",
    "precision_recall_alt",
    "saliencies",
    "saliencies_alt",
    "samples",
    "samples_alt",
    "save",
    "scrubber",
    "scrubber_alt",
    "shift",
    "shift_alt",
    "bottleneck_tokens",
    "bottleneck_tokens_alt",
    "spectrogram",
    "spectrogram_alt",
    "swap",
    "swap_alt",
    "sweep",
    "sweep_alt",
    "perturbations",
    "perturbations_alt",
    "training",
    "training_alt",
    "turned",
    "turned_alt",
    "upsample",
]
