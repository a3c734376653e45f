# %% [markdown]
# # Tokens and attention
#
# **The question.** How does a picture become a sentence?
#
# At the end you will know
#
# - how a video is cut into patches, and how a patch becomes a token, with nothing but reshapes and
#   one matrix;
# - what attention computes, because you will have written it, and found it equal to two libraries;
# - why there is a root in it, why there are several heads, and why order has to be told;
# - what one row of a map of attention says, and what it does not say.
#
# You need [01](01_from_video_to_tensors.ipynb), or to know what a log-mel spectrogram is; matrix
# products; and what a softmax is. Nothing is downloaded.

# %%
# set-up

# %%
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import mbt_lite as mbt
from mbt_lite import features, panels, widgets
from mbt_lite.course import pick, samples
from mbt_lite.model import MBT, Attention, Clip, attention_weights, patchify

clf = mbt.load()
config = clf.config
view = features.read_views(samples() / "ring_sings_with_bell.mp4", clf.clip_config)[0]

# %% [markdown]
# ## 1. A video in 64 words
#
# A transformer reads a list of vectors. A sentence is such a list already, word after word; a video
# is not. So it is cut into patches of 2 frames x 12 x 12 pixels, and these are put into a row. To
# *cut* needs no arithmetic: split every axis into (how many patches, how long is one), move the
# counts to the front, flatten the rest.

# %%
video = np.asarray(view.clip.rgb)  # [8, 48, 48, 3]
x = video.reshape(4, 2, 4, 12, 4, 12, 3)  # time, y and x, each split into count and length
x = x.transpose(0, 2, 4, 1, 3, 5, 6)  # the three counts first
words = x.reshape(64, 2 * 12 * 12 * 3)
np.testing.assert_array_equal(words, patchify(video[None], config.rgb_patch)[0])
print("video", video.shape, "->", words.shape, "= patches, numbers in a patch")

firsts = (words.reshape(64, 2, 12, 12, 3)[:, 0] + 1) / 2  # the first frame of each patch
firsts = np.pad(firsts, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)  # a white edge
lines = firsts.reshape(4, 16, 14, 14, 3).transpose(0, 2, 1, 3, 4).reshape(4 * 14, 16 * 14, 3)
figure, ax = plt.subplots(figsize=(8, 2.3), dpi=100, layout="constrained")
ax.imshow(lines)
ax.set(xticks=range(7, 224, 14), xticklabels=range(16), xlabel="patch of the instant")
ax.set(yticks=range(7, 56, 14), yticklabels=range(4), ylabel="instant")
plt.close(figure)  # so that it is shown once
figure

# %% [markdown]
# Notice the order. Each line here is one instant, its four rows of patches one after the other.
# That a ring is round can no longer be seen from any single word; the model has to put it together
# again. For the sound it is the same with patches of 25 x 16.

# %%
# exercise: cut_into_patches

# %% [markdown]
# ## 2. From patch to token
#
# 864 numbers are many. One matrix, the same for every patch, makes 96 of them: the *token*. Then a
# *class token* goes in front, which stands for no patch. It will gather what the answer needs.
# Last, each place gets a vector of its own added, learnt in training: the *position*.
#
# In JAX the weights of a model are a dictionary of arrays, which it calls *params*.

# %%
params = clf.params
embedding, block = params["rgb_embedding"], params["rgb_block_0"]
tokens = words @ embedding["kernel"] + embedding["bias"]  # [64, 96]
tokens = np.concatenate([params["rgb_cls"][0], tokens])  # [65, 96]
tokens = tokens + params["rgb_positions"][0]
print("tokens", tokens.shape, "= the class token and the patches, width")

# %% [markdown]
# What did the positions learn? Here is how alike (cosine) each is to that of one place: the second
# instant, second row, second column.

# %%
places = np.asarray(params["rgb_positions"][0, 1:])
places = places / np.linalg.norm(places, axis=1, keepdims=True)
alike = (places @ places[np.ravel_multi_index((1, 1, 1), config.rgb_grid)]).reshape(4, 4, 4)
figure, axes = plt.subplots(1, 4, figsize=(7, 1.9), dpi=100, layout="constrained")
for instant, ax in enumerate(axes):
    image = ax.imshow(alike[instant], "PuOr", vmin=-1, vmax=1)
    ax.set(title=f"instant {instant}", xticks=range(4), yticks=range(4))
