"""The doctor's findings on small files that the tests write themselves."""

import json
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
from mbt_lite.features import FRONT_ENDS

pytestmark = pytest.mark.full

RATE = media.RATE
SILENCE = np.zeros(4 * RATE, np.float32)


def noise(seconds=4.0, level=0.1, seed=0):
    """White noise [S]."""
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype("f4")


def grain(seconds=4.0, fps=10, size=(72, 96), seed=0):
    """Coarse random frames [T, H, W, 3] that change all the time."""
    small = np.random.default_rng(seed).integers(0, 256, (round(seconds * fps), 6, 8, 3), np.uint8)
    return small.repeat(size[0] // 6, axis=1).repeat(size[1] // 8, axis=2)


def black(seconds=4.0, fps=10):
    return np.zeros((round(seconds * fps), 72, 96, 3), np.uint8)


def clip(folder, frames=None, wave=None, fps=10):
    """A file with these frames and this audio; by default good ones."""
    frames = grain() if frames is None else frames
    media.write(folder / "clip.mp4", frames, fps, noise() if wave is None else wave)
    return folder / "clip.mp4"


def wav(path, samples):
    """An audio file of channels [C, S]."""
    with riff.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1).T * 32767).astype("<i2").tobytes())
    return path


def problems(report, severity):
    return [finding.problem for finding in report.findings if finding.severity == severity]


def only(report, severity="warning"):
    """The single finding of this severity, apart from a missing video."""
    findings = [f for f in report.findings if f.severity == severity and f.problem != "No video."]
    assert len(findings) == 1, findings
    return findings[0]


# ---- a good clip ----


def test_an_ordinary_clip_has_no_findings(tmp_path):
    report = doctor.examine(clip(tmp_path))
    assert report.findings == () and report.fit and report.verdict == "fit"
    assert report.window.start == pytest.approx(1, abs=0.05) and report.views == 2
    assert report.statistics["loudness"] == pytest.approx(-20, abs=1)
    assert list(doctor.facts(report)) == ["video", "audio", "model", "level"]
    text = doctor.note(report)
    assert "96 x 72, 10 frames/s, 4.0 s" in text and "aac, 16 kHz, mono, 4.0 s" in text
    assert "12% cut off left and right; all of the file with --views 2" in text
    spec = np.asarray(report.view.clip.spec)  # standardized
    assert report.statistics["mean_off"] == pytest.approx(spec.mean(), abs=1e-4)
    assert report.statistics["spread"] == pytest.approx(spec.std(), abs=1e-4)


@pytest.mark.parametrize("size", [(72, 96), (96, 72)])
def test_the_reported_crop_is_what_the_model_sees(tmp_path, size):
    config = ClipConfig(frames=8, fps=4, stride=1, size=48, resize=60, spec_frames=200)
    report = doctor.examine(clip(tmp_path, grain(size=(96, 96))[:, : size[0], : size[1]]), config)
    across, down = report.crop
    height, width = report.window.frames.shape[1:3]
    assert (across * width, down * height) == pytest.approx((48, 48), abs=1)


# ---- audio ----


@pytest.mark.parametrize("level", [0, 128], ids=["black", "plain"])
def test_an_empty_stream_is_a_warning_and_two_of_them_are_a_fault(tmp_path, level):
    empty = doctor.examine(clip(tmp_path, (black() + level).astype(np.uint8), SILENCE))
    assert not empty.fit and len(problems(empty, "fault")) == 2
    wave = np.concatenate([noise(2), np.zeros(6 * RATE, np.float32)])
    silent = doctor.examine(clip(tmp_path, grain(8), wave))
    assert silent.fit
    assert only(silent).problem == "The audio is silent where the model looks (3.0-5.0 s)."
    assert only(silent).do.endswith("clip.mp4 --views 4")


