"""Exercises of notebook 04: learning rate, mixed clips, mean over devices, intervals."""

import numpy as np

from course.exercise import Exercise


def _plans() -> list[tuple]:
    return [(np.arange(21), 20, 4, 0.5), (np.arange(0, 101, 10), 100, 30, 2e-3)]


LEARNING_RATE = Exercise(
    name="learning_rate",
    title="Up, then down",
    level="easy",
    minutes=5,
    task=(
        "Write the plan of the learning rate: it rises from 0 in a straight line over the first "
        "`warmup` steps to `peak`, and from there falls along half a cosine to 0 at step `steps`."
    ),
    hint=(
        "`np.minimum(1, step / warmup)` rises and then stays at 1. With the progress u from 0, at "
        "the end of the warm-up, to 1, at the last step, half a cosine is (1 + cos(pi u)) / 2."
    ),
    start='''
def learning_rate(step, steps, warmup, peak):
    """The rate [N] at these steps [N], counted from 0 to `steps`."""
    raise NotImplementedError
''',
    solution='''
def learning_rate(step, steps, warmup, peak):
    """The rate [N] at these steps [N], counted from 0 to `steps`."""
    rising = np.minimum(1, step / warmup)
    progress = np.maximum(0, step - warmup) / (steps - warmup)
    return peak * rising * 0.5 * (1 + np.cos(np.pi * progress))
''',
    mistakes={
        "there is no warm-up: the first steps, when every gradient is wild, are the largest": """
def learning_rate(step, steps, warmup, peak):
    progress = np.maximum(0, step - warmup) / (steps - warmup)
    return peak * 0.5 * (1 + np.cos(np.pi * progress))
""",
        "the cosine begins at step 0, so that it has fallen before the warm-up ends: the peak is "
        "never reached": """
def learning_rate(step, steps, warmup, peak):
    return peak * np.minimum(1, step / warmup) * 0.5 * (1 + np.cos(np.pi * step / steps))
""",
        "the half is missing: 1 + cos is 2 at its top, and the peak is twice too high": """
def learning_rate(step, steps, warmup, peak):
    progress = np.maximum(0, step - warmup) / (steps - warmup)
    return peak * np.minimum(1, step / warmup) * (1 + np.cos(np.pi * progress))
""",
        "it falls in a straight line; half a cosine is flat at both ends": """
def learning_rate(step, steps, warmup, peak):
    progress = np.maximum(0, step - warmup) / (steps - warmup)
    return peak * np.minimum(1, step / warmup) * (1 - progress)
""",
        "the fall takes `steps` steps after the warm-up, and is cut off before it reaches 0": """
def learning_rate(step, steps, warmup, peak):
    progress = np.maximum(0, step - warmup) / steps
    return peak * np.minimum(1, step / warmup) * 0.5 * (1 + np.cos(np.pi * progress))
""",
    },
    probes=_plans,
    praise="the very first step has the rate 0. It changes no weight, but it starts the averages.",
)


def _mixtures() -> list[tuple]:
    rng = np.random.default_rng(4)
    batches = []
    for clips, weight in ((4, 0.8), (5, 0.3)):
        labels = (rng.random((clips, 3)) < 0.4).astype(float)
        batches.append((rng.normal(size=(clips, 6, 2)), labels, weight))
    return batches


MIX_CLIPS = Exercise(
    name="mix_clips",
    title="Mixup",
    level="medium",
    minutes=10,
    task=(
        "Mix a batch as the paper does: each clip becomes `weight` times itself plus `1 - weight` "
        "times its partner, and so do its labels. The partner of clip `i` is the `i`-th from the "
        "end, so that no second batch is needed."
    ),
    hint="`spec[::-1]` is the batch in reverse order; mix labels with the same weights.",
    start='''
def mix_clips(spec, labels, weight):
    """(spec [B, N, M], labels [B, C]) of the mixed batch."""
    raise NotImplementedError
''',
    solution='''
def mix_clips(spec, labels, weight):
    """(spec [B, N, M], labels [B, C]) of the mixed batch."""
    mixed = weight * spec + (1 - weight) * spec[::-1]
    return mixed, weight * labels + (1 - weight) * labels[::-1]
''',
    mistakes={
        "the labels are not mixed: they name only one of the two clips": """
def mix_clips(spec, labels, weight):
    return weight * spec + (1 - weight) * spec[::-1], labels
""",
        "time runs backwards: the second axis is reversed, and not the order of the clips": """
def mix_clips(spec, labels, weight):
    mixed = weight * spec + (1 - weight) * spec[:, ::-1]
    return mixed, weight * labels + (1 - weight) * labels[::-1]
""",
        "the labels get the weights of the other clip: the model hears mostly one clip, and "
        "the target is mostly the other": """
def mix_clips(spec, labels, weight):
    mixed = weight * spec + (1 - weight) * spec[::-1]
    return mixed, (1 - weight) * labels + weight * labels[::-1]
""",
        "the partner is the clip before, and not the one from the other end": """
def mix_clips(spec, labels, weight):
    def mixed(x):
        return weight * x + (1 - weight) * np.roll(x, 1, axis=0)

    return mixed(spec), mixed(labels)
""",
        "both clips count in full: the mixture is louder than any clip that will ever come": """
def mix_clips(spec, labels, weight):
    mixed = spec + (1 - weight) * spec[::-1]
    return mixed, weight * labels + (1 - weight) * labels[::-1]
""",
        "a class counts in full if either clip has it, however little of that clip is heard": """
def mix_clips(spec, labels, weight):
    mixed = weight * spec + (1 - weight) * spec[::-1]
    return mixed, np.maximum(labels, labels[::-1])
""",
    },
    probes=_mixtures,
    praise=(
        "labels are no longer 0 or 1. In *modality mixup* picture and sound draw weights of their "
        "own, so the streams have different targets."
    ),
)


