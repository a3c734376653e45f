"""Learn what the clips of a model are like, so that it can say of others that they are not."""

from functools import partial

import numpy as np

from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Source
from mbt_lite.evaluation.loop import make_batches, predict_batches
from mbt_lite.features import normalize
from mbt_lite.inference import Classifier
from mbt_lite.model.familiarity import Familiarity, fit

BATCH = 32


def learn_familiarity(classifier: Classifier, known: Source, count: int = 500) -> Familiarity:
    """The distribution of the features of known clips, of which the last `count` set the threshold.

    A classifier that has it as `familiarity` says of a clip that it is unlike these.
    """
    sampling = Sampling(classifier.clip_config)
    clips = ((index, known.read(index, sampling)) for index in range(len(known)))
    windows = ((index, clip.rgb[0], clip.spec[0]) for index, clip in clips)
    predicted = predict_batches(partial(_features, classifier), make_batches(windows, BATCH))
    features = np.stack([row for _, row in predicted])
    return fit(features[:-count], features[-count:])


def _features(classifier: Classifier, batch: dict) -> np.ndarray:
    """Features [rows, D] of a batch of windows."""
    clip = normalize(batch["rgb"], batch["spec"], classifier.clip_config.front_end)
    return classifier.features(clip)
