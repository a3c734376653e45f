"""Facts about the way from a file to a clip: log-mels, sampled frames, and both on one clock."""

import math
import wave as wavefile
from dataclasses import replace

import jax
import numpy as np
import pytest

from mbt_lite import features, media
from mbt_lite.config import WORLD_FRONT_END, ClipConfig, FrontEnd, from_dict, to_dict
from mbt_lite.data import world
from mbt_lite.media import RATE, Media

FRONT_ENDS = {
    **features.FRONT_ENDS,
    "default": FrontEnd(),
    "whole band": FrontEnd(fft=1024, low=0.0, high=8000.0),
    "fewer bins": FrontEnd(power=2, mels=64, offset=1e-2),
    "centered, emphasised": FrontEnd(centered=True, pre_emphasis=0.9),
}
# Four frames at 4 per second, one second of audio, no rescaling.
CLIP = ClipConfig(frames=4, fps=4.0, stride=1, size=16, resize=16, spec_frames=100)


def noise(seconds=1.0, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE)).astype(np.float32)


def speechlike(seconds=1.0):
    """A gliding tone with overtones over a little noise: loud and quiet bins in each frame."""
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * (150 * t + 120 * t * t)
    tone = sum(np.sin(k * phase) / k for k in (1, 2, 3, 5, 8))
    return (0.3 * tone + 0.01 * noise(seconds)).astype(np.float32)


def numbered(times, duration, size=(16, 16), wave=None):
    """A `Media` whose frame k is gray of value k."""
    values = np.arange(len(times), dtype=np.uint8)
    frames = np.broadcast_to(values[:, None, None, None], (len(times), *size, 3)).copy()
    wave = np.zeros(round(duration * RATE), np.float32) if wave is None else wave
    return Media(frames, np.array(times, np.float64), wave, 0.0, float(duration), None)


def shown(window, config=CLIP):
    """Which of the numbered frames a view shows."""
    return features.make_view(window, config).rgb[:, 0, 0, 0].tolist()


# --- log-mel -------------------------------------------------------------------------------------


def assert_same_spectrogram(theirs, ours, front):
    """Both sum in float32, so energies may differ by some 1e-6 of the loudest bin of the frame."""
    assert ours.shape == theirs.shape
    if front.compression == "log":
        theirs, ours = (np.exp(values.astype(np.float64)) for values in (theirs, ours))
    loudest = np.maximum(ours, 1e-6).max(1, keepdims=True)
    np.testing.assert_allclose(theirs / loudest, ours / loudest, atol=5e-6)


@pytest.mark.parametrize("front", FRONT_ENDS.values(), ids=FRONT_ENDS)
@pytest.mark.parametrize("wave", [noise(), speechlike()], ids=["noise", "tone"])
def test_the_log_mel_in_jax_equals_the_one_in_numpy(front, wave):
    theirs = np.asarray(features.log_mels(wave, front))
    assert_same_spectrogram(theirs, features.log_mel(wave, front), front)


def test_log_mels_of_a_batch_are_those_of_its_waves():
    waves = np.stack([noise(), speechlike()])
    batch = np.asarray(features.log_mels(waves, FrontEnd()))
    for one, wave in zip(batch, waves, strict=True):
        assert_same_spectrogram(one, features.log_mel(wave, FrontEnd()), FrontEnd())


@pytest.mark.filterwarnings("ignore:Empty filters")  # narrower than a bin of the FFT; so be it
@pytest.mark.parametrize("front", FRONT_ENDS.values(), ids=FRONT_ENDS)
@pytest.mark.full
def test_mel_filters_are_those_of_librosa(front):
    librosa = pytest.importorskip("librosa")
    theirs = librosa.filters.mel(
        sr=front.rate, n_fft=front.fft, n_mels=front.mels, fmin=front.low, fmax=front.high,
        htk=True, norm=None,
    )  # fmt: skip
    np.testing.assert_allclose(features.mel_filters(front), theirs.T, atol=1e-6)


