"""Explain what the bottleneck does, and measure which maps can be trusted.

    from mbt_lite import explain

    explain.saliency(clf, clip, "gradient")      # Saliency by any of METHODS
    explain.rollout(clf, clip)                   # Saliency: attention rollout to the patches
    explain.relevance(clf, clip, "ring sings")   # Saliency: attention times gradient
    explain.occlusion(clf, clip, "ring sings")   # Saliency: drop of the logit without a patch
    explain.flow(clf, clip)                      # Flow: audio → bottleneck token → video and back
    explain.intervene(clf, clip)                 # Effects: knockout, ablation, freezing, patching
    explain.swap_audio(clf, clip, other)         # Swap: the 2x2 table of two clips
    explain.faithfulness(clf)                    # Faithfulness: which maps can be trusted

A clip is a file, of which the middle is read, a `features.View`, or a `Clip` without batch axis.
Everything observes the model's own forward pass; nothing is a copy of it.
"""

from mbt_lite.explain.counterfactual import (
    Perturbations,
    Shift,
    Swap,
    modality_shapley,
    perturb,
    shift_audio,
    swap_audio,
)
from mbt_lite.explain.faithfulness import (
    Curves,
    Faithfulness,
    caption,
    faithfulness,
    measured,
)
from mbt_lite.explain.flow import Flow, flow
from mbt_lite.explain.interventions import (
    Effects,
    Intervention,
    bottleneck_interventions,
    bottleneck_means,
    intervene,
    knockouts,
)
from mbt_lite.explain.maps import (
    EXPLAIN_A_LABEL,
    METHODS,
    Saliency,
    attention,
    best_label,
    occlusion,
    relevance,
    rollout,
    saliency,
)

__all__ = [
    "EXPLAIN_A_LABEL",
    "METHODS",
    "Curves",
    "Effects",
    "Faithfulness",
    "Flow",
    "Intervention",
    "Saliency",
    "Shift",
    "Swap",
    "Perturbations",
    "attention",
    "best_label",
    "caption",
    "knockouts",
    "faithfulness",
    "flow",
    "measured",
    "occlusion",
    "intervene",
    "relevance",
    "rollout",
    "saliency",
    "modality_shapley",
    "shift_audio",
    "bottleneck_means",
    "bottleneck_interventions",
    "swap_audio",
    "perturb",
]
