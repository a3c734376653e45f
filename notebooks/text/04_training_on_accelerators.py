# %% [markdown]
# # Training on accelerators
#
# **The question.** How is such a model trained, here and on accelerators?
#
# At the end you will know
#
# - how one batch is dealt over many devices, and why one and eight train the same model;
# - what the model is shown in training: mixed clips, masked sounds;
# - what a training step is: a function from one state to the next, and nothing else;
# - how to watch a run, stop it, and go on as if nothing had happened;
# - how to say "better" of small numbers without fooling yourself.
#
# You need [03](03_fusion_through_a_bottleneck.ipynb): streams, bottleneck, fusion layer.
# Everything runs on a CPU, with models that are small enough for it. **Nothing is downloaded**;
# section 9 can fetch 24 MB (`mbt-lite build --help`), if you ask for it. With `TRAIN = False` the
# run of section 6 is left out, and the log of a longer run, which lies in the package with its
# weights, takes its place.

# %%
# set-up

# %%
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from IPython.display import display
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from scipy import stats

os.environ["TQDM_DISABLE"] = "1"  # without this line there are bars of progress

import mbt_lite as mbt
from mbt_lite import data, features, paths, plot
from mbt_lite.configs import fusion_grid
from mbt_lite.data import world
from mbt_lite.model import init_params
from mbt_lite.model.flops import model_cost
from mbt_lite.train import (
    augment,
    sharding,
    step,
    sweep,
)
from mbt_lite.train.optimizer import schedule

TRAIN = True  # False: leave the run of section 6 out, and read the log of a longer one
DOWNLOAD = False  # True: fetch the digits of section 9, 24 MB, and write 330 MB
FOLDER = Path(tempfile.mkdtemp())  # runs come here; name a folder of yours to keep them
GRID = Path(mbt.__file__).parent / "weights" / "grid"  # logs and weights of longer runs
paths.keep_compilations(paths.cache_folder() / "compiled")  # so that the next start is quicker

# %% [markdown]
# ## 1. One batch, many devices
#
# To JAX a GPU, a TPU core and a CPU are all *devices*. A *mesh* is those devices put into rows
# and columns, whose axes have names. A *sharding* says which part of an array lies on which
# device of a mesh. That is all one needs to train on many: the batch is cut along its first axis,
# and every device gets some rows. What have you got?

# %%
mesh = sharding.make_mesh()
print(dict(mesh.shape), "of", jax.devices()[0].device_kind)
rows = jax.device_put(
    np.zeros((32, 12)), sharding.batch_sharding(mesh)
)  # 32 clips, 12 numbers each
jax.debug.visualize_array_sharding(rows, use_color=False)

# %% [markdown]
# With one device this is a dull picture. But JAX can pretend that a CPU is eight devices, if it
# is told so before it starts. This kernel has started already; so a small program of its own
# shows it. It draws where the batch lies, where a weight lies, and takes a gradient, once on all
# eight devices and once on one.

# %%
script = FOLDER / "eight.py"
script.write_text("""
import os
os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
import jax
from mbt_lite.train.sharding import batch_sharding, make_mesh, sharded
mesh = make_mesh(shards=2)
clips, weight = jax.random.normal(jax.random.key(0), (32, 48)), jax.numpy.ones((48, 96)) / 48
batch, cut = jax.device_put((clips, weight), (batch_sharding(mesh), sharded(mesh, weight)))
for name, x in {"batch": batch, "weight, cut in two": cut}.items():
    print(name, x.shape)
    jax.debug.visualize_array_sharding(x, use_color=False)
pull = jax.jit(jax.grad(lambda w, x: ((x @ w) ** 2).mean()))
many, one = pull(cut, batch), pull(weight, clips)
print(f"the gradients differ by {abs(many - one).max() / abs(one).max():.0e} of the largest")
""")
print(subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout)

# %% [markdown]
# Notice three things. The batch of 32 lies in eight parts of four. The weight is cut in two halves,
# and each half lies on four devices: `shards=2` puts the eight into four rows of two, the batch is
# dealt over all eight, and a weight is cut between the two columns. (`--train.shards 2` does that
# when a model is too large for one device; otherwise all devices hold all weights.) And the
# function that takes the gradient knows nothing of devices: `jax.jit` compiles it for wherever its
# arguments lie, and fetches from the others what a device lacks. The two gradients are the same, up
# to rounding.
#
# One trap is left: a mean over devices that do not hold equally many clips.

