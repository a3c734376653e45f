"""Exercises of notebook 01: frames of a wave, log-mel, which video frame is shown when."""

import numpy as np

from course.exercise import Exercise


def _waves() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=10), 4, 3), (rng.normal(size=21), 5, 2), (rng.normal(size=12), 4, 4)]


CUT_INTO_FRAMES = Exercise(
    name="cut_into_frames",
    title="Cut a wave into frames",
    level="easy",
    minutes=10,
    task=(
        "Cut the wave `[S]` into overlapping frames of `size` samples. Frame `k` begins at "
        "sample `k * hop`, and there is a frame for each hop, the last one perhaps incomplete, so "
        "there are `ceil(S / hop)`. After the end of the wave, fill the frame with zeros."
    ),
    hint="Append `size` zeros to the wave first, then no frame can run out of samples.",
    start='''
def cut_into_frames(wave, size, hop):
    """Frames [N, size] of a wave [S], N = ceil(S / hop), zeros beyond its end."""
    raise NotImplementedError
''',
    solution='''
def cut_into_frames(wave, size, hop):
    """Frames [N, size] of a wave [S], N = ceil(S / hop), zeros beyond its end."""
    padded = np.append(wave, np.zeros(size))
    return np.stack([padded[start : start + size] for start in range(0, len(wave), hop)])
''',
    mistakes={
        "time and samples are transposed: a row should be a frame": """
def cut_into_frames(wave, size, hop):
    padded = np.append(wave, np.zeros(size))
    return np.stack([padded[k : k + size] for k in range(0, len(wave), hop)], axis=1)
""",
        "the frames at the end are left out, as they are not full": """
def cut_into_frames(wave, size, hop):
    starts = range(0, len(wave) - size + 1, hop)
    return np.stack([wave[k : k + size] for k in starts])
""",
        "the frames do not overlap: each begins where the one before it ends": """
def cut_into_frames(wave, size, hop):
    padded = np.append(wave, np.zeros(2 * size * len(wave)))
    rows = -(-len(wave) // hop)
    return np.stack([padded[k * size : (k + 1) * size] for k in range(rows)])
""",
        "size and hop have changed places": """
def cut_into_frames(wave, size, hop):
    padded = np.append(wave, np.zeros(hop))
    return np.stack([padded[k : k + hop] for k in range(0, len(wave), size)])
""",
        "the frames lie around `k * hop`, half of each before it, and do not begin there": """
def cut_into_frames(wave, size, hop):
    padded = np.concatenate([np.zeros(size // 2), wave, np.zeros(size)])
    return np.stack([padded[k : k + size] for k in range(0, len(wave), hop)])
""",
        "Hamming's window is already applied to the frames, which is not part of the task": """
def cut_into_frames(wave, size, hop):
    padded = np.append(wave, np.zeros(size))
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(size) / size)
    return np.stack([padded[k : k + size] for k in range(0, len(wave), hop)]) * window
""",
        "`np.hamming` is already applied to the frames, which is not part of the task": """
def cut_into_frames(wave, size, hop):
    padded = np.append(wave, np.zeros(size))
    return np.stack([padded[k : k + size] for k in range(0, len(wave), hop)]) * np.hamming(size)
""",
    },
    probes=_waves,
    praise=(
        "the last frames hold some silence, so that no sample is lost, and N depends on the hop "
        "alone, not on the size of a frame."
    ),
)


def _spectra() -> list[tuple]:
    rng = np.random.default_rng(1)
    shapes = [((6, 9), (9, 4), 1e-3), ((3, 5), (5, 7), 0.1)]
    return [(rng.exponential(size=a), rng.uniform(size=b), offset) for a, b, offset in shapes]