@pytest.mark.parametrize("front", FRONT_ENDS.values(), ids=FRONT_ENDS)
@pytest.mark.full
def test_the_log_mel_is_that_of_librosa(front):
    librosa = pytest.importorskip("librosa")
    wave = speechlike().astype(np.float64)
    if front.pre_emphasis:  # zi=[0]: silence before the audio
        wave = librosa.effects.preemphasis(wave, coef=front.pre_emphasis, zi=[0.0])
    before = (front.fft - front.window_samples) // 2  # librosa centres a window in its FFT
    before += front.window_samples // 2 if front.centered else 0
    spectrum = librosa.stft(
        front.amplitude * np.pad(wave, (before, front.fft)),
        n_fft=front.fft, hop_length=front.hop_samples, win_length=front.window_samples,
        window=front.window_fn, center=False,
    )  # fmt: skip
    ours = features.log_mel(speechlike(), front)
    energy = np.abs(spectrum[:, : len(ours)].T) ** front.power @ features.mel_filters(front)
    theirs = energy if front.compression == "none" else np.log(energy + front.offset)
    assert_same_spectrogram(theirs, ours, front)


def test_sixteen_bit_scale_is_a_gain_and_a_larger_offset():
    raised = features.log_mel(speechlike(), FrontEnd(amplitude=32768.0, offset=1.0))
    plain = features.log_mel(speechlike(), FrontEnd(offset=1 / 32768))
    np.testing.assert_allclose(raised, plain + math.log(32768), atol=1e-4)


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 400, 16_000, 16_001])
def test_there_is_one_spectrogram_frame_per_started_hop(samples):
    wave = noise(2)[:samples]
    assert features.log_mel(wave, FrontEnd()).shape == (math.ceil(samples / 160), 128)
    assert features.log_mels(wave, FrontEnd()).shape == (math.ceil(samples / 160), 128)


@pytest.mark.parametrize("front", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_silence_is_the_logarithm_of_the_offset_and_full_scale_noise_is_finite(front):
    silence = features.log_mel(np.zeros(RATE, np.float32), front)
    expected = math.log(front.offset) if front.compression == "log" else 0.0
    np.testing.assert_allclose(silence, expected, atol=1e-5)
    loud = features.log_mel(np.sign(noise()), front)
    heard = features.mel_filters(front).any(0)  # a filter between two bins of the FFT hears nothing
    assert np.isfinite(loud).all() and loud[:, heard].min() > silence.max()


@pytest.mark.parametrize("hz", [200, 1000, 5000])
def test_a_tone_is_loudest_in_the_filter_around_its_frequency(hz):
    front = FrontEnd()
    tone = np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32)
    loudest = features.log_mel(tone, front)[10:90].argmax(1)
    edges = np.linspace(
        features.hz_to_mel(front.low), features.hz_to_mel(front.high), front.mels + 2
    )
    centres = features.mel_to_hz(edges[1:-1])
    bin_width = front.rate / front.fft  # Hz
    assert np.abs(centres[loudest] - hz).max() <= max(bin_width, 0.03 * hz)


def test_statistics_are_mean_and_deviation_over_all_values_of_all_waves():
    waves = [noise(0.5), speechlike(1.0), np.zeros(1600, np.float32)]
    values = np.concatenate([features.log_mel(w, FrontEnd()).ravel() for w in waves])
    expected = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    assert features.statistics(waves, FrontEnd()) == pytest.approx(expected, rel=1e-6)


MEASURED = [name for name in features.FRONT_ENDS if name != "linear-mel"]
OTHERS = [pytest.param(n, marks=pytest.mark.full) for n in MEASURED if n != "world"]


@pytest.mark.parametrize("name", ["world", *OTHERS])
def test_the_statistics_of_a_preset_are_those_of_a_hundred_scenes_of_the_world(name, hundred):
    front = features.FRONT_ENDS[name]
    assert features.statistics(hundred, front) == pytest.approx((front.mean, front.std), abs=0.006)


