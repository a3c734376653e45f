"""What the doctor finds in clips, on small files that the tests make themselves."""

import json
import math
import re
import shlex
import subprocess
import wave as riff
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mbt_lite import cli, media, plot
from mbt_lite.config import BASE, WORLD_CLIP, WORLD_FRONT_END, ClipConfig
from mbt_lite.data import doctor, extract, tables
from mbt_lite.data.doctor.measure import bandwidth, clipped
from mbt_lite.data.doctor.survey import channels, survey
from mbt_lite.features import FRONT_ENDS, read_views

pytestmark = pytest.mark.full

RATE = media.RATE
SILENCE = np.zeros(4 * RATE, np.float32)


def noise(seconds=4.0, level=0.1, rate=RATE, seed=0):
    """White noise [S]: audio at every pitch."""
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype("f4")


def grain(seconds=4.0, fps=10, size=(72, 96), seed=0):
    """Coarse random frames [T, H, W, 3] that change all the time."""
    small = np.random.default_rng(seed).integers(0, 256, (round(seconds * fps), 6, 8, 3), np.uint8)
    return small.repeat(size[0] // 6, axis=1).repeat(size[1] // 8, axis=2)


def black(seconds=4.0, fps=10):
    return np.zeros((round(seconds * fps), 72, 96, 3), np.uint8)


def clip(folder, frames=None, wave=None, fps=10):
    """A file with such frames and audio, the good ones where none are given."""
    frames = grain() if frames is None else frames
    media.write(folder / "clip.mp4", frames, fps, noise() if wave is None else wave)
    return folder / "clip.mp4"


def wav(path, samples, rate=RATE):
    """An audio file of channels [C, S]."""
    with riff.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1).T * 32767).astype("<i2").tobytes())
    return path


def said(report, severity):
    return [finding.found for finding in report.findings if finding.severity == severity]


def only(report, severity="warning"):
    """The one finding of this severity, apart from a missing video."""
    kept = [f for f in report.findings if f.severity == severity and "no video" not in f.found]
    assert len(kept) == 1, kept
    return kept[0]


# ---- a good clip ----


def test_an_ordinary_clip_gets_a_clean_bill(tmp_path):
    report = doctor.examine(clip(tmp_path))
    assert report.findings == () and report.fit and report.verdict == "fit"
    assert report.found.start == pytest.approx(1, abs=0.05) and report.views == 2
    assert report.statistics["loudness"] == pytest.approx(-20, abs=1)
    assert list(doctor.facts(report)) == ["video", "audio", "model", "level"]
    text = doctor.note(report)
    assert "96 x 72, 10 frames/s, 4.0 s" in text and "aac, 16 kHz, mono, 4.0 s" in text
    assert "12% cut off left and right; all of the file with --views 2" in text


@pytest.mark.parametrize("size", [(72, 96), (96, 72), (96, 96)])
def test_what_the_crop_keeps_is_what_the_model_gets(tmp_path, size):
    config = ClipConfig(frames=8, fps=4, stride=1, size=48, resize=60, spec_frames=200)
    report = doctor.examine(clip(tmp_path, grain(size=(96, 96))[:, : size[0], : size[1]]), config)
    across, down = report.kept
    height, width = report.found.frames.shape[1:3]
    assert (across * width, down * height) == pytest.approx((48, 48), abs=1)


def test_the_spectrogram_is_measured_as_the_model_standardises_it(tmp_path):
    report = doctor.examine(clip(tmp_path))
    spec = np.asarray(report.view.clip.spec)
    assert report.statistics["mean_off"] == pytest.approx(spec.mean(), abs=1e-4)
    assert report.statistics["spread"] == pytest.approx(spec.std(), abs=1e-4)


# ---- audio ----


