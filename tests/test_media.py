"""Facts about reading video and audio, on small files that the tests make themselves."""

import io
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from mbt_lite import features
from mbt_lite.config import WORLD_CLIP
from mbt_lite.media import (
    RATE,
    MediaError,
    decode,
    hdr,
    probe,
    read,
    seconds,
    write,
)
from mbt_lite.media.decode import VideoDecoder, downmix

FPS = 25
FRAME = 1 / FPS  # s


def flash(seconds, at, fps=FPS, size=(48, 64)):
    """Black frames [T, H, W, 3] with 0.2 s of white from `at`."""
    times = np.arange(round(seconds * fps)) / fps
    white = (times >= at - 1e-6) & (times < at + 0.2)
    return np.broadcast_to(255 * white[:, None, None, None], (len(times), *size, 3)).astype(
        np.uint8
    )


def beep(seconds, at, rate=RATE):
    """Silence [S] with 0.2 s of 1 kHz from `at`."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.8 * np.sin(2 * np.pi * 1000 * t) * ((t >= at) & (t < at + 0.2))).astype(np.float32)


def flash_time(media):
    return media.times[np.argmax(media.frames.mean(axis=(1, 2, 3)) > 128)]


def beep_time(media):
    return np.argmax(np.abs(media.wave) > 0.25) / media.rate


def encode(path, frames=None, stamps=None, wave=None, rate=RATE, video=None, audio=None, **stream):
    """A file as plain as PyAV makes it; `wave` [C, S], `stamps` [T] s, format from the name."""
    ticks = Fraction(1, FPS if str(path).endswith("avi") else 90_000)
    with av.open(str(path), "w") as container:
        if frames is not None:
            v = container.add_stream(video or "libx264", rate=stream.pop("fps", FPS))
            v.height, v.width = frames.shape[1:3]
            v.pix_fmt = stream.pop("pix_fmt", "yuv420p")
            v.codec_context.time_base = ticks
            v.codec_context.options = {"bf": "0", "g": "25"} if v.name == "libx264" else {}
            v.codec_context.options |= stream.get("options", {})
            if "turn" in stream:
                v.set_display_rotation(*stream["turn"])
            if "aspect" in stream:
                v.codec_context.sample_aspect_ratio = Fraction(stream["aspect"])
        if wave is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(wave)]
            a = container.add_stream(audio or "aac", rate=rate, layout=layout)
            a.codec_context.time_base = Fraction(1, rate)
        if frames is not None:
            stamps = np.arange(len(frames)) / FPS if stamps is None else stamps
            for image, stamp in zip(frames, stamps, strict=True):
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = round(stamp / ticks), ticks
                container.mux(v.encode(frame))
            container.mux(v.encode(None))
        if wave is not None:
            for at in range(0, wave.shape[1], 1024):
                part = np.ascontiguousarray(wave[:, at : at + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
                resampler = av.AudioResampler(a.codec_context.format, layout, rate)
                for converted in resampler.resample(frame):
                    container.mux(a.encode(converted))
            container.mux(a.encode(None))


def remuxed(source, target, since=0.0, by=0.0, kinds=("video", "audio"), **options):
    """Copy the packets of a file to another one, those from `since` s on moved by `by` s."""
    with av.open(str(target), "w", options=options) as out, av.open(str(source)) as container:
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
        for packet in container.demux():
            if packet.dts is None:
                continue
            if packet.stream.type in kinds and packet.dts * packet.time_base >= since:
                ticks = round(by / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    return target


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """8 s, flash and beep at 5.0 s."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write(path, flash(8, 5), FPS, beep(8, 5))
    return path


# ---- one clock ----


def test_flash_and_beep_coincide_within_a_frame(clip):
    media = read(clip)
    assert media.frames.shape == (200, 48, 64, 3) and media.wave.shape == (8 * RATE,)
    np.testing.assert_allclose(media.times, np.arange(200) / FPS, atol=1e-3)
    assert flash_time(media) == pytest.approx(5, abs=1e-3)
    assert beep_time(media) == pytest.approx(5, abs=0.01)
    assert media.notes == () and media.total == pytest.approx(8, abs=1e-3)


@pytest.mark.parametrize("start", [0.4, 1.0, 3.7, 4.0, 4.93])
def test_a_window_keeps_flash_and_beep_together(clip, start):
    media = read(clip, start, 2)
    assert media.wave.shape == (2 * RATE,)
    assert -FRAME < media.times[0] <= 1e-3 and media.times[-1] < 2
    if start >= 3.7:
        assert flash_time(media) == pytest.approx(5 - start, abs=1e-3)
        assert beep_time(media) == pytest.approx(5 - start, abs=0.01)


def test_a_window_equals_the_same_part_of_the_whole(clip):
    whole, part = read(clip), read(clip, 4.5, 1)
    same = (whole.times >= 4.5 - FRAME + 1e-3) & (whole.times < 5.5 - 1e-3)
    np.testing.assert_array_equal(part.frames, whole.frames[same])
    np.testing.assert_allclose(part.wave, whole.wave[72_000:88_000], atol=1e-3)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts", "late.avi"])
