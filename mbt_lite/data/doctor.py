"""Check whether a clip is fit for a model, and say what to do if it is not.

    report = examine("clip.mp4"); print(note(report))

The doctor reads the window that `predict` reads by default, the one in the middle, measures what
the model gets of it, and compares the numbers with the thresholds below.
"""

import contextlib
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbt_lite import media
from mbt_lite.config import STREAMS, WORLD_CLIP, ClipConfig
from mbt_lite.features import SHORT, View, make_view, starts
from mbt_lite.media import MediaError
from mbt_lite.media.container import FAILURES, chosen, opened
from mbt_lite.media.decode import samples
from mbt_lite.media.timeline import Clock, Packets, timeline

FAULT, WARNING, NOTE = "fault", "warning", "note"

# Thresholds. The real clips behind them are eleven from public repositories and our own samples.
SILENT = -80.0  # dB of full scale, root mean square: below the noise of 14 bits
QUIET = -55.0  # dB: the noise of a quiet room; real clips lie between -47 and -13
FULL_SCALE = 0.99  # of the largest number a sample can hold; lossy codecs blur the last percent
CLIPPED_SHARE = 1e-3  # of all samples: one in a thousand is heard as crackling
MANY = 10  # windows of a long file that are worth a try
LISTEN = 60.0  # s of stored audio, around the middle, that are searched for clipping
BLACK = 24  # gray level of 255 that 99 % of the pixels stay under: darker than a night scene
PLAIN = 2.0  # gray levels, standard deviation within a frame: one color, no contour
STILL = 0.3  # gray levels, mean change between sampled frames: less than the grain of a camera
STARTS_APART, ENDS_APART = 0.1, 0.5  # s between video and audio; containers pad the last frame

# What the reader notes about a damaged file: words of the note, what to do.
REMEDIES = {
    "could not be decoded": "Get a good copy; what can still be read is used.",
    "cut off": "Copy or download it again.",
    "time stamps": "Get a good copy; video and audio may not belong together.",
    "only one frame": "One image shows no motion; use a video if there is one.",
}


class Stream(NamedTuple):
    """Where the packets of one stream lie on the file's clock; nothing is decoded."""

    start: float  # s
    end: float  # s


class Survey(NamedTuple):
    """The two streams of a file that are used."""

    video: Stream | None
    audio: Stream | None
    total: float | None  # s, from the header


@dataclass(frozen=True)
class Finding:
    """One problem of a file, and what to do about it."""

    severity: str  # fault: cannot be used; warning: usable, but; note: good to know
    problem: str
    do: str = ""


