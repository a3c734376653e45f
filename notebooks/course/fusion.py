"""Exercises of notebook 03: who attends to whom, what is exchanged, and what it costs."""

import numpy as np

from course.exercise import Exercise

WAYS = ("late", "joint", "bottleneck")


def _wirings() -> list[tuple]:
    return [
        (fusion, 2, layer, 3, 4, 2 * (fusion == "bottleneck"))
        for fusion in WAYS
        for layer in (1, 2)
    ] + [("bottleneck", 0, 0, 2, 2, 1), ("bottleneck", 3, 3, 2, 3, 2)]


READING = """
import numpy as np

def parts(sounds, pictures, bottlenecks):
    s, p, z = slice(0, sounds), slice(sounds, sounds + pictures), slice(sounds + pictures, None)
    return np.zeros([sounds + pictures + bottlenecks] * 2, bool), s, p, z
"""

MAY_READ = Exercise(
    name="may_read",
    title="Who may read whom",
    level="medium",
    minutes=10,
    task=(
        "Draw the mask of one layer: `True` where the token of a row may read the token of a "
        "column. The order is sound, picture, bottleneck. `fusion` is `'late'` (the streams never "
        "meet), `'joint'` (from `fusion_layer` on every token reads every token) or `'bottleneck'` "
        "(from `fusion_layer` on a stream also reads the bottleneck tokens, and these read all). "
        "Before that layer no token reads the bottleneck, and the bottleneck reads no token. "
        "Layers count from 0; only `'bottleneck'` has bottleneck tokens."
    ),
    hint=(
        "Begin with `np.zeros(..., bool)`, allow each stream to itself, and add the rest only if "
        "`layer >= fusion_layer`; a slice for each group keeps it short."
    ),
    start='''
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    """Mask [n, n], n = sounds + pictures + bottlenecks: may the row's token read the column's?"""
    raise NotImplementedError
''',
    solution='''
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    """Mask [n, n], n = sounds + pictures + bottlenecks: may the row's token read the column's?"""
    n = sounds + pictures
    mask = np.zeros([n + bottlenecks] * 2, bool)
    mask[:sounds, :sounds] = mask[sounds:n, sounds:n] = True  # each stream itself
    if layer >= fusion_layer and fusion == "joint":
        mask[:] = True
    if layer >= fusion_layer and fusion == "bottleneck":
        mask[:, n:] = mask[n:, :] = True  # the bottleneck tokens are read by all, and read all
    return mask
''',
    mistakes={
        "the bottleneck leaks: bottleneck tokens read and are read before the fusion layer": """
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    mask, s, p, z = parts(sounds, pictures, bottlenecks)
    mask[s, s] = mask[p, p] = mask[:, z] = mask[z] = True
    if layer >= fusion_layer and fusion == "joint":
        mask[:] = True
    return mask
""",
        "fusion begins one layer late: the fusion layer is the first that fuses": """
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    mask, s, p, z = parts(sounds, pictures, bottlenecks)
    mask[s, s] = mask[p, p] = True
    if layer > fusion_layer and fusion == "joint":
        mask[:] = True
    if layer > fusion_layer and fusion == "bottleneck":
        mask[:, z] = mask[z] = True
    return mask
""",
        "with a bottleneck the streams read each other directly, too; then it is none": """
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    mask, s, p, z = parts(sounds, pictures, bottlenecks)
    mask[s, s] = mask[p, p] = True
    if layer >= fusion_layer and fusion != "late":
        mask[:] = True
    return mask
""",
        "late fusion fuses, too: it never should": """
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    mask, s, p, z = parts(sounds, pictures, bottlenecks)
    mask[s, s] = mask[p, p] = True
    if layer >= fusion_layer and fusion != "bottleneck":
        mask[:] = True
    elif layer >= fusion_layer:
        mask[:, z] = mask[z] = True
    return mask
""",
        "only half is done: the bottleneck tokens are read, but they read no token": """
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    mask, s, p, z = parts(sounds, pictures, bottlenecks)
    mask[s, s] = mask[p, p] = True
    if layer >= fusion_layer and fusion == "joint":
        mask[:] = True
    if layer >= fusion_layer and fusion == "bottleneck":
        mask[:, z] = True
    return mask
""",
        "only half is done: the bottleneck tokens read all, but no token reads them": """
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    mask, s, p, z = parts(sounds, pictures, bottlenecks)
    mask[s, s] = mask[p, p] = True
    if layer >= fusion_layer and fusion == "joint":
        mask[:] = True
    if layer >= fusion_layer and fusion == "bottleneck":
        mask[z] = True
    return mask
""",
        "the bottleneck tokens do not read one another; in a block every token reads all": """
def may_read(fusion, fusion_layer, layer, sounds, pictures, bottlenecks):
    mask, s, p, z = parts(sounds, pictures, bottlenecks)
    mask[s, s] = mask[p, p] = True
    if layer >= fusion_layer and fusion == "joint":
        mask[:] = True
    if layer >= fusion_layer and fusion == "bottleneck":
        mask[:, z] = mask[z] = True
        mask[z, z] = False
    return mask
""",
    },
    probes=_wirings,
    praise=(
        "between sound and picture the mask of a bottleneck is empty. All that one ever learns of "
        "the other has to be written into a bottleneck token first, and read from it a layer later."
    ),
    given=READING,
)


