"""Gather and render what the model `everyday` learns from, as a folder for `CollageSource`.

    python training/everyday_material.py REAL everyday

REAL holds `sounds/CLASS/FOLD-SOURCE-TAKE.ogg` (ESC-10), `pictures/CLASS/*.jpg` (Caltech-101),
`digits/free-spoken-digit-dataset-1.0.9.tar.gz` and `teachers` (YAMNet and MobileNet as tflite
files). Instruments, drums, voices, sirens and bells come from Debian's packages and from code:

    apt-get install fluidsynth fluid-soundfont-gm sonic-pi-samples asterisk-core-sounds-en-wav \
        klettres-data espeak-ng flite festival
    pip install ai-edge-litert

No source is in two splits: of ESC-10 a fold is the test and every sixth source of the others the
validation; pictures are divided in the order of their names, because neighbors resemble each other;
speakers, languages and synthesizers are kept apart. Only rendered instruments share a sound font.
"""

import argparse
import io
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import wave
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mbt_lite import media
from mbt_lite.data import probe_sounds
from mbt_lite.data.collage import OTHER, SOFT_LABELS

RATE, SECONDS = 16_000, 5
TEST_FOLD = "4"
SPLITS = ("train", "validation", "test")
RENDERED = {"train": 60, "validation": 10, "test": 20}  # sounds of a class that are rendered

# Folder of ESC-10: label.
SOUNDS = {
    "baby_cry": "baby cry",
    "chainsaw": "chainsaw",
    "clock_tick": "clock",
    "dog_bark": "dog",
    "fire_crackling": "fire",
    "helicopter": "helicopter",
    "person_sneeze": "sneeze",
    "rain": "rain",
    "rooster": "rooster",
    "sea_waves": "sea",
}
# Folder of Caltech-101: label. The other folders have pictures without one.
PICTURES = {
    "Faces": "person speaking",
    "Motorbikes": "motorbike",
    "accordion": "accordion",
    "airplanes": "airplane",
    "butterfly": "butterfly",
    "camera": "camera",
    "car_side": "car",
    "cellphone": "phone",
    "chair": "chair",
    "dalmatian": "dog",
    "electric_guitar": "electric guitar",
    "elephant": "elephant",
    "emu": "bird",
    "euphonium": "brass",
    "ferry": "sea",
    "flamingo": "bird",
    "flamingo_head": "bird",
    "grand_piano": "piano",
    "helicopter": "helicopter",
    "ibis": "bird",
    "ketch": "sea",
    "laptop": "laptop",
    "lotus": "flower",
    "mandolin": "mandolin",
    "pigeon": "bird",
    "rooster": "rooster",
    "saxophone": "saxophone",
    "schooner": "sea",
    "sunflower": "flower",
    "watch": "clock",
    "water_lilly": "flower",
    "windsor_chair": "chair",
}
# Label: (bank, program) of the sound font, lowest and highest note, notes at once.
INSTRUMENTS = {
    "accordion": (((0, 21), (0, 23)), 53, 84, 3),
    "brass": (((0, 56), (0, 57), (0, 58), (0, 60), (0, 61)), 41, 72, 1),
    "electric guitar": (((0, 26), (0, 27), (0, 29), (0, 30)), 40, 76, 2),
    "mandolin": (((8, 25),), 55, 84, 1),
    "piano": (((0, 0), (0, 1), (0, 3)), 36, 88, 4),
    "saxophone": (((0, 64), (0, 65), (0, 66), (0, 67)), 46, 77, 1),
}
UNLABELED = {  # instruments without a label, other ones in each split
    "train": (11, 16, 32, 40, 46, 48, 52, 73, 105, 114),
    "validation": (9, 42, 75),
    "test": (12, 68, 71, 79, 104),
}
SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
SAMPLES = Path("/usr/share/sonic-pi/samples")
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
LETTERS = Path("/usr/share/klettres")
LANGUAGES = {"validation": ("da", "it"), "test": ("fr", "nl", "pt_BR")}  # the others: train
SPEAKERS = {"validation": ("theo",), "test": ("yweweler",)}  # of the digits; the others: train
SENTENCES = (
    "Good morning, and welcome to this short film about my garden.",
    "I have never seen so many boats on the lake in one day.",
    "Could you please turn the music down a little? Thank you.",
    "Today we are going to look at the weather of the coming week.",
    "She opened the old door, and nobody was in the room.",
    "Please remember that the train leaves at a quarter past nine.",
    "What do you think about it? I am not sure that it will work.",
    "First take two eggs, then some flour, and a spoon of sugar.",
    "In the next part I will show you how the engine was repaired.",
    "Hello everyone, this is my first video, and I am a bit nervous.",
)
PROBES = {
    "siren": "Siren|Civil defense siren",
    "bell": "Church bell|Telephone bell ringing",
}
UNLABELED_PROBES = {
    "train": "Sine wave|Chirp tone|White noise|Pink noise|Dial tone|Busy signal|Beep, bleep|Steam|"
    "Smoke detector, smoke alarm|Vehicle horn, car horn, honking|Wind|Heart sounds, heartbeat|"
    "Machine gun|Synthesizer",
    "validation": "Telephone dialing, DTMF|Whistling",
    "test": "Thunder|Explosion|Glockenspiel|Theremin",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "real", type=Path, help="the folder with sounds, pictures, digits, teachers"
    )
    parser.add_argument("out", type=Path, help="the folder to write")
    options = parser.parse_args()
    needed = [SOUND_FONT, SAMPLES, PROMPTS, LETTERS]
    needed += [options.real / name for name in ("sounds", "pictures", "digits", "teachers")]
    if absent := [str(path) for path in needed if not path.exists()]:
        sys.exit(f"Missing: {', '.join(absent)}. See the head of {__file__}.")
    gather_sounds(options.real / "sounds", options.out)
    gather_pictures(options.real / "pictures", options.out)
    for split in SPLITS:
        folder = options.out / split / "sounds"
        sounds = {"person speaking": speech(split, options.real), "drums": drums(split)}
        sounds |= {label: melodies(label, split) for label in INSTRUMENTS}
        sounds |= {label: probes(names, split) for label, names in PROBES.items()}
        sounds[OTHER] = unlabeled(split)
        for label, waves in tqdm(sounds.items(), desc=f"{split}: rendering", unit="class"):
            for number, samples in enumerate(waves):
                write(folder / label / f"{number:03}.wav", samples)
    teach(options.real / "teachers", options.out)


