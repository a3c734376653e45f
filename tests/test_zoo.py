"""Downloads that break, resume and are refused; then the published models by name."""

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
from faulty_server import cut, deaf, endless, good, page, serving, stall, status
from flax import serialization, traverse_util

from mbt_lite import checkpoints, cli, paths
from mbt_lite.checkpoints import download, formats, zoo
from mbt_lite.config import BASE
from mbt_lite.model.flops import model_cost
from mbt_lite.model.mbt import init_params

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DATA = np.random.default_rng(0).bytes(100_000)
OTHER = np.random.default_rng(1).bytes(90_000)
TAG = {"ETag": '"one"'}
UNFINISHED = {"file.partial", "file.partial.json"}
COMPLETE = {"file", "file.sha256"}


@pytest.fixture
def server(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    monkeypatch.setattr(download, "WAITS", (0.01, 0.01))
    with serving() as running:
        yield running


def files_in(folder: Path) -> set[str]:
    """Every file in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fetch(url: str, path: Path) -> bytes:
    """Download a file and return its bytes."""
    return download.download(url, path, check=lambda file: None).read_bytes()


def refusal(url: str, folder: Path) -> str:
    """The sentence with which a download is refused."""
    with pytest.raises(download.DownloadError) as error:
        fetch(url, folder / "file")
    sentence = str(error.value)
    assert sentence.startswith(url) and "\n" not in sentence
    return sentence


def test_a_download_leaves_the_file_and_its_checksum(server, tmp_path):
    path = tmp_path / "new" / "file"
    assert fetch(server.url("/f", good(DATA)), path) == DATA
    assert files_in(path.parent) == COMPLETE
    expected = f"{hashlib.sha256(DATA).hexdigest()}  file\n"  # the format of sha256sum
    assert (path.parent / "file.sha256").read_text() == expected
    assert download.verify(path, path) == download.remembered(path)
    assert fetch(server.url("/g", endless(DATA)), tmp_path / "file") == DATA  # no Content-Length


def test_after_a_cut_only_the_rest_is_requested(server, tmp_path):
    url = server.url("/f", cut(DATA, 30_000, **TAG), good(DATA, **TAG))
    assert fetch(url, tmp_path / "file") == DATA
    assert server.ranges() == [None, "bytes=30000-"]
    assert server.requests[1][1]["If-Range"] == '"one"'
    assert files_in(tmp_path) == COMPLETE


def test_a_failed_download_is_resumed_by_the_next_call(server, tmp_path):
    broken = [cut(DATA, 30_000, **TAG), status(503), status(503), status(503)]
    url = server.url("/f", *broken, good(DATA, **TAG))
    sentence = refusal(url, tmp_path)
    assert "503" in sentence and f"{tmp_path / 'file.partial'} keeps the 30 kB" in sentence
    assert files_in(tmp_path) == UNFINISHED
    assert (tmp_path / "file.partial").read_bytes() == DATA[:30_000]
    assert fetch(url, tmp_path / "file") == DATA
    assert server.ranges() == [None, *["bytes=30000-"] * 4]
    assert files_in(tmp_path) == COMPLETE


def test_a_stalled_connection_is_given_up_and_the_rest_requested(server, tmp_path):
    url = server.url("/f", stall(DATA, 40_000, **TAG), good(DATA, **TAG))
    assert fetch(url, tmp_path / "file") == DATA
    assert server.ranges() == [None, "bytes=40000-"]
    assert "silent for 0.3 s" in refusal(server.url("/g", stall(DATA, 0, **TAG)), tmp_path / "g")


def test_a_web_page_is_refused_and_does_not_cost_the_bytes_received_before(server, tmp_path):
    url = server.url("/f", cut(DATA, 30_000, **TAG), page(), good(DATA, **TAG))
    assert "a web page, not the file" in refusal(url, tmp_path)
    assert files_in(tmp_path) == UNFINISHED
    assert fetch(url, tmp_path / "file") == DATA
    assert server.ranges()[-1] == "bytes=30000-"


@pytest.mark.parametrize("code, requests", [(403, 1), (404, 1), (503, 3)])
def test_only_a_busy_server_is_asked_again(server, tmp_path, code, requests):
    assert f"the server answers {code}" in refusal(server.url("/f", status(code)), tmp_path)
    assert len(server.requests) == requests
    assert files_in(tmp_path) == set()


CHANGED = {
    "If-Range obeyed": (TAG, good(OTHER, ETag='"two"')),
    "If-Range ignored": (TAG, good(OTHER, honest=False, ETag='"two"')),
    "no ranges": (TAG, deaf(OTHER, **TAG)),
    "no validator": ({}, good(OTHER)),
}


@pytest.mark.parametrize("case", CHANGED)
def test_bytes_of_two_files_are_never_mixed(server, tmp_path, case):
    headers, then = CHANGED[case]
    url = server.url("/f", cut(DATA, 30_000, **headers), then)
    assert fetch(url, tmp_path / "file") == OTHER
    assert files_in(tmp_path) == COMPLETE


def test_a_partial_file_of_another_address_is_not_used(server, tmp_path):
    other = {"url": "http://elsewhere/f", "validator": '"one"', "total": 900}
    for note in ("{", json.dumps(other)):
        (tmp_path / "file.partial").write_bytes(OTHER[:500])
        (tmp_path / "file.partial.json").write_text(note)
        assert fetch(server.url("/f", good(DATA, **TAG)), tmp_path / "file") == DATA
        assert server.ranges()[-1] is None
        assert files_in(tmp_path) == COMPLETE


def test_another_file_than_the_first_time_is_refused(server, tmp_path):
    path = tmp_path / "file"
    fetch(server.url("/f", good(DATA)), path)
    path.unlink()
    sentence = refusal(server.url("/f", good(OTHER)), tmp_path)
    assert "is not the file of the first download" in sentence
    assert files_in(tmp_path) == {"file.sha256"}
    assert download.remembered(path) == hashlib.sha256(DATA).hexdigest()


def test_without_network_one_sentence_says_what_to_download_and_where_to_put_it(tmp_path, server):
    url = server.url("/f", good(DATA)).replace(str(server.server_port), "9")  # nobody listens
    started = time.monotonic()
    sentence = refusal(url, tmp_path)
    assert "no connection" in sentence and "refused" in sentence
    assert f"download it elsewhere and put it at {tmp_path / 'file'}." in sentence
    assert time.monotonic() - started < 2
    assert files_in(tmp_path) == set()


def download_in_another_process(url: str, folder: Path, before: str = "") -> subprocess.Popen:
    program = (
        f"{before}\nimport sys; from pathlib import Path\n"
        "from mbt_lite.checkpoints import download\n"
        f"try: download.download({url!r}, Path({str(folder / 'file')!r}), check=id)\n"
        "except download.DownloadError as error: sys.exit(str(error))"
    )
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


@pytest.mark.full
def test_a_download_that_fills_the_disk_is_resumed_later(server, tmp_path):
    url = server.url("/f", good(DATA, **TAG))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))"
    with download_in_another_process(url, tmp_path, limit) as process:
        stderr = process.stderr.read()
    assert process.returncode == 1
    assert "the disk is full: 30 kB more are needed" in stderr
    assert f"{tmp_path / 'file.partial'} keeps the 70 kB" in stderr
    assert files_in(tmp_path) == UNFINISHED
    assert fetch(url, tmp_path / "file") == DATA
    assert server.ranges() == [None, "bytes=70000-"]


@pytest.mark.full
@pytest.mark.parametrize(
    "blow",
    [
        pytest.param(signal.SIGINT, id="Ctrl-C", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, id="kill"),
    ],
)
def test_an_interrupted_download_is_resumed(server, tmp_path, blow):
    url = server.url("/f", stall(DATA, 50_000, **TAG), good(DATA, **TAG))
    part = tmp_path / "file.partial"
    with download_in_another_process(url, tmp_path) as process:
        while not (part.exists() and part.stat().st_size == 50_000):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(blow)
        stderr = process.stderr.read()
    assert process.returncode == -blow
    assert blow is signal.SIGKILL or f"interrupted. {part} keeps the 50 kB" in stderr
    assert files_in(tmp_path) == UNFINISHED
    assert fetch(url, tmp_path / "file") == DATA
    assert server.ranges() == [None, "bytes=50000-"]


TINY = dataclasses.replace(
    BASE,
    width=16,
    depth=2,
    heads=2,
    mlp_dim=32,
    fusion_layer=1,
    rgb_shape=(2, 224, 224),  # one tubelet deep
    spec_shape=(32, 128),
)
NAMES = ["Speech", "Male speech, man", *[f"class {i}" for i in range(2, 137)], "Music"]
NAMES += [f"class {i}" for i in range(138, 527)]
PUBLISHED = "mbtb32_as-500k_rgb-spec"
LOCK = f".{PUBLISHED}.lock"
READY = {"as500k-rgb-spec.safetensors", f"{PUBLISHED}.sha256", LOCK}
LABELS = {"classes.csv", "classes.csv.sha256", ".classes.csv.lock"}


def table(names: list[str]) -> bytes:
    """A stand-in for AudioSet's list of classes."""
    rows = [f'{i},/m/{i},"{name}"' for i, name in enumerate(names)]
    return "\n".join(["index,mid,display_name", *rows]).encode()


@pytest.fixture(scope="session")
def published() -> tuple[dict, bytes]:
    """(our parameters, the bytes) of a small model in the layout of the released files."""
    params = random_params()
    params["head"]["bias"] = np.linspace(-9, -7, 527, dtype=np.float32)
    params["head"]["bias"][[0, 137]] = -1, -2
    return params, flax_file(params)


def random_params() -> dict:
    shapes = jax.eval_shape(partial(init_params, TINY), jax.random.key(0))
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


def flax_file(params: dict) -> bytes:
    target = traverse_util.unflatten_dict(checkpoints.to_scenic(TINY, params), sep="/")
    momentum = jax.tree.map(lambda array: {"momentum": np.zeros_like(array)}, target)
    optimizer = {"target": target, "state": {"step": np.int32(7), "param_states": momentum}}
    rest = {"global_step": 7, "model_state": {}, "accum_train_time": 1.5}
    rng = np.zeros(2, np.uint32)
    return serialization.to_bytes({"optimizer": optimizer, "rng": rng, **rest})


@pytest.fixture
def offer(server, tmp_path, monkeypatch):
    """A way to say what the network answers for the small model and for the class names."""
    monkeypatch.setenv("MBT_LITE_CACHE", str(tmp_path))

    def answer_with(*answers, labels=None):
        url = server.url(f"/{PUBLISHED}", *answers)
        fields = {"url": url, "config": TINY}
        entry = dataclasses.replace(zoo.ENTRIES["as500k-rgb-spec"], **fields)
        monkeypatch.setitem(zoo.ENTRIES, "as500k-rgb-spec", entry)
        names = server.url("/csv/classes.csv", labels or good(table(NAMES)))
        monkeypatch.setattr(zoo, "LABELS", names)

    return answer_with


def model_requests(server) -> int:
    """The number of requests for the model itself."""
    return sum(path == f"/{PUBLISHED}" for path, _ in server.requests)


def equal(one: dict, other: dict, rounding: float = 0.0) -> bool:
    same = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=rounding, atol=0), one, other)
    return all(jax.tree.leaves(same))