figure.colorbar(image, ax=axes, label="likeness")
plt.close(figure)
figure

# %% [markdown]
# Notice the darkest cell, which is the place itself, and the bands through it: its row, its column,
# and the instants next to it. So a position says who is a neighbour of whom. (Here the positions
# began as sums of a random vector for each instant, row and column, so that the grid need not be
# learnt place by place; training went on from there.)

# %%
# exercise: split_heads

# %% [markdown]
# ## 3. Attention in ten lines
#
# Now every token may read from every other. It asks a question, the *query*; each token holds out a
# *key*, what it can be found by, and a *value*, what can be had from it. All three are made from
# the token by a matrix, and in pieces, called *heads*: four heads of width 24 ask four questions at
# a time. A dot product says how well a key answers a query; a softmax turns a row of these into
# shares that sum to one.

# %%
mean, var = tokens.mean(-1, keepdims=True), tokens.var(-1, keepdims=True)
norm = block["attention_norm"]
normed = (tokens - mean) / np.sqrt(var + 1e-6) * norm["scale"] + norm["bias"]  # LayerNorm

qkv = normed @ block["attention"]["qkv"]["kernel"] + block["attention"]["qkv"]["bias"]
q, k, v = qkv.reshape(65, 3, 4, 24).transpose(1, 2, 0, 3)  # [heads, tokens, 24] each
scores = q @ k.swapaxes(1, 2) / np.sqrt(24)  # [heads, who asks, who is asked]
weights = np.exp(scores - scores.max(-1, keepdims=True))
weights = weights / weights.sum(-1, keepdims=True)
read = weights @ v  # [heads, tokens, 24]
print("weights", weights.shape, "rows sum to", weights.sum(-1).min(), "to", weights.sum(-1).max())

# %% [markdown]
# That is all. Is it what the model does? While a Flax model runs, it can put numbers aside (`sow`
# them); `mutable=[...]` asks to get those back, too. `jax.jit` compiles the whole forward pass at
# its first call. And Flax has attention of its own, which wants the heads after the tokens.

# %%
clip = Clip(rgb=view.clip.rgb[None], spec=view.clip.spec[None])  # [None]: a batch of one
observe = jax.jit(partial(MBT(config).apply, mutable=["intermediates"]))
_, seen = observe({"params": params}, clip)
inside = seen["intermediates"]["rgb_block_0"]["attention"]["weights"][0][0]
np.testing.assert_allclose(weights, inside, atol=1e-5)
np.testing.assert_allclose(weights, attention_weights(q[None], k[None])[0], atol=1e-5)
theirs = nn.dot_product_attention_weights(q.swapaxes(0, 1), k.swapaxes(0, 1))
np.testing.assert_allclose(weights, theirs, atol=1e-5)
for name, other in {"the model": inside, "Flax": theirs}.items():
    print(f"by hand and {name}: at most {np.abs(weights - other).max():.1e} apart")

# %% [markdown]
# Notice that three ways agree: by hand, inside the trained model, in Flax. The last step is to lay
# the heads side by side again, and one more matrix:

# %%
own = block["attention"]
joined = read.swapaxes(0, 1).reshape(65, 96) @ own["out"]["kernel"] + own["out"]["bias"]
package = Attention(heads=4, dropout=0.0, dtype="float32")
np.testing.assert_allclose(
    joined, package.apply({"params": own}, normed[None], False)[0], atol=1e-4
)

kernels = jnp.split(own["qkv"]["kernel"].reshape(96, 12, 24), 3, axis=1)
biases = jnp.split(own["qkv"]["bias"].reshape(12, 24), 3)
split = zip(("query", "key", "value"), kernels, biases, strict=True)
flax = {name: {"kernel": kernel, "bias": bias} for name, kernel, bias in split}
flax["out"] = {"kernel": own["out"]["kernel"].reshape(4, 24, 96), "bias": own["out"]["bias"]}
theirs = nn.MultiHeadDotProductAttention(4).apply({"params": flax}, normed[None])[0]
np.testing.assert_allclose(joined, theirs, atol=1e-4)
print("the whole of attention:", joined.shape, "equal to the package's and to Flax's")

