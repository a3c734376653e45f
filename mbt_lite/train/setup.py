"""Resolve an experiment before the first step: what data, weights and the run's folder decide."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mbt_lite.checkpoints import vit
from mbt_lite.config import KEPT, WIRING, Experiment, TrainConfig, read_json, to_dict
from mbt_lite.data import datasets
from mbt_lite.data.sources import Source
from mbt_lite.data.survey import survey
from mbt_lite.inference import Classifier, load
from mbt_lite.model.mbt import init_params
from mbt_lite.paths import write_text
from mbt_lite.train.adapt import Adapted, adapt
from mbt_lite.train.probe import probe

PRIOR_CLIPS = 2000  # whose classes are counted
_FREE = (  # settings that may change when a run is resumed: its weights stay the same
    "accumulate log_every save_every evaluate_every evaluate_clips test_clips keep_checkpoints "
    "shards remat skip_nonfinite"
).split()


@dataclass(frozen=True)
class _ResolvedExperiment:
    """An experiment whose data is open, whose classes are counted and whose steps are known."""

    experiment: Experiment
    source: Source  # clips to train on
    validation: Source | None
    model: Classifier | None  # the model to start from

    def params(self) -> dict | None:
        """The initial parameters; None where they are drawn from the seed."""
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
            return self._with_prior() if start.prior else None
        labels = self.source.labels
        eval_labels = labels[: len(labels) - self.source.num_auxiliary_classes]
        same_labels = self.model.labels == tuple(eval_labels)
        params = self.model.params
        params = params | {"head": _head(params["head"], model.classes, keep=same_labels)}
        return self._rewired(params) if start.rewire else params

    def _with_prior(self) -> dict:
        """Fresh parameters, the bias of the head such that it says how frequent each class is.

        Otherwise the first features that a model learns are the ones that say this.
        """
        experiment, source = self.experiment, self.source
        count = min(len(source), PRIOR_CLIPS)
        clips = np.linspace(0, len(source) - 1, count).astype(int)
        frequency = np.mean([source.targets(int(clip)) for clip in clips], axis=0)
        frequency = frequency.clip(1 / count, 1 - 1 / count)
        params = init_params(experiment.model, jax.random.key(experiment.train.seed))
        bias = jnp.asarray(np.log(frequency / (1 - frequency)), jnp.float32)
        return params | {"head": params["head"] | {"bias": bias}}

    def _rewired(self, params: dict) -> dict:
        """The parameters of the recipe's streams and fusion; those that the model lacks are fresh.

        So are the bottleneck tokens where the recipe has another number of them.
        """
        fresh = init_params(self.experiment.model, jax.random.key(self.experiment.train.seed))

        def fits(name: str) -> bool:
            shapes = [jax.tree.map(jnp.shape, tree.get(name)) for tree in (params, fresh)]
            return name in params and shapes[0] == shapes[1]

        return {name: params[name] if fits(name) else value for name, value in fresh.items()}


def adapted(experiment: Experiment, fixed: Collection[str] = ()) -> Adapted:
    """The experiment after a survey of its data, and the reasons; fields in `fixed` stay.

    ValueError where the data cannot be used.
    """
    experiment, sentences = _with_splits(experiment)
    data = experiment.data
    source = datasets.open_split(data, "train")
    facts = survey(source, experiment.clip.front_end.mels, data.audio_track)
    asked = experiment.start.probe and min(facts.audio, facts.video) >= 0.5
    given = any(name.startswith(("model.", "clip.", "start.")) for name in fixed)
    probed = probe(experiment, source) if asked and not given else None
    result = adapt(experiment, facts, fixed, probed)
    return result._replace(sentences=sentences + result.sentences)


def _with_splits(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """The experiment with the splits that the data names, where it names none; and the reason.

    Validation or test that the data lacks are held out of its training split.
    """
    data = experiment.data
    splits = datasets.split_names(data)
    if data.train is not None or "train" not in splits:
        return experiment, []
    data = replace(data, **{role: role for role in datasets.ROLES})
    reason = f"data.train train: {data.path} names the splits {', '.join(splits)}"
    return replace(experiment, data=data), [reason]


def resolve(experiment: Experiment) -> _ResolvedExperiment:
    """The experiment as it runs: its data opened, its classes counted, its steps known.

    A model to start from brings its geometry and its front end; dropout and number type are the
    recipe's, and with `start.rewire` streams and fusion, too. Classes are those of the data.
    ValueError where the data cannot be used.
    """
    model, start, train = None, experiment.start, experiment.train
    seed = 0 if experiment.data.cache_dir else train.seed  # cached clips are shared by all seeds
    open_split = partial(datasets.open_split, experiment.data, seed=seed)
    source = open_split("train", clips=train.steps * train.batch)
    if len(source.labels) < 2:
        raise ValueError(
            f"{experiment.data.path} has one class only ({', '.join(source.labels)}); training "
            "needs two or more, to tell them apart."
        )
    if start.model:  # perhaps a download, so errors in the data come first
        model = load(start.model)
        names = KEPT + WIRING * start.rewire
        own = {name: getattr(experiment.model, name) for name in names}
        geometry = replace(model.config, **own)
        experiment = replace(experiment, model=geometry, clip=model.clip_config)
    if train.epochs:
        train = replace(train, steps=max(1, math.ceil(train.epochs * len(source) / train.batch)))
    model_config = replace(experiment.model, classes=len(source.labels))
    experiment = replace(experiment, model=model_config, train=train)
    validation = open_split("validation", clips=train.evaluate_clips)
    return _ResolvedExperiment(experiment, source, validation, model)


def _head(head: dict, classes: int, keep: bool) -> dict:
    """A head for so many classes: zeros, as every model begins, after the old columns if kept."""

    def widened(leaf: jax.Array) -> jax.Array:
        padding = [(0, 0)] * (leaf.ndim - 1) + [(0, classes - leaf.shape[-1])]
        return jnp.pad(leaf, padding) if keep else jnp.zeros((*leaf.shape[:-1], classes))

    return jax.tree.map(widened, head)


def write_experiment(experiment: Experiment, folder: Path) -> None:
    """Write experiment.json; ValueError where the folder has the run of another experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "experiment.json"
    advice = "choose another --workdir or remove this folder."
    if path.exists():
        try:
            earlier = read_json(path)
        except ValueError as error:
            raise ValueError(
                f"{error} This version of mbt_lite cannot resume that run; {advice}"
            ) from None
        changes = _differences(to_dict(_fixed(earlier)), to_dict(_fixed(experiment)))
        if changes:
            raise ValueError(f"{path} describes another experiment ({changes[0]}); {advice}")
    if jax.process_index() == 0:
        write_text(path, json.dumps(to_dict(experiment), indent=1))


def _fixed(experiment: Experiment) -> Experiment:
    """The experiment without the settings that may change when a run is resumed."""
    defaults = TrainConfig()
    train = replace(experiment.train, **{name: getattr(defaults, name) for name in _FREE})
    data = replace(experiment.data, workers=0, memory=0)
    return replace(experiment, train=train, data=data)


def _differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    """Sentences such as "train.batch was 32, and is 16"."""
    sentences = []
    for name, value in now.items():
        if isinstance(value, dict):
            sentences += _differences(before[name], value, f"{prefix}{name}.")
        elif before[name] != value:
            sentences.append(f"{prefix}{name} was {before[name]}, and is {value}")
    return sentences
