"""Exercises of notebook 05: rollout, pointing, deletion, and the worth of each modality."""

import numpy as np

from course.exercise import Exercise


def _layers() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [
        ([rng.dirichlet(np.ones(n), n) for _ in range(3)], token) for n, token in ((5, 0), (7, 3))
    ]


ROLL_OUT = Exercise(
    name="roll_out",
    title="Attention rollout",
    level="medium",
    minutes=15,
    task=(
        "`layers` are the attention matrices `[N, N]` of a model, the mean over heads, the first "
        "layer first. A token after a layer is taken as half what it was before, and half what it "
        "read there. Follow the token number `token` from the last layer back to the first: what "
        "share of it comes from each of the `N` tokens at the very beginning?"
    ),
    hint=(
        "A row `[N]` begins with a one at `token`. One layer back it becomes `0.5 * row + 0.5 * "
        "row @ weights`. Which layer comes first on the way back?"
    ),
    start='''
def roll_out(layers, token):
    """The shares [N], which sum to one, of the first tokens in token number `token` at the end."""
    raise NotImplementedError
''',
    solution='''
def roll_out(layers, token):
    """The shares [N], which sum to one, of the first tokens in token number `token` at the end."""
    row = np.zeros(len(layers[0]))
    row[token] = 1
    for weights in reversed(layers):
        row = 0.5 * row + 0.5 * row @ weights
    return row
''',
    mistakes={
        "the layers are gone through from first to last; the way back begins at the last": """
def roll_out(layers, token):
    row = np.eye(len(layers[0]))[token]
    for weights in layers:
        row = 0.5 * row + 0.5 * row @ weights
    return row
""",
        "the residual is missing: a block adds what it reads to the token": """
def roll_out(layers, token):
    row = np.eye(len(layers[0]))[token]
    for weights in reversed(layers):
        row = row @ weights
    return row
""",
        "columns were followed, not rows: who reads the token, not what it reads": """
def roll_out(layers, token):
    row = np.eye(len(layers[0]))[token]
    for weights in reversed(layers):
        row = 0.5 * row + 0.5 * weights @ row
    return row
""",
        "only the last layer was used": """
def roll_out(layers, token):
    return 0.5 * np.eye(len(layers[0]))[token] + 0.5 * layers[-1][token]
""",
        "the layers were averaged, but each reads the output of the one before": """
def roll_out(layers, token):
    return 0.5 * np.eye(len(layers[0]))[token] + 0.5 * np.mean(layers, axis=0)[token]
""",
        "residual and attention are added without halving them, so shares grow": """
def roll_out(layers, token):
    row = np.eye(len(layers[0]))[token]
    for weights in reversed(layers):
        row = row + row @ weights
    return row
""",
    },
    probes=_layers,
    praise=(
        "the shares sum to one, whatever the weights. No label was used: a rollout is the "
        "same for every answer that the model gives."
    ),
)


def _boxes() -> list[tuple]:
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(20, 4, 5, 3))
    return [(maps, rng.random(maps.shape) < 0.45), (maps[:3] - 9, rng.random((3, 4, 5, 3)) < 0.3)]


