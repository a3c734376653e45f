# %% [markdown]
# # From video to tensors
#
# **The question.** What does a model see and hear?
#
# At the end you will know
#
# - how a sound becomes a picture: frames, window, Fourier transform, mel filters, logarithm;
# - which of the many settings on the way matter to a trained model, and which hardly do;
# - which frames of a video the model gets, and what is cut off from each;
# - how to tell that a file is not fit for it, before you believe an answer.
#
# You need Python and NumPy; [00](00_first_look.ipynb) is a good start. Nothing is downloaded.

# %%
# set-up

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import librosa
import matplotlib.pyplot as plt
import numpy as np
from course import samples
from IPython.display import Video
from matplotlib.backends.backend_agg import FigureCanvasAgg

import mbt_lite as mbt
from mbt_lite import features, media, plot
from mbt_lite.data import doctor
from mbt_lite.explain import html, widgets

clip_path = samples() / "ring_sings_with_bell.mp4"
clf = mbt.load("world-tiny")
front = clf.clip_config.front_end  # how this model wants its sound

# %% [markdown]
# ## 1. A file is a picture and a sound, on one clock
#
# A video file holds two streams: pictures, each with the time when it is shown, and a wave, which
# is the pressure of the air, so many samples a second. `media.read` puts both on one clock.

# %%
found = media.read(clip_path)
print("frames", found.frames.shape, "= how many, height, width, colors")
print("wave  ", found.wave.shape, f"= samples, {found.rate:,} a second, for {found.duration} s")

figure, axes = plt.subplots(1, 2, figsize=(8, 2), dpi=100, layout="constrained", sharey=True)
axes[0].plot(np.arange(len(found.wave)) / found.rate, found.wave, lw=0.3, color="#d55e00")
axes[0].set(xlabel="time (s)", ylabel="pressure", title="the whole wave")
part = slice(9600, 10000)  # 25 ms
axes[1].plot(np.arange(400) / 16, found.wave[part], color="#d55e00")
axes[1].set(xlabel="time (ms), from 0.6 s on", title="25 ms of it")
plt.close(figure)  # so that it is shown once
figure

# %% [markdown]
# Notice that you cannot read a pitch off the left picture, and only with patience off the right
# one. The ear does not hear samples; it hears how fast the air swings, and how that changes.
#
# ## 2. Frames, window, Fourier transform
#
# So we look at one short piece at a time. In sound it is called a *frame*, too, and has nothing to
# do with the frames of the picture. A frame that begins and ends abruptly would sound like a click,
# so its ends are faded by a *window*. The Fourier transform then says how strong each frequency is
# in it.

# %%
size, hop = front.window_samples, front.hop_samples
window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(size) / size)  # Hamming's
np.testing.assert_allclose(window, features.window_fn(front), atol=1e-6)

bare, tapered = found.wave[part], found.wave[part] * window
figure, ax = plt.subplots(figsize=(8, 2.3), dpi=100, layout="constrained")
hertz = np.fft.rfftfreq(front.fft, 1 / front.rate)
for frame, name, color in ((bare, "cut off", "#56b4e9"), (tapered, "faded", "#d55e00")):
    loudness = 20 * np.log10(np.abs(np.fft.rfft(frame, front.fft)) + 1e-3)
    ax.plot(hertz, loudness, label=name, color=color, lw=1.2)
ax.set(xlabel="frequency (Hz)", ylabel="loudness (dB)", xlim=(0, 4000))
ax.legend()
plt.close(figure)
figure

# %% [markdown]
# Notice the peaks: the pitch near 950 Hz, with overtones at about two, three and four times that,
# and the bell at about 1,250, 1,900 and 3,300 (near 1,900 it meets an overtone). And notice how
# much deeper the valleys between them are once the frame is faded.
#
# That was one frame. Its 400 samples are filled up with zeros to 1,024, and the transform of 1,024
# real numbers has 1024 / 2 + 1 = 513 frequencies, 15.6 Hz apart. A frame begins every 10 ms, so
# frames overlap. The last ones go on with silence.

