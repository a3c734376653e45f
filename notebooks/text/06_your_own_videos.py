# %% [markdown]
# # Your own videos
#
# **The question.** How do I train it on my own videos?
#
# At the end you will know
#
# - how to find out whether clips are fit for a model, before you wonder about its answers;
# - how to divide them, so that the score means something;
# - how to prepare them once, and to train on them many times;
# - how to read the result: which clips, which sense, and how sure one can be of a small number.
#
# You need [03](03_fusion_through_a_bottleneck.ipynb), what a bottleneck is;
# [04](04_training_on_accelerators.ipynb) helps, what a training step does. **Nothing is
# downloaded.** The notebook makes a folder of small videos itself. Put the path of your own
# folder into `MY_FOLDER`, and everything below runs on that.

# %%
# set-up

# %%
import contextlib
import csv
import io
import os
import re
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, Video, display
from scipy import stats

os.environ["TQDM_DISABLE"] = "1"  # without this line there are bars of progress

import mbt_lite as mbt
from mbt_lite import features, media, plot
from mbt_lite.data import (
    class_folders,
    doctor,
    extract,
    prepare,
    splits,
    tables,
    world,
)

MY_FOLDER = None  # "/content/drive/MyDrive/videos": a folder for each class, named like it
START = "world-tiny"  # the model to start from; for real videos "as500k-rgb-spec", 1.4 GB, see 07
FRONT_END = "world"  # how that model wants its sound; the other one: "linear-mel"
FOLDER = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1. A folder for each class
#
# This is the simplest order in which videos can lie: a folder for each class, named like the
# class, with videos in it. (On Colab, `from google.colab import drive;
# drive.mount("/content/drive")` makes your Drive a folder.) Ours shows shapes that move while a
# tone is heard. Its pitch follows one of the shapes; the class says which one sings. So neither
# sense alone can know.

# %%
classes = ["circle sings", "ring sings", "cross sings", "ladder sings"]
videos = Path(MY_FOLDER or FOLDER / "videos")
if MY_FOLDER is None:
    class_folders.render(classes, pick(12, 3), "train", videos)
found = sorted(
    path for path in videos.rglob("*") if path.suffix in (".mp4", ".mov", ".mkv", ".avi")
)
for folder in sorted({path.parent for path in found}):
    print(f"{folder.name:14} {sum(path.parent == folder for path in found)} videos")
Video(found[0], embed=True, width=224, html_attributes="controls aria-label='shapes move, a tone'")

# %% [markdown]
# Real folders are never so tidy. We spoil two more files on purpose: one whose picture stands
# still and whose sound is silent, and one that was cut off while it was copied.

# %%
if MY_FOLDER is None:
    still = np.full((50, 90, 160, 3), 40, np.uint8)
    media.write(videos / "ring_sings" / "still.mp4", still, 25.0, np.zeros(32_000), 16_000)
    (videos / "ring_sings" / "torn.mp4").write_bytes(found[0].read_bytes()[:3000])

# %% [markdown]
# ## 2. Ask the doctor first
#
# The doctor opens a file as the model will, and says in words what is in it, what the model gets
# of it, and what to do. First a good one.

# %%
report = doctor.examine(found[0])
print(doctor.note(report).replace(str(videos), ""))
plot.doctor(report)

# %% [markdown]
# Notice that the model looks at eight frames only (six of them are drawn), and that the doctor also
# says how far the spectrogram lies from what the model knows. And now the spoiled one:

# %%
bad = videos / "ring_sings" / "still.mp4" if MY_FOLDER is None else found[-1]
report = doctor.examine(bad)
print(doctor.note(report).replace(str(videos), ""))
plot.doctor(report)

# %% [markdown]
# Notice the verdict: *not fit*. A file that lacks one sense is usable, with a warning, as a model
# can answer by the other alone. In this one there is nothing to see and nothing to hear; as an
# example of "ring sings" it would teach nonsense. Training would never complain: it learns from
# what it is given. What else to leave out depends on your question, and you decide it. We let the
# doctor see all files, count what it found, and leave out what is silent, since our question needs
# both senses. (In a shell: `mbt-lite doctor videos`.)

