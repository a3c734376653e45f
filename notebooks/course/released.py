"""Exercises of notebook 07: biases of the head, fused attention, total conversion, nats."""

import numpy as np

from course.exercise import Exercise


def _heads() -> list[tuple]:
    names = ["bell", "dog", "music", "rain", "speech", "train"]
    return [
        (np.array([-4.0, -6.5, -1.2, -5.0, -0.7, 0.3]), names, 3),
        (np.array([0.5, -0.6, -1.0, 2.5, -0.2, -2.0]), names, 2),
    ]


MOST_FREQUENT = Exercise(
    name="most_frequent",
    title="What a head tells of its training data",
    level="easy",
    minutes=5,
    task=(
        "A head learns how frequent its classes are: a frequent class gets a large bias. Write "
        "the function that names the `count` classes of the largest biases, the largest first. "
        "For a released model Speech and Music should lead, if we have the order of its classes "
        "right."
    ),
    hint="`np.argsort` sorts upwards; `-bias` turns it round.",
    start='''
def most_frequent(bias, labels, count):
    """The names of the `count` largest biases [C], largest first, as a list."""
    raise NotImplementedError
''',
    solution='''
def most_frequent(bias, labels, count):
    """The names of the `count` largest biases [C], largest first, as a list."""
    return [labels[i] for i in np.argsort(-bias)[:count]]
''',
    mistakes={
        "the smallest biases come first": """
def most_frequent(bias, labels, count):
    return [labels[i] for i in np.argsort(bias)[:count]]
""",
        "the right classes come in the wrong order: the largest is last": """
def most_frequent(bias, labels, count):
    return [labels[i] for i in np.argsort(bias)[-count:]]
""",
        "the sign is lost: a bias far below zero means a rare class, not a frequent one": """
def most_frequent(bias, labels, count):
    return [labels[i] for i in np.argsort(-np.abs(bias))[:count]]
""",
        "the numbers of the classes come back, not their names": """
def most_frequent(bias, labels, count):
    return [int(i) for i in np.argsort(-bias)[:count]]
""",
    },
    probes=_heads,
    praise=(
        "a bias says how likely a class is before anything is seen or heard; so it can tell "
        "whose name belongs to which number."
    ),
)


def _attentions() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [tuple(rng.normal(size=shape) for _ in range(3)) for shape in ((6, 2, 3), (4, 4, 1))]


FUSED_QKV = Exercise(
    name="fused_qkv",
    title="Three arrays become one",
    level="medium",
    minutes=10,
    task=(
        "Scenic keeps query, key and value apart, each `[D, H, d]`; ours is one array "
        "`[D, 3 * H * d]`, so that one matrix product does all three. All of query comes first, "
        "then all of key, then all of value; within each, head after head. `D` is the width, `H` "
        "the number of heads, `d` the width of a head."
    ),
    hint="Stack the three so that the new axis lies between D and H, then reshape.",
    start='''
def fused_qkv(query, key, value):
    """One kernel [D, 3 * H * d] of three [D, H, d]."""
    raise NotImplementedError
''',
    solution='''
def fused_qkv(query, key, value):
    """One kernel [D, 3 * H * d] of three [D, H, d]."""
    return np.stack([query, key, value], axis=1).reshape(len(query), -1)
''',
    mistakes={
        "the heads are interleaved: query, key and value of head 0, then those of head 1": """
def fused_qkv(query, key, value):
    return np.stack([query, key, value], axis=2).reshape(len(query), -1)
""",
        "single numbers of query, key and value alternate": """
def fused_qkv(query, key, value):
    return np.stack([query, key, value], axis=-1).reshape(len(query), -1)
""",
        "the new axis is the first, so that a row mixes rows of the three": """
def fused_qkv(query, key, value):
    return np.stack([query, key, value]).reshape(len(query), -1)
""",
        "key and query have changed places": """
def fused_qkv(query, key, value):
    return np.stack([key, query, value], axis=1).reshape(len(query), -1)
""",
        "heads and their width are exchanged": """
def fused_qkv(query, key, value):
    parts = [part.swapaxes(1, 2) for part in (query, key, value)]
    return np.stack(parts, axis=1).reshape(len(query), -1)
""",
    },
    probes=_attentions,
    praise=(
        "every wrong order has the right shape, too. Only numbers that the original computed can "
        "tell them apart."
    ),
)


def _trees() -> list[tuple]:
    expected = {"cls": (1, 1, 8), "head/bias": (3,), "head/kernel": (8, 3), "norm/scale": (8,)}
    turned = expected | {"head/kernel": (3, 8)}
    return [
        (dict(expected), expected),
        ({name: shape for name, shape in turned.items() if name != "cls"}, expected),
        (expected | {"block_12/scale": (8,), "norm/scale": (2, 4), "head/bias": (5,)}, expected),
        ({"a": (2,)}, {"b": (2,), "c": ()}),
    ]


