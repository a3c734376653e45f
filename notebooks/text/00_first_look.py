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
from IPython.display import Video, display

import mbt_lite as mbt
from mbt_lite import features, plot, world
from mbt_lite.course import samples

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
# `predict` answers three times: with both streams, with the picture blanked (sound alone), and with
# the sound muted (picture alone).

# %%
answer = clf.predict(clip_path)
bars = {"both": answer.top(5), "sound alone": answer.streams["spec"].top(5)}
plot.compare_bars(bars | {"picture alone": answer.streams["rgb"].top(5)})

# %% [markdown]
# Notice that the sound alone knows how the pitch moves, and the picture alone knows how the shapes
# move, but only both together know who sings.

# %%
sings = [label for label in clf.labels if label.endswith("sings")]
for name, one in {"both": answer, **answer.streams}.items():
    chances = dict(one.top(len(clf.labels)))
    alone = {"both": "both", "spec": "sound alone", "rgb": "picture alone"}[name]
    print(f"{alone:14}", {label: round(chances[label], 2) for label in sings})

# %% [markdown]
# ## 3. What the model eats
#
# Eight frames of 48 x 48 pixels, and a log-mel spectrogram of two seconds. Each is cut into
# patches: a patch is a token, as a word is in a text.

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
# From the fusion layer on the streams share a few **bottleneck** tokens. All that the picture ever
# learns of the sound has been read by one of them. Here is what they read in the last layer that
# matters: what they read in the very last layer nobody reads any more.

# %%
maps = clf.attention(view.clip, query="bottleneck")
print("over frames", maps.rgb.shape, "= layers, heads, slots, time, y, x")
plot.attention(view, maps, clf.clip_config, layer=-1)

# %% [markdown]
# Notice that a map says where a token *looked*, not what it took from there, nor that it mattered.
# Whether such pictures can be trusted is a question of its own; the micro-world, which knows the
# right answer, is made to ask it.
#
# A row of attention sums to one. What is missing here went to the class token and to the bottleneck
# itself:

# %%
shares = maps.rgb.sum((-3, -2, -1))
assert (shares > 0).all() and (shares < 1).all()
print("share of the picture's patches, mean over heads and slots, by layer:")
print(dict(zip(maps.layers, np.round(shares.mean((1, 2)).astype(float), 2).tolist(), strict=True)))

# %% [markdown]
# ## 5. Fool it on purpose
#
# If the model really compares, then the same picture with a sound that follows the *other* shape
# must change its mind. In the micro-world we can make that clip: only the singer changes.

# %%
scene = next(s for i in range(999) if (s := world.scene(1, i)).singer == 0)
other = replace(scene, singer=1, tone=replace(scene.tone, contour=scene.things[1].contour))
for one in (scene, other):
    made = world.sample(one, clf.clip_config)
    clip = features.normalise(made["rgb"], made["spec"], clf.clip_config.front_end)
    chances = dict(clf.predict(clip).top(len(clf.labels)))
    print("true:", one.names[-1], {label: round(chances[label], 2) for label in sings})

# %% [markdown]
# Notice that not one pixel changed between the two rows, and the answer did.
#
# ## Exercises
#
# 1. *(easy, 5 minutes)* Make the first clip again, `made = world.sample(scene, clf.clip_config)`,
#    and shift its sound by half a second: `np.roll(made["spec"], 50, axis=0)`. Does the model still
#    know the singer? Why, or why not?
# 2. *(medium, 10 minutes)* Blank its frames one after the other (`made["rgb"][i] = 0`). Which frame
#    can the model spare least? Compare with the attention map: do they agree?

# %% [markdown]
# **The answer.** The ring sings: its height and the pitch make the same movement, and the model
# says so because a few bottleneck tokens carried the movement of one stream into the other. Take
# either stream away, and it can only guess.
#
# Next: [what does a model see and hear?](01_from_video_to_tensors.ipynb)
