"""States on disk: whole, exact, the right ones kept, whatever happens to disk and processes."""

import asyncio
import functools
import re
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt_lite.train.checkpointing import RunCheckpoints


def state(step: int, size: int = 1000) -> dict:
    """What every test saves as the state of a step."""
    kernel = (jnp.arange(size) * step % 997).reshape(-1, 10).astype(jnp.float32)
    return {"kernel": kernel, "step": jnp.int32(step)}


def abstract(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        tree,
    )


def assert_equal(tree, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


@pytest.fixture
def messages():
    return []


@pytest.fixture
def opened(tmp_path, messages):
    """Checkpoints in a folder; those that were opened before are closed."""
    open_now = []

    def open_folder(**options):
        close()
        open_now.append(RunCheckpoints(tmp_path / "state", tell=messages.append, **options))
        return open_now[-1]

    def close():
        while open_now:
            open_now.pop().close()

    yield open_folder
    close()


@pytest.fixture
def two_states(tmp_path, opened):
    """The folder of the newest of two states."""
    for step in (20, 40):
        opened().save(step, state(step), {"step": step})
    opened()
    return tmp_path / "state" / "40"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- what is saved is restored ----


def test_an_empty_folder_has_no_state(opened):
    assert opened().restore(abstract(state(1))) is None


def test_a_state_is_restored_bit_by_bit_with_its_json(opened, messages):
    arrays = {
        "floats": jnp.asarray(np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)),
        "halves": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
        "flags": jnp.array([True, False]),
        "count": jnp.int32(-4),
        "nested": (jnp.ones(3, jnp.uint8), {"none": None}),
    }
    about = {"data": {"epoch": 1, "position": [2, 3]}, "scored": None}
    opened().save(8, arrays, about)
    restored = opened().restore(abstract(arrays))
    assert (restored.step, restored.about, messages) == (8, about, [])
    assert jax.tree.structure(restored.state) == jax.tree.structure(arrays)
    assert_equal(*(jax.tree.map(_bits, tree) for tree in (restored.state, arrays)))


def _bits(leaf):
    return np.asarray(leaf).view(np.uint8) if leaf.ndim else np.asarray(leaf)


@functools.partial(jax.jit, donate_argnums=0)
def trained(params):
    return jax.tree.map(lambda x: x * 2 + 1, params)


def test_a_state_that_is_donated_right_after_the_call_is_saved_as_it_was(opened):
    params = {"large": jnp.arange(2**21, dtype=jnp.float32), "small": jnp.ones(3)}
    shapes, checkpoints = abstract(params), opened(keep=3)
    trained(jax.tree.map(jnp.copy, params))  # compiled before
    for step in range(3):
        expected = jax.tree.map(lambda x: np.array(x, copy=True), params)
        checkpoints.save(step, params, {})
        for _ in range(3):
            params = trained(params)
        jax.block_until_ready(params)
        assert_equal(checkpoints.restore(shapes).state, expected)


def test_states_are_saved_from_a_notebook_where_an_event_loop_runs(opened):
    async def cell():
        checkpoints = opened()
        checkpoints.save(1, state(1), {})
        return checkpoints.restore(state(1))

    assert_equal(asyncio.run(cell()).state, state(1))


# ---- which states are kept ----


def test_the_latest_states_are_kept_even_after_a_restart(tmp_path, opened):
    for step in (1, 2, 3):
        opened(keep=2).save(step, state(step), {})
    opened()
    assert names(tmp_path / "state") == ["2", "3"]


def test_half_written_states_are_deleted_at_the_next_start(tmp_path, opened):
    opened().save(1, state(1), {})
    opened()
    shutil.copytree(tmp_path / "state/1", tmp_path / "state/2.orbax-checkpoint-tmp")
    shutil.copytree(tmp_path / "state/1", tmp_path / "state/removed/0")
    assert opened().restore(state(1)).step == 1
    assert names(tmp_path / "state") == ["1"]


# ---- damage ----