# %%
everything = tables.read(videos)  # a row for each file, its class from the folder's name
reports = {row.path: doctor.examine(row.path) for row in everything.rows}
every = [(one.severity, one.problem.split(";")[0]) for r in reports.values() for one in r.findings]
alike = Counter((severity, re.sub(r"\d[\d.]*", "...", found)) for severity, found in every)
for (severity, words), count in alike.most_common(8):
    print(f"{count:3} x {severity}: {words}")
silent = [path for path, r in reports.items() if r.statistics.get("loudness") == -np.inf]
rows = [row for row in everything.rows if row.path not in silent]
print(f"{len(everything.rows)} files, left out: {[path.name for path in silent]}")

# %% [markdown]
# The torn file is still there, on purpose: we want to see what it does to the next steps.

# %% [markdown]
# ## 3. Hold some out, whole films only
#
# A score on clips that were trained on measures memory. So some are put aside *now*, before
# anything is trained. If several clips come from one film, all of them go to the same side: they
# look alike.

# %%
# exercise: hold_out_films

# %% [markdown]
# Here each file is a film of its own, and the package divides. A digest of the file's name, a
# number that is computed from its letters, decides like a die: so the same files always fall on the
# same side, also when you add others later, and the share is only about what was asked. The result
# is a table, `path,labels,split`. You can write such a table in any spreadsheet instead.

# %%
held = splits.held_out(rows, 0.25)
sides = [{row.path for row, h in zip(rows, held, strict=True) if h == side} for side in (0, 1)]
assert not sides[0] & sides[1]  # no file is on both sides
print(f"a quarter was asked, {sum(held)} of {len(held)} are held out")
rows = [replace(row, split="test" if h else "train") for row, h in zip(rows, held, strict=True)]
table = FOLDER / "clips.csv"
with table.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["path", "labels", "split"])
    for row in rows:
        inside = row.path.is_relative_to(FOLDER)  # then as seen from the table
        path = row.path.relative_to(FOLDER) if inside else row.path
        writer.writerow([path, "|".join(row.labels), row.split])
print(*table.read_text().splitlines()[:5], sep="\n")

# %% [markdown]
# ## 4. Prepare once
#
# Decoding videos is slow, and the same each time. `prepare` does it once: pictures as JPEG, the
# spectrogram and the sound, in files that can be read in any order. (In a shell: `mbt-lite
# prepare clips.csv --out records`.) Broken files cost a line in a table, not the run.

# %%
read = tables.read(table)
settings = extract.Settings(features.front_end(FRONT_END), tuple(read.labels))
records = FOLDER / "records"
shards = prepare.plan(read.rows, "mine", shards=None, split=None)  # one per 64 rows, all splits
with contextlib.redirect_stderr(io.StringIO()):  # its bar of progress
    dataset = prepare.prepare(shards, settings, records, workers=2)
lines = ["| split | clips | seconds | failures | MB |", "| --- " * 5 + "|"]
for name, part in dataset["splits"].items():
    size = sum(shard["bytes"] for shard in part["shards"]) / 1e6
    numbers = [part["examples"], part["seconds"], part["failures"], f"{size:.1f}"]
    lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
display(Markdown("\n".join(lines)))

# %%
for failure in csv.DictReader((records / "failures.csv").open()):
    print("failed:", failure["reason"].replace(str(videos), ""))
for name, part in dataset["splits"].items():
    print(name, part["counts"])
front = dataset["front_end"]
print(f"log-mel of the training clips: mean {front['mean']:.2f}, deviation {front['std']:.2f}")

# %% [markdown]
# Notice the last line. The model wants spectrograms with mean 0 and deviation 1, and what is
# subtracted and divided by was measured on the *training* clips only. Ask `prepare` again, and it
# finds that everything is there; had it been stopped half-way, it would go on from there.

