"""Figures show the numbers that they get, over time in seconds."""

import io
import threading
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from mbt_lite import plot
from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.features import View, log_mel
from mbt_lite.inference import AttentionMaps
from mbt_lite.plot import style

FRONT = FrontEnd()
RNG = np.random.default_rng(0)


def tone(hertz: float, start: float, seconds: float = 2.0) -> np.ndarray:
    """Log-mel spectrogram of silence in which a tone sounds from `start` for 0.1 s."""
    time = np.arange(round(seconds * FRONT.rate)) / FRONT.rate
    sounding = (time >= start) & (time < start + 0.1)
    return log_mel((0.5 * np.sin(2 * np.pi * hertz * time) * sounding).astype(np.float32), FRONT)


def grid(shape: tuple[int, ...], peak: tuple[int, ...]) -> np.ndarray:
    maps = np.full(shape, 0.01, np.float32)
    maps[peak] = 0.5
    return maps


def overlay(ax):
    return ax.images[-1]


def test_a_spectrogram_is_drawn_bin_by_bin_on_a_clock_in_seconds():
    spec = RNG.standard_normal((200, 128)).astype(np.float32)
    ax = plot.spectrogram(spec)
    np.testing.assert_array_equal(ax.images[0].get_array(), spec.T)
    assert ax.get_xlim() == (0, 2.0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "mel bin")


def test_the_three_channels_of_a_spectrogram_are_copies_and_one_is_drawn():
    spec = RNG.standard_normal((50, 16)).astype(np.float32)
    ax = plot.spectrogram(np.repeat(spec[..., None], 3, axis=-1))
    np.testing.assert_array_equal(ax.images[0].get_array(), spec.T)


def test_a_slower_hop_makes_the_clock_longer():
    ax = plot.spectrogram(np.zeros((100, 128)), FrontEnd(hop=0.02))
    assert ax.get_xlim() == (0, 2.0)


@pytest.mark.parametrize("hertz", [250, 1000, 4000])
def test_a_tone_is_brightest_at_its_mark_on_the_hertz_axis(hertz):
    spec = tone(hertz, start=0.6)
    ax = plot.spectrogram(spec, FRONT)
    marks = dict(zip((t.get_text() for t in ax.get_yticklabels()), ax.get_yticks(), strict=True))
    assert spec[65].argmax() == pytest.approx(marks[f"{hertz:,}"], abs=1)


def test_a_batch_of_spectrograms_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="take one clip out of a batch"):
        plot.spectrogram(np.zeros((4, 200, 128)))


def test_a_figure_is_drawn_into_the_axes_that_are_given():
    ax = Figure().subplots()
    assert plot.spectrogram(np.zeros((10, 8)), ax=ax, title="quiet") is ax
    assert ax.get_title(loc="left") == "quiet"


def test_the_words_for_a_spectrogram_name_the_time_and_pitch_of_a_tone():
    words = plot.spectrogram_alt(tone(880, start=0.6), FRONT)
    start, pitch = words.rsplit(" near ", 1)
    assert start in ("spectrogram, 2.0 s, loudest at 0.6 s", "spectrogram, 2.0 s, loudest at 0.7 s")
    assert float(pitch.removesuffix(" Hz")) == pytest.approx(880, rel=0.03)


def test_the_words_for_silence_do_not_invent_a_loudest_moment():
    assert plot.spectrogram_alt(np.full((200, 128), -7.0)).endswith("the same level throughout")


def test_every_map_lies_over_all_of_its_frames_with_their_time_below():
    frames = RNG.integers(0, 256, (8, 24, 32, 3), np.uint8)
    figure = plot.attention_on_frames(frames, RNG.random((4, 3, 4)), times=np.arange(8) * 0.25)
    panels = [ax for ax in figure.axes if ax.images]
    spans = ["0.00\N{EN DASH}0.25 s", "0.50\N{EN DASH}0.75 s", "1.00\N{EN DASH}1.25 s"]
    assert [ax.get_xlabel() for ax in panels] == [*spans, "1.50\N{EN DASH}1.75 s"]
    pairs = frames.reshape(4, 2, 24, 32, 3)
    for ax, pair in zip(panels, pairs.mean((1, -1)), strict=True):
        drawn = ax.images[0].get_array().astype(int)
        assert np.corrcoef(drawn.mean(-1).ravel(), pair.ravel())[0, 1] > 0.9


