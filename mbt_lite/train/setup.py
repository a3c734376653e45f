"""Resolve an experiment before the first step: what data and initial weights decide."""

import math
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from mbt_lite.checkpoints import vit
from mbt_lite.config import KEPT, WIRING, Experiment
from mbt_lite.data import datasets
from mbt_lite.data.sources import Source
from mbt_lite.inference import Classifier, load
from mbt_lite.model.mbt import init_params


@dataclass(frozen=True)
class ResolvedExperiment:
    """An experiment with everything settled, and what it was settled with."""

    experiment: Experiment
    source: Source  # of the clips to learn from
    validation: Source | None
    model: Classifier | None  # whose parameters come first

    def params(self) -> dict | None:
        """The parameters to start from; None: fresh ones."""
        start, model = self.experiment.start, self.experiment.model
        if start.vit:
            return vit.from_vit(
                start.vit,
                model,
                inflate=start.inflate,
                bottleneck=start.bottleneck,
                audio_cls=start.audio_cls,
                seed=self.experiment.train.seed,
            )
        if self.model is None:
            return None
        asked = self.source.labels[: len(self.source.labels) - self.source.num_auxiliary_classes]
        known = self.model.labels == tuple(asked)
        widen = _with_more_classes if known else _with_fresh_head
        params = widen(self.model.params, model.classes)
        return self._rewired(params) if start.rewire else params

    def _rewired(self, params: dict) -> dict:
        """The parameters that the recipe's wiring has; what the model lacks starts fresh.

        So does the bottleneck where the recipe has another number of tokens.
        """
        fresh = init_params(self.experiment.model, jax.random.key(self.experiment.train.seed))
        same = {
            name
            for name, value in fresh.items()
            if name in params
            and jax.tree.map(jnp.shape, params[name]) == jax.tree.map(jnp.shape, value)
        }
        return {name: params[name] if name in same else value for name, value in fresh.items()}


def resolve(experiment: Experiment) -> ResolvedExperiment:
    """The experiment as it runs: its data opened, its classes counted, its steps known.

    A model to start from brings its geometry and its way to see and hear; the recipe's dropout and
    number type stay, with `start.rewire` its streams and fusion, too. Classes are those of the
    data. Raises ValueError where the data cannot be used.
    """
    model, start = None, experiment.start
    seed = 0 if experiment.data.keep else experiment.train.seed  # kept clips: for every seed
    ask = partial(datasets.open_split, experiment.data, seed=seed)
    source = ask("train", clips=experiment.train.steps * experiment.train.batch)
    if len(source.labels) < 2:
        raise ValueError(
            f"{experiment.data.path} has one class only ({', '.join(source.labels)}); training "
            "needs two or more, to tell them apart."
        )
    if start.model:  # a download, perhaps: what the data lacks is said before it
        model = load(start.model)
        names = KEPT + WIRING * start.rewire
        own = {name: getattr(experiment.model, name) for name in names}
        geometry = replace(model.config, **own)
        experiment = replace(experiment, model=geometry, clip=model.clip_config)
    config = experiment.train
    if config.epochs:
        steps = max(1, math.ceil(config.epochs * len(source) / config.batch))
        experiment = replace(experiment, train=replace(config, steps=steps))
    model_config = replace(experiment.model, classes=len(source.labels))
    experiment = replace(experiment, model=model_config)
    return ResolvedExperiment(
        experiment, source, ask("validation", clips=config.evaluate_clips), model
    )


def _with_fresh_head(params: dict, classes: int) -> dict:
    """The parameters with a head of zeros for so many classes, as every model begins."""
    width = params["head"]["kernel"].shape[0]
    head = {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}
    return params | {"head": head}


def _with_more_classes(params: dict, classes: int) -> dict:
    """The parameters with columns of zeros added to the head, for what is asked in training."""

    def widened(leaf: jax.Array) -> jax.Array:
        return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, classes - leaf.shape[-1])])

    return params | {"head": jax.tree.map(widened, params["head"])}
