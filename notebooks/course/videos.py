"""Exercises of notebook 06: hold out whole films, average windows, confusion, small scores."""

import numpy as np

from course.exercise import Exercise


def _films() -> list[tuple]:
    mixed = ["sea", "park", "sea", "zoo", "park", "attic", "zoo", "sea", "attic", "park"]
    return [(mixed, 2), (["d", "a", "b", "c", "a", "e", "f", "f", "d"], 3)]


HOLD_OUT_FILMS = Exercise(
    name="hold_out_films",
    title="Whole films, or none",
    level="medium",
    minutes=10,
    task=(
        "Several clips are often cut out of one film. Clips of one film look and sound alike, so a "
        "film must be on one side only: if half of it is trained on, the other half tests memory. "
        "Sort the **different** films by name, hold out every `every`-th of them (of six films and "
        "`every=3` the third and the sixth), and say of each clip whether it is held out."
    ),
    hint="`sorted(set(films))[every - 1 :: every]` are the films to hold out.",
    start='''
def hold_out_films(films, every):
    """Whether each clip is held out [N], True or False; `films` [N] names the film it is from."""
    raise NotImplementedError
''',
    solution='''
def hold_out_films(films, every):
    """Whether each clip is held out [N], True or False; `films` [N] names the film it is from."""
    chosen = sorted(set(films))[every - 1 :: every]
    return np.array([film in chosen for film in films])
''',
    mistakes={
        "every `every`-th clip is held out: clips of one film are on both sides": """
def hold_out_films(films, every):
    return np.arange(len(films)) % every == every - 1
""",
        "clips were sorted by film and every `every`-th clip taken: nearly every film is on both "
        "sides": """
def hold_out_films(films, every):
    held = np.zeros(len(films), bool)
    held[np.argsort(np.array(films), kind="stable")[every - 1 :: every]] = True
    return held
""",
        "it is turned round: those to learn from are held out": """
def hold_out_films(films, every):
    chosen = sorted(set(films))[every - 1 :: every]
    return np.array([film not in chosen for film in films])
""",
        "films are counted in the order in which they come, so that another order of the same "
        "table gives another split": """
def hold_out_films(films, every):
    chosen = list(dict.fromkeys(films))[every - 1 :: every]
    return np.array([film in chosen for film in films])
""",
        "counting starts at the first film: of six films, the first and the fourth go": """
def hold_out_films(films, every):
    chosen = sorted(set(films))[::every]
    return np.array([film in chosen for film in films])
""",
    },
    probes=_films,
    praise=(
        "a score on clips of films that were trained on is too good, and nothing in the numbers "
        "says so."
    ),
)


def _windows() -> list[tuple]:
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(5, 5, 5), scale=3)
    one_sure = np.array([[[9.0, 0.0, 1.0], [-4.0, 2.0, 1.0], [-4.0, 2.0, 1.0]]])
    return [(logits,), (one_sure,), (rng.normal(size=(4, 3, 6), scale=2),)]


ANSWER_OF_WINDOWS = Exercise(
    name="answer_of_windows",
    title="A long video has several windows",
    level="easy",
    minutes=5,
    task=(
        "A model sees a few seconds. A longer video is classified in several windows, evenly "
        "spread. Average the **logits** over the windows, as the paper does, and name the class "
        "with the highest one."
    ),
    hint="Windows are axis 1; after the mean over them, classes are the last axis.",
    start='''
def answer_of_windows(logits):
    """The class of each video [N], a number, from logits [N, windows, C]."""
    raise NotImplementedError
''',
    solution='''
def answer_of_windows(logits):
    """The class of each video [N], a number, from logits [N, windows, C]."""
    return logits.mean(axis=1).argmax(axis=-1)
''',
    mistakes={
        "the mean is taken over the wrong axis: the classes are averaged, and a window is "
        "named": """
def answer_of_windows(logits):
    return logits.mean(axis=-1).argmax(axis=-1)
""",
        "only the first window is used": """
def answer_of_windows(logits):
    return logits[:, 0].argmax(axis=-1)
""",
        "the windows vote, each with one voice: how sure it was is lost": """
def answer_of_windows(logits):
    votes = logits.argmax(-1)[..., None] == np.arange(logits.shape[-1])
    return votes.sum(1).argmax(-1)
""",
        "the largest logit of all windows decides: one odd moment can outshout all others": """
def answer_of_windows(logits):
    return logits.max(axis=1).argmax(axis=-1)
""",
        "the mean over all videos is taken, axis 0": """
def answer_of_windows(logits):
    return logits.mean(axis=0).argmax(axis=-1)
""",
    },
    probes=_windows,
    praise=(
        "the class with the largest mean of logits is also the one with the highest probability, "
        "by softmax or by sigmoid: neither changes the order of a clip's classes."
    ),
)


def _answers() -> list[tuple]:
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 1])
    predicted = np.array([0, 0, 1, 2, 1, 0, 2, 2, 1, 1])
    return [(truth, predicted, 3), (np.array([0, 1, 0, 0]), np.array([1, 1, 0, 1]), 2)]


