"""TFDS without TensorFlow: digits from the files as they are published, clips from any table."""

import gzip
import hashlib
import io
import shutil
import struct
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
from faulty_server import deaf, serving, status

from mbt_lite import cli
from mbt_lite.config import WORLD_CLIP
from mbt_lite.data import extract, tables
from mbt_lite.features import FRONT_ENDS, hz_to_mel

pytestmark = pytest.mark.full
tfds = pytest.importorskip("tensorflow_datasets")

from tensorflow_datasets.core.download import checksums  # noqa: E402

from mbt_lite.data.tfds import (  # noqa: E402
    AvDigits,
    AvDigitsConfig,
    TableConfig,
    TableDataset,
    av_digits,
    digits,
)
from mbt_lite.data.tfds.table import Clips  # noqa: E402

TINY = AvDigitsConfig(name="tiny", pairs=2)
TINY_CLEAN = AvDigitsConfig(name="tiny_clean", pairs=2, snr=None, pixel_noise=0.0)
SAMPLES = Path(__file__).parent.parent / "data_samples"
TAKES = 12  # recordings of each digit by the one speaker


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.9/{name}")
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return file.getvalue()


def tone(digit: int, samples: int) -> np.ndarray:
    """A voice whose pitch is its digit: 300, 400, ... 1200 Hz."""
    return 9000 * np.sin(2 * np.pi * 100 * (digit + 3) * np.arange(samples) / 8000)


def bars(digits: np.ndarray) -> np.ndarray:
    """Images whose digit is the row of a white bar."""
    images = np.zeros((len(digits), 28, 28), np.uint8)
    images[np.arange(len(digits)), 2 * digits + 4] = 255
    return images


def published() -> dict[str, bytes]:
    """The five files, small: their layout, with digits that a test can read."""
    rng, files = np.random.default_rng(0), {"README.md": b"", "recordings/README.txt": b""}
    for digit in range(10):
        for take in range(TAKES):
            samples = tone(digit, int(rng.integers(1500, 10_000)))
            files[f"recordings/{digit}_ann_{take}.wav"] = wav(samples)
    train, test = (rng.permutation(np.arange(n) % 10).astype(np.uint8) for n in (1200, 120))
    contents = [idx(bars(train)), idx(train), idx(bars(test)), idx(test), archive(files)]
    return dict(zip(av_digits.FILES, contents, strict=True))


def accept(monkeypatch, folder: Path) -> None:
    """Let the checksums be those of the files in a folder."""
    infos = {
        url: checksums.compute_url_info(folder / file)
        for url, file in zip(av_digits.URLS.values(), av_digits.FILES, strict=True)
    }
    monkeypatch.setattr(AvDigits, "url_infos", infos)


def build(config, data_dir: Path, manual: Path) -> AvDigits:
    builder = AvDigits(config=config, data_dir=data_dir)
    options = tfds.download.DownloadConfig(manual_dir=str(manual))
    builder.download_and_prepare(download_config=options)
    return builder


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    for name, content in published().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def accepted(monkeypatch, manual):
    accept(monkeypatch, manual)
    return manual


@pytest.fixture(scope="module")
def clean(tmp_path_factory, manual):
    with pytest.MonkeyPatch.context() as patch:
        accept(patch, manual)
        return build(TINY_CLEAN, tmp_path_factory.mktemp("clean"), manual)


def stored(builder, split: str) -> list[dict]:
    return list(builder.as_data_source(split))


def recording_and_image(example) -> tuple[str, str]:
    return tuple(example["id"].decode().split("-"))


def test_image_audio_and_label_of_an_example_are_the_same_digit(clean):
    for example in stored(clean, "test"):
        row = example["image"].sum(1).argmax()
        spectrum = np.abs(np.fft.rfft(example["audio"]))  # one second: bins are hertz
        assert (row - 4) / 2 == round(spectrum.argmax() / 100) - 3 == example["label"]