# %%
# exercise: mean_over_devices

# %% [markdown]
# ## 2. What is learned, from what, and how
#
# A run is described by one tree of settings that cannot be changed, only copied with changes
# (`dataclasses.replace`). We take the small model of the package's grid (four layers, fusion from
# layer 1 through four bottleneck tokens), and give it less to do, so that you need not wait. It
# learns the micro-world from scratch: 31 classes, and 8 helper labels, such as *ring seen* and
# *something rises*, which only training asks for and which are cut off at the end. Its pictures are
# smaller than before, 36 x 36, and its spectrograms have 64 mel bins.

# %%
plan = fusion_grid.grid()["fusion"]["bottleneck"]
scratch = replace(plan.start, model=None, rewire=False)  # not from another model's weights
plan = replace(plan, name="mine", start=scratch)
few = {"clips": pick(2048, 64), "cache_dir": str(FOLDER / "clips"), "views": 1}
plan = replace(plan, data=replace(plan.data, **few))
steps, every = pick(240, 10), pick(10, 5)
times = {"steps": steps, "log_every": every, "evaluate_every": pick(40, 5), "save_every": steps}
scored = {"evaluate_clips": pick(200, 16), "test_clips": pick(200, 16)}
how = {"batch": 16, "learning_rate": 3e-3, "warmup": 0.1, "ema": 0.9}
plan = replace(plan, train=replace(plan.train, **times, **scored, **how))
print(
    f"{model_cost(plan.model).parameters:,} parameters, {steps} steps of {plan.train.batch} clips"
)

# %% [markdown]
# A *loader* makes batches. Its order depends on the seed alone, so a run can go on anywhere. The
# clips of the micro-world are made when they are first asked for, and kept.

# %%
source = data.open_split(plan.data, "train", clips=few["clips"])
with data.make_loader(plan, source, training=True) as loader:
    batch = next(loader)
names = batch.pop("id")
for name, array in batch.items():
    print(f"{name:7} {array.dtype!s:8} {array.shape}")

# %% [markdown]
# (`mask` is 0 for rows that only fill the last batch up; `extent` is the height and width of each
# picture, as a batch can hold pictures of several sizes.)


# %%
def answers(clf, batch, names):
    clip = features.normalize(batch["rgb"], batch["spec"], clf.clip_config.front_end)
    chances, shown = clf.probabilities(clf.logits(clip)), []  # [16, 31]
    for i in range(4):
        truth = [label for label, y in zip(world.LABELS, batch["labels"][i], strict=False) if y]
        best = [(world.LABELS[c], float(chances[i, c])) for c in np.argsort(-chances[i])[:3]]
        shown.append(plot.Sample(names[i], batch["rgb"][i, 4], truth, best))
    return plot.samples(shown)


clf = mbt.load(GRID / "grid-bottleneck.safetensors")  # a longer run of the same model
front = clf.clip_config.front_end
answers(clf, batch, names)

# %% [markdown]
# Above each frame: up to three true labels, and behind the arrows what a model says that was
# trained on such clips for longer; a tick means that it is true. Notice that pictures are rough, as
# cameras make them, and that now and then a whole sense is missing: a black picture, or silence. A
# model that is to answer with one sense has to meet that in training.

# %% [markdown]
# ## 3. Make it harder: mixup and SpecAugment
#
# Large models on small data overfit. Two remedies, both done on the accelerator,
# inside the step. **Mixup**: each clip is blended with a partner, and so are their labels.
# **SpecAugment**: bands of time and of pitch are wiped out of the spectrogram. JAX has no hidden
# random numbers: a *key* is handed in, and the same key draws the same.

# %%
changes = replace(plan.augment, time_masks=1, time_mask=60, mel_masks=1, mel_mask=16)
weight = 0.7
prepared = jax.jit(lambda batch, key: augment.augment(batch, key, plan.augment, plan.clip))
still = prepared(batch, jax.random.key(0))
shares = {stream: jnp.array([weight]) for stream in ("rgb", "spec")}
mixed = augment.mix(still, shares)
masked = augment.spec_augment(still["spec"], jax.random.key(3), changes)

