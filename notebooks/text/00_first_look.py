# %% [markdown]
# # First look: which shape sings?
#
# **The question.** A video shows shapes that move, and a tone is heard whose pitch moves, too.
# Which shape is it that sings? Neither the video nor the audio can tell alone. We ask a small
# Multimodal Bottleneck Transformer (MBT), look at what passes between its two modalities, and then
# fool it on purpose.
#
# At the end you will know
#
# - why the two modalities of a video should meet in a *bottleneck*, and the words for it;
# - how to ask a model about a video, with both modalities and with each alone;
# - what the input of such a model is: RGB frames and a spectrogram, cut into patches;
# - what its bottleneck tokens attend to, and that attention is not the same as importance.
#
# You need Python, and no GPU. Nothing is downloaded. This is the appetiser: everything in it comes
# again, slowly, in the other notebooks of the course.

# %%
# set-up

# %%
from dataclasses import replace

import numpy as np
from course import samples
from IPython.display import SVG, Video, display

import mbt_lite as mbt
from mbt_lite import features, plot
from mbt_lite.data import world

clip_path = samples() / "ring_sings_with_bell.mp4"
clf = mbt.load("world-tiny")
print(len(clf.labels), "labels,", clf.config.depth, "layers, fusion from", clf.config.fusion_layer)

# %% [markdown]
# ## Why a bottleneck?
#
# The dominant way to classify videos with sound was *late fusion*: a model for the frames, a model
# for the sound, and the mean of what the two say. Such a pair never compares: what one modality
# could tell the other in time is lost. The other extreme lets every token of one modality attend to
# every token of the other, in every layer. That is costly, as attention is quadratic in the number
# of tokens, and much of it is wasted: neighboring frames are nearly equal, most sounds say nothing
# about most pixels, and audio and video are largely redundant.
#
# The argument of the paper ([Nagrani et al. 2021](https://arxiv.org/abs/2107.00135)) is that each
# modality should first learn by itself, and then *condense* what it has to say. From a *fusion
# layer* on, all that passes between the modalities goes through a few **bottleneck tokens**. So
# each has to collect what is relevant and share only that, and it costs next to nothing.

# %%
SVG("figures/mbt.svg")

# %% [markdown]
# Read the figure from bottom to top. Two transformers (ViTs) run side by side; from layer $L_f$ on
# they share $B$ bottleneck tokens (here 4); the answer is the mean of two heads. These are the
# field's words, which the course uses:
#
# | word | meaning |
# | --- | --- |
# | modality, stream | audio or video; in code `spec` (spectrogram) and `rgb` (RGB frames) |
# | token | a vector that stands for one patch of the input; attention works on tokens |
# | CLS token | a token that stands for no patch; the classification head reads it |
# | self-attention | how the tokens of a sequence read one another |
# | residual, pre-norm | the result is added to the tokens; a LayerNorm comes before the layer |
# | bottleneck (FSN) token | one of $B$ tokens that both modalities read and update |
# | $L_f$, fusion layer | the first layer that uses the bottleneck; layers count from 0 |
# | early, mid, late fusion | $L_f = 0$; in between; never ($L_f$ = number of layers) |
# | vanilla self-attention | one encoder over the tokens of both; in code `joint`, shared |
# | vanilla cross-attention | an encoder each, which reads the tokens of both |
# | logit, probability | the head's number for a class; the same between 0 and 1 |
#
# ## 1. Watch and listen
#
# The clip is two seconds long. Follow the pitch with your finger, then look for a shape that moves
# like your finger. A bell rings as well; it is out of sight, to distract you.

# %%
Video(clip_path, embed=True, width=256, html_attributes="controls aria-label='a ring, a ladder'")

# %% [markdown]
# ## 2. Ask the model
#
# The model has 31 labels, and each is a yes-or-no question of its own, so the probabilities need
# not sum to one: how each shape moves (it *rises*, *falls*, *arcs*: up and down again, *dips*: down
# and up again), how the pitch moves, what else is there (a bell, a siren, rain ...), and who
# *sings*.
#
# `predict` answers three times: with both modalities, with the frames blanked (audio only), and
# with the audio muted (video only). **Predict** before you run: what can each of them know?

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
    probability = dict(one.top(len(clf.labels)))
    alone = {"both": "both", "spec": "audio only", "rgb": "video only"}[name]
    print(f"{alone:14}", {label: round(probability[label], 2) for label in sings})

