"""Figures show the numbers that they get, over time in seconds; their words say the same."""

import io
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from mbt_lite import explain, plot
from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.explain import html
from mbt_lite.features import View, log_mel
from mbt_lite.inference import AttentionMaps
from mbt_lite.plot import style

FRONT, CLIP = FrontEnd(), ClipConfig(spec_frames=200)
RNG = np.random.default_rng(0)


def tone(hertz: float, start: float) -> np.ndarray:
    """Log-mel spectrogram of 2 s of silence in which a tone sounds from `start` for 0.1 s."""
    time = np.arange(2 * FRONT.rate) / FRONT.rate
    sounding = (time >= start) & (time < start + 0.1)
    return log_mel((0.5 * np.sin(2 * np.pi * hertz * time) * sounding).astype(np.float32), FRONT)


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


# ---- spectrograms ----


def test_a_spectrogram_is_drawn_bin_by_bin_on_a_clock_in_seconds():
    spec = RNG.standard_normal((200, 128)).astype(np.float32)
    ax = plot.spectrogram(np.repeat(spec[..., None], 3, axis=-1), FRONT)  # three equal channels
    np.testing.assert_array_equal(ax.images[0].get_array(), spec.T)
    assert ax.get_xlim() == (0, 2.0)
    assert plot.spectrogram(spec, FrontEnd(hop=0.02)).get_xlim() == (0, 4.0)
    with pytest.raises(ValueError, match="take one clip out of a batch"):
        plot.spectrogram(np.zeros((4, 200, 128)), FRONT)


@pytest.mark.parametrize("hertz", [250, 1000, 4000])
def test_a_tone_is_brightest_at_its_mark_on_the_hertz_axis(hertz):
    spec = tone(hertz, start=0.6)
    ax = plot.spectrogram(spec, FRONT)
    marks = dict(zip((t.get_text() for t in ax.get_yticklabels()), ax.get_yticks(), strict=True))
    assert spec[65].argmax() == pytest.approx(marks[f"{hertz:,}"], abs=1)


def test_the_words_for_a_spectrogram_name_the_time_and_pitch_of_a_tone():
    start, pitch = plot.spectrogram_alt(tone(880, start=0.6), FRONT).rsplit(" near ", 1)
    assert start in ("spectrogram, 2.0 s, loudest at 0.6 s", "spectrogram, 2.0 s, loudest at 0.7 s")
    assert float(pitch.removesuffix(" Hz")) == pytest.approx(880, rel=0.03)
    silence = plot.spectrogram_alt(np.full((200, 128), -7.0), FRONT)
    assert silence.endswith("the same level throughout")


# ---- attention ----


def view_of(start: float = 0.0) -> View:
    """A `View` with a tone of 1 kHz in the middle of its audio, and eight frames."""
    rgb, wave = RNG.integers(0, 256, (8, 24, 24, 3), np.uint8), np.zeros(32_000, np.float32)
    return View(rgb, start + np.arange(8) * 0.25, tone(1000, 1.0), wave, start, (), FRONT)


def maps_of(**peaks) -> AttentionMaps:
    """Maps of layers 2 and 3, two heads and two tokens; peaks in layer 3, bottleneck token 1."""
    maps = {"rgb": np.full((2, 2, 2, 4, 3, 3), 0.01), "spec": np.full((2, 2, 2, 10, 8), 0.01)}
    maps = {s: maps[s].astype(np.float32) for s in peaks}
    for s, peak in peaks.items():
        maps[s][(1, slice(None), 1, *peak)] = 0.5
    return AttentionMaps((2, 3), "bottleneck", maps.get("rgb"), maps.get("spec"))


BOTH = maps_of(rgb=(2, 0, 2), spec=(5, 6))


