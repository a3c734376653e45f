# %% [markdown]
# # Build MBT in 60 lines
#
# **The question.** What does it take to write this model yourself?
#
# At the end you will know
#
# - every layer of a Multimodal Bottleneck Transformer as an equation and as `flax.linen` code,
#   because you will have written it, and loaded trained weights into it;
# - what a training step in JAX is: a loss, `jax.value_and_grad`, an Optax update;
# - what the fusion layer $L_f$, the number of bottleneck tokens $B$, and the way in which they are
#   updated do to a model that has to compare audio and video.
#
# You need [02](02_tokens_and_attention.ipynb) (tokens, attention, JAX) and the idea of
# [03](03_fusion_through_a_bottleneck.ipynb). Nothing is downloaded.

# %%
# set-up

# %%
from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from course import pick, yours
from course.minimbt import CONTOURS, QUESTIONS, check_module, make_clips
from IPython.display import SVG, display

import mbt_lite as mbt
from mbt_lite import config, plot

SVG("figures/mbt.svg")

# %% [markdown]
# The model ([Nagrani et al. 2021](https://arxiv.org/abs/2107.00135), section 3), from bottom to
# top: two vision transformers (ViT, [Dosovitskiy et al. 2020](https://arxiv.org/abs/2010.11929)),
# one over the spectrogram and one over the RGB frames. Below the fusion layer $L_f$ each attends
# only to its own tokens. From $L_f$ on they share $B$ bottleneck tokens. One linear head reads both
# CLS tokens, and the logits are the mean of what it says.
#
# In Flax a layer is a class: a frozen dataclass whose fields are the settings. Its `__call__`
# computes, and marked with `@nn.compact` it may declare layers and parameters where they are
# used. The names that we give them are the keys of the dictionary of parameters. We take the names
# of the shipped weights, so that these can be loaded.
#
# ## 1. Tubelet embedding
#
# $$z = [\,z_{cls},\ E x_1,\ \dots,\ E x_N\,] + p$$
#
# A patch of the spectrogram spans time and mel bins. A patch of the video spans frames, rows and
# columns: a *tubelet*. Cut, flatten, one matrix $E$. `self.param` declares a parameter: its name,
# how it is initialized, its shape.