def test_a_video_that_starts_at_3_s_stays_with_the_audio(tmp_path, name):
    codecs = {"video": "mpeg4", "audio": "mp2"} if name.endswith("avi") else {}
    shift = 0 if name.endswith("avi") else 3  # avi has no time stamps
    stamps = np.arange(75) / FPS + shift
    encode(tmp_path / name, flash(3, 1), stamps, beep(8, 1 + shift)[None], **codecs)
    media = read(tmp_path / name)
    assert media.times[0] == pytest.approx(shift, abs=0.07)  # aac starts 64 ms early in ts
    assert flash_time(media) == pytest.approx(beep_time(media), abs=FRAME)
    assert any("starts 3." in note for note in media.notes) == bool(shift)
    part = read(tmp_path / name, 2 if shift else 0.5, 3)
    assert flash_time(part) == pytest.approx(beep_time(part), abs=FRAME)


def test_audio_that_starts_late_is_padded_in_front(tmp_path, clip):
    media = read(remuxed(clip, tmp_path / "a.mkv", -9, 2, ("audio",)))
    assert flash_time(media) == pytest.approx(5, abs=FRAME)
    assert beep_time(media) == pytest.approx(7, abs=0.01)
    assert not media.wave[: 2 * RATE - 100].any()


def test_a_recording_without_a_duration_is_read_through(tmp_path, clip):
    path = remuxed(clip, tmp_path / "b.mkv", live="1")  # as a browser records
    assert probe(path).duration == seconds(path) == pytest.approx(8, abs=0.2)
    first, middle, last = features.read_views(path, WORLD_CLIP, 3)
    assert [first.start, middle.start, last.start] == pytest.approx([0, 3, 6], abs=0.2)


def test_packets_before_time_0_are_hidden(tmp_path, clip):
    media = read(remuxed(clip, tmp_path / "cut.mp4", -9, -4.5))
    assert flash_time(media) == pytest.approx(beep_time(media), abs=FRAME)


def test_audio_is_placed_to_the_sample_at_every_rate(tmp_path):
    for rate in (8_000, 22_050, 44_100, 48_000, 96_000):
        encode(tmp_path / "a.mkv", wave=beep(3, 1, rate)[None], rate=rate, audio="flac")
        for start in (0.0, 0.5):
            wave = read(tmp_path / "a.mkv", start, 2).wave
            ideal = beep(3, 1)[round(start * RATE) :][: 2 * RATE]
            lags = [np.dot(np.roll(ideal, lag), wave) for lag in range(-8, 9)]
            assert abs(int(np.argmax(lags)) - 8) <= 1, rate


# ---- the video ----


