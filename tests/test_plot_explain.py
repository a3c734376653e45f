"""Figures of explanations: shares, changes of logits, scores and chance."""

from types import SimpleNamespace

import numpy as np
import pytest

from mbt_lite import plot

LABELS = ("bell heard", "circle sings")
AUDIO, VIDEO = 0, 1  # groups of a flow; then three bottleneck tokens


def flow_of(share: float = 0.04, strongest=(0, AUDIO, 3), effects: bool = True) -> SimpleNamespace:
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
    groups = ("audio", "video", "bottleneck token 0", "bottleneck token 1", "bottleneck token 2")
    fields = {"streams": ("spec", "rgb"), "layers": (2, 3), "label": "bell heard", "groups": groups}
    return SimpleNamespace(mass=mass, effect=effect if effects else None, **fields)


def bands(figure) -> dict:
    return {patch.get_gid(): patch for patch in figure.axes[0].patches}


def ends(band) -> tuple[float, float]:
    """The widths of a band where it starts and where it ends."""
    across, up = band.get_path().vertices.T
    return tuple(np.ptp(up[across == end]) for end in (across.min(), across.max()))


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_a_band_between_stream_and_token_is_as_wide_as_its_share_at_both_ends():
    drawn = bands(plot.flow(flow_of(share=0.04)))
    written, read = (
        drawn["audio to bottleneck token 1 in layer 2"],
        drawn["bottleneck token 1 to video in layer 3"],
    )
    other = drawn["video to bottleneck token 0 in layer 2"]
    np.testing.assert_allclose([*ends(written), *ends(read)], ends(written)[0])
    np.testing.assert_allclose(ends(other), np.array(ends(written)) / 2)


@pytest.mark.parametrize(("share", "factor"), [(0.004, 100), (0.04, 10), (0.4, 1)])
def test_bands_that_touch_a_token_are_widened_by_the_factor_that_the_figure_names(share, factor):
    figure = plot.flow(flow_of(share))
    drawn = bands(figure)
    stays, written = (
        ends(drawn[f"audio to {to} in layer 2"])[0] for to in ("audio", "bottleneck token 1")
    )
    assert written / stays == pytest.approx(factor * share / (0.6 - share), rel=1e-4)
    words = figure.axes[0].get_xlabel()
    assert (f"drawn {factor} times as wide" in words) == (factor > 1)


def test_a_band_too_thin_to_see_is_a_hairline_and_what_carries_nothing_has_no_band():
    figure = plot.flow(flow_of())
    drawn = bands(figure)
    assert ends(drawn["audio to bottleneck token 2 in layer 2"])[0] == pytest.approx(0.003)
    assert "hairlines: less than 0.03 %" in figure.axes[0].get_xlabel()
    assert "video to bottleneck token 1 in layer 2" not in drawn
    assert "audio to video in layer 2" not in drawn


def test_bands_meet_their_bars_without_running_into_each_other():
    drawn = bands(plot.flow(flow_of()))
    bar = drawn["audio, column 0"]
    edges = []
    for to in ("audio", "bottleneck token 2", "bottleneck token 1"):
        across, up = drawn[f"audio to {to} in layer 2"].get_path().vertices.T
        edges += sorted({*up[across == across.min()]})
    np.testing.assert_allclose(edges[1::2][:-1], edges[2::2])
    np.testing.assert_allclose([edges[0], edges[-1]], [bar.get_y(), bar.get_y() + bar.get_height()])


def test_audio_is_below_video_above_and_every_token_stands_between_in_every_column():
    drawn = bands(plot.flow(flow_of()))
    groups = ("video", "bottleneck token 0", "bottleneck token 1", "bottleneck token 2", "audio")
    for column in range(3):
        heights = [drawn[f"{group}, column {column}"].get_y() for group in groups]
        assert heights == sorted(heights, reverse=True)
    assert drawn["bottleneck token 2, column 2"].get_height() > 0


def test_the_shares_of_bars_and_of_what_stays_are_written():
    figure = plot.flow(flow_of(share=0.04))
    words = texts(figure.axes[0])
    assert {"60 %", "40 %", "56 % stays", "38 % stays", "4.0 %", "2.0 %", "< 0.1 %"} <= {*words}
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names == ["before\nlayer 2", "after\nlayer 2", "after\nlayer 3"]


def test_attention_takes_the_colors_of_the_streams():
    drawn = bands(plot.flow(flow_of()))
    colors = [drawn[f"{group}, column 0"].get_facecolor() for group in ("audio", "video")]
    written = drawn["audio to bottleneck token 1 in layer 2"].get_facecolor()
    assert written[:3] == colors[0][:3] != colors[1][:3]


