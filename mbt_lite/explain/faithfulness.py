"""Measure the faithfulness of importance maps against a known answer and against themselves.

On the micro-world the cause of "circle sings" is known: the circle. There a map is scored by how
much of it lies on the singer, and whether its highest point does. On any data it is scored by what
happens to the answer when its highest patches are taken away first (deletion) or put back first
(insertion), and by how much of it a model with random weights draws as well.
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
MEASURED = resources.files("mbt_lite") / "weights" / "world-tiny-faithfulness.json"
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

    "mass on the singer": share of the video's map inside the singer's box; "pointing": how often
    the map's highest point lies in it; "right shape": how often the singer's box has more mass a
    cell than any other shape's; "deletion" and "insertion": mean probability along the curves of
    `Curves` (low is good, high is good); "random weights": rank correlation with the map of a
    model whose weights were drawn anew (near 0 is good). `chance` is what a map without knowledge
    gets: evenly spread, a random point, a random shape, a random order; nan in the last column.
    """

    methods: tuple[str, ...]
    columns: tuple[str, ...]
    mean: np.ndarray  # [M, columns]
    half: np.ndarray  # [M, columns]
    chance: np.ndarray  # [columns]
    clips: int
    curves: Curves

    def beats_chance(self, method: str, column: str) -> bool:
        """Whether the whole interval lies on the good side of chance, where there is one."""
        i, j = self.methods.index(method), self.columns.index(column)
        better = self.mean[i, j] - self.chance[j]
        return bool((-better if column == "deletion" else better) > self.half[i, j])

    def table(self) -> str:
        """The scores as a Markdown table."""
        head = ["", *self.columns]
        rows = [[m, *map(_cell, self.mean[i], self.half[i])] for i, m in enumerate(self.methods)]
        rows.append(["chance", *("" if np.isnan(x) else f"{x:.3f}" for x in self.chance)])
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(mean: float, half: float) -> str:
    return f"{mean:.3f} ± {half:.3f}"


def measured() -> Faithfulness:
    """Return the `Faithfulness` of the embedded model, by `mbt-lite faithfulness --json`."""
    kept = json.loads(MEASURED.read_text("utf-8"))
    mean, half, chance = (np.array(kept[key], np.float64) for key in ("mean", "half", "chance"))
    curves = Curves(*(_arrays(part) for part in kept["curves"].values()))
    names = tuple(kept["methods"]), tuple(kept["columns"])
    return Faithfulness(*names, mean, half, chance, kept["clips"], curves)


def _arrays(part):
    return {m: np.array(x) for m, x in part.items()} if isinstance(part, dict) else np.array(part)


def caption(classifier: Classifier, method: str) -> str:
    """Describe how often maps of a method find the singing shape, as a caption.

    It was measured for the embedded model; of any other that is said first.
    """
    known = measured()
    own = classifier.card.get("name") == "world-tiny"
    row, columns = known.methods.index(method), known.columns.index
    parts = []
    names = {"pointing": "highest on the shape that sings", "right shape": "the right shape"}
    for column, words in names.items():
        mean, chance = known.mean[row, columns(column)], known.chance[columns(column)]
        worth = "" if known.beats_chance(method, column) else ", no better"
        parts.append(f"{words} in {mean:.0%} of clips (chance {chance:.0%}{worth})")
    first = "" if own else "not measured for this model; with the embedded one "
    return f"{first}in the micro-world, {'; '.join(parts)}"


def faithfulness(
    classifier: Classifier,
    clips: int = 500,
    methods: Sequence[str] = tuple(METHODS),
    split: str = "test",
) -> Faithfulness:
    """Measure the faithfulness of maps for the singing shape, on clips of the micro-world.

    Raises ValueError where the classifier does not know the world's labels, or hears nothing.
    """
    if not set(world.LABELS) <= set(classifier.labels) or len(classifier.config.streams) < 2:
        raise ValueError("these scores need a model of video and audio with the world's labels.")
    if not methods or not set(methods) <= set(METHODS):
        raise ValueError(f"methods {', '.join(methods)}: there are {', '.join(METHODS)}.")
    anew, rng = randomised(classifier), np.random.default_rng(0)
    found, chances, curves = {m: [] for m in methods}, [], []
    scenes = list(singing(clips, split))
    starts = range(0, clips, BATCH)
    for start in tqdm(starts, "faithfulness", unit=f"x {BATCH} clips", disable=None):
        asked = Question(classifier, scenes[start : start + BATCH])
        lines = {"random": asked.curves(rng.permuted(asked.places, axis=1))}  # [2, B, F] each
        for method in methods:
            maps = asked.maps(method, classifier)
            lines[method] = asked.curves(asked.order(maps))
            alike = agreement(maps, asked.maps(method, anew))
            row = [*asked.on_singer(maps["rgb"]), *lines[method].mean(-1), alike]
            found[method].append(np.stack(row, axis=1))  # [B, columns]
        chances.append(np.stack([*asked.chance(), *lines["random"].mean(-1)], axis=1))
        curves.append(lines)
    values = np.stack([np.concatenate(rows) for rows in found.values()])  # [M, clips, columns]
    half = 1.96 * values.std(1) / np.sqrt(clips)
    chance = np.append(np.concatenate(chances).mean(0), np.nan)
    drawn = _mean_curves(curves)
    return Faithfulness(tuple(methods), COLUMNS, values.mean(1), half, chance, clips, drawn)


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
    """Randomize every array of a classifier, keeping its mean and deviation."""
    rng = np.random.default_rng(seed)

    def draw(x):
        return np.float32(x.mean() + x.std() * rng.standard_normal(x.shape, np.float32))

    params = jax.tree.map(draw, jax.device_get(classifier.params))
    kept = classifier.clip_config, classifier.labels, None, classifier.label_heads
    return Classifier(classifier.config, params, *kept)