def run_ffmpeg(line):
    """Run a command line that the doctor advises; the file that it writes."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    words = shlex.split(line)
    assert words[0] == "ffmpeg"
    subprocess.run([program, "-nostdin", *words[1:]], check=True, capture_output=True, timeout=60)
    return words[-1]


def test_the_advice_for_faint_audio_makes_it_louder(tmp_path):
    path = wav(tmp_path / "very faint.wav", noise(level=0.001)[None])
    finding = only(doctor.examine(path))
    assert finding.problem.startswith("The audio is very faint: -60 dB")
    repaired = doctor.examine(run_ffmpeg(finding.do))
    assert repaired.statistics["loudness"] == pytest.approx(-25, abs=1)


def test_clipped_audio_is_measured(tmp_path):
    wave = noise(level=0.05)
    wave[RATE : RATE + 1600] = 3 * np.sign(np.sin(np.arange(1600) / 20))  # 0.1 s of 4 s
    report = doctor.examine(wav(tmp_path / "a.wav", wave[None]))
    assert only(report).problem == "The audio is clipped: 2.5% of it is at full scale."


def test_another_track_is_the_advice_for_a_silent_one(tmp_path):
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


# ---- video and time ----


@pytest.mark.parametrize(
    "frames, problem",
    [
        (black(), "The video is black where the model looks (1.0-3.0 s)."),
        (black() + 128, "The video is one plain color."),
        (grain()[:1].repeat(40, axis=0), "The video stands still where the model looks"),
    ],
)
def test_video_without_content_is_a_warning(tmp_path, frames, problem):
    report = doctor.examine(clip(tmp_path, frames.astype(np.uint8)))
    assert report.fit and only(report).problem.startswith(problem)


def test_a_missing_stream_is_a_warning_unless_the_model_has_no_other(tmp_path):
    media.write(tmp_path / "mute.mp4", grain(), 10)
    assert only(doctor.examine(tmp_path / "mute.mp4")).problem == "No audio."
    assert not doctor.examine(tmp_path / "mute.mp4", streams=("rgb",)).findings
    audio_model = doctor.examine(tmp_path / "mute.mp4", streams=("spec",))
    assert not audio_model.fit and problems(audio_model, "fault") == ["No audio."]


def test_a_video_in_an_unknown_codec_is_named(tmp_path):
    path = clip(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    sentence = "here is a video track, but its codec (xyz1) cannot be decoded"
    assert problems(doctor.examine(path), "warning") == [f"T{sentence}."]
    settings = extract.Settings(FRONT_ENDS["linear-mel"], ("a",))
    with pytest.raises(ValueError, match=re.escape(f"in the window: t{sentence}; a clip needs")):
        extract.example(tables.Annotation("a", path, None, None, ("a",), None), settings)


def test_a_short_clip_is_repeated(tmp_path):
    assert problems(doctor.examine(clip(tmp_path, grain(1.5), noise(1.5))), "note") == [
        "There is only 1.5 s where the model looks (0.0-1.5 s); the model takes 2 s, so it is "
        "repeated."
    ]
    assert "only 0.5 s" in only(doctor.examine(clip(tmp_path, grain(0.5), noise(0.5)))).problem


def test_streams_that_start_and_end_apart_are_noted(tmp_path):
    media.write(tmp_path / "late.mp4", grain(3), 1.5 + np.arange(30) / 10, noise(3.5))
    report = doctor.examine(tmp_path / "late.mp4")
    assert problems(report, "note") == [
        "The video starts 1.5 s after the audio.",
        "The audio ends 1.0 s before the video.",
    ]
    assert report.verdict == "fit"
    assert (report.survey.video.start, report.survey.video.end) == pytest.approx(
        (1.5, 4.5), abs=0.02
    )
    assert (report.survey.audio.start, report.survey.audio.end) == pytest.approx((0, 3.5), abs=0.1)


# ---- damage ----


def test_a_file_that_was_cut_off_says_how_much_is_missing(tmp_path):
    path = tmp_path / "front.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        with av.open(str(clip(tmp_path, grain(8), noise(8)))) as source:
            streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])
    report = doctor.examine(path)
    assert report.fit and any("s of 8.0 s can be read" in p for p in problems(report, "warning"))
    assert 2 < report.survey.video.end < 6 and report.survey.total == pytest.approx(8, abs=0.1)


def test_overwritten_bytes_are_damage(tmp_path):
    path = clip(tmp_path)
    data = bytearray(path.read_bytes())
    start, stop = data.index(b"mdat") + 3000, data.index(b"moov") - 1000
    for at in np.random.default_rng(0).integers(start, stop, 300):
        data[at] ^= 0xFF
    path.write_bytes(data)
    assert "could not be decoded" in " ".join(problems(doctor.examine(path), "warning"))


@pytest.mark.parametrize(
    "content, problem, advice",
    [
        (b"", "It is empty (0 bytes).", "Copy or download it again."),
        (b"no video", "It is no video or audio that can be read", "Get it again."),
        (b"#EXTM3U\n", "It points to other files", "Give the video itself."),
        (None, "It cannot be opened: No such file", "Check the name."),
    ],
)
def test_a_file_that_cannot_be_read_is_not_fit(tmp_path, content, problem, advice):
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content)
    report = doctor.examine(tmp_path / "x.mp4")
    assert report.verdict == "not fit" and report.view is None
    finding = only(report, "fault")
    assert finding.problem.startswith(problem) and finding.do == advice
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.doctor(report)


# ---- JSON and figure ----


def test_the_figure_shows_the_crop_the_window_and_the_findings(tmp_path):
    report = doctor.examine(clip(tmp_path, grain(8), noise(8, level=0.0005)))
    figure = plot.doctor(report)
    (frames,) = (ax for ax in figure.axes if ax.images and not ax.get_ylabel())
    assert len(frames.get_xticks()) == 6
    height, width = report.window.frames.shape[1:3]
    box = frames.patches[0]
    assert (box.get_width(), box.get_height()) == pytest.approx((0.75 * width, height))
    timeline = next(ax for ax in figure.axes if "time in the file" in ax.get_xlabel())
    for window in timeline.patches[-2:]:
        assert (window.get_x(), window.get_width()) == pytest.approx((3, 2), abs=0.05)
    assert "very faint" in figure.get_suptitle()


@pytest.mark.filterwarnings("ignore:no font on this machine")
def test_the_figure_accepts_any_name_and_audio_alone(tmp_path):
    path = wav(tmp_path / "鐘 $x$.wav", noise()[None])
    saved = plot.save(plot.doctor(doctor.examine(path)), tmp_path / "out.png")
    with Image.open(saved) as image:
        assert min(image.size) > 400


def test_the_window_of_the_released_models_is_examined(tmp_path):
    config = ClipConfig(front_end=WORLD_FRONT_END)
    report = doctor.examine(clip(tmp_path), config, BASE.streams)
    assert report.views == 1 and report.crop == pytest.approx((0.75 * 224 / 256, 224 / 256))
    assert "the model takes 8 s" in " ".join(problems(report, "note") + problems(report, "warning"))
    long = doctor.examine(clip(tmp_path, grain(10), noise(10)), config, BASE.streams)
    assert doctor.facts(long)["model"].startswith("hears 1.0-9.0 s, sees 3.7-6.3 s, 32 frames")
    assert min(long.view.times) > 3.7 and max(long.view.times) < 6.3


# ---- the command ----


def test_the_exit_code_says_whether_all_clips_are_fit(capsys, tmp_path):
    silent = str(clip(tmp_path, wave=SILENCE))
    (tmp_path / "bad.mp4").write_text("no video")
    assert cli.main(["doctor", silent]) == 0
    assert capsys.readouterr().out.startswith(f"{silent}: fit, but see the warnings\n")
    assert cli.main(["doctor", str(tmp_path / "bad.mp4"), silent, "--json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["fit"] for row in rows] == [False, True] and "Traceback" not in err
    assert rows[1]["statistics"]["loudness"] is None  # JSON has no infinity
    assert rows[1]["findings"][0]["severity"] == "warning"


def test_figures_go_to_a_file_or_a_folder(capsys, tmp_path):
    good, out = str(clip(tmp_path)), tmp_path / "out"
    (tmp_path / "bad.mp4").write_text("no video")
    assert cli.main(["doctor", good, str(tmp_path / "bad.mp4"), "--out", str(out)]) == 1
    assert [path.name for path in out.iterdir()] == ["clip.mp4.png"]
    assert "bad.mp4 gives nothing to draw" in capsys.readouterr().err
    assert cli.main(["doctor", good, good, "--out", str(tmp_path / "a.png")]) == 1
    assert "one figure for 2 clips" in capsys.readouterr().err
    assert cli.main(["doctor", good, "--out", str(tmp_path / "a.jpg")]) == 1
    assert "only .png" in capsys.readouterr().err and not (tmp_path / "a.jpg").exists()
    assert cli.main(["doctor"]) == 1
    assert "no clip given" in capsys.readouterr().err


def test_no_weights_are_needed_to_examine_for_a_model_of_the_zoo(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MBT_LITE_CACHE", str(tmp_path))
    bell = str(Path(__file__).parents[1] / "data_samples" / "bell.mp4")
    assert cli.main(["doctor", bell, "--model", "as500k-rgb-spec"]) == 0
    assert "32 frames" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
