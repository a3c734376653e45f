"""Explain what the bottleneck does, and measure which maps can be trusted.

    from mbt_lite import explain

    explain.saliency(clf, clip, "gradient")      # Saliency by any of METHODS
    explain.flow(clf, clip)                      # Flow: audio → bottleneck token → video and back
    explain.intervene(clf, clip)                 # Effects: knockout, zero ablation, freezing
    explain.swap_audio(clf, clip, other)         # Swap: the 2x2 table of two clips
    explain.perturb(clf, clip)                   # Perturbations: muted, reversed, shuffled ...
    explain.shift_audio(clf, clip)               # Perturbations: the audio early and late
    explain.faithfulness(clf)                    # Faithfulness: which maps can be trusted

A clip is a file, of which the middle is read, a `features.View`, or a `Clip` without batch axis.
Everything observes the model's own forward pass; nothing is a copy of it.
"""

from mbt_lite.explain.counterfactual import Perturbations, Swap, perturb, shift_audio, swap_audio
from mbt_lite.explain.faithfulness import Curves, Faithfulness, caption, faithfulness, measured
from mbt_lite.explain.flow import Flow, flow
from mbt_lite.explain.interventions import Effects, Intervention, intervene
from mbt_lite.explain.maps import METHODS, Saliency, best_label, saliency

__all__ = [
    "METHODS",
    "Curves",
    "Effects",
    "Faithfulness",
    "Flow",
    "Intervention",
    "Perturbations",
    "Saliency",
    "Swap",
    "best_label",
    "caption",
    "faithfulness",
    "flow",
    "intervene",
    "measured",
    "perturb",
    "saliency",
    "shift_audio",
    "swap_audio",
]