class Question:
    """Who sings? Of a few scenes: the clips, the true labels, and where every shape is."""

    def __init__(self, classifier: Classifier, scenes: Sequence[world.Scene]):
        clip_config = classifier.clip_config
        made = [world.sample(scene, clip_config) for scene in scenes]
        rgb, spec = (np.stack([one[s] for one in made]) for s in ("rgb", "spec"))
        sings = [f"{scene.things[scene.singer].shape} sings" for scene in scenes]
        self.classifier, self.scenes = classifier, scenes
        self.clips = normalize(rgb, spec, clip_config.front_end)
        self.labels = jnp.array([classifier.labels.index(label) for label in sings])
        self.covers = [covers(classifier, scene) for scene in scenes]  # [shapes, t, y, x] each
        patches = sum(map(classifier.config.patches, classifier.config.streams))
        self.places = np.tile(np.arange(patches), (len(scenes), 1))  # [B, patches]

    def maps(self, method: str, classifier: Classifier) -> dict[str, np.ndarray]:
        """{stream: [B, *grid]} by a method, of the classifier that is given."""
        maps = METHODS[method](classifier, self.clips, self.labels)
        return {s: np.asarray(x) for s, x in maps.items()}

    def on_singer(self, maps: np.ndarray) -> np.ndarray:
        """[3, B] of video maps [B, t, y, x]: mass on the singer, pointing, right shape."""
        rows = []
        for cover, scene, one in zip(self.covers, self.scenes, maps, strict=True):
            singer, mass = cover[scene.singer], np.maximum(one, 0)
            share = (mass * singer).sum() / max(mass.sum(), 1e-12)
            hit = self.hits(scene)[np.unravel_index(one.argmax(), one.shape)]
            density = (one * cover).sum((1, 2, 3)) / cover.sum((1, 2, 3))
            rows.append((share, hit, density.argmax() == scene.singer))
        return np.array(rows, np.float64).T

    def chance(self) -> np.ndarray:
        """[3, B]: what an even map, a random point and a random shape get."""
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
        """[B, patches]: the place of each patch of both streams, 0 for the highest of the clip."""
        streams = self.classifier.config.streams
        flat = np.concatenate([maps[s].reshape(len(self.scenes), -1) for s in streams], axis=1)
        return np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1)

    def curves(self, order: np.ndarray) -> np.ndarray:
        """[2, B, F]: the true label's probability while patches go, and while they come back."""
        gone = np.round(FRACTIONS * order.shape[1])[:, None, None]
        ways = (order < gone, order >= gone)  # bool [F, B, patches]
        config, params = self.classifier.config, self.classifier.params
        logits = (_logits(config, params, self.clips, way) for way in ways)  # [F, B, C] each
        true = np.arange(len(self.labels)), np.asarray(self.labels)
        chances = [self.classifier.probabilities(one)[:, *true] for one in logits]
        return np.stack([one.T for one in chances])


@partial(jax.jit, static_argnames="config")
def _logits(config: MBTConfig, params, clips: Clip, hidden) -> jax.Array:
    """Logits [F, B, C] with these patches of both streams hidden [F, B, patches]."""

    def answered(cells):
        masks, start = {}, 0
        for s in config.streams:
            stop = start + config.patches(s)
            masks[s], start = cells[:, start:stop].reshape(-1, *config.grid(s)), stop
        return MBT(config).apply({"params": params}, hide(config, clips, masks)).logits

    return jax.vmap(answered)(hidden)


def covers(classifier: Classifier, scene: world.Scene) -> np.ndarray:
    """The share of each cell of the video's grid [shapes, t, y, x] in each shape's box."""
    clip, config = classifier.clip_config, classifier.config
    times, side = (np.arange(clip.frames) + 0.5) * clip.frame_step, clip.size
    pixels = (np.arange(side) + 0.5) / side
    grid, patch = config.rgb_grid, config.rgb_patch
    found = []
    for thing in scene.things:
        left, top, right, bottom = world.box(thing, times).T[..., None]
        across, down = (left <= pixels) & (pixels <= right), (top <= pixels) & (pixels <= bottom)
        inside = down[:, :, None] & across[:, None]  # [T, H, W]
        cells = patchify(jnp.asarray(inside)[None, ..., None], patch)  # [1, cells, pixels]
        found.append(cells.mean(-1).reshape(grid))
    return np.stack(found)


def agreement(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> np.ndarray:
    """Spearman's rank correlation [B] of two maps per clip, averaged over the streams."""
    rows = []
    for s in one:
        ranks = [rankdata(x[s].reshape(len(x[s]), -1), axis=1) for x in (one, other)]
        a, b = (r - r.mean(1, keepdims=True) for r in ranks)
        spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
        rows.append((a * b).sum(1) / np.maximum(spread, 1e-12))
    return np.mean(rows, axis=0)


def _mean_curves(lines: list[dict[str, np.ndarray]]) -> Curves:
    joined = {m: np.concatenate([one[m] for one in lines], axis=1).mean(1) for m in lines[0]}
    return Curves(FRACTIONS, *({m: x[way] for m, x in joined.items()} for way in (0, 1)))
