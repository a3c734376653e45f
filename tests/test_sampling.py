"""Which moments a clip is sampled at, compared with what the reference does."""

from dataclasses import replace

import numpy as np
import pytest

from mbt_lite.config import PAIRINGS, STREAMS, ClipConfig
from mbt_lite.data.sampling import Sampling
from mbt_lite.features import frame_times

TEN_SECONDS = {"rgb": 10.0, "spec": 10.0}
RELEASED = ClipConfig()
PAPER = replace(RELEASED, frames=8, stride=25)
SHORT = replace(RELEASED, frames=8, stride=12, spec_frames=400)
FPS, ROW_RATE = RELEASED.fps, 1 / RELEASED.front_end.hop


def sampled(clip, pairing, lengths=TEN_SECONDS, rng=None, **options):
    sampling = Sampling(clip, pairing=pairing, streams=tuple(lengths), **options)
    return sampling.windows(lengths, rng or np.random.default_rng(0))


def drawn(clip, pairing, count=500, lengths=TEN_SECONDS):
    rng = np.random.default_rng(0)
    return [sampled(clip, pairing, lengths, rng, training=True)[0] for _ in range(count)]


def reference(window, clip=RELEASED):
    """The first frame and the first spectrogram row of a window, as the reference counts them."""
    step = clip.frame_step / 2
    return round((window["rgb"] + step) * clip.fps, 6), round(window["spec"] * ROW_RATE, 6)


def middles(window, clip=RELEASED):
    """Of video and audio, in s."""
    return tuple(window[stream] + clip.lengths[stream] / 2 for stream in ("rgb", "spec"))


@pytest.mark.parametrize(
    "clip, share", [(RELEASED, 0.73), (PAPER, 0.32), (SHORT, 0.09)], ids=["32x2", "8x25", "8x12"]
)
def test_by_ratio_so_many_training_spectrograms_run_past_the_end(clip, share):
    windows = drawn(clip, "ratio", 20_000)
    wrapped = [window["spec"] + clip.audio_seconds > 10 + 1e-6 for window in windows]
    assert np.mean(wrapped) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("clip", [RELEASED, PAPER, SHORT], ids=["32x2", "8x25", "8x12"])
def test_synchronised_windows_never_run_past_the_end(clip):
    for window in drawn(clip, "synchronised"):
        for stream, start in window.items():
            assert 0 <= start <= 10 - clip.lengths[stream] + 1e-9


def test_by_ratio_video_and_audio_begin_at_the_same_share_of_the_clip():
    windows = [reference(window) for window in drawn(RELEASED, "ratio", 20_000)]
    assert {frame for frame, _ in windows} == set(range(188))
    assert all(row == 4 * frame for frame, row in windows)


def test_synchronised_video_and_audio_have_the_same_middle():
    for window in drawn(RELEASED, "synchronised"):
        assert abs(np.subtract(*middles(window))) < 1e-9
    apart = [np.subtract(*middles(window)) for window in drawn(RELEASED, "ratio")]
    assert np.abs(apart).max() > 2.5  # s


def test_synchronised_draws_use_all_the_instants_around_which_both_windows_fit():
    middles_drawn = [middles(window)[1] for window in drawn(RELEASED, "synchronised", 5000)]
    assert min(middles_drawn) < 4.01 and max(middles_drawn) > 5.99
    assert np.histogram(middles_drawn, 4, (4, 6))[0].min() > 1100


def test_validation_takes_the_middle_as_the_reference_does():
    (window,) = sampled(RELEASED, "ratio")
    assert reference(window) == (93, 100)
    (window,) = sampled(RELEASED, "synchronised")
    assert window == pytest.approx({"rgb": 93 / FPS, "spec": 100 / ROW_RATE})


def test_by_ratio_four_test_windows_are_those_of_the_reference():
    windows = sampled(RELEASED, "ratio", views=4)
    assert list(map(reference, windows)) == [(0, 0), (62, 66), (124, 133), (186, 200)]


def test_four_synchronised_test_windows_share_their_middles_and_reach_both_ends():
    windows = sampled(RELEASED, "synchronised", views=4)
    assert [window["spec"] for window in windows] == pytest.approx([0, 2 / 3, 4 / 3, 2])
    for window in windows:
        assert abs(np.subtract(*middles(window))) < 1e-9


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_clip_that_is_too_short_goes_on_at_its_beginning(pairing):
    short, begin = {"rgb": 1.2, "spec": 1.2}, {"rgb": -0.04 * (pairing == "ratio"), "spec": 0}
    rng = np.random.default_rng(0)
    assert sampled(RELEASED, pairing, short, rng, training=True) == [begin]
    assert sampled(RELEASED, pairing, short, views=3) == [begin] * 3
    times = frame_times(replace(RELEASED, frames=4), 1.2, 1.1)
    np.testing.assert_allclose(times, [1.14, 0.02, 0.1, 0.18])


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("stream", STREAMS)
def test_a_clip_of_one_stream_is_sampled_over_all_of_it(pairing, stream):
    windows = drawn(RELEASED, pairing, lengths={stream: 10.0})
    assert all(set(window) == {stream} for window in windows)
    begins, last = [window[stream] for window in windows], 10 - RELEASED.lengths[stream]
    assert min(begins) < 0.05 * last and max(begins) > 0.95 * last


def test_what_cannot_be_sampled_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="choose one of synchronised, ratio"):
        Sampling(RELEASED, pairing="random")
    with pytest.raises(ValueError, match="views=0: take one or more"):
        Sampling(RELEASED, views=0)
    with pytest.raises(ValueError, match="take one or both of spec, rgb"):
        Sampling(RELEASED, streams=("video",))
    with pytest.raises(ValueError, match="smaller than a crop of 224"):
        Sampling(RELEASED, training=True, padded_size=(200, 400))


def test_padded_training_frames_hold_a_wide_video_and_evaluation_the_crop():
    assert Sampling(RELEASED, training=True).frame_size == (256, 455)
    assert Sampling(RELEASED).frame_size == (224, 224)