POINTING = Exercise(
    name="pointing",
    title="The pointing game",
    level="easy",
    minutes=5,
    task=(
        "`maps` `[B, T, Y, X]` are importance maps of `B` clips, `inside` (bool, the same shape) "
        "says which cells lie on the thing that is meant. In what share of the clips does the "
        "highest cell of the map, over all times and places, lie on it?"
    ),
    hint="Flatten each clip to one row; `argmax` of a row says where to look in the other array.",
    start='''
def pointing(maps, inside):
    """The share, 0 to 1, of the clips whose highest cell [B, T, Y, X] lies inside."""
    raise NotImplementedError
''',
    solution='''
def pointing(maps, inside):
    """The share, 0 to 1, of the clips whose highest cell [B, T, Y, X] lies inside."""
    rows, hits = maps.reshape(len(maps), -1), inside.reshape(len(maps), -1)
    return hits[np.arange(len(rows)), rows.argmax(1)].mean()
''',
    mistakes={
        "the highest cell of all clips together was taken; each clip has its own": """
def pointing(maps, inside):
    return float(inside.flat[maps.argmax()])
""",
        "the highest cell of each moment was taken, but the clip has only one": """
def pointing(maps, inside):
    rows = maps.reshape(*maps.shape[:2], -1)
    hits = inside.reshape(*maps.shape[:2], -1)
    return np.take_along_axis(hits, rows.argmax(-1)[..., None], -1).mean()
""",
        "the lowest cell was taken": """
def pointing(maps, inside):
    rows, hits = maps.reshape(len(maps), -1), inside.reshape(len(maps), -1)
    return hits[np.arange(len(rows)), rows.argmin(1)].mean()
""",
        "the largest absolute value was taken; what speaks against a thing is no pointer": """
def pointing(maps, inside):
    rows, hits = abs(maps).reshape(len(maps), -1), inside.reshape(len(maps), -1)
    return hits[np.arange(len(rows)), rows.argmax(1)].mean()
""",
        "it is the share of the cells that lie inside: what a random point would get": """
def pointing(maps, inside):
    return inside.mean()
""",
        "it is the number of clips, not their share": """
def pointing(maps, inside):
    rows, hits = maps.reshape(len(maps), -1), inside.reshape(len(maps), -1)
    return hits[np.arange(len(rows)), rows.argmax(1)].sum()
""",
    },
    probes=_boxes,
    praise=(
        "one number for a whole method, and a chance level to hold it against: the share of cells "
        "that lie inside."
    ),
)


def _models() -> list[tuple]:
    rng = np.random.default_rng(2)

    def model(weights):
        return lambda hidden: float(1 / (1 + np.exp(-((~hidden) @ weights - 1))))

    return [(model(rng.normal(size=n)), rng.normal(size=n)) for n in (6, 9)]


DELETION_CURVE = Exercise(
    name="deletion_curve",
    title="Take away what matters",
    level="medium",
    minutes=15,
    task=(
        "`probability(hidden)` runs a model on a clip whose patches are hidden where `hidden` "
        "(bool `[N]`) is True. `importance` `[N]` says how much each patch is said to matter. Hide "
        "one patch after the other, the most important first, and keep what is hidden hidden. Give "
        "the `N + 1` probabilities, from nothing hidden to all."
    ),
    hint="`np.argsort(-importance)` lists the patches in their order; hide one more each time.",
    start='''
def deletion_curve(probability, importance):
    """[N + 1] probabilities while more and more patches are hidden, important ones first."""
    raise NotImplementedError
''',
    solution='''
def deletion_curve(probability, importance):
    """[N + 1] probabilities while more and more patches are hidden, important ones first."""
    hidden = np.zeros(len(importance), bool)
    curve = [probability(hidden)]
    for patch in np.argsort(-importance):
        hidden[patch] = True
        curve.append(probability(hidden))
    return np.array(curve)
''',
    mistakes={
        "the least important patches are hidden first": """
def deletion_curve(probability, importance):
    hidden = np.zeros(len(importance), bool)
    curve = [probability(hidden)]
    for patch in np.argsort(importance):
        hidden[patch] = True
        curve.append(probability(hidden))
    return np.array(curve)
""",
        "one patch is hidden at a time, and then shown again": """
def deletion_curve(probability, importance):
    curve = [probability(np.zeros(len(importance), bool))]
    for patch in np.argsort(-importance):
        hidden = np.zeros(len(importance), bool)
        hidden[patch] = True
        curve.append(probability(hidden))
    return np.array(curve)
""",
        "the clip as it is, with nothing hidden, is missing at the beginning": """
def deletion_curve(probability, importance):
    hidden = np.zeros(len(importance), bool)
    curve = []
    for patch in np.argsort(-importance):
        hidden[patch] = True
        curve.append(probability(hidden))
    return np.array(curve)
""",
        "the clip with everything hidden is missing at the end": """
def deletion_curve(probability, importance):
    hidden = np.zeros(len(importance), bool)
    curve = []
    for patch in np.argsort(-importance):
        curve.append(probability(hidden))
        hidden[patch] = True
    return np.array(curve)
""",
        "hidden and shown have changed places: it is the insertion curve": """
def deletion_curve(probability, importance):
    hidden = np.ones(len(importance), bool)
    curve = [probability(hidden)]
    for patch in np.argsort(-importance):
        hidden[patch] = False
        curve.append(probability(hidden))
    return np.array(curve)
""",
        "the patches go from left to right, whatever the map says of them": """
def deletion_curve(probability, importance):
    gone = [np.arange(len(importance)) < k for k in range(len(importance) + 1)]
    return np.array([probability(hidden) for hidden in gone])
""",
        "`argsort` was taken for ranks: it gives patches in their order, not the place of each": """
def deletion_curve(probability, importance):
    ranks = np.argsort(-importance)
    gone = [ranks < k for k in range(len(importance) + 1)]
    return np.array([probability(hidden) for hidden in gone])
""",
    },
    probes=_models,
    praise=(
        "a good map makes the curve fall at once. But the model meets clips with holes, which it "
        "has never seen in training; that is the weak point of this test."
    ),
)