# %%
padded = np.append(found.wave, np.zeros(size, np.float32))
starts = np.arange(0, len(found.wave), hop)
frames = np.stack([padded[start : start + size] for start in starts]) * window
magnitudes = np.abs(np.fft.rfft(frames, front.fft))
print("frames", frames.shape, "-> magnitudes", magnitudes.shape, "= time, frequency")

# %%
# exercise: cut_into_frames

# %% [markdown]
# ## 3. Mel: as many bins as the ear cares for
#
# From 200 to 400 Hz is an octave, from 4,000 to 4,200 Hz next to nothing. The *mel* scale is made
# so that equal steps sound about equally large: $f$ hertz are $2595 \log_{10}(1 + f / 700)$ mel.
# Each of 128 triangular filters, evenly spaced in mel, gathers the frequencies around its own.

# %%
mel = np.linspace(*(2595 * np.log10(1 + np.array([front.low, front.high]) / 700)), front.mels + 2)
edges = 700 * (10 ** (mel / 2595) - 1)  # back to hertz
low, middle, high = edges[:-2], edges[1:-1], edges[2:]
rise, fall = (hertz[:, None] - low) / (middle - low), (high - hertz[:, None]) / (high - middle)
filters = np.maximum(0, np.minimum(rise, fall))  # [frequencies, mels]
np.testing.assert_allclose(filters, features.mel_filters(front), atol=1e-5)

figure, ax = plt.subplots(figsize=(8, 2), dpi=100, layout="constrained")
ax.plot(hertz, filters[:, ::12], lw=1)
ax.set(xlabel="frequency (Hz)", ylabel="weight", title="every 12th mel filter")
plt.close(figure)
figure

# %% [markdown]
# Notice that the filters get wider upwards: much detail where melodies are, little where it hisses.
# (The lowest triangles look clumsy: they are hardly wider than the step from one frequency of the
# Fourier transform to the next. We come back to that.)
#
# ## 4. The logarithm
#
# Twice the pressure is not twice as loud; the ear hears ratios. A logarithm turns ratios into
# differences. A small offset goes first, so that silence is not minus infinity.

# %%
by_hand = np.log(magnitudes @ filters + front.offset)
np.testing.assert_allclose(by_hand, features.log_mel(found.wave, front), atol=1e-3)

figure, axes = plt.subplots(1, 2, figsize=(8.6, 2.8), dpi=100, layout="constrained")
plot.spectrogram(magnitudes @ filters, front, axes[0], "without logarithm", colorbar=False)
plot.spectrogram(by_hand, front, axes[1], "log-mel", colorbar=False)
plt.close(figure)
figure

# %% [markdown]
# Notice that both come from the same numbers, and that without the logarithm only what is loud can
# be seen: the bell's lines seem to end after about a second, and there is no noise. On the right
# the bell rings to the end.
#
# Now look while you listen: a cursor runs over the spectrogram while the clip plays. Try to hear
# each line that you see.

# %%
figure = plot.spectrogram(by_hand, front, colorbar=False).figure
figure.set(dpi=100, size_inches=(6.4, 2.56))
canvas, ax = FigureCanvasAgg(figure), figure.axes[0]
canvas.draw()
still = np.array(canvas.buffer_rgba())[..., :3]
shots, (top, bottom) = np.repeat(still[None], len(found.times), 0), (8, 256 - 48)
for shot, time in zip(shots, found.times, strict=True):
    x = round(ax.transData.transform((time, 0))[0])
    shot[top:bottom, x : x + 2] = 255

folder = Path(tempfile.mkdtemp())
media.write(folder / "cursor.mp4", np.concatenate([found.frames, shots], 2), 25, found.wave, crf=26)
about = "controls aria-label='the clip, with a cursor on its spectrogram'"
Video(folder / "cursor.mp4", embed=True, width=820, html_attributes=about)

# %% [markdown]
# The package computes the same on an accelerator: `features.log_mels` is written in JAX, and takes
# many waves at a time. (JAX is a NumPy that also runs on GPUs and TPUs. Its `jax.jit` turns a
# function into a program for the device at hand, here the CPU, and does so again when an input has
# a new shape.)

# %%
many = features.log_mels(np.stack([found.wave, found.wave[::-1]]), front)
np.testing.assert_allclose(many[0], by_hand, atol=1e-2)
print("two waves at once:", many.shape, "on", many.devices())

