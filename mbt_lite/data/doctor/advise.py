"""Turn measurements of a clip into findings: what is wrong, how severe it is, what to do.

The real clips that thresholds mention are eleven from public repositories and our own samples.
"""

import math
import shlex
from collections.abc import Iterator
from pathlib import Path

from mbt_lite.data.doctor.measure import (
    FAULT,
    NOTE,
    WARNING,
    Finding,
    Look,
    Report,
)
from mbt_lite.data.doctor.survey import Stream
from mbt_lite.media import MediaError

SILENT = -80.0  # dB of full scale, root mean square: under the noise of 14 bits
QUIET = -55.0  # dB: the noise of a quiet room; real clips lie between -47 and -13
CLIPPED_SHARE = 1e-3  # of all samples: one in a thousand is heard as crackling
ONE_SIDED = 30.0  # dB between two channels: the softer one is a thirtieth of the louder
OPPOSITE = -0.7  # correlation of two channels below which mixing them cancels most of the audio
SHIFTED = 0.05  # of full scale, mean of the samples: a defect of the recorder, not of the audio
EMPTY_BANDS = 0.2  # share of the mel bands above the last audio: as after a telephone
FAR = 2.5  # standard deviations of the model's data; real clips lie within 1.6, a test tone at 3.1
SPREAD = (0.25, 2.5)  # times the model's standard deviation; real clips lie in 0.45 to 1.64
BLACK = 24  # grey level of 255 that 99 % of the pixels stay under: darker than a night scene
PLAIN = 2.0  # grey levels, standard deviation within a frame: one colour, no contour
STILL = 0.3  # grey levels, mean change between looks: less than the grain of a camera
FEW_FRAMES = 0.5  # frames of the file for each one that the model asks for: the rest are repeats
KEPT = 1 / 3  # of the video: less is not the scene that a person would see
APART = 0.1  # s between the beginnings of video and audio: later is noticed
ENDS_APART = 0.5  # s between their ends: containers pad the last frame
HOLE = 0.1  # s without audio: longer than any packet's rounding
STALL = 1.0  # s without a new video, where more were usual
CUT = 1.0  # s that the header promises and the file lacks


def unreadable(report: Report, error: MediaError) -> Finding:
    """A fault that says why nothing could be read."""
    tracks = _tracks(report)
    if tracks and all(stream.encrypted for stream in tracks.values()):
        return Finding(FAULT, "It is encrypted.", "Get a copy without copy protection.")
    sentence = str(error).removeprefix(str(report.path))
    cause, _, remedy = sentence.rpartition("; ")
    subject = "" if cause.startswith(":") else "It "
    return Finding(FAULT, _capital(f"{subject}{cause.lstrip(': ')}."), _capital(remedy))


def findings(report: Report) -> list[Finding]:
    """All that is to be said about a measured file, the worst first."""
    checks = [_timing, _reading]
    if "spec" in report.streams:
        checks = [_audio, _channels, _spectrogram, *checks]
    if "rgb" in report.streams:
        checks = [_video, _framing, *checks]
    made = [finding for check in checks for finding in check(report)]
    return sorted(made, key=lambda finding: (FAULT, WARNING, NOTE).index(finding.severity))


# ---- words that checks share ----


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _tracks(report: Report) -> dict[str, Stream]:
    """The streams that the file has, by the word for them."""
    survey = report.survey
    both = {"video": survey.video, "audio": survey.audio} if survey else {}
    return {name: stream for name, stream in both.items() if stream}


def _is_empty(report: Report, stream: str) -> bool:
    """Whether the model gets nothing through one of its streams."""
    numbers = report.statistics
    if stream == "spec":
        return numbers.get("loudness", -math.inf) < SILENT
    return numbers.get("light", 0.0) < BLACK or numbers["contrast"] < PLAIN


def _lost(report: Report, stream: str) -> tuple[str, str]:
    """How bad it is that a stream is empty, and what that means."""
    name, other = ("audio", "video") if stream == "spec" else ("video", "audio")
    if all(_is_empty(report, one) for one in report.streams):
        return FAULT, "Use another clip; in this one there is nothing to judge by."
    return WARNING, f"The model judges by the {other} alone; use a copy with {name} if it matters."


def _absent(report: Report, name: str) -> str:
    """That a stream is missing, and which way."""
    notes = report.view.notes
    kind = {"video": "a video", "audio": "an audio"}[name]
    for words in notes:
        if words.startswith(f"there is {kind} track"):
            return _capital(f"{words}.")
    if any("cover" in note for note in notes) and name == "video":
        return "There is no video; the video in the file is a cover."
    if f"no {name} could be decoded" in notes:
        return f"There is a {name} track, but nothing in it can be read."
    if f"no {name} in the window" in notes:
        return f"There is no {name} {_here(report)}."
    return f"There is no {name} in this file."


def _here(report: Report) -> str:
    start = report.found.start
    return f"where the model looks ({start:.1f}-{start + report.found.duration:.1f} s)"


def _tried(report: Report) -> str:
    """How far a lack was looked for: all over a short file, in some places of a long one."""
    count = len(report.looks)
    if report.views <= count:
        return "throughout"
    return f"in all {count} places that were tried" if count > 1 else _here(report)