@pytest.mark.parametrize("level", [0, 128], ids=["black", "plain"])
def test_silence_is_a_warning_and_with_an_empty_picture_a_fault(tmp_path, level):
    seen = doctor.examine(clip(tmp_path, wave=SILENCE))
    assert seen.fit and only(seen).found == "The audio is silent throughout."
    empty = (black() + level).astype(np.uint8)
    nothing = doctor.examine(clip(tmp_path, empty, SILENCE))
    assert not nothing.fit and len(said(nothing, "fault")) == 2


def test_silence_in_the_middle_comes_with_a_place_that_has_sound(tmp_path):
    wave = np.concatenate([noise(2), np.zeros(6 * RATE, np.float32)])
    finding = only(doctor.examine(clip(tmp_path, grain(8), wave)))
    assert "silent where the model looks (3.0-5.0 s)" in finding.found
    line = shlex.split(finding.do.partition("mbt-lite ")[2])
    view = read_views(line[1], WORLD_CLIP, start=float(line[3]))[0]
    assert line[2] == "--start" and view.wave.std() > 0.05


def test_faint_sound_is_turned_up_by_the_advice(tmp_path):
    path = wav(tmp_path / "faint.wav", noise(level=0.001)[None])
    finding = only(doctor.examine(path))
    assert finding.found.startswith("The audio is very faint: -60 dB")
    mended = doctor.examine(follow(finding.do))
    assert mended.statistics["loudness"] == pytest.approx(-25, abs=1)


def test_clipped_samples_are_runs_at_full_scale():
    samples = np.zeros((2, 12), np.float32)
    samples[0, 1:3] = 1  # two are a peak
    samples[1, 5:8] = -1  # three are a run
    samples[1, 10:12] = 1  # the end is no run either
    assert np.flatnonzero(clipped(samples)).tolist() == [5, 6, 7]
    assert clipped(np.ones((1, 12), np.float32)).all()


def test_clipped_sound_is_found_and_marked_where_it_is(tmp_path):
    wave = noise(level=0.05)
    wave[RATE : RATE + 1600] = 3 * np.sign(np.sin(np.arange(1600) / 20))  # 0.1 s from 1 s on
    report = doctor.examine(wav(tmp_path / "a.wav", wave[None]))
    assert only(report).found == "The audio is clipped: 2.5% of it stands at full scale."
    assert 1 <= report.clipped.min() and report.clipped.max() < 1.1
    ax = next(ax for ax in plot.doctor(report).axes if "clipped" in ax.get_title(loc="left"))
    marks = ax.lines[0].get_xdata()
    np.testing.assert_allclose(marks, report.clipped)


@pytest.mark.parametrize("silent, side", [(0, "right"), (1, "left")])
def test_one_sided_sound_is_mended_by_the_advice(tmp_path, silent, side):
    stereo = np.stack([noise(), noise()])
    stereo[silent] = 0
    finding = only(doctor.examine(wav(tmp_path / "one side.wav", stereo)))
    assert f"Only the {side} channel has audio" in finding.found
    mended = doctor.examine(follow(finding.do))
    assert not [f for f in mended.findings if "channel" in f.found]
    assert mended.statistics["loudness"] == pytest.approx(-20, abs=0.5)


def test_channels_that_cancel_are_mended_by_the_advice(tmp_path):
    opposite = np.stack([noise(), 0.01 * noise(seed=1) - noise()])
    report = doctor.examine(wav(tmp_path / "o.wav", opposite))
    assert report.statistics["correlation"] == pytest.approx(-1, abs=0.01)
    finding = next(f for f in report.findings if "mirror images" in f.found)
    assert not [f for f in doctor.examine(follow(finding.do)).findings if "image" in f.found]
    ordinary = np.stack([noise(), noise(seed=1)])
    assert said(doctor.examine(wav(tmp_path / "o.wav", ordinary)), "warning") == [
        "There is no video in this file."
    ]