by_hand = weight * still["rgb"] + (1 - weight) * still["rgb"][::-1]  # partner: from the other end
np.testing.assert_allclose(by_hand, mixed["rgb"], atol=1e-6)

# %%
bright = batch["rgb"].mean((1, 2, 3, 4))
i = int(np.argmax(np.minimum(bright, bright[::-1])))  # both the clip and its partner have a picture
figure, axes = plt.subplots(2, 3, figsize=(9, 4.6), dpi=100, layout="constrained")
columns = {"as it is": (still["rgb"], still["spec"]), "SpecAugment": (still["rgb"], masked)}
columns["mixup, 70 % and 30 %"] = (mixed["rgb"], mixed["spec"])
for (above, below), (title, (rgb, spec)) in zip(axes.T, columns.items(), strict=True):
    above.imshow((rgb[i, 4] + 1) / 2)
    above.set(title=title, xticks=[], yticks=[])
    plot.spectrogram(spec[i], front, ax=below, colorbar=False)
plt.close(figure)
display(figure)

# %% [markdown]
# Notice that a masked band has one plain color: it is set to 0, the mean of all spectrograms. And
# in the mixture you see the shapes of two clips and hear both. There are two recipes. The paper's:
# weights from Beta(0.3, 0.3), which are mostly near 0 or 1, masks of up to 192 frames and 48 mel
# bins. The released configuration's: Beta(0.5, 0.5), and a mask over mel bins alone. In *modality
# mixup* picture and sound draw weights of their own.

# %%
# exercise: mix_clips

# %% [markdown]
# ## 4. A step is a function
#
# In JAX nothing is changed in place. A training step takes a *state* (weights, momentum, a running
# mean of the weights, key, number of the step) and a batch, and returns a new state. (The running
# mean, *EMA*, is what answers in the end.) Nothing is hidden, so the same state and batch give the
# same result, bit by bit. First the loss by hand: each stream answers by itself, and for every
# class there is a yes-or-no question.

# %%
labels = tuple(source.labels)
state = step.first_state(plan, mesh)
clip = step.as_clip(still, plan.model)
output = jax.jit(mbt.MBT(plan.model).apply)({"params": state.params}, clip)
x = jnp.stack(list(output.stream_logits.values()))  # [2 streams, B, C]
yes, no = jnp.log1p(jnp.exp(-x)), jnp.log1p(jnp.exp(x))  # -log p and -log(1 - p)
y = batch["labels"]
by_hand = (y * yes + (1 - y) * no).sum(-1).mean()  # classes are summed, streams and clips averaged

do = step.train_step(plan, labels, mesh)  # compiled at its first use
placed = sharding.shard_batch(mesh, batch)  # the batch, dealt over the mesh
after, said = do(state, placed)
np.testing.assert_allclose(by_hand, said["loss"], rtol=1e-5)
print({name: round(float(value), 3) for name, value in said.items()})

# %% [markdown]
# Notice the loss: 39 questions, all answered with fifty-fifty, cost 39 ln 2 = 27.03 *nats*, the
# unit of natural logarithms (bits would be those to base 2). The model knows nothing yet. Its head
# starts with zeros; so at first only the head is pulled, and the gradients of the streams' own
# weights are 0. Notice `learning_rate: 0.0`, too: a warm-up begins at nothing. And the old state is
# gone: the step was told that it may use its memory (*donation*), so that weights and momentum need
# not be there twice.

# %%
print("old weights deleted:", jax.tree.leaves(state.params)[0].is_deleted())
again, _ = do(step.first_state(plan, mesh), placed)
same = jax.tree.map(np.array_equal, jax.device_get(after), jax.device_get(again))
print("same state, same batch, same result in every bit:", all(jax.tree.leaves(same)))

# %% [markdown]
# ### The same in 40 lines
#
# What is in `step.train_step`? Here is one that you could have written (03b did): a loss, Optax,
# and `jax.value_and_grad`. No line of it knows of devices.


# %%
rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, warmup_steps=24, decay_steps=240)
tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))


def loss(params, clip, labels):
    output = mbt.MBT(plan.model).apply({"params": params}, clip)
    logits = jnp.stack(list(output.stream_logits.values()))  # [2 streams, B, C]
    return optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1).mean()


