"""Print a doctor's report for people, and as JSON for programs."""

import math

from mbt_lite.data.doctor.measure import Report

CHANNELS = {1: "mono", 2: "stereo"}
MANY = 30  # views that a person would still ask for


def note(report: Report) -> str:
    """Lines of text: the verdict, what the file holds, what the model gets, findings, advice."""
    lines = [f"{report.path}: {report.verdict}"]
    lines += [f"  {name:8} {fact}" for name, fact in facts(report).items()]
    for finding in report.findings:
        lines.append(f"  {finding.severity}: {finding.found}")
        lines += [f"    {finding.do}"] if finding.do else []
    return "\n".join(lines)


def facts(report: Report) -> dict[str, str]:
    """What the file holds and what the model gets of it, a line each, as far as it could be read.

    Its keys are among video, audio, model and level.
    """
    lines = {}
    if report.info and report.info.has_video:
        lines["video"] = _video(report)
    if report.info and report.info.has_audio:
        lines["audio"] = _audio(report)
    if report.view:
        lines["model"] = _model(report)
    if "mean_off" in report.statistics and "spec" in report.streams:
        lines["level"] = _level(report)
    return lines


def _video(report: Report) -> str:
    info, stream = report.info, report.survey.video
    parts = [info.video_codec, f"{info.width} x {info.height}"]
    if stream and stream.rate:
        parts.append(f"{stream.rate:.3g} frames/s{' (varying)' if stream.varies else ''}")
    parts += [f"turned by {abs(info.rotation)} degrees"] if info.rotation else []
    return ", ".join(parts + _span(stream))


def _audio(report: Report) -> str:
    info = report.info
    channels = CHANNELS.get(info.channels, f"{info.channels} channels")
    rate = f"{info.sample_rate / 1000:g} kHz"
    return ", ".join(
        [info.audio_codec.removesuffix("float"), rate, channels, *_span(report.survey.audio)]
    )


def _span(stream) -> list[str]:
    """Where a stream lies on the file's clock."""
    if stream is None:
        return ["nothing in it"]
    if stream.start < 0.1:
        return [_clock(stream.end)] if stream.packets > 1 else ["a single one"]
    return [f"from {_clock(stream.start)} to {_clock(stream.end)}"]


def _clock(seconds: float) -> str:
    """Seconds as "8.0 s", or "2:00:00" from ten minutes on."""
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{seconds // 3600:.0f}:{seconds // 60 % 60:02.0f}:{seconds % 60:02.0f}"


def _model(report: Report) -> str:
    """Where the model looks, and what of the video it sees."""
    spans = {stream: f"{start:.1f}-{end:.1f} s" for stream, (start, end) in report.spans.items()}
    line = f"looks at {spans.get('rgb') or spans['spec']}"
    if len(set(spans.values())) == 2:
        line = f"hears {spans['spec']}, sees {spans['rgb']}"
    if report.info.has_video and "rgb" in report.streams:
        line += f", {report.config.frames} frames, {_cut(report)}"
    if report.views > MANY:
        return f"{line}; all of the file would take {report.views:,} views"
    return f"{line}; all of the file with --views {report.views}" if report.views > 1 else line


def _cut(report: Report) -> str:
    """What of the video the model does not see."""
    sides = zip(report.kept, ("left and right", "top and bottom"), strict=True)
    parts = [f"{(1 - kept) / 2:.0%} cut off {where}" for kept, where in sides if kept < 0.99]
    return " and ".join(parts) or "the whole video"


def _level(report: Report) -> str:
    numbers = report.statistics
    if numbers["loudness"] == -math.inf:
        return "silence"
    off = numbers["mean_off"]
    side = "above" if off > 0 else "below"
    return (
        f"{numbers['loudness']:.0f} dB; spectrogram {abs(off):.1f} standard deviations {side} "
        f"the usual, {numbers['spread']:.1f} times its spread"
    )


def to_dict(report: Report) -> dict:
    """The report as plain dictionaries, lists and numbers, ready for JSON; silence is null dB."""
    return {
        "file": str(report.path),
        "fit": report.fit,
        "verdict": report.verdict,
        "facts": facts(report),
        "findings": [vars(finding) for finding in report.findings],
        "statistics": _finite(report.statistics),
        "looks": [_finite(vars(look)) for look in report.looks],
        "views": report.views,
        "kept": {"width": report.kept[0], "height": report.kept[1]},
    }


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