# %% [markdown]
# ## 5. Fine-tune
#
# A model that starts from nothing needs many clips: `world-tiny` took 128,000 (its card). We have a
# few dozen, so we start from one that knows something already. `configs.folder` does that: it takes
# the weights of `START`, puts a fresh *head* on them (the last layer, with one column for each of
# your classes), and lets the head learn a hundred times as fast as the rest. As each clip has one
# class, the question is one choice among all, by softmax (in 04 every label was a question of its
# own), and *top-1* is the share of clips whose likeliest class is the true one. To be honest:
# `world-tiny` has seen this world, and even these four classes, though not these clips. Videos of
# the real world will be harder.

# %%
plan = mbt.configs.folder.finetune()
place = {"path": str(records), "train": "train", "validation": "test", "test": "test"}
steps = pick(60, 4)
times = {"steps": steps, "epochs": 0, "log_every": pick(5, 1), "evaluate_every": pick(15, 4)}
plan = replace(
    plan,
    data=replace(plan.data, **place, holdout=0.0, workers=0, adapt=False),
    start=replace(plan.start, model=START),
    train=replace(plan.train, **times, batch=pick(16, 8)),
)
run = mbt.fit(plan, FOLDER / "run", quiet=True)
print(plot.curves_alt(run.records, ["loss", "top-1"]))

# %%
k = len(read.labels)
asked = np.full(k, 0.1 / k) + 0.9 * np.eye(k)[0]
print("asked for:", asked.round(3), f"least loss: {-(asked * np.log(asked)).sum():.2f}")

# %% [markdown]
# Notice where the loss stops. Labels are *smoothed*: a tenth of the certainty is dealt over all
# classes, so that here the model is asked for 92.5 % of the true class and 2.5 % of each of the
# other three, and the loss cannot fall below 0.35. Does the held-out score fall while the loss
# still falls? That is how learning by heart looks; or it is chance, since one clip more or less is
# a visible step here. And notice that we watched this score while it trained. That is fine as long
# as nothing is chosen by it. Once you try five learning rates and keep the best, you need a third
# part that you have not looked at.

# %% [markdown]
# ## 6. How good is it?
#
# Now the videos themselves, not the prepared records: this is the way from a file to an answer
# that your users will take. `evaluate` asks three times, with both senses and with each alone,
# and writes a report as one web page. (In a shell: `mbt-lite evaluate --model run --data
# clips.csv --split test
# --report report`.)

# %%
scores = mbt.evaluate(run.classifier, table, split="test", folder=FOLDER / "report", quiet=True)
total = scores["clips"]
for condition in ("both", "audio only", "video only"):
    right = round(scores[condition]["top-1"] * total)
    print(f"{condition:14} {right:2} of {total} right, mAP {scores[condition]['mAP']:.2f}")
print("report:", FOLDER / "report" / "report.html")

# %% [markdown]
# Notice the two lower rows. Guessing would give about 4 of 15 by the sound (a quarter), and about 7
# by the picture (0.45, docs/weights.md), since only two or three shapes are in it. Neither sense is
# above that: only both together know. That both are below it may be the luck of 15 clips, as we
# shall see. For your videos it may be otherwise, and it is worth knowing. If audio only is as good
# as both, the picture adds nothing, and the model can be half as large.

# %% [markdown]
# But how good *is* "so many of fifteen"? Fifteen other clips would have given another number. An
# interval says how much another.

# %%
# exercise: score_interval

# %% [markdown]
# The same for our score, and drawn for each sense. The dotted line is guessing among all classes,
# the short one guessing among the shapes in the picture.


# %%
def wilson(right, n):
    """(low, high) of the 95 % interval, as in the exercise, by SciPy."""
    return stats.binomtest(round(right), n).proportion_ci(method="wilson")


print("{:.2f} to {:.2f}".format(*wilson(scores["both"]["top-1"] * total, total)))


