"""Measure the faithfulness of importance maps against a known answer and against themselves.

In the micro-world the cause of "circle sings" is known: the circle. There a map is scored by its
mass on the singer, and by whether its highest point lies on it. On any data it is scored by the
probability of the label while its highest patches are deleted first or inserted first, and by its
agreement with the map of a model with random weights.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata
from tqdm import tqdm

from mbt_lite.config import MBTConfig
from mbt_lite.data import world
from mbt_lite.explain.maps import METHODS, hide
from mbt_lite.features import normalize
from mbt_lite.inference import Classifier
from mbt_lite.model.mbt import MBT, Clip, patchify

BATCH = 25  # clips at once
FRACTIONS = np.linspace(0, 1, 11)  # of the patches that are gone, or back
COLUMNS = (
    "mass on the singer",
    "pointing",
    "right shape",
    "deletion",
    "insertion",
    "random weights",
)


@dataclass(frozen=True)
class Curves:
    """Mean probability of the true label while patches are deleted or inserted."""

    fractions: np.ndarray  # [F] of all patches of both streams
    deletion: dict[str, np.ndarray]  # {method, or "random": [F]}, the highest patches go first
    insertion: dict[str, np.ndarray]  # {method, or "random": [F]}, the highest come back first


@dataclass(frozen=True)
class Faithfulness:
    """Scores of each method on clips of the micro-world, with half widths of 95 % intervals.

    "mass on the singer": share of the video's map inside the singer's box. "pointing": how often
    the map's highest point lies in it. "right shape": how often the singer's box has more mass per
    cell than any other shape's. "deletion" (low is good) and "insertion" (high is good): mean
    probability along the curves of `Curves`. "random weights": rank correlation with the map of a
    model with randomized weights (near 0 is good). `chance` is the score of an even map, a random
    point, a random shape or a random order; nan in the last column.
    """

    methods: tuple[str, ...]
    columns: tuple[str, ...]
    mean: np.ndarray  # [M, columns]
    half: np.ndarray  # [M, columns]
    chance: np.ndarray  # [columns]
    clips: int
    curves: Curves

    def beats_chance(self, method: str, column: str) -> bool:
        """Whether the 95 % interval lies on the good side of chance."""
        i, j = self.methods.index(method), self.columns.index(column)
        better = self.mean[i, j] - self.chance[j]
        return bool((-better if column == "deletion" else better) > self.half[i, j])

    def table(self) -> str:
        """The scores as a Markdown table."""
        rows = [["", *self.columns], ["---"] * (1 + len(self.columns))]
        for method, mean, half in zip(self.methods, self.mean, self.half, strict=True):
            rows.append([method, *(f"{m:.3f} ± {h:.3f}" for m, h in zip(mean, half, strict=True))])
        rows.append(["chance", *("" if np.isnan(x) else f"{x:.3f}" for x in self.chance)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measured() -> Faithfulness:
    """Return the `Faithfulness` of the embedded model, by `mbt-lite faithfulness --json`."""
    path = resources.files("mbt_lite") / "weights" / "world-tiny-faithfulness.json"
    values = json.loads(path.read_text("utf-8"))
    names = {key: tuple(values[key]) for key in ("methods", "columns")}
    scores = {key: np.array(values[key], np.float64) for key in ("mean", "half", "chance")}
    fractions, *curves = values["curves"].values()
    curves = [{method: np.array(x) for method, x in curve.items()} for curve in curves]
    curves = Curves(np.array(fractions), *curves)
    return Faithfulness(**names, **scores, clips=values["clips"], curves=curves)


def caption(classifier: Classifier, method: str) -> str:
    """Describe how often maps of a method find the singing shape, as a caption.

    The scores are those of the embedded model; for any other the caption says so.
    """
    scores = measured()
    row, parts = scores.methods.index(method), []
    names = {"pointing": "highest on the shape that sings", "right shape": "the right shape"}
    for column, words in names.items():
        j = scores.columns.index(column)
        mean, chance = scores.mean[row, j], scores.chance[j]
        verdict = "" if scores.beats_chance(method, column) else ", no better"
        parts.append(f"{words} in {mean:.0%} of clips (chance {chance:.0%}{verdict})")
    embedded = classifier.card.get("name") == "world-tiny"
    prefix = "" if embedded else "not measured for this model; with the embedded one "
    return f"{prefix}in the micro-world, {'; '.join(parts)}"


def faithfulness(
    classifier: Classifier,
    clips: int = 500,
    methods: Sequence[str] = tuple(METHODS),
    split: str = "test",
) -> Faithfulness:
    """Measure the faithfulness of maps for the singing shape, on clips of the micro-world.

    Raises ValueError if the classifier lacks the world's labels or one of the modalities.
    """
    if not set(world.LABELS) <= set(classifier.labels) or len(classifier.config.streams) < 2:
        raise ValueError("these scores need a model of video and audio with the world's labels.")
    if not methods or not set(methods) <= set(METHODS):
        raise ValueError(f"methods {', '.join(methods)}: there are {', '.join(METHODS)}.")
    randomized, rng = randomised(classifier), np.random.default_rng(0)
    scores, chances, curves = {m: [] for m in methods}, [], []
    scenes = list(singing(clips, split))
    starts = range(0, clips, BATCH)
    for start in tqdm(starts, "faithfulness", unit=f"x {BATCH} clips", disable=None):
        question = Question(classifier, scenes[start : start + BATCH])
        random_order = rng.permuted(question.places, axis=1)
        batch_curves = {"random": question.curves(random_order)}  # [2, B, F] each
        for method in methods:
            maps = question.maps(method, classifier)
            batch_curves[method] = question.curves(question.order(maps))
            areas = batch_curves[method].mean(-1)  # [2, B]: deletion and insertion
            correlation = agreement(maps, question.maps(method, randomized))
            row = [*question.on_singer(maps["rgb"]), *areas, correlation]
            scores[method].append(np.stack(row, axis=1))  # [B, columns]
        chance = [*question.chance(), *batch_curves["random"].mean(-1)]
        chances.append(np.stack(chance, axis=1))
        curves.append(batch_curves)
    values = np.stack([np.concatenate(rows) for rows in scores.values()])  # [M, clips, columns]
    half = 1.96 * values.std(1) / np.sqrt(clips)
    chance = np.append(np.concatenate(chances).mean(0), np.nan)
    joined = {m: np.concatenate([c[m] for c in curves], axis=1).mean(1) for m in curves[0]}
    deletion, insertion = ({m: x[way] for m, x in joined.items()} for way in (0, 1))
    mean_curves = Curves(FRACTIONS, deletion, insertion)
    return Faithfulness(tuple(methods), COLUMNS, values.mean(1), half, chance, clips, mean_curves)


def singing(count: int, split: str = "test") -> Iterator[world.Scene]:
    """Return the first scenes of a micro-world split in which a shape sings."""
    index = 0
    while count:
        scene = world.scene(world.SPLITS[split], index)
        if scene.singer is not None:
            yield scene
            count -= 1
        index += 1


def randomised(classifier: Classifier, seed: int = 0) -> Classifier:
    """Replace every array of a classifier by normal noise of its mean and deviation."""
    rng = np.random.default_rng(seed)

    def draw(x):
        return np.float32(x.mean() + x.std() * rng.standard_normal(x.shape, np.float32))

    params = jax.tree.map(draw, jax.device_get(classifier.params))
    return Classifier(
        classifier.config,
        params,
        classifier.clip_config,
        classifier.labels,
        label_heads=classifier.label_heads,
    )


class Question:
    """The question "which shape sings?" for a few scenes: clips, true labels, and all boxes."""

    def __init__(self, classifier: Classifier, scenes: Sequence[world.Scene]):
        clip_config = classifier.clip_config
        samples = [world.sample(scene, clip_config) for scene in scenes]
        rgb, spec = (np.stack([sample[s] for sample in samples]) for s in ("rgb", "spec"))
        labels = [f"{scene.things[scene.singer].shape} sings" for scene in scenes]
        self.classifier, self.scenes = classifier, scenes
        self.clips = normalize(*jax.device_put((rgb, spec)), clip_config.front_end)
        self.labels = jnp.array([classifier.labels.index(label) for label in labels])
        self.covers = [covers(classifier, scene) for scene in scenes]  # [shapes, t, y, x] each
        patches = sum(map(classifier.config.patches, classifier.config.streams))
        self.places = np.tile(np.arange(patches), (len(scenes), 1))  # [B, patches]

    def maps(self, method: str, classifier: Classifier) -> dict[str, np.ndarray]:
        """{stream: [B, *grid]} by a method, for this or another classifier."""
        maps = METHODS[method](classifier, self.clips, self.labels)
        return {s: np.asarray(x) for s, x in maps.items()}

    def on_singer(self, maps: np.ndarray) -> np.ndarray:
        """[3, B] of video maps [B, t, y, x]: mass on the singer, pointing, right shape."""
        rows = []
        for cover, scene, values in zip(self.covers, self.scenes, maps, strict=True):
            mass = np.maximum(values, 0)
            share = (mass * cover[scene.singer]).sum() / max(mass.sum(), 1e-12)
            hit = self.hits(scene)[np.unravel_index(values.argmax(), values.shape)]
            density = (values * cover).sum((1, 2, 3)) / cover.sum((1, 2, 3))
            rows.append((share, hit, density.argmax() == scene.singer))
        return np.array(rows, np.float64).T

    def chance(self) -> np.ndarray:
        """[3, B]: the scores of an even map, a random point and a random shape."""
        rows = [
            (cover[scene.singer].mean(), self.hits(scene).mean(), 1 / len(scene.things))
            for cover, scene in zip(self.covers, self.scenes, strict=True)
        ]
        return np.array(rows, np.float64).T

    def hits(self, scene: world.Scene) -> np.ndarray:
        """bool [t, y, x]: whether the middle of a cell, in space and time, is on the singer."""
        middles = [(np.arange(n) + 0.5) / n for n in self.classifier.config.rgb_grid]
        times = middles[0] * self.classifier.clip_config.video_seconds
        left, top, right, bottom = world.answer_key(scene, times)["box"].T[..., None, None]
        y, x = middles[1][:, None], middles[2]
        return (left <= x) & (x <= right) & (top <= y) & (y <= bottom)

    def order(self, maps: dict[str, np.ndarray]) -> np.ndarray:
        """[B, patches]: the rank of each patch of both streams, 0 for the highest of the clip."""
        streams = self.classifier.config.streams
        flat = np.concatenate([maps[s].reshape(len(self.scenes), -1) for s in streams], axis=1)
        return np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1)

    def curves(self, order: np.ndarray) -> np.ndarray:
        """[2, B, F]: the true label's probability while patches are deleted, and inserted."""
        count = np.round(FRACTIONS * order.shape[1])[:, None, None]
        config, params = self.classifier.config, self.classifier.params
        true, curves = np.asarray(self.labels), []
        for hidden in (order < count, order >= count):  # bool [F, B, patches]
            logits = _logits(config, params, self.clips, hidden)  # [F, B, C]
            probabilities = self.classifier.probabilities(logits)
            curves.append(probabilities[:, np.arange(len(true)), true].T)
        return np.stack(curves)


