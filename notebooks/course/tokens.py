"""Exercises of notebook 02: gradients, patches, heads, attention, and the map of a CLS token."""

import numpy as np

from course.exercise import Exercise


def _losses() -> list[tuple]:
    def line(p):
        x = np.arange(4.0)
        return ((p["w"] * x + p["b"] - 2 * x - 1) ** 2).mean()

    def valley(p):
        return (p[0] ** 4).sum() + ((p[1]["x"] - 1) ** 2).sum()

    nested = (np.array([0.5, -0.4]), {"x": np.zeros((2, 2))})
    return [
        (line, {"w": 0.0, "b": 0.5}, 0.1, 3),
        (valley, nested, 0.2, 4),
        (line, {"w": 1.0, "b": 0.0}, 0.05, 1),
    ]


DESCEND = Exercise(
    name="descend",
    title="Gradient descent",
    level="easy",
    minutes=10,
    task=(
        "`params` is a pytree: dictionaries and tuples of arrays, nested in any way. "
        "`loss(params)` is one number. Take `steps` steps of gradient descent: in each, take the "
        "gradient at the parameters of *now*, and subtract `rate` times the gradient from every "
        "array. Return the new parameters; leave those that were given as they are."
    ),
    hint=(
        "`jax.grad(loss)(params)` has the structure of `params`; `jax.tree.map(lambda p, g: ..., "
        "params, gradient)` walks through both at once."
    ),
    start='''
def descend(loss, params, rate, steps):
    """The parameters, a pytree, after some steps of gradient descent on `loss(params)`."""
    raise NotImplementedError
''',
    solution='''
def descend(loss, params, rate, steps):
    """The parameters, a pytree, after some steps of gradient descent on `loss(params)`."""
    for _ in range(steps):
        gradient = jax.grad(loss)(params)
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
    return params
''',
    mistakes={
        "it climbs: the gradient points uphill and is to be subtracted": """
def descend(loss, params, rate, steps):
    for _ in range(steps):
        params = jax.tree.map(lambda p, g: p + rate * g, params, jax.grad(loss)(params))
    return params
""",
        "the gradient is taken once, at the start, and should be taken anew in every step": """
def descend(loss, params, rate, steps):
    gradient = jax.grad(loss)(params)
    for _ in range(steps):
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
    return params
""",
        "it is one step only, whatever `steps` is": """
def descend(loss, params, rate, steps):
    return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))
""",
        "the step does not depend on `rate`": """
def descend(loss, params, rate, steps):
    for _ in range(steps):
        params = jax.tree.map(lambda p, g: p - g, params, jax.grad(loss)(params))
    return params
""",
        "the gradient came back, where the parameters should": """
def descend(loss, params, rate, steps):
    for _ in range(steps):
        gradient = jax.grad(loss)(params)
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
    return gradient
""",
        "the parameters came back as they were: `jax.tree.map` returns a new tree": """
def descend(loss, params, rate, steps):
    return jax.tree.map(jnp.asarray, params)
""",
    },
    probes=_losses,
    praise=(
        "the same four lines train a line, this model, or one of 175 million parameters. Optax "
        "(03b) puts better updates in the place of `rate * g`."
    ),
    given="import jax\nimport jax.numpy as jnp\nimport numpy as np",
)


def _frames() -> list[tuple]:
    rng = np.random.default_rng(0)
    sizes = [((4, 6, 8, 3), (2, 3, 2)), ((2, 4, 4, 3), (1, 2, 2))]
    return [(rng.normal(size=shape), patch) for shape, patch in sizes]


