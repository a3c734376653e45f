# %% [markdown]
# # First look: which shape sings?
#
# **The question.** A video shows shapes that move, and a tone is heard whose pitch moves, too.
# Which shape is it that sings? Neither the picture nor the sound can tell alone. We ask a small
# Multimodal Bottleneck Transformer, look at what passes between its two streams, and then fool it
# on purpose.
#
# At the end you will know
#
# - how to ask a model about a video, with both senses and with each alone;
# - what such a model eats: a few frames and a spectrogram, cut into patches;
# - where its bottleneck looks, and that looking is not the same as mattering.
#
# You need Python, and no GPU. Nothing is downloaded. This is the appetiser: everything in it comes
# again, slowly, in the seven notebooks of the course.

# %%
# set-up

# %%
from dataclasses import replace

import numpy as np
from course import samples
from IPython.display import Video, display

import mbt_lite as mbt
from mbt_lite import features, plot
from mbt_lite.data import world

clip_path = samples() / "ring_sings_with_bell.mp4"
clf = mbt.load()
print(len(clf.labels), "labels,", clf.config.depth, "layers, fusion from", clf.config.fusion_layer)

# %% [markdown]
# ## 1. Watch and listen
#
# The clip is two seconds long. Follow the pitch with your finger, then look for a shape that moves
# like your finger. A bell rings as well; it is out of sight, to distract you.

# %%
Video(clip_path, embed=True, width=256, html_attributes="controls aria-label='a ring, a ladder'")

# %% [markdown]
# ## 2. Ask the model
#
# The model has 31 labels, and each is a yes-or-no question of its own, so the chances need not sum
# to one: how each shape moves (it *rises*, *falls*, *arcs*: up and down again, *dips*: down and up
# again), how the pitch moves, what else is there (a bell, a siren, rain ...), and who *sings*.
#
# `predict` answers three times: with both streams, with the picture blanked (audio only), and with
# the sound muted (video only).

# %%
answer = clf.predict(clip_path)
bars = {"both": answer.top(5), "audio only": answer.streams["spec"].top(5)}
plot.compare_bars(bars | {"video only": answer.streams["rgb"].top(5)})

# %% [markdown]
# Notice that audio only knows how the pitch moves, and video only knows how the shapes
# move, but only both together know who sings.

# %%
sings = [label for label in clf.labels if label.endswith("sings")]
for name, one in {"both": answer, **answer.streams}.items():
    chances = dict(one.top(len(clf.labels)))
    alone = {"both": "both", "spec": "audio only", "rgb": "video only"}[name]
    print(f"{alone:14}", {label: round(chances[label], 2) for label in sings})

# %% [markdown]
# ## 3. What the model eats
#
# Eight frames of 48 x 48 pixels, and a log-mel spectrogram of two seconds. Each is cut into
# patches (one of the picture is two frames long), and each patch becomes a *token*, which is to the
# model what a word is in a text.

# %%
view = features.read_views(clip_path, clf.clip_config)[0]
print("frames", view.rgb.shape, "in a grid of", clf.config.rgb_grid, "(time, y, x)")
print("log-mel", view.spec.shape, "in a grid of", clf.config.spec_grid, "(time, mel)")
display(plot.spectrogram(view.spec, clf.clip_config.front_end, title=clip_path.stem).figure)

# %% [markdown]
# Notice the bright curves that rise and fall together: the pitch and its overtones. The level lines
# from 0.4 s on are the bell.
#
# ## 4. What goes through the bottleneck
#
# From the fusion layer on the streams share a few **bottleneck tokens**. All
# that the picture ever learns of the sound has been read by one of them. Layers count from 0: of 0
# to 3, those from 1 on share the bottleneck. Here is where the bottleneck tokens looked in layer 2.
# (In layer 3, the last, they look as well, but no layer comes after it that could use what they
# found.)
#
# A token looks in four ways at a time, called *heads*; the figure shows the mean over heads and
# bottleneck tokens. [02](02_tokens_and_attention.ipynb) explains all of it.

# %%
maps = clf.attention(view.clip, query="bottleneck")
print("over frames", maps.rgb.shape, "= layers, heads, bottleneck tokens, time, y, x")
plot.attention(view, maps, clf.clip_config, layer=-1)