# %%
figure, ax = plt.subplots(figsize=(6.5, 1.9), dpi=100, layout="constrained")
for place, name in enumerate(("video only", "audio only", "both")):
    share = scores[name]["top-1"]
    color = plot.COLORS.get(name, plot.COLORS["both"])
    ax.plot(wilson(share * total, total), [place] * 2, lw=3, color=color, alpha=0.5)
    ax.plot(share, place, "o", color=color)
ax.set(yticks=range(3), yticklabels=["video only", "audio only", "both"])
ax.set(xlim=(0, 1), ylim=(-0.6, 2.6))
ax.set(xlabel=f"share of {total} held-out clips that are right, with 95 % interval")
ax.axvline(1 / len(read.labels), color="gray", ls=":")
if MY_FOLDER is None:
    ax.plot([0.45, 0.45], [-0.4, 0.4], color="gray", ls=":")
plt.close(figure)
display(figure)

# %% [markdown]
# Notice how wide they are: for either sense alone, guessing lies inside. Do not compare two recipes
# by a few points on so few clips.

# %% [markdown]
# ## 7. What is taken for what, and the worst clips
#
# A score is one number; mistakes teach more. We ask about each held-out clip and put the answers
# into a table, true class by answer.

# %%
test = [row for row in read.rows if row.split == "test" and row.path.name != "torn.mp4"]
answers = [run.classifier.predict(row.path) for row in test]
truth = np.array([read.labels.index(row.labels[0]) for row in test])
said = np.array([answer.probabilities.argmax() for answer in answers])
counts = np.zeros((len(read.labels),) * 2, int)
np.add.at(counts, (truth, said), 1)
assert (truth == said).sum() == round(scores["both"]["top-1"] * total)

# %%
figure, ax = plt.subplots(figsize=(4.6, 3.6), dpi=100, layout="constrained")
shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
for (i, j), count in np.ndenumerate(counts):
    ax.text(j, i, count, ha="center", va="center", color="white" if shares[i, j] > 0.6 else "black")
places = range(len(read.labels))
ax.set(xticks=places, yticks=places, yticklabels=read.labels, xlabel="answer", ylabel="true class")
ax.set_xticklabels(read.labels, rotation=30, ha="right")
plt.close(figure)
display(figure)

# %% [markdown]
# Notice the first column: three of the five mistakes say *circle sings*. With so few clips that may
# be chance; with more it would tell which classes need more examples.

# %%
# exercise: confusion_shares

# %% [markdown]
# And the clips on which the model was worst: those whose true class got the smallest probability.
# Look at them, listen to them. In real data it is often the label that is wrong; here all labels
# are right, and it is the model.

