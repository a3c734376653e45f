# %% [markdown]
# # What the bottleneck sees
#
# **The question.** What does the bottleneck look at, and can one believe it?
#
# At the end you will know
#
# - five ways to draw where an answer comes from, one of them written by you, and what each costs;
# - how a beautiful map can tell you nothing, and three ways to find out;
# - what passes between sound and picture through each bottleneck token, and which of it matters;
# - how to ask by experiment: cut, exchange, shift.
#
# You need [03](03_fusion_through_a_bottleneck.ipynb), or to know what bottleneck tokens and a row
# of attention are. Nothing is downloaded.

# %%
# set-up

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from course import pick, samples
from IPython.display import Markdown

import mbt_lite as mbt
from mbt_lite import explain, features, plot
from mbt_lite.data import world
from mbt_lite.explain import html, widgets
from mbt_lite.explain.blocks import mean_maps
from mbt_lite.explain.faithfulness import Question, agreement, randomised, singing
from mbt_lite.model import Clip

MY_CLIP = None  # or the path of a video of yours, such as "holiday.mp4"
clf = mbt.load("world-tiny")
view, other = (
    features.read_views(samples() / f"{name}.mp4", clf.clip_config)[0]
    for name in ("ring_sings_with_bell", "circle_sings")
)

# %% [markdown]
# ## 1. Where does it look?
#
# In this clip a ring and a ladder move, and a tone follows the ring; a bell rings out of sight.
# The model, whose streams meet from layer 1 on in four bottleneck tokens, is sure of the ring. Here
# is what these tokens read, of frames and of sound: turn layer, head, token and time.

# %%
explorer = widgets.explore(html.attention(clf, view))
print(explorer.panel.alt())
explorer

# %% [markdown]
# Notice how the light falls on shapes and on bright lines of the sound, and hardly on the empty
# ground. (The spot at the right edge of the still? A map is for two frames: move on by one, and the
# ladder has climbed there.) It is tempting to say: *so that is what it saw*. Keep the thought; we
# shall test it.
#
# ## 2. Through all layers: rollout
#
# One layer's map is one step. In the last layer a token is already a mixture: what it reads there
# has been read before. **Attention rollout** follows the shares back to the patches: half of a
# token is what it was, half is what it read. The paper draws its figure 6 so.
#
# For it each layer is one square matrix over all tokens: sound, picture and bottleneck tokens. A
# bottleneck token has two rows, one in each stream, and the model takes their mean; so do we.

# %%
clip = Clip(rgb=view.clip.rgb[None], spec=view.clip.spec[None])
_, blocks = mean_maps(clf.config, clf.params, clip)
spec, rgb = (1 + clf.config.patches(stream) for stream in ("spec", "rgb"))  # 1: the class token
places = {"spec": slice(0, spec), "rgb": slice(spec, spec + rgb)}
places["bottleneck"] = slice(spec + rgb, spec + rgb + clf.config.bottlenecks)


def matrix(layer):
    full = np.eye(places["bottleneck"].stop)  # what does not take part stays as it is
    for reader, sources in layer.items():
        full[places[reader]] = 0
        for source, weights in sources.items():
            full[places[reader], places[source]] = weights[0]
    return full


# %%
row = np.zeros(places["bottleneck"].stop)
row[[0, spec]] = 0.5  # the answer is read from the two class tokens
for layer in reversed([matrix(layer) for layer in blocks]):
    row = 0.5 * row + 0.5 * row @ layer
rollout = explain.saliency(clf, view, "rollout")
mine = row[places["rgb"]][1:].reshape(clf.config.rgb_grid)
np.testing.assert_allclose(mine, rollout.rgb, atol=1e-6)
print("sum of all shares", round(row.sum(), 3))
print(f"patches of the sound {rollout.spec.sum():.2f}, of the picture {rollout.rgb.sum():.2f}")