# %%
class TubeletEmbedding(nn.Module):
    width: int
    patch: tuple  # (frames, rows, columns) or (time, mel bins)

    @nn.compact
    def __call__(self, x):  # [B, T, H, W, 3] or [B, time, mel, 3]
        B, *sizes, C = x.shape
        x = x.reshape(
            B, *(n for s, p in zip(sizes, self.patch, strict=True) for n in (s // p, p)), C
        )
        axes = range(1, x.ndim - 1)  # of each axis: how many patches, how long is one
        x = x.transpose(0, *axes[::2], *axes[1::2], x.ndim - 1)  # the counts first
        x = x.reshape(B, -1, np.prod(self.patch) * C)  # [B, N, values of a patch]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.width))
        return x @ kernel + self.param("bias", nn.initializers.zeros, (self.width,))  # [B, N, D]


# %% [markdown]
# `module.init(key, x)` runs the module once and returns its parameters; `jax.eval_shape` does so
# with shapes alone. `module.apply({"params": params}, x)` computes. The module itself holds no
# numbers.

# %%
clf = mbt.load("world-tiny")
embed = TubeletEmbedding(clf.config.width, clf.config.rgb_patch)
frames = jnp.zeros((1, *clf.config.rgb_shape, 3))
shapes = jax.eval_shape(embed.init, jax.random.key(0), frames)["params"]
for name, x in shapes.items():
    print(f"{name:7} ours {x.shape}, shipped {clf.params['rgb_embedding'][name].shape}")

# %% [markdown]
# ## 2. Attention
#
# Scaled dot-product self-attention ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)), in
# each of $H$ heads of width $d = D / H$:
#
# $$\mathrm{softmax}\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# `einsum` names the axes: `b` clips, `q` queries, `k` keys, `h` heads, `d` width of a head.


# %%
class Attention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x):  # [B, N, D]
        B, N, D = x.shape
        qkv = nn.Dense(3 * D, name="qkv")(x).reshape(B, N, 3, self.heads, D // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)  # [B, N, H, d] each
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(D // self.heads)
        read = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)  # [B, N, H, d]
        return nn.Dense(D, name="out")(read.reshape(B, N, D))


# %% [markdown]
# ## 3. The block
#
# Two residual branches, each with its LayerNorm *before* the layer (*pre-norm*):
#
# $$y = z + \mathrm{MSA}(\mathrm{LN}(z)), \qquad z' = y + \mathrm{MLP}(\mathrm{LN}(y))$$
#
# Flax's `nn.gelu` is by default the tanh form of the activation, with which the weights were
# trained.


# %%
class Block(nn.Module):
    heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, x):  # [B, N, D]
        y = nn.LayerNorm(name="attention_norm")(x)
        x = x + Attention(self.heads, name="attention")(y)
        y = nn.LayerNorm(name="mlp_norm")(x)
        y = nn.gelu(nn.Dense(self.mlp_dim, name="mlp_in")(y))
        return x + nn.Dense(x.shape[-1], name="mlp_out")(y)


# %% [markdown]
# ## 4. The fusion layer
#
# Here is the idea of the paper, in two lines. For each modality $i$, its block $\theta_i$ runs over
# its own tokens and the bottleneck tokens:
#
# $$[\,z_i^{l+1} \,\Vert\, \hat z_{fsn_i}^{\,l+1}\,] =
#   \mathrm{Transformer}([\,z_i^l \,\Vert\, z_{fsn}^l\,];\ \theta_i) \tag{8}$$
#
# $$z_{fsn}^{l+1} = \mathrm{Avg}_i(\hat z_{fsn_i}^{\,l+1}) \tag{9}$$
#
# Both modalities read the same old $z_{fsn}^l$, and each makes an update of its own. The paper also
# tries an asymmetric form: the second modality reads the tokens that the first has updated.

# %%
# exercise: fuse

# %%
fuse = yours(fuse)  # your function if it is right, otherwise the solution

# %% [markdown]
# ## 5. All of it
#
# The loop over the layers is the figure above. The head is declared once and called twice, so both
# modalities share it.


# %%
class MiniMBT(nn.Module):
    config: config.MBTConfig
    sequential: bool = False

    @nn.compact
    def __call__(self, clip):
        c, tokens = self.config, {}
        for s in c.streams:  # "spec" and "rgb"
            x = TubeletEmbedding(c.width, c.patch(s), name=f"{s}_embedding")(getattr(clip, s))
            cls = self.param(f"{s}_cls", nn.initializers.zeros, (1, 1, c.width))
            x = jnp.concatenate([jnp.tile(cls, (len(x), 1, 1)), x], axis=1)
            shape = (1, *x.shape[1:])
            tokens[s] = x + self.param(f"{s}_positions", nn.initializers.normal(0.25), shape)
        z = self.param("bottleneck", nn.initializers.normal(0.02), (1, c.bottlenecks, c.width))
        z = jnp.tile(z, (len(x), 1, 1))  # [B, Z, D]
        for layer in range(c.depth):
            blocks = {s: Block(c.heads, c.mlp_dim, name=f"{s}_block_{layer}") for s in c.streams}
            if layer < c.fusion_layer:
                tokens = {s: blocks[s](x) for s, x in tokens.items()}
            else:
                tokens, z = fuse(blocks, tokens, z, self.sequential)
        norm, head = nn.LayerNorm(name="final_norm"), nn.Dense(c.classes, name="head")
        return sum(head(norm(x)[:, 0]) for x in tokens.values()) / len(tokens)


# %% [markdown]
# **Predict, then run.** `check_module` loads the weights of `world-tiny` into your module, runs it
# beside the package's model, and compares layer by layer. If you divided the scores by $\sqrt{D}$
# instead of $\sqrt{d}$, which layer would be the first to differ?

# %%
check_module(MiniMBT(clf.config))

# %% [markdown]
# Try it: change a line above (the root, the order in a concatenation, `<` to `<=`), run its cell,
# that of `MiniMBT` and the check again. It names the first layer that differs, and the mistake
# where it knows it. Of a model that was copied by hand, the answers alone would only say that
# *something* is wrong.
#
# The package adds what larger models need (dropout, stochastic depth, other kinds of fusion,
# attention in blocks); the mathematics is this. And a real file goes through your model, too:

# %%
from course import samples

from mbt_lite import features
from mbt_lite.model import Clip

view = features.read_views(samples() / "ring_sings_with_bell.mp4", clf.clip_config)[0]
clip = Clip(rgb=view.clip.rgb[None], spec=view.clip.spec[None])  # [None]: a batch of one
logits = jax.jit(MiniMBT(clf.config).apply)({"params": clf.params}, clip)[0]
np.testing.assert_allclose(logits, clf.logits(clip)[0], atol=1e-4)
for label in sorted(clf.labels, key=lambda label: -logits[clf.labels.index(label)])[:5]:
    print(f"{label:14} {jax.nn.sigmoid(logits[clf.labels.index(label)]):.2f}")

# %% [markdown]
# ## 6. Something to learn
#
# Now your model learns, from scratch. So that it takes a minute and no accelerator, the data are as
# small as they can be: in the video a dot moves, in the spectrogram a tone; height and pitch each
# follow one of four contours, in noise. Nine questions: which contour has the dot (four), which has
# the tone (four), and **is it the same one?** In half of the clips it is.

# %%
clips, labels = make_clips(np.random.default_rng(0), count=4)
figure, axes = plt.subplots(2, 4, figsize=(8, 3.4), dpi=90, layout="constrained")
for i, (above, below) in enumerate(axes.T):
    above.imshow(np.concatenate(clips.rgb[i, ::2, :, :, 0], axis=1), "gray")  # four of the frames
    below.imshow(clips.spec[i, :, :, 0].T, "magma", origin="lower", aspect="auto")
    seen, heard = np.argmax(labels[i, :4]), np.argmax(labels[i, 4:8])
    above.set(title=f"dot {CONTOURS[seen]}, tone {CONTOURS[heard]}", xticks=[], yticks=[])
    below.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("video")
axes[1, 0].set_ylabel("audio")
plt.close(figure)
figure

# %% [markdown]
# **Predict.** The logits are a mean over the two heads, so without fusion the ninth one is a sum,
# $a(\text{audio}) + v(\text{video})$. Can it be positive exactly where the contours are equal?
# (Take two contours, and a table of 2 x 2.)
#
# <details><summary>Why not</summary>
#
# The two equal pairs have the logits $a_0 + v_0$ and $a_1 + v_1$, the two others $a_0 + v_1$ and
# $a_1 + v_0$. Both pairs of logits have the same sum, so they cannot be all positive here and all
# negative there. With four contours a lucky threshold could still be right in three quarters of the
# clips. But training minimizes cross-entropy, and of all sums a constant has the smallest: the
# model of late fusion learns to say *one half*.
#
# </details>
#
# ## 7. A training step
#
# A loss: cross-entropy of nine yes-or-no questions. `jax.value_and_grad` makes of it a function
# that also returns the gradient, a pytree of the same structure as the parameters. Optax turns
# gradients into updates: a *chain* of transformations, each a pair of functions (`init`, `update`).
# Here the gradient is clipped by its global norm, then AdamW makes the step, whose length follows a
# warm-up and half a cosine.

# %%
STEPS = pick(250, 6)
rate = optax.warmup_cosine_decay_schedule(0.0, 4e-3, warmup_steps=STEPS // 10, decay_steps=STEPS)
tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-4))