@partial(jax.jit, static_argnames="config")
def _logits(config: MBTConfig, params, clips: Clip, hidden) -> jax.Array:
    """Logits [F, B, C] with these patches of both streams hidden [F, B, patches]."""

    def logits(cells):
        masks, start = {}, 0
        for s in config.streams:
            stop = start + config.patches(s)
            masks[s], start = cells[:, start:stop].reshape(-1, *config.grid(s)), stop
        return MBT(config).apply({"params": params}, hide(config, clips, masks)).logits

    return jax.vmap(logits)(hidden)


def covers(classifier: Classifier, scene: world.Scene) -> np.ndarray:
    """The share of each cell of the video's grid [shapes, t, y, x] inside each shape's box."""
    clip, config = classifier.clip_config, classifier.config
    times = (np.arange(clip.frames) + 0.5) * clip.frame_step
    pixels = (np.arange(clip.size) + 0.5) / clip.size
    shares = []
    for thing in scene.things:
        left, top, right, bottom = world.box(thing, times).T[..., None]
        in_x, in_y = (left <= pixels) & (pixels <= right), (top <= pixels) & (pixels <= bottom)
        inside = in_y[:, :, None] & in_x[:, None]  # [T, H, W]
        cells = patchify(jnp.asarray(inside)[None, ..., None], config.rgb_patch)
        shares.append(cells.mean(-1).reshape(config.rgb_grid))
    return np.stack(shares)


def agreement(maps: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> np.ndarray:
    """Spearman's rank correlation [B] of two maps per clip, averaged over the streams."""
    rows = []
    for s in maps:
        ranks = [rankdata(x[s].reshape(len(x[s]), -1), axis=1) for x in (maps, other)]
        a, b = (r - r.mean(1, keepdims=True) for r in ranks)
        spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
        rows.append((a * b).sum(1) / np.maximum(spread, 1e-12))
    return np.mean(rows, axis=0)
