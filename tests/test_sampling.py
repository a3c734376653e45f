"""Which moments a clip is sampled at, compared with what the reference does."""

from dataclasses import replace

import numpy as np
import pytest

from mbt_lite.config import PAIRINGS, ClipConfig
from mbt_lite.data import sampling

TEN_SECONDS = {"frames": 250, "rows": 1000}  # at 25 and 100 a second
RELEASED = ClipConfig()
PAPER = replace(RELEASED, frames=8, stride=25)
SHORT = replace(RELEASED, frames=8, stride=12, spec_frames=400)
FPS, ROW_RATE = RELEASED.fps, 1 / RELEASED.front_end.hop


def drawn(clip, pairing, count=500, frames=250, rows=1000):
    rng = np.random.default_rng(0)
    return [sampling.random_window(frames, rows, clip, rng, pairing) for _ in range(count)]


def middles(window, clip=RELEASED):
    """Of video and audio, in s."""
    frame_size = window.frame / clip.fps + clip.video_seconds / 2
    return frame_size, window.row * clip.front_end.hop + clip.audio_seconds / 2


@pytest.mark.parametrize(
    "clip, share", [(RELEASED, 0.73), (PAPER, 0.32), (SHORT, 0.09)], ids=["32x2", "8x25", "8x12"]
)
def test_by_ratio_so_many_training_spectrograms_run_past_the_end(clip, share):
    windows = drawn(clip, "ratio", 20_000)
    wrapped = [window.row + clip.spec_frames > 1000 for window in windows]
    assert np.mean(wrapped) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("clip", [RELEASED, PAPER, SHORT], ids=["32x2", "8x25", "8x12"])
def test_synchronised_windows_never_run_past_the_end(clip):
    for window in drawn(clip, "synchronised"):
        assert 0 <= window.row <= 1000 - clip.spec_frames
        assert 0 <= window.frame <= 250 - clip.frames * clip.stride


def test_by_ratio_video_and_audio_begin_at_the_same_share_of_the_clip():
    windows = drawn(RELEASED, "ratio", 20_000)
    assert {window.frame for window in windows} == set(range(188))
    assert all(window.row == 4 * window.frame for window in windows)


def test_synchronised_video_and_audio_have_the_same_middle():
    for window in drawn(RELEASED, "synchronised"):
        frame_size, audio = middles(window)
        assert abs(frame_size - audio) <= 0.5 / FPS + 0.5 / ROW_RATE
    apart = [np.subtract(*middles(window)) for window in drawn(RELEASED, "ratio")]
    assert np.abs(apart).max() > 2.5  # s


def test_synchronised_windows_at_a_low_rate_do_not_wait_for_the_next_whole_frame():
    slow = replace(SHORT, frames=8, fps=4.0, stride=1)
    for window in drawn(slow, "synchronised", frames=40):
        assert abs(np.subtract(*middles(window, slow))) <= 0.5 / ROW_RATE + 1e-9


def test_a_frame_stands_for_the_middle_of_its_step_but_by_ratio_for_its_beginning():
    assert sampling.Sampling(SHORT).frame_offset == 6.0
    assert sampling.Sampling(SHORT, pairing="ratio").frame_offset == 0


def test_synchronised_draws_use_all_the_instants_around_which_both_windows_fit():
    middles_drawn = [middles(window)[1] for window in drawn(RELEASED, "synchronised", 5000)]
    assert min(middles_drawn) < 4.01 and max(middles_drawn) > 5.99
    assert np.histogram(middles_drawn, 4, (4, 6))[0].min() > 1100


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_validation_takes_the_middle_as_the_reference_does(pairing):
    assert sampling.spread_windows(**TEN_SECONDS, clip=RELEASED, pairing=pairing) == [(93, 100)]


def test_by_ratio_four_test_windows_are_those_of_the_reference():
    windows = sampling.spread_windows(**TEN_SECONDS, clip=RELEASED, views=4, pairing="ratio")
    assert windows == [(0, 0), (62, 66), (124, 133), (186, 200)]


def test_four_synchronised_test_windows_share_their_middles_and_reach_both_ends():
    windows = sampling.spread_windows(**TEN_SECONDS, clip=RELEASED, views=4)
    assert [window.row for window in windows] == [0, 67, 133, 200]
    for window in windows:
        frame_size, audio = middles(window)
        assert abs(frame_size - audio) <= 0.5 / FPS + 0.5 / ROW_RATE


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_clip_that_is_too_short_goes_on_at_its_beginning(pairing):
    rng = np.random.default_rng(0)
    window = sampling.random_window(30, 120, RELEASED, rng, pairing)
    assert window == (0, 0)
    assert sampling.spread_windows(30, 120, RELEASED, 3, pairing) == [(0, 0)] * 3
    np.testing.assert_array_equal(sampling.indices(28, 4, 1, 30), [28, 29, 0, 1])
    np.testing.assert_array_equal(sampling.indices(0, 4, 20, 30), [0, 20, 10, 0])


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_clip_of_one_stream_is_sampled_over_all_of_it(pairing):
    audio = drawn(RELEASED, pairing, frames=0)
    assert min(w.row for w in audio) < 10 and max(w.row for w in audio) > 190
    assert {w.frame for w in audio} == {0}
    frame_size = drawn(RELEASED, pairing, rows=0)
    assert {w.row for w in frame_size} == {0}
    assert min(w.frame for w in frame_size) < 5 and max(w.frame for w in frame_size) > 180


def test_what_cannot_be_sampled_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="choose one of synchronised, ratio"):
        sampling.Sampling(RELEASED, pairing="random")
    with pytest.raises(ValueError, match="views=4: one in training"):
        sampling.Sampling(RELEASED, training=True, views=4)
    with pytest.raises(ValueError, match="take one or both of spec, rgb"):
        sampling.Sampling(RELEASED, streams=("video",))
    with pytest.raises(ValueError, match="smaller than a crop of 224"):
        sampling.Sampling(RELEASED, training=True, padded_size=(200, 400))


def test_padded_training_frames_hold_a_wide_video_and_evaluation_the_crop():
    assert sampling.Sampling(RELEASED, training=True).frame_size == (256, 455)
    assert sampling.Sampling(RELEASED).frame_size == (224, 224)
