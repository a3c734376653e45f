"""States on disk: whole, marked, ranked, put aside where damaged, given up on a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt_lite.savepoints import Savepoints, marks

# Reads that Orbax leaves under way when one fails end later, in an error that nobody hears.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(number: float) -> dict:
    """A state whose content follows from a number."""
    weights = np.float32(number) + np.arange(30_000, dtype=np.float32).reshape(100, 300)
    return {
        "weights": jnp.asarray(weights),
        "halves": jnp.asarray(weights[:5], jnp.bfloat16),
        "step": jnp.asarray(int(number), jnp.int32),
        "key": jax.random.key_data(jax.random.key(int(number))),
    }


def same(tree, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def save_some(folder, steps, scores=None, **options) -> list[str]:
    """What was told while these steps were saved."""
    told = []
    with Savepoints(folder, tell=told.append, **options) as saved:
        for step in steps:
            saved.save(step, state(step), {"data": step}, (scores or {}).get(step))
    return told


def test_a_state_comes_back_bit_by_bit_with_what_was_said_about_it(tmp_path):
    assert save_some(tmp_path, [7]) == []
    with Savepoints(tmp_path) as saved:
        found = saved.restore(state(0))
    assert found.step == 7 and found.about == {"data": 7}
    same(found.state, state(7))
    assert jax.tree.map(lambda x: x.dtype, found.state) == jax.tree.map(lambda x: x.dtype, state(7))


def test_an_empty_folder_has_nothing_to_go_on_from(tmp_path):
    with Savepoints(tmp_path) as saved:
        assert saved.restore(state(0)) is None


def test_the_newest_states_stay_and_the_best_one(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: None, 4: float("nan"), 5: 0.3, 6: 0.2}
    save_some(tmp_path, [1, 2, 3], scores, keep=2)
    save_some(tmp_path, [4, 5, 6], scores, keep=2)  # after a new start the best is still known
    with Savepoints(tmp_path) as saved:
        assert saved.steps() == [2, 5, 6]


def test_the_next_step_may_use_the_memory_of_what_is_being_saved(tmp_path):
    @partial(jax.jit, donate_argnums=0)
    def advance(tree):
        return jax.tree.map(lambda x: x + jnp.ones((), x.dtype), tree)

    current = state(1)
    with Savepoints(tmp_path, keep=9) as saved:
        for step in range(1, 6):
            expected = jax.tree.map(np.array, current)
            saved.save(step, current, {"marks": marks(current)})
            current = advance(current)
        saved.restore(current)
    with Savepoints(tmp_path) as saved:
        assert saved.steps() == [1, 2, 3, 4, 5]
        found = saved.restore(state(0))  # the marks of what was read are those of what was saved
        same(found.state, expected)


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage(how: str, folder) -> None:
    files = sorted((folder / "state").rglob("d/*"), key=lambda p: p.stat().st_size)
    if how == "flipped bit":
        flip(files[-1])
    elif how == "cut file":
        files[-1].write_bytes(files[-1].read_bytes()[: files[-1].stat().st_size // 2])
    elif how == "missing file":
        files[-1].unlink()
    elif how == "damaged JSON":
        (folder / "about" / "metadata").write_text('{"about": ')
    elif how == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()


HOW = ("flipped bit", "cut file", "missing file", "damaged JSON", "empty folder")


@pytest.mark.parametrize("how", HOW)
def test_of_a_damaged_state_one_is_told_and_the_one_before_is_taken(how, tmp_path):
    save_some(tmp_path, [1, 2])
    damage(how, tmp_path / "00000002")
    told = []
    with Savepoints(tmp_path, tell=told.append) as saved:
        found = saved.restore(state(0))
        same(found.state, state(1))
        assert len(told) == 1 and "the state of step 2" in told[0] and "going on from" in told[0]
        assert (tmp_path / "00000002.damaged").is_dir()
        saved.save(2, state(2), {}, wait=True)  # the same step again
        same(saved.restore(state(0)).state, state(2))


def test_a_bit_that_flips_in_any_file_is_noticed_or_makes_no_difference(tmp_path):
    save_some(tmp_path / "whole", [1, 2])
    newest = tmp_path / "whole" / "00000002"
    files = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]
    noticed = 0
    for number, file in enumerate(files):
        copy = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        flip(copy / file.relative_to(tmp_path / "whole"))
        told = []
        with Savepoints(copy, tell=told.append) as saved:
            found = saved.restore(state(0))
        same(found.state, state(found.step))
        assert found.about == {"data": found.step} and bool(told) == (found.step == 1)
        noticed += bool(told)
    assert noticed >= 4


def test_where_all_states_are_damaged_nothing_begins_anew_by_itself(tmp_path):
    save_some(tmp_path, [1])
    damage("cut file", tmp_path / "00000001")
    with Savepoints(tmp_path, tell=lambda _: None) as saved:
        with pytest.raises(ValueError, match="no state in .* can be read any more"):
            saved.restore(state(0))


def test_the_state_of_another_model_is_refused_and_not_called_damaged(tmp_path):
    save_some(tmp_path, [1])
    other = state(0) | {"weights": jnp.zeros((5, 300))}
    with Savepoints(tmp_path) as saved:
        with pytest.raises(ValueError, match=r"of another model .*weights.* was \['float32', 100"):
            saved.restore(other)
        assert saved.steps() == [1]


def test_the_marks_change_with_any_bit_and_any_place():
    one = {"a": jnp.arange(1000, dtype=jnp.float32)}
    swapped = {"a": one["a"].at[jnp.array([3, 4])].set(one["a"][jnp.array([4, 3])])}
    least = {"a": one["a"].at[500].set(np.nextafter(np.float32(500), np.float32(501)))}
    assert len({tuple(marks(tree)) for tree in (one, swapped, least)}) == 3


def program(tmp_path, text: str) -> subprocess.Popen:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    return subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True)


def test_a_disk_that_is_full_costs_one_state_and_not_the_run(tmp_path):
    folder = tmp_path / "state"
    ran = program(
        tmp_path,
        f"""
        import json, resource
        import jax.numpy as jnp, numpy as np
        from mbt_lite.savepoints import Savepoints

        rng, told = np.random.default_rng(0), []
        make = lambda: {{"x": jnp.asarray(rng.normal(size=(400, 500)).astype("f4"))}}
        none = resource.getrlimit(resource.RLIMIT_FSIZE)
        with Savepoints({str(folder)!r}, tell=told.append) as saved:
            saved.save(1, make(), {{}}, wait=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, none[1]))
            saved.save(2, make(), {{}}, wait=True)
            after = saved.steps()
            resource.setrlimit(resource.RLIMIT_FSIZE, none)
            saved.save(3, make(), {{}}, wait=True)
            print(json.dumps([told, after, saved.steps()]))
        """,
    )
    told, during, after = json.loads(ran.communicate(timeout=120)[0])
    assert during == [1] and after == [1, 3]
    assert len(told) == 1 and "step 2 could not be saved" in told[0] and "step 1 stays" in told[0]
    assert all(path.name.isdigit() for path in folder.iterdir())


def test_a_process_killed_while_it_saves_leaves_whole_states(tmp_path):
    folder = tmp_path / "state"
    for seconds in (0.0, 0.03, 0.1):
        ran = program(
            tmp_path,
            f"""
            import jax.numpy as jnp, numpy as np
            from mbt_lite.savepoints import Savepoints

            with Savepoints({str(folder)!r}) as saved:
                first = (saved.steps() or [0])[-1]
                for step in range(first + 1, first + 1000):
                    saved.save(step, {{"x": jnp.full((300, 400), step, jnp.float32)}}, {{}})
                    print(step, flush=True)
            """,
        )
        for _ in range(3):
            assert ran.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            ran.wait(seconds)
        os.kill(ran.pid, signal.SIGKILL)
        ran.communicate()
        with Savepoints(folder, tell=pytest.fail) as saved:
            found = saved.restore({"x": jnp.zeros((300, 400))})
            assert (np.asarray(found.state["x"]) == found.step).all()
            assert all(path.name.isdigit() for path in folder.iterdir())