CUT_INTO_PATCHES = Exercise(
    name="cut_into_patches",
    title="Cut a video into patches",
    level="medium",
    minutes=10,
    task=(
        "Cut frames `[T, H, W, 3]` into patches of `(t, h, w)` frames, rows and columns (all of "
        "them divide). Each patch becomes one row of `t * h * w * 3` numbers. The patches follow "
        "one another as one reads: time first, then from top to bottom, then from left to right."
    ),
    hint=(
        "First `reshape` each axis into two, (how many patches, how long is one); then "
        "`transpose` so that the three counts come first; then `reshape` again."
    ),
    start='''
def cut_into_patches(frames, patch):
    """Rows [N, t * h * w * 3] of frames [T, H, W, 3], in patches of (t, h, w)."""
    raise NotImplementedError
''',
    solution='''
def cut_into_patches(frames, patch):
    """Rows [N, t * h * w * 3] of frames [T, H, W, 3], in patches of (t, h, w)."""
    (T, H, W, _), (t, h, w) = frames.shape, patch
    x = frames.reshape(T // t, t, H // h, h, W // w, w, 3)
    x = x.transpose(0, 2, 4, 1, 3, 5, 6)  # the three counts first, then what is in a patch
    return x.reshape(-1, t * h * w * 3)
''',
    mistakes={
        "there is no transpose: a row is a piece of a line of pixels, not a patch": """
def cut_into_patches(frames, patch):
    t, h, w = patch
    return frames.reshape(-1, t * h * w * 3)
""",
        "the patches follow one another from top to bottom before from left to right": """
def cut_into_patches(frames, patch):
    (T, H, W, _), (t, h, w) = frames.shape, patch
    x = frames.reshape(T // t, t, H // h, h, W // w, w, 3)
    return x.transpose(0, 4, 2, 1, 3, 5, 6).reshape(-1, t * h * w * 3)
""",
        "the colors come first within a patch, where they should come last": """
def cut_into_patches(frames, patch):
    (T, H, W, _), (t, h, w) = frames.shape, patch
    x = frames.reshape(T // t, t, H // h, h, W // w, w, 3)
    return x.transpose(0, 2, 4, 6, 1, 3, 5).reshape(-1, t * h * w * 3)
""",
        "count and length of an axis have changed places, so that a patch takes pixels "
        "that lie far apart": """
def cut_into_patches(frames, patch):
    (T, H, W, _), (t, h, w) = frames.shape, patch
    x = frames.reshape(t, T // t, h, H // h, w, W // w, 3)
    return x.transpose(1, 3, 5, 0, 2, 4, 6).reshape(-1, t * h * w * 3)
""",
        "the patches are right, but not flattened": """
def cut_into_patches(frames, patch):
    (T, H, W, _), (t, h, w) = frames.shape, patch
    x = frames.reshape(T // t, t, H // h, h, W // w, w, 3)
    return x.transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, t, h, w, 3)
""",
    },
    probes=_frames,
    praise=(
        "no number was computed, only moved: two reshapes and a transpose turn a video into a "
        "sentence."
    ),
)


def _tokens() -> list[tuple]:
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(5, 12)), 3), (rng.normal(size=(4, 8)), 4)]


SPLIT_HEADS = Exercise(
    name="split_heads",
    title="Split queries into heads",
    level="easy",
    minutes=5,
    task=(
        "A query (or key, or value) of width `D` is `heads` pieces one after the other, each "
        "`D // heads` wide: the first piece belongs to head 0. Turn the queries of all tokens, "
        "`[N, D]`, into `[heads, N, D // heads]`, so that each head has a list of its own."
    ),
    hint="`reshape` can only split the last axis; then two axes change places (`swapaxes`).",
    start='''
def split_heads(x, heads):
    """Array [heads, N, D // heads] of the queries (or keys, or values) [N, D] of N tokens."""
    raise NotImplementedError
''',
    solution='''
def split_heads(x, heads):
    """Array [heads, N, D // heads] of the queries (or keys, or values) [N, D] of N tokens."""
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)
''',
    mistakes={
        "a reshape alone gave the shape: it mixes numbers of different tokens": """
def split_heads(x, heads):
    return x.reshape(heads, len(x), -1)
""",
        "the tokens come first, where the heads should": """
def split_heads(x, heads):
    return x.reshape(len(x), heads, -1)
""",
        "the heads are interleaved: a head got numbers that lie apart, not one piece": """
def split_heads(x, heads):
    return np.moveaxis(x.reshape(len(x), -1, heads), 2, 0)
""",
        "tokens and width have changed places within a head": """
def split_heads(x, heads):
    return x.reshape(len(x), heads, -1).transpose(1, 2, 0)
""",
    },
    probes=_tokens,
    praise="a reshape can give the right shape with the wrong numbers; so test values, not shapes.",
)


def _heads() -> list[tuple]:
    rng = np.random.default_rng(2)
    shapes = [((2, 3, 4), (2, 5, 4)), ((3, 6, 8), (3, 6, 8))]
    return [(rng.normal(size=q), rng.normal(size=k), rng.normal(size=k)) for q, k in shapes]


SOFTMAX = """
import numpy as np

def softmax(scores, axis):
    e = np.exp(scores - scores.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)
"""

ATTEND = Exercise(
    name="attend",
    title="Attention",
    level="medium",
    minutes=15,
    task=(
        "Write attention: every query is compared with every key by a dot product, divided by the "
        "root of the width `d`; a softmax makes each query's row sum to one; the row says how much "
        "of each value is read. Heads stand in front and do not mix. Give back the weights and "
        "what was read."
    ),
    hint=(
        "`q @ k.swapaxes(-1, -2)` compares all with all; subtract the largest score of a row "
        "before `np.exp`, so that nothing overflows."
    ),
    start='''
def attend(q, k, v):
    """Weights [H, Q, K] and what was read [H, Q, d], of q [H, Q, d] and k, v [H, K, d]."""
    raise NotImplementedError
''',
    solution='''
def attend(q, k, v):
    """Weights [H, Q, K] and what was read [H, Q, d], of q [H, Q, d] and k, v [H, K, d]."""
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    weights = scores / scores.sum(-1, keepdims=True)
    return weights, weights @ v
''',
    mistakes={
        "the scores are not divided by the root of the width": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2), -1)
    return weights, weights @ v