def corners(height=48, width=64):
    """One frame with red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((1, height, width, 3), np.uint8)
    image[0, : height // 2, : width // 2, 0] = 255
    image[0, : height // 2, width // 2 :, 1] = 255
    image[0, height // 2 :, : width // 2, 2] = 255
    image[0, height // 2 :, width // 2 :] = 255
    return np.repeat(image, 5, axis=0)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_frames_come_upright(tmp_path, degrees, flips):
    stored = corners()
    encode(tmp_path / "a.mp4", stored, turn=(degrees, *flips))
    media = read(tmp_path / "a.mp4")
    upright = np.rot90(stored, degrees // 90, axes=(1, 2))  # counter-clockwise
    upright = upright[:, :, ::-1] if flips[0] else upright
    upright = upright[:, ::-1] if flips[1] else upright
    assert media.frames.shape == upright.shape
    assert np.abs(media.frames.astype(int) - upright).mean() < 12
    assert any("upright" in note for note in media.notes) == bool(degrees or any(flips))
    info = probe(tmp_path / "a.mp4")
    assert (info.height, info.width) == upright.shape[1:3]


@pytest.mark.parametrize(
    "codec, pix_fmt, name, size",
    [
        ("libx264", "yuv420p10le", "a.mkv", (48, 64)),
        ("libx264", "yuv444p", "a.mkv", (47, 61)),
        ("ffv1", "gray", "a.mkv", (48, 64)),
        ("libx264", "yuvj420p", "a.mkv", (48, 64)),
        ("libvpx-vp9", "yuva420p", "a.webm", (48, 64)),
        ("png", "rgba", "a.mov", (47, 61)),
        ("ffv1", "gray16le", "a.mkv", (48, 64)),
        ("mjpeg", "yuvj444p", "a.avi", (47, 61)),
        ("gif", "rgb8", "a.gif", (47, 61)),
    ],
)
def test_every_pixel_format_gives_the_same_grays(tmp_path, codec, pix_fmt, name, size):
    ramp = np.linspace(0, 255, 5).astype(np.uint8)[:, None, None, None]
    frames = np.broadcast_to(ramp, (5, *size, 3)).copy()
    encode(tmp_path / name, frames, video=codec, pix_fmt=pix_fmt)
    media = read(tmp_path / name)
    assert media.frames.shape == frames.shape
    tolerance = 40 if codec == "gif" else 6  # 8 or 4 levels per color
    assert np.abs(media.frames.mean(axis=(1, 2, 3)) - ramp[:, 0, 0, 0]).max() < tolerance


@pytest.mark.parametrize("degrees", [0, 90, 180])
@pytest.mark.parametrize(
    "codec, pix_fmt, name",
    [("libx264", "yuv420p", "a.mp4"), ("qtrle", "rgb24", "in_container.mov")],
)
def test_anamorphic_video_is_shown_with_square_pixels(tmp_path, codec, pix_fmt, name, degrees):
    stored = corners(48, 32)
    encode(tmp_path / name, stored, video=codec, pix_fmt=pix_fmt, turn=(degrees,), aspect=2)
    shown = np.rot90(corners(48, 64), degrees // 90, axes=(1, 2))
    media, info = read(tmp_path / name), probe(tmp_path / name)
    assert media.frames.shape == shown.shape and (info.height, info.width) == shown.shape[1:3]
    assert np.abs(media.frames.astype(int) - shown).mean() < 12
    small = read(tmp_path / name, short_side=24).frames
    assert sorted(small.shape[1:3]) == [24, 32]


@pytest.mark.parametrize("aspect, width", [("404/405", 64), ("100/1", 64), ("8/9", 57)])
def test_a_pixel_aspect_of_rounding_or_damage_is_ignored(tmp_path, aspect, width):
    encode(tmp_path / "a.mov", corners(), video="qtrle", pix_fmt="rgb24", aspect=aspect)
    assert read(tmp_path / "a.mov").frames.shape == (5, 48, width, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(tmp_path, orientation):
    stored, exif = Image.fromarray(corners()[0]), Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(read(tmp_path / "a.png").frames[0], upright)
    info = probe(tmp_path / "a.png")
    assert (info.height, info.width) == upright.shape[:2]


def test_a_video_of_photos_with_exif_is_read(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, image in enumerate(corners()):
            photo = io.BytesIO()
            Image.fromarray(image).save(photo, "JPEG", exif=exif)
            packet = av.Packet(photo.getvalue())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, FPS), stream, True
            container.mux(packet)
    media = read(tmp_path / "a.mov")
    assert len(media.frames) == 5 and np.abs(media.frames.astype(int) - corners()).mean() < 12


def colored(path, signal, matrix, transfer, primaries, pix_fmt="yuv444p10le", tag=None):
    """A short video of an RGB signal [H, W, 3], 1 at full scale, with the tags of its colors."""
    tag = tag or matrix
    image = av.VideoFrame.from_ndarray(np.round(signal * 65535).astype(np.uint16), "rgb48le")
    frame = image.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=1)
    frame.color_trc, frame.color_primaries, frame.colorspace = transfer, primaries, tag
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *signal.shape[:2], pix_fmt
        about = stream.codec_context
        about.color_trc, about.color_primaries = transfer, primaries
        about.colorspace, about.color_range = tag, 1
        for number in range(3):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


COLORS = np.array([[128, 128, 128], [200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 60, 20]])


def signal(transfer):
    """COLORS [1, 5, 3] as a signal in BT.2020, white at 203 cd/m2 (BT.2408) where it is HDR."""
    to_709 = np.array(hdr.TO_BT709[hdr.BT2020])
    light = (COLORS / 255) ** 2.4 @ np.linalg.inv(to_709).T * 0.203  # 1: 1000 cd/m2
    if transfer == 18:
        light *= np.power(light @ [0.2627, 0.6780, 0.0593], 1 / 1.2 - 1)[:, None]
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(
            light <= 1 / 12, np.sqrt(3 * light), a * np.log(np.maximum(12 * light, 1) - b) + c
        )
    if transfer == 16:
        root = (light / 10) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    return (light / 0.203) ** (1 / 2.4)


@pytest.mark.parametrize("transfer, name", [(16, "PQ"), (18, "HLG"), (14, "BT.2020")])
def test_hdr_and_wide_colors_are_converted_to_bt709(tmp_path, transfer, name):
    fields = np.kron(signal(transfer)[None], np.ones((16, 16, 1)))
    colored(tmp_path / "a.mkv", fields, 9, transfer, 9)
    media = read(tmp_path / "a.mkv")
    off = np.abs(media.frames[0, 8, 8::16].astype(int) - COLORS)
    assert off.max() <= 15 and off[0].max() <= 2  # near black one step of 10 bits is seen
    assert any(name in note and "BT.709" in note for note in media.notes)


def test_highlights_of_hdr_stay_apart_and_below_white():
    """From reference white on, each step of light is a little brighter, the brightest 255."""
    ramp = np.linspace(38_000, 65_535, 9).astype(np.uint16)  # PQ, about 200 to 10,000 cd/m2
    gray = hdr.to_bt709(np.repeat(ramp[None, :, None], 3, axis=2), "PQ", 9)[0, :, 0].astype(int)
    assert 225 < gray[0] < 250 and (np.diff(gray) >= 0).all() and gray[-1] == 255


@pytest.mark.parametrize("matrix, tag", [(1, 1), (5, 5), (5, 2), (9, 9), (5, 8), (5, 13)])
def test_ordinary_colors_are_converted_by_their_tags(tmp_path, matrix, tag):
    """Without a tag, or with one that libswscale does not know, as BT.601."""
    fields = np.kron(COLORS[None] / 255, np.ones((16, 16, 1)))
    colored(tmp_path / "a.mkv", fields, matrix, 1, 1, "yuv444p", tag)
    media = read(tmp_path / "a.mkv")
    assert np.abs(media.frames[0, 8, 8::16].astype(int) - COLORS).max() <= 4


def test_times_follow_a_varying_frame_rate(tmp_path):
    stamps = np.array([0, 0.04, 0.08, 0.5, 0.54, 1.5, 1.54])
    encode(tmp_path / "a.mp4", flash(0.28, 9), stamps)
    media = read(tmp_path / "a.mp4")
    np.testing.assert_allclose(media.times, stamps, atol=1e-3)
    assert "the frame rate varies" in media.notes


def moving(seconds):
    """Frames [T, 48, 64, 3] of noise that shifts, so that none is like another."""
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0)
    picture = picture.repeat(8, 1)
    return np.stack([np.roll(picture, t, (0, 1)) for t in range(round(seconds * FPS))])


UNEVEN = np.cumsum([0.04, 0.04, 0.2, 0.04] * 50)
SOME = {  # by file name: options of `encode`, and the start of the window
    "reordered.mp4": ({"options": {"bf": "3", "g": "50"}}, 0.5),
    "from the middle.mp4": ({"options": {"bf": "3", "g": "12"}}, 3.2),
    "uneven.mkv": ({"stamps": UNEVEN}, 4),
    "no index.ts": ({"options": {"bf": "2", "g": "30"}}, 2.5),
    "distant keys.ts": ({"options": {"g": "1000"}}, 3.5),
    "old.avi": ({"video": "mpeg4", "audio": "mp2"}, 1),
    "other.webm": ({"video": "libvpx", "audio": "libopus"}, 1),
    "late.mp4": ({"stamps": np.arange(200) / FPS + 3}, 2),
    "silent.mp4": ({"wave": None}, 2),
    "ends.mp4": ({}, 6.5),
}


@pytest.mark.parametrize("name", SOME)
def test_frames_at_some_instants_are_those_of_a_full_read(tmp_path, name, monkeypatch):
    options, start = SOME[name]
    encode(
        tmp_path / name, **{"frames": moving(8), "wave": beep(8, 5)[None], "rate": RATE} | options
    )

    def middle(length):
        return length / 2 + np.arange(-4, 5) * 0.08

    placed = []
    monkeypatch.setattr(
        VideoDecoder, "place", lambda self, f, old=VideoDecoder.place: placed.append(old(self, f))
    )
    whole, all_of_them = read(tmp_path / name, start, 4), len(placed)
    some = read(tmp_path / name, start, 4, at=middle)
    shown = np.searchsorted(whole.times, middle(whole.duration) + 1e-6, side="right") - 1
    np.testing.assert_array_equal(some.times, whole.times[np.unique(shown)])
    np.testing.assert_array_equal(some.frames, whole.frames[np.unique(shown)])
    np.testing.assert_array_equal(some.wave, whole.wave)
    assert (some.duration, some.notes, some.total) == (whole.duration, whole.notes, whole.total)
    assert len(placed) - all_of_them < all_of_them


def test_a_damaged_video_is_decoded_as_a_whole(tmp_path):
    encode(tmp_path / "a.mkv", moving(8), wave=beep(8, 5)[None])
    data = bytearray((tmp_path / "a.mkv").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 600] = bytes(600)
    (tmp_path / "a.mkv").write_bytes(data)
    whole = read(tmp_path / "a.mkv", 2, 4)
    some = read(tmp_path / "a.mkv", 2, 4, at=lambda length: length / 2 + np.arange(4) / FPS)
    assert any("damaged" in note for note in whole.notes) and some.notes == whole.notes
    np.testing.assert_array_equal(some.frames, whole.frames)


def test_reduced_frames_are_area_means(tmp_path):
    checks = np.indices((64, 96)).sum(axis=0) % 2 * 255  # finest pattern there is: mean gray
    frames = np.repeat(np.repeat(checks[None, :, :, None], 3, axis=3), 3, axis=0).astype(np.uint8)
    encode(tmp_path / "a.mkv", frames, video="ffv1", pix_fmt="bgr0")
    media = read(tmp_path / "a.mkv", short_side=16)
    assert media.frames.shape == (3, 16, 24, 3)
    assert np.abs(media.frames.astype(int) - 127).max() <= 2
    assert read(tmp_path / "a.mkv", short_side=500).frames.shape == frames.shape  # never enlarged


def test_a_change_of_size_and_rate_on_the_way_is_scaled_and_resampled(tmp_path):
    encode(tmp_path / "a.ts", flash(2, 1), wave=np.tile(beep(2, 1, 44_100), (2, 1)), rate=44_100)
    later = flash(2, 1, size=(96, 128)), np.arange(50) / FPS + 2
    encode(tmp_path / "b.ts", *later, wave=beep(4, 3, 22_050)[None, :], rate=22_050)
    joined = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "c.ts").write_bytes(joined)
    media = read(tmp_path / "c.ts")
    assert media.frames.shape[1:] == (48, 64, 3) and len(media.frames) >= 95
    assert "the video changes its size on the way" in media.notes
    assert np.abs(media.wave[round(0.9 * RATE) : round(1.3 * RATE)]).max() > 0.5


# ---- the audio ----


def test_all_channels_are_mixed(tmp_path):
    for channels in (1, 2, 6):
        for loud in range(channels):
            wave = np.zeros((channels, RATE), np.float32)
            wave[loud] = beep(1, 0.3)
            encode(tmp_path / "a.mkv", wave=wave, audio="flac")
            peak = np.abs(read(tmp_path / "a.mkv").wave).max()
            weight = downmix("5.1", 6)[loud] if channels == 6 else 1 / channels
            assert peak == pytest.approx(0.8 * weight, rel=0.02)


@pytest.mark.parametrize(
    "layout, weights",  # what `ffmpeg -ac 1` has
    [
        ("2.1", (0.5, 0.5, 0)),
        ("quad", (0.2929, 0.2929, 0.2071, 0.2071)),
        ("5.1", (0.2071, 0.2071, 0.2929, 0, 0.1464, 0.1464)),
        ("5.1(side)", (0.2071, 0.2071, 0.2929, 0, 0.1464, 0.1464)),
        ("6 channels", (0.2071, 0.2071, 0.2929, 0, 0.1464, 0.1464)),
        ("6.1", (0.1807, 0.1807, 0.2555, 0, 0.1277, 0.1277, 0.1277)),
        ("7.1", (0.1602, 0.1602, 0.2265, 0, 0.1133, 0.1133, 0.1133, 0.1133)),
        ("ambisonic 1", (1, 0, 0, 0)),
        ("16 channels", (0.0625,) * 16),
    ],
)
def test_many_channels_are_mixed_with_the_standard_downmix(layout, weights):
    np.testing.assert_allclose(downmix(layout, len(weights)), weights, atol=1e-4)


def test_missing_streams_are_noted(tmp_path):
    write(tmp_path / "silent.mp4", flash(1, 0.5), FPS)
    media = read(tmp_path / "silent.mp4")
    assert media.wave.shape == (0,) and media.notes == ("no audio",)
    encode(tmp_path / "deaf.m4a", wave=beep(1, 0.5)[None])
    media = read(tmp_path / "deaf.m4a")
    assert media.frames.shape[0] == media.times.shape[0] == 0 and "no video" in media.notes
    assert media.wave.shape == (RATE,)


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory):
    """A silent audio track that players choose, and one with a beep at 0.5 s."""
    path = tmp_path_factory.mktemp("tracks") / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("flac", rate=RATE, layout="mono") for _ in range(2)]
        streams[0].metadata["language"], streams[1].metadata["title"] = "eng", "On the camera"
        for stream, wave in zip(streams, (np.zeros(RATE, np.float32), beep(1, 0.5)), strict=True):
            samples = np.round(wave * 32767).astype(np.int16)
            for at in range(0, RATE, 4000):
                frame = av.AudioFrame.from_ndarray(samples[None, at : at + 4000], "s16", "mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def test_another_track_with_audio_is_named_where_the_default_one_is_silent(two_tracks):
    assert not read(two_tracks).wave.any()
    said = [note for note in read(two_tracks).notes if "--audio-track 2" in note]
    assert len(said) == 1 and 'audio track 2 (flac, mono, "On the camera") has audio' in said[0]
    assert not any("--audio-track" in note for note in read(two_tracks, audio_track=1).notes)


def test_an_audio_track_is_chosen_by_its_number(two_tracks):
    media = read(two_tracks, audio_track=2)
    assert beep_time(media) == pytest.approx(0.5, abs=0.01)
    clip = replace(WORLD_CLIP, audio_track=2)
    assert features.read_views(two_tracks, clip)[0].wave.any()
    with pytest.raises(MediaError, match=r"no audio track 3; there is 1 \(flac, mono, eng\) and 2"):
        read(two_tracks, audio_track=3)
    with pytest.raises(ValueError, match="must be 1 or more"):
        replace(WORLD_CLIP, audio_track=0)


@pytest.mark.parametrize(
    "code, kind, name", [(b"avc1", "a video", "video"), (b"mp4a", "an audio", "audio")]
)
def test_a_codec_that_cannot_be_decoded_is_named(clip, tmp_path, code, kind, name):
    path = tmp_path / "a.mp4"
    whole = clip.read_bytes().replace(b"esds", b"free")  # which says aac, too
    path.write_bytes(whole.replace(code, b"xyz1"))
    said = f"there is {kind} track, but its codec (xyz1) cannot be decoded"
    assert said in read(path).notes and not any(f"no {name}" in note for note in read(path).notes)
    with pytest.raises(MediaError, match=re.escape(said)):
        read(path, only=name)
    path.write_bytes(whole.replace(b"avc1", b"xyz1").replace(b"mp4a", b"xyz2"))
    with pytest.raises(MediaError, match=r"\(xyz1\).* and .*\(xyz2\)"):
        read(path)


def test_digital_silence_and_short_audio_are_noted(tmp_path):
    write(tmp_path / "a.mp4", flash(3, 2), FPS, np.zeros(RATE))
    media = read(tmp_path / "a.mp4")
    assert "the audio is digital silence" in media.notes
    assert any("the audio ends" in note for note in media.notes)
    assert media.wave.shape == (3 * RATE,)


def test_a_cover_image_is_not_a_video(tmp_path):
    encode(tmp_path / "a.m4a", wave=beep(2, 0.5)[None])
    with (
        av.open(str(tmp_path / "b.m4a"), "w", format="mp4") as out,
        av.open(str(tmp_path / "a.m4a")) as source,
    ):
        audio = out.add_stream_from_template(source.streams.audio[0])
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(corners()[0], "rgb24")))
        out.mux(cover.encode(None))
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = audio
                out.mux(packet)
    media = read(tmp_path / "b.m4a")
    assert len(media.frames) == 0 and len(media.wave) == pytest.approx(2 * RATE, abs=1100)
    assert "the video in the file is a cover, not a video" in media.notes
    assert not probe(tmp_path / "b.m4a").has_video


# ---- clocks that jump, lengths that are guessed, files that are cut off ----


@pytest.mark.parametrize(
    "name, since, kinds",
    [
        ("both.ts", 4, ("video", "audio")),
        ("both.mkv", 4, ("video", "audio")),
        ("audio.mkv", 4, ("audio",)),
        ("wall clock.mkv", 0, ("audio",)),
        ("audio.mp4", 4, ("audio",)),
    ],
)
def test_time_stamps_that_jump_are_played_on_without_the_jump(tmp_path, clip, name, since, kinds):
    path = remuxed(clip, tmp_path / name, since, 15_000, kinds)
    assert seconds(path) == probe(path).duration == pytest.approx(8, abs=0.3)
    whole, part = read(path), read(path, 4.5, 2)
    for media in (whole, part):
        assert flash_time(media) == pytest.approx(beep_time(media), abs=0.1)
        assert sum("jump" in note for note in media.notes) == len(kinds)
    assert flash_time(whole) == pytest.approx(5, abs=0.25) and len(whole.frames) > 197
    assert flash_time(part) == pytest.approx(0.5, abs=0.25)
    views = features.read_views(path, WORLD_CLIP, 4)
    assert [view.start for view in views] == pytest.approx([0, 2, 4, 6], abs=0.3)


def test_joined_recordings_of_one_clock_last_as_long_as_both(tmp_path, clip):
    data = remuxed(clip, tmp_path / "a.ts").read_bytes()
    (tmp_path / "b.ts").write_bytes(data + data)  # the header is guessed from the last time stamp
    assert seconds(tmp_path / "b.ts") == pytest.approx(16, abs=0.3)
    second = read(tmp_path / "b.ts", 12, 3)
    assert flash_time(second) == pytest.approx(beep_time(second), abs=0.1)
    assert flash_time(second) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("name", ["front.mp4", "a.mkv"])
def test_the_readable_part_of_a_file_that_is_cut_off_is_used(tmp_path, clip, name):
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    data = remuxed(clip, tmp_path / name, **options).read_bytes()
    (tmp_path / "end.mp4").write_bytes(clip.read_bytes()[:-2000])  # the index is at the end
    with pytest.raises(MediaError, match="header is lost"):
        read(tmp_path / "end.mp4")
    (tmp_path / name).write_bytes(data[: len(data) * 4 // 5])
    total = seconds(tmp_path / name)
    assert 1 < total < 7
    for views in (1, 4):
        for view in features.read_views(tmp_path / name, WORLD_CLIP, views):
            assert view.start <= max(total - 2, 0) + 0.01 and len(view.rgb)
            assert f"cut off or damaged: {total:.1f} s of 8." in str(view.notes)


def steady(path, frames):
    """Whether a file gives all frames evenly, also from the middle on."""
    whole, part = read(path), read(path, 3.2, 0.6)
    np.testing.assert_allclose(whole.times, np.arange(len(frames)) / FPS, atol=1e-3)
    apart = np.abs(whole.frames[:, None].astype(int) - frames[None]).mean(axis=(2, 3, 4))
    np.testing.assert_array_equal(apart.argmin(axis=1), np.arange(len(frames)))
    np.testing.assert_allclose(part.times, np.arange(15) / FPS, atol=1e-3)
    np.testing.assert_array_equal(part.frames, whole.frames[80:95])


REORDERED = {"options": {"bf": "3", "b_strategy": "0", "g": "25"}}


def test_avi_with_b_frames_gives_every_frame(tmp_path):
    wave = beep(4, 2)[None]
    encode(tmp_path / "a.avi", moving(4), wave=wave, audio="mp2", **REORDERED)
    steady(tmp_path / "a.avi", moving(4))
    assert not any("varies" in note for note in read(tmp_path / "a.avi").notes)


@pytest.mark.parametrize("name, codec", [("a.h264", "libx264"), ("a.mjpeg", "mjpeg")])
def test_a_stream_without_a_container_is_counted_by_its_frames(tmp_path, name, codec):
    more = REORDERED if codec == "libx264" else {"pix_fmt": "yuvj420p"}
    encode(tmp_path / name, moving(4), video=codec, **more)
    assert seconds(tmp_path / name) == pytest.approx(4, abs=1e-3)
    steady(tmp_path / name, moving(4))
    starts = [view.start for view in features.read_views(tmp_path / name, WORLD_CLIP, 3)]
    assert starts == pytest.approx([0, 1, 2], abs=1e-3)


def test_an_mp3_of_varying_rate_without_a_header_is_measured(tmp_path):
    for name, rate in (("a.mp3", 32_000), ("b.mp3", 320_000)):
        plain = {"write_xing": "0", "id3v2_version": "0"}
        with av.open(str(tmp_path / name), "w", container_options=plain) as out:
            stream = out.add_stream("libmp3lame", rate=44_100, layout="mono")
            stream.bit_rate = rate
            frame = av.AudioFrame.from_ndarray(beep(4, 2, 44_100)[None], "fltp", "mono")
            frame.sample_rate, frame.time_base, frame.pts = 44_100, Fraction(1, 44_100), 0
            out.mux([*stream.encode(frame), *stream.encode(None)])
    joined = (tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes()
    (tmp_path / "c.mp3").write_bytes(joined)
    assert seconds(tmp_path / "c.mp3") == pytest.approx(8.1, abs=0.2)
    starts = [view.start for view in features.read_views(tmp_path / "c.mp3", WORLD_CLIP, 4)]
    assert starts == pytest.approx([0, 2, 4, 6], abs=0.2)
    assert beep_time(read(tmp_path / "c.mp3", 5.5, 2)) == pytest.approx(0.6, abs=0.1)


def test_a_seek_by_byte_rate_gives_audio_of_the_right_second(tmp_path):
    encode(tmp_path / "a.wav", wave=beep(8, 6)[None], audio="adpcm_ima_wav")
    assert beep_time(read(tmp_path / "a.wav", 5, 2)) == pytest.approx(1, abs=0.01)
    encode(tmp_path / "b.wav", wave=beep(6, 1)[None], audio="pcm_s16le")
    with pytest.raises(MediaError, match=r"ends at 6.00 s; ask for a start before that"):
        read(tmp_path / "b.wav", 9, 2)


def test_a_stream_that_ends_before_the_window_is_noted(tmp_path):
    write(tmp_path / "a.mp4", flash(6, 1), FPS, beep(2, 1))
    write(tmp_path / "b.mp4", flash(2, 1), FPS, beep(6, 1))
    assert read(tmp_path / "a.mp4", 3, 2).notes[0] == "the audio ends before the window"
    notes = read(tmp_path / "b.mp4", 3, 2).notes
    assert any("its last frame stands in" in note for note in notes)
    assert not any("only one frame" in note for note in notes)


def test_only_gaps_within_the_window_are_noted(tmp_path, clip):
    path = remuxed(clip, tmp_path / "a.mkv", 2, 0.5)
    assert "the audio has gaps" in read(path).notes
    assert "the audio has gaps" in read(path, 1.5, 2).notes
    assert "the audio has gaps" not in read(path, 3, 2).notes


# ---- names, limits, damage ----


@pytest.mark.parametrize(
    "name", ["-dash.mp4", "percent_%03d.mp4", "视频 'x' ü.mp4", "a.avi", "noext"]
)
def test_the_name_of_a_file_does_not_matter(tmp_path, clip, name, monkeypatch):
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read(name, 1, 1).frames, read(clip, 1, 1).frames)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "dash": '<?xml version="1.0"?><MPD type="static"><BaseURL>{}</BaseURL></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "smil": "<smil><body><video src='{}'/></body></smil>",
    "pls": "[playlist]\nFile1={}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_play_list_is_refused_and_opens_no_connection(tmp_path, clip, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        for target in (clip, f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"):
            (tmp_path / "list.mp4").write_text(PLAYLISTS[kind].format(target))
            with pytest.raises(MediaError, match="points to other files"):
                read(tmp_path / "list.mp4")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 100, bytes(5000)])
def test_a_file_that_is_no_video_is_refused_in_one_sentence(tmp_path, content, capfd):
    (tmp_path / "x.mp4").write_bytes(content)
    for path in (tmp_path / "x.mp4", tmp_path, tmp_path / "missing.mp4"):
        with pytest.raises(MediaError) as error:
            read(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_window_far_after_its_key_frame_has_its_frames(tmp_path):
    """A transport stream has no index: the first seek lands behind the key frame."""
    encode(tmp_path / "a.ts", flash(9, 8), wave=beep(9, 8)[None], options={"g": "1000"})
    media = read(tmp_path / "a.ts", 6, 3)
    assert len(media.frames) >= 73
    assert flash_time(media) == pytest.approx(beep_time(media), abs=FRAME)


def test_titles_in_any_encoding_do_no_harm(tmp_path, clip):
    data = clip.read_bytes().replace(b"VideoHandler", b"Vid\xe9oHandler")
    (tmp_path / "a.mp4").write_bytes(data)
    assert len(read(tmp_path / "a.mp4", 0, 1).frames) == 25


def test_random_damage_never_crashes_nor_hangs(tmp_path, capfd):
    encode(tmp_path / "a.mp4", flash(2, 1), wave=beep(2, 1)[None])
    good, rng = (tmp_path / "a.mp4").read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(good)
        for at in rng.integers(0, len(data), rng.integers(1, 60)):
            data[at] = rng.integers(256)
        (tmp_path / "b.mp4").write_bytes(data)
        begin = time.monotonic()
        try:
            media = read(tmp_path / "b.mp4")
            assert np.isfinite(media.wave).all() and np.abs(media.wave).max(initial=0) <= 1
            assert (np.diff(media.times) > 0).all()
        except MediaError:
            pass
        assert time.monotonic() - begin < 10
    assert capfd.readouterr() == ("", "")


def test_scrambled_streams_are_refused_as_encrypted(tmp_path, clip):
    data = bytearray(clip.read_bytes())
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(MediaError, match="encrypted"):
        read(tmp_path / "a.mp4")


def huge_png():
    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return len(body).to_bytes(4, "big") + kind + body + crc.to_bytes(4, "big")

    size = (30_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + b"\x08\x02\0\0\0")
    body = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


@pytest.mark.full
def test_a_huge_frame_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(huge_png())
    encode(tmp_path / "a.avi", flash(1, 0), video="rawvideo", pix_fmt="bgr24")
    data = bytearray((tmp_path / "a.avi").read_bytes())
    at = data.index(b"strf") + 12  # width and height of the bitmap header
    data[at : at + 8] = (30_000).to_bytes(4, "little") * 2
    (tmp_path / "a.avi").write_bytes(data)
    code = (
        "import resource, sys; from mbt_lite.media import MediaError, read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read(sys.argv[1])\n"
        "except MediaError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    for name in ("a.png", "a.avi"):
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        sentence, kilobytes = out.strip().split("\n")
        assert "pixels" in sentence and name in sentence
        assert int(kilobytes) < 100_000


def test_a_whole_long_file_is_refused_but_a_window_is_read(tmp_path):
    stamps = np.array([0, 1, 4000, 4001, 200_000.0])
    encode(tmp_path / "a.mkv", corners(480, 640), stamps, video="ffv1")
    with pytest.raises(MediaError, match="start= and duration="):
        read(tmp_path / "a.mkv")
    np.testing.assert_allclose(read(tmp_path / "a.mkv", 4000, 10).times, [0, 1], atol=1e-2)


def test_a_file_that_holds_more_than_its_header_says_is_refused_on_the_way(clip, monkeypatch):
    for limit, only in ((600_000, "video"), (300_000, "audio")):  # bytes
        monkeypatch.setattr(decode, "MAX_BYTES", limit)
        with pytest.raises(MediaError, match="clip.mp4 takes more than .* start= and duration="):
            read(clip, only=only)


def test_a_window_past_the_end_is_refused(clip):
    with pytest.raises(MediaError, match="ends at 8"):
        read(clip, 20, 2)
    for wrong in ({"start": -1}, {"duration": 0}, {"short_side": -2}):
        with pytest.raises(MediaError):
            read(clip, **wrong)
    assert any("before the window does" in note for note in read(clip, 7, 5).notes)


# ---- writing and probing ----


@pytest.mark.full
def test_the_same_input_writes_the_same_bytes_and_no_half_file(tmp_path):
    frames, wave = flash(1, 0.5), beep(1, 0.5)
    write(tmp_path / "a.mp4", frames, FPS, wave)
    rng, litter = np.random.default_rng(0), [b""] * 20
    for _ in range(30):  # where in memory things lie must not matter
        litter[rng.integers(20)] = np.zeros(rng.integers(1, 50_000), np.uint8)
        write(tmp_path / "b.mp4", frames.copy(), np.arange(25) / FPS, wave)
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(MediaError, match="even"):
        write(tmp_path / "c.mp4", frames[:, :47], FPS)
    with pytest.raises(ValueError):
        write(tmp_path / "c.mp4", frames, np.zeros(3), wave)
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_probe_tells_size_rate_and_length(clip):
    info = probe(clip)
    assert (info.width, info.height, info.fps, info.sample_rate) == (64, 48, 25.0, RATE)
    assert info.duration == pytest.approx(8, abs=1e-3)
    assert info.has_video and info.has_audio and info.rotation == 0


def test_probe_tells_the_size_of_a_video_whose_first_frames_are_lost(tmp_path):
    encode(tmp_path / "a.mp4", moving(3))  # a key frame every second
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    first = data.find(b"mdat") + 4
    data[first : first + 400] = bytes([255] * 400)
    (tmp_path / "a.mp4").write_bytes(data)
    info = probe(tmp_path / "a.mp4")
    assert info.has_video and (info.width, info.height) == (64, 48)


def test_a_window_has_its_audio_though_the_video_is_lost(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (150, 64, 64, 3)).astype(np.uint8)
    wave = (0.3 * np.sin(0.2 * np.arange(6 * 16_000))).astype(np.float32)
    write(tmp_path / "whole.mp4", frames, 25.0, wave)
    damaged = bytearray((tmp_path / "whole.mp4").read_bytes())
    sizes = damaged.find(b"stsz") + 12  # of the video's samples, the first track in the file
    damaged[sizes : sizes + 400] = bytes(400)
    (tmp_path / "lost.mp4").write_bytes(damaged)
    media = read(tmp_path / "lost.mp4", 3, 2)
    assert len(media.frames) == 0 and np.abs(media.wave).max() > 0.25
    assert any("no video" in note for note in media.notes)


def test_one_stream_alone_equals_that_of_both(tmp_path):
    file = tmp_path / "late.mp4"
    frames = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    wave = np.sin(np.arange(32_000) / 9).astype(np.float32)
    write(file, frames, 0.3 + np.arange(50) / 25, wave)  # the video starts later
    both = read(file, 0.5, 1.0)
    video, audio = (read(file, 0.5, 1.0, only=name) for name in ("video", "audio"))
    np.testing.assert_array_equal(video.frames, both.frames)
    np.testing.assert_array_equal(video.times, both.times)
    np.testing.assert_array_equal(audio.wave, both.wave)
    assert not len(video.wave) and not len(audio.frames)
    assert not any("no audio" in note or "no video" in note for note in video.notes + audio.notes)
    silent = tmp_path / "silent.mp4"
    write(silent, frames, 25.0)
    with pytest.raises(MediaError, match="holds no audio; name a file that does"):
        read(silent, only="audio")