# %%
# exercise: attend

# %% [markdown]
# ## 4. Why the root?
#
# A dot product of width $d$ adds $d$ products, so its spread grows like $\sqrt{d}$. Here are random
# queries and keys, ever wider, with the root and without it. How much of a row goes to a single one
# of 64 keys? An even share would be 1/64.

# %%
rng, widths = np.random.default_rng(0), 2 ** np.arange(1, 11)
largest = {"divided by the root": [], "not divided": []}
for width in widths:
    pair = jnp.asarray(rng.normal(size=(2, 64, width)))
    for name, root in zip(largest, (np.sqrt(width), 1), strict=True):
        largest[name].append(jax.nn.softmax(pair[0] @ pair[1].T / root).max(-1).mean())
figure, ax = plt.subplots(figsize=(6.4, 2.4), dpi=100, layout="constrained")
for (name, shares), style in zip(largest.items(), ("o-", "s--"), strict=True):
    ax.semilogx(widths, shares, style, base=2, label=name)
ax.set(xlabel="width of a head", ylabel="largest share of a row", ylim=(0, 1))
ax.legend()
plt.close(figure)
figure

# %% [markdown]
# Notice that without the root a wide head soon listens to one token alone, by mere chance. A
# softmax that is so sure hardly changes when its scores do, so there is little gradient to learn
# from.
#
# ## 5. Attention does not know the order
#
# Shuffle the tokens, and attention gives the same vectors, shuffled. To it, a sentence is a bag of
# words. Only the positions that we added tell it where and when a patch was.

# %%
order = np.random.default_rng(0).permutation(65)
shuffled = package.apply({"params": own}, normed[order][None], False)[0]
np.testing.assert_allclose(shuffled, joined[order], atol=1e-4)
print("the same vectors in the other order: up to", f"{np.abs(shuffled - joined[order]).max():.1e}")

# %% [markdown]
# So let us lie to the model about places: each patch keeps its pixels and gets the position of
# another. Compiled once, every lie is fast. (JAX changes no array in place: `params | {...}` is a
# new dictionary with one other array.)

# %%
grid = np.arange(64).reshape(config.rgb_grid)  # numbers of the patches: time, row, column
told = ["ring arcs", "ring dips", "ladder arcs", "ladder dips", "ring sings"]


@jax.jit
def chances(numbers):
    order = jnp.append(0, 1 + numbers.ravel())  # the class token keeps its own
    lie = params | {"rgb_positions": params["rgb_positions"][:, order]}
    return jax.nn.sigmoid(MBT(config).apply({"params": lie}, clip).logits[0])


# %%
shuffles = [np.random.default_rng(seed).permutation(64) for seed in range(pick(50, 5))]
lies = {"as it is": [grid], "left is right": [grid[:, :, ::-1]], "up is down": [grid[:, ::-1]]}
lies |= {"backwards in time": [grid[::-1]], "at random (mean)": shuffles}
print(" " * 18, *(f"{label:>12}" for label in told))
for name, orders in lies.items():
    mean = np.mean([chances(numbers) for numbers in orders], axis=0)
    print(f"{name:18}", *(f"{mean[clf.labels.index(label)]:12.2f}" for label in told))

# %% [markdown]
# Notice that left and right may change places, as nothing asks about them here: the labels are
# about up, down and when. With the other lies the same 64 words make another sentence. Surprising
# is *backwards in time*: an arc played backwards is an arc still, yet the ring is said to dip. Part
# of it may be that a patch holds two frames, and these were not turned round; and places at random
# lean to the same answer, so it may be what the model says when it is at a loss. We have not looked
# further.
#
# ## 6. What one row means
#
# A row of the weights belongs to one token that asks. `clf.attention` gives that of one patch by
# its stream and place: here a patch with a piece of the ring (white square), in the first layer,
# by each of the four heads.

# %%
place = (1, 1, 0)  # time, row, column on the grid
maps = clf.attention(view.clip, query=("rgb", *place), layers=[0])
asked = 1 + np.ravel_multi_index(place, config.rgb_grid)  # after the class token
row = weights[:, asked]  # [heads, 65]
np.testing.assert_allclose(maps.rgb[0, :, 0], row[:, 1:].reshape(4, 4, 4, 4), atol=1e-5)