""",
        "the softmax runs over the queries: columns sum to one, not rows": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -2)
    return weights, weights @ v
""",
        "the softmax runs over the heads": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), 0)
    return weights, weights @ v
""",
        "the scores are divided by the width, not by its root": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2) / q.shape[-1], -1)
    return weights, weights @ v
""",
        "the scores are divided by the root of the number of keys, not of the width": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(k.shape[-2]), -1)
    return weights, weights @ v
""",
        "the keys are read, where the values should be": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -1)
    return weights, weights @ k
""",
        "the divisor is the sum of all rows and heads, where each row has its own": """
def attend(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum()
    return weights, weights @ v
""",
        "one softmax runs over all scores together, where each row should have its own": """
def attend(q, k, v):
    weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    weights = weights / weights.sum()
    return weights, weights @ v
""",
        "the root is that of 24, and not of the width that `q` has": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(24), -1)
    return weights, weights @ v
""",
        "only what is read came back; the weights should come first, then what is read": """
def attend(q, k, v):
    return softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -1) @ v
""",
        "only the weights came back; what is read should follow them": """
def attend(q, k, v):
    return softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -1)
""",
        "what is read is right, but it comes before the weights": """
def attend(q, k, v):
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -1)
    return weights @ v, weights
""",
    },
    probes=_heads,
    praise=(
        "the root keeps the scores near one, whatever the width; without it a softmax soon gives "
        "all to a single key, and nothing is learnt any more."
    ),
    given=SOFTMAX,
)


def _maps() -> list[tuple]:
    rng = np.random.default_rng(3)
    weights = [rng.dirichlet(np.ones(n), size=(h, n)) for h, n in ((2, 9), (4, 16))]
    return [(weights[0], (2, 3)), (weights[1], (3, 2, 2))]


CLASS_MAP = Exercise(
    name="class_map",
    title="What the CLS token attends to",
    level="medium",
    minutes=10,
    task=(
        "A sequence is the class token, then the patches, then bottleneck tokens. Given the "
        "weights `[H, N, N]` of its heads (row: who reads, column: what is read) and the `grid` of "
        "the patches, draw the map: how much the class token reads of each patch, the mean over "
        "heads, in the shape of the grid."
    ),
    hint=(
        "Row 0 of every head; of its columns, the patches are 1 to `np.prod(grid)`, and the "
        "bottleneck tokens come after them."
    ),
    start='''
def class_map(weights, grid):
    """What the class token reads of each patch, mean over heads, in the shape of the grid."""
    raise NotImplementedError
''',
    solution='''
def class_map(weights, grid):
    """What the class token reads of each patch, mean over heads, in the shape of the grid."""
    row = weights.mean(axis=0)[0]  # [N], of the class token
    return row[1 : 1 + np.prod(grid)].reshape(grid)
''',
    mistakes={
        "it is a column: who reads the class token, not what it reads": """
def class_map(weights, grid):
    return weights.mean(axis=0)[1 : 1 + np.prod(grid), 0].reshape(grid)
""",
        "the mean is taken over the wrong axis: over all that read, in head 0, not over heads": """
def class_map(weights, grid):
    return weights.mean(axis=1)[0, 1 : 1 + np.prod(grid)].reshape(grid)
""",
        "the map is one patch too early: it begins with the class token itself": """
def class_map(weights, grid):
    return weights.mean(axis=0)[0, : np.prod(grid)].reshape(grid)
""",
        "the map was taken from the end, where the bottleneck tokens are": """
def class_map(weights, grid):
    return weights.mean(axis=0)[0, -np.prod(grid) :].reshape(grid)
""",
        "the patches were made to sum to one; what the other tokens got is lost": """
def class_map(weights, grid):
    row = weights.mean(axis=0)[0, 1 : 1 + np.prod(grid)]
    return (row / row.sum()).reshape(grid)
""",
        "the heads were summed, not averaged": """
def class_map(weights, grid):
    return weights.sum(axis=0)[0, 1 : 1 + np.prod(grid)].reshape(grid)
""",
        "the maximum over the heads was taken, not their mean": """
def class_map(weights, grid):
    return weights.max(axis=0)[0, 1 : 1 + np.prod(grid)].reshape(grid)
""",
        "only head 0 was used, not the mean over the heads": """
def class_map(weights, grid):
    return weights[0, 0, 1 : 1 + np.prod(grid)].reshape(grid)
""",
    },
    probes=_maps,
    praise=(
        "the map sums to less than one: the rest of the row went to the class token itself and to "
        "the bottleneck."
    ),
)

EXERCISES = (DESCEND, CUT_INTO_PATCHES, SPLIT_HEADS, ATTEND, CLASS_MAP)