def _streams() -> list[tuple]:
    rng = np.random.default_rng(0)
    probes = []
    for sound, picture, bottlenecks in ((4, 3, 2), (2, 5, 1)):
        w, u = rng.normal(size=(2, 3, 3))
        blocks = {"spec": _block(w), "rgb": _block(u)}
        tokens = {"spec": rng.normal(size=(sound, 3)), "rgb": rng.normal(size=(picture, 3))}
        probes.append((blocks, tokens, rng.normal(size=(bottlenecks, 3))))
    return probes


def _block(w: np.ndarray):
    """A block in which every token reads all: as attention does, but simple."""

    def block(x):
        return x + np.tanh(x @ w + x.sum(0) * (1 + np.arange(x.shape[1])))

    return block


EXCHANGE = Exercise(
    name="exchange",
    title="One layer through the bottleneck",
    level="medium",
    minutes=15,
    task=(
        "Write one fused layer. `blocks` and `tokens` are dictionaries by stream, in the order "
        "`'spec'`, `'rgb'`; a block takes a sequence `[n, D]` and gives one of the same shape. "
        "Each stream's block runs over its tokens `[N, D]` with the bottleneck tokens `[Z, D]` "
        "after them. Both streams read the *same old* bottleneck tokens; the new ones are the mean "
        "of the two updates. Give back the new tokens, a dictionary like `tokens`, and the new "
        "bottleneck tokens."
    ),
    hint=(
        "`blocks[s](np.concatenate([tokens[s], bottlenecks]))`; the first `len(tokens[s])` rows "
        "are tokens, the others are this stream's update of the bottleneck. Collect the updates, "
        "and average them after the loop."
    ),
    start='''
def exchange(blocks, tokens, bottlenecks):
    """New tokens {stream: [N, D]} and new bottleneck tokens [Z, D] after one fused layer."""
    raise NotImplementedError
''',
    solution='''
def exchange(blocks, tokens, bottlenecks):
    """New tokens {stream: [N, D]} and new bottleneck tokens [Z, D] after one fused layer."""
    new, written = {}, []
    for s, x in tokens.items():
        y = blocks[s](np.concatenate([x, bottlenecks]))
        new[s] = y[: len(x)]
        written.append(y[len(x) :])
    return new, np.mean(written, axis=0)
''',
    mistakes={
        "the second stream reads the bottleneck tokens that the first has already updated; both "
        "should read the old ones": """
def exchange(blocks, tokens, bottlenecks):
    new, written = {}, []
    for s, x in tokens.items():
        y = blocks[s](np.concatenate([x, bottlenecks]))
        new[s], bottlenecks = y[: len(x)], y[len(x) :]
        written.append(bottlenecks)
    return new, np.mean(written, axis=0)
""",
        "the new bottleneck tokens are the last stream's update alone, not the mean of both": """
def exchange(blocks, tokens, bottlenecks):
    new = {}
    for s, x in tokens.items():
        y = blocks[s](np.concatenate([x, bottlenecks]))
        new[s], written = y[: len(x)], y[len(x) :]
    return new, written
""",
        "the new bottleneck tokens are the sum of the updates, not their mean": """
def exchange(blocks, tokens, bottlenecks):
    new, written = {}, 0
    for s, x in tokens.items():
        y = blocks[s](np.concatenate([x, bottlenecks]))
        new[s], written = y[: len(x)], written + y[len(x) :]
    return new, written
""",
        "the mean is over the wrong axis: over the bottleneck tokens, not over the streams": """
def exchange(blocks, tokens, bottlenecks):
    new, written = {}, []
    for s, x in tokens.items():
        y = blocks[s](np.concatenate([x, bottlenecks]))
        new[s] = y[: len(x)]
        written.append(y[len(x) :])
    return new, np.mean(written, axis=1)
""",
        "the old bottleneck tokens are returned: the updates are lost": """
def exchange(blocks, tokens, bottlenecks):
    new = {s: blocks[s](np.concatenate([x, bottlenecks]))[: len(x)] for s, x in tokens.items()}
    return new, bottlenecks
""",
        "the bottleneck tokens are still at the end of the new tokens: cut them off": """
def exchange(blocks, tokens, bottlenecks):
    new = {s: blocks[s](np.concatenate([x, bottlenecks])) for s, x in tokens.items()}
    return new, np.mean([y[-len(bottlenecks) :] for y in new.values()], axis=0)
""",
        "only the new tokens are returned; return the new bottleneck tokens, too": """
def exchange(blocks, tokens, bottlenecks):
    return {s: blocks[s](np.concatenate([x, bottlenecks]))[: len(x)] for s, x in tokens.items()}
""",
        "the bottleneck tokens come first in the sequence, but were cut off at its end": """
def exchange(blocks, tokens, bottlenecks):
    new, written = {}, []
    for s, x in tokens.items():
        y = blocks[s](np.concatenate([bottlenecks, x]))
        new[s] = y[: len(x)]
        written.append(y[len(x) :])
    return new, np.mean(written, axis=0)
""",
    },
    probes=_streams,
    praise=(
        "as both read the same old bottleneck tokens, it makes no difference which stream comes "
        "first. The new bottleneck tokens mix sound and picture for the first time; who reads them "
        "reads both."
    ),
)