def gather_sounds(folder: Path, out: Path) -> None:
    for path in sorted(folder.glob("*/*.ogg")):
        fold, source = path.stem.split("-")[:2]
        held_out = zlib.crc32(source.encode()) % 6 == 0
        split = "test" if fold == TEST_FOLD else "validation" if held_out else "train"
        copy(path, out / split / "sounds" / SOUNDS[path.parent.name] / path.name)


def gather_pictures(folder: Path, out: Path) -> None:
    for group in sorted(folder.iterdir()):
        files = sorted(group.glob("*.jpg"))
        label = PICTURES.get(group.name, OTHER)
        for number, path in enumerate(files):
            share = number / len(files)
            split = "train" if share < 0.72 else "validation" if share < 0.8 else "test"
            copy(path, out / split / "pictures" / label / f"{group.name}-{path.name}")


# ---- voices ----


def speech(split: str, real: Path) -> Iterator[np.ndarray]:
    """Utterances: spoken digits, letters and syllables in many languages, prompts, synthesis."""
    rng = generator("speech", split)
    for words in (*digits(split, real), *letters(split)):
        for _ in range({"train": 14, "validation": 8, "test": 12}[split]):
            yield utterance(words, rng)
    if split == "train":
        prompts = [read(path) for path in sorted(PROMPTS.glob("*.wav"))]
        yield from (utterance(prompts, rng) for _ in range(60))
    for number in range(RENDERED[split]):
        yield synthesized(split, number, rng)