def test_cause_colors_a_band_by_the_change_when_it_is_cut_and_leaves_the_others_pale():
    figure = plot.flow(flow_of(), "cause")
    drawn, bar = bands(figure), figure.axes[1]
    assert bar.get_ylabel() == "change of the logit of “bell heard” when cut"
    np.testing.assert_allclose(bar.get_ylim(), (-2, 2))
    red, green, blue, _ = drawn["audio to bottleneck token 1 in layer 2"].get_facecolor()
    assert green < min(red, blue)  # purple: the logit falls by 2 when it is cut
    red, green, blue, _ = drawn["bottleneck token 0 to audio in layer 3"].get_facecolor()
    assert green > max(red, blue)
    stays = {drawn[f"{s} to {s} in layer 2"].get_facecolor() for s in ("audio", "video")}
    assert len(stays) == 1
    assert "−2.00" in texts(figure.axes[0])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("color_by", ["attention", "cause"])
def test_a_flow_fits_on_its_paper(color_by, layers):
    record = flow_of()
    record.mass, record.effect = record.mass[:layers], record.effect[:layers]
    record.layers = record.layers[:layers]
    figure = plot.flow(record, color_by)
    assert plot.style.to_png(figure).startswith(b"\x89PNG")
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_the_bands_of_other_layers_fade_behind_those_of_one():
    one = flow_of()
    drawn = bands(plot.flow(one, layer=3))
    faded = {name for name, band in drawn.items() if band.get_alpha() == 0.07}
    assert faded == {name for name in drawn if name.endswith("in layer 2")} and faded
    with pytest.raises(ValueError, match="layer=9"):
        plot.flow(one, layer=9)


def test_a_flow_without_effects_cannot_be_colored_by_cause():
    with pytest.raises(ValueError, match="no effects"):
        plot.flow(flow_of(effects=False), "cause")
    with pytest.raises(ValueError, match="'attention' or 'cause'"):
        plot.flow(flow_of(), "mass")


def test_the_words_for_a_flow_name_the_token_that_carries_most_each_way():
    words = plot.flow_alt(flow_of(share=0.04))
    assert "60 % in the audio and 40 % in the video before" in words
    assert "from audio to video most through bottleneck token 1 (4.0 % of the reading)" in words
    assert "from video to audio most through bottleneck token 0 (2.0 % of the reading)" in words


def test_a_single_fused_layer_carries_nothing_from_one_modality_to_the_other():
    record = flow_of(effects=False)
    record.mass, record.layers = record.mass[1:], (3,)
    words = plot.flow_alt(record)
    assert "1 fused layer:" in words
    assert "from audio to video nothing through any bottleneck token" in words


def test_the_words_for_a_flow_say_whether_attention_and_cause_agree():
    agree = plot.flow_alt(flow_of(strongest=(0, AUDIO, 3)))
    assert "largest attention edge: audio to bottleneck token 1 in layer 2 (4.0 %)" in agree
    assert agree.endswith("attention and cause agree: these are the same edge")
    differ = plot.flow_alt(flow_of(strongest=(1, 2, AUDIO)))
    assert (
        "largest causal edge: bottleneck token 0 to audio in layer 3 (cutting it changes" in differ
    )
    assert differ.endswith(
        "attention and cause disagree: cutting the largest attention edge changes the logit of "
        "bell heard by −0.10"
    )
    assert "causal" not in plot.flow_alt(flow_of(effects=False))


def effects_of(*changes: float) -> SimpleNamespace:
    """Ablation of two tokens after each of two layers, and the change of the second label."""
    places = [(layer, token) for layer in (1, 2) for token in (0, 1)]
    operations = tuple(
        SimpleNamespace(words=f"bottleneck token {k} emptied after layer {i}") for i, k in places
    )
    change = np.stack([np.zeros(len(changes)), np.array(changes)], 1)
    operations = operations[: len(changes)]
    return SimpleNamespace(
        labels=LABELS, logits=np.array([0.5, 3.0]), operations=operations, change=change
    )


def test_operations_are_bars_in_their_order():
    effects = effects_of(0.5, -3.0, 0.0, 1.5)
    ax = plot.effects(effects, "circle sings")
    assert [bar.get_width() for bar in ax.patches] == [0.5, -3.0, 0.0, 1.5]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names[1] == "bottleneck token 1 emptied after layer 1"
    assert texts(ax) == ["+0.50", "−3.00", "+0.00", "+1.50"]
    assert ax.get_xlabel() == "change of the logit of “circle sings”"
    below, above = ax.get_ylim()
    assert above < 0 < below  # the axis points down


def test_a_logit_that_falls_has_another_color_than_one_that_rises():
    bars = plot.effects(effects_of(0.5, -3.0, 0.2), "circle sings").patches
    rises, falls, also = (bar.get_facecolor() for bar in bars)
    assert rises == also != falls


