"""Read clips and audio with other libraries, as a separate program for comparison.

It runs in any Python that has the libraries; the package itself never imports them:

    python others.py NAME ARGUMENTS      # of the function NAME below, in JSON

does the work once as a warm-up and prints "ready". Then, for every line on its standard input, it
does the work again and prints the seconds that took.

The work: the frames with the numbers `numbers`, resized to `size`, and `seconds` of mono audio at
16 kHz from `start` on.
"""

import json
import sys
import time
from importlib import import_module

RATE = 16_000  # Hz


def opencv(file, numbers, size, start, seconds):
    """Frames only: OpenCV reads no audio."""
    cv2 = import_module("cv2")
    video = cv2.VideoCapture(file)
    video.set(cv2.CAP_PROP_POS_FRAMES, numbers[0])
    frames = []
    for number in range(numbers[0], numbers[-1] + 1):
        video.grab()
        if number in numbers:
            frame = cv2.resize(video.retrieve()[1], size, interpolation=cv2.INTER_AREA)
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return frames, None


def decord(file, numbers, size, start, seconds):
    """Frames resized by decord, and the audio decoded completely, then cut."""
    decord = import_module("decord")
    frames = decord.VideoReader(file, width=size[0], height=size[1]).get_batch(list(numbers))
    wave = decord.AudioReader(file, sample_rate=RATE, mono=True)[:]
    return frames.asnumpy(), wave.asnumpy()[0, int(start * RATE) :][: int(seconds * RATE)]


def torchcodec(file, numbers, size, start, seconds):
    """Frames by number, resized by torch; audio by time."""
    torch, decoders = import_module("torch"), import_module("torchcodec.decoders")
    video = decoders.VideoDecoder(file, num_ffmpeg_threads=0, seek_mode="approximate")
    frames = video.get_frames_at(list(numbers)).data  # uint8 [T, 3, H, W]
    frames = torch.nn.functional.interpolate(frames, size[::-1], mode="bilinear", antialias=True)
    sound = decoders.AudioDecoder(file, sample_rate=RATE, num_channels=1)
    wave = sound.get_samples_played_in_range(start, start + seconds).data[0]
    return frames.permute(0, 2, 3, 1).numpy(), wave.numpy()


def pyav(file, numbers, size, start, seconds):
    """All frames and all audio decoded and converted, then cut."""
    av, np = import_module("av"), import_module("numpy")
    with av.open(file) as container:
        container.streams.video[0].thread_type = "AUTO"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(file) as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        mono = (part for f in container.decode(audio=0) for part in resampler.resample(f))
        sound = np.concatenate([part.to_ndarray()[0] for part in mono])
    small = [av.VideoFrame.from_ndarray(frames[i], "rgb24").reformat(*size) for i in numbers]
    wave = sound[int(start * RATE) :][: int(seconds * RATE)]
    return [frame.to_ndarray() for frame in small], wave


def torchaudio(waves, seconds, rate, fft, window, hop, mels, low, high, offset):
    """The log-mels of noise in one batch."""
    torch, transforms = import_module("torch"), import_module("torchaudio.transforms")
    make = transforms.MelSpectrogram(
        rate, fft, window, hop, low, high, n_mels=mels, power=1.0, mel_scale="htk", norm=None,
        center=False, window_fn=torch.hamming_window,
    )  # fmt: skip
    torch.manual_seed(0)
    noise = 0.1 * torch.randn(waves, int(seconds * rate))

    def work():
        return torch.log(make(noise) + offset)

    return work


def reading(reader):
    """Make a function that reads a clip and checks that it is complete."""

    def prepared(file, numbers, size, start, seconds):
        def work():
            frames, wave = reader(file, numbers, tuple(size), start, seconds)
            complete = wave is None or len(wave) == round(seconds * RATE)
            if not complete or len(frames) != len(numbers) or frames[0].shape != (*size[::-1], 3):
                sys.exit(f"{reader.__name__} did not read the requested clip.")

        return work

    return prepared


NAMES = {reader.__name__: reading(reader) for reader in (opencv, decord, torchcodec, pyav)}
NAMES |= {"torchaudio": torchaudio}


def main(name: str, arguments: str) -> None:
    work = NAMES[name](**json.loads(arguments))
    work()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