@pytest.fixture(scope="module")
def hundred():
    return [world.wave(world.scene(world.SPLITS["train"], index)) for index in range(100)]


def test_a_preset_is_selected_by_name_also_with_own_statistics():
    released = features.front_end("linear-mel")
    assert (released.mean, released.std, released.compression) == (1.102, 2.762, "none")
    assert features.front_end("yamnet") is features.FRONT_ENDS["yamnet"]
    own = features.front_end("yamnet:-1.6:1.5")
    assert own == replace(features.FRONT_ENDS["yamnet"], mean=-1.6, std=1.5)


@pytest.mark.parametrize("name", ["yamet", "yamnet:1", "yamnet:a:b", "yamnet:1:2:3", ""])
def test_an_unknown_preset_is_refused_with_a_list_of_all(name):
    with pytest.raises(ValueError, match=rf"no front end '{name}'; the presets are linear-mel"):
        features.front_end(name)


def test_the_front_end_of_files_written_before_its_newer_fields_is_unchanged():
    newer = {"compression", "amplitude", "pre_emphasis", "window_fn", "centered"}
    old = {k: v for k, v in to_dict(WORLD_FRONT_END).items() if k not in newer}
    assert from_dict(FrontEnd, old) == WORLD_FRONT_END


# --- sampling ------------------------------------------------------------------------------------


def test_each_sampled_time_takes_the_frame_shown_then():
    # Instants 0.125, 0.375, 0.625 and 0.875 s; frames that begin at uneven times.
    assert shown(numbered([0, 0.1, 0.5, 0.9], 1.0)) == [1, 1, 2, 2]
    assert shown(numbered([0, 0.2, 0.3, 0.88], 1.0)) == [0, 2, 2, 2]


def test_a_frame_that_begins_at_the_sampled_time_is_taken():
    assert shown(numbered([0, 0.125, 0.375, 0.625, 0.875], 1.0)) == [1, 2, 3, 4]


def test_before_the_first_frame_the_first_is_taken():
    assert shown(numbered([0.5, 0.8], 1.0)) == [0, 0, 0, 1]


