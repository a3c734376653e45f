"""States on disk: whole, exact, the right ones kept, whatever happens to disk and processes."""

import asyncio
import functools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mbt_lite.train.checkpointing import CheckpointManager

COMMON = """
import json, os, pathlib, resource, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from mbt_lite.train.checkpointing import CheckpointManager

def state(step, size=1000):
    kernel = (jnp.arange(size) * step % 997).reshape(-1, 10).astype(jnp.float32)
    return {"kernel": kernel, "step": jnp.int32(step)}
"""


def state(step: int, size: int = 1000) -> dict:
    """What every test saves as the state of a step; COMMON has it, too."""
    kernel = (jnp.arange(size) * step % 997).reshape(-1, 10).astype(jnp.float32)
    return {"kernel": kernel, "step": jnp.int32(step)}


def described(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        tree,
    )


def same(got, want) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.fixture
def told():
    return []


@pytest.fixture
def opened(tmp_path, told):
    """Checkpoints in a folder, which is closed before it is opened again."""
    open_now = []

    def make(**options):
        close()
        open_now.append(CheckpointManager(tmp_path / "state", tell=told.append, **options))
        return open_now[-1]

    def close():
        while open_now:
            open_now.pop().close()

    yield make
    close()


def names(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "state").iterdir())


def start(program: str, *arguments, devices: int = 1) -> subprocess.Popen:
    words = [sys.executable, "-c", COMMON + program, *map(str, arguments)]
    environment = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        words, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment
    )


def ran(process: subprocess.Popen) -> tuple[str, str]:
    """What a program printed and what it told."""
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return out, told


# ---- what is saved is what comes back ----


def test_where_nothing_was_saved_nothing_comes_back(opened):
    assert opened().restore(described(state(1))) is None


def test_a_state_comes_back_bit_by_bit_with_what_was_said_about_it(opened, told):
    key = jax.random.key(7)
    odd = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    whole = {
        "floats": jnp.asarray(odd),
        "halves": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
        "flags": jnp.array([True, False]),
        "raw key": jax.random.key_data(key),
        "key": key,
        "keys": jax.random.split(key, 3),
        "count": jnp.int32(-4),
        "nested": (jnp.ones(3, jnp.uint8), {"none": None}),
    }
    about = {"data": {"epoch": 1, "position": [2, 3]}, "scored": None}
    opened().save(8, whole, about)
    found = opened().restore(described(whole))
    assert found.step == 8 and found.about == about and not told
    assert jax.tree.structure(found.state) == jax.tree.structure(whole)
    assert found.state["key"].dtype == key.dtype
    raw = [jax.tree.map(_bits, tree) for tree in (found.state, whole)]
    jax.tree.map(np.testing.assert_array_equal, *raw)


def _bits(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).view(np.uint8) if leaf.ndim else np.asarray(leaf)


def test_what_is_said_about_a_state_may_change_after_the_call(opened):
    about = {"position": 1}
    saved = opened()
    saved.save(1, state(1), about)
    about["position"] = 2
    assert saved.restore(state(1)).about == {"position": 1}


@functools.partial(jax.jit, donate_argnums=0)
def trained(params):
    return jax.tree.map(lambda x: x * 2 + 1, params)


def test_a_state_that_is_donated_right_after_the_call_is_saved_as_it_was(opened):
    params = {"large": jnp.arange(2**21, dtype=jnp.float32), "small": jnp.ones(3)}
    like, saved = described(params), opened(keep=3)
    trained(jax.tree.map(jnp.copy, params))  # compiled before
    for step in range(3):
        want = jax.tree.map(lambda x: np.array(x, copy=True), params)
        saved.save(step, params, {})
        for _ in range(3):
            params = trained(params)
        jax.block_until_ready(params)
        same(saved.restore(like).state, want)


def test_jax_does_not_donate_memory_that_numpy_looks_at():
    """Which is why saving on a CPU needs no copy."""
    params = jnp.arange(2**12, dtype=jnp.float32) + 1
    view = np.asarray(params.addressable_shards[0].data)
    assert view.ctypes.data == params.unsafe_buffer_pointer()
    before = view.copy()
    after = trained(params)
    assert after.block_until_ready().unsafe_buffer_pointer() != view.ctypes.data
    np.testing.assert_array_equal(view, before)