# %% [markdown]
# Notice the last picture: the bright spot is at the right end of the ladder, as it stands in the
# later one of two frames. (A patch lasts two frames, so they share a map and are drawn one over the
# other. The triangles mark the times of the frames on the sound.)
#
# But a map says where a token *looked*, not what it took from there, nor that it mattered. Whether
# such pictures can be trusted is a question of its own. [05](05_what_the_bottleneck_sees.ipynb)
# asks it, with clips from our *micro-world*: a program that draws them, so that the right answer is
# known.
#
# How much of all reading is that? What a token reads sums to one, over everything that it can read.
# What is missing here went to the bottleneck tokens themselves and to the *class token*, which
# stands for no patch and gathers the answer:

# %%
shares = maps.rgb.sum((-3, -2, -1))
assert (shares > 0).all() and (shares < 1).all()
print("share of the picture's patches, mean over heads and bottleneck tokens, by layer:")
print(dict(zip(maps.layers, np.round(shares.mean((1, 2)).astype(float), 2).tolist(), strict=True)))
instants = maps.mean("rgb", layer=-1).sum((1, 2)).astype(float)
print("and in layer 2, by instant (two frames each):", instants.round(2).tolist())

# %% [markdown]
# Notice that half of what is read of the picture in layer 2 is in the last half second.
#
# ## 5. Fool it on purpose
#
# If the model really compares, then it must change its mind when the same picture comes with a
# sound that follows the *other* shape. In the micro-world we can make that clip: only the singer
# changes. (Our clip is drawn anew here, without the losses of a video file, so the chances are not
# quite those from above.)

# %%
scene = world.scene(1, 1)  # the scene of our clip: world 1, number 1
assert scene.names == ("ring arcs", "ladder dips", "pitch arcs", "bell heard", "ring sings")
other = replace(scene, singer=1, tone=replace(scene.tone, contour=scene.things[1].contour))
for one in (scene, other):
    made = world.sample(one, clf.clip_config)
    clip = features.normalize(made["rgb"], made["spec"], clf.clip_config.front_end)
    chances = dict(clf.predict(clip).top(len(clf.labels)))
    print("true:", one.names[-1], {label: round(chances[label], 2) for label in sings})

# %% [markdown]
# Notice that not one pixel changed between the two rows, and the answer did.
#
# ### Exercise: Shift the sound
#
# *(easy, 5 minutes)* Make the first clip again, `made = world.sample(scene, clf.clip_config)`, and
# shift its sound by half a second: `np.roll(made["spec"], 50, axis=0)`. Does the model still know
# the singer? And by a whole second? Why, or why not?
#
# <details><summary>What we saw</summary>
#
# | shifted by | ring sings | ladder sings | pitch arcs | pitch dips |
# | --- | --- | --- | --- | --- |
# | nothing | 0.98 | 0.04 | 1.00 | 0.00 |
# | half a second | 0.62 | 0.28 | 0.60 | 0.29 |
# | a second | 0.17 | 0.59 | 0.08 | 0.88 |
#
# `np.roll` brings the end of the sound to the front. By half a second, most of the arc is still one
# piece, so the ring is still ahead, but less surely. By a whole second the pitch falls first and
# then rises: it dips, as the ladder does.
#
# </details>

# %% [markdown]
# ### Exercise: Which frame can it spare least?
#
# *(medium, 10 minutes)* Blank one frame at a time, each time in a fresh copy
# (`rgb = made["rgb"].copy()`, then `rgb[i] = 0`). Which frame can the model spare least? Compare
# with the attention map: do they agree? Then try it with gray frames (`rgb[i] = 128`) before you
# believe it.
#
# <details><summary>What we saw</summary>
#
# Without any one of frames 0 to 6 the ring sings by 0.93 to 0.97. Without frame 7 it is 0.07, and
# the ladder has 0.66. That agrees beautifully with the map, whose brightest spot is in the last
# instant.
#
# But with frame 7 gray, not black, the ring has 0.96. In gray it is frame 6 that can be spared
# least (0.72; all others 0.96 or 0.97). And with frames 6 *and* 7 black the ring has 0.84. So frame
# 7 was not needed after all. A black frame beside a good one is nothing that the model was trained
# on. With frame 7 black it turns the movements round: the ring is said to dip (0.89), the ladder to
# arc (0.91). Whoever takes something away puts something else in its place.
#
# </details>

# %% [markdown]
# **The answer.** The ring sings: its height and the pitch make the same movement, and the model can
# say so because its streams meet: a few bottleneck tokens are the only way between them. Take
# either stream away, and it can only guess.
#
# Next: [what does a model see and hear?](01_from_video_to_tensors.ipynb)