@jax.jit
def visible_step(params, opt_state, clip, labels):
    value, grads = jax.value_and_grad(loss)(params, clip, labels)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


# %% [markdown]
# Where it runs follows from where its arguments lie. A *mesh* gives the devices' axis a name, and a
# `NamedSharding` says which axis of an array is cut along it: `P("data")` cuts the first axis,
# `P()` cuts none, so that every device holds a copy. That is *data parallelism*: the batch is
# sharded, the parameters are replicated, and XLA adds the gradients up over the devices.

# %%
kind = jax.sharding.AxisType.Auto  # XLA decides how results are sharded
devices = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(kind,))
copied, cut = NamedSharding(devices, P()), NamedSharding(devices, P("data"))
weights = jax.device_put(init_params(plan.model, jax.random.key(0)), copied)
opt_state = jax.device_put(tx.init(weights), copied)
inputs = jax.device_put((clip, jnp.asarray(y)), cut)
values = []
for _ in range(pick(20, 3)):
    weights, opt_state, value = visible_step(weights, opt_state, *inputs)
    values.append(float(value))
np.testing.assert_allclose(values[0], by_hand, rtol=1e-5)  # the head starts with zeros
print("loss, step by step:", np.round(values, 2))

# %% [markdown]
# **Fully sharded data parallelism** (FSDP) is one changed spec: cut the parameters as well, where
# their first axis can be divided, and nothing else changes. Each device then keeps a part of the
# weights and of the optimizer's state, and fetches the others' when a layer needs them. (On one
# device all specs are the same.)


# %%
def fsdp(x):
    divides = x.ndim > 1 and x.shape[0] % devices.size == 0
    return NamedSharding(devices, P("data") if divides else P())


parts = jax.tree.map(lambda x: jax.device_put(x, fsdp(x)), weights)
_, _, same = visible_step(parts, tx.init(parts), *inputs)
print(
    "specs of one block:", jax.tree.map(lambda x: x.sharding.spec, parts["rgb_block_0"]["mlp_in"])
)

# %% [markdown]
# This is the whole training loop: call the function, keep what comes back. Before one trains for
# hours, one asks a simple thing: can the model learn *one* batch by heart? If not, something is
# broken, and more data will not mend it.

# %%
rows, state = [], again
for number in range(pick(150, 4)):
    state, said = do(state, placed)
    rows.append({"step": number} | {name: float(said[name]) for name in ("loss_rgb", "loss_spec")})
colors = {"loss_rgb": plot.COLORS["rgb"], "loss_spec": plot.COLORS["spec"]}
ax = plot.curves(rows, list(colors), title="the same 16 clips, again and again", colors=colors)
ax.lines[2].set(linestyle="--")  # where the lines cover each other, both are seen
ax.set(ylabel="loss (nats a clip)", ylim=(0, None))
ax.legend(loc="upper right", frameon=False)
ax.figure

# %% [markdown]
# Notice that both streams come to nearly 0: the sound's own answer, too, names the shapes that
# only the picture shows. It may have learned these clips by heart, or be told through the
# bottleneck; this curve cannot say which, and it says nothing about other clips. It only says
# that gradients reach every part.

# %% [markdown]
# We compared numbers, so the set-up cell has asked for *full precision*. A CPU multiplies float32
# as it is. A TPU rounds the factors to bfloat16 first, and newer NVIDIA GPUs (L4, A100) to TF32,
# which keeps 10 of the 23 bits of fraction, unless they are told otherwise. What does it cost here?

# %%
left, right = jax.random.normal(jax.random.key(0), (2, 512, 512))
exact = np.asarray(left, "f8") @ np.asarray(right, "f8")
for precision in ("highest", "default"):
    with jax.default_matmul_precision(precision):
        speed, error = sharding.peak_flops(), abs(left @ right - exact).max()
    print(f"{precision:8} {speed / 1e9:8,.0f} GFLOP/s, largest error {error:.0e}")
jax.config.update("jax_default_matmul_precision", None)  # from here on as the device likes

# %% [markdown]
# On a CPU the two errors are the same, and the speeds differ by chance alone: there is nothing to
# gain. On an accelerator the second row has the larger error, and may be several times as fast.
# Training bears that rounding, so we have turned full precision off for what follows.