def largest(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_a_bit(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def record(folder):
    return folder / "record" / "metadata"


DAMAGES = {
    "a flipped bit": (lambda folder: flip_a_bit(largest(folder / "state" / "d")), "state: .+"),
    "a missing file": (lambda folder: largest(folder / "state" / "d").unlink(), "state: .+"),
    "an empty JSON": (lambda folder: record(folder).write_bytes(b""), "record: it has changed"),
    "no JSON": (lambda folder: record(folder).unlink(), "record: No such file or directory"),
    "no arrays": (lambda folder: shutil.rmtree(folder / "state"), "state: .+"),
}


@pytest.mark.parametrize("damage, problem", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_state_is_set_aside_and_the_one_before_restored(
    damage, problem, tmp_path, two_states, opened, messages
):
    damage(two_states)
    restored = opened().restore(abstract(state(1)))
    assert restored.step == 20 and restored.about == {"step": 20}
    assert_equal(restored.state, state(20))
    [message] = messages
    folder = re.escape(f"the state of step 40 in {tmp_path}/state is damaged")
    assert re.fullmatch(rf"{folder} \({problem}\); resuming from step 20\.", message)
    assert names(tmp_path / "state") == ["20", "40.damaged"]
    opened().save(40, state(40), {})
    assert_equal(opened().restore(state(1)).state, state(40))


def test_whichever_byte_of_a_state_changes_only_exact_states_are_restored(
    two_states, opened, messages
):
    files = [path for path in two_states.rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        before = path.read_bytes()
        for content in (b"", bytes([*before[:-1], before[-1] ^ 1])):
            path.write_bytes(content)
            restored = opened().restore(state(1))
            assert restored.about == {"step": restored.step}
            assert_equal(restored.state, state(restored.step))
            if restored.step == 20:
                two_states.with_name("40.damaged").rename(two_states)
        path.write_bytes(before)
    assert opened().restore(state(1)).step == 40


def test_a_run_whose_states_are_all_damaged_is_not_trained_anew(
    tmp_path, two_states, opened, messages
):
    for name in names(tmp_path / "state"):
        flip_a_bit(record(tmp_path / "state" / name))
    with pytest.raises(ValueError, match=r"no state in .* can be read \(step 40: record.*step 20:"):
        opened().restore(state(1))
    assert names(tmp_path / "state") == ["20", "40"] and not messages


OTHERS = {
    "shape": (state(1, 500), r"kernel was float32\[100, 10\] and now is float32\[50, 10\]\)"),
    "type": (state(1) | {"step": jnp.int16(1)}, r"step was int32\[\] and now is int16\[\]\)"),
    "names": (
        {"w": jnp.ones(2), "step": jnp.int32(1)},
        "kernel was .* is absent, and 1 more differ",
    ),
}


@pytest.mark.parametrize("other, difference", OTHERS.values(), ids=OTHERS.keys())
def test_the_state_of_another_model_is_refused_and_not_called_damaged(
    other, difference, tmp_path, two_states, opened, messages
):
    with pytest.raises(ValueError, match=f"of another model .{difference}"):
        opened().restore(other)
    assert names(tmp_path / "state") == ["20", "40"] and not messages


# ---- no room ----


@pytest.mark.full
def test_training_goes_on_where_a_file_would_be_too_large(tmp_path, opened, messages):
    noise = jax.random.normal(jax.random.key(0), (12, 300_000))  # which cannot be compressed
    limits, checkpoints = resource.getrlimit(resource.RLIMIT_FSIZE), opened()
    checkpoints.save(1, state(1), {}, wait=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))
    try:
        checkpoints.save(2, {"large": noise}, {}, wait=True)
        checkpoints.save(3, {f"w{i}": row for i, row in enumerate(noise)}, {}, wait=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for step, message in zip((2, 3), messages, strict=True):
        unsaved = r"could not be saved in .*state \(File too large\); that of step 1 stays"
        assert re.match(f"the state of step {step} {unsaved}", message)
    checkpoints.save(4, state(4), {}, wait=True)
    assert_equal(checkpoints.restore(state(1)).state, state(4))
    opened()
    assert names(tmp_path / "state") == ["1", "4"]