def _elsewhere(report: Report, good: list[Look]) -> str:
    """Where to look instead, or nothing if no look was better."""
    if not good:
        return ""
    line = f"mbt-lite predict {quoted(report.path)} --start {good[0].start:.6g}"
    return f"It is better elsewhere in the file: {line}"


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _ffmpeg(report: Report, audio_filter: str) -> str:
    """A command line that mends the audio and leaves the video as it is."""
    name = report.path.with_name(f"{report.path.stem}_mended{report.path.suffix}")
    return f"ffmpeg -i {quoted(report.path)} -c:v copy -af '{audio_filter}' {quoted(name)}"


# ---- audio ----


def _audio(report: Report) -> Iterator[Finding]:
    """Missing, silent or faint audio."""
    severity, meaning = _lost(report, "spec")
    loudness = report.statistics.get("loudness")
    if loudness is None:
        yield Finding(severity, _absent(report, "audio"), meaning)
    elif loudness < SILENT:
        better = _elsewhere(report, [look for look in report.looks if look.loudness > QUIET])
        found = f"The audio is silent {_here(report) if better else _tried(report)}."
        if "the audio ends before the window" in report.view.notes:
            found = f"The audio ends at {report.survey.audio.end:.1f} s, before the model looks."
        other = [_capital(f"{words}.") for words in report.view.notes if "has audio" in words]
        yield Finding(severity, found, "".join(other) or better or meaning)
    elif loudness < QUIET:
        found = f"The audio is very faint: {loudness:.0f} dB; ordinary clips have -45 to -10 dB."
        yield Finding(WARNING, found, _ffmpeg(report, f"volume={-25 - loudness:.0f}dB"))


def _channels(report: Report) -> Iterator[Finding]:
    """Clipped, one-sided, cancelling or shifted audio; of a damaged one nothing can be said."""
    numbers = report.statistics
    if _damaged(report, "audio"):
        return
    if numbers.get("clipped", 0.0) > CLIPPED_SHARE:
        found = f"The audio is clipped: {numbers['clipped']:.1%} of it stands at full scale."
        yield Finding(WARNING, found, "Record it again at a lower level; turning down is too late.")
    balance = numbers.get("balance", 0.0)
    if abs(balance) > ONE_SIDED:
        side, channel = ("left", 0) if balance > 0 else ("right", 1)
        found = f"Only the {side} channel has audio; mixed to one, it loses half its strength."
        yield Finding(WARNING, found, _ffmpeg(report, f"pan=mono|c0=c{channel}"))
    elif numbers.get("correlation", 0.0) < OPPOSITE:
        found = "Left and right are mirror images; mixed to one, as the model hears, they cancel."
        yield Finding(WARNING, found, _ffmpeg(report, "pan=mono|c0=c0"))
    if numbers.get("shift", 0.0) > SHIFTED:
        found = f"The audio does not swing around zero, but {numbers['shift']:.0%} off it."
        yield Finding(WARNING, found, _ffmpeg(report, "highpass=f=20"))


def _spectrogram(report: Report) -> Iterator[Finding]:
    """Audio that lacks its upper part, or is unlike what the model learned from."""
    numbers = report.statistics
    if numbers.get("loudness", -math.inf) < QUIET:
        return
    if report.empty_bands > EMPTY_BANDS:
        found = f"The audio ends at {numbers['highest_sound'] / 1000:.1f} kHz, as on the telephone;"
        found += f" the upper {report.empty_bands:.0%} of the model's spectrogram are empty."
        yield Finding(WARNING, found, "Nothing brings the high tones back; use a better recording.")
    off, spread = numbers["mean_off"], numbers["spread"]
    if abs(off) > FAR:
        found = f"The audio is much {'fuller' if off > 0 else 'emptier'} than what the model knows:"
        found += f" its spectrogram lies {abs(off):.1f} standard deviations "
        found += f"{'above' if off > 0 else 'below'} the usual."
        yield Finding(WARNING, found, "Trust less what the audio says, or train on such sounds.")
    elif not SPREAD[0] < spread < SPREAD[1]:
        found = f"The audio is {'more' if spread > 1 else 'less'} varied than what the model knows:"
        found += f" its spectrogram has {spread:.1f} times the usual spread."
        yield Finding(WARNING, found, "Trust less what the audio says, or train on such sounds.")


# ---- video ----


def _video(report: Report) -> Iterator[Finding]:
    """Missing, black, plain or still image, and too few frames."""
    severity, meaning = _lost(report, "rgb")
    numbers = report.statistics
    if "light" not in numbers:
        yield Finding(severity, _absent(report, "video"), meaning)
    elif numbers["light"] < BLACK:
        better = _elsewhere(report, [look for look in report.looks if look.light > BLACK])
        found = f"The video is black {_here(report) if better else _tried(report)}."
        yield Finding(severity, found, better or meaning)
    elif numbers["contrast"] < PLAIN:
        yield Finding(severity, "The video is one plain colour.", meaning)
    elif report.survey.video.packets == 1:
        yield Finding(WARNING, "It is a single image, not a video.", "Use the video itself.")
    elif numbers["motion"] < STILL and len(report.found.frames) > 1:
        found = f"The video stands still {_here(report)}."
        yield Finding(WARNING, found, "Fine for a slide; otherwise the video may have frozen.")
    else:
        yield from _frame_rate(report)