def test_all_frames_share_one_attention_scale_at_the_resolution_of_the_video():
    maps = grid((4, 3, 4), peak=(2, 1, 1))
    figure = plot.attention_on_frames(np.zeros((8, 24, 32, 3), np.uint8), maps)
    drawn = [overlay(ax) for ax in figure.axes if ax.images]
    assert {image.get_array().shape for image in drawn} == {(24, 32)}
    assert {image.get_clim() for image in drawn} == {(0, 0.5)}
    assert figure.axes[-1].get_ylabel() == "attention"


def test_long_clips_wrap_into_rows_without_empty_panels():
    figure = plot.attention_on_frames(np.zeros((11, 8, 8, 3), np.uint8), np.ones((11, 2, 2)))
    assert sum(bool(ax.images) for ax in figure.axes) == 11
    assert len(figure.axes) == 12  # and the color bar


def test_frames_as_the_model_takes_them_look_like_frames_as_the_file_held_them():
    frames = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)
    maps = np.ones((2, 2, 2))
    bytes_, floats = (
        plot.attention_on_frames(f, maps) for f in (frames, frames.astype(np.float32) / 127.5 - 1)
    )
    for a, b in zip(bytes_.axes[:2], floats.axes[:2], strict=True):
        np.testing.assert_array_equal(a.images[0].get_array(), b.images[0].get_array())


def test_more_maps_than_frames_are_refused():
    with pytest.raises(ValueError, match="8 maps do not fit 4 frames"):
        plot.attention_on_frames(np.zeros((4, 8, 8, 3), np.uint8), np.ones((8, 2, 2)))