def loss(params, model, clips, labels):
    logits = model.apply({"params": params}, clips)
    value = optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1).mean()
    return value, ((logits > 0) == labels).mean(0)  # and the share that is right, by question


@partial(jax.jit, static_argnames="model")
def train_step(model, params, state, clips, labels):
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (value, right), grads = value_and_grad(params, model, clips, labels)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value, right


# %% [markdown]
# That is all. Nothing is changed in place: parameters and optimizer state go in, new ones come out.
# `jax.jit` compiles the whole step at its first call; `static_argnames` says that the model, which
# is settings and no arrays, is part of the program. (In [04](04_training_on_accelerators.ipynb) the
# same step runs on many devices.)

# %%
# exercise: clip_gradient

# %% [markdown]
# The loop, with a plot that is drawn again while it runs:

# %%
SMALL = replace(clf.config, classes=len(QUESTIONS), width=32, mlp_dim=64, fusion_layer=1)
SMALL = replace(SMALL, rgb_shape=(8, 16, 16), rgb_patch=(2, 16, 16))
SMALL = replace(SMALL, spec_shape=(40, 16), spec_patch=(10, 16))
test, truth = make_clips(np.random.default_rng(999), count=pick(1000, 50))


def start(model, seed=0):
    params = jax.jit(model.init)(jax.random.key(seed), test)["params"]
    return params, tx.init(params)


groups = {"dot": slice(0, 4), "tone": slice(4, 8), "same contour": slice(8, 9)}  # of questions
model = MiniMBT(SMALL)
params, state = start(model)
print(f"{sum(x.size for x in jax.tree.leaves(params)):,} parameters")

# %%
figure, ax = plt.subplots(figsize=(7, 2.8), dpi=100, layout="constrained")
live, rows, rng = display(figure, display_id=True), [], np.random.default_rng(0)
for step in range(STEPS):
    clips, labels = make_clips(rng, count=64)  # new clips in each step: nothing to overfit
    params, state, value, right = train_step(model, params, state, clips, labels)
    rows.append(np.asarray(right))
    if (step + 1) % pick(50, 3) == 0:
        means = np.reshape(rows, (-1, pick(10, 3), 9)).mean(1)  # over ten steps
        ax.clear()
        for name, columns in groups.items():
            ax.plot(np.linspace(0, step + 1, len(means)), means[:, columns].mean(1), label=name)
        ax.set(xlabel="step", ylabel="answered rightly", ylim=(0.4, 1.02), xlim=(0, STEPS))
        ax.legend(loc="lower right", frameon=False)
        live.update(figure)
plt.close(figure)

# %% [markdown]
# Which of the three is learned last, and why? How good is the model on clips that it never saw?

