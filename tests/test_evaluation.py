"""Evaluation on labeled clips: windows, padding, missing modalities, going on, and the report."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mbt_lite import cli, features, plot
from mbt_lite.config import WORLD, WORLD_CLIP, DataConfig
from mbt_lite.data import (
    extract,
    prepare,
    tables,
    tfrecord,
    world,
)
from mbt_lite.evaluation import metrics
from mbt_lite.evaluation.loop import _modality_confusion, evaluate
from mbt_lite.evaluation.prediction_cache import PredictionCache
from mbt_lite.inference import Classifier
from mbt_lite.model.label_heads import make_heads

pytestmark = pytest.mark.full

SAMPLES = Path(__file__).parent.parent / "data_samples"
CONDITIONS = ("both", "audio only", "video only")


class Listener(Classifier):
    """Answers with fixed mixtures of the brightness of the frames and the loudness of the bands."""

    def __init__(
        self,
        labels=world.LABELS,
        streams=("spec", "rgb"),
        seed=0,
        clip=WORLD_CLIP,
        loss="sigmoid",
    ):
        config = replace(WORLD, streams=streams, classes=len(labels))
        super().__init__(config, {"seed": np.float32([seed])}, clip, labels, {"name": "listener"})
        self.mixture = np.random.default_rng(seed).standard_normal((len(labels), 16))
        self.label_heads = make_heads(loss, labels)
        self.asked, self.limit = [], None  # per call: how many clips, which stream was blanked

    def prefix(self, clip):
        return clip  # no layers below fusion

    def logits(self, clip, without=None):
        if len(self.asked) == self.limit:
            raise KeyboardInterrupt
        if without:
            clip = features.blank(clip, without, self.clip_config.front_end)
        self.asked.append((len(clip.rgb), without))
        seen = np.asarray(clip.rgb)[:, :8].mean((2, 3, 4))  # [B, 8]
        heard = np.asarray(clip.spec)[..., 0].mean(1).reshape(len(seen), 8, -1).mean(-1)
        each = [self.mixture @ row for row in np.concatenate([seen, heard], axis=1)]
        return np.float32(each)


@pytest.fixture
def table(tmp_path):
    """Three clips of the world, labeled; `labels.csv` beside them."""
    names = ["circle_sings.mp4", "ring_sings_with_bell.mp4", "ladder_sings_with_siren.mp4"]
    for name in names:
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    rows = [f"{name},{label}" for name, label in zip(names, ("a", "b", "a|c"), strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    return tmp_path


def straight(listener, count: int, without=None) -> tuple[np.ndarray, np.ndarray]:
    """Logits and truth of the first test clips, all at once: no batches, no padding."""
    scenes = [world.scene(world.SPLITS["test"], i) for i in range(count)]
    samples = [world.sample(scene, listener.clip_config) for scene in scenes]
    rgb, spec = (np.stack([sample[name] for sample in samples]) for name in ("rgb", "spec"))
    clip = features.normalize(rgb, spec, listener.clip_config.front_end)
    return listener.logits(clip, without), np.stack([scene.labels for scene in scenes])


def test_scores_are_those_of_the_answers_whatever_the_size_of_a_batch():
    listener = Listener()
    scores = evaluate(listener, count=21, batch=8, quiet=True)
    assert {size for size, _ in listener.asked} == {8}  # one compiled shape
    for condition, without in zip(CONDITIONS, (None, "rgb", "spec"), strict=True):
        logits, truth = straight(listener, 21, without)
        assert scores[condition] == pytest.approx(metrics.world_scores(logits, truth), nan_ok=True)
        precisions = metrics.average_precisions(logits, truth)
        for label, values in scores["average precision"].items():
            assert values[condition] == pytest.approx(precisions[world.LABELS.index(label)])
    assert evaluate(Listener(), count=21, batch=64, quiet=True) == scores
    assert scores["clips"] == 21
    assert scores["chance of matched"]["audio only"] == 0.25
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_a_file_is_answered_with_the_mean_over_its_windows(tmp_path):
    (tmp_path / "bell.mp4").write_bytes((SAMPLES / "bell.mp4").read_bytes())
    (tmp_path / "labels.csv").write_text("file,labels,start\nbell.mp4,b,\nbell.mp4,a,0.5\n")
    listener, out = Listener(("a", "b")), tmp_path / "out"
    evaluate(listener, tmp_path, views=4, folder=out, quiet=True)
    cache = PredictionCache(out, listener, {"data": str(tmp_path), "views": 4})
    for (logits, _), asked in zip(
        cache.read((3, 2)).values(), ({"views": 4}, {"start": 0.5}), strict=True
    ):
        views = features.read_views(tmp_path / "bell.mp4", listener.clip_config, **asked)
        clips = [view.clip for view in views]
        rgb, spec = (np.stack([getattr(c, name) for c in clips]) for name in ("rgb", "spec"))
        expected = listener.logits(clips[0]._replace(rgb=rgb, spec=spec))
        assert len(views) == len(set(view.start for view in views)) == asked.get("views", 1)
        np.testing.assert_allclose(logits[0], expected.mean(0), atol=1e-5)


def test_a_model_of_one_stream_has_one_condition_and_classes_may_have_no_clip(table):
    scores = evaluate(Listener(("a", "b", "c", "d"), streams=("spec",)), table, quiet=True)
    assert "audio only" in scores and not {"both", "modality confusion"} & set(scores)
    assert scores["classes without a clip"] == ["d"]
    assert set(scores["average precision"]) == {"a", "b", "c"}


@pytest.mark.parametrize("head", ["", "verb:", "noun:"])
def test_the_percentages_of_a_softmax_add_up_in_the_report(table, head):
    labels = ("verb:open", "verb:close", "noun:door", "noun:box") if head else ("a", "b", "c")
    rows = [f"{path.name},{labels[0]}|{labels[-1]}" for path in sorted(table.glob("*.mp4"))]
    (table / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    scores = evaluate(Listener(labels, loss="softmax"), table, folder=table / "out", quiet=True)
    page = (table / "out" / "report.html").read_text()
    assert scores["probabilities"] in page and scores["probabilities"].startswith("softmax: one of")
    if head:
        assert {"verb top-1", "noun top-1", "action top-1"} < set(scores["both"])
    for answer in re.findall(r"<dt>both</dt><dd>(.*?)</dd>", page):
        percent = re.findall(rf"(?:^|, ){head}\w+ (\d+)%", answer)
        assert 99 <= sum(map(int, percent)) <= 101


def test_a_softmax_model_ranks_clips_by_probability_and_not_by_logit(table, monkeypatch):
    sure, unsure = [-5.0, -9.0, -9.0], [5.0, 5.0, 5.0]  # of label a
    answers = iter([[unsure], [sure], [sure]])
    listener = Listener(("a", "b", "c"), streams=("spec",), loss="softmax")
    monkeypatch.setattr(listener, "logits", lambda *_, **__: np.float32(next(answers)))
    rows = ["circle_sings.mp4,b", "ladder_sings_with_siren.mp4,a", "ring_sings_with_bell.mp4,a"]
    (table / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    scores = evaluate(listener, table, batch=1, quiet=True)
    assert scores["average precision"]["a"]["audio only"] == 1.0


def test_files_that_are_damaged_or_missing_are_listed_and_the_others_scored(table):
    (table / "broken.mp4").write_bytes(b"not a video")
    with (table / "labels.csv").open("a") as file:
        file.write("broken.mp4,a\ngone.mp4,b\n")
    for _ in range(2):  # they are asked for again, too
        scores = evaluate(Listener(("a", "b", "c")), table, folder=table / "out", quiet=True)
        assert scores["clips"] == 3
        failed = {Path(row["clip"]).name: row["error"] for row in scores["failed"]}
        assert list(failed) == ["broken.mp4", "gone.mp4"]
        assert "no video or audio that can be read" in failed["broken.mp4"]


def test_an_answer_that_is_no_number_is_a_failure():
    listener = Listener()
    listener.mixture[3] = np.nan
    with pytest.raises(ValueError, match="none of 3 clips could be scored.*not finite"):
        evaluate(listener, count=3, quiet=True)


def test_an_interrupted_evaluation_goes_on_and_ends_like_an_undisturbed_one(tmp_path):
    whole = evaluate(Listener(), count=20, batch=4, quiet=True)
    listener = Listener()
    listener.limit = 9  # calls, of three batches
    with pytest.raises(KeyboardInterrupt):
        evaluate(listener, count=20, batch=4, folder=tmp_path, quiet=True)
    answers = tmp_path / "answers.jsonl"
    assert len(answers.read_text().splitlines()) == 1 + 11  # the twelfth may have more windows
    answers.write_bytes(answers.read_bytes()[:-50])  # as if cut while writing the eleventh
    listener = Listener()
    assert evaluate(listener, count=20, batch=4, folder=tmp_path, quiet=True) == whole
    assert len(listener.asked) == 3 * len(CONDITIONS)  # ten clips in batches of four
    listener = Listener()
    more = evaluate(listener, count=22, batch=4, folder=tmp_path, quiet=True)
    assert len(listener.asked) == len(CONDITIONS) and more["clips"] == 22


def test_answers_of_another_model_data_or_windows_are_not_mixed(tmp_path):
    evaluate(Listener(), count=2, folder=tmp_path, quiet=True)
    narrow = Listener(clip=replace(WORLD_CLIP, fps=5.0))
    for listener, options, what in (
        (Listener(seed=1), {}, "model"),
        (Listener(tuple(reversed(world.LABELS))), {"source": "world:test"}, None),
        (narrow, {}, "model"),
        (Listener(), {"views": 2}, "views"),
        (Listener(), {"source": "world:validation"}, "data"),
    ):
        sentence = f"of another {what}" if what else "micro-world's labels"
        with pytest.raises(ValueError, match=sentence):
            evaluate(listener, **options, count=2, folder=tmp_path, quiet=True)


@pytest.mark.parametrize("text", ["my notes", "7\n", '{"mbt_lite": "0.1.0"}\n', "\xff\n"])
def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path, text):
    (tmp_path / "answers.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="not a file of cached logits"):
        evaluate(Listener(), count=2, folder=tmp_path, quiet=True)
    assert (tmp_path / "answers.jsonl").read_text(encoding="latin-1") == text


def test_a_clip_that_was_changed_is_asked_again(table):
    out, listener = table / "out", Listener(("a", "b", "c"))
    evaluate(listener, table, batch=1, folder=out, quiet=True)
    (table / "circle_sings.mp4").write_bytes((SAMPLES / "nobody_sings.mp4").read_bytes())
    listener.asked.clear()
    evaluate(listener, table, batch=1, folder=out, quiet=True)
    assert len(listener.asked) == len(CONDITIONS)


def test_modality_confusion_counts_what_a_stream_changes():
    truth = np.float32([[1, 0], [1, 0], [0, 1], [0, 1]])
    right, wrong = 3 * truth, 3 - 3 * truth
    mixed = np.stack([right[0], wrong[1], right[2], wrong[3]])
    logits = {"both": mixed, "audio only": right, "video only": wrong}
    confusion = _modality_confusion(logits, truth, ("cat", "dog"), ("w", "x", "y", "z"))
    assert confusion["video added"]["became wrong"] == [
        {"clip": "x", "audio only": "cat", "both": "dog"},
        {"clip": "z", "audio only": "dog", "both": "cat"},
    ]
    assert confusion["video added"]["became right"] == []
    assert [row["clip"] for row in confusion["audio added"]["became right"]] == ["w", "y"]
    assert confusion["audio added"]["became wrong"] == []


# Splits, records, and the data of an experiment


def test_prepared_records_are_scored_like_the_files_they_were_made_of(table):
    lines = (table / "labels.csv").read_text().splitlines()
    splits = "split train eval train".split()
    lines = [f"{line},{split}" for line, split in zip(lines, splits, strict=True)]
    (table / "labels.csv").write_text("\n".join(lines) + "\n")
    settings = extract.Settings(WORLD_CLIP.front_end, ("a", "b", "c"))
    plan, records = prepare.plan(tables.read(table).rows, "t", None, None), table / "records"
    prepare.prepare(plan, settings, records, workers=1)
    listener, asked = Listener(("a", "b", "c")), {"split": "train", "quiet": True}
    files = evaluate(listener, table, **asked)
    scores = evaluate(listener, records, folder=table / "out", **asked)
    assert (scores["clips"], scores["data"]) == (2, f"{records}, train")
    assert scores["both"] == files["both"] and list(scores["average precision"]) == ["a", "c"]
    assert (table / "out" / "report.html").read_text().count("a frame from the middle of") == 2
    for source, labels, split, sentence in (
        (table, "abc", "test", "no rows of split test; it has train, eval"),
        (records, "ab", "eval", "has the classes a, b, c; the model's are a, b"),
        (records, "abc", None, "has the splits eval, train; name one of them"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate(Listener(tuple(labels)), source, split=split, quiet=True)
    shard = next(records.glob("t-train-*"))
    content = bytearray(shard.read_bytes())
    content[tfrecord.index(shard).offsets[1] + 50] ^= 1
    shard.write_bytes(content)
    damaged = evaluate(listener, records, **asked)
    assert damaged["clips"] == 1 and damaged["failed"][0]["clip"] == f"{shard}, record 1"
    assert "record 1: its bytes are damaged" in damaged["failed"][0]["error"]


@pytest.mark.parametrize(
    "source, options, sentence",
    [
        ("moon:test", {}, "moon:test is unknown; use one of world:train"),
        ("world:test", {}, "needs a model with the micro-world's labels"),
        ("world:test", {"split": "eval"}, "world:test names its split already; leave eval out"),
        ("world:test", {"views": 0}, "each must be 1 or more"),
        (DataConfig(test=None), {}, "data.test is None: the experiment names no clips for it"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_a_sentence(source, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(Listener(("a", "b")), source, **options)


def test_a_tfds_dataset_is_scored(table):
    build = pytest.importorskip("mbt_lite.data.tfds")
    front = WORLD_CLIP.front_end
    config = build.TableConfig(name="t", table=table / "labels.csv", front_end=front)
    builder = build.TableDataset(data_dir=table / "tfds", config=config)
    builder.download_and_prepare()
    labels = tuple(tables.read(table).labels)
    scores = evaluate(Listener(labels), str(builder.data_dir), quiet=True)  # its only split
    assert scores["clips"] == 3
    with pytest.raises(ValueError, match=r"3 classes \(a, b, c\), and the model 2 \(a, b\)"):
        evaluate(Listener(("a", "b")), str(builder.data_dir), quiet=True)


def test_the_data_of_an_experiment_is_scored_by_role(table):
    named = evaluate(Listener(), "world:validation", count=9, quiet=True)
    asked = {"split": "validation", "count": 9, "quiet": True}
    assert evaluate(Listener(), DataConfig(), **asked) == named
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        (table / name).parent.mkdir(exist_ok=True)
        (table / f"{name}.mp4").write_bytes((SAMPLES / "circle_sings.mp4").read_bytes())
    (table / "labels.csv").unlink()
    config = DataConfig(path=str(table), holdout=0.01)
    scores = evaluate(Listener(("cat", "dog")), config, quiet=True)
    assert (scores["clips"], scores["data"]) == (2, f"{table}, test")


# The report


def test_the_report_asks_for_nothing_describes_its_images_and_shows_names_as_text(table):
    evil = '<script>alert("1")</script>'
    (table / 'x"><b>.mp4').write_bytes((SAMPLES / "nobody_sings.mp4").read_bytes())
    with (table / "labels.csv").open("a") as file:
        file.write(f'"x""><b>.mp4","{evil.replace(chr(34), chr(34) * 2)}"\n')
    listener, out = Listener(("a", "b", evil)), table / "out"
    listener.card["caution"] = "which spectrogram <it> heard is unknown"
    scores = evaluate(listener, table, folder=out, command="again!", quiet=True)
    assert json.loads((out / "scores.json").read_text()) == scores
    assert {path.name for path in out.iterdir()} == {"answers.jsonl", "report.html", "scores.json"}
    page = (out / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == 1 + 4 and all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", page).replace("http-equiv", "")
    assert page.count("<img ") == page.count('<img alt="') and 'alt=""' not in page
    assert f"{scores['both']['mAP']:.3f}" in page and "again!" in page
    assert evil not in page and "x&#34;&gt;&lt;b&gt;.mp4" in page
    assert page.count("<script>") == 1 and "<b>." not in page
    assert '<p class="caution">which spectrogram &lt;it&gt; heard is unknown</p>' in page


def test_the_command_prints_json_and_its_code_tells_of_failures(table, capsys):
    rows = "file,labels\ncircle_sings.mp4,circle sings\n"
    (table / "labels.csv").write_text(rows + "ring_sings_with_bell.mp4,cow\n")
    assert cli.main(["evaluate", "--data", str(table), "--report", str(table / "out")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["clips"] == 1
    assert "rows without a known label (1): ring_sings_with_bell.mp4" in err
    (table / "broken.mp4").write_bytes(b"")
    (table / "labels.csv").write_text(rows + "broken.mp4,circle sings\n")
    assert cli.main(["evaluate", "--data", str(table)]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["failed"] and "broken.mp4" in err and "Traceback" not in err


# The images


def test_conditions_stand_in_one_row_per_label():
    scores = {"both": [0.9, 0.5], "audio only": [0.2, 0.4]}
    ax = plot.conditions(["bell", "b" * 40], scores)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["bell", "b" * 29 + "…"]
    assert "audio only 0.30 (best " in plot.conditions_alt(["bell", "siren"], scores)