CONFUSION_SHARES = Exercise(
    name="confusion_shares",
    title="What is taken for what",
    level="easy",
    minutes=10,
    task=(
        "Count how often class `i` was called `j`, and divide each row by its sum: of the clips of "
        "class `i`, which share was called what? Every class has at least one clip."
    ),
    hint="`np.add.at(table, (truth, predicted), 1)` counts; keepdims=True keeps a sum's axis.",
    start='''
def confusion_shares(truth, predicted, classes):
    """Shares [C, C] whose rows, the true classes, sum to 1; truth and predicted are numbers [N]."""
    raise NotImplementedError
''',
    solution='''
def confusion_shares(truth, predicted, classes):
    """Shares [C, C] whose rows, the true classes, sum to 1; truth and predicted are numbers [N]."""
    table = np.zeros((classes, classes))
    np.add.at(table, (truth, predicted), 1)
    return table / table.sum(axis=1, keepdims=True)
''',
    mistakes={
        "it is transposed: rows are predictions, and their shares do not sum to 1": """
def confusion_shares(truth, predicted, classes):
    table = np.zeros((classes, classes))
    np.add.at(table, (truth, predicted), 1)
    return (table / table.sum(axis=1, keepdims=True)).T
""",
        "these are counts; a class with many clips then looks like one with many mistakes": """
def confusion_shares(truth, predicted, classes):
    table = np.zeros((classes, classes))
    np.add.at(table, (truth, predicted), 1)
    return table
""",
        "the sum of the columns divides: that is, of what was called `j`, how much was `i`": """
def confusion_shares(truth, predicted, classes):
    table = np.zeros((classes, classes))
    np.add.at(table, (truth, predicted), 1)
    return table / table.sum(axis=0, keepdims=True)
""",
        "all clips together divide, and not those of each class": """
def confusion_shares(truth, predicted, classes):
    table = np.zeros((classes, classes))
    np.add.at(table, (truth, predicted), 1)
    return table / len(truth)
""",
        "each pair is counted once at most: `table[truth, predicted] += 1` adds only once where "
        "indices repeat": """
def confusion_shares(truth, predicted, classes):
    table = np.zeros((classes, classes))
    table[truth, predicted] += 1
    return table / table.sum(axis=1, keepdims=True)
""",
    },
    probes=_answers,
    praise="the diagonal holds the recall of each class; its mean is a fair score of uneven data.",
)


def _scores() -> list[tuple]:
    return [(12, 15), (10, 10), (1, 40), (0, 6)]


SCORE_INTERVAL = Exercise(
    name="score_interval",
    title="Ten of ten is not certain",
    level="hard",
    minutes=15,
    task=(
        "Give the 95 % interval of a share by Wilson. With `p = right / total`, `z = 1.96` and "
        "`n = total`, its middle is `(p + z² / 2n) / (1 + z² / n)` and half its width is "
        "`z / (1 + z² / n)` times the root of `p (1 - p) / n + z² / 4n²`."
    ),
    hint="Write `z * z / (2 * n)`: without brackets, `z * z / 2 * n` multiplies by n.",
    start='''
def score_interval(right, total):
    """(low, high), from 0 to 1, of the share right / total."""
    raise NotImplementedError
''',
    solution='''
def score_interval(right, total):
    """(low, high), from 0 to 1, of the share right / total."""
    p, n, z = right / total, total, 1.96
    shrink = 1 + z * z / n
    middle = (p + z * z / (2 * n)) / shrink
    half = z / shrink * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half
''',
    mistakes={
        "it is p plus or minus z standard errors: of ten right among ten that says 1 to 1, as if "
        "nothing could ever go wrong": """
def score_interval(right, total):
    p, z = right / total, 1.96
    half = z * np.sqrt(p * (1 - p) / total)
    return p - half, p + half
""",
        "the middle is p: the shift towards one half is missing, and the interval leaves 0 to "
        "1": """
def score_interval(right, total):
    p, n, z = right / total, total, 1.96
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p - half, p + half
""",
        "middle and width are not divided by 1 + z² / n": """
def score_interval(right, total):
    p, n, z = right / total, total, 1.96
    middle = p + z * z / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half
""",
        "the root is missing": """
def score_interval(right, total):
    p, n, z = right / total, total, 1.96
    shrink = 1 + z * z / n
    middle = (p + z * z / (2 * n)) / shrink
    half = z / shrink * (p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half
""",
        "the ends are given in the other order, the high one first": """
def score_interval(right, total):
    p, n, z = right / total, total, 1.96
    shrink = 1 + z * z / n
    middle = (p + z * z / (2 * n)) / shrink
    half = z / shrink * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle + half, middle - half
""",
    },
    probes=_scores,
    praise=(
        "to halve the interval takes four times as many clips. It counts luck of the draw only, "
        "not that your clips may differ from those to come."
    ),
)

EXERCISES: tuple[Exercise, ...] = (
    HOLD_OUT_FILMS,
    ANSWER_OF_WINDOWS,
    CONFUSION_SHARES,
    SCORE_INTERVAL,
)