def test_sound_off_its_zero_is_mended_by_the_advice(tmp_path):
    finding = only(doctor.examine(wav(tmp_path / "o.wav", noise()[None] + 0.12)))
    assert finding.found == "The audio does not swing around zero, but 12% off it."
    mended = doctor.examine(follow(finding.do))
    assert mended.statistics["shift"] < 0.01


def follow(line):
    """The file that an ffmpeg command line of the doctor makes."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    words = shlex.split(line)
    assert words[0] == "ffmpeg"
    subprocess.run([program, "-nostdin", *words[1:]], check=True, capture_output=True, timeout=60)
    return words[-1]


def low_passed(wave, hertz):
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / RATE) > hertz] = 0
    return np.fft.irfft(spectrum, len(wave)).astype(np.float32)


def test_a_recording_ends_at_a_cliff_and_a_whistle_does_not():
    assert bandwidth(noise(), RATE) == RATE / 2
    assert bandwidth(low_passed(noise(), 4000), RATE) == pytest.approx(4000, abs=200)
    assert bandwidth(low_passed(noise(), 5500), RATE) == pytest.approx(5500, abs=200)
    whistle = np.sin(2 * np.pi * 3300 * np.arange(2 * RATE) / RATE).astype(np.float32)
    assert bandwidth(0.3 * whistle, RATE) == RATE / 2
    assert bandwidth(SILENCE, RATE) == RATE / 2


def test_sound_of_a_telephone_leaves_the_upper_bands_empty(tmp_path):
    report = doctor.examine(wav(tmp_path / "phone.wav", noise(rate=8000)[None], 8000))
    assert only(report).found.startswith("The audio ends at 4.0 kHz, as on the telephone")
    levels = np.median(report.view.spec, axis=0)
    empty = levels < levels.max() - 3  # 26 dB under the loudest band
    assert report.empty_bands == pytest.approx(empty.mean(), abs=0.05)


def test_a_lone_beep_is_far_from_what_the_model_knows(tmp_path):
    beep = SILENCE.copy()
    beep[2 * RATE : 2 * RATE + 800] = 0.3 * np.sin(np.arange(800) / 5)
    finding = only(doctor.examine(clip(tmp_path, wave=beep)))
    assert "emptier than what the model knows" in finding.found


# ---- video ----


@pytest.mark.parametrize(
    "frames, found",
    [
        (black(), "The video is black throughout."),
        (black(20), "The video is black in all 5 places that were tried."),
        (black() + 128, "The video is one plain colour."),
        (grain()[:1].repeat(40, axis=0), "The video stands still where the model looks"),
        (np.concatenate([grain(1), black(6), grain(1)]), "The video is black where the model"),
    ],
)
def test_a_picture_without_news_is_a_warning(tmp_path, frames, found):
    report = doctor.examine(clip(tmp_path, frames.astype(np.uint8), noise(len(frames) / 10)))
    assert report.fit and only(report).found.startswith(found)


def test_one_frame_a_second_is_too_few(tmp_path):
    report = doctor.examine(clip(tmp_path, grain(8, fps=1), noise(8), fps=1))
    assert "every 1 s, and the model looks 4 times" in only(report).found
    assert report.survey.video.rate == pytest.approx(1, rel=0.01)
    assert not doctor.examine(clip(tmp_path, grain(fps=3), fps=3)).findings


def test_a_tiny_picture_is_enlarged_and_a_long_one_mostly_cropped(tmp_path):
    tiny = doctor.examine(clip(tmp_path, grain(size=(36, 48))))
    assert said(tiny, "note") == [
        "The video is small (48 x 36 pixels); it is enlarged to the model's 48 pixels."
    ]
    wide = doctor.examine(clip(tmp_path, np.tile(grain(), (1, 1, 3, 1))))
    assert only(wide).found == "The model sees only the middle 25% of the video."


def test_a_lone_jpeg_is_no_video(tmp_path):
    Image.fromarray(grain()[0]).save(tmp_path / "a.mp4", format="jpeg")
    report = doctor.examine(tmp_path / "a.mp4")
    assert "It is a single image, not a video." in said(report, "warning")
    assert len(report.findings) == 2  # and there is no audio; nothing is said about its length


# ---- streams and time ----


def test_a_missing_stream_is_a_warning_unless_the_model_has_no_other(tmp_path):
    media.write(tmp_path / "mute.mp4", grain(), 10)
    assert only(doctor.examine(tmp_path / "mute.mp4")).found == "There is no audio in this file."
    assert not doctor.examine(tmp_path / "mute.mp4", streams=("rgb",)).findings
    deaf = doctor.examine(tmp_path / "mute.mp4", streams=("spec",))
    assert not deaf.fit and said(deaf, "fault") == ["There is no audio in this file."]


def test_a_short_clip_is_repeated(tmp_path):
    assert said(doctor.examine(clip(tmp_path, grain(1.5), noise(1.5))), "note") == [
        "There is only 1.5 s where the model looks (0.0-1.5 s); it wants 2 s, so it is repeated."
    ]
    assert "only 0.5 s" in only(doctor.examine(clip(tmp_path, grain(0.5), noise(0.5)))).found


def test_streams_that_begin_and_end_apart_are_noted(tmp_path):
    media.write(tmp_path / "late.mp4", grain(3), 1.5 + np.arange(30) / 10, noise(3))
    report = doctor.examine(tmp_path / "late.mp4")
    assert said(report, "note") == [
        "The video starts 1.5 s after the audio.",
        "The audio ends 1.5 s before the video.",
    ]
    assert report.verdict == "fit"


def test_a_video_in_an_unknown_codec_is_there_but_cannot_be_decoded(tmp_path):
    path = clip(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    sentence = "here is a video track, but its codec (xyz1) cannot be decoded"
    assert said(doctor.examine(path), "warning") == [f"T{sentence}."]
    settings = extract.Settings(FRONT_ENDS["linear-mel"], ("a",))
    with pytest.raises(ValueError, match=re.escape(f"in the window: t{sentence}; a clip needs")):
        extract.example(tables.Annotation("a", path, None, None, ("a",), None), settings)


def test_another_track_is_the_remedy_for_a_silent_one(tmp_path):
    path = tmp_path / "tracks.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for stream, wave in zip(streams, (SILENCE, noise()), strict=True):
            samples = np.round(wave * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    silent = doctor.examine(path, streams=("spec",))
    assert "--audio-track 2" in only(silent, "fault").do
    assert doctor.examine(path, replace(WORLD_CLIP, audio_track=2), ("spec",)).fit
    refused = doctor.examine(path, replace(WORLD_CLIP, audio_track=3), ("spec",))
    assert only(refused, "fault").do.startswith("There is 1 (pcm_s16le, mono) and 2 (")


def test_a_pause_of_the_picture_is_noted(tmp_path):
    times = np.concatenate([np.arange(20) / 10, 4 + np.arange(20) / 10])
    media.write(tmp_path / "pause.mp4", grain(), times, noise(6))
    report = doctor.examine(tmp_path / "pause.mp4")
    assert "No new video comes for 2.1 s at 1.9 s." in said(report, "note")


def test_a_change_of_size_on_the_way_is_noted(tmp_path):
    parts = []
    for start, size in ((0, (72, 96)), (2, (144, 192))):
        with av.open(str(tmp_path / "part.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=10, width=size[1], height=size[0])
            for count, image in enumerate(grain(2, size=size)):
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts = start * 10 + count
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append((tmp_path / "part.ts").read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    notes = said(doctor.examine(tmp_path / "both.ts"), "note")
    assert "The video changes its size on the way." in notes


# ---- damage ----


def cut_fragments(path, share):
    """The first part of a file whose header still promises all of it."""
    with av.open(str(path.with_name("front.mp4")), "w", options={"movflags": "faststart"}) as out:
        with av.open(str(path)) as source:
            streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    whole = path.with_name("front.mp4").read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def test_a_file_cut_off_says_how_much_is_missing_and_where_to_look(tmp_path):
    path = cut_fragments(clip(tmp_path, grain(8), noise(8)), 0.6)
    report = doctor.examine(path)
    assert report.fit and any("The file is cut off" in found for found in said(report, "warning"))
    assert 2 < report.survey.video.end < 6 and report.survey.total == pytest.approx(8, abs=0.1)


def test_bytes_overwritten_are_damage(tmp_path):
    path = clip(tmp_path)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 3000
    stop = data.index(b"moov") - 1000
    for at in np.random.default_rng(0).integers(start, stop, 300):
        data[at] ^= 0xFF
    path.write_bytes(data)
    found = " ".join(said(doctor.examine(path), "warning"))
    assert "is damaged where the model looks" in found


def test_an_encrypted_file_is_called_encrypted(tmp_path):
    keys = {"encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    options = {"encryption_scheme": "cenc-aes-ctr", **keys}
    with av.open(str(tmp_path / "secret.mp4"), "w", options=options) as out:
        with av.open(str(clip(tmp_path))) as source:
            streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    report = doctor.examine(tmp_path / "secret.mp4")
    assert not report.fit and only(report, "fault").found == "It is encrypted."


@pytest.mark.parametrize(
    "content, found, do",
    [
        (b"", "It is empty (0 bytes).", "Copy or download it again."),
        (b"no video", "It is no video or audio that can be read", "Get it again."),
        (b"#EXTM3U\n", "It points to other files", "Give the video itself."),
        (None, "It cannot be opened: No such file", "Check the name."),
    ],
)
def test_what_cannot_be_read_is_not_fit(tmp_path, content, found, do):
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content)
    report = doctor.examine(tmp_path / "x.mp4")
    assert report.verdict == "not fit" and report.view is None
    finding = only(report, "fault")
    assert finding.found.startswith(found) and finding.do == do
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.doctor(report)


# ---- the file itself ----


def test_the_survey_knows_where_streams_lie_without_decoding(tmp_path):
    media.write(tmp_path / "a.mp4", grain(3), 1 + np.arange(30) / 10, noise(3.5))
    seen = survey(tmp_path / "a.mp4")
    assert (seen.video.start, seen.video.end) == pytest.approx((1, 4), abs=0.02)
    assert (seen.audio.start, seen.audio.end) == pytest.approx((0, 3.5), abs=0.1)
    assert seen.video.packets == 30 and not seen.video.varies and not seen.broken


def test_channels_come_at_their_own_rate_and_place(tmp_path):
    stereo = np.stack([noise(3, rate=22_050), np.zeros(66_150, np.float32)])
    stored = channels(wav(tmp_path / "a.wav", stereo, 22_050), 1.5, 1)
    assert stored.rate == 22_050 and stored.samples.shape[0] == 2
    at = round(stored.start * 22_050)
    assert 1.3 < stored.start <= 1.5 and stored.samples.shape[1] / 22_050 >= 1
    part = stereo[:, at : at + stored.samples.shape[1]]
    np.testing.assert_allclose(stored.samples, part, atol=1e-4)


# ---- words, numbers and images ----


def test_a_report_is_json_without_infinities(tmp_path):
    report = doctor.examine(clip(tmp_path, wave=SILENCE))
    assert report.statistics["loudness"] == -math.inf
    row = json.loads(json.dumps(doctor.to_dict(report), allow_nan=False))
    assert row["fit"] and row["statistics"]["loudness"] is None
    assert row["findings"][0]["severity"] == "warning" and row["views"] == 2


def test_the_picture_shows_the_crop_the_window_and_the_findings(tmp_path):
    report = doctor.examine(clip(tmp_path, grain(8), noise(8, level=0.0005)))
    figure = plot.doctor(report)
    frames = [ax for ax in figure.axes if ax.images and not ax.get_ylabel()]
    assert len(frames) == 6
    height, width = report.found.frames.shape[1:3]
    box = frames[0].patches[-1]
    assert (box.get_width(), box.get_height()) == pytest.approx((0.75 * width, height))
    timeline = next(ax for ax in figure.axes if "time in the file" in ax.get_xlabel())
    for window in timeline.patches[-2:]:
        assert (window.get_x(), window.get_width()) == pytest.approx((3, 2), abs=0.05)
    assert any("very faint" in text.get_text() for text in figure.texts)
    alt = plot.doctor_alt(report)
    assert "looks at 3.0 to 5.0 s" in alt and "75% of the video" in alt and "faint" in alt


@pytest.mark.parametrize("name", ["only audio.wav", "鐘 $x$.mp4"])
def test_a_picture_is_drawn_of_any_name_and_of_sound_alone(tmp_path, name):
    if name.endswith("wav"):
        wav(tmp_path / name, noise()[None])
    else:
        clip(tmp_path).rename(tmp_path / name)
    path = plot.save(plot.doctor(doctor.examine(tmp_path / name)), tmp_path / "out.png")
    with Image.open(path) as image:
        assert min(image.size) > 400


def test_the_released_models_clip_is_examined_too(tmp_path):
    config = ClipConfig(front_end=WORLD_FRONT_END)
    report = doctor.examine(clip(tmp_path), config, BASE.streams)
    assert report.views == 1 and report.kept == pytest.approx((0.75 * 224 / 256, 224 / 256))
    found = " ".join(said(report, "note") + said(report, "warning"))
    assert "it wants 8 s" in found and "enlarged to the model's 224 pixels" in found
    long = doctor.examine(clip(tmp_path, grain(10), noise(10)), config, BASE.streams)
    assert doctor.facts(long)["model"].startswith("hears 1.0-9.0 s, sees 3.7-6.3 s, 32 frames")
    assert min(long.view.times) > 3.7 and max(long.view.times) < 6.3


# ---- the command ----


def test_the_exit_code_says_whether_all_clips_are_fit(capsys, tmp_path):
    good = str(clip(tmp_path))
    (tmp_path / "bad.mp4").write_text("no video")
    assert cli.main(["doctor", good]) == 0
    assert capsys.readouterr().out.startswith(f"{good}: fit\n")
    assert cli.main(["doctor", str(tmp_path / "bad.mp4"), good, "--json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["fit"] for row in rows] == [False, True] and "Traceback" not in err


def test_pictures_go_to_a_file_or_a_folder(capsys, tmp_path):
    good, out = str(clip(tmp_path)), tmp_path / "out"
    (tmp_path / "bad.mp4").write_text("no video")
    assert cli.main(["doctor", good, str(tmp_path / "bad.mp4"), "--out", str(out)]) == 1
    assert [path.name for path in out.iterdir()] == ["clip.mp4.png"]
    assert "bad.mp4 gives nothing to draw" in capsys.readouterr().err
    assert cli.main(["doctor", good, good, "--out", str(tmp_path / "one.png")]) == 1
    assert "one video for 2 clips" in capsys.readouterr().err
    assert cli.main(["doctor", good, "--out", str(tmp_path / "one.jpg")]) == 1
    assert "only .png" in capsys.readouterr().err and not (tmp_path / "one.jpg").exists()
    assert cli.main(["doctor"]) == 1
    assert "no clip given" in capsys.readouterr().err


def test_no_weights_are_needed_to_examine_for_a_model_of_the_zoo(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MBT_LITE_CACHE", str(tmp_path))
    clip = str(Path(__file__).parents[1] / "data_samples" / "bell.mp4")
    assert cli.main(["doctor", clip, "--model", "as500k-rgb-spec"]) == 0
    assert "32 frames" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
