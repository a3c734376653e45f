# %% [markdown]
# # Tokens and attention
#
# **The question.** How does a video become a sentence?
#
# At the end you will know
#
# - the six ideas of JAX that this course needs;
# - how a video is cut into patches, and how a patch becomes a token, with nothing but reshapes and
#   one matrix;
# - what scaled dot-product attention computes, because you will have written it, and found it equal
#   to this package's and to Flax's;
# - why there is a root in it, why there are several heads, and why it needs positions;
# - what one row of an attention map says, and what it does not say.
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
from course import pick, samples

import mbt_lite as mbt
from mbt_lite import features
from mbt_lite.explain import html, widgets
from mbt_lite.model import MBT, Attention, Block, Clip, attention_weights, patchify

clf = mbt.load("world-tiny")
config = clf.config
view = features.read_views(samples() / "ring_sings_with_bell.mp4", clf.clip_config)[0]

# %% [markdown]
# ## JAX in 20 minutes
#
# JAX is NumPy (`jax.numpy`, by custom `jnp`) with functions that transform functions. Skip this
# section if you know it.
#
# **Arrays do not change.** `x[0] = 9` is an error; `x.at[0].set(9)` is a new array.

# %%
x = jnp.arange(4.0)
y = x.at[0].set(9.0)
print(x, y)

# %% [markdown]
# **`jax.grad`** takes a function of arrays that returns one number, and returns the function that
# computes its gradient by the first argument. `value_and_grad` returns both. Try it on what we
# know: the slope of $x^3$ is $3 x^2$.


# %%
def cubes(x):
    return (x**3).sum()


np.testing.assert_allclose(jax.grad(cubes)(x), 3 * x**2, rtol=1e-6)
value, slope = jax.value_and_grad(cubes)(x)
print("value", value, "gradient", slope)

# %% [markdown]
# **`jax.jit`** compiles. At the first call with arguments of certain shapes JAX runs the function
# once with *tracers*, which stand for arrays, and writes down what is computed; XLA makes a program
# of it. Later calls run the program, not Python. **Predict**: how often is `traced` printed?


# %%
@jax.jit
def softmax(scores):
    print("traced with shape", scores.shape)
    return jnp.exp(scores) / jnp.exp(scores).sum()


for scores in (x, y, x + 1, jnp.ones(5)):
    softmax(scores)

# %% [markdown]
# Twice: once for each shape. So a compiled function should be *pure*, its result made of its
# arguments alone; a `print`, or a global list that it appends to, works only while it is traced.
# And an `if` cannot ask for a value that is not known yet.
#
# **`jax.vmap`** turns a function of one example into one of a batch. Write it without the axis of
# the batch; JAX puts it in. It composes with the others: here is the gradient of each of three
# examples by itself.

# %%
batch = jnp.stack([x, y, x + 1])  # [3, 4]
print(jax.vmap(softmax)(batch).shape, jax.jit(jax.vmap(jax.grad(cubes)))(batch).shape)

# %% [markdown]
# **Pytrees.** Arguments and results may be nested dictionaries, lists and tuples of arrays. A
# model's *parameters*, which is what it has learned, are such a tree; so is a gradient by them.
# `jax.tree.map` applies a function to every array, `jax.tree.leaves` lists them.

# %%
print("the keys of one block:", list(clf.params["rgb_block_0"]))
shapes = jax.tree.map(jnp.shape, clf.params["rgb_block_0"]["attention"])
print(shapes)
print(f"{sum(leaf.size for leaf in jax.tree.leaves(clf.params)):,} parameters")

# %% [markdown]
# **Keys.** There is no hidden state of a random generator. A *key* is handed in, and the same key
# draws the same numbers; so a key is used once, and `jax.random.split` makes new ones of it.

# %%
key = jax.random.key(0)
first, second = jax.random.split(key)
print(jax.random.normal(key, (2,)), jax.random.normal(key, (2,)), "the same key")
print(jax.random.normal(first, (2,)), jax.random.normal(second, (2,)), "two new ones")

# %% [markdown]
# With these six you can train something. Put `grad` and pytrees together:

# %%
# exercise: descend

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

# %% [markdown]
# Here is the row, of each patch the first of its two frames. It is broken into four lines, one for
# each instant.