def _frame_rate(report: Report) -> Iterator[Finding]:
    """Fewer frames than the model looks for."""
    step, wanted = report.survey.video.step, 1 / report.config.frame_step
    if step * wanted * FEW_FRAMES > 1:
        found = f"A new video comes every {step:.2g} s, and the model looks {wanted:.3g} times "
        found += "a second: it sees most of them more than once."
        remedy = f"Use a copy with {wanted:.3g} frames a second or more; made-up ones do not help."
        yield Finding(WARNING, found, remedy)


def _framing(report: Report) -> Iterator[Finding]:
    """What the crop takes away, and images smaller than the model's."""
    if not len(report.found.frames):
        return
    config, info, (across, down) = report.config, report.info, report.kept
    if across * down < KEPT:
        found = f"The model sees only the middle {across * down:.0%} of the video."
        yield Finding(WARNING, found, "Crop the video to what matters before giving it.")
    if 0 < min(info.width, info.height) < config.size:
        found = f"The video is small ({info.width} x {info.height} pixels); it is enlarged to "
        yield Finding(NOTE, f"{found}the model's {config.size} pixels.")
    for words in report.view.notes:
        if "BT.709" in words:
            yield Finding(NOTE, _capital(f"{words}."), "Nothing to do.")


# ---- time ----


def _timing(report: Report) -> Iterator[Finding]:
    """Short files, streams that begin or end apart, and interruptions."""
    tracks, length = _tracks(report), report.found.duration
    single = not len(report.found.wave) and report.survey.video.packets == 1
    if length < report.seconds - 0.05 and not single:
        better = [look for look in report.looks if look.length > report.seconds - 0.05]
        severity = WARNING if length < report.seconds / 2 - 0.05 else NOTE
        found = f"There is only {length:.1f} s {_here(report)}; it wants {report.seconds:g} s, so "
        found += "it is repeated."
        if length < 0.05:
            found = f"The file ends just where the model looks, at {report.found.start:.1f} s."
        remedy = _elsewhere(report, better) or "Use a longer piece if there is one."
        yield Finding(severity, found, remedy)
    if {"video", "audio"} <= set(tracks):
        yield from _apart(tracks["video"], tracks["audio"])
    for name, track in tracks.items():
        yield from _interruptions(name, track)


def _apart(video: Stream, audio: Stream) -> Iterator[Finding]:
    late, early = video.start - audio.start, video.end - audio.end
    if abs(late) > APART:
        first, second = ("audio", "video") if late > 0 else ("video", "audio")
        found = f"The {second} starts {abs(late):.1f} s after the {first}."
        yield Finding(NOTE, found, "Nothing to do: the clock of the file keeps them in step.")
    if abs(early) > ENDS_APART:
        first, second = ("audio", "video") if early > 0 else ("video", "audio")
        yield Finding(NOTE, f"The {first} ends {abs(early):.1f} s before the {second}.")


def _interruptions(name: str, track: Stream) -> Iterator[Finding]:
    hole = track.pause - track.step
    if track.jump:
        found = f"The clock of the {name} jumps by {track.jump:.0f} s."
        yield Finding(WARNING, found, "Get a good copy; video and audio may not belong together.")
    elif name == "audio" and hole > HOLE:
        found = f"The audio has a hole of {hole:.2f} s at {track.pause_at + track.step:.1f} s."
        yield Finding(NOTE, found, "Nothing to do: silence fills it, and the rest stays in place.")
    elif name == "video" and track.pause > max(STALL, 5 * track.step):
        found = f"No new video comes for {track.pause:.1f} s at {track.pause_at:.1f} s."
        yield Finding(NOTE, found, "Check there whether frames were lost.")


# ---- reading ----


def _damaged(report: Report, name: str) -> bool:
    return f"damaged: parts of the {name} could not be decoded" in report.view.notes


def _reading(report: Report) -> Iterator[Finding]:
    """Damage that showed while reading."""
    for name, what in (("video", "size"), ("audio", "rate")):
        if _damaged(report, name):
            found = f"The {name} is damaged {_here(report)}."
            yield Finding(WARNING, found, "Get a good copy; what can still be read is used.")
        if f"the {name} changes its {what} on the way" in report.view.notes:
            found = f"The {name} changes its {what} on the way."
            yield Finding(NOTE, found, "Nothing to do: the reader goes along with it.")
    total = report.survey.total or 0.0
    end = max((track.end for track in _tracks(report).values()), default=total)
    if total - end > CUT:
        found = f"The file is cut off: the last {total - end:.1f} s of {total:.1f} s are missing."
        yield Finding(WARNING, found, "Copy or download it again.")
    elif report.survey.broken:
        yield Finding(WARNING, f"The file cannot be read beyond {end:.1f} s.", "Get a good copy.")