# %% [markdown]
# Notice that the shares sum to one. Of what the model answers, says the rollout, four parts in ten
# come from patches of the sound and a quarter from those of the picture (the rest are class tokens
# and bottleneck tokens). And notice what was *not* used: no label. The rollout is the same map for
# "ring sings", for "ladder sings" and for "bell heard".

# %%
# exercise: roll_out

# %% [markdown]
# ## 3. Five maps of one clip
#
# To ask about *one* answer there are two more ways. **Gradient**: attention is weighted by how the
# answer's score would change with it (one pass backwards). **Occlusion**: hide a patch, and see
# what the score loses (one pass forwards for each patch). The fifth, not drawn here, is the
# **flow**, the part of the rollout that crossed the bottleneck.
#
# We take a clip out of the micro-world, because there the cause is known: somebody sings, and the
# box shows who.


# %%
def pointed(scene):
    asked = Question(clf, [scene])
    return asked.on_singer(asked.maps("attention", clf)["rgb"])[1, 0]  # 1: highest on the singer


def retuned(scene, singer):
    contour = scene.things[singer].contour
    return replace(scene, singer=singer, tone=replace(scene.tone, contour=contour))


scene = next(s for s in singing(500) if len(s.things) == 2 and pointed(s))
pair = [scene, retuned(scene, 1 - scene.singer)]
folder = Path(tempfile.mkdtemp())
world.render(pair, folder)
one, two = (features.read_views(path, clf.clip_config)[0] for path in sorted(folder.glob("*.mp4")))
labels = [f"{scene.things[s.singer].shape} sings" for s in pair]
for who, label in ((one, labels[0]), (two, labels[1])):
    print(f"{label}: {dict(clf.predict(who.clip).top(31))[label]:.2f}")


# %%
def maps(view, label):
    four = ("attention", "rollout", "gradient", "occlusion")
    return [explain.saliency(clf, view, method, label) for method in four]


box = world.answer_key(scene, one.times)["box"]
found = maps(one, labels[0])
print(plot.saliencies_alt(one, found, clf.clip_config))
plot.saliencies(one, found, clf.clip_config, box=box)

# %% [markdown]
# Notice the attention in the first row: its highest point lies on the singing shape. A figure for a
# talk. (To be honest: it is the first clip of the test set for which that is so; we searched.)
#
# ## 4. A map that fools you
#
# Now the same picture, pixel for pixel, with a tone that follows the *other* shape. The answer
# changes, as it should. What does the map say?

# %%
np.testing.assert_array_equal(one.rgb, two.rgb)
box = world.answer_key(pair[1], two.times)["box"]
again = maps(two, labels[1])
print(plot.saliencies_alt(two, again, clf.clip_config))
plot.saliencies(two, again, clf.clip_config, box=box)

# %% [markdown]
# Notice that the first two rows did not move: they shine where they shone, on the shape that is
# silent now. Gradient and occlusion went over to the other one.
#
# Is that one unlucky clip? For many clips we change the singer and compare the picture's map
# before and after: 1 says that the ranks of all patches are the same.

# %%
scenes = list(singing(pick(50, 6)))
others = [retuned(s, (s.singer + 1) % len(s.things)) for s in scenes]
before, after = Question(clf, scenes), Question(clf, others)
methods = pick(list(explain.METHODS), ["attention", "gradient"])
moved = {}
for method in methods:
    pictures = [{"rgb": asked.maps(method, clf)["rgb"]} for asked in (before, after)]
    moved[method] = agreement(*pictures)

# %%
figure, ax = plt.subplots(figsize=(7, 2.6), dpi=100, layout="constrained")
rng = np.random.default_rng(0)
for height, (method, alike) in enumerate(moved.items()):
    jitter = height + rng.uniform(-0.18, 0.18, len(alike))
    ax.plot(alike, jitter, "o", ms=4, alpha=0.5, color="#0072b2", mec="none")
    ax.plot(np.mean(alike), height, "|", ms=22, mew=2, color="#d55e00")
    print(f"{method:10} {np.mean(alike):.2f}")
