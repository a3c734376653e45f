"""Label heads: which classes share a softmax or have a sigmoid each, and their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

KINDS = ("sigmoid", "softmax")


@dataclass(frozen=True)
class Head:
    """A range of columns of the logits that share one softmax, or have a sigmoid each."""

    name: str  # such as "verb"; empty where there is only one head
    kind: str  # sigmoid: any of its labels can be true; softmax: one of them is
    classes: int

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"a head's kind is {' or '.join(KINDS)}, not {self.kind!r}.")
        if self.classes < 1:
            raise ValueError(f"a head of {self.classes} classes has no answer.")


def make_heads(loss: str, labels: Sequence[str]) -> tuple[Head, ...]:
    """Return the heads of a model trained with this loss, in the order of its labels.

    Softmax over labels "verb:..." and "noun:..." gives two heads; otherwise there is one. Raises
    ValueError where verbs and nouns alternate.
    """
    columns_of = label_heads(labels) if loss == "softmax" else None
    if not columns_of:
        return (Head("", loss, len(labels)),)
    if any(np.ptp(columns) >= len(columns) for columns in columns_of.values()):
        raise ValueError("labels of verbs and nouns are mixed: list all of one kind first.")
    order = sorted(columns_of, key=lambda name: columns_of[name][0])
    return tuple(Head(name, loss, len(columns_of[name])) for name in order)


def read_heads(values: Sequence, classes: int) -> tuple[Head, ...]:
    """Read heads from a file's JSON; raise ValueError where they do not fit `classes` classes."""
    try:
        heads = tuple(Head(str(v["name"]), v["kind"], int(v["classes"])) for v in values)
    except (TypeError, KeyError):
        raise ValueError("label_heads must be a list of name, kind and classes.") from None
    check_heads(heads, classes)
    return heads


def check_heads(heads: Sequence[Head], classes: int) -> None:
    """Raise ValueError where the heads together do not have `classes` classes."""
    total = sum(head.classes for head in heads)
    if total != classes:
        raise ValueError(f"heads of {total} classes do not fit a model of {classes} classes.")


def in_words(heads: Sequence[Head]) -> str:
    """Describe heads, such as "softmax: one of 97 verb and one of 300 noun labels"."""
    kinds = " and ".join(dict.fromkeys(head.kind for head in heads))
    quantifier = {"softmax": "one", "sigmoid": "any"}
    parts = [f"{quantifier[h.kind]} of {h.classes}{' ' * bool(h.name)}{h.name}" for h in heads]
    return f"{kinds}: {' and '.join(parts)} labels"


def comparable(logits: np.ndarray, heads: Sequence[Head] = ()) -> np.ndarray:
    """Make logits [..., C] comparable between clips: log-probabilities for softmax heads.

    A constant added to all logits of a clip does not change its softmax, so raw logits cannot rank
    clips. Logits of sigmoid heads are returned unchanged, and all are where there are no heads.
    """
    logits = np.array(logits, np.result_type(logits, np.float32))
    for head, columns in head_columns(heads):
        if head.kind == "softmax":
            part = logits[..., columns]
            top = part.max(-1, keepdims=True)
            logits[..., columns] = part - top - np.log(np.exp(part - top).sum(-1, keepdims=True))
    return logits


def probabilities(logits: np.ndarray, heads: Sequence[Head] = ()) -> np.ndarray:
    """Convert logits to probabilities [..., C]: by softmax within a softmax head, else by sigmoid.

    Those of a softmax head sum to one. Average the logits of several windows of a clip first.
    Without heads every class has its own sigmoid.
    """
    values = comparable(logits, heads)
    sigmoid = np.ones(values.shape[-1], bool)
    for head, columns in head_columns(heads):
        sigmoid[columns] = head.kind == "sigmoid"
    values[..., sigmoid] = np.exp(-np.logaddexp(0, -values[..., sigmoid]))
    values[..., ~sigmoid] = np.exp(values[..., ~sigmoid])
    return values


def ranked(values: np.ndarray, heads: Sequence[Head] = (), count: int | None = None) -> np.ndarray:
    """Return the columns of values [C] in descending order, `count` of each head or all.

    Of several heads the best of each comes first, then the second of each, and so on.
    """
    if not heads:
        return np.argsort(-values, kind="stable")[:count]
    best = [c.start + np.argsort(-values[c], kind="stable")[:count] for _, c in head_columns(heads)]
    rows = zip_longest(*best)
    return np.array([column for row in rows for column in row if column is not None], int)


def head_columns(heads: Sequence[Head]) -> list[tuple[Head, slice]]:
    """Pair each head with its columns of the logits."""
    ends = np.cumsum([head.classes for head in heads], dtype=int)
    return [(h, slice(end - h.classes, end)) for h, end in zip(heads, ends.tolist(), strict=True)]


def label_heads(labels: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Return the columns of {"verb": ..., "noun": ...} if every label begins "verb:" or "noun:"."""
    starts = np.array([label.partition(":")[0] for label in labels])
    heads = {head: np.flatnonzero(starts == head) for head in ("verb", "noun")}
    complete = sum(map(len, heads.values())) == len(labels)
    return heads if complete and all(map(len, heads.values())) else None


def stream_columns(labels: Sequence[str], streams: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Return the columns that each stream predicts, if there are labels "rgb: ..." or "spec: ...".

    Only their own stream predicts those; both predict all others.
    """
    starts = np.array([label.partition(": ")[0] for label in labels])
    if not np.isin(starts, streams).any():
        return None
    others = {stream: [other for other in streams if other != stream] for stream in streams}
    return {stream: np.flatnonzero(~np.isin(starts, others[stream])) for stream in streams}