def test_states_are_saved_from_a_notebook_where_an_event_loop_runs(opened):
    async def cell():
        saved = opened()
        saved.save(1, state(1), {})
        return saved.restore(state(1))

    same(asyncio.run(cell()).state, state(1))


@pytest.mark.slow
def test_a_state_goes_on_on_other_devices(tmp_path, opened):
    opened().save(1, state(1), {}, wait=True)
    program = """
mesh = jax.make_mesh((4,), ("shard",), axis_types=(AxisType.Auto,))
cut, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("shard",), ()))
places = {"kernel": cut, "step": whole}
like = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state(1), places
)
train = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
with CheckpointManager(sys.argv[1]) as saved:
    found = saved.restore(like)
    assert jax.tree.map(lambda x: x.sharding, found.state) == places
    np.testing.assert_array_equal(found.state["kernel"], state(1)["kernel"])
    saved.save(2, found.state, {})
    after = train(found.state)
    np.testing.assert_array_equal(after["kernel"], state(1)["kernel"] + 1)
"""
    assert ran(start(program, tmp_path / "state", devices=4)) == ("", "")
    found = opened().restore(described(state(1)))
    assert found.step == 2
    same(found.state, state(1))


def test_orbax_reads_the_arrays_by_itself(tmp_path, opened):
    with opened() as saved:
        saved.save(1, state(1), {})
    with ocp.StandardCheckpointer() as reader:
        found = reader.restore(tmp_path / "state" / "00000001" / "state", described(state(1)))
    same(found, state(1))


# ---- which ones stay ----


def test_the_newest_states_stay_and_the_best_one_even_after_a_restart(tmp_path, opened):
    scores = {1: 0.5, 2: 0.9, 3: float("nan"), 4: None, 5: 0.1}
    for step, score in scores.items():
        opened(keep=1).save(step, state(step), {}, score)
    opened()
    assert names(tmp_path) == ["00000002", "00000005"]
    opened(keep=1).save(6, state(6), {}, score=0.95, wait=True)
    assert names(tmp_path) == ["00000006"]


def test_a_state_without_a_score_is_never_the_best(tmp_path, opened):
    for step in range(1, 6):
        opened(keep=2).save(step, state(step), {}, score=None if step % 2 else float("nan"))
    opened()
    assert names(tmp_path) == ["00000004", "00000005"]


def test_the_same_step_can_be_saved_anew(tmp_path, opened):
    opened().save(1, state(1), {})
    opened().save(1, state(2), {"again": True})
    found = opened().restore(state(1))
    assert found.about == {"again": True} and names(tmp_path) == ["00000001"]
    same(found.state, state(2))


def test_closing_waits_for_the_save_under_way(tmp_path):
    with CheckpointManager(tmp_path / "state") as saved:
        saved.save(1, state(1, 10**6), {})
    assert names(tmp_path) == ["00000001"]


def test_what_was_cut_off_is_cleared_away_at_the_next_start(tmp_path, opened):
    opened().save(1, state(1), {})
    saved = opened()
    shutil.copytree(tmp_path / "state" / "00000001", tmp_path / "state" / "00000002.partial")
    (tmp_path / "state" / "00000000.removed").mkdir()
    assert saved.restore(state(1)).step == 1
    opened()
    assert names(tmp_path) == ["00000001"]


# ---- damage ----