def digits(split: str, real: Path) -> list[list[np.ndarray]]:
    """The recordings of each speaker of a split."""
    speakers: dict[str, list[np.ndarray]] = {}
    held_out = sum(SPEAKERS.values(), ())
    archive = next((real / "digits").glob("free-spoken-digit-dataset-*.tar.gz"))
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name)
            if name.suffix != ".wav":
                continue
            speaker = name.stem.split("_")[1]
            if (speaker in SPEAKERS[split]) if split in SPEAKERS else (speaker not in held_out):
                with wave.open(io.BytesIO(tar.extractfile(member).read())) as file:
                    samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
                speakers.setdefault(speaker, []).append(doubled(samples / np.float32(32768)))
    return list(speakers.values())


def letters(split: str) -> Iterator[list[np.ndarray]]:
    """The recordings of each language of a split, one speaker each."""
    held_out = sum(LANGUAGES.values(), ())
    for folder in sorted(path for path in LETTERS.iterdir() if (path / "alpha").is_dir()):
        name = folder.name
        if (name in LANGUAGES[split]) if split in LANGUAGES else (name not in held_out):
            yield [read(path) for path in sorted(folder.glob("*/*.ogg"))[:60]]


def doubled(samples: np.ndarray) -> np.ndarray:
    """From 8 to 16 kHz, by zeros above 4 kHz."""
    spectrum = np.fft.rfft(samples)
    return (2 * np.fft.irfft(spectrum, 2 * len(samples))).astype(np.float32)