def test_rounding_errors_are_not_blown_up_to_effects():
    ax = plot.effects(effects_of(1e-7, -1e-7), "circle sings")
    assert texts(ax) == ["+0.00", "+0.00"]
    assert ax.get_xlim()[1] > 1e-3


def test_the_words_for_effects_list_the_logit_and_its_changes():
    assert plot.effects_alt(effects_of(-3.0), "circle sings") == (
        "logit of circle sings: +3.00 as it is; changed by: "
        "bottleneck token 0 emptied after layer 1 −3.00"
    )


def test_an_unknown_label_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'siren' is none of the labels, which are bell heard, ci"):
        plot.effects(effects_of(0.5), "siren")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def swap_of(share: float | None) -> SimpleNamespace:
    logits = np.zeros((2, 2, 2))
    logits[..., 1] = [[4.0, -1.0], [2.0, -3.0]]
    fields = {"labels": LABELS, "names": ("bell.mp4", "a $rain$ with a very long name.mp4")}
    effects = {"video": 2.0, "audio": 5.0, "interaction": 0.0, "audio_share": share}
    methods = {name: (lambda label, size=size: size) for name, size in effects.items()}
    return SimpleNamespace(logits=logits, probabilities=sigmoid(logits), **fields, **methods)


def test_swapped_clips_are_a_table_with_video_down_and_audio_across():
    ax = plot.swap(swap_of(share=0.71), "circle sings")
    np.testing.assert_allclose(
        ax.images[0].get_array(), [[0.982, 0.269], [0.881, 0.047]], atol=0.001
    )
    assert ax.images[0].get_clim() == (0, 1)
    assert texts(ax)[::2] == ["98 %", "27 %", "88 %", "5 %"]
    assert texts(ax)[1] == "logit +4.00"
    assert ax.get_yticklabels()[0].get_text() == "video of\nbell.mp4"
    assert ax.get_xticklabels()[1].get_text() == "audio of\na $rain$ with a very lo…"


def test_below_the_table_stands_what_the_answer_owes_to_video_and_audio():
    first, second = plot.swap(swap_of(share=0.71), "circle sings").get_xlabel().split("\n")
    assert first == "logit with the first clip instead of the second:"
    assert second == "video +2.00, audio +5.00, interaction +0.00; 71 % audio"
    assert "%" not in plot.swap(swap_of(share=None), "circle sings").get_xlabel()


def test_the_words_for_swapped_clips_have_all_four_probabilities():
    words = plot.swap_alt(swap_of(share=0.71), "circle sings")
    assert words.startswith("probability of circle sings: video of bell.mp4 with audio of bell.m")
    assert [f"{p} %" in words for p in (98, 27, 88, 5, 71)] == [True] * 5


SECONDS = np.array([-1.0, -0.5, 0.0, 0.5])


def shift_of() -> SimpleNamespace:
    logits = np.stack([[-2.0, 1.0, 3.0, 0.0], [-3.0] * 4], 1)
    return SimpleNamespace(labels=LABELS, seconds=SECONDS, probabilities=sigmoid(logits))


def test_late_audio_is_a_line_over_seconds_with_a_mark_where_it_is_in_place():
    ax = plot.shift(shift_of(), "bell heard")
    here, line, ring = ax.lines
    assert set(here.get_xdata()) == {0}
    np.testing.assert_array_equal(line.get_xdata(), SECONDS)
    np.testing.assert_allclose(line.get_ydata(), [0.119, 0.731, 0.953, 0.5], atol=0.001)
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (0, line.get_ydata()[2])
    assert ax.get_xlabel().startswith("audio later than the video by (s)")


def test_the_words_for_late_audio_say_how_probable_it_is_in_place():
    assert plot.shift_alt(shift_of(), "bell heard") == (
        "probability with the audio −1 s to 0.5 s late: bell heard 95 % at 0 s, "
        "highest 95 % at 0 s, lowest 12 % at −1 s"
    )


def test_a_perturbed_clip_stands_below_the_clip_as_it_is():
    record = SimpleNamespace(labels=LABELS, names=("muted", "blank"))
    record.probabilities = sigmoid(np.array([[2.0, 0.0], [-4.0, 0.0], [1.0, 0.0]]))
    ax = plot.perturbations(record, "bell heard")
    bars = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(bars, [0.881, 0.018, 0.731], atol=0.001)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["as it is", "muted", "blank"]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), 0.881, atol=1e-3)
    assert plot.perturbations_alt(record, "bell heard") == (
        "probability of bell heard: as it is 88 %, muted 2 %, blank 73 %"
    )