ax.set(yticks=range(len(moved)), yticklabels=list(moved), xlim=(-1.02, 1.02))
ax.set(xlabel="rank correlation of the picture's map, before and after another shape sings")
ax.invert_yaxis()
ax.grid(axis="x", color="#dddddd")
plt.close(figure)
figure

# %% [markdown]
# Dots are clips, orange lines the means. Notice that attention, rollout and flow draw the same map,
# *whoever sings*. A map that stays when its cause is exchanged cannot be showing the cause. It
# shows that the model looks at shapes; that is true, and it is not what we asked.
#
# ## 5. How to find out
#
# That was the first test: **change the cause**, and see whether the map follows. It needs somebody
# who can make clips. Two more ask for less.
#
# **Random weights.** Draw all weights anew, with the mean and spread they had. Such a model knows
# nothing. Does its map look different?

# %%
anew = randomised(clf)
print("rank correlation with the map of a random model")
for method in methods:
    pictures = before.maps(method, clf), before.maps(method, anew)
    print(f"  {method:10} {agreement(*pictures).mean():+.2f}")

# %% [markdown]
# Notice attention: a map with no knowledge behind it is already a good deal like it, by how the
# model is built and by the clip itself.
#
# **Deletion.** Hide the patches that the map holds for important, one tenth after the other, and
# watch the answer's probability. It works on any clip, with no key, and it asks about cause. Here
# are all scores of this model, measured over 500 clips by `mbt-lite faithfulness` (six minutes on
# two cores); they come with the package.

# %%
scores = explain.measured()
print(plot.faithfulness_alt(scores))
plot.faithfulness(scores)

# %%
print(plot.deletion_alt(scores.curves))
plot.deletion(scores.curves)

# %% [markdown]
# Notice three things.
#
# - *Pointing* would flatter attention: 0.43 where a random point gets 0.13. But it only has to find
#   a shape. *Right shape* asks which one, and there it is at chance.
# - *Gradient* and *occlusion* know who sings.
# - No score alone will do. By deletion, occlusion is the worst of the five, and by the others the
#   best: it finds the patches whose loss hurts one by one, and when several are gone together,
#   others take over.
#
# You can measure it again, on fewer clips (then the intervals are wider):

# %%
few = explain.faithfulness(clf, clips=pick(25, 4), methods=methods)
Markdown(few.table())

# %%
# exercise: pointing

# %%
# exercise: deletion_curve

# %% [markdown]
# ## 6. What passes
#
# In a bottleneck one can stand at the door. A band is as wide as its share of what the answer was
# read from (that is attention again); its color says what the answer loses when that band alone is
# cut (that is cause, by one forward pass for each band).

# %%
label = "ring sings"
flow = explain.flow(clf, view, label)
explorer = widgets.explore(html.flow(clf, view, label))
print(explorer.panel.alt())
explorer

# %%
for name, key in {"widest": 3, "what matters most": 4}.items():
    print(name)
    for source, target, layer, mass, effect in sorted(flow.edges(), key=lambda e: -abs(e[key]))[:4]:
        said = f"layer {layer}: {source:7} → {target:7}  {mass:5.1%} of the reading"
        print(f"  {said}, cut: {-effect:+.2f}")

# %% [markdown]
# Notice that the two lists hardly meet. The widest band changes the score by next to nothing; what
# the answer needs comes out of the sound through bottleneck token 0, by thin bands. Much is read
# that is not needed, and little that is.
#
# ## 7. Intervene
#
# We can intervene on a bottleneck token: set it to zero, freeze it, or replace it by that of
# another clip. Or we cut one direction: the picture no longer gets what the sound wrote.

# %%
explorer = widgets.explore(html.interventions(clf, view, other, labels=(label, "bell heard")))
print(explorer.panel.alt())
explorer