def _parts() -> list[tuple]:
    rng = np.random.default_rng(5)
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]], float)
    other = np.array([[1, 0], [1, 1]], float)
    return [(rng.random((3, 4)) + 1, mask), (rng.random((2, 2)) * 3, other)]


MEAN_OVER_DEVICES = Exercise(
    name="mean_over_devices",
    title="One mean, many devices",
    level="medium",
    minutes=10,
    task=(
        "A batch lies on `D` devices, `n` rows on each. The last batch of an epoch is filled up "
        "with empty rows, whose `mask` is 0. Give the mean loss over all **real** clips, the same "
        "number that one device alone would find."
    ),
    hint="Each device tells two numbers: the sum of its real losses, and how many there are.",
    start='''
def mean_over_devices(losses, mask):
    """The mean loss, a number, of losses [D, n]; mask [D, n] is 1 for clips, 0 for padding."""
    raise NotImplementedError
''',
    solution='''
def mean_over_devices(losses, mask):
    """The mean loss, a number, of losses [D, n]; mask [D, n] is 1 for clips, 0 for padding."""
    sums, counts = (losses * mask).sum(1), mask.sum(1)  # [D], found on each device by itself
    return sums.sum() / counts.sum()
''',
    mistakes={
        "the mean of the devices' means is taken: a clip on a device with much padding then "
        "counts several times": """
def mean_over_devices(losses, mask):
    return ((losses * mask).sum(1) / mask.sum(1)).mean()
""",
        "padding counts, too: the mask is not used": """
def mean_over_devices(losses, mask):
    return losses.mean()
""",
        "the sum is divided by all rows, and padding counts as clips without loss": """
def mean_over_devices(losses, mask):
    return (losses * mask).mean()
""",
        "the sums of the devices are not divided by the number of clips: twice the batch would "
        "be twice the gradient": """
def mean_over_devices(losses, mask):
    return (losses * mask).sum()
""",
        "each device keeps a mean of its own: nothing was exchanged, and their weights would "
        "drift apart": """
def mean_over_devices(losses, mask):
    return (losses * mask).sum(1) / mask.sum(1)
""",
    },
    probes=_parts,
    praise=(
        "because this is the mean of the whole batch, one device and eight train the same model."
    ),
)


def _seeds() -> list[tuple]:
    return [(np.array([0.85, 0.79, 0.89]),), (np.array([0.41, 0.47]),), (np.linspace(0.5, 0.6, 6),)]


HALF_INTERVAL = Exercise(
    name="half_interval",
    title="How sure is a mean of three?",
    level="hard",
    minutes=10,
    task=(
        "Give half the width of the 95 % interval of a mean over seeds, by Student's t: the "
        "quantile 0.975 of t with `n - 1` degrees of freedom, times the standard deviation of the "
        "sample (divided by `n - 1`), over the root of `n`. `stats.t.ppf(0.975, n - 1)` is the "
        "quantile."
    ),
    hint="`np.std` divides by n unless you say `ddof=1`.",
    given="import numpy as np\nfrom scipy import stats",
    start='''
def half_interval(values):
    """Half the 95 % interval, a number, of the mean of values [n]."""
    raise NotImplementedError
''',
    solution='''
def half_interval(values):
    """Half the 95 % interval, a number, of the mean of values [n]."""
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
''',
    mistakes={
        "1.96 is used, the quantile for many seeds: with three, the interval is less than half as "
        "wide as it must be": """
def half_interval(values):
    return 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
""",
        "the deviation is divided by n, and not by n - 1: few values look closer together than "
        "they are": """
def half_interval(values):
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values) / np.sqrt(len(values))
""",
        "the root of n is missing: that is the spread of single seeds, not of their mean": """
def half_interval(values):
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1)
""",
        "the degrees of freedom are n; one is used up by the mean": """
def half_interval(values):
    return stats.t.ppf(0.975, len(values)) * np.std(values, ddof=1) / np.sqrt(len(values))
""",
        "the whole interval is given, not half of it": """
def half_interval(values):
    return 2 * stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
""",
    },
    probes=_seeds,
    praise=(
        "with two seeds the quantile is 12.7, with three 4.3, with ten 2.3. A third seed is worth "
        "more than any other."
    ),
)

EXERCISES: tuple[Exercise, ...] = (LEARNING_RATE, MIX_CLIPS, MEAN_OVER_DEVICES, HALF_INTERVAL)