# %%
cost = [-np.log(a.probabilities[t] + 1e-9) for a, t in zip(answers, truth, strict=True)]
worst = []
for i in np.argsort(cost)[::-1][:4]:
    view = features.read_views(test[i].path, run.classifier.clip_config)[0]
    worst.append(
        plot.Sample(test[i].id, view.rgb[len(view.rgb) // 2], test[i].labels, answers[i].top(3))
    )
print(plot.samples_alt(worst))
plot.samples(worst)

# %% [markdown]
# Notice that the percentages of a clip add up to 100, but for the one class of four that is not
# shown: this model was trained with softmax, one class is true, and `predict`, the report and the
# demo use the same softmax (it is stored with the weights). `world-tiny` was trained with a sigmoid
# for each label; there they need not add up. The report has all of this as well, with a page to
# keep: *What is taken for what*, *The hardest clips*, *When the other sense joins*.

# %% [markdown]
# ## 8. Was the interval right?
#
# Of your videos you never know. Of the micro-world we do: it can make as many new clips as we
# like. So we ask about many more, and see whether the interval held what it promised.

# %%
new = {}
if MY_FOLDER is None:
    cast = class_folders.cast(classes, pick(60, 5), world.SPLITS["test"])
    for name, scenes in cast.items():
        made = [world.sample(scene, run.classifier.clip_config) for scene in scenes]
        new[name] = [np.stack([one[key] for one in made]) for key in ("rgb", "spec")]


# %%
def share_right(model):
    """(how many are right, how many there are) of the new clips, by the four classes' logits."""
    known = [label.replace("_", " ") for label in model.labels]
    columns, front = [known.index(name) for name in new], model.clip_config.front_end
    said = [model.logits(features.normalize(*one, front))[:, columns] for one in new.values()]
    right = sum((logits.argmax(1) == k).sum() for k, logits in enumerate(said))
    return right, sum(map(len, said))


# %%
for title, model in (
    {"fine-tuned": run.classifier, "world-tiny": mbt.load("world-tiny")}.items() if new else ()
):
    right, many = share_right(model)
    low, high = wilson(right, many)
    print(f"{title:11} {right / many:.3f}, interval {low:.3f} to {high:.3f} ({many} new clips)")
sixth = wilson(scores["both"]["top-1"] * total, total)
print("section 6 said {:.2f} to {:.2f}".format(*sixth))

# %% [markdown]
# Notice that the share of the first row lies inside the interval of section 6, and how much
# narrower its own is. One in twenty such intervals misses the truth; and none of them knows whether
# tomorrow's videos will be like today's. These new clips come from the same world, and were not
# even compressed.
#
# The second row is the model that we started from, with the head of its own training. Our new
# head had a few dozen clips to learn from, and that is the price, even where the layers below
# know all that is needed. So what helps first is more clips: with 160 of them all 32 held-out
# ones were right (docs/training.md).

# %% [markdown]
# ## 9. Longer videos, and keeping the model
#
# A model sees two seconds at a time. A longer video is asked about at several *views*, evenly
# spread. Their logits are averaged first; the softmax of that mean is the answer. Without `views`
# a file is covered whole, up to four windows. By hand, for a film made of three clips of one class:

# %%
film = found[0]
if MY_FOLDER is None:
    scenes = class_folders.cast(classes, 3, world.SPLITS["test"])[classes[0]]
    times, film = np.arange(50) / 25, FOLDER / "film.mp4"
    parts = [(world.frames(scene, times, 160), world.wave(scene)) for scene in scenes]
    pictures, sounds = (np.concatenate(one) for one in zip(*parts, strict=True))
    media.write(film, pictures, 25.0, sounds, world.RATE)
views = features.read_views(film, run.classifier.clip_config, views=3)
clips = [run.classifier.logits(mbt.Clip(*[x[None] for x in view.clip]))[0] for view in views]
answer = run.classifier.predict(film, views=3)
mean = run.classifier.probabilities(np.mean(clips, 0))
np.testing.assert_allclose(mean, answer.probabilities, rtol=1e-3)
for view, logits in zip(views, clips, strict=True):
    print(f"from {view.start:.1f} s:", run.classifier.labels[logits.argmax()])
print(f"together, {answer.asked}:", answer)

# %%
# exercise: answer_of_windows

# %% [markdown]
# The model is in the folder of the run, with a card that says what it was trained on and what it
# reached. `save` makes a folder to share; `mbt.load` takes it back, and it answers the same.

# %%
shared = run.classifier.save(FOLDER / "shared")
again = mbt.load(shared).predict(film, views=3)
np.testing.assert_array_equal(again.probabilities, answer.probabilities)
for path in sorted(shared.iterdir()):
    print(f"{path.name:20} {path.stat().st_size / 1e3:8,.1f} kB")

# %% [markdown]
# **The answer.** Let the doctor look at the clips, divide them by film before you train, prepare
# once, start from a model that knows something, and train for minutes. Then look at the worst
# clips and at each sense alone, and say the score with its interval: of fifteen clips it is wide.
# The whole way in a shell: `mbt-lite doctor`, `prepare`, `train --config folder`, `evaluate`.
#
# Next: [what do the released weights know?](07_released_checkpoints_and_demo.ipynb)