# %%
firsts = (words.reshape(64, 2, 12, 12, 3)[:, 0] + 1) / 2  # the first frame of each patch
firsts = np.pad(firsts, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)  # a white edge
lines = firsts.reshape(4, 4, 4, 14, 14, 3).transpose(0, 3, 1, 2, 4, 5).reshape(56, 4, 56, 3)
lines = np.pad(lines, ((0, 0), (0, 0), (0, 8), (0, 0)), constant_values=1)  # and a wider gap
figure, ax = plt.subplots(figsize=(8, 2.3), dpi=100, layout="constrained")
ax.imshow(lines.reshape(56, 256, 3)[:, :-8])
ticks = [64 * (patch // 4) + 14 * (patch % 4) + 7 for patch in range(16)]
ax.set(xticks=ticks, xticklabels=range(16), xlabel="patch of the instant")
ax.set(yticks=range(7, 56, 14), yticklabels=range(4), ylabel="instant")
plt.close(figure)  # so that it is shown once
figure

# %% [markdown]
# Each line here is one instant, its four rows of patches one after the other (the wider gaps part
# them). In no single word is the ring round, and what touched from above, patches 4 and 8 in the
# last instant, stands four words apart. The model has to put it together again. For the spectrogram
# it is the same with patches of 25 x 16 (time, mel). This is the input of a vision transformer, ViT
# ([Dosovitskiy et al. 2020](https://arxiv.org/abs/2010.11929)); a patch that spans frames is called
# a *tubelet* ([Arnab et al. 2021](https://arxiv.org/abs/2103.15691)).

# %%
# exercise: cut_into_patches

# %% [markdown]
# ## 2. From patch to token
#
# 864 numbers are many. One matrix $E$, the same for every patch, makes 96 of them: the *token*.
# Then a *CLS token* goes in front, which stands for no patch. It will gather what the answer needs.
# Last, each place gets a vector $p$ of its own added, learned in training: the *position
# embedding*.
#
# $$z^0 = [\,z_{cls},\ E x_1,\ \dots,\ E x_N\,] + p$$

# %%
params = clf.params
embedding, block = params["rgb_embedding"], params["rgb_block_0"]
tokens = words @ embedding["kernel"] + embedding["bias"]  # [64, 96]
tokens = np.concatenate([params["rgb_cls"][0], tokens])  # [65, 96]
tokens = tokens + params["rgb_positions"][0]
print("tokens", tokens.shape, "= the CLS token and the patches, width")

# %% [markdown]
# What do the positions say? They began as sums of a random vector for each instant, row and column,
# so that the grid need not be learned place by place. (That is this package's own initialization,
# for small models; ViT starts with small noise.) Here is how alike (cosine) each is now to that of
# one place: the second instant, second row, second column.

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
shared = (np.indices((4, 4, 4)) == 1).sum(0)  # of instant, row and column, how many are the same
for count in range(3):
    print(f"{count} of the three shared: likeness {alike[shared == count].mean():.2f} in the mean")
figure

# %% [markdown]
# Notice the darkest cell, which is the place itself, and the bands through it: whoever shares its
# row, its column, or its place at another instant is more alike than the rest. So a position says
# who stands in line with whom. That near is more alike than far it does not say: the end of the row
# is more alike than the next cell.

# %% [markdown]
# ## 3. Attention in ten lines
#
# Now every token may read from every other: *self-attention*. It asks a question, the *query*; each
# token holds out a *key*, what it can be found by, and a *value*, what can be had from it. All
# three are made from the token by a matrix, and in pieces, called *heads*: four heads of width 24
# ask four questions at a time.

# %%
# exercise: split_heads

# %% [markdown]
# A dot product says how well a key answers a query; a softmax turns a row of these into weights
# that sum to one. This is *scaled dot-product attention* ([Vaswani et al.
# 2017](https://arxiv.org/abs/1706.03762)), in each head of width $d$:
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# Before it, each token is brought to mean 0 and variance 1, and then scaled and shifted by learned
# numbers: *LayerNorm*. As it comes before the layer, the block is called *pre-norm*.

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
# Is it what the model does? While a Flax model runs, it can put numbers aside (`sow` them);
# `mutable=[...]` asks to get those back, too. And Flax has attention of its own, which wants the
# heads after the tokens.

# %%
clip = Clip(rgb=view.clip.rgb[None], spec=view.clip.spec[None])  # [None]: a batch of one
observe = jax.jit(partial(MBT(config).apply, mutable=["intermediates"]))  # apply: run the model
_, seen = observe({"params": params}, clip)
inside = seen["intermediates"]["rgb_block_0"]["attention"]["weights"]
inside = inside[0][0]  # the first thing that was sown there, of the first clip
np.testing.assert_allclose(weights, inside, atol=1e-5)
called = attention_weights(q[None], k[None])[0]  # the function that the model calls
np.testing.assert_allclose(weights, called, atol=1e-5)
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

# the same numbers, in the shapes that Flax's own layer wants
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
# That is attention, and half of a layer. A whole layer, a *block*, adds this to the token that it
# came from: a *residual connection*. Then it sends each token by itself, again after a LayerNorm,
# through a small network of two matrices with a nonlinearity (*GELU*) between them, the *MLP*, and
# adds the outcome, too:
#
# $$y = z + \mathrm{MSA}(\mathrm{LN}(z)), \qquad z' = y + \mathrm{MLP}(\mathrm{LN}(y))$$

# %%
x = tokens + joined
mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
y = (x - mean) / np.sqrt(var + 1e-6) * block["mlp_norm"]["scale"] + block["mlp_norm"]["bias"]
y = nn.gelu(y @ block["mlp_in"]["kernel"] + block["mlp_in"]["bias"])  # [65, 288]
x = x + y @ block["mlp_out"]["kernel"] + block["mlp_out"]["bias"]
whole = Block(config, layer=0).apply({"params": block}, tokens[None], False)[0]
np.testing.assert_allclose(x, whole, atol=1e-4)
print("a block:", tokens.shape, "->", x.shape, "equal to the package's")

# %% [markdown]
# ## 4. Why the root?
#
# A dot product of width $d$ adds $d$ products, so its spread grows like $\sqrt{d}$. Here are random
# queries and keys, ever wider, with the root and without it. (24 is the width of our heads.) How
# much of a row goes to a single one of 64 keys? An even share would be 1/64.

# %%
rng, widths = np.random.default_rng(0), (2, 4, 8, 16, 24, 32, 64, 128, 256, 512, 1024)
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
print("at width 24:", {name: round(float(shares[4]), 2) for name, shares in largest.items()})
figure

# %% [markdown]
# Without the root a wide head soon attends to one token alone, at random: already at our width more
# than six tenths of a row go to a single one. Such a softmax is *saturated*: it hardly changes when
# its scores do, so there is little gradient to learn from.
#
# ## 5. Attention does not know the order
#
# Shuffle the tokens, and attention gives the same vectors, shuffled: it is *permutation
# equivariant*. To it, a sentence is a bag of words. Only the position embeddings tell it where and
# when a patch was.

# %%
order = np.random.default_rng(0).permutation(65)
shuffled = package.apply({"params": own}, normed[order][None], False)[0]
np.testing.assert_allclose(shuffled, joined[order], atol=1e-4)
print("the same vectors in the other order: up to", f"{np.abs(shuffled - joined[order]).max():.1e}")

# %% [markdown]
# So let us lie to the model about places: each patch keeps its pixels and gets the position of
# another. Compiled once, every lie is fast. **Predict**: which labels survive left for right, up
# for down, and time backwards?

# %%
grid = np.arange(64).reshape(config.rgb_grid)  # numbers of the patches: time, row, column
told = ["ring arcs", "ring dips", "ladder arcs", "ladder dips", "ring sings"]


@jax.jit
def probabilities(numbers):
    order = jnp.append(0, 1 + numbers.ravel())  # the CLS token keeps its own
    lie = params | {"rgb_positions": params["rgb_positions"][:, order]}
    return jax.nn.sigmoid(MBT(config).apply({"params": lie}, clip).logits[0])


# %%
shuffles = [np.random.default_rng(seed).permutation(64) for seed in range(pick(50, 5))]
lies = {"as it is": [grid], "left is right": [grid[:, :, ::-1]], "up is down": [grid[:, ::-1]]}
lies |= {"backwards in time": [grid[::-1]], "at random (mean)": shuffles}
print(" " * 18, *(f"{label:>12}" for label in told))
for name, orders in lies.items():
    mean = np.mean([probabilities(numbers) for numbers in orders], axis=0)
    print(f"{name:18}", *(f"{mean[clf.labels.index(label)]:12.2f}" for label in told))

# %% [markdown]
# Left and right may change places, as nothing asks about them here: the labels are about up, down
# and when. With the other lies the same 64 words make another sentence. *Up is down*
# works by half: the ladder is now said to arc, but the ring is not said to dip. More surprising is
# *backwards in time*: an arc played backwards is an arc still, yet the ring is said to dip. Part
# of it may be that a patch holds two frames, and these were not turned round; and places at random
# lean to the same answer, so it may be what the model says when it is at a loss. We have not looked
# further.
#
# ## 6. What one row means
#
# A row of the weights belongs to one query. `clf.attention` gives that of one patch by its stream
# and place: here a patch with a piece of the ring (white square), in the first layer, by each of
# the four heads.

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
# The heads differ, though all four have a query of the same patch (yellow: 0.2 and more). Heads 0
# and 3 attend most to their own patch. Head 1 hardly does, but attends to the same place at other
# instants, as head 3 does, too. Head 2 spreads. And the map is *not* a picture of what is
# important. It says how one query divided its attention, in one head of one layer, before anything
# was decided.
#
# A row has more columns than there are patches. What gets the rest? Here is the video's CLS token,
# the mean over heads, layer by layer.

# %%
parts = {"CLS token": slice(0, 1), "patches": slice(1, 65), "bottleneck": slice(65, None)}
shares = {name: [] for name in parts}
for layer in range(config.depth):
    maps_of = seen["intermediates"][f"rgb_block_{layer}"]["attention"]["weights"][0][0]
    for name, columns in parts.items():
        shares[name].append(float(maps_of[:, 0, columns].sum(-1).mean()))

figure, ax = plt.subplots(figsize=(6.4, 2.2), dpi=100, layout="constrained")
left = np.zeros(config.depth)
for (name, share), color in zip(shares.items(), ("#e69f00", "#0072b2", "#cc79a7"), strict=True):
    ax.barh(range(config.depth), share, left=left, color=color, label=name)
    left += share
ax.set(xlabel="share of the CLS token's attention", ylabel="layer", yticks=range(config.depth))
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
plt.close(figure)
figure

# %% [markdown]
# From layer 1 on the modalities share a few *bottleneck tokens* (pink). In layers 2 and 3 two
# thirds and more of what the CLS token attends to is no patch at all, but these tokens, which by
# then hold information of the audio. (In layer 1 they are still the same for every clip.) So a map
# over patches, however bright, can show the smaller part.
#
# ## 7. Look around
#
# Here is what the CLS tokens attend to, in frames and spectrogram: turn layer, head and time. Is
# there a head that follows a shape? One that follows the pitch? One that follows nothing you can
# name?
# (The light is smoothed, but there are only 4 x 4 patches, and the two frames of an instant share a
# map. The colors are stretched to the largest share, however small that is.)

# %%
explorer = widgets.explore(html.attention(clf, view, query="cls"))
print(explorer.panel.alt())
explorer

# %% [markdown]
# The last question is easily answered: in layer 3, in the mean over heads, the attention to the
# spectrogram lies below the lowest tone, where there is nothing but noise and the bell's strike.
# One soon believes such a picture. How far it can be believed was measured for this model
# ([docs](../docs/explaining.md#which-map-can-be-believed)): attention finds *things*, but which of
# them sings it does not show. [05](05_what_the_bottleneck_sees.ipynb) is about that.

# %%
# exercise: class_map

# %% [markdown]
# ## 8. Long sequences are costly
#
# Every token attends to every token, so the weights are a square: twice as many tokens, four times
# as many weights. **Predict**: how many times more weights, in one head of one layer, has one
# sequence of both modalities than two that are apart?

# %%
for name, c in {"this model": clf.config, "the released size": mbt.BASE}.items():
    rgb, spec = c.patches("rgb") + 1, c.patches("spec") + 1
    together, apart = (rgb + spec) ** 2, rgb**2 + spec**2
    print(f"{name:18} {rgb:5,} and {spec:3} tokens:", end=" ")
    print(f"{together:10,} weights together, {apart:10,} apart, {together / apart:.2f} times")

# %% [markdown]
# At equal lengths one sequence has twice the weights of two; with a long and a short one it is
# less. But apart, video and audio know nothing of each other. A few tokens that both may read, and
# write, are what the next notebook is about.
#
# ## In the paper's words
#
# - Each modality is *tokenized*: non-overlapping patches, a linear projection $E$, a prepended CLS
#   token, a learned position embedding $p$, as in ViT.
# - A *transformer layer* is multi-headed self-attention (MSA), LayerNorm (LN) and an MLP with
#   residual connections, in the pre-norm order.
# - *Multi-head cross-attention* is the same function with queries of one modality and keys and
#   values of another.

# %% [markdown]
# **The answer.** A video becomes a sentence by being cut up: each patch is flattened, one matrix
# makes a token of it, and a position embedding tells where it was. Attention lets each token ask
# all others and read a mixture of their values; it is two matrix products with a softmax between
# them. One row of its weights says what one token attended to, in one head of one layer: no more.
#
# Next: [where should audio and video meet?](03_fusion_through_a_bottleneck.ipynb)
