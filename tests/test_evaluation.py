"""Evaluation on labeled clips: windows, padding, missing modalities, going on, and the report."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mbt_lite
from mbt_lite import cli, features, plot
from mbt_lite.config import BASE, WORLD, WORLD_CLIP, DataConfig
from mbt_lite.data import (
    datasets,
    extract,
    prepare,
    sources,
    tables,
    tfrecord,
    world,
)
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Windows
from mbt_lite.evaluation import metrics, prediction_cache
from mbt_lite.evaluation.loop import (
    _default_batch,
    evaluate,
    modality_confusion,
    read_clips,
)
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
        self.asked = []  # per call: how many clips, which stream was blanked

    def prefix(self, clip):
        return clip  # no layers below fusion

    def logits(self, clip, without=None):
        if without:
            clip = features.blank(clip, without, self.clip_config.front_end)
        self.asked.append((len(clip.rgb), without))
        seen = np.asarray(clip.rgb)[:, :8].mean((2, 3, 4))  # [B, 8]
        heard = np.asarray(clip.spec)[..., 0].mean(1).reshape(len(seen), 8, -1).mean(-1)
        each = [self.mixture @ row for row in np.concatenate([seen, heard], axis=1)]
        return np.float32(each)


class Interrupted(Listener):
    """A listener that is stopped in the fourth batch."""

    def logits(self, clip, without=None):
        if len(self.asked) == 9:
            raise KeyboardInterrupt
        return super().logits(clip, without)


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


def test_what_fills_the_last_batch_never_counts():
    reference = pytest.importorskip("sklearn.metrics").average_precision_score
    listener = Listener()
    scores = evaluate(listener, count=21, batch=8, quiet=True)
    assert {size for size, _ in listener.asked} == {8}  # one compiled shape
    for condition, without in zip(CONDITIONS, (None, "rgb", "spec"), strict=True):
        logits, truth = straight(listener, 21, without)
        for label, precisions in scores["average precision"].items():
            column = world.LABELS.index(label)
            wanted = reference(truth[:, column], logits[:, column])
            assert precisions[condition] == pytest.approx(wanted, abs=1e-9)
    assert scores["clips"] == 21


def test_a_batch_is_never_larger_than_the_number_of_clips(table):
    listener = Listener(("a", "b", "c"))
    evaluate(listener, table, quiet=True)
    assert {size for size, _ in listener.asked} == {3}


def test_a_large_model_on_a_cpu_is_asked_window_by_window():
    assert [_default_batch(config) for config in (WORLD, BASE)] == [8, 1]


def test_the_size_of_a_batch_changes_no_score():
    small, large = (evaluate(Listener(), count=10, batch=size, quiet=True) for size in (3, 64))
    assert small == large


def test_scores_of_the_world_are_those_of_the_answers():
    listener = Listener()
    scores = evaluate(listener, count=40, quiet=True)
    assert scores["both"] == pytest.approx(metrics.world_scores(*straight(listener, 40)))
    assert scores["chance of matched"]["audio only"] == 0.25
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_too_few_clips_leave_scores_open_without_a_warning():
    scores = evaluate(Listener(), "world:validation", count=1, quiet=True)  # no rain or thunder
    assert scores["both"]["mAP both"] is None


def test_a_file_is_answered_with_the_mean_over_its_windows(tmp_path):
    (tmp_path / "bell.mp4").write_bytes((SAMPLES / "bell.mp4").read_bytes())
    (tmp_path / "labels.csv").write_text("file,labels,start\nbell.mp4,b,\nbell.mp4,a,0.5\n")
    listener = Listener(("a", "b"))
    evaluate(listener, tmp_path, views=4, folder=tmp_path / "out", quiet=True)
    header = {"mbt_lite": mbt_lite.__version__, "model": prediction_cache.fingerprint(listener)}
    header |= {"data": str(tmp_path), "views": 4}
    answers = list(prediction_cache.resume(tmp_path / "out" / "answers.jsonl", header, (3, 2)))
    for answer, asked in zip(answers, ({"views": 4}, {"start": 0.5}), strict=True):
        views = features.read_views(tmp_path / "bell.mp4", listener.clip_config, **asked)
        clips = [view.clip for view in views]
        rgb, spec = (np.stack([getattr(c, name) for c in clips]) for name in ("rgb", "spec"))
        logits = listener.logits(clips[0]._replace(rgb=rgb, spec=spec))
        assert len(views) == len(set(view.start for view in views)) == asked.get("views", 1)
        np.testing.assert_allclose(answer.logits[0], logits.mean(0), atol=1e-5)


def test_a_clip_no_longer_than_a_window_is_asked_once(table):
    listener = Listener(("a", "b", "c"))
    evaluate(listener, table, views=4, batch=1, quiet=True)
    assert len(listener.asked) == 3 * len(CONDITIONS)


def test_a_model_of_one_stream_has_one_condition(table):
    scores = evaluate(Listener(("a", "b", "c"), streams=("spec",)), table, quiet=True)
    assert "audio only" in scores and "both" not in scores
    assert "modality confusion" not in scores


def test_classes_without_a_clip_are_listed_and_not_counted_as_0(table):
    scores = evaluate(Listener(("a", "b", "c", "d", "e")), table, quiet=True)
    absent = scores["classes without a clip"]
    assert (absent["count"], absent["labels"]) == (2, ["d", "e"])
    assert set(scores["average precision"]) == {"a", "b", "c"}
    as_zero = absent["mAP if they counted as 0"]["both"]
    assert as_zero == pytest.approx(scores["both"]["mAP"] * 3 / 5)


def test_verbs_and_nouns_are_scored_apart_and_together(table):
    labels = ("verb:open", "verb:close", "noun:door", "noun:box")
    rows = ["circle_sings.mp4,verb:open|noun:door", "ring_sings_with_bell.mp4,verb:close|noun:box"]
    (table / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    scores = evaluate(Listener(labels), table, quiet=True)["both"]
    assert set(scores) == {"mAP", "verb top-1", "noun top-1", "action top-1", "action top-5"}
    assert scores["action top-5"] == 1.0  # of four pairs
    assert scores["action top-1"] <= min(scores["verb top-1"], scores["noun top-1"])


def percentages(table, labels) -> list[dict[str, int]]:
    """The percentages of both streams in the report of a softmax model, per worst clip."""
    rows = [f"{path.name},{labels[0]}|{labels[-1]}" for path in sorted(table.glob("*.mp4"))]
    (table / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    scores = evaluate(Listener(labels, loss="softmax"), table, folder=table / "out", quiet=True)
    page = (table / "out" / "report.html").read_text()
    assert scores["probabilities"] in page and scores["probabilities"].startswith("softmax: one of")
    answers = re.findall(r"<dt>both</dt><dd>(.*?)</dd>", page)
    return [{k: int(v) for k, v in re.findall(r"([\w:]+) (\d+)%", one)} for one in answers]


def test_the_percentages_of_a_softmax_model_add_up_in_the_report(table):
    for percent in percentages(table, ("a", "b", "c")):
        assert 99 <= sum(percent.values()) <= 101


def test_those_of_two_heads_add_up_in_each(table):
    for percent in percentages(table, ("verb:open", "verb:close", "noun:door", "noun:box")):
        for head in ("verb", "noun"):
            assert 99 <= sum(p for label, p in percent.items() if label.startswith(head)) <= 101


def test_a_softmax_model_ranks_clips_by_probability_and_not_by_logit(table, monkeypatch):
    sure, unsure = [-5.0, -9.0, -9.0], [5.0, 5.0, 5.0]  # of label a
    answers = iter([[unsure], [sure], [sure]])
    listener = Listener(("a", "b", "c"), streams=("spec",), loss="softmax")
    monkeypatch.setattr(listener, "logits", lambda *_, **__: np.float32(next(answers)))
    rows = ["circle_sings.mp4,b", "ladder_sings_with_siren.mp4,a", "ring_sings_with_bell.mp4,a"]
    (table / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    scores = evaluate(listener, table, batch=1, quiet=True)
    assert scores["average precision"]["a"]["audio only"] == 1.0


def test_a_damaged_file_is_listed_and_the_others_are_scored(table):
    (table / "broken.mp4").write_bytes(b"not a video")
    with (table / "labels.csv").open("a") as file:
        file.write("broken.mp4,a\n")
    scores = evaluate(Listener(("a", "b", "c")), table, quiet=True)
    assert scores["clips"] == 3
    assert [Path(row["clip"]).name for row in scores["failed"]] == ["broken.mp4"]
    assert "no video or audio that can be read" in scores["failed"][0]["error"]


def test_an_answer_that_is_no_number_is_a_failure():
    listener = Listener()
    listener.mixture[3] = np.nan
    with pytest.raises(ValueError, match="none of 3 clips could be scored.*not finite"):
        evaluate(listener, count=3, quiet=True)


def test_an_interrupted_evaluation_goes_on_and_ends_like_an_undisturbed_one(tmp_path):
    whole = evaluate(Listener(), count=20, batch=4, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(), count=20, batch=4, folder=tmp_path, quiet=True)
    answers = tmp_path / "answers.jsonl"
    assert len(answers.read_text().splitlines()) == 1 + 12
    answers.write_bytes(answers.read_bytes()[:-50])  # as if cut while writing the twelfth
    listener = Listener()
    assert evaluate(listener, count=20, batch=4, folder=tmp_path, quiet=True) == whole
    assert len(listener.asked) == 3 * len(CONDITIONS)  # nine clips in batches of four
    listener = Listener()
    more = evaluate(listener, count=22, batch=4, folder=tmp_path, quiet=True)
    assert len(listener.asked) == len(CONDITIONS) and more["clips"] == 22


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"seed": 1}, "of another model"),
        ({"views": 2}, "of another views"),
        ({"data": "world:validation"}, "of another data"),
    ],
)
def test_answers_of_another_model_data_or_windows_are_not_mixed(tmp_path, change, sentence):
    evaluate(Listener(), count=2, folder=tmp_path, quiet=True)
    asked = {"seed": 0, "views": 4, "data": "world:test"} | change
    listener, views = Listener(seed=asked["seed"]), asked["views"]
    with pytest.raises(ValueError, match=sentence):
        evaluate(listener, asked["data"], count=2, views=views, folder=tmp_path, quiet=True)


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


def test_every_part_of_a_model_shows_in_its_fingerprint():
    base = Listener()
    others = [Listener(seed=1), Listener(clip=replace(WORLD_CLIP, fps=5.0))]
    others.append(Listener(tuple(reversed(world.LABELS))))
    assert len({prediction_cache.fingerprint(one) for one in (base, *others)}) == 4
    assert prediction_cache.fingerprint(base) == prediction_cache.fingerprint(Listener())


def test_clips_are_read_ahead_a_few_at_a_time():
    started = []

    class Clips(sources.WorldSource):
        def read(self, index, sampling):
            started.append(index)
            return Windows(np.full(1, index), np.zeros(1))

    ahead = []
    clips = read_clips(Clips("test", 200), Sampling(WORLD_CLIP), range(200))
    for place, (index, windows) in enumerate(clips):
        assert index == place == windows.rgb[0]
        ahead.append(len(started) - place)
    assert max(ahead) <= 25  # two for each of at most eight threads, which read one more each


def test_modality_confusion_counts_what_a_stream_changes():
    truth = np.float32([[1, 0], [1, 0], [0, 1], [0, 1]])
    right, wrong = 3 * truth, 3 - 3 * truth
    mixed = np.stack([right[0], wrong[1], right[2], wrong[3]])
    logits = {"both": mixed, "audio only": right, "video only": wrong}
    confusion = modality_confusion(logits, truth, ("cat", "dog"), ("w", "x", "y", "z"))
    assert confusion["video added"]["became wrong"] == [
        {"clip": "x", "audio only": "cat", "both": "dog"},
        {"clip": "z", "audio only": "dog", "both": "cat"},
    ]
    assert confusion["video added"]["became right"] == []
    assert [row["clip"] for row in confusion["audio added"]["became right"]] == ["w", "y"]
    assert confusion["audio added"]["became wrong"] == []


def test_what_cannot_be_evaluated_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="moon:test is unknown; use one of world:train"):
        evaluate(Listener(), "moon:test")
    with pytest.raises(ValueError, match="needs a model with the micro-world's labels"):
        evaluate(Listener(("a", "b")), "world:test")
    with pytest.raises(ValueError, match="each must be 1 or more"):
        evaluate(Listener(), views=0)


# Splits, records, and the data of an experiment


@pytest.fixture
def prepared(table):
    """The three clips as records: two to learn from, and ring_sings_with_bell to be scored on."""
    lines = (table / "labels.csv").read_text().splitlines()
    splits = ("split", "train", "eval", "train")
    lines = [f"{line},{split}" for line, split in zip(lines, splits, strict=True)]
    (table / "labels.csv").write_text("\n".join(lines) + "\n")
    rows = tables.read(table).rows
    settings = extract.Settings(WORLD_CLIP.front_end, ("a", "b", "c"))
    prepare.prepare(prepare.plan(rows, "t", None, None), settings, table / "records", workers=1)
    return table / "records"


@pytest.mark.full
def test_only_the_split_that_is_named_is_scored(prepared):
    table, listener = prepared.parent, Listener(("a", "b", "c"))
    scores = evaluate(listener, table, split="eval", quiet=True)
    assert (scores["clips"], scores["data"]) == (1, f"{table}, eval")
    assert list(scores["average precision"]) == ["b"]
    with pytest.raises(ValueError, match="no rows of split test; it has train, eval"):
        evaluate(listener, table, split="test", quiet=True)
    with pytest.raises(ValueError, match="world:test names its split already; leave eval out"):
        evaluate(Listener(), split="eval")


@pytest.mark.full
def test_prepared_records_are_scored_like_the_files_they_were_made_of(prepared):
    table, listener = prepared.parent, Listener(("a", "b", "c"))
    files = evaluate(listener, table, split="train", folder=table / "files", quiet=True)
    scores = evaluate(listener, prepared, split="train", folder=table / "out", quiet=True)
    assert scores["clips"] == 2 and scores["both"] == files["both"]
    confusion = scores["modality confusion"]["audio added"]
    names = {clip["clip"] for clip in confusion["became wrong"] + confusion["became right"]}
    assert names <= {"circle_sings", "ladder_sings_with_siren"}
    assert (table / "out" / "report.html").read_text().count("a frame from the middle of") == 2


@pytest.mark.full
def test_records_that_were_answered_are_not_asked_again_until_they_change(prepared):
    out, listener = prepared.parent / "out", Listener(("a", "b", "c"))
    first = evaluate(listener, prepared, split="train", folder=out, quiet=True)
    listener.asked.clear()
    assert evaluate(listener, prepared, split="train", folder=out, quiet=True) == first
    assert not listener.asked
    shard = next(prepared.glob("t-train-*"))
    os.utime(shard, ns=(0, 0))
    evaluate(listener, prepared, split="train", folder=out, quiet=True)
    assert listener.asked


@pytest.mark.full
def test_a_damaged_record_is_listed_and_the_others_are_scored(prepared):
    shard = next(prepared.glob("t-train-*"))
    content = bytearray(shard.read_bytes())
    content[tfrecord.index(shard).offsets[1] + 50] ^= 1
    shard.write_bytes(content)
    scores = evaluate(Listener(("a", "b", "c")), prepared, split="train", quiet=True)
    assert (
        scores["clips"] == 1 and "record 1: its bytes are damaged" in scores["failed"][0]["error"]
    )
    assert scores["failed"][0]["clip"] == f"{shard}, record 1"


@pytest.mark.full
def test_records_of_other_classes_or_of_several_splits_are_refused(prepared):
    with pytest.raises(ValueError, match="has the classes a, b, c; the model's are a, b"):
        evaluate(Listener(("a", "b")), prepared, split="eval", quiet=True)
    with pytest.raises(ValueError, match="has the splits eval, train; name one of them"):
        evaluate(Listener(("a", "b", "c")), prepared, quiet=True)


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
    with pytest.raises(ValueError, match="data.test is None: the experiment names no clips for it"):
        evaluate(Listener(), DataConfig(test=None), quiet=True)


# The report


def report_of(table, labels=("a", "b", "c")) -> tuple[dict, str]:
    scores = evaluate(Listener(labels), table, folder=table / "out", command="again!", quiet=True)
    assert json.loads((table / "out" / "scores.json").read_text()) == scores
    assert sorted(p.name for p in (table / "out").iterdir()) == [
        "answers.jsonl",
        "report.html",
        "scores.json",
    ]
    return scores, (table / "out" / "report.html").read_text()


def test_the_report_asks_for_nothing_and_describes_its_images_in_words(table):
    scores, page = report_of(table)
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) >= 3 + 4 and all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", page).replace("http-equiv", "")
    assert page.count("<img ") == page.count('<img alt="') and 'alt=""' not in page
    assert f"{scores['both']['mAP']:.3f}" in page and "again!" in page


def test_the_caution_of_a_model_stands_beside_its_scores(table):
    listener = Listener(("a", "b", "c"))
    listener.card["caution"] = "which spectrogram <it> heard is unknown"
    scores = evaluate(listener, table, folder=table / "out", quiet=True)
    page = (table / "out" / "report.html").read_text()
    assert scores["caution"] == listener.card["caution"]
    assert '<p class="caution">which spectrogram &lt;it&gt; heard is unknown</p>' in page


def test_names_from_files_are_text_in_the_report_and_no_markup(table):
    evil = '<script>alert("1")</script>'
    (table / 'x"><b>.mp4').write_bytes((SAMPLES / "nobody_sings.mp4").read_bytes())
    with (table / "labels.csv").open("a") as file:
        file.write(f'"x""><b>.mp4","{evil.replace(chr(34), chr(34) * 2)}"\n')
    _, page = report_of(table, ("a", "b", evil))
    assert evil not in page and "x&#34;&gt;&lt;b&gt;.mp4" in page
    assert page.count("<script>") == 1 and "<b>." not in page


def test_the_report_shows_the_middle_of_a_clip(table):
    files = datasets.open_labeled(table, ("a", "b", "c"), clip=WORLD_CLIP)
    rendered = datasets.open_labeled("world:test", world.LABELS, clip=WORLD_CLIP)
    for thumbnail in (files.thumbnail(0), rendered.thumbnail(3)):
        assert (
            thumbnail.dtype == np.uint8 and thumbnail.shape == (160, 160, 3) and thumbnail.std() > 5
        )


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


def test_a_curve_of_precision_begins_at_its_strictest_threshold():
    curves = {"bell": (np.array([1.0, 0.5, 0.6]), np.array([0.25, 0.25, 1.0]))}
    line = plot.precision_recall(curves, title="best").lines[0]
    np.testing.assert_allclose(line.get_xydata()[[0, -1]], [[0, 1.0], [1.0, 0.6]])
    drawn = plot.precision_recall({"rare": (1 / np.arange(1, 5001), np.full(5000, 1.0))}).lines[0]
    assert drawn.get_xdata().tolist() == [0, 1] and drawn.get_ydata().tolist() == [1, 1]
    assert plot.precision_recall_alt(curves).endswith("bell 60 %")


def test_conditions_stand_in_one_row_per_label():
    scores = {"both": [0.9, 0.5], "audio only": [0.2, 0.4]}
    ax = plot.conditions(["bell", "b" * 40], scores)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["bell", "b" * 29 + "…"]
    assert "audio only 0.30 (best " in plot.conditions_alt(["bell", "siren"], scores)


def test_bars_of_what_turned_carry_their_counts():
    counts = {"video added": (2, 5), "audio added": (0, 1)}
    words = [text.get_text() for text in plot.turned(counts).texts]
    assert words == ["2 became wrong", "5 became right", "0 became wrong", "1 became right"]
    assert plot.turned_alt(counts).startswith("video added: 2 clips became wrong, 5 right")


def test_a_missing_file_is_listed_and_the_others_are_scored(tmp_path):
    (tmp_path / "bell.mp4").write_bytes((SAMPLES / "bell.mp4").read_bytes())
    (tmp_path / "labels.csv").write_text("file,labels\nbell.mp4,a\ngone.mp4,b\n")
    for _ in range(2):  # a missing file is asked for again, too
        scores = evaluate(Listener(("a", "b")), tmp_path, folder=tmp_path / "out", quiet=True)
        assert scores["clips"] == 1
        assert [failed["clip"] for failed in scores["failed"]] == [str(tmp_path / "gone.mp4")]