def test_the_zoo_has_the_six_released_models_and_the_embedded_one():
    mAP = {name: entry.mAP for name, entry in zoo.ENTRIES.items()}
    assert mAP == {  # the README of Scenic's MBT
        "as-mini-spec": 30.9,
        "as-mini-rgb": 27.0,
        "as-mini-rgb-spec": 43.9,
        "as500k-spec": 44.0,
        "as500k-rgb": 33.9,
        "as500k-rgb-spec": 52.3,
        "world-tiny": None,
    }
    parameters = {"spec": 86_360_591, "rgb": 89_051_663, "rgb-spec": 175_009_295}
    for entry in zoo.ENTRIES.values():
        if entry.released:
            streams = entry.file.rpartition("_")[2]
            assert entry.url == f"https://storage.googleapis.com/scenic-bucket/mbt/{entry.file}"
            assert model_cost(entry.config).parameters == parameters[streams]
            assert sorted(entry.config.streams) == streams.split("-")
            assert entry.clip.front_end.compression == "log"  # as the paper says
            assert entry.caution == (zoo.ORDER if streams == "rgb" else zoo.UNTESTED)


def test_the_embedded_model_is_what_its_entry_says():
    entry = zoo.entry("world-tiny")
    config, _, meta = checkpoints.load(zoo.fetch("world-tiny"))
    assert (config, meta["clip"], meta["license"]) == (entry.config, entry.clip, entry.license)


