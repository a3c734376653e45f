"""Learn what the clips of a model are like, so that it can say of others that they are not."""

from mbt_lite.data.source import Source
from mbt_lite.evaluation.loop import predict_source
from mbt_lite.inference import Classifier
from mbt_lite.model.familiarity import Familiarity, fit


def learn_familiarity(classifier: Classifier, known: Source, count: int = 500) -> Familiarity:
    """The distribution of the features of known clips, of which the last `count` set the threshold.

    A classifier that has it as `familiarity` says of a clip that it is unlike these.
    """
    features = predict_source(classifier.features, classifier, known)
    return fit(features[:-count], features[-count:])