WHAT_DOES_NOT_FIT = Exercise(
    name="what_does_not_fit",
    title="Convert totally, or refuse",
    level="medium",
    minutes=10,
    task=(
        "Write the check that stands before every conversion. `theirs` and `expected` are "
        "`{name: shape}`. Give back three sorted lists of names: `missing` (expected, but not "
        "theirs), `unused` (theirs, but not expected), `misshaped` (in both, with other shapes)."
    ),
    hint="The keys of a dict are like a set: `a.keys() - b.keys()`, `a.keys() & b.keys()`.",
    start='''
def what_does_not_fit(theirs, expected):
    """(missing, unused, misshaped), each a sorted list of names."""
    raise NotImplementedError
''',
    solution='''
def what_does_not_fit(theirs, expected):
    """(missing, unused, misshaped), each a sorted list of names."""
    missing = sorted(expected.keys() - theirs.keys())
    unused = sorted(theirs.keys() - expected.keys())
    both = sorted(theirs.keys() & expected.keys())
    return missing, unused, [name for name in both if theirs[name] != expected[name]]
''',
    mistakes={
        "what nobody wants is passed over, as Flax itself does: a lost layer looks like a bad "
        "model": """
def what_does_not_fit(theirs, expected):
    both = sorted(theirs.keys() & expected.keys())
    missing = sorted(expected.keys() - theirs.keys())
    return missing, [], [name for name in both if theirs[name] != expected[name]]
""",
        "missing and unused have changed places": """
def what_does_not_fit(theirs, expected):
    both = sorted(theirs.keys() & expected.keys())
    missing = sorted(expected.keys() - theirs.keys())
    unused = sorted(theirs.keys() - expected.keys())
    return unused, missing, [name for name in both if theirs[name] != expected[name]]
""",
        "only sizes are compared: (8, 3) and (3, 8) hold as many numbers, in another order": """
def what_does_not_fit(theirs, expected):
    both = sorted(theirs.keys() & expected.keys())
    missing = sorted(expected.keys() - theirs.keys())
    unused = sorted(theirs.keys() - expected.keys())
    size = np.prod
    return missing, unused, [n for n in both if size(theirs[n]) != size(expected[n])]
""",
        "no shape is compared": """
def what_does_not_fit(theirs, expected):
    return sorted(expected.keys() - theirs.keys()), sorted(theirs.keys() - expected.keys()), []
""",
    },
    probes=_trees,
    praise=(
        "now a file either becomes the model, whole, or is refused with the names of what is wrong."
    ),
)


def _answers() -> list[tuple]:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 4), scale=2)
    truth = (rng.random((4, 4)) < 0.4).astype(float)
    sure = np.array([[60.0, -3.0, -60.0], [900.0, 0.5, -900.0]])
    return [(logits, truth), (sure, np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]))]


NATS_PER_CLIP = Exercise(
    name="nats_per_clip",
    title="How well does it hear?",
    level="hard",
    minutes=15,
    task=(
        "The score by which front ends are ranked: the log-likelihood of a clip's true labels, in "
        "nats. Labels do not exclude each other, so every class is a question of its own: with the "
        "probability `p = 1 / (1 + exp(-logit))` it earns `log p` if it is true, and `log(1 - p)` "
        "if it is not. Add the classes up, clip by clip. Beware: at a logit of 60, `1 - p` is 0 "
        "in a computer, and its logarithm infinite."
    ),
    hint=(
        "Use log p = -log(1 + exp(-x)) = x - log(1 + exp(x)), and log(1 - p) = -log(1 + exp(x)); "
        "`np.logaddexp(0, x)` is log(1 + exp(x)) and never overflows."
    ),
    start='''
def nats_per_clip(logits, truth):
    """Log-likelihood [N] of the labels `truth` [N, C], 0 or 1, under `logits` [N, C]."""
    raise NotImplementedError
''',
    solution='''
def nats_per_clip(logits, truth):
    """Log-likelihood [N] of the labels `truth` [N, C], 0 or 1, under `logits` [N, C]."""
    return (truth * logits - np.logaddexp(0, logits)).sum(1)
''',
    mistakes={
        "the logarithm of 1 - p is taken after p was rounded to 1: it is infinite for answers "
        "that are very sure": """
def nats_per_clip(logits, truth):
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-logits))
        return np.where(truth == 1, np.log(p), np.log(1 - p)).sum(1)
""",
        "the sum goes over the clips (axis 0), and not over the classes of each": """
def nats_per_clip(logits, truth):
    return (truth * logits - np.logaddexp(0, logits)).sum(0)
""",
        "the mean over the classes is taken, not their sum": """
def nats_per_clip(logits, truth):
    return (truth * logits - np.logaddexp(0, logits)).mean(1)
""",
        "the sign is that of a loss: of a log-likelihood more is better": """
def nats_per_clip(logits, truth):
    return (np.logaddexp(0, logits) - truth * logits).sum(1)
""",
        "only the true classes count: what is claimed and wrong costs nothing": """
def nats_per_clip(logits, truth):
    return (truth * (logits - np.logaddexp(0, logits))).sum(1)
""",
        "the classes exclude each other (a softmax), but a clip can have several labels": """
def nats_per_clip(logits, truth):
    top = logits.max(1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return (truth * log_p).sum(1)
""",
    },
    probes=_answers,
    praise=(
        "one confident wrong answer costs as many nats as its logit is large. That is why a wrong "
        "front end shows."
    ),
)

EXERCISES: tuple[Exercise, ...] = (FUSED_QKV, WHAT_DOES_NOT_FIT, MOST_FREQUENT, NATS_PER_CLIP)