# %%
right = loss(params, model, test, truth)[1]
for question, share in zip(QUESTIONS, right, strict=True):
    print(f"{question:13} {share:.3f}")

# %% [markdown]
# ## 8. Ablate it
#
# An *ablation* changes one thing and trains again. First a prediction:

# %%
# exercise: video_knows

# %% [markdown]
# **Predict, then run.** Which of these can answer *same contour*? Four fusion layers of a model
# with four layers, one bottleneck token in place of four, and the sequential update in the last
# layer. Two seeds each, and each a training of its own.

# %%
variants = {f"L_f = {first}": {"fusion_layer": first} for first in (0, 1, 3, 4)}
variants |= {"L_f = 1, B = 1": {"bottlenecks": 1}, "L_f = 3, sequential": {"fusion_layer": 3}}
variants = dict(list(variants.items())[: pick(6, 1)])


def trained(name, seed):
    model = MiniMBT(replace(SMALL, **variants[name]), sequential="sequential" in name)
    (params, state), rng = start(model, seed), np.random.default_rng(seed)
    for _ in range(STEPS):
        params, state, *_ = train_step(model, params, state, *make_clips(rng, count=64))
    return float(loss(params, model, test, truth)[1][8])


scores = {name: [trained(name, seed) for seed in pick((1, 2), (1,))] for name in variants}

# %%
figure, ax = plt.subplots(figsize=(7, 2.8), dpi=100, layout="constrained")
for row, (name, shares) in enumerate(scores.items()):
    print(f"{name:20}", *(f"{share:.2f}" for share in shares))
    ax.plot(shares, [row] * len(shares), "o", color=plot.COLORS["rgb"], mfc="none")
ax.axvline(0.5, color="#999999", ls=":")
ax.set(xlabel="same contour: answered rightly (0.5: guessing)", xlim=(0.2, 1.02))
ax.set_yticks(range(len(scores)), scores)
ax.invert_yaxis()
plt.close(figure)
figure

# %% [markdown]
# Rings are single trainings; two seeds show how far they spread, and are no interval. $L_f = 4$ is
# late fusion, and with the mean update $L_f = 3$ is the same (you predicted it): neither can be
# better than a sum of what each modality says alone. The sequential update lets the video read the
# audio within the layer, so there the last layer does fuse.
#
# ### Challenge: one head more, one encoder less
#
# *(hard, 60 minutes)* Choose one.
#
# - Add the paper's other two ways to fuse to `MiniMBT`: *vanilla self-attention* (from $L_f$ on one
#   encoder runs over the tokens of both modalities) and *vanilla cross-attention* (an encoder each,
#   whose keys and values are all tokens). Check them against the package: `mbt.MBT(replace(
#   clf.config, fusion="joint"))` with parameters of `mbt_lite.model.init_params`. Then put them
#   into the ablation.
# - Find the smallest model that answers *same contour* in 95 of 100 clips with three seeds of
#   three: width, depth, $B$. What breaks first?
# - Where is the answer? Train a linear probe (`optax`, a few lines) on one bottleneck token after
#   each layer: from which layer on can one read from it that the contours are the same?
#
# <details><summary>Where to begin</summary>
#
# 1. The package's `fuse_shared` and `fuse_separate` in `mbt_lite/model/mbt.py` are six lines each.
# 2. `replace(SMALL, width=16, depth=3)`; change one thing at a time, and keep a table.
# 3. `model.apply(..., capture_intermediates=True, mutable=["intermediates"])` returns what every
#    block gave out; the bottleneck tokens are the last $B$ of a fused block's tokens.
#
# </details>
#
# ## In the paper's words
#
# - **Tubelet embedding, CLS, position embedding**: section 1 above; the paper's input projection
#   follows ViT.
# - **Fusion layer $L_f$**: below it *early* layers keep the modalities apart; $L_f = 0$ is *early
#   fusion*, $0 < L_f < L$ *mid fusion*, $L_f = L$ *late fusion*.
# - **Bottleneck (FSN) tokens** $z_{fsn}$: the $B$ tokens of equations (8) and (9), learned, and the
#   only way between the modalities.
# - **Multimodal attention with modality-specific parameters** $\theta_{rgb}$, $\theta_{spec}$: our
#   two blocks in each layer.
# - **Classification**: one linear classifier for both CLS tokens; the logits are averaged.

# %% [markdown]
# **The answer.** About 60 lines: an embedding, attention, a block, a function of six lines that
# lets two blocks share bottleneck tokens, and a loop. Trained weights fit into it, layer by layer,
# and it learns by a loss, a gradient and an Optax chain. What makes it MBT is the function `fuse`:
# without it two models stand side by side, and neither can compare.
#
# Next: [how is such a model trained, here and on
# accelerators?](04_training_on_accelerators.ipynb)