def test_upsampling_keeps_the_peak_in_its_cell_and_a_flat_map_flat():
    stretched = plot.upsample(grid((3, 4), peak=(1, 2)), (24, 32))
    y, x = np.unravel_index(stretched.argmax(), stretched.shape)
    assert (y // 8, x // 8) == (1, 2)
    np.testing.assert_allclose(plot.upsample(np.ones((3, 4)), (24, 32)), 1)


def test_attention_to_audio_lies_on_the_clock_of_the_spectrogram():
    maps = grid((10, 8), peak=(3, 5))
    ax = plot.attention_on_spectrogram(RNG.standard_normal((200, 128)), maps, FRONT)
    assert ax.get_xlim() == (0, 2.0)
    assert overlay(ax).get_extent() == ax.images[0].get_extent()
    drawn = overlay(ax).get_array()
    assert drawn.shape == (128, 200)
    mel, frame = np.unravel_index(drawn.argmax(), drawn.shape)
    assert (frame // 20, mel // 16) == (3, 5)


def test_where_nothing_is_attended_the_image_below_stays_visible():
    ax = plot.attention_on_spectrogram(np.zeros((20, 16)), grid((2, 2), peak=(0, 0)) - 0.01)
    opacity = overlay(ax).get_alpha()
    assert opacity.min() == 0 and 0.5 < opacity.max() < 1


def test_the_words_for_attention_name_time_and_place():
    maps = grid((4, 3, 3), peak=(2, 0, 2))
    assert plot.attention_on_frames_alt(maps, np.arange(8) * 0.25) == (
        "attention over 4 frames, highest at 1.00\N{EN DASH}1.25 s, at the top right"
    )
    assert "in frame 3 of 4" in plot.attention_on_frames_alt(maps)
    assert "spread evenly" in plot.attention_on_frames_alt(np.ones((4, 3, 3)))
    words = plot.attention_on_spectrogram_alt(grid((10, 8), peak=(3, 7)), seconds=2.0)
    assert words == "attention over 2.0 s of audio, highest near 0.7 s in the high pitches"


def view_and_config(start: float, frames: int = 8):
    """A `View` with a tone of 1 kHz in the middle of its audio, and the `ClipConfig` it fits."""
    spec, times = tone(1000, start=1.0), start + np.arange(frames) * 0.25
    rgb, wave = np.zeros((frames, 24, 24, 3), np.uint8), np.zeros(32_000, np.float32)
    return View(rgb, times, spec, wave, start, (), FRONT), ClipConfig(spec_frames=200)


def maps_of(**peaks) -> AttentionMaps:
    """Maps of layers 2 and 3, two heads and two tokens; peaks in layer 3, bottleneck token 1."""
    shapes = {"rgb": (2, 2, 2, 4, 3, 3), "spec": (2, 2, 2, 10, 8)}
    maps = {s: grid(shapes[s], (1, slice(None), 1, *peak)) for s, peak in peaks.items()}
    return AttentionMaps((2, 3), "bottleneck", maps.get("rgb"), maps.get("spec"))


def test_attention_to_frames_and_audio_stand_on_the_clock_of_the_file():
    view, clip_config = view_and_config(start=3.0)
    maps = maps_of(rgb=(2, 0, 2), spec=(5, 6))
    figure = plot.attention(view, maps, clip_config, token=1)
    panels = [ax for ax in figure.axes if ax.images and ax.get_xlabel()]
    starts = [ax.get_xlabel().partition("\N{EN DASH}")[0] for ax in panels[:4]]
    assert starts == ["3.00", "3.50", "4.00", "4.50"]
    assert panels[4].get_xlim() == (3.0, 5.0)
    np.testing.assert_allclose(panels[4].lines[-1].get_xdata(), np.arange(3, 5, 0.25))
    assert figure.get_suptitle() == "what the bottleneck reads in layer 3, bottleneck token 1"
    assert plot.attention_alt(view, maps, clip_config, token=1) == (
        "what the bottleneck reads in layer 3, bottleneck token 1; attention over 4 frames, "
        "highest at 4.00\N{EN DASH}4.25 s, at the top right; attention over 2.0 s of audio, "
        "highest near 4.1 s and 4724 Hz"
    )


def test_of_many_maps_four_large_ones_are_drawn_and_the_highest_is_among_them():
    maps = np.zeros((16, 14, 14), np.float32)
    maps[3, 2, 2] = 1
    assert plot.maps.spread(maps, 4) == [0, 3, 10, 15]
    assert plot.maps.spread(maps[:3], 4) == [0, 1, 2]


def test_another_layer_is_another_figure():
    view, clip_config = view_and_config(start=0.0)
    maps = maps_of(rgb=(2, 0, 2), spec=(5, 6))
    drawn = [plot.attention(view, maps, clip_config, layer) for layer in (0, 1)]
    images = [plot.style.to_png(figure) for figure in drawn]
    assert images[0] != images[1]
    assert "spread evenly" in plot.attention_alt(view, maps, clip_config, layer=0)


@pytest.mark.parametrize(("stream", "panels"), [("rgb", 4), ("spec", 1)])
def test_a_model_of_one_stream_gets_the_panels_of_that_stream(stream, panels):
    view, clip_config = view_and_config(start=0.0)
    maps = maps_of(**{stream: (2, 0, 2) if stream == "rgb" else (5, 6)})
    figure = plot.attention(view, maps, clip_config)
    assert sum(bool(ax.images and ax.get_xlabel()) for ax in figure.axes) == panels
    assert plot.attention_alt(view, maps, clip_config).count("attention over") == 1


def test_bars_are_as_long_as_the_probabilities_and_the_most_probable_is_on_top():
    ax = plot.bars(["rain", "bell", "siren"], [0.25, 0.75, 0.001], top=2)
    drawn = [bar for bar in ax.containers[1]]
    assert [bar.get_width() for bar in drawn] == [0.75, 0.25]
    assert [text.get_text() for text in ax.texts] == ["bell", "75 %", "rain", "25 %"]
    below, above = ax.get_ylim()
    assert above < drawn[0].get_y() < drawn[1].get_y() < below  # the axis points down


def test_bars_without_a_label_each_are_refused():
    with pytest.raises(ValueError, match="1 labels do not name 2 probabilities"):
        plot.bars(["bell"], [0.5, 0.5])


def test_three_predictions_stand_side_by_side_on_the_same_rows():
    predictions = {
        "both": [("bell", 0.9), ("rain", 0.2)],
        "audio only": [("bell", 0.8), ("rain", 0.1)],
        "video only": [("ball", 0.7)],
    }
    figure = plot.compare_bars(predictions)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(predictions)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    colors = {ax.containers[1][0].get_facecolor() for ax in figure.axes}
    assert len(colors) == 3


def test_the_words_for_bars_list_them_in_order():
    assert plot.bars_alt(["rain", "bell"], [0.2, 0.97]) == "most probable: bell 97 %, rain 20 %"


def test_a_curve_goes_through_the_rows_that_have_its_key():
    rows = [
        {"step": 0, "loss": 3.0},
        {"step": 50, "loss": 2.0, "mAP": 0.1},
        {"step": 100, "mAP": 1},
    ]
    ax = plot.curves(rows, keys=("loss", "mAP"))
    loss, mean_precision = (line for line in ax.lines if len(line.get_xdata()) > 1)
    assert (list(loss.get_xdata()), list(loss.get_ydata())) == ([0, 50], [3.0, 2.0])
    assert (list(mean_precision.get_xdata())) == [50, 100]
    assert plot.curves_alt(rows) == "loss from 3 at step 0 to 2 at step 50"


def test_a_key_that_no_row_has_is_answered_with_the_keys_there_are():
    with pytest.raises(ValueError, match=r"'losss'; the rows have \['loss', 'step'\]"):
        plot.curves([{"step": 0, "loss": 3.0}], keys=("losss",))


def test_a_notebook_shows_a_figure_without_pyplot_and_gradio_knows_its_class():
    figure = plot.bars(["bell"], [0.5]).figure
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert type(figure) is Figure


def test_names_in_chinese_japanese_and_korean_have_a_font_of_this_machine(monkeypatch):
    fonts = [SimpleNamespace(name=name) for name in ("Malgun Gothic", "SimHei", "Microsoft YaHei")]
    monkeypatch.setattr(style.fontManager, "ttflist", fonts)
    assert style.installed_wide_fonts() == ["Microsoft YaHei", "Malgun Gothic"]


@pytest.mark.skipif(not style.installed_wide_fonts(), reason="no such font on this machine")
def test_names_in_chinese_are_drawn_without_a_warning():
    assert style.drawable("狗叫 Großmutter") == "狗叫 Großmutter"
    assert plot.bars(["狗叫"], [0.5]).figure._repr_png_()  # matplotlib's warnings are errors here


def test_letters_that_no_font_has_are_warned_of_in_one_sentence():
    figure = plot.bars(["\uf8f0\uf8f1", "\uf8f2"], [0.5, 0.2]).figure
    with pytest.warns(UserWarning) as caught:
        figure._repr_png_()
    assert len(caught) == 1 and "install one" in str(caught[0].message)
    assert style.drawable("a\uf8f0") == "a\u25a1"


def test_color_maps_rise_in_lightness_so_that_they_read_without_color_vision():
    for name in (plot.AUDIO_MAP, plot.ATTENTION_MAP):
        luma = matplotlib.colormaps[name](np.linspace(0, 1, 32))[:, :3] @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(luma) > 0).all()


def test_threads_draw_at_the_same_time_without_leaving_figures_behind():
    from matplotlib import pyplot

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