TO_LOG_MEL = Exercise(
    name="to_log_mel",
    title="From a spectrum to log-mel",
    level="easy",
    minutes=3,
    task=(
        "Given the magnitudes of a spectrum `[N, F]` (frames, frequencies) and mel filters "
        "`[F, M]`, weigh the frequencies with the filters, add `offset`, and take the natural "
        "logarithm. Time stays in front."
    ),
    hint="A matrix product `@` sums over the frequencies; `np.log` is the natural logarithm.",
    start='''
def to_log_mel(magnitudes, filters, offset):
    """Log-mel [N, M] of magnitudes [N, F] and filters [F, M]."""
    raise NotImplementedError
''',
    solution='''
def to_log_mel(magnitudes, filters, offset):
    """Log-mel [N, M] of magnitudes [N, F] and filters [F, M]."""
    return np.log(magnitudes @ filters + offset)
''',
    mistakes={
        "the logarithm is missing": """
def to_log_mel(magnitudes, filters, offset):
    return magnitudes @ filters + offset
""",
        "the result is transposed: mel before time, but time before mel is required": """
def to_log_mel(magnitudes, filters, offset):
    return np.log(magnitudes @ filters + offset).T
""",
        "the logarithm has base 10, not e": """
def to_log_mel(magnitudes, filters, offset):
    return np.log10(magnitudes @ filters + offset)
""",
        "the offset is added after the logarithm, where it saves nothing from minus infinity": """
def to_log_mel(magnitudes, filters, offset):
    return np.log(magnitudes @ filters) + offset
""",
        "the logarithm comes before the filters: they should sum magnitudes, not logarithms": """
def to_log_mel(magnitudes, filters, offset):
    return np.log(magnitudes + offset) @ filters
""",
        "the magnitudes are squared: that is power": """
def to_log_mel(magnitudes, filters, offset):
    return np.log(magnitudes**2 @ filters + offset)
""",
    },
    probes=_spectra,
    praise=(
        "silence becomes log(offset), not minus infinity: the offset is the quietest thing that "
        "the model can hear."
    ),
)


def _shows() -> list[tuple]:
    varying = np.array([0.0, 0.2, 0.25, 0.7, 0.75, 1.3, 1.9])
    return [(np.arange(50) / 24, 8, 0.25), (varying, 4, 0.5), (np.arange(30) / 30, 3, 0.31)]


FRAMES_ON_SHOW = Exercise(
    name="frames_on_show",
    title="Which frames are on show?",
    level="medium",
    minutes=10,
    task=(
        "A file shows frame `i` from `times[i]` on, until the next one comes. Time is cut into "
        "`count` steps of `step` seconds, from 0 on. For each step, give the number of the frame "
        "that is on show in the **middle** of the step. (Frame rates can vary, so times are all "
        "one can rely on.)"
    ),
    hint="`np.searchsorted(times, samples, side='right')` counts the frames that have begun.",
    start='''
def frames_on_show(times, count, step):
    """Array [count] of indices: the frames on show at (k + 0.5) * step, of times [F] in s."""
    raise NotImplementedError
''',
    solution='''
def frames_on_show(times, count, step):
    """Array [count] of indices: the frames on show at (k + 0.5) * step, of times [F] in s."""
    samples = (np.arange(count) + 0.5) * step
    return np.searchsorted(times, samples, side="right") - 1
''',
    mistakes={
        "the frames are those at the beginning of each step, not in its middle": """
def frames_on_show(times, count, step):
    return np.searchsorted(times, np.arange(count) * step, side="right") - 1
""",
        "the frames are one too late: they are not on show yet": """
def frames_on_show(times, count, step):
    samples = (np.arange(count) + 0.5) * step
    return np.searchsorted(times, samples, side="right")
""",
        "the nearest frames are taken, and some of them have not begun": """
def frames_on_show(times, count, step):
    samples = (np.arange(count) + 0.5) * step
    return np.abs(times - samples[:, None]).argmin(1)
""",
        "the frames are spread evenly by their number, whatever their times are": """
def frames_on_show(times, count, step):
    return ((np.arange(count) + 0.5) * len(times) / count).astype(int)
""",
        "a frame that begins just then does not count yet: `side='right'` lets it count": """
def frames_on_show(times, count, step):
    samples = (np.arange(count) + 0.5) * step
    return np.searchsorted(times, samples, side="left") - 1
""",
        "the frames are counted by a rate, the mean one, as if it never varied": """
def frames_on_show(times, count, step):
    rate = (len(times) - 1) / (times[-1] - times[0])
    return ((np.arange(count) + 0.5) * step * rate).astype(int)
""",
        "the frames are counted by a rate, that of the first two, as if it never varied": """
def frames_on_show(times, count, step):
    rate = 1 / (times[1] - times[0])
    return ((np.arange(count) + 0.5) * step * rate).astype(int)
""",
        "times come back, not the numbers of frames": """
def frames_on_show(times, count, step):
    samples = (np.arange(count) + 0.5) * step
    return times[np.searchsorted(times, samples, side="right") - 1]
""",
    },
    probes=_shows,
    praise=(
        "picture and sound share one clock, so a frame taken by its time is heard at the right "
        "moment, at whatever rate the file was made."
    ),
)

EXERCISES = (CUT_INTO_FRAMES, TO_LOG_MEL, FRAMES_ON_SHOW)