# %% [markdown]
# ## 5. How fast to learn
#
# The size of a step, the learning rate, follows a plan: up from 0 during the warm-up, when
# gradients are large and noisy, then down along half a cosine, so that the weights come to rest.
# Write it; the next cell draws the plan of our run.

# %%
# exercise: learning_rate

# %%
across = np.arange(steps)
rate = np.asarray(schedule(plan.train)(across))
rows = [{"step": int(s), "learning rate": float(r)} for s, r in enumerate(rate)]
plot.curves(rows, ["learning rate"], title="warm-up, then half a cosine").figure

# %% [markdown]
# ## 6. Stop it, and go on
#
# `mbt.fit` is that loop with everything around it: a loader, scores on clips that are never trained
# on, saved states, curves. The micro-world has five scores. *mAP*, mean average precision, is 1
# where for every label all clips that have it stand before all that have not. `mAP seen` is over
# the labels that only the picture tells, `heard` over those that only the sound tells, `both` over
# those that either tells (it does not mean both streams), and `matched` over the four singers,
# which need picture and sound together. `matched accuracy` takes the clips in which a shape sings:
# in what share of them is the singer the likeliest of the four?
#
# Machines are taken away, notebooks are stopped. So we stop this run half-way, just as the stop
# button of the notebook does, by sending the signal of Ctrl-C. `live` is called with the rows so
# far whenever there is a new one.


# %%
def impatient(rows):
    if rows[-1]["step"] >= steps // 2:
        signal.raise_signal(signal.SIGINT)  # what the stop button sends


if TRAIN:
    run = mbt.fit(plan, FOLDER / "run", live=impatient, quiet=True)
    print("finished:", run.finished, "| last step:", run.records[-1]["step"])
    print("saved:", [path.name for path in (run.folder / "state").iterdir()])

# %% [markdown]
# The step under way was brought to its end, the state was saved, and `fit` came back. (It keeps the
# newest state, and the one with the best score.) Now the very same call, with the same folder. It
# finds what is there and goes on. This time we let it draw: the curves move while it trains.

# %%
logged = [json.loads(line) for line in (GRID / "logs.jsonl").open()]  # of the longer runs
records = [row for row in logged if row["run"] == "grid-bottleneck" and row["seed"] == 0]
if TRAIN:
    run = mbt.fit(plan, FOLDER / "run", quiet=True)
    records = run.records
    print("finished:", run.finished, "| last step:", records[-1]["step"])
else:
    display(plot.training(records))
print(plot.curves_alt(records, ["loss", "mAP both", "mAP matched"]))

# %% [markdown]
# Notice that the curves have no seam at the middle: weights, momentum, averages, random keys and
# the place in the data were saved together. (The tests of the package kill a run twenty times and
# demand the same bits as without; docs/training.md.) Notice also what comes first in the middle
# panel: of the classes that *either* sense tells (siren, thunder, rain; `mAP both`) the model
# learns something soon. Who sings (`matched`) needs both senses together, and a few seconds do not
# teach it.

# %%
if TRAIN:
    unseen = data.open_split(plan.data, "validation")
    with data.make_loader(plan, unseen, training=False) as loader:
        other = next(loader)
    print("what our own run says about clips that were never trained on")
    display(answers(run.classifier, other, other["id"]))

# %% [markdown]
# Notice that nothing is certain yet: no label has got much more than one half. This run is a toy;
# section 8 has longer ones.
#
# ## 7. What an accelerator is for
#
# How much work is it? A step costs about three forward passes: one forward, two for the gradient.
# Let us count one run of the paper's size, AudioSet mini: 20,361 clips (released configuration),
# 50 epochs (paper). And let us measure what this machine does in large matrix products, and what
# our run reached.

# %%
work = 3 * model_cost(mbt.BASE).flops * 20_361 * 50
peak = sharding.peak_flops()
clips_per_s = np.median([row["clips_per_s"] for row in records if "clips_per_s" in row])
reached = clips_per_s * 3 * model_cost(plan.model).flops
print(f"this machine: {peak / 1e9:,.0f} GFLOP/s in matrix products; our run {reached / 1e9:,.1f}")
print(f"the paper's run: {work:.1e} operations")
print(f"at the speed of our run it would take {work / reached / 86_400:,.0f} days here,")
print(f"at that of large matrix products {work / peak / 86_400:,.0f};")
print(f"to do it in one day, {work / 86_400 / 1e12:.0f} TFLOP/s are needed, sustained")

