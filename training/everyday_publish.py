"""Calibrate a trained `everyday`, learn what is unfamiliar to it, write its weights, score them.

    python training/everyday_publish.py runs/everyday everyday mbt_lite/weights [VIDEO ...]

Calibration and familiarity come from the validation clips, all scores from the test clips. Videos
are answered one by one in a table.
"""

import argparse
from pathlib import Path

import numpy as np

import mbt_lite as mbt
from mbt_lite import features
from mbt_lite.data.collage import OTHER, CollageSource
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Subset
from mbt_lite.data.sources import WorldSource
from mbt_lite.evaluation import calibration, metrics
from mbt_lite.evaluation.familiarity import learn_familiarity
from mbt_lite.evaluation.loop import make_batches, predict_batches

CLIPS, UNKNOWN, RESAMPLES = 2000, 500, 200
CONDITIONS = {"both streams": None, "audio only": "rgb", "video only": "spec"}  # what is blanked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of the run")
    parser.add_argument("data", type=Path, help="the folder with sounds and pictures")
    parser.add_argument("out", type=Path, help="the folder for weights and card")
    parser.add_argument("videos", type=Path, nargs="*", help="videos to answer")
    options = parser.parse_args()
    classifier = mbt.load(options.run)
    validation = Subset(CollageSource(options.data, "validation"), range(CLIPS))
    before = error(classifier, validation)
    classifier = calibration.calibrate(classifier, validation)
    classifier.familiarity = learn_familiarity(classifier, validation)
    path = classifier.save(options.out / "everyday.safetensors", dtype="bfloat16")
    classifier = mbt.load(path)
    test = CollageSource(options.data, "test")
    after = error(classifier, Subset(test, range(CLIPS)))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"calibration error: {before:.3f} on validation before, {after:.3f} on test after\n")
    parts = scores(classifier, test), unknown(classifier, test), answers(classifier, options.videos)
    print(*parts, sep="\n\n")


def error(classifier, source) -> float:
    logits, truth = calibration.logits_and_truth(classifier, source)
    return calibration.calibration_error(classifier.probabilities(logits), truth)


def predicted(classifier, clips) -> dict[str, np.ndarray]:
    """{condition: logits [N, C]} of clips (rgb uint8, spec), and whether each is unfamiliar."""
    front = classifier.clip_config.front_end

    def apply(batch: dict) -> dict[str, np.ndarray]:
        tokens = classifier.prefix(features.normalize(batch["rgb"], batch["spec"], front))
        both = classifier.output(tokens)
        logits = {name: classifier.logits(tokens, blank) for name, blank in CONDITIONS.items()}
        return logits | {"distance": classifier.familiarity.distance(np.asarray(both.features))}

    windows = ((number, *clip) for number, clip in enumerate(clips))
    rows = [row for _, row in predict_batches(apply, make_batches(windows, 32))]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def read(source, indices, clip_config):
    for index in indices:
        clip = source.read(int(index), Sampling(clip_config))
        yield clip.rgb[0], clip.spec[0]


def scores(classifier, test: CollageSource) -> str:
    """Markdown tables of mAP by group and condition, and of average precision by class."""
    heard, seen = (set(test.files[kind]) - {OTHER} for kind in ("sounds", "pictures"))
    groups = {"heard and seen": heard & seen, "heard only": heard - seen, "seen only": seen - heard}
    truth = np.stack([test.targets(index) for index in range(CLIPS)])
    logits = predicted(classifier, read(test, range(CLIPS), classifier.clip_config))
    rng = np.random.default_rng(0)
    lines = [row(f"{CLIPS:,} test clips", "classes", *CONDITIONS), row(*["---"] * 5)]
    for group, names in groups.items():
        columns = [classifier.labels.index(name) for name in sorted(names)]
        cells = [interval(logits[name][:, columns], truth[:, columns], rng) for name in CONDITIONS]
        lines.append(row(f"mAP, {group}", len(names), *cells))
    lines += ["", row("class", "clips", *CONDITIONS), row(*["---"] * 5)]
    precisions = [metrics.average_precisions(logits[name], truth) for name in CONDITIONS]
    for label, clips, *each in zip(classifier.labels, truth.sum(0), *precisions, strict=True):
        lines.append(row(label, int(clips), *(f"{precision:.2f}" for precision in each)))
    return "\n".join(lines)


def row(*cells) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def interval(logits: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> str:
    """mAP with the middle 95 % of resamples of the clips."""
    draws = rng.integers(len(truth), size=(RESAMPLES, len(truth)))
    values = [metrics.mean_average_precision(logits[draw], truth[draw]) for draw in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{metrics.mean_average_precision(logits, truth):.3f} ({low:.3f} to {high:.3f})"


def unknown(classifier, test: CollageSource) -> str:
    """How often the models are sure of clips that show nothing they know."""
    head = "clips of nothing known", "any label above 0.5", "called unfamiliar"
    lines = [row(*head), row(*["---"] * 3)]
    for name, clips in unknown_clips(classifier.clip_config, test).items():
        out = predicted(classifier, clips)
        sure = (classifier.probabilities(out["both streams"]) > 0.5).any(1).mean()
        far = (out["distance"] > classifier.familiarity.threshold).mean()
        lines.append(row(name, f"{100 * sure:.1f} %", f"{100 * far:.1f} %"))
    return "\n".join(lines)


def unknown_clips(config, test: CollageSource) -> dict:
    """{kind: clips} without any class: other pictures and sounds, the micro-world, noise."""
    rng, count = np.random.default_rng(1), UNKNOWN // 4
    others = [index for index in range(20 * UNKNOWN) if not test.targets(index).any()][: 2 * count]
    shape = (count, config.frames, config.size, config.size, 3)
    images = rng.integers(256, size=shape, dtype=np.uint8)
    waves = rng.standard_normal((count, round(config.audio_seconds * config.front_end.rate)))
    waves *= 10 ** rng.uniform(-3, -0.5, (count, 1))
    specs = [features.log_mel(wave.astype(np.float32), config.front_end) for wave in waves]
    return {
        f"{len(others)} of other pictures and other sounds": read(test, others, config),
        f"{count} of the micro-world": read(WorldSource("test"), range(count), config),
        f"{count} of noise": zip(images, specs, strict=True),
    }


def answers(classifier, videos) -> str:
    """What the model says of each video."""
    lines = [row("video", "says", "unfamiliar"), row(*["---"] * 3)]
    for path in videos:
        prediction = classifier.predict(path)
        best = ", ".join(f"{label} {p:.2f}" for label, p in prediction.top(3))
        lines.append(row(path.name, best, "yes" if prediction.unfamiliar else "no"))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