def _lengths() -> list[tuple]:
    return [([6, 8], 4, 12), ([10], 8, 16), ([3, 3, 5], 6, 6)]


MULTIPLY_ADDS = Exercise(
    name="multiply_adds",
    title="What a layer costs",
    level="easy",
    minutes=10,
    task=(
        "Count the multiply-adds of one layer in which blocks of width `D` run over sequences of "
        "the given `lengths`, one after the other. A product of `[a, b]` and `[b, c]` takes "
        "`a * b * c` of them. In a block of `n` tokens there are: query, key and value of every "
        "token (a matrix `[D, 3 D]`), scores of all with all, the values read with the weights, "
        "one more matrix `[D, D]`, and two layers of an MLP (`[D, mlp]` and back). The heads make "
        "no difference."
    ),
    hint=(
        "`n * D * 3 * D` for query, key and value, `n * n * D` for the scores, as much again for "
        "reading; go on like this, and sum over the lengths."
    ),
    start='''
def multiply_adds(lengths, D, mlp):
    """Multiply-adds of one layer of blocks over sequences of these lengths."""
    raise NotImplementedError
''',
    solution='''
def multiply_adds(lengths, D, mlp):
    """Multiply-adds of one layer of blocks over sequences of these lengths."""
    return sum(n * (4 * D * D + 2 * D * mlp) + 2 * n * n * D for n in lengths)
''',
    mistakes={
        "attention is counted once: the scores, but not the reading of the values": """
def multiply_adds(lengths, D, mlp):
    return sum(n * (4 * D * D + 2 * D * mlp) + n * n * D for n in lengths)
""",
        "the matrix after attention is missing": """
def multiply_adds(lengths, D, mlp):
    return sum(n * (3 * D * D + 2 * D * mlp) + 2 * n * n * D for n in lengths)
""",
        "query, key and value are counted as one matrix [D, D]; they are three": """
def multiply_adds(lengths, D, mlp):
    return sum(n * (2 * D * D + 2 * D * mlp) + 2 * n * n * D for n in lengths)
""",
        "only one of the two layers of the MLP is counted": """
def multiply_adds(lengths, D, mlp):
    return sum(n * (4 * D * D + D * mlp) + 2 * n * n * D for n in lengths)
""",
        "all sequences were put into one; apart, they do not read each other": """
def multiply_adds(lengths, D, mlp):
    n = sum(lengths)
    return n * (4 * D * D + 2 * D * mlp) + 2 * n * n * D
""",
        "a multiply-add is counted as two operations; here it is one": """
def multiply_adds(lengths, D, mlp):
    return 2 * sum(n * (4 * D * D + 2 * D * mlp) + 2 * n * n * D for n in lengths)
""",
        "attention is left out: what grows with the square of the length": """
def multiply_adds(lengths, D, mlp):
    return sum(n * (4 * D * D + 2 * D * mlp) for n in lengths)
""",
    },
    probes=_lengths,
    praise=(
        "one part grows with the length, one with its square. So it is cheaper to run two short "
        "sequences than a long one, and the more so the longer they are."
    ),
)

EXERCISES = (MAY_READ, EXCHANGE, MULTIPLY_ADDS)