# %%
# exercise: to_log_mel

# %% [markdown]
# ## 5. There is more than one log-mel
#
# `librosa` is what many people use. Does it hear the same? It puts a window of 400 samples in the
# middle of its 1,024, so we have to begin 312 samples earlier; and it must be told about every
# other choice. Then we let it have its own way, one choice at a time.

# %%
ours = {"htk": True, "norm": None, "power": 1, "window": "hamming", "center": False}
theirs = {"told everything": {}, "frames around k * hop": {"center": True}}
theirs |= {"Hann's window": {"window": "hann"}, "another mel scale": {"htk": False}}
theirs |= {"power, not magnitude": {"power": 2}, "filters of equal area": {"norm": "slaney"}}
shape = {"sr": 16000, "n_fft": 1024, "hop_length": hop, "win_length": size, "n_mels": 128}
early = np.pad(found.wave, ((1024 - size) // 2, 1024))
for name, other in theirs.items():
    wave = found.wave if "center" in other else early
    heard = librosa.feature.melspectrogram(y=wave, fmin=60, fmax=7800, **shape, **(ours | other))
    apart = np.abs(np.log(heard.T[: len(by_hand)] + front.offset) - by_hand)
    print(f"{name:22} mean difference {apart.mean():8.2g}, largest {apart.max():8.2g}")
print(f"(our spectrogram goes from {by_hand.min():.1f} to {by_hand.max():.1f})")

# %% [markdown]
# Notice the first row: told everything, librosa hears the same. Each of the other rows is also
# called "a log-mel spectrogram"; and a difference of 0.7 is a factor of two. `htk=False` is another
# mel scale (straight below 1 kHz), `norm="slaney"` divides each filter by its width. And mel comes
# before time there, hence the `.T`.
#
# And what of tiny differences? Our window by hand is in float64, with 16 digits, the package
# computes in float32, with 7. Where is the rounding seen?

# %%
rounding = np.abs(features.log_mel(found.wave, front) - by_hand)
loud = by_hand > np.median(by_hand)
for half, where in {"louder": loud, "quieter": ~loud}.items():
    print(f"the {half} half: up to {rounding[where].max():.1g}")

# %% [markdown]
# Notice that it is the quiet half, and why: near zero a logarithm is steep, so it magnifies what is
# small. That is also why tests of spectrograms allow a little.
#
# ## 6. A laboratory: which of it matters?
#
# Here the settings can be turned. Above is the spectrogram, below what the model answers with it,
# beside what it answers with its own settings. The model was trained with one shape of spectrogram;
# with another one it cannot be asked. (Mean and deviation, which standardize the spectrogram, see
# section 8, stay those of its training.)
#
# The next three cells only build the laboratory; skip them at first.

# %%
truth = ["ring arcs", "ladder dips", "pitch arcs", "bell heard", "ring sings"]
view = features.read_views(clip_path, clf.clip_config)[0]
SCALES = {"log of magnitude": {}, "log of power": {"power": 2}}
SCALES |= {"no logarithm": {"compression": "none"}, "log, 16-bit samples": {"amplitude": 32768.0}}
TURNS = {"window": (0.0125, 0.025, 0.05), "hop": (0.005, 0.01, 0.02), "fft": (400, 512, 1024)}
TURNS |= {"mels": (64, 128, 256), "offset": (1e-6, 1e-3, 1e-1)}
units = {"window": (1e3, " ms"), "hop": (1e3, " ms")}


def turned(scale, **places):
    chosen = {name: TURNS[name][place] for name, place in places.items()}
    return replace(front, **chosen, **list(SCALES.values())[scale])


def chances(spec):
    answer = clf.predict(features.normalize(view.rgb, spec, front))
    return [dict(answer.top(31))[label] for label in truth]


# %%
def draw(**state):
    lab, size = turned(**state), (7, 5)
    spec, figure = features.log_mel(view.wave, lab), plt.Figure(size, 90, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    plot.spectrogram(spec, lab, above, words(**state), colorbar=False)
    answer = chances(spec) if spec.shape == view.spec.shape else np.full(5, np.nan)
    below.barh(np.arange(5) + 0.2, chances(view.spec), 0.4, color="#d9dbe0", label="its own")
    below.barh(np.arange(5) - 0.2, answer, 0.4, color="#4b5a8a", label="these settings")
    return dressed(figure, below)


def dressed(figure, ax):
    ax.set(xlim=(0, 1), xlabel="probability", yticks=range(5), yticklabels=truth)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


# %%
def words(**state):
    lab = turned(**state)
    shape, empty = features.log_mel(view.wave, lab).shape, (~features.mel_filters(lab).any(0)).sum()
    fits = "the model can be asked" if shape == view.spec.shape else "not the model's shape"
    return f"{shape[0]} x {shape[1]}, {empty} empty mel filters; {fits}"


choices = []
for name, options in TURNS.items():
    factor, unit = units.get(name, (1, ""))
    labels = tuple(f"{factor * option:g}{unit}" for option in options)
    choices.append(html.Choice(name, name, labels, options.index(getattr(front, name)), True))
choices.append(html.Choice("scale", "scale", tuple(SCALES), start=len(SCALES) - 1))
laboratory = html.Panel("Front end", "Turn", tuple(choices), draw, words, page=str)
widgets.explore(laboratory)

# %% [markdown]
# Notice how it begins: with *16-bit samples*, whole numbers up to 32,767 instead of -1 to 1, as
# many programs hand them out. The picture looks as ever, but every number in it is higher, and what
# the model has heard is gone. Turn `scale` back to the first, and all is well.
#
# Then turn `fft` to 400 and look at the bottom for rows that stay dark: a filter that lies between
# two frequencies of the Fourier transform gets nothing, ever. A window of 50 ms does not fit an FFT
# of 400 or 512, and a sentence says so.

# %%
for fft, mels in ((1024, 128), (1024, 256), (400, 128), (400, 256)):
    empty = ~features.mel_filters(replace(front, fft=fft, mels=mels)).any(0)
    print(f"fft {fft:4}, {mels} mels: {empty.sum():2} filters are empty")

# %% [markdown]
# Here is what single turns do to the answer:

# %%
start = laboratory.start | {"scale": 0}
for name, place in [("as it is", {}), ("window 12.5 ms", {"window": 0}), ("fft 400", {"fft": 0}),
                    ("offset 1e-6", {"offset": 0}), ("log of power", {"scale": 1}),
                    ("no logarithm", {"scale": 2}), ("16-bit samples", {"scale": 3})]:  # fmt: skip
    heard = features.log_mel(view.wave, turned(**{**start, **place}))
    said = dict(zip(truth, np.round(chances(heard), 2).tolist(), strict=True))
    print(f"{name:15}", {label: said[label] for label in truth[2:]})

# %% [markdown]
# Notice that the model forgives nearly everything: another window, another transform, another
# offset, even power. It does not forgive a missing logarithm, nor samples on another scale: its
# answer about the singer goes, and no error is raised. (This is one clip, and a small model.)
# The exact recipe of the weights that the authors released was never published, so such quiet
# faults are what [07](07_released_checkpoints_and_demo.ipynb) is careful about.

# %% [markdown]
# ## 7. The picture: which frames, and what of them?
#
# Neighboring pictures are nearly the same, so the model gets few: here one every quarter of a
# second. Each is brought to the model's height, and the square in its middle is cut out. On a
# wider file, five seconds long, you see what gets lost.

# %%
wide = samples() / "siren.mp4"
seen, whole = features.read_views(wide, clf.clip_config)[0], media.read(wide)
first = whole.frames[np.searchsorted(whole.times, seen.times[0], side="right") - 1]
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.5), dpi=100, layout="constrained")
axes[0].imshow(first)
left = (first.shape[1] - first.shape[0]) // 2
axes[0].add_patch(plt.Rectangle((left, 0), first.shape[0], first.shape[0] - 1, fill=False, ec="w"))
axes[0].set_title(f"the file, at {seen.times[0]:.2f} s")
for ax, frame, time in zip(axes[1:], seen.rgb[[0, -1]], seen.times[[0, -1]], strict=True):
    ax.imshow(frame)
    ax.set_title(f"for the model, {time:.2f} s")
plt.close(figure)
figure

# %% [markdown]
# Notice how little is left: the middle two of five seconds, and of each picture the square in the
# middle, in 48 x 48 pixels. `doctor.facts` says it in words (`--views 3` is an option of the
# command line: three windows, spread over the file, instead of the middle one):

# %%
for name, fact in doctor.facts(doctor.examine(wide, clf.clip_config)).items():
    print(f"{name:8}", fact)

# %%
# exercise: frames_on_show

# %% [markdown]
# ## 8. The tensors, and their patches
#
# Last, pixels go from 0..255 to -1..1, and the spectrogram is standardized by mean and deviation of
# the data that the model was trained on. It is repeated on three channels, as if it had colors:
# the authors of the Multimodal Bottleneck Transformer started theirs from a model of pictures
# (Nagrani et al. 2021, [the paper](https://arxiv.org/abs/2107.00135)). That is all the model gets.

# %%
rgb = view.rgb / 127.5 - 1
spec = np.repeat((view.spec[..., None] - front.mean) / front.std, 3, axis=-1)
np.testing.assert_allclose(rgb, view.clip.rgb, atol=1e-5)
np.testing.assert_allclose(spec, view.clip.spec, atol=1e-5)
print("rgb ", rgb.shape, f"= time, height, width, colors; {rgb.min():.1f} to {rgb.max():.1f}")
print("spec", spec.shape, f"= time, mel, copies; mean {spec.mean():.2f}, std {spec.std():.2f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), width_ratios=(1, 2.2), dpi=100, layout="tight")
axes[0].imshow(view.rgb[2], extent=(0, 48, 48, 0))
plot.spectrogram(view.spec, front, axes[1], colorbar=False)
axes[0].set(xticks=range(0, 49, 12), yticks=range(0, 49, 12), xlabel="pixels")
axes[1].set_xticks(np.arange(0, 2.01, 0.25))
axes[1].set(yticks=np.arange(0, 129, 16) - 0.5, yticklabels=range(0, 129, 16), ylabel="mel bin")
for ax in axes:
    ax.grid(color="white", lw=1)
plt.close(figure)
figure

# %% [markdown]
# Notice the grids: both tensors are cut into *patches*, and a patch is what the model will treat as
# a word. A patch of the picture reaches over two frames, so it can hold a movement. How many words
# does a clip have, here and in the size that the paper's authors released?

# %%
for name, config in {"this model": clf.config, "the released size": mbt.BASE}.items():
    for stream in ("rgb", "spec"):
        grid = " x ".join(map(str, config.grid(stream)))
        print(f"{name:18} {stream:5} {grid:14} = {config.patches(stream):5,} patches")

# %% [markdown]
# ## 9. A bad clip
#
# Half a second without sound: a model still answers. It has to, and it does not blush. Look at what
# it was given before you look at what it said.

# %%
media.write(folder / "bad.mp4", found.frames[:12], 25, np.zeros(8000, np.float32))
report = doctor.examine(folder / "bad.mp4", clf.clip_config)
print(doctor.note(report).replace(str(folder) + "/", ""))

answer = clf.predict(folder / "bad.mp4")
print("\nand the model:", [(label, round(p, 2)) for label, p in answer.top(3)])
print("its notes:", "; ".join(answer.notes))

# %% [markdown]
# Notice the first label of the model, and how sure it is. In the whole clip the ring does something
# else. The half second was repeated four times, so a shape that was only on its way comes back
# again and again. The notes say what was done, and whether the clip is like those that the model
# was trained on (lesson 05 explains how it knows); the doctor says what to do about it. In a shell:
# `mbt-lite doctor bad.mp4`.

# %% [markdown]
# **The answer.** A model sees a few small squares out of a video and hears a picture of its sound:
# time across, mel upwards, the logarithm of its strength. Everything else in the file is gone
# before the first layer. Most of the settings on the way can be changed a little without harm; a
# forgotten logarithm, or samples on quite another scale, ruin the answer. What is left are two
# tensors, cut into patches.
#
# Next: [how does a picture become a sentence?](02_tokens_and_attention.ipynb)