def test_a_lone_stream_has_the_plain_name_of_the_class_token():
    assert zoo.expected_arrays(zoo.entry("as500k-spec").config)["cls"] == (1, 1, 768)


def test_a_model_goes_by_its_plain_and_its_published_name_and_others_are_refused():
    assert zoo.entry(PUBLISHED) is zoo.entry("as500k-rgb-spec")
    with pytest.raises(ValueError, match="no 'as500-rgb'. Did you mean as500k-rgb "):
        zoo.entry("as500-rgb")
    with pytest.raises(ValueError, match="no 'resnet'. It has as-mini-spec, .*world-tiny"):
        zoo.entry("resnet")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    for name in ("MBT_LITE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.cache_folder() == tmp_path / ".cache" / "mbt_lite"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_folder() == tmp_path / "xdg" / "mbt_lite"
    monkeypatch.setenv("MBT_LITE_CACHE", "~/mine")
    assert paths.cache_folder() == tmp_path / "mine"


def test_a_model_is_downloaded_and_converted_once(server, offer, published, tmp_path):
    params, data = published
    offer(good(data))
    path = zoo.fetch(PUBLISHED)
    assert path == tmp_path / "as500k-rgb-spec.safetensors"
    assert files_in(tmp_path) == READY | LABELS  # the download itself is gone
    assert path.stat().st_size < 0.55 * len(data)  # no optimiser any more
    config, loaded, meta = checkpoints.load(path)
    assert config == TINY and equal(loaded, params)
    assert meta["labels"] == NAMES and meta["clip"] == zoo.released_clip()
    assert meta["name"] == "as500k-rgb-spec" and meta["license"].startswith("Apache-2.0")
    assert meta["source"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert meta["caution"] == zoo.UNTESTED
    assert zoo.fetch("as500k-rgb-spec") == path and model_requests(server) == 1
    assert zoo.state(zoo.entry(PUBLISHED)) == "float32"


def test_the_first_use_goes_on_with_what_was_converted(
    server, offer, published, monkeypatch, capsys
):
    offer(good(published[1]))
    reads = []
    for name in ("_read_msgpack", "read_safetensors"):
        read = getattr(formats, name)
        monkeypatch.setattr(formats, name, lambda path, read=read: reads.append(path) or read(path))
    config, params, meta = zoo.load(PUBLISHED)
    assert [path.suffix for path in reads] == [".partial"]  # once, to check the download
    told = capsys.readouterr().err
    assert "converting" in told and "of memory" in told and "converted in" in told
    again = zoo.load(PUBLISHED)
    assert (config, meta) == (again[0], again[2]) and equal(params, again[1])
    assert [path.suffix for path in reads[1:]] == [".safetensors"]
    assert zoo.load(PUBLISHED, fusion_layer=0)[0].fusion_layer == 0


def test_bfloat16_is_converted_from_the_file_that_is_here(server, offer, published, tmp_path):
    params, data = published
    offer(good(data))
    full, half = zoo.fetch(PUBLISHED), zoo.fetch(PUBLISHED, "bfloat16")
    assert model_requests(server) == 1
    assert half.name == "as500k-rgb-spec-bf16.safetensors"
    assert half.stat().st_size < 0.6 * full.stat().st_size
    assert equal(checkpoints.load(half)[1], params, rounding=2**-8)
    sources = [checkpoints.load(path)[2]["source"] for path in (full, half)]
    assert sources[0] == sources[1]
    assert zoo.fetch(PUBLISHED) == full
    full.unlink()
    assert zoo.fetch(PUBLISHED) == half  # what is here will do
    half.unlink()
    assert zoo.fetch(PUBLISHED, "bfloat16") == half and not full.exists()  # straight away
    assert model_requests(server) == 2
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        zoo.fetch(PUBLISHED, "int8")
    with pytest.raises(ValueError, match="embedded"):
        zoo.fetch("world-tiny", "bfloat16")


def test_a_file_put_by_hand_needs_no_network_and_stays(offer, published, tmp_path):
    params, data = published
    offer(status(404), labels=status(404))
    (tmp_path / PUBLISHED).write_bytes(data)
    with pytest.warns(UserWarning, match="saved without class names: .*404"):
        path = zoo.fetch("as500k-rgb-spec")
    _, loaded, meta = checkpoints.load(path)
    assert equal(loaded, params) and meta["labels"] is None
    assert files_in(tmp_path) == READY | {PUBLISHED, ".classes.csv.lock"}
    assert download.remembered(tmp_path / PUBLISHED) == hashlib.sha256(data).hexdigest()


def test_a_file_put_by_hand_that_is_something_else_is_refused_and_stays(offer, tmp_path):
    offer(status(404))
    (tmp_path / PUBLISHED).write_bytes(b"\x81\xa1x\x01")  # a map, of no model
    with pytest.raises(ValueError, match="(?s)file was left where it is: delete it"):
        zoo.fetch(PUBLISHED)
    assert files_in(tmp_path) == {PUBLISHED, LOCK}


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_a_download_that_is_no_whole_checkpoint_leaves_nothing(offer, published, tmp_path, change):
    offer(good(change(published[1])))
    with pytest.raises(download.DownloadError, match=f"put it at {tmp_path / PUBLISHED}"):
        zoo.fetch(PUBLISHED)
    assert files_in(tmp_path) == {LOCK}


@pytest.mark.slow
def test_two_processes_download_and_convert_once(server, offer, published, tmp_path):
    def slowly(request):
        time.sleep(0.5)  # the other one comes meanwhile
        good(published[1])(request)

    offer(slowly)
    program = (
        "import dataclasses, sys; from mbt_lite.checkpoints import zoo; import test_zoo\n"
        "url, zoo.LABELS, name = sys.argv[1:]\n"
        "entry = dataclasses.replace(zoo.ENTRIES[name], url=url, config=test_zoo.TINY)\n"
        "zoo.ENTRIES[name] = entry; sys.stdin.readline(); print(zoo.fetch(name), flush=True)"
    )
    entry = zoo.ENTRIES["as500k-rgb-spec"]
    command = [sys.executable, "-c", program, entry.url, zoo.LABELS, entry.name]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    both = [
        subprocess.Popen(command, cwd=Path(__file__).parent, text=True, **pipes) for _ in range(2)
    ]
    outputs = [process.communicate("go\n") for process in both]
    assert [out.strip() for out, _ in outputs] == [str(zoo.converted(entry))] * 2, outputs
    assert model_requests(server) == 1
    assert files_in(tmp_path) == READY | LABELS


@pytest.mark.parametrize(
    "data",
    [
        table(NAMES[:-1]),
        table(NAMES).replace(b"index,mid", b"mid,index"),
        table(NAMES).replace(b"\n5,", b"\n6,"),
        b"\xff\xfe" * 300,
    ],
    ids=["one short", "other header", "other order", "binary"],
)
def test_a_list_that_is_not_the_527_classes_is_refused(offer, tmp_path, data):
    offer(status(404), labels=good(data))
    with pytest.raises(download.DownloadError, match="not the list of 527 classes .*put it at"):
        zoo.audioset_labels()
    assert files_in(tmp_path) == {".classes.csv.lock"}


def shown(capsys, *command: str) -> str:
    """What a command on the zoo prints, with single spaces."""
    capsys.readouterr()
    assert cli.main(["zoo", *command]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_list_of_models_says_whose_scores_it_shows(offer, published, capsys):
    offer(good(published[1]))
    zoo.fetch(PUBLISHED)
    out = shown(capsys, "list")
    assert "mAP (Scenic README)" in out and out.count("not here") == 5
    assert "as500k-rgb-spec spec rgb AudioSet 500K 52.3" in out and out.endswith("embedded")
    assert "as500k-spec spec AudioSet 500K 44.0 86,360,591" in out


def test_a_model_that_is_not_here_is_shown_without_network(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MBT_LITE_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "download", None)  # nobody may call it
    out = shown(capsys, "show", "as500k-rgb-spec")
    assert "52.3 (Scenic README, not measured here)" in out
    assert "397 are expected, 175,009,295 numbers" in out
    assert f"put it at {tmp_path / PUBLISHED}" in out
    assert "was never published" in out and "mbt-lite zoo verify" in out
    line = "Transformer/encoderblock_*_spectrogram/LayerNorm_0/scale (768,) x 12"
    assert line in out and "encoderblock_0" not in out
    assert files_in(tmp_path) == set()


def test_a_model_that_is_here_is_shown_with_its_checksum_and_its_largest_biases(
    offer, published, tmp_path, capsys
):
    params, data = published
    offer(status(404))
    (tmp_path / PUBLISHED).write_bytes(data)
    path = zoo.fetch(PUBLISHED)
    out = shown(capsys, "show", PUBLISHED)
    assert "0 Speech -1.000, 137 Music -2.000, 526 class 526 -7.000" in out
    assert "0 (Speech) and 137 (Music) lead, as in AudioSet's official order" in out
    assert f"sha256 {hashlib.sha256(data).hexdigest()}" in out
    bias = np.roll(params["head"]["bias"], 3)
    (tmp_path / PUBLISHED).write_bytes(
        flax_file({**params, "head": params["head"] | {"bias": bias}})
    )
    assert "137 (Music) do not lead" in shown(capsys, "show", str(tmp_path / PUBLISHED))
    path.unlink()
    assert cli.main(["zoo", "download", PUBLISHED]) == 1
    assert "is not the file of the first download" in capsys.readouterr().err


def test_show_describes_a_file_of_any_layout(published, tmp_path, capsys):
    path = tmp_path / "anything"
    path.write_bytes(published[1])
    out = shown(capsys, "show", str(path))
    assert f"{model_cost(TINY).parameters:,} parameters" in out and "does not say" in out
    assert "clip not said in the file" in out and "labels none in the file" in out
    out = shown(capsys, "show", str(zoo.converted(zoo.entry("world-tiny"))))
    assert "31 names in the file" in out and "front end world" in out
    assert cli.main(["zoo", "show", "as500-rgb"]) == 1
    assert "Did you mean as500k-rgb" in capsys.readouterr().err
    assert cli.main(["zoo", "show", str(tmp_path / "none.npz")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_download_prints_the_path_and_the_caution(offer, published, tmp_path, capsys):
    offer(good(published[1]))
    assert cli.main(["zoo", "download", PUBLISHED]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == str(tmp_path / "as500k-rgb-spec.safetensors")
    assert zoo.UNTESTED in out and "note: no self-test: " in out  # of other clips
    offer(status(403))
    command = ["zoo", "download", "as500k-rgb-spec", "--dtype", "bfloat16", "--no-verify"]
    assert cli.main(command) == 0 and "no self-test" not in capsys.readouterr().out
    (tmp_path / "as500k-rgb-spec.safetensors").unlink()
    assert cli.main(["zoo", "download", "as500k-rgb-spec"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_files_of_the_hub_come_by_their_address_or_with_a_reason(monkeypatch, tmp_path):
    asked = []

    def hub(repository, file, revision):
        asked.append((repository, file, revision))
        failures = {
            ("me/none", download._HUB_WEIGHTS): huggingface_hub.errors.RepositoryNotFoundError,
            ("me/more", download._HUB_WEIGHTS): huggingface_hub.errors.LocalEntryNotFoundError,
            ("me/mbt", "config.json"): huggingface_hub.errors.EntryNotFoundError,
            ("me/mbt", "other.npz"): huggingface_hub.errors.EntryNotFoundError,
        }
        if kind := failures.get((repository, file)):
            raise kind.__new__(kind)  # made by hand they need a response
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    assert download.hub_file("hf://me/mbt@v2") == tmp_path / "model.safetensors"
    assert download.hub_file("hf://me/mbt/a/b.npz") == tmp_path / "a/b.npz"
    files = [("model.safetensors", "v2"), ("config.json", "v2"), ("a/b.npz", None)]
    assert asked == [("me/mbt", *file) for file in files]
    for reference, reason in {
        "hf://me/none": "there is no such repository, or it is private",
        "hf://me/mbt/other.npz": "the repository has no other.npz",
        "hf://me/more": "the hub is out of reach and no copy is on this machine",
    }.items():
        with pytest.raises(download.DownloadError, match=f"^{reference}: {reason}. Check the name"):
            download.hub_file(reference)


@pytest.mark.parametrize("address", ["hf://me", "https://me/mbt", "hf://me/mbt@", "hf://me//x"])
def test_an_address_that_is_not_of_the_hub_is_refused(address):
    with pytest.raises(ValueError, match="no address like hf://user/repo"):
        download.hub_file(address)