# %% [markdown]
# Notice that "ring sings" falls with either direction, and most with sound to picture. Now choose
# "bell heard". Audio only knows of the bell; yet the answer loses even more when the *picture*
# no longer hears of it, and nothing in the other direction. For the answer is the mean of what both
# streams say (03), and the picture's stream says "bell", too: it has been told.

# %%
effects = explain.intervene(clf, view)
for name in (label, "bell heard"):
    print(name)
    lines = effects.table(name).splitlines()
    print(*[line for line in lines if "cut after every layer" in line], sep="\n")
    print(*[line for line in lines if "token" in line][:2], sep="\n")

# %% [markdown]
# ## 8. What if?
#
# The simplest experiments need no look inside: exchange the sounds of two clips, spoil one stream,
# let the sound come late.

# %%
names = ("the ring's clip", "the circle's clip")
explorer = widgets.explore(html.counterfactual(clf, view, other, names, labels=(label,)))
print(explorer.panel.alt())
explorer

# %%
swap = explain.swap_audio(clf, view, other, names)
print(np.round(swap.cells(label), 2), "rows: picture of, columns: sound of")
print(f"the picture adds {swap.video(label):+.2f}, the sound {swap.audio(label):+.2f},")
print(f"and together {swap.interaction(label):+.2f} that neither adds alone")
shift = explain.shift_audio(clf, view, seconds=(-1, -0.5, -0.25, 0, 0.25, 0.5, 1))
print(shift.table(label))

# %% [markdown]
# Notice the interaction: only this picture *and* this sound make a singing ring. That is what
# fusion is for; a model that averages two answers has an interaction of zero in its logits. Notice
# also what we had not expected: half a second too early or too late hardly matters, and a whole one
# only if it is early. The model seems to compare *how* ring and tone move, and less *when*.

# %%
# exercise: worth

# %% [markdown]
# ## 9. Your own clip
#
# Put the path of a video into `MY_CLIP` at the top (in Colab: drag a file into the panel of files
# on the left) and run all cells again; until then it is a storm. This small model knows 31 labels
# of its own world, so of your clip it can only say what comes closest; for everyday labels load a
# released checkpoint, as [07](07_released_checkpoints_and_demo.ipynb) shows. But it can tell that a
# clip is unlike its world: by the Mahalanobis distance of its features, those that the head reads,
# from the mean of 1,500 clips of that world.

# %%
path = Path(MY_CLIP) if MY_CLIP else samples() / "storm.mp4"
yours = features.read_views(path, clf.clip_config)[0]
print(*yours.notes, sep="\n")
print("unlike the clips of its world:", clf.is_unfamiliar(yours.clip))
answer = explain.best_label(clf, yours)
print(f"likeliest: {answer}")
print(explain.perturb(clf, yours).table(answer))
rows = [explain.saliency(clf, yours, method, answer) for method in ("attention", "occlusion")]
plot.saliencies(yours, rows, clf.clip_config)

# %% [markdown]
# Notice that the two maps agree in the sound and not in the picture, and that here no key says
# which is right. What is left is to ask by experiment: hide what a map shows, and look whether the
# answer falls; spoil a stream, and see whether it was needed. The table above the figure does the
# second: a logit that does not care whether the sound is muted was not made of sound.
#
# **The answer.** The bottleneck tokens look at shapes and at tones: at *things*. Which thing the
# answer rests on, attention does not show, nor does rollout: they stay the same when another one
# sings. Gradient and occlusion do show it, in this model, by scores that were measured. So believe
# a map as far as it was tested, and rather ask what happens *if*: cut a band, exchange a sound,
# shift it. There the bottleneck is a gift: all that one modality tells the other passes four
# tokens, and each of them can be knocked out.
#
# Next: [how do I train it on my own videos?](06_your_own_videos.ipynb)