def test_attention_to_frames_and_audio_stand_on_the_clock_of_the_file():
    view = view_of(start=3.0)
    figure = plot.attention(view, BOTH, CLIP, token=1)
    *frames, audio = [ax for ax in figure.axes if ax.images and ax.get_xlabel()]
    starts = [ax.get_xlabel().partition("\N{EN DASH}")[0] for ax in frames]
    assert starts == ["3.00", "3.50", "4.00", "4.50"]
    assert {ax.images[-1].get_clim() for ax in frames} == {(0, 0.5)}
    assert audio.get_xlim() == (3.0, 5.0)
    np.testing.assert_allclose(audio.lines[-1].get_xdata(), np.arange(3, 5, 0.25))
    drawn = audio.images[-1].get_array()  # over the spectrogram, bilinear
    mel, time = np.unravel_index(drawn.argmax(), drawn.shape)
    assert (time // 20, mel // 16) == (5, 6)
    opacity = audio.images[-1].get_alpha()
    assert opacity.min() < 0.1 and 0.5 < opacity.max() < 1
    assert figure.get_suptitle() == "what the bottleneck reads in layer 3, bottleneck token 1"
    assert plot.attention_alt(view, BOTH, CLIP, token=1) == (
        "what the bottleneck reads in layer 3, bottleneck token 1; attention over 4 frames, "
        "highest at 4.00\N{EN DASH}4.25 s, at the top right; attention over 2.0 s of audio, "
        "highest near 4.1 s and 4724 Hz"
    )
    assert "spread evenly" in plot.attention_alt(view, BOTH, CLIP, layer=0)


@pytest.mark.parametrize(("stream", "panels"), [("rgb", 4), ("spec", 1)])
def test_a_model_of_one_stream_gets_the_panels_of_that_stream(stream, panels):
    maps = maps_of(**{stream: (2, 0, 2) if stream == "rgb" else (5, 6)})
    figure = plot.attention(view_of(), maps, CLIP)
    assert sum(bool(ax.images and ax.get_xlabel()) for ax in figure.axes) == panels
    assert plot.attention_alt(view_of(), maps, CLIP).count("attention over") == 1


def test_an_image_of_a_film_shows_one_frame_and_marks_its_time():
    view, clip_config = view_of(start=10.0), replace(CLIP, frames=8, stride=1, fps=4)
    figure = plot.attention(view, BOTH, clip_config, frame=4)
    video, audio = (ax for ax in figure.axes if len(ax.images) == 2)
    assert video.get_xlabel() == "11.00 s" and video.images[-1].get_clim() == pytest.approx(
        (0, 0.255)
    )
    assert list(audio.lines[-1].get_xdata()) == [11.0, 11.0]
    short = replace(view, rgb=view.rgb[:2], times=view.times[:2])
    images = plot.film(short, replace(BOTH, rgb=None), clip_config)
    assert images.shape[0] == 2 and images.dtype == np.uint8
    assert images.shape[1] % 2 == images.shape[2] % 2 == 0
    assert (images[0] != images[-1]).any()


# ---- bars and curves ----


def test_three_predictions_stand_side_by_side_on_the_same_rows():
    predictions = {
        "both": [("bell", 0.9), ("rain", 0.25), ("storm", 0.1)],
        "audio only": [("bell", 0.8), ("rain", 0.1)],
        "video only": [("ball", 0.7)],
    }
    figure = plot.compare_bars(predictions, top=2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(predictions)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    assert len({ax.containers[1][0].get_facecolor() for ax in figure.axes}) == 3
    both = figure.axes[0]
    assert [bar.get_width() for bar in both.containers[1]] == [0.9, 0.25]
    assert texts(both) == ["bell", "90 %", "rain", "25 %"]


def test_a_chart_has_its_bars_in_order_with_their_values_and_intervals():
    bars = [html.Bar("token 0", -2.149, -3, -1), html.Bar("token 1", 1234.5, stream="spec")]
    chart = html.Chart("bell", "change of the logit", bars)
    ax = plot.chart(chart).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [-2.149, 1234.5]
    assert texts(ax) == ["−2.15", "1,234"] and list(ax.lines[0].get_xdata()) == [-3, -1]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["token 0", "token 1"]
    below, above = ax.get_ylim()
    assert above < 0 < below  # the axis points down
    assert chart.words == "bell (change of the logit): token 0 −2.15, token 1 1,234"


def test_a_curve_goes_through_the_rows_that_have_its_key():
    rows = [{"step": 0, "loss": 3.0}, {"step": 50, "loss": 2.0, "mAP": 0.1}, {"step": 9, "mAP": 1}]
    loss, score = (
        line for line in plot.curves(rows, keys=("loss", "mAP")).lines if len(line.get_xdata()) > 1
    )
    assert (list(loss.get_xdata()), list(loss.get_ydata())) == ([0, 50], [3.0, 2.0])
    assert list(score.get_xdata()) == [50, 9]
    assert plot.curves_alt(rows) == "loss from 3 at step 0 to 2 at step 50"
    with pytest.raises(ValueError, match=r"'losss'; the rows have \['loss', 'mAP', 'step'\]"):
        plot.curves(rows, keys=("losss",))


# ---- figures as files ----


def named(*names: str) -> Figure:
    return plot.compare_bars({"both": [(name, 0.5) for name in names]})


def test_a_notebook_shows_a_figure_without_pyplot_and_gradio_knows_its_class():
    figure = named("bell")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert type(figure) is Figure


def test_names_in_chinese_japanese_and_korean_have_a_font_of_this_machine(monkeypatch):
    fonts = [SimpleNamespace(name=name) for name in ("Malgun Gothic", "SimHei", "Microsoft YaHei")]
    monkeypatch.setattr(style.fontManager, "ttflist", fonts)
    assert style.installed_wide_fonts() == ["Microsoft YaHei", "Malgun Gothic"]


def test_letters_that_no_font_has_are_warned_of_in_one_sentence():
    with pytest.warns(UserWarning) as caught:
        named("\uf8f0\uf8f1", "\uf8f2")._repr_png_()
    assert len(caught) == 1 and "install one" in str(caught[0].message)


def test_threads_draw_at_the_same_time_without_leaving_figures_behind():
    sizes = []

    def draw():
        png = io.BytesIO()
        plot.spectrogram(np.zeros((20, 16)) + 1, FRONT).figure.savefig(png, format="png")
        sizes.append(len(png.getvalue()))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 4 and len(set(sizes)) == 1
    assert pyplot.get_fignums() == []


# ---- flow ----

AUDIO, VIDEO = 0, 1  # groups of a flow; then three bottleneck tokens


def flow_of(share: float = 0.04, strongest=(0, AUDIO, 3), effects: bool = True) -> explain.Flow:
    """A flow through two layers: `share` goes from audio through bottleneck token 1 to video,
    half as much from the video to bottleneck token 0 and on to the audio."""
    mass = np.zeros((2, 5, 5))
    mass[:, AUDIO, AUDIO], mass[:, VIDEO, VIDEO] = 0.6 - share, 0.4 - share / 2
    mass[0, AUDIO, 3], mass[1, 3, VIDEO] = share, share
    mass[0, VIDEO, 2], mass[1, 2, AUDIO] = share / 2, share / 2
    mass[0, AUDIO, AUDIO] -= 1e-7
    mass[0, AUDIO, 4] = mass[1, 4, AUDIO] = 1e-7
    mass[1, AUDIO, AUDIO] -= 1e-7
    effect = np.full_like(mass, np.nan)
    effect[:, :2, 2:], effect[:, 2:, :2] = 0.1, -0.1
    effect[strongest] = 2.0
    return explain.Flow(("spec", "rgb"), (2, 3), "bell heard", mass, effect if effects else None)


def bands(figure) -> dict:
    return {patch.get_gid(): patch for patch in figure.axes[0].patches}


def test_bands_are_as_wide_as_their_share_of_the_reading():
    drawn = bands(plot.flow(flow_of()))
    stays, written, read, hair = (
        drawn[name].get_linewidth()
        for name in (
            "audio to audio in layer 2",
            "audio to bottleneck token 1 in layer 2",
            "bottleneck token 1 to video in layer 3",
            "audio to bottleneck token 2 in layer 2",
        )
    )
    assert written == read == pytest.approx(stays * 0.04 / 0.56, rel=1e-4)
    assert hair == 0.5 and "audio to video in layer 2" not in drawn


@pytest.mark.parametrize("color_by", ["attention", "cause"])
def test_a_flow_fits_on_its_paper_and_says_its_shares(color_by):
    figure = plot.flow(flow_of(), color_by)
    assert style.to_png(figure).startswith(b"\x89PNG")
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    said = {"60 %", "40 %", "56 % stays", "38 % stays", "4.0 %", "2.0 %", "< 0.1 %"}
    assert said <= {*texts(figure.axes[0])}


def test_cause_colors_a_band_by_the_change_when_it_is_cut():
    figure = plot.flow(flow_of(), "cause")
    drawn, bar = bands(figure), figure.axes[1]
    assert bar.get_ylabel() == "change of the logit of “bell heard” when cut"
    np.testing.assert_allclose(bar.get_ylim(), (-2, 2))
    red, green, blue, _ = drawn["audio to bottleneck token 1 in layer 2"].get_edgecolor()
    assert green < min(red, blue)  # purple: the logit falls by 2 when it is cut
    red, green, blue, _ = drawn["bottleneck token 0 to audio in layer 3"].get_edgecolor()
    assert green > max(red, blue)
    assert "−2.00" in texts(figure.axes[0])
    with pytest.raises(ValueError, match="no effects"):
        plot.flow(flow_of(effects=False), "cause")


def test_the_words_for_a_flow_say_whether_attention_and_cause_agree():
    agree = plot.flow_alt(flow_of(strongest=(0, AUDIO, 3)))
    assert "60 % in the audio and 40 % in the video before" in agree
    assert "largest attention edge: audio to bottleneck token 1 in layer 2 (4.0 %)" in agree
    assert agree.endswith("attention and cause agree: these are the same edge")
    differ = plot.flow_alt(flow_of(strongest=(1, 2, AUDIO)))
    assert "largest causal edge: bottleneck token 0 to audio in layer 3 (cutting it" in differ
    assert differ.endswith(
        "attention and cause disagree: cutting the largest attention edge changes the logit of "
        "bell heard by −0.10"
    )
    assert "causal" not in plot.flow_alt(flow_of(effects=False))


# ---- faithfulness ----

COLUMNS = ("mass", "pointing", "right shape", "deletion", "insertion", "random weights")
FRACTIONS = np.array([0.0, 0.5, 1.0])
CURVES = explain.Curves(
    FRACTIONS,
    {"random": 1 - FRACTIONS, "gradient": np.array([1, 0.2, 0]), "flow": np.array([1, 0.4, 0])},
    {"random": FRACTIONS, "gradient": np.array([0, 0.9, 1]), "flow": np.array([0, 0.6, 1])},
)
SCORES = explain.Faithfulness(  # the second method reaches chance when pointing, the first deleting
    ("gradient", "flow"),
    COLUMNS,
    np.array([[0.6, 0.6, 0.6, 0.45, 0.6, -0.1], [0.6, 0.3, 0.6, 0.2, 0.6, 0.05]]),
    np.full((2, 6), 0.1),
    np.array([0.25, 0.25, 0.25, 0.5, 0.25, np.nan]),
    40,
    CURVES,
)


def test_a_column_of_scores_has_points_intervals_and_chance():
    axes = dict(zip(COLUMNS, plot.faithfulness(SCORES).axes, strict=True))
    points = [box.lines[0].get_xdata()[0] for box in axes["pointing"].containers]
    np.testing.assert_allclose(points, [0.6, 0.3])
    ((low, row), (high, _)) = axes["pointing"].containers[0].lines[2][0].get_segments()[0]
    assert (low, high, row) == (pytest.approx(0.5), pytest.approx(0.7), 0)
    for column, chance, filled in (
        ("pointing", [0.25], [True, False]),
        ("deletion", [0.5], [False, True]),
        ("random weights", [], [True, True]),
    ):
        dashed = [line for line in axes[column].lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in dashed] == chance
        faces = [box.lines[0].get_markerfacecolor() for box in axes[column].containers]
        assert [face != "white" for face in faces] == filled
    assert axes["deletion"].get_xlabel() == "less is better"


def test_the_words_for_faithfulness_say_which_methods_do_no_better_than_chance():
    words = plot.faithfulness_alt(SCORES)
    for sentence in (
        "scores of 2 methods on 40 clips.",
        "Mass: best gradient 0.60; all better than chance (0.25).",
        "Pointing: best gradient 0.60; no better than chance (0.25): flow.",
        "Deletion: best flow 0.20; no better than chance (0.50): gradient.",
        "Random weights: best flow 0.05; no chance level.",
    ):
        assert sentence in words


def test_patches_are_removed_on_the_left_and_inserted_on_the_right_with_a_line_per_method():
    looks = []
    for ax, lines in zip(
        plot.deletion(CURVES).axes, (CURVES.deletion, CURVES.insertion), strict=True
    ):
        drawn = {line.get_label().split()[0]: line for line in ax.lines}
        for name, line in lines.items():
            np.testing.assert_array_equal(drawn[name].get_ydata(), line)
        np.testing.assert_array_equal(drawn["flow"].get_xdata(), [0, 50, 100])
        looks.append({name: (x.get_color(), x.get_marker()) for name, x in drawn.items()})
    assert looks[0] == looks[1] and len(set(looks[0].values())) == 3
    assert plot.deletion_alt(CURVES) == (
        "Mean probability of the label over the share of patches. "
        "While patches are removed, lower is better: gradient 0.40, flow 0.47, random 0.50. "
        "While patches are inserted, higher is better: gradient 0.63, flow 0.53, random 0.50."
    )