# %% [markdown]
# Why does our run not reach what this machine can do? Its matrices are small, 48 and 96 wide, and
# do not fill a processor; the other number was measured with large ones.
#
# Accelerators reach such speeds in low precision. **bfloat16** has the range of float32 (the
# same 8 bits of exponent) and much less precision: 7 bits of fraction in place of 23. Weights,
# momentum and losses stay in float32; only what is multiplied is short. `replace(model,
# dtype="bfloat16")` is all. Whether it is fast depends on the device: a TPU and newer NVIDIA GPUs
# (A100, L4 and later) have units for it, Colab's T4 has not.

# %%
print("float32  1 + 1/1000 =", jnp.float32(1) + jnp.float32(0.001))
print("bfloat16 1 + 1/1000 =", jnp.bfloat16(1) + jnp.bfloat16(0.001))
print("largest:", f"{jnp.finfo('float32').max:.1e}", f"{float(jnp.finfo('bfloat16').max):.1e}")

eaten = features.normalize(batch["rgb"], batch["spec"], front)
full = clf.logits(eaten)
short = replace(clf.config, dtype="bfloat16")
quick = mbt.Classifier(short, clf.params, clf.clip_config, clf.labels).logits(eaten)
order = (np.argmax(full, 1) == np.argmax(quick, 1)).mean()
print(f"logits {full.min():.0f} to {full.max():.0f}, largest change {abs(full - quick).max():.2f}")
print(f"the same best class in {order:.0%} of {len(full)} clips")

# %% [markdown]
# Notice that adding a thousandth to 1 is lost in bfloat16. That is why weights are not kept so:
# their steps are often smaller than that. On a CPU short numbers need not be faster; we claim no
# speed of an accelerator, since none was measured for this package. What it takes to use one:
# `pip install -U "jax[cuda12]"` for an NVIDIA GPU (README), and the same cells again.

# %% [markdown]
# ## 8. Sound, picture, both: is the difference real?
#
# Now the longer runs. Each of these small models went on for 1,200 steps from one start whose
# streams never met, with two or three seeds (docs/training.md). The question to all of them: which
# of the shapes sings? Their scores on 1,000 test clips lie in a table.

# %%
table = list(csv.DictReader((GRID / "sweep.csv").open()))
outcomes = []
for row in table:
    values = tuple(float(value) for value in row["seeds"].split())
    cost = (int(row["parameters"]), float(row["gflops"]))
    if row["group"] != "bottlenecks":  # those are in 03
        outcomes.append(sweep.Outcome(row["group"], row["variant"], *cost, values))
figure = plot.sweep(outcomes, "matched accuracy")
figure.axes[0].set(ylim=(0, 1.35), yticks=np.arange(0, 1.1, 0.2))
for ax in figure.axes:
    ax.axhline(1, color="#999999", lw=1, ls=":")
figure

# %%
for one in outcomes:
    reached = f"{one.mean:.3f} ± {one.half:.3f}"
    print(f"{one.group:14} {one.variant:16} {reached}  seeds", *(f"{x:.3f}" for x in one.values))

# %% [markdown]
# A dot is a mean over seeds, a ring is one seed, a bar is the 95 % interval of the mean. Seeds
# differ in the clips that are drawn and in what starts at random. Notice the intervals of *two*
# seeds. Most are wide, that of layer 2 so wide (± 0.50) that it goes beyond 1, where no share can
# be; and where two seeds happen to agree, as with modality mixup, it is narrow without reason. Two
# are too few either way. Write it:

# %%
# exercise: half_interval

# %%
print("Student's quantile for 2, 3 and 10 seeds:", *stats.t.ppf(0.975, [1, 2, 9]).round(1))
sung = [one for number in range(2000) if (one := world.scene(2, number)).singer is not None]
chance = np.mean([1 / len(one.things) for one in sung])
print(f"guessing: {chance:.2f} by the picture (one of the shapes in it), 0.25 by the sound")