def test_a_longer_file_gives_video_and_audio_around_its_middle():
    marker = np.arange(3 * RATE, dtype=np.float32) / (3 * RATE)
    window = numbered(np.arange(12) / 4, 3.0, wave=marker)
    view = features.make_view(window, CLIP)
    assert view.rgb[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    np.testing.assert_allclose(view.times, [1.125, 1.375, 1.625, 1.875])
    np.testing.assert_array_equal(view.wave, marker[RATE : 2 * RATE])
    assert not view.notes


def test_a_clip_shorter_than_the_window_is_looped_and_a_note_says_so():
    half = np.linspace(-0.5, 0.5, RATE // 2, dtype=np.float32)
    view = features.make_view(numbered([0, 0.25], 0.5, wave=half), CLIP)
    assert view.rgb[:, 0, 0, 0].tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(view.wave, np.tile(half, 2))
    assert view.notes == ("0.5 s of audio looped to 1 s", "0.5 s of video looped to 1 s")


@pytest.fixture
def flash_and_beep(tmp_path):
    """A file of 3 s in which frames turn white and a tone begins, both at 1.2 s."""
    path, times = tmp_path / "flash.mp4", np.arange(75) / 25
    white = np.broadcast_to((255 * (times >= 1.2 - 1e-6))[:, None, None, None], (75, 32, 48, 3))
    t = np.arange(3 * RATE) / RATE
    tone = 0.7 * np.sin(2 * np.pi * 1000 * t) * (t >= 1.2)
    media.write(path, white.astype(np.uint8), 25, tone.astype(np.float32))
    return path


@pytest.mark.parametrize("start", [0.0, 0.5, None])
@pytest.mark.parametrize("spec_frames", [100, 160, 240], ids="less equal more".split())
def test_a_simultaneous_flash_and_beep_are_simultaneous_in_the_view(
    flash_and_beep, start, spec_frames
):
    config = replace(CLIP, frames=20, fps=12.5, spec_frames=spec_frames)  # a frame each 80 ms
    view = features.read_views(flash_and_beep, config, start=start)[0]
    seen = view.times[np.argmax(view.rgb.mean(axis=(1, 2, 3)) > 128)]
    energy = np.exp(view.spec).max(1)
    heard = view.start + np.argmax(energy > energy.max() / 2) * 0.01
    assert abs(seen - 1.2) <= config.frame_step
    assert abs(heard - 1.2) <= 0.03  # a window is 25 ms
    assert abs(seen - heard) <= config.frame_step


def test_views_are_spread_evenly_over_the_file(flash_and_beep):
    views = features.read_views(flash_and_beep, CLIP, views=3)
    assert [view.start for view in views] == pytest.approx([0, 1, 2], abs=0.05)
    assert [view.rgb.mean() > 128 for view in views] == [False, True, True]
    middle = features.read_views(flash_and_beep, CLIP)[0]
    assert middle.start == pytest.approx(1, abs=0.05)


def test_a_file_without_audio_gives_silence_and_a_note(tmp_path):
    path = tmp_path / "mute.mp4"
    media.write(path, np.full((25, 16, 16, 3), 200, np.uint8), 25)
    view = features.read_views(path, CLIP)[0]
    assert "no audio" in view.notes
    assert not view.wave.any() and view.rgb.min() > 150
    np.testing.assert_allclose(view.spec, math.log(CLIP.front_end.offset), atol=1e-5)


def test_a_file_without_video_gives_black_frames_and_a_note(tmp_path):
    path = tmp_path / "audio.wav"
    with wavefile.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        file.writeframes((noise() * 20_000).astype("<i2").tobytes())
    view = features.read_views(path, CLIP)[0]
    assert "no video" in view.notes
    assert view.rgb.shape == (4, 16, 16, 3) and not view.rgb.any()
    assert np.abs(view.wave).max() > 0.5


def test_reading_an_unusual_clip_warns(tmp_path):
    path = tmp_path / "mute.mp4"
    media.write(path, np.zeros((25, 16, 16, 3), np.uint8), 25)
    with pytest.warns(UserWarning, match="mute.mp4: no audio"):
        clip = features.read_clip(path, CLIP)
    assert clip.rgb.shape == (4, 16, 16, 3) and clip.spec.shape == (100, 128, 3)


# --- size, range, blanks -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 100), (100, 60)], ids=["wide", "tall"])
def test_the_middle_square_is_cropped(shape):
    frame = np.zeros((1, *shape, 3), np.uint8)
    frame[:, :, :, 2] = 255  # blue around
    top, left = (side // 2 - 30 for side in shape)
    frame[:, top : top + 60, left : left + 60] = (255, 0, 0)
    window = replace(numbered([0.0], 1.0), frames=frame)
    view = features.make_view(window, replace(CLIP, size=30, resize=30))
    assert (view.rgb[:, :, 1:-1, 0][:, 1:-1] == 255).all()
    assert (view.rgb[:, :, 1:-1, 2][:, 1:-1] == 0).all()


def test_the_short_side_is_resized_before_the_crop():
    ramp = np.broadcast_to(np.arange(80, dtype=np.uint8)[None, None, :, None], (1, 40, 80, 3))
    window = replace(numbered([0.0], 1.0), frames=ramp.copy())
    view = features.make_view(window, replace(CLIP, size=16, resize=20))  # 20 x 40, then 16 x 16
    expected = 2 * np.arange(12, 28) + 0.5  # columns of the half-size video
    np.testing.assert_allclose(view.rgb[0, 8, :, 0], expected, atol=1)


def test_frames_of_the_right_size_are_unchanged():
    noisy = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    window = replace(numbered(np.arange(4) / 4, 1.0), frames=noisy)
    np.testing.assert_array_equal(features.make_view(window, CLIP).rgb, noisy)


def test_black_is_minus_one_white_is_one_and_log_mels_are_standardized_on_three_channels():
    front = replace(FrontEnd(), mean=-2.0, std=1.5)
    rgb, spec = np.zeros((2, 4, 4, 3), np.uint8), features.log_mel(noise(), front)
    rgb[1] = 255
    clip = jax.jit(lambda rgb, spec: features.normalize(rgb, spec, front))(rgb, spec)
    np.testing.assert_allclose(clip.rgb[0], -1, atol=1e-6)
    np.testing.assert_allclose(clip.rgb[1], 1, atol=1e-6)
    assert clip.spec.shape == (100, 128, 3)
    for channel in range(3):
        np.testing.assert_allclose(clip.spec[..., channel], (spec + 2) / 1.5, atol=1e-5)


def test_with_the_statistics_of_the_data_log_mels_have_mean_0_and_deviation_1():
    mean, std = features.statistics([speechlike()], FrontEnd())
    front = replace(FrontEnd(), mean=mean, std=std)
    clip = features.normalize(
        np.zeros((1, 4, 4, 3), np.uint8), features.log_mel(speechlike(), front), front
    )
    assert float(clip.spec.mean()) == pytest.approx(0, abs=1e-4)
    assert float(clip.spec.std()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("stream, other", [("rgb", "spec"), ("spec", "rgb")])
@pytest.mark.parametrize("front", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_a_blanked_stream_is_what_black_frames_or_silence_would_give(stream, other, front):
    gray = np.full((2, 4, 4, 3), 90, np.uint8)
    clip = features.normalize(gray, features.log_mel(noise(), front), front)
    silence = features.log_mel(np.zeros(RATE, np.float32), front)
    nothing = features.normalize(np.zeros_like(gray), silence, front)
    blank = features.blank(clip, stream, front)
    np.testing.assert_allclose(getattr(blank, stream), getattr(nothing, stream), atol=1e-5)
    np.testing.assert_array_equal(getattr(blank, other), getattr(clip, other))


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"window": 0.040}, r"window of 640 samples does not fit an FFT of 512; use fft=1024"),
        ({"low": 5000.0, "high": 400.0}, r"mel edges 5000.0-400.0 Hz must rise"),
        ({"high": 9000.0}, r"stay under half of the 16000 Hz sampling rate"),
        ({"offset": 0.0}, r"offset=0.0 must be above 0"),
        ({"std": 0.0}, r"std=0.0 must be above 0"),
        ({"power": 3}, r"power=3 is none of 1, 2"),
        ({"compression": "cube"}, r"compression='cube' is none of log, none"),
        ({"window_fn": "kaiser"}, r"window_fn='kaiser' is none of hamming, hann"),
        ({"amplitude": 0.0}, r"amplitude=0.0 must be above 0"),
        ({"pre_emphasis": 1.0}, r"pre_emphasis=1.0 must be at least 0 and below 1"),
    ],
)
def test_a_front_end_that_cannot_work_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=rf"^front end 'mine': .*{sentence}.*\.$"):
        FrontEnd(name="mine", **change)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"frames": 0}, "clip.frames=0 must lie in 1..65,536"),
        ({"stride": 0}, "clip.stride=0"),
        ({"fps": 0.0}, "clip.fps=0.0 must lie in 0.001..1,000"),
        ({"spec_frames": 0}, "clip.spec_frames=0"),
        ({"size": 300}, "a crop of 300 pixels does not fit a short side of 256"),
    ],
)
def test_a_clip_that_cannot_be_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=rf"{sentence}.*\.$"):
        ClipConfig(**change)


def test_the_lengths_of_a_clip_follow_from_its_counts():
    config = ClipConfig()  # the paper's: 32 frames, every second one of 25 per second
    assert config.frame_step == pytest.approx(0.08)
    assert config.video_seconds == pytest.approx(2.56)
    assert config.audio_seconds == pytest.approx(8.0)