@dataclass(frozen=True)
class Report:
    """What one file holds, what the model gets of it, and what is wrong with it.

    Fields that could not be filled, because the file could not be read so far, are None.
    """

    path: Path
    config: ClipConfig
    streams: tuple[str, ...] = STREAMS  # that the model takes
    info: media.Info | None = None
    survey: Survey | None = None
    window: media.Media | None = None  # in the middle of the file, its frames not yet cropped
    view: View | None = None  # the same window as model input
    statistics: dict[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def fit(self) -> bool:
        """Whether the model can use the file."""
        return not any(finding.severity == FAULT for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One of "not fit", "fit, but see the warnings" and "fit"."""
        if not self.fit:
            return "not fit"
        warned = any(finding.severity == WARNING for finding in self.findings)
        return "fit, but see the warnings" if warned else "fit"

    @property
    def seconds(self) -> float:
        """Length in seconds of the window that the model takes."""
        return max(self.config.video_seconds, self.config.audio_seconds)

    @property
    def spans(self) -> dict[str, tuple[float, float]]:
        """Start and end in seconds of what the model takes of each stream."""
        lengths = {"rgb": self.config.video_seconds, "spec": self.config.audio_seconds}
        start, length = self.window.start, self.window.duration
        margins = {stream: max(length - lengths[stream], 0.0) / 2 for stream in self.streams}
        return {s: (start + margin, start + length - margin) for s, margin in margins.items()}

    @property
    def views(self) -> int:
        """The number of windows that together cover the file."""
        total = self.info.duration if self.info else None
        return max(1, math.ceil((total or 0.0) / self.seconds - 0.05))

    @property
    def crop(self) -> tuple[float, float]:
        """The shares of the video's width and height that the model sees; 1 without a video."""
        if not (self.info and self.info.has_video):
            return 1.0, 1.0
        width, height = self.info.width, self.info.height
        side = min(width, height) * self.config.size / self.config.resize  # pixels of the file
        return min(1.0, side / width), min(1.0, side / height)


def examine(path, config: ClipConfig = WORLD_CLIP, streams: tuple[str, ...] = STREAMS) -> Report:
    """Examine one media file for a model that takes `streams` in the form of `config`.

    A file that cannot be read gives a report with a fault; it does not raise an error.
    """
    report = Report(Path(path), config, tuple(streams))
    try:
        survey, info = _survey(path, config.audio_track), media.probe(path, config.audio_track)
        report = replace(report, survey=survey, info=info)
        report = _read(report, starts(info.duration, report.seconds, 1)[0])
    except MediaError as error:
        return replace(report, findings=(_unreadable(report, error),))
    report = replace(report, statistics=_video_statistics(report) | _audio_statistics(report))
    findings = [*_audio(report), *_video(report), *_timing(report), *_reader_notes(report)]
    findings.sort(key=lambda finding: (FAULT, WARNING, NOTE).index(finding.severity))
    return replace(report, findings=tuple(findings))


def warned(report: Report, problem: str, do: str) -> Report:
    """The report with a warning that only a model can give."""
    return replace(report, findings=(*report.findings, Finding(WARNING, problem, do)))


# ---- measurements ----


def _survey(path, audio_track: int | None) -> Survey:
    """Read all packets of a file once, without decoding; `MediaError` if it is no media file."""
    line = timeline(path, audio_track)
    with opened(path) as container:
        streams = chosen(container, audio_track)
        clock = Clock([stream for stream in streams if stream], line.zero)
        first: dict[int, float] = {}
        for packet in Packets(container, clock.streams):
            index, start = packet.stream.index, clock.set(packet)
            if start is not None and not packet.is_discard:
                first[index] = min(start, first.get(index, start))
        video, audio = (
            Stream(max(first[stream.index], 0.0), clock.ends[stream.index])
            if stream and stream.index in first
            else None
            for stream in streams
        )
        return Survey(video, audio, line.promised or line.total)


def _read(report: Report, start: float) -> Report:
    """Add the window at `start` to a report; `MediaError` if nothing in the file is usable."""
    options = {"short_side": report.config.resize, "audio_track": report.config.audio_track}
    try:
        window = media.read(report.path, start, report.seconds, **options)
    except media.PastEnd as error:  # less can be decoded than the header says
        report = replace(report, info=replace(report.info, duration=error.end))
        return _read(report, starts(error.end, report.seconds, 1)[0])
    return replace(report, window=window, view=make_view(window, report.config))


def _decibels(wave: np.ndarray) -> float:
    """Root mean square of samples in dB of full scale; -inf for silence and for no samples."""
    power = float(np.mean(np.square(wave, dtype=np.float64))) if wave.size else 0.0
    return 10 * math.log10(power) if power > 0 else -math.inf


def _video_statistics(report: Report) -> dict[str, float]:
    if not len(report.window.frames):
        return {}
    frames = report.view.rgb.astype(np.float32)
    changes = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    return {
        "light": float(np.percentile(frames, 99)),  # gray levels of 255
        "contrast": float(frames.std(axis=(1, 2)).max()),  # gray levels
        "motion": float(changes.max(initial=0.0)),  # gray levels from one sampled frame to the next
    }


def _audio_statistics(report: Report) -> dict[str, float]:
    if not len(report.window.wave):
        return {}
    front, spec = report.config.front_end, report.view.spec
    return {
        "loudness": _decibels(report.view.wave),  # dB of full scale
        "mean_off": float((spec.mean() - front.mean) / front.std),  # the model's deviations
        "spread": float(spec.std() / front.std),  # times the model's deviation
        "clipped": _clipped_share(report),
    }


def _clipped_share(report: Report) -> float:
    """The share of clipped samples in up to a minute of stored audio around the window.

    All channels are searched at their own rate: mixing and resampling hide what was clipped.
    """
    clipped, total, track = 0, 0, report.config.audio_track
    line = timeline(report.path, track)
    start = report.window.start + report.window.duration / 2 - LISTEN / 2
    with contextlib.suppress(*FAILURES), opened(report.path) as container:
        _, audio = chosen(container, track)
        if start > 0 and line.seekable:
            container.seek(int((line.zero + start) / audio.time_base), stream=audio)
        for frame in container.decode(audio):
            full = np.abs(samples(frame)) >= FULL_SCALE  # three in a row; a real peak has 1 or 2
            clipped += int((full[:, 2:] & full[:, 1:-1] & full[:, :-2]).any(0).sum())
            total += frame.samples
            if total > LISTEN * frame.sample_rate:
                break
    return clipped / max(total, 1)


# ---- findings ----


def _unreadable(report: Report, error: MediaError) -> Finding:
    """The fault of a file that cannot be read, from the sentence "PATH is empty; download it"."""
    cause, _, remedy = str(error).removeprefix(str(report.path)).rpartition("; ")
    subject = "" if cause.startswith(":") else "It "
    return Finding(FAULT, _sentence(subject + cause.lstrip(": ")), _sentence(remedy.rstrip(".")))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _audio(report: Report) -> Iterator[Finding]:
    """Missing, silent, faint or clipped audio."""
    if "spec" not in report.streams:
        return
    severity, meaning = _loss(report, "spec")
    statistics, notes = report.statistics, report.view.notes
    loudness = statistics.get("loudness")
    if loudness is None:
        yield Finding(severity, _absence(report, "audio"), meaning)
    elif loudness < SILENT:
        problem = f"The audio is silent {_here(report)}."
        other = "".join(_sentence(words) for words in notes if "has audio" in words)
        yield Finding(severity, problem, other or _elsewhere(report) or meaning)
    elif loudness < QUIET:
        problem = f"The audio is very faint: {loudness:.0f} dB; ordinary clips have -45 to -10 dB."
        louder = report.path.with_name(f"{report.path.stem}_louder{report.path.suffix}")
        gain = f"-c:v copy -af volume={-25 - loudness:.0f}dB"
        yield Finding(WARNING, problem, f"ffmpeg -i {quoted(report.path)} {gain} {quoted(louder)}")
    if "damaged: parts of the audio could not be decoded" in notes:
        return  # then its samples say nothing
    if statistics.get("clipped", 0.0) > CLIPPED_SHARE:
        problem = f"The audio is clipped: {statistics['clipped']:.1%} of it is at full scale."
        yield Finding(WARNING, problem, "Record it again at a lower level; turning down is no use.")


def _video(report: Report) -> Iterator[Finding]:
    """Missing, black, plain or still video."""
    if "rgb" not in report.streams:
        return
    severity, meaning = _loss(report, "rgb")
    statistics = report.statistics
    if "light" not in statistics:
        yield Finding(severity, _absence(report, "video"), meaning)
    elif statistics["light"] < BLACK:
        problem = f"The video is black {_here(report)}."
        yield Finding(severity, problem, _elsewhere(report) or meaning)
    elif statistics["contrast"] < PLAIN:
        yield Finding(severity, "The video is one plain color.", meaning)
    elif statistics["motion"] < STILL and len(report.window.frames) > 1:
        advice = "Fine for a slide; otherwise the video may have frozen."
        yield Finding(WARNING, f"The video stands still {_here(report)}.", advice)


def _timing(report: Report) -> Iterator[Finding]:
    """A window that is too short, and streams that start or end apart."""
    length, (video, audio) = report.window.duration, (report.survey.video, report.survey.audio)
    if length < report.seconds - SHORT and len(report.window.frames) != 1:
        problem = f"There is only {length:.1f} s {_here(report)}; the model takes "
        problem += f"{report.seconds:g} s, so it is repeated."
        severity = WARNING if length < report.seconds / 2 - SHORT else NOTE
        yield Finding(severity, problem, "Use a longer piece if there is one.")
    if not (video and audio):
        return
    if abs(late := video.start - audio.start) > STARTS_APART:
        first, second = ("audio", "video") if late > 0 else ("video", "audio")
        problem = f"The {second} starts {abs(late):.1f} s after the {first}."
        yield Finding(NOTE, problem, "Nothing to do: the clock of the file keeps them in step.")
    if abs(late := video.end - audio.end) > ENDS_APART:
        first, second = ("audio", "video") if late > 0 else ("video", "audio")
        yield Finding(NOTE, f"The {first} ends {abs(late):.1f} s before the {second}.")


def _reader_notes(report: Report) -> Iterator[Finding]:
    """Damage that the reader noted."""
    for words in report.view.notes:
        if advice := next((do for key, do in REMEDIES.items() if key in words), None):
            yield Finding(WARNING, _sentence(words.removeprefix("damaged: ")), advice)


def _loss(report: Report, stream: str) -> tuple[str, str]:
    """The severity and the meaning of an empty stream."""
    name, other = ("audio", "video") if stream == "spec" else ("video", "audio")
    if all(_is_empty(report, stream) for stream in report.streams):
        return FAULT, "Use another clip; this one has nothing to judge by."
    return WARNING, f"The model judges by the {other} alone; use a copy with {name} if it matters."


def _is_empty(report: Report, stream: str) -> bool:
    statistics = report.statistics
    if stream == "spec":
        return statistics.get("loudness", -math.inf) < SILENT
    return statistics.get("light", 0.0) < BLACK or statistics["contrast"] < PLAIN


def _absence(report: Report, name: str) -> str:
    """The reader's words on why a stream is missing, such as "No audio in the window." """
    starts = f"no {name}", f"there is a {name}", f"there is an {name}"
    return _sentence(next(words for words in report.view.notes if words.startswith(starts)))


def _here(report: Report) -> str:
    start = report.window.start
    return f"where the model looks ({start:.1f}-{start + report.window.duration:.1f} s)"


def _elsewhere(report: Report) -> str:
    """Advice to try all of a file that is longer than the window; "" for a short one."""
    if report.views == 1:
        return ""
    line = f"mbt-lite predict {quoted(report.path)} --views {min(report.views, MANY)}"
    return f"Other parts may be better: {line}"


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


# ---- text and JSON ----


def note(report: Report) -> str:
    """Lines of text: the verdict, what the file holds, what the model gets, findings, advice."""
    lines = [f"{report.path}: {report.verdict}"]
    lines += [f"  {name:8} {fact}" for name, fact in facts(report).items()]
    for finding in report.findings:
        lines.append(f"  {finding.severity}: {finding.problem}")
        lines += [f"    {finding.do}"] if finding.do else []
    return "\n".join(lines)


def facts(report: Report) -> dict[str, str]:
    """What the file holds and what the model gets of it, by name: video, audio, model, level.

    Facts about what is missing, or could not be read, are left out.
    """
    lines, info, statistics = {}, report.info, report.statistics
    if info and info.has_video:
        parts = [info.video_codec, f"{info.width} x {info.height}", f"{info.fps:.3g} frames/s"]
        parts += [f"turned by {abs(info.rotation)} degrees"] if info.rotation else []
        lines["video"] = ", ".join([*parts, _extent(report.survey.video)])
    if info and info.has_audio:
        channels = {1: "mono", 2: "stereo"}.get(info.channels, f"{info.channels} channels")
        parts = [info.audio_codec.removesuffix("float"), f"{info.sample_rate / 1000:g} kHz"]
        lines["audio"] = ", ".join([*parts, channels, _extent(report.survey.audio)])
    if report.view:
        lines["model"] = _model(report)
    if "spec" not in report.streams or "loudness" not in statistics:
        return lines
    lines["level"] = "silence"
    if statistics["loudness"] > -math.inf:
        side = "above" if statistics["mean_off"] > 0 else "below"
        lines["level"] = (
            f"{statistics['loudness']:.0f} dB; spectrogram {abs(statistics['mean_off']):.1f} "
            f"standard deviations {side} the usual, {statistics['spread']:.1f} times its spread"
        )
    return lines


def _extent(stream: Stream | None) -> str:
    """Where a stream lies on the file's clock."""
    if stream is None:
        return "nothing in it"
    start = f"from {stream.start:.1f} to " if stream.start >= 0.1 else ""
    return f"{start}{stream.end:.1f} s"


def _model(report: Report) -> str:
    """Where the model looks, and what it does not see of the video."""
    spans = {stream: f"{start:.1f}-{end:.1f} s" for stream, (start, end) in report.spans.items()}
    line = f"looks at {spans.get('rgb') or spans['spec']}"
    if len(set(spans.values())) == 2:
        line = f"hears {spans['spec']}, sees {spans['rgb']}"
    if report.info.has_video and "rgb" in report.streams:
        sides = zip(report.crop, ("left and right", "top and bottom"), strict=True)
        cut = [f"{(1 - share) / 2:.0%} cut off {side}" for share, side in sides if share < 0.99]
        line += f", {report.config.frames} frames, {' and '.join(cut) or 'the whole video'}"
    return f"{line}; all of the file with --views {report.views}" if report.views > 1 else line


def to_dict(report: Report) -> dict:
    """The report as dictionaries, lists and numbers for JSON; the loudness of silence is null."""
    return {
        "file": str(report.path),
        "fit": report.fit,
        "verdict": report.verdict,
        "facts": facts(report),
        "findings": [vars(finding) for finding in report.findings],
        "statistics": {k: v if math.isfinite(v) else None for k, v in report.statistics.items()},
    }