# %% [markdown]
# Notice: audio only and video only are where guessing is. *Late* fusion, which has both but
# lets them meet only in the answer, does no better than the picture. What compares the two in
# time does; there the intervals do not touch. Whether `joint` and `cross` are better than the
# bottleneck, three seeds do not settle: all three of its seeds lie below all of theirs, but its bar
# reaches over both means.
#
# The third panel is a warning. Mixup and *stochastic depth* (whole blocks are skipped at random)
# are remedies for small data. Here modality mixup and stochastic depth *hurt*: their bars, and
# every seed, lie below those of `none`. With mixup the mean is lower, too, but two seeds leave that
# open. These runs had 65,536 clips, each of which is seen less than three times (docs/training.md):
# there is little that could be learned by heart.
#
# So one looks at how they got there, first those that differ in their fusion:

# %%
colors = {"audio": plot.COLORS["spec"], "video": plot.COLORS["rgb"], "late": "#999999"}
colors |= {"joint": "#33363d", "cross": "#009e73", "bottleneck": "#cc79a7"}  # as in 03
shown = {}
for row in logged:
    key = row["run"].removeprefix("grid-")
    if key in colors and "matched accuracy" in row:
        shown.setdefault(row["step"], {}).setdefault(key, []).append(row["matched accuracy"])
means = [{"step": s} | {k: float(np.mean(v)) for k, v in one.items()} for s, one in shown.items()]
ax = plot.curves(means, list(colors), title="mean over seeds", colors=colors)
ax.set(ylabel="matched accuracy (validation)", ylim=(0, 1))
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
ax.figure

# %% [markdown]
# Notice that after 200 steps all that have the picture look alike. Had we stopped there, as our own
# toy run did at 240, we would have "found" that fusion buys nothing. And the bottleneck still rises
# at the end: "after 1,200 steps" is part of the result.
#
# The weights of these runs are there as well. What do they say if you ask them yourself?

# %%
count, found = pick(300, 30), {}
for name in pick(("audio", "video", "late", "bottleneck"), ("video", "bottleneck")):
    model = mbt.load(GRID / f"grid-{name}.safetensors")
    scores = mbt.evaluate(model, "world:test", count=count, quiet=True)
    first = next(scores[c] for c in ("both", "audio only", "video only") if c in scores)
    found[name] = first["matched accuracy"]
    error = 1.96 * np.sqrt(found[name] * (1 - found[name]) / (0.8 * count))  # 80 % have a singer
    print(f"{name:11} {found[name]:.2f} ± {error:.2f}, one seed, {count} clips")

# %% [markdown]
# This ± is another one: the luck of the clips, for one model. The bars above are the luck of the
# seeds. Say which one you mean.

# %% [markdown]
# ## 9. Digits, seen and heard (with a network)
#
# The micro-world is ours. The same loop learns from published data: handwritten digits (MNIST)
# paired with spoken ones (Free Spoken Digit Dataset), both in so much noise that each alone is
# hard. With `DOWNLOAD = True` above, the next cell fetches and pairs them by TFDS, a library of
# datasets, without TensorFlow, and trains a little: a taste, off by default because it downloads
# 24 MB. The whole training takes 20 minutes: `mbt-lite train --config av_digits`.

# %%
if DOWNLOAD:
    from mbt_lite.data.tfds import AvDigits

    builder = AvDigits(data_dir=FOLDER / "tfds", config="noisy")
    builder.download_and_prepare()
    digits = mbt.configs.av_digits.experiment()
    place = {"path": str(builder.data_dir), "cache_dir": str(FOLDER / "digits")}
    train = replace(digits.train, steps=pick(300, 4), evaluate_every=100, log_every=pick(20, 1))
    digits = replace(digits, data=replace(digits.data, **place), train=train)
    print(mbt.fit(digits, FOLDER / "digits_run", quiet=True).records[-1])
else:
    print("left out: 24 MB to download, 330 MB to write; set DOWNLOAD = True at the top")

# %% [markdown]
# **The answer.** A step is a pure function from state and batch to the next state, compiled once
# for whatever devices there are. The batch is dealt over them, and the mean is taken over all its
# clips, so their number changes the time and not the model. Around it stands little: a plan of
# the learning rate, mixed and masked clips, states that are saved whole. And of the result one
# says how many seeds, how many clips, and after how many steps.
#
# Next: [what does the bottleneck look at, and can one believe
# it?](05_what_the_bottleneck_sees.ipynb)