def utterance(words: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Words one after the other, with pauses, until the time is over."""
    parts, length = [], 0
    while length < SECONDS * RATE:
        word = words[rng.integers(len(words))]
        loud = word * np.float32(0.3 / max(np.abs(word).max(), 1e-3))
        parts += [loud, np.zeros(int(RATE * rng.uniform(0.02, 0.35)), np.float32)]
        length = sum(map(len, parts))
    return np.concatenate(parts)[: SECONDS * RATE]


def synthesized(split: str, number: int, rng: np.random.Generator) -> np.ndarray:
    text = " ".join(rng.permutation(SENTENCES)[:2])
    if split == "train":
        voice = rng.choice(["en-us", "en-gb", "en-gb-scotland", "de", "fr", "es", "it", "pl", "nl"])
        kind = rng.choice(["m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5"])
        options = ["-v", f"{voice}+{kind}", "-p", str(rng.integers(25, 75))]
        program = ["espeak-ng", *options, "-s", str(rng.integers(130, 190)), "--stdout", text]
    elif split == "validation":
        program = ["text2wave"]
    else:
        voice = ("slt", "awb", "rms", "kal")[number % 4]
        program = ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"]
    sound = subprocess.run(program, input=text.encode(), capture_output=True, check=True).stdout
    return utterance([decoded(sound)], rng)


# ---- music ----


def melodies(label: str, split: str) -> Iterator[np.ndarray]:
    programs, low, high, voices = INSTRUMENTS[label]
    count = RENDERED[split] // len(programs) + 1
    for bank, program in programs:
        yield from rendered(bank, program, low, high, voices, count, split)


def unlabeled(split: str) -> Iterator[np.ndarray]:
    """Instruments, electronic sounds, tones and noises that no class stands for."""
    for program in UNLABELED[split]:
        yield from rendered(0, program, 40, 80, 2, RENDERED[split] // 8, split)
    for path in samples_of(("ambi", "bass", "elec", "glitch", "misc", "vinyl"), split):
        yield read(path)
    yield from probes(UNLABELED_PROBES[split], split, RENDERED[split] * 2)


def rendered(bank, program, low, high, voices, count, split) -> Iterator[np.ndarray]:
    """Random melodies of one instrument, played by fluidsynth."""
    rng = generator(f"{bank} {program}", split)
    notes = []
    for piece in range(count):
        notes += melody(piece * SECONDS, low, high, voices, rng)
    sound = played(notes, [bytes([0xB0, 0, bank]), bytes([0xC0, program])])
    yield from pieces(sound, count)


def melody(start: float, low: int, high: int, voices: int, rng: np.random.Generator) -> list:
    """Notes (second, duration, channel, key, velocity) of a piece."""
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) + rng.integers(12)
    keys = [key for key in range(low, high + 1) if key % 12 in scale % 12]
    beat, time, place = rng.choice([0.15, 0.22, 0.3, 0.45, 0.7]), 0.0, rng.integers(len(keys))
    notes = []
    while time < SECONDS - 0.3:
        length = beat * rng.choice([0.5, 1, 1, 1, 2, 3])
        for voice in range(1 + rng.integers(voices)):
            key = keys[(place + 2 * voice) % len(keys)]
            notes.append((start + time, 0.9 * length, 0, key, int(rng.integers(60, 115))))
        time += length
        place = int(np.clip(place + rng.integers(-3, 4), 0, len(keys) - 1))
    return notes


def drums(split: str) -> Iterator[np.ndarray]:
    """Rhythms of the sound font's drum kits and of samples."""
    rng = generator("drums", split)
    count = RENDERED[split] // 2
    for kit in {"train": (0, 8, 16), "validation": (24,), "test": (25, 32)}[split]:
        notes = [note for piece in range(count) for note in rhythm(piece * SECONDS, rng)]
        yield from pieces(played(notes, [bytes([0xC9, kit])]), count)
    yield from (read(path) for path in samples_of(("loop",), split))
    hits = [read(path) for path in samples_of(("bd", "drum", "sn", "tabla"), split)]
    for _ in range(count):
        out = np.zeros(2 * SECONDS * RATE, np.float32)
        for time, _, _, key, velocity in rhythm(0, rng):
            hit = hits[key % len(hits)][: SECONDS * RATE]
            first = int(time * RATE)
            out[first : first + len(hit)] += velocity / 127 * hit
        yield out[: SECONDS * RATE]


def rhythm(start: float, rng: np.random.Generator) -> list:
    """Strokes (second, duration, channel, key, velocity): a random bar that is repeated."""
    beat, steps = rng.uniform(0.1, 0.22), int(rng.choice([8, 12, 16]))
    kit = rng.choice([35, 36, 38, 40, 41, 42, 43, 45, 46, 47, 49, 51, 54], 4, replace=False)
    bar = rng.random((4, steps)) < rng.uniform(0.15, 0.5, (4, 1))
    bar[0, 0] = True
    times = np.arange(int(SECONDS / beat))
    return [
        (start + time * beat, 0.05, 9, int(key), int(rng.integers(60, 120)))
        for time in times
        for key, strokes in zip(kit, bar, strict=True)
        if strokes[time % steps]
    ]


def played(notes: Iterable, setup: list[bytes]) -> np.ndarray:
    """The sound of notes, by fluidsynth from a MIDI file."""
    events = [(0.0, message) for message in setup]
    for second, duration, channel, key, velocity in notes:
        events.append((second, bytes([0x90 | channel, key, velocity])))
        events.append((second + duration, bytes([0x80 | channel, key, 0])))
    track, last = b"", 0
    for second, message in sorted(events, key=lambda event: event[0]):
        tick = round(960 * second)  # 480 a quarter, 120 quarters a minute
        track += variable(tick - last) + message
        last = tick
    track += variable(0) + b"\xff\x2f\x00"
    song = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(track))
    with tempfile.TemporaryDirectory() as folder:
        midi, sound = Path(folder) / "song.mid", Path(folder) / "song.wav"
        midi.write_bytes(song + track)
        options = ["-ni", "-g", "0.6", "-r", "32000", "-F", str(sound)]
        program = ["fluidsynth", *options, str(SOUND_FONT), str(midi)]
        subprocess.run(program, capture_output=True, check=True)
        return read(sound)