# %% [markdown]
# ## 3. What the model gets
#
# Eight frames of 48 x 48 pixels, and a log-mel spectrogram of two seconds. Each is cut into patches
# (one of the video is two frames long: a *tubelet*), and each patch becomes a *token*, which is to
# the model what a word is in a text.

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
# All that the video ever learns of the audio has been read by one of the bottleneck tokens. Of the
# layers 0 to 3 those from $L_f = 1$ on share them. Here is what the bottleneck tokens attend to in
# layer 2. (In layer 3, the last, they attend as well, but no layer comes after it that could use
# it.)
#
# A token attends in four ways at a time, called *heads*; the figure shows the mean over heads and
# bottleneck tokens. [02](02_tokens_and_attention.ipynb) explains all of it.

# %%
maps = clf.attention(view.clip, query="bottleneck")
print("over frames", maps.rgb.shape, "= layers, heads, bottleneck tokens, time, y, x")
plot.attention(view, maps, clf.clip_config, layer=-1)

# %% [markdown]
# Notice the last picture: the bright spot is at the right end of the ladder, as it stands in the
# later one of two frames. (A patch lasts two frames, so they share a map and are drawn one over the
# other. The triangles mark the times of the frames on the spectrogram.)
#
# But a map says what a token *attended to*, not what it took from there, nor that it mattered.
# Whether such pictures can be trusted is a question of its own.
# [05](05_what_the_bottleneck_sees.ipynb) asks it, with clips from our *micro-world*: a program that
# draws them, so that the right answer is known.
#
# How much of all attention is that? A token's weights sum to one, over everything that it can
# attend to. What is missing here went to the bottleneck tokens themselves and to the *CLS token*:

# %%
shares = maps.rgb.sum((-3, -2, -1))
assert (shares > 0).all() and (shares < 1).all()
print("share of the video's patches, mean over heads and bottleneck tokens, by layer:")
print(dict(zip(maps.layers, np.round(shares.mean((1, 2)).astype(float), 2).tolist(), strict=True)))
instants = maps.mean("rgb", layer=-1).sum((1, 2)).astype(float)
print("and in layer 2, by instant (two frames each):", instants.round(2).tolist())

# %% [markdown]
# Half of the attention to the video in layer 2 is on the last half second.
#
# ## 5. Fool it on purpose
#
# If the model really compares, then it must change its mind when the same frames come with a sound
# that follows the *other* shape. In the micro-world we can make that clip: only the singer changes.
# (Our clip is drawn anew here, without the losses of a video file, so the probabilities are not
# quite those from above.) **Predict** both rows, then run.

# %%
scene = world.scene(1, 1)  # the scene of our clip: world 1, number 1
assert scene.names == ("ring arcs", "ladder dips", "pitch arcs", "bell heard", "ring sings")
other = replace(scene, singer=1, tone=replace(scene.tone, contour=scene.things[1].contour))
for one in (scene, other):
    made = world.sample(one, clf.clip_config)
    clip = features.normalize(made["rgb"], made["spec"], clf.clip_config.front_end)
    probability = dict(clf.predict(clip).top(len(clf.labels)))
    print("true:", one.names[-1], {label: round(probability[label], 2) for label in sings})

# %% [markdown]
# Not one pixel changed between the two rows, and the answer did.
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
# ## In the paper's words
#
# MBT is a transformer with *modality-specific parameters* for RGB frames and spectrogram. Below the
# *fusion layer* there is only self-attention within a modality; from there on *cross-modal
# information flows* through $B$ *fusion bottleneck* tokens (FSN tokens), which is *mid fusion*.
# Each modality has a CLS token; one linear classifier reads both, and the logits are averaged.

# %% [markdown]
# **The answer.** The ring sings: its height and the pitch make the same movement, and the model can
# say so because its modalities meet: a few bottleneck tokens are the only way between them. Take
# either modality away, and it can only guess.
#
# Next: [what does a model see and hear?](01_from_video_to_tensors.ipynb)