def _tables() -> list[tuple]:
    rng = np.random.default_rng(3)
    return [(rng.normal(size=(2, 2)),), (np.array([[3.0, -1.0], [-2.0, 0.5]]),)]


WORTH = Exercise(
    name="worth",
    title="What is each modality worth?",
    level="easy",
    minutes=10,
    task=(
        "`cells[i, j]` is a label's logit for the picture of clip `i` with the sound of clip `j` "
        "(two clips, so four cells). Give three numbers: what the first *picture* adds in place of "
        "the second, the mean over both sounds; what the first *sound* adds, the mean over both "
        "pictures; and the *interaction*: how much more the first sound adds under the first "
        "picture than under the second."
    ),
    hint="The picture's part is `(cells[0] - cells[1]).mean()`; that of the sound is alike.",
    start='''
def worth(cells):
    """What the first picture adds, what the first sound adds, and their interaction."""
    raise NotImplementedError
''',
    solution='''
def worth(cells):
    """What the first picture adds, what the first sound adds, and their interaction."""
    picture = (cells[0] - cells[1]).mean()
    sound = (cells[:, 0] - cells[:, 1]).mean()
    (both, first_picture), (first_sound, neither) = cells
    return picture, sound, both - first_picture - first_sound + neither
''',
    mistakes={
        "picture and sound have changed places: rows are pictures, columns are sounds": """
def worth(cells):
    picture = (cells[:, 0] - cells[:, 1]).mean()
    sound = (cells[0] - cells[1]).mean()
    return picture, sound, cells[0, 0] - cells[0, 1] - cells[1, 0] + cells[1, 1]
""",
        "only the first partner was used, not the mean over both": """
def worth(cells):
    picture, sound = cells[0, 0] - cells[1, 0], cells[0, 0] - cells[0, 1]
    return picture, sound, cells[0, 0] - cells[0, 1] - cells[1, 0] + cells[1, 1]
""",
        "the second minus the first was taken: all signs of the parts are turned": """
def worth(cells):
    picture, sound = (cells[1] - cells[0]).mean(), (cells[:, 1] - cells[:, 0]).mean()
    return picture, sound, cells[0, 0] - cells[0, 1] - cells[1, 0] + cells[1, 1]
""",
        "the sums over both partners were given, not the means": """
def worth(cells):
    picture, sound = (cells[0] - cells[1]).sum(), (cells[:, 0] - cells[:, 1]).sum()
    return picture, sound, cells[0, 0] - cells[0, 1] - cells[1, 0] + cells[1, 1]
""",
        "the interaction is the whole difference between the clips; take both parts off": """
def worth(cells):
    picture, sound = (cells[0] - cells[1]).mean(), (cells[:, 0] - cells[:, 1]).mean()
    return picture, sound, cells[0, 0] - cells[1, 1]
""",
        "the interaction was halved": """
def worth(cells):
    picture, sound = (cells[0] - cells[1]).mean(), (cells[:, 0] - cells[:, 1]).mean()
    return picture, sound, (cells[0, 0] - cells[0, 1] - cells[1, 0] + cells[1, 1]) / 2
""",
    },
    probes=_tables,
    praise=(
        "both parts add up to the difference between the two clips as they are: `cells[0, 0] - "
        "cells[1, 1]`. The interaction is what neither modality does alone, and no sum shows it."
    ),
)

EXERCISES = (ROLL_OUT, POINTING, DELETION_CURVE, WORTH)