def variable(number: int) -> bytes:
    """A number as MIDI writes times: seven bits a byte, the highest first."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(0x80 | number & 0x7F)
    return bytes(reversed(parts))


def samples_of(kinds: tuple[str, ...], split: str) -> list[Path]:
    """The samples of these kinds that belong to a split."""

    def own(path: Path) -> str:
        return SPLITS[(0, 0, 0, 0, 0, 0, 0, 1, 2, 2)[zlib.crc32(path.stem.encode()) % 10]]

    files = sorted(SAMPLES.glob("*.flac"))
    return [path for path in files if path.stem.split("_")[0] in kinds and own(path) == split]


def probes(classes: str, split: str, count: int = 0) -> Iterator[np.ndarray]:
    """Sounds made by code."""
    names, rng = classes.split("|"), generator(classes, split)
    for number in range(count or RENDERED[split]):
        yield probe_sounds.render(names[number % len(names)], rng, SECONDS, RATE)


# ---- teachers ----


def teach(folder: Path, out: Path) -> None:
    """Write what the teachers say of the training files beside them: the soft labels."""
    for kind, teacher in (("sounds", tagger), ("pictures", classifier)):
        listen = teacher(folder)
        files = sorted((out / "train" / kind).glob("*/*.*"))
        scores = np.stack([listen(path) for path in tqdm(files, desc=f"{kind}: teacher")])
        useful = np.flatnonzero((scores > 0.3).sum(0) >= 3)
        np.savez_compressed(
            out / "train" / kind / SOFT_LABELS,
            labels=np.array([listen.names[column] for column in useful]),
            files=np.array([str(path.relative_to(out / "train" / kind)) for path in files]),
            scores=scores[:, useful].astype(np.float16),
        )


class tagger:
    """Scores of AudioSet's classes by YAMNet, the highest over the windows of a sound."""

    def __init__(self, folder: Path):
        from mbt_lite.config import FrontEnd

        lines = (folder / "yamnet_class_map.csv").read_text().splitlines()[1:]
        self.names = [line.split(",", 2)[2].strip('"') for line in lines]
        self.run = interpreter(folder / "yamnet_spectra_in.tflite")
        self.front_end = FrontEnd(
            "yamnet", fft=512, mels=64, low=125, high=7500, window_fn="hann", offset=0.001
        )

    def __call__(self, path: Path) -> np.ndarray:
        from mbt_lite.features import log_mel

        rows = log_mel(read(path)[: 10 * RATE], self.front_end)
        rows = np.pad(rows, ((0, max(96 - len(rows), 0)), (0, 0)), mode="edge")
        starts = range(0, len(rows) - 95, 48)
        return np.max([self.run(rows[None, first : first + 96]) for first in starts], axis=0)


class classifier:
    """Probabilities of ImageNet's classes by MobileNet."""

    def __init__(self, folder: Path):
        names = (folder / "imagenet_labels.txt").read_text().splitlines()
        self.run = interpreter(folder / "mobilenet_v2_1.0_224_quant.tflite")
        self.names = names

    def __call__(self, path: Path) -> np.ndarray:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((224, 224)))
        return self.run(pixels[None])


def interpreter(path: Path):
    """A function from the input of a tflite model to its output, in real numbers."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(path), num_threads=1)
    model.allocate_tensors()
    into, out = model.get_input_details()[0], model.get_output_details()[0]

    def run(values: np.ndarray) -> np.ndarray:
        scale, zero = into["quantization"]
        if into["dtype"] != np.float32 and values.dtype != into["dtype"]:
            limits = np.iinfo(into["dtype"])
            values = np.round(values / scale + zero).clip(limits.min, limits.max)
        model.set_tensor(into["index"], values.reshape(into["shape"]).astype(into["dtype"]))
        model.invoke()
        answer = model.get_tensor(out["index"])[0].astype(np.float32)
        scale, zero = out["quantization"]
        return (answer - zero) * scale if scale else answer

    return run


# ---- files ----


def generator(name: str, split: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), SPLITS.index(split)])


def pieces(sound: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for number in range(count):
        yield sound[number * SECONDS * RATE : (number + 1) * SECONDS * RATE]


def read(path: Path) -> np.ndarray:
    return media.read(path, 0.0, 1000.0, only="audio").wave


def decoded(sound: bytes) -> np.ndarray:
    """A sound from the bytes of a WAV file."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(sound)
        file.flush()
        return read(Path(file.name))


def write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    level = 0.7 / max(np.abs(samples).max(), 1e-4)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((32767 * level * samples).astype("<i2").tobytes())


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