def largest(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(folder) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = {
    "a flipped bit": (lambda folder: flip(largest(folder)), "state/.* has changed"),
    "a shorter file": (lambda folder: os.truncate(largest(folder), 9), "state/.* has changed"),
    "a missing file": (lambda folder: largest(folder).unlink(), "state/.* is missing"),
    "a flipped bit in the JSON": (lambda folder: flip(folder / "record.json"), "record.json"),
    "no JSON": (lambda folder: (folder / "record.json").unlink(), "record.json: No such file"),
    "no arrays": (lambda folder: shutil.rmtree(folder / "state"), "is missing"),
    "nothing": (empty, "record.json: No such file"),
}


@pytest.mark.parametrize("damage, problem", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_state_is_put_aside_and_the_one_before_taken(
    damage, problem, tmp_path, opened, told
):
    for step in (20, 40):
        opened().save(step, state(step), {"step": step})
    opened()
    damage(tmp_path / "state" / "00000040")
    found = opened().restore(described(state(1)))
    assert found.step == 20 and found.about == {"step": 20}
    same(found.state, state(20))
    (sentence,) = told
    begins, ends = f"the state of step 40 in {tmp_path}/state is damaged (", "from step 20."
    assert sentence.startswith(begins) and sentence.endswith(f"); going on {ends}")
    assert re.search(problem, sentence) and "\n" not in sentence
    assert names(tmp_path) == ["00000020", "00000040.damaged"]
    opened().save(40, state(40), {})
    same(opened().restore(state(1)).state, state(40))


def test_any_byte_of_a_state_that_changes_is_noticed(tmp_path, opened, told):
    for step in (1, 2):
        opened().save(step, state(step), {})
    opened()
    newest = tmp_path / "state" / "00000002"
    files = [path for path in newest.rglob("*") if path.is_file()]
    for number, path in enumerate(files, start=1):
        before = path.read_bytes()
        flip(path)
        assert opened().restore(state(1)).step == 1 and len(told) == number
        newest.with_name("00000002.damaged").rename(newest)
        path.write_bytes(before)
    assert opened().restore(state(1)).step == 2 and len(told) == len(files) > 5


def test_where_all_states_are_damaged_it_is_refused_to_begin_anew(tmp_path, opened, told):
    for step in (20, 40):
        opened().save(step, state(step), {})
    opened()
    for name in names(tmp_path):
        flip(largest(tmp_path / "state" / name))
    sentence = r"every state in .* is damaged \(of step 40: state/.* has changed; of step 20: .*\)"
    with pytest.raises(ValueError, match=sentence):
        opened().restore(state(1))
    assert names(tmp_path) == ["00000020", "00000040"] and not told


OTHERS = {
    "shape": (state(1, 500), r"kernel was float32\[100, 10\] and now is float32\[50, 10\]\)"),
    "type": (state(1) | {"step": jnp.int16(1)}, r"step was int32\[\] and now is int16\[\]\)"),
    "more": (state(1) | {"a": jnp.ones(2)}, r"a was not there and now is float32\[2\]\)"),
    "fewer": ({"step": jnp.int32(1)}, r"kernel was float32\[100, 10\] and now is not there\)"),
    "two": (
        {"w": jnp.ones(2), "step": jnp.int32(1)},
        "kernel was .* is not there and 1 more differ",
    ),
}


@pytest.mark.parametrize("other, difference", OTHERS.values(), ids=OTHERS.keys())
def test_the_state_of_another_model_is_refused_and_not_damaged(
    other, difference, tmp_path, opened, told
):
    for step in (1, 2):
        opened().save(step, state(step), {})
    with pytest.raises(ValueError, match=f"of another model .{difference}"):
        opened().restore(other)
    assert names(tmp_path) == ["00000001", "00000002"] and not told


# ---- no room ----

FILLING = """
folder, limit = sys.argv[1], int(sys.argv[2])
many = {f"w{i}": jnp.full(300_000, i, jnp.float32) for i in range(12)}
with CheckpointManager(folder, tell=print) as saved:
    saved.save(1, state(1), {}, wait=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    saved.save(2, state(2, 3_000_000), {}, wait=True)
    saved.save(3, many, {})
    saved.wait()
    print(*sorted(os.listdir(folder)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    saved.save(4, state(4), {})
    found = saved.restore(state(1))
    np.testing.assert_array_equal(found.state["kernel"], state(4)["kernel"])
print(*sorted(os.listdir(folder)))
"""


@pytest.mark.slow
def test_training_goes_on_where_a_file_would_be_too_large(tmp_path):
    out, noise = ran(start(FILLING, tmp_path, 10**5))
    unsaved = (
        rf"could not be saved in {tmp_path} \((\S+: )?File too large\); that of step 1 stays\."
    )
    second, third, *listed = out.splitlines()
    assert re.fullmatch(f"the state of step 2 {unsaved}", second)
    assert re.fullmatch(f"the state of step 3 {unsaved}", third)
    assert listed == ["00000001", "00000001 00000004"] and noise == ""


def test_a_folder_that_cannot_be_made_is_told(tmp_path, opened, told):
    saved = opened()
    (tmp_path / "state" / "00000001.partial").touch()
    saved.save(1, state(1), {})
    (sentence,) = told
    assert "step 1 could not be saved" in sentence and sentence.endswith("; there is none yet.")
    saved.save(2, state(2), {})
    assert saved.restore(state(1)).step == 2


# ---- processes that are killed, and several of them ----

SAVING = """
with CheckpointManager(sys.argv[1]) as saved:
    found = saved.restore(state(1, 10**6))
    step = found.step if found else 0
    while True:
        step += 1
        print(step, flush=True)
        saved.save(step, state(step, 10**6), {"step": step})
"""


def killed_in_the_middle(tmp_path, opened, told, times: int) -> int:
    """In how many cases there was half a state, of so many kills at random moments."""
    rng, halves, newest = random.Random(0), 0, 0
    for _ in range(times):
        process = start(SAVING, tmp_path / "state")
        for _ in range(rng.randint(2, 4)):
            begun = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        assert process.communicate()[1] == ""
        halves += any(name.endswith(".partial") for name in names(tmp_path))
        found = opened().restore(state(1, 10**6))
        assert max(newest, begun - 2) <= found.step and found.about == {"step": found.step}
        newest = found.step
        same(found.state, state(newest, 10**6))
        assert all(name.isdigit() for name in names(tmp_path)) and not told
    return halves


@pytest.mark.slow
def test_a_process_killed_twenty_times_while_it_saves_leaves_whole_states(tmp_path, opened, told):
    assert killed_in_the_middle(tmp_path, opened, told, 20) > 3


TOGETHER = """
folder, port, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
cut, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
made = jax.jit(state, out_shardings={"kernel": cut, "step": whole})
like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), made(1))
told, found, unlimited = [], [], resource.RLIM_INFINITY

def restored():
    with CheckpointManager(folder, tell=told.append) as saved:
        try:
            step, got, about = saved.restore(like)
        except ValueError as error:
            return str(error)
        same = jax.tree.map(lambda a, b: bool((a == b).all()), got, made(step))
        return [step, about, all(same.values())]

def damage(name):
    for path in sorted((pathlib.Path(folder) / name).rglob("d/*")) if number == 0 else ():
        path.write_bytes(path.read_bytes()[:-1])

with CheckpointManager(folder, tell=told.append) as saved:
    assert saved.restore(like) is None
    for step in (1, 2):
        saved.save(step, made(step), {"step": step})
    if number == 1:
        saved.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, unlimited))
    saved.save(3, made(3), {"step": 3}, wait=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    saved.save(4, made(4), {"step": 4})
found.append(restored())
damage("00000004")
found.append(restored())
damage("00000002")
found.append(restored())
print(json.dumps({"found": found, "told": told}))
"""


@pytest.mark.slow
def test_two_processes_save_together_and_agree_on_what_is_damaged(tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    both = [start(TOGETHER, tmp_path, port, number) for number in range(2)]
    first, second = (json.loads(ran(process)[0].splitlines()[-1]) for process in both)
    unsaved, damaged = first["told"]
    assert "step 3 could not be saved" in unsaved
    assert "(another process could not write its part); that of step 2 stays." in unsaved
    assert "step 4 in" in damaged and damaged.endswith("going on from step 2.")
    assert second["told"] == []
    for found in (first["found"], second["found"]):
        assert found[:2] == [[4, {"step": 4}, True], [2, {"step": 2}, True]]
        assert "is damaged" in found[2]