def test_the_official_recordings_are_tested_and_no_file_serves_two_splits(clean):
    takes, images = {}, {}
    for split in av_digits.SPLITS:
        ids = [recording_and_image(example) for example in stored(clean, split)]
        takes[split] = {int(recording.rpartition("_")[2]) for recording, _ in ids}
        images[split] = [image for _, image in ids]
        assert len(images[split]) == 2 * 10 * len(takes[split])  # pairs x digits x takes
    assert takes == {
        "test": {0, 1, 2, 3, 4},
        "validation": {5, 6, 7, 8, 9},
        "train": {10, 11},
    }
    everything = sum(images.values(), [])
    assert len(set(everything)) == len(everything)
    assert all(image.startswith("test") for image in images["test"])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(accepted, tmp_path):
    def records(name, seed):
        config = AvDigitsConfig(name="tiny", pairs=1, seed=seed)
        built = build(config, tmp_path / name, accepted)
        return [path.read_bytes() for path in sorted(Path(built.data_dir).glob("*record*"))]

    once, again, other = records("once", 0), records("again", 0), records("other", 1)
    assert once == again and all(a != b for a, b in zip(once, other, strict=True))


def test_tfds_reads_the_folder_by_name_without_tensorflow(clean):
    info = tfds.builder_from_directory(clean.data_dir).info
    assert dict(info.metadata) == {"snr": None, "pixel_noise": 0.0, "pairs": 2, "seed": 0}
    assert info.features["label"].names == list("0123456789")
    program = (
        "import sys, mbt_lite.data.tfds, tensorflow_datasets as tfds\n"
        f"builder = tfds.builder('av_digits/tiny_clean', data_dir={str(clean.data_dir_root)!r})\n"
        "source = builder.as_data_source('train')\n"
        "print(len(source), source[0]['image'].shape, 'tensorflow' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "40 (28, 28) False\n", ran.stderr


@pytest.mark.parametrize("snr", [-10.0, 20.0])
def test_the_noise_over_a_voice_has_the_given_signal_to_noise_ratio(snr):
    voice = tone(3, 4000)
    mixed = digits.noisy_audio(voice.astype(np.int16), snr, np.random.default_rng(0)) / 1.0
    scale = mixed[2000:6000] @ voice / (voice @ voice)
    noise = mixed - scale * np.pad(voice, 2000)
    assert len(mixed) == 8000 and np.abs(mixed).max() == 32767
    measured = 10 * np.log10(np.mean((scale * voice) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(snr, abs=0.3)
    assert noise[:2000].std() == pytest.approx(noise[2000:6000].std(), rel=0.05)


def test_the_noise_on_an_image_is_clipped_to_black_and_white():
    rng, gray = np.random.default_rng(0), np.full((400, 400), 51, np.uint8)  # 0.2
    weak = digits.noisy_image(gray, 0.05, rng) / 255
    assert weak.mean() == pytest.approx(0.2, abs=1e-3)
    assert weak.std() == pytest.approx(0.05, rel=0.02)
    strong = digits.noisy_image(gray, 1.5, rng)
    assert np.mean(strong == 0) == pytest.approx(0.447, abs=0.01)  # P(z < -0.2 / 1.5)
    assert np.mean(strong == 255) == pytest.approx(0.297, abs=0.01)  # P(z > 0.8 / 1.5)


def test_a_long_recording_gives_its_middle_second_and_a_silent_one_silence():
    rng, long = np.random.default_rng(0), np.arange(12_000).astype(np.int16)
    audio = digits.noisy_audio(long, None, rng).astype(float)
    np.testing.assert_allclose(audio * (9999 / 32767), long[2000:10_000], atol=0.2)
    assert not digits.noisy_audio(np.zeros(500, np.int16), -10.0, rng).any()


def test_a_sample_shows_the_digit_in_all_frames_and_has_its_pitch(clean):
    example = stored(clean, "test")[0]
    sample = av_digits.sample(example, WORLD_CLIP)
    assert sample["rgb"].shape == (8, 48, 48, 3) and sample["rgb"].dtype == np.uint8
    assert (sample["rgb"] == sample["rgb"][0]).all()
    row = (sample["rgb"][0, :, 24, 0].argmax() + 0.5) * 28 / 48
    assert row == pytest.approx(4.5 + 2 * example["label"], abs=0.7)
    assert sample["spec"].shape == (200, 128) and sample["spec"].dtype == np.float32
    front = WORLD_CLIP.front_end
    centres = np.linspace(hz_to_mel(front.low), hz_to_mel(front.high), front.mels + 2)[1:-1]
    loudest = centres[sample["spec"].max(0).argmax()]
    pitch = hz_to_mel(100 * (example["label"] + 3))
    assert loudest == pytest.approx(pitch, abs=centres[1] - centres[0])
    assert sample["labels"].tolist() == np.eye(10)[example["label"]].tolist()
    assert sample["id"] == example["id"].decode()


def test_more_pairs_than_images_are_refused(accepted, tmp_path):
    config = AvDigitsConfig(name="many", pairs=9)
    with pytest.raises(ValueError, match="of 0 with 9 images each need .* ask for fewer"):
        build(config, tmp_path, accepted)
    assert not list(tmp_path.rglob("*record*"))


def test_the_checksums_are_those_that_tfds_publishes_for_the_same_addresses():
    home = Path(tfds.__file__).parent
    theirs = {
        **checksums.load_url_infos(home / "url_checksums" / "mnist.txt"),
        **checksums.load_url_infos(home / "datasets" / "spoken_digit" / "checksums.tsv"),
    }
    ours = AvDigits.url_infos
    assert set(ours) == set(av_digits.URLS.values())
    assert ours == {url: theirs[url] for url in ours}
    assert [ours[url].filename for url in av_digits.URLS.values()] == list(av_digits.FILES)


@pytest.fixture
def server(monkeypatch, accepted):
    """The published files on a server of this machine."""
    with serving() as server:
        urls, infos = {}, {}
        for (name, url), file in zip(av_digits.URLS.items(), av_digits.FILES, strict=True):
            urls[name] = server.url("/" + file, deaf((accepted / file).read_bytes()))
            infos[urls[name]] = AvDigits.url_infos[url]
        monkeypatch.setattr(av_digits, "URLS", urls)
        monkeypatch.setattr(AvDigits, "url_infos", infos)
        yield server


def test_what_is_missing_in_the_manual_folder_is_downloaded_once(server, tmp_path):
    for name in ("one", "two"):
        config = AvDigitsConfig(name=name, pairs=1)
        built = build(config, tmp_path, tmp_path / "manual")
    assert len(stored(built, "test")) == 50
    assert sorted(path for path, _ in server.requests) == sorted(f"/{f}" for f in av_digits.FILES)


def test_a_download_that_is_not_the_published_file_is_refused(server, tmp_path):
    server.answers[f"/{av_digits.FILES[0]}"] = [deaf(b"another file")]
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz.* not the published file"):
        build(TINY, tmp_path, tmp_path / "manual")
    assert not list(tmp_path.rglob("*record*"))


def test_a_download_that_fails_says_which_files_to_put_where(server, tmp_path):
    server.answers[f"/{av_digits.FILES[4]}"] = [status(404)]
    with pytest.raises(OSError, match="(?s)404.*put .*train-images.* into a folder"):
        build(TINY, tmp_path, tmp_path / "manual")


def test_a_file_in_the_manual_folder_that_is_not_the_published_one_is_named(tmp_path, capsys):
    for name, content in published().items():
        (tmp_path / name).write_bytes(content)
    command = ["build", "av_digits", "--out", str(tmp_path / "out"), "--manual", str(tmp_path)]
    assert cli.main(command) == 1
    out, err = capsys.readouterr()
    assert not out and "wrong checksum" in err.splitlines()[-1] and "Traceback" not in err


def test_images_and_labels_may_be_unzipped_or_in_an_archive(monkeypatch, accepted, tmp_path):
    *zipped, recordings = (accepted / file for file in av_digits.FILES)
    shutil.copy(recordings, tmp_path)
    plain = {path.stem: gzip.decompress(path.read_bytes()) for path in zipped}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in plain.items()}
    monkeypatch.setattr(av_digits, "CONTENTS", sums)
    first, *others = plain
    (tmp_path / first).write_bytes(plain[first])
    assert av_digits.missing(tmp_path) == [f"{name}.gz" for name in others]
    with tarfile.open(tmp_path / "mirror.tgz", "w:gz") as archive:
        for name in others:
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(plain[name])
            archive.addfile(member, io.BytesIO(plain[name]))
    built = build(TINY, tmp_path / "out", tmp_path)
    usual = build(TINY, tmp_path / "usual", accepted)
    ids = [[example["id"] for example in stored(b, "test")] for b in (built, usual)]
    assert ids[0] == ids[1] and len(ids[0]) == 100


def test_the_command_builds_and_counts(monkeypatch, accepted, tmp_path, capsys):
    small = AvDigitsConfig(name="noisy", pairs=1)
    monkeypatch.setattr(AvDigits, "BUILDER_CONFIGS", [small])
    monkeypatch.setattr(AvDigits, "builder_configs", {"noisy": small})
    command = ["build", "av_digits", "--out", str(tmp_path), "--manual", str(accepted)]
    assert cli.main(command) == 0
    folder, *counts = capsys.readouterr().out.splitlines()
    assert Path(folder) == tmp_path / "av_digits" / "noisy" / "1.0.0"
    assert [line.split()[:2] for line in counts] == [
        ["train", "20"],
        ["validation", "50"],
        ["test", "50"],
    ]
    assert cli.main(command) == 0  # nothing to do


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two good files, one that is none, one that is missing; two splits."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("ball.mp4", "bell.mp4"):
        shutil.copy(SAMPLES / name, folder / name)
    (folder / "text.mp4").write_text("no video")
    lines = [
        "path,start,end,labels,split",
        "ball.mp4,0,1,ball|both,train",
        "bell.mp4,0.5,1.5,bell|both,test",
        "bell.mp4,,,bell,test",
        "text.mp4,,,ball,train",
        "gone.mp4,,,ball,train",
    ]
    (folder / "toys.csv").write_text("\n".join(lines))
    return folder / "toys.csv"


@pytest.fixture(scope="module")
def toys(table, tmp_path_factory):
    builder = TableDataset(
        config=TableConfig(name="toys", table=table), data_dir=tmp_path_factory.mktemp("toys")
    )
    builder.download_and_prepare()
    return builder


def test_a_clip_of_a_table_comes_back_as_it_was_extracted(toys, table):
    rows = {row.id: row for row in tables.read(table).rows}
    settings = extract.Settings(TableConfig(name="toys").front_end, ("ball", "bell", "both"))
    clips = [*Clips(toys.data_dir, "train"), *Clips(toys.data_dir, "test")]
    assert sorted(Path(rows[clip.id].path).name for clip in clips) == [
        "ball.mp4",
        "bell.mp4",
        "bell.mp4",
    ]
    for clip in clips:
        expected = extract.example(rows[clip.id], settings)
        for name in ("id", "jpegs", "names", "labels", "start", "end"):
            assert getattr(clip, name) == getattr(expected, name)
        for name in ("melspec", "wave"):
            np.testing.assert_array_equal(getattr(clip, name), getattr(expected, name), strict=True)


@pytest.mark.parametrize("change", ["table", "front_end"])
def test_a_dataset_with_another_fingerprint_under_the_same_name_is_refused(
    toys, table, tmp_path, change
):
    config = TableConfig(name="toys", table=table)
    if change == "table":
        config.table = tmp_path / "toys.csv"
        config.table.write_text(table.read_text().replace("ball|both", "both"))
        config.videos = table.parent
    else:
        config.front_end = FRONT_ENDS["yamnet"]
    with pytest.raises(ValueError, match=f"made with another {change}; remove that folder"):
        TableDataset(config=config, data_dir=toys.data_dir_root)


def test_the_command_over_a_table_names_what_it_left_out(table, tmp_path, capsys):
    assert cli.main(["build", str(table), "--out", str(tmp_path), "--name", "my toys"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == str(tmp_path / "table_dataset" / "my_toys" / "1.0.0")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["test", "2"], ["train", "1"]]
    assert err.count("is left out") == 2 and "Traceback" not in err
    assert "there is no such file" in err and "text.mp4" in err


def test_a_table_of_which_no_file_can_be_used_leaves_no_dataset(tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.csv").write_text("path,labels\ntext.mp4,ball\n")
    command = ["build", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 1
    out, err = capsys.readouterr()
    assert not out and "Traceback" not in err
    assert "none of the 1 clips of split train can be used" in err.splitlines()[-1]
    assert not list(tmp_path.rglob("*record*"))