def scores_of() -> SimpleNamespace:
    """Two methods: the second reaches chance when pointing, the first when deleting."""
    return SimpleNamespace(
        methods=("gradient", "attention"),
        columns=("pointing", "deletion", "random weights"),
        mean=np.array([[0.6, 0.45, -0.1], [0.3, 0.2, 0.05]]),
        half=np.array([[0.1, 0.1, 0.02], [0.1, 0.1, np.nan]]),
        chance=np.array([0.25, 0.5, np.nan]),
        clips=40,
    )


def test_a_column_has_a_panel_with_a_point_and_an_interval_for_each_method():
    figure = plot.faithfulness(scores_of())
    pointing, deletion, anew = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(scores_of().columns)
    points = [box.lines[0].get_xdata()[0] for box in pointing.containers]
    np.testing.assert_allclose(points, [0.6, 0.3])
    ((low, row), (high, _)) = pointing.containers[0].lines[2][0].get_segments()[0]
    assert (low, high, row) == (pytest.approx(0.5), pytest.approx(0.7), 0)
    assert [text.get_text() for text in pointing.get_yticklabels()] == ["gradient", "attention"]
    aims = [ax.get_xlabel() for ax in figure.axes]
    assert aims == ["more is better", "less is better", "near 0 is better"]
    assert not anew.containers[1].has_xerr


def test_chance_is_a_dashed_line_where_there_is_one():
    pointing, deletion, anew = plot.faithfulness(scores_of()).axes
    for ax, chance in ((pointing, 0.25), (deletion, 0.5)):
        (line,) = (line for line in ax.lines if line.get_linestyle() == "--")
        assert set(line.get_xdata()) == {chance}
    assert all(line.get_linestyle() != "--" for line in anew.lines)


def test_only_methods_better_than_chance_are_filled():
    pointing, deletion, _ = plot.faithfulness(scores_of()).axes
    for ax, empty in ((pointing, [False, True]), (deletion, [True, False])):
        faces = [box.lines[0].get_markerfacecolor() for box in ax.containers]
        assert [face == "white" for face in faces] == empty


def test_the_words_for_faithfulness_say_which_methods_do_no_better_than_chance():
    assert plot.faithfulness_alt(scores_of()) == (
        "scores of 2 methods on 40 clips. "
        "Pointing: best gradient 0.60; no better than chance (0.25): attention. "
        "Deletion: best attention 0.20; no better than chance (0.50): gradient. "
        "Random weights: best attention 0.05; no chance level."
    )
    record = scores_of()
    record.half = np.full_like(record.half, 0.01)
    assert "all better than chance (0.25)" in plot.faithfulness_alt(record)


def test_a_method_without_an_interval_is_not_said_to_beat_chance():
    record = scores_of()
    record.half[0, 0] = np.nan
    assert "no better than chance (0.25): gradient, attention" in plot.faithfulness_alt(record)


def curves_of() -> SimpleNamespace:
    fractions = np.array([0.0, 0.5, 1.0])
    deletion = {"random": [1.0, 0.6, 0.0], "gradient": [1.0, 0.2, 0.0], "flow": [1.0, 0.4, 0.0]}
    insertion = {"random": [0.0, 0.4, 1.0], "gradient": [0.0, 0.9, 1.0], "flow": [0.0, 0.6, 1.0]}
    return SimpleNamespace(fractions=fractions, deletion=deletion, insertion=insertion)


def test_patches_are_removed_on_the_left_and_inserted_on_the_right_with_a_line_per_method():
    left, right = plot.deletion(curves_of()).axes
    for ax, lines in ((left, curves_of().deletion), (right, curves_of().insertion)):
        drawn = {line.get_label().split()[0]: line for line in ax.lines}
        assert {name: list(line.get_ydata()) for name, line in drawn.items()} == lines
        np.testing.assert_array_equal(drawn["flow"].get_xdata(), [0, 50, 100])
    assert left.get_xlabel() == "share of patches removed (%)"
    assert right.get_xlabel() == "share of patches inserted (%)"


def test_methods_are_told_apart_without_color_and_look_alike_in_both_panels():
    looks = [
        {line.get_label().split()[0]: (line.get_color(), line.get_marker()) for line in ax.lines}
        for ax in plot.deletion(curves_of()).axes
    ]
    assert looks[0] == looks[1]
    assert len({marker for _, marker in looks[0].values()}) == 3


def test_the_words_for_deletion_rank_the_methods_the_best_first():
    assert plot.deletion_alt(curves_of()) == (
        "Mean probability of the label over the share of patches. "
        "While patches are removed, lower is better: gradient 0.40, flow 0.47, random 0.53. "
        "While patches are inserted, higher is better: gradient 0.63, flow 0.53, random 0.47."
    )