print("the share of the patch itself, head by head:", row[:, asked].round(2))

# %%
figure, axes = plt.subplots(5, 4, figsize=(4.6, 5), dpi=100, layout="constrained")
for time in range(4):
    axes[0, time].imshow(view.rgb[2 * time])
    axes[0, time].set_title(f"{view.times[2 * time]:.2f} s", fontsize=9)
    for head in range(4):
        image = axes[1 + head, time].imshow(maps.rgb[0, head, 0, time], "inferno", vmin=0, vmax=0.2)
        axes[1 + head, 0].set_ylabel(f"head {head}")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
axes[0, place[0]].add_patch(plt.Rectangle((0, 12), 12, 12, fill=False, ec="white", lw=2))
figure.colorbar(image, ax=axes, extend="max", aspect=40, label="share of the row")
plt.close(figure)
figure

# %% [markdown]
# Notice how different the heads are, though all four ask for the same patch: each has its own
# question. And notice what the map is *not*: a picture of what is important. It says how one token
# divided its reading, in one head of one layer, before anything was decided.
#
# A row has more columns than there are patches. Who gets the rest? Here is the class token's row of
# the picture, the mean over heads, layer by layer.

# %%
parts = {"class token": slice(0, 1), "patches": slice(1, 65), "bottleneck": slice(65, None)}
shares = {name: [] for name in parts}
for layer in range(config.depth):
    maps_of = seen["intermediates"][f"rgb_block_{layer}"]["attention"]["weights"][0][0]
    for name, columns in parts.items():
        shares[name].append(float(maps_of[:, 0, columns].sum(-1).mean()))

figure, ax = plt.subplots(figsize=(6.4, 2.2), dpi=100, layout="constrained")
left = np.zeros(config.depth)
for (name, share), colour in zip(shares.items(), ("#e69f00", "#0072b2", "#cc79a7"), strict=True):
    ax.barh(range(config.depth), share, left=left, color=colour, label=name)
    left += share
ax.set(xlabel="share of the class token's row", ylabel="layer", yticks=range(config.depth))
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
plt.close(figure)
figure

# %% [markdown]
# Notice that from layer 1 on, where the streams share a *bottleneck*, most of what the class token
# reads is soon no patch at all, but the few tokens that have news of the sound. So a map over
# patches, however bright, can show the smaller part. (A map always fills its scale.)
#
# ## 7. Look around
#
# Here is what the class token reads, of frames and of sound: turn layer, head and time. Is there a
# head that follows a shape? One that follows the pitch? One that looks at nothing you can name?

# %%
explorer = widgets.explore(panels.attention(clf, view, query="cls"))
print(explorer.panel.alt())
explorer

# %% [markdown]
# Notice how soon one believes such a picture. How far it can be believed was measured for this
# model (README): attention finds *things*, but which of them sings it does not show.
# 05 is about that.

# %%
# exercise: class_map

# %% [markdown]
# ## 8. Long sentences are dear
#
# Every token reads every token, so the weights are a square: twice as many tokens, four times as
# many weights. How many numbers is that in one head of one layer, if picture and sound are one
# sentence, and if each keeps to itself?

# %%
for name, c in {"this model": clf.config, "the released size": mbt.BASE}.items():
    rgb, spec = c.patches("rgb") + 1, c.patches("spec") + 1
    together, apart = (rgb + spec) ** 2, rgb**2 + spec**2
    print(f"{name:18} {rgb:5,} and {spec:3} tokens:", end=" ")
    print(f"{together:10,} weights together, {apart:10,} apart, {together / apart:.2f} times")

# %% [markdown]
# Notice that at equal lengths one sentence costs twice the weights of two; with a long and a short
# one it is less. But apart, picture and sound know nothing of each other. A few tokens that both
# may read, and write, are what the next notebook is about.

# %% [markdown]
# **The answer.** A picture becomes a sentence by being cut up: each patch is flattened, one matrix
# makes a token of it, and a position tells where it was. Attention lets each token ask all others
# and read a mixture of what they hold; it is two matrix products with a softmax between them. One
# row of its weights says where one token looked, in one head of one layer: no more than that.
#
# Next: [where should sound and picture meet?](03_fusion_through_a_bottleneck.ipynb)
