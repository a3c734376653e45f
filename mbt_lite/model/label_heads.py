"""Label heads: which classes share a softmax or have a sigmoid each, and their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

KINDS = ("sigmoid", "softmax")


@dataclass(frozen=True)
class Head:
    """Neighboring classes whose probabilities belong together, as they were trained."""

    name: str  # such as "verb"; empty where there is only one head
    kind: str  # sigmoid: any of its labels can be true; softmax: one of them is
    classes: int

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"a head's kind is {' or '.join(KINDS)}, not {self.kind!r}.")
        if self.classes < 1:
            raise ValueError(f"a head of {self.classes} classes has no answer.")


def make_heads(loss: str, labels: Sequence[str]) -> tuple[Head, ...]:
    """The heads of a model that was trained with this loss, in the order of its labels.

    Softmax over labels "verb:..." and "noun:..." are two heads; otherwise there is one. ValueError
    where verbs and nouns are mixed.
    """
    apart = label_heads(labels) if loss == "softmax" else None
    if not apart:
        return (Head("", loss, len(labels)),)
    if any(np.ptp(columns) >= len(columns) for columns in apart.values()):
        raise ValueError("labels of verbs and nouns are mixed: list all of one kind first.")
    order = sorted(apart, key=lambda name: apart[name][0])
    return tuple(Head(name, loss, len(apart[name])) for name in order)


def read_heads(values: Sequence, classes: int) -> tuple[Head, ...]:
    """The heads of what a file says of them; ValueError where they do not fit so many classes."""
    try:
        heads = tuple(Head(str(v["name"]), v["kind"], int(v["classes"])) for v in values)
    except (TypeError, KeyError):
        raise ValueError("label_heads must be a list of name, kind and classes.") from None
    check_heads(heads, classes)
    return heads


def check_heads(heads: Sequence[Head], classes: int) -> None:
    """ValueError where the heads do not have so many classes together."""
    held = sum(head.classes for head in heads)
    if held != classes:
        raise ValueError(f"heads of {held} classes do not fit a model of {classes} classes.")


def in_words(heads: Sequence[Head]) -> str:
    """What the heads' labels mean, such as "softmax: one of 97 verb and one of 300 noun labels"."""
    kinds = " and ".join(dict.fromkeys(head.kind for head in heads))
    many = {"softmax": "one", "sigmoid": "any"}
    parts = [f"{many[h.kind]} of {h.classes}{' ' * bool(h.name)}{h.name}" for h in heads]
    return f"{kinds}: {' and '.join(parts)} labels"


def comparable(logits: np.ndarray, heads: Sequence[Head] = ()) -> np.ndarray:
    """Logits [..., C] that rank clips of one class: log-probabilities of softmax heads.

    The softmax of a clip's logits does not change when all of them rise, so they say nothing from
    one clip to another. Logits of sigmoid heads stay as they are, and without heads all do.
    """
    found = np.array(logits, np.result_type(logits, np.float32))
    for head, columns in head_columns(heads):
        if head.kind == "softmax":
            part = found[..., columns]
            top = part.max(-1, keepdims=True)
            found[..., columns] = part - top - np.log(np.exp(part - top).sum(-1, keepdims=True))
    return found


def probabilities(logits: np.ndarray, heads: Sequence[Head] = ()) -> np.ndarray:
    """Probabilities [..., C] of logits: by softmax of a head that was trained so, else by sigmoid.

    Those of a softmax head sum to one. The logits of several windows of a clip are averaged first.
    Without heads each class stands for itself.
    """
    found = comparable(logits, heads)
    rest = np.ones(found.shape[-1], bool)
    for head, columns in head_columns(heads):
        rest[columns] = head.kind == "sigmoid"
    found[..., rest] = np.exp(-np.logaddexp(0, -found[..., rest]))
    found[..., ~rest] = np.exp(found[..., ~rest])
    return found


def ranked(values: np.ndarray, heads: Sequence[Head] = (), count: int | None = None) -> np.ndarray:
    """Columns of values [C], best first, `count` of each head or all.

    Of several heads the best of each comes first, then the second of each, and so on.
    """
    if not heads:
        return np.argsort(-values, kind="stable")[:count]
    best = [c.start + np.argsort(-values[c], kind="stable")[:count] for _, c in head_columns(heads)]
    rows = zip_longest(*best)
    return np.array([column for row in rows for column in row if column is not None], int)


def head_columns(heads: Sequence[Head]) -> list[tuple[Head, slice]]:
    """Each head with its columns."""
    ends = np.cumsum([head.classes for head in heads], dtype=int)
    return [(h, slice(end - h.classes, end)) for h, end in zip(heads, ends.tolist(), strict=True)]


def label_heads(labels: Sequence[str]) -> dict[str, np.ndarray] | None:
    """{"verb": its columns, "noun": its columns} where every label begins "verb:" or "noun:"."""
    starts = np.array([label.partition(":")[0] for label in labels])
    heads = {head: np.flatnonzero(starts == head) for head in ("verb", "noun")}
    whole = sum(map(len, heads.values())) == len(labels)
    return heads if whole and all(map(len, heads.values())) else None
