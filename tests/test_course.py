"""The course: exercises that name every known mistake, notebooks that are what their texts say."""

import ast
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import course
import jax
import nbformat
import numpy as np
import pytest
from course import minimbt, runtime
from course.exercise import NOTHING, Exercise
from packaging.version import Version

from mbt_lite.inference import load

pytest.importorskip("jupytext")

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = ["00_first_look", *course.LESSONS]
EXERCISES = [one for lesson in course.LESSONS for one in course.exercises(lesson)]
MISTAKES = [(one, words) for one in EXERCISES for words in one.mistakes]
CODE_LINES = 15  # in one cell; a dozen is meant
MODULE_LINES = 26  # in a cell that is a `flax.linen` module
each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)
each_exercise = pytest.mark.parametrize("one", EXERCISES, ids=lambda one: one.name)


def script(name: str):
    """A script beside the notebooks, as a module."""
    spec = importlib.util.spec_from_file_location(f"course_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(FOLDER))  # as Python does for a script
build, landing = script("build"), script("landing")
SETUP = build.SETUP.format(repository=build.repository())


@cache  # to validate a notebook takes a second
def read(name: str):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


# ------------------------------------------------------------------------------------ exercises


@each_exercise
def test_the_solution_is_right_and_says_what_to_notice(one):
    verdict = one.check(one.define(one.solution))
    assert verdict.right, verdict.words
    assert repr(verdict) == f"Right: {one.praise}"


@each_exercise
def test_what_is_not_begun_is_said_and_keeps_the_hint_folded(one):
    verdict = one.check(one.define(one.start))
    assert not verdict.right and verdict.words == NOTHING
    function = next(node for node in ast.parse(one.start).body if isinstance(node, ast.FunctionDef))
    assert function.name == one.name and ast.get_docstring(function)


@pytest.mark.parametrize("one, words", MISTAKES, ids=[f"{o.name}: {w}"[:60] for o, w in MISTAKES])
def test_every_known_mistake_is_named(one, words):
    verdict = one.check(one.define(one.mistakes[words]))
    assert not verdict.right
    assert verdict.words == f"it looks as if {words}."


@pytest.mark.parametrize("lesson", course.LESSONS)
def test_a_notebook_has_two_to_five_exercises_which_say_how_hard_and_how_long_they_are(lesson):
    exercises = course.exercises(lesson)
    assert 2 <= len(exercises) <= 5
    text = (FOLDER / "text" / f"{lesson}.py").read_text("utf-8")
    names = [one.name for one in exercises]
    assert sorted(re.findall(r"^# exercise: (\w+)$", text, re.M)) == sorted(names)
    for one in exercises:
        assert one.level in ("easy", "medium", "hard") and 2 <= one.minutes <= 30
        assert one.title and one.task and one.hint and one.praise
        assert len(one.mistakes) >= 3


def test_check_selects_the_exercise_by_the_name_of_the_function():
    assert len({one.name for one in EXERCISES}) == len(EXERCISES)
    one = EXERCISES[-1]
    assert course.exercise(one.name) is one and course.check(one.define(one.solution)).right
    with pytest.raises(ValueError, match="no exercise asks for a function 'stopped'"):
        course.check(stopped)


TWICE = Exercise(
    name="twice",
    title="Twice",
    level="easy",
    minutes=2,
    task="Double it.",
    hint="multiply by two.",
    start='def twice(x):\n    """2 x [N]."""\n    raise NotImplementedError',
    solution="def twice(x):\n    return 2 * x",
    mistakes={"it is squared": "def twice(x):\n    return x**2"},
    probes=lambda: [(np.arange(4.0),), (np.ones(3),)],
    praise="that was all.",
)


def stopped(x):
    raise KeyError("rgb")


ANSWERS = {
    "right": (lambda x: 2.0 * x, "that was all."),
    "a known mistake": (lambda x: x**2, "it looks as if it is squared."),
    "nothing": (lambda x: None, "it returns nothing yet. Hint: multiply by two."),
    "an error": (stopped, "it stopped with KeyError: 'rgb'. Hint: multiply by two."),
    "another shape": (
        lambda x: x[:, None],
        "It gives shape (4, 1), and (4,) was expected. The arguments were [0. 1. 2. 3.]. Hint: mul",
    ),
    "other values": (lambda x: 2 * x + 0.25, "shapes are right, the values up to 0.25 apart."),
    "two results": (lambda x: (x, x[:2]), "It gives a tuple of 2, and one array (4,) was expec"),
    "a dict": (lambda x: {"two": 2 * x}, "It gives a dict with 'two', and one array (4,) was"),
    "a list": (lambda x: [float(2 * a) for a in x], "that was all."),
    "wrong later": (lambda x: 2 * x if len(x) == 4 else x, "The arguments were [1. 1. 1.]."),
    "a word": (lambda x: "two", "It gives 'two', and"),
    "nan": (lambda x: x * np.nan, "shapes are right"),
}


@pytest.mark.parametrize("answer, words", ANSWERS.values(), ids=ANSWERS)
def test_what_is_said_of_an_answer(answer, words):
    verdict = TWICE.check(answer)
    assert verdict.right == (words == TWICE.praise)
    assert words in verdict.words
    assert repr(verdict) == f"{'Right' if verdict.right else 'Not yet'}: {verdict.words}"


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"two", 1j, [object()], np.array(["a"] * 4), np.array([None] * 4)]
)
def test_what_is_no_number_does_not_stop_the_check(value):
    verdict = TWICE.check(lambda x: value)
    assert not verdict.right and TWICE.hint in verdict.words


# --------------------------------------------------------------------------- the student's model

WRONG = minimbt.MISTAKES | {
    words: (minimbt.FUSE.solution, code)
    for words, code in minimbt.FUSE.mistakes.items()
    if "never sequential" not in words  # that is seen in no model with the mean
}
ALIKE = {"the second modality reads the updated": "the update is always sequential"}


@pytest.fixture(scope="module")
def tiny():
    return load("world-tiny").config


def test_the_model_that_the_notebook_builds_is_the_shipped_one(tiny):
    verdict = minimbt.check_module(minimbt.define(minimbt.source(), tiny))
    assert verdict.right, verdict.words
    assert re.search("all of 60 layers agree, the logits within [0-9]e-0[67]", verdict.words)


def test_the_model_that_the_notebook_builds_has_about_60_lines():
    code = [line for line in minimbt.source().splitlines() if line.strip()]
    assert 50 <= len(code) <= 75


SOME = [  # each takes a second or two: four of them belong to the core
    words if number % 6 == 0 else pytest.param(words, marks=pytest.mark.slow)
    for number, words in enumerate(WRONG)
]


@pytest.mark.parametrize("words", SOME, ids=[words[:50] for words in WRONG])
def test_the_first_layer_that_differs_is_named_with_the_mistake(words, tiny):
    old, new = WRONG[words]
    assert minimbt.source().count(old) == 1
    module = minimbt.define(minimbt.source().replace(old, new), tiny)
    verdict = minimbt.check_module(module)
    expected = next((to for begin, to in ALIKE.items() if words.startswith(begin)), words)
    assert not verdict.right and verdict.words.startswith("the first that differs is ")
    assert expected in verdict.words


UNFIT = {
    "another name": ('name="mlp_in"', 'name="mlp"', "lacks rgb_block_0/mlp_in/bias"),
    "another shape": ("nn.Dense(3 * D", "nn.Dense(6 * D", "gives another shape to rgb_block_0/att"),
    "one weight more": (
        "y = nn.gelu(",
        'y = nn.LayerNorm(name="n")(y)\n        y = nn.gelu(',
        "besides",
    ),
}


@pytest.mark.parametrize("old, new, expected", UNFIT.values(), ids=UNFIT)
def test_weights_that_do_not_fit_the_module_are_named(old, new, expected, tiny):
    code = minimbt.source().replace(old, new)
    code = code.replace(
        'nn.Dense(6 * D, name="qkv")(x)', 'nn.Dense(6 * D, name="qkv")(x)[..., ::2]'
    )
    verdict = minimbt.check_module(minimbt.define(code, tiny))
    assert not verdict.right and expected in verdict.words


def test_a_module_that_stops_is_a_sentence(tiny):
    code = minimbt.source().replace("norm(x)[:, 0]", "norm(x)[:, 0] @ x")
    verdict = minimbt.check_module(minimbt.define(code, tiny))
    assert not verdict.right and verdict.words.startswith("it stopped with ")


def test_in_half_of_the_clips_dot_and_tone_have_the_same_contour():
    clips, labels = minimbt.make_clips(np.random.default_rng(0), 400)
    assert clips.rgb.shape == (400, 8, 16, 16, 3) and clips.spec.shape == (400, 40, 16, 3)
    same = labels[:, :4].argmax(1) == labels[:, 4:8].argmax(1)
    np.testing.assert_array_equal(labels[:, 8], same)
    assert 0.4 < same.mean() < 0.6 and (labels.sum(1) == 2 + same).all()
    heights = 15 - clips.rgb[..., 0].mean(3).argmax(2)  # [400, 8]
    assert (heights[labels[:, 0] == 1, 7] > heights[labels[:, 0] == 1, 0]).mean() > 0.9  # it rises


def test_what_is_not_right_yet_is_replaced_by_the_solution():
    one = course.exercise("fuse")
    right, start = one.define(one.solution), one.define(one.start)
    assert course.yours(right) is right
    assert one.check(course.yours(start)).right


# ------------------------------------------------------------------------------------ notebooks


def test_every_notebook_has_its_text_and_no_other():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)
    assert sorted(path.stem for path in (FOLDER / "text").glob("*.py")) == sorted(NOTEBOOKS)


@each_notebook
def test_a_notebook_is_what_its_text_says(name):
    seconds = read(name).metadata["mbt_lite"]["seconds"]
    expected = build.assemble(FOLDER / "text" / f"{name}.py", seconds).cells
    actual = read(name).cells
    assert [(c.cell_type, c.source) for c in actual] == [(c.cell_type, c.source) for c in expected]


@each_notebook
def test_the_set_up_is_the_same_everywhere(name):
    assert code_cells(name)[0].source == SETUP
    assert sum("git clone" in cell.source for cell in code_cells(name)) == 1


def test_the_address_of_the_project_stands_in_one_place():
    """Elsewhere it is only where `build.py` put it: the notebooks."""
    address = build.repository().removeprefix("https://")
    command = ["git", "grep", "-lF", "--untracked", address]
    actual = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not actual:
        pytest.skip("needs the repository")
    generated = {f"notebooks/{name}.ipynb" for name in NOTEBOOKS}
    assert set(actual) - generated == {"pyproject.toml"}


@each_notebook
def test_a_cell_is_short(name):
    for cell in code_cells(name)[1:]:
        lines = [line.strip() for line in cell.source.splitlines()]
        code = [x for x in lines if x and not x.startswith(("#", "%", "!", "import ", "from "))]
        source = "\n".join(line for line in cell.source.splitlines() if line[:1] not in ("%", "!"))
        nodes = list(ast.walk(ast.parse(source)))
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        assert all(ast.unparse(node.bases[0]) == "nn.Module" for node in classes), cell.source
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
        most = MODULE_LINES if classes else 10
        assert all(f.end_lineno - f.lineno < most for f in functions), cell.source
        assert len(code) <= (MODULE_LINES if classes else CODE_LINES), cell.source


@each_notebook
def test_a_notebook_asks_in_its_first_cell_and_answers_in_its_last(name):
    cells = read(name).cells
    first, last = cells[0], cells[-1]
    assert first.cell_type == last.cell_type == "markdown"
    assert first.source.startswith("# ") and landing.question(first.source).endswith("?")
    assert "**The answer.**" in last.source
    place = NOTEBOOKS.index(name) + 1
    following = f"{NOTEBOOKS[place]}.ipynb" if place < len(NOTEBOOKS) else "README.md"
    assert f"]({following})" in last.source


@each_notebook
def test_the_links_of_a_notebook_lead_somewhere(name):
    words = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    words = re.sub(r"```.*?```|`[^`]*`", "", words, flags=re.S)  # code may look like a link
    for target in re.findall(r"\]\(([^)\s#]+)", words):
        assert "://" in target or (FOLDER / target).exists(), target


@each_notebook
def test_a_notebook_is_small_and_its_outputs_need_no_network(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1.5e6
    cells = code_cells(name)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    data = [output.data for output in outputs if "data" in output]
    assert any("image/png" in one for one in data)
    pages = [str(value) for one in data for kind, value in one.items() if "html" in kind]
    asks = re.compile(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//|url\(["']?https?:""")
    assert not [page[:300] for page in pages if asks.search(page)]


def test_the_map_of_the_course_and_the_badges_of_the_readme_are_up_to_date():
    page, readme = ((folder / "README.md").read_text("utf-8") for folder in (FOLDER, ROOT))
    assert landing.landing(page) == page
    slug = build.repository().removeprefix("https://github.com/")
    for name in NOTEBOOKS:
        assert f"({name}.ipynb)" in page and f"(notebooks/{name}.ipynb)" in readme
        assert f"/github/{slug}/blob/main/notebooks/{name}.ipynb)" in readme


# --------------------------------------------------------------------------- the set-up elsewhere


@pytest.fixture(autouse=True)
def precision_of_products():
    """The set-up changes it for all of a process."""
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Runs the set-up cell in an empty folder, without the package; returns what it called.

    A clone succeeds or not, by its exit code; neither it nor pip is really run.
    """
    calls = []

    def clone(command: str) -> int:
        calls.append(command)
        if not code:
            (tmp_path / "mbt-lite/notebooks").mkdir(parents=True)
        return code

    def cell(clone_ends_with: int = 0) -> list:
        nonlocal code
        code = clone_ends_with
        monkeypatch.chdir(tmp_path)
        exec(SETUP, {})
        return calls

    code, real = 0, importlib.util.find_spec
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("importlib.util.find_spec", lambda x: None if x == "mbt_lite" else real(x))
    monkeypatch.setattr("os.system", clone)
    monkeypatch.setattr(runtime, "complete", lambda: calls.append("complete"))
    return cell


def test_the_set_up_clones_the_project_and_completes_the_environment(elsewhere, tmp_path, capsys):
    assert elsewhere() == [f"git clone -q --depth=1 {build.repository()} mbt-lite", "complete"]
    assert Path.cwd() == tmp_path / "mbt-lite/notebooks"
    assert sys.path[:2] == [str(tmp_path / "mbt-lite"), str(tmp_path / "mbt-lite/notebooks")]
    assert f"NumPy {np.__version__}" in capsys.readouterr().out
    assert elsewhere()[2:] == ["complete"]  # after a restart the clone is taken that is there


def test_a_clone_that_fails_is_a_sentence_and_leaves_nothing_changed(elsewhere, tmp_path):
    with pytest.raises(SystemExit, match="could not be cloned. Is there a network?"):
        elsewhere(clone_ends_with=128)
    assert Path.cwd() == tmp_path and str(tmp_path) not in sys.path[0]


def test_the_set_up_installs_nothing_where_the_package_is(monkeypatch, capsys):
    monkeypatch.setattr("os.system", lambda _: pytest.fail("something was run"))
    monkeypatch.setattr(runtime, "complete", lambda: pytest.fail("something was installed"))
    names = {}
    monkeypatch.chdir(ROOT / "notebooks")
    exec(SETUP, names)
    assert Path.cwd() == ROOT / "notebooks" and names["check"] is course.check
    assert "mbt_lite" in capsys.readouterr().out


@pytest.fixture
def pip(monkeypatch):
    """Stands in for pip: the packages that it was asked for, and its options and their content."""
    calls = []

    def run(packages, *options):
        kept = [Path(word).read_text() for word in options if word.endswith(".txt")]
        calls.append((packages, [word for word in options if not word.endswith(".txt")] + kept))

    monkeypatch.setattr(runtime, "_pip", run)
    return calls


def having(monkeypatch, **changes) -> None:
    """As if these versions were installed beside all that the project asks for; None: missing."""
    versions = {name: Version("99") for name in runtime.requirements(ROOT)}
    versions |= {"imageio-ffmpeg": Version("0.6"), "tensorflow-metadata": Version("1.17.3")}
    versions |= {"mbt-lite": Version("0.1")}
    versions |= {name.replace("_", "-"): v and Version(v) for name, v in changes.items()}
    monkeypatch.setattr(runtime, "installed", lambda: {n: v for n, v in versions.items() if v})


def test_only_what_is_missing_is_installed_and_all_else_is_pinned(monkeypatch, pip, capsys):
    having(monkeypatch)
    runtime.complete(ROOT)
    for jax_version in ("0.7.2", "0.13.0.dev1"):  # that the project can work with
        having(monkeypatch, jax=jax_version)
        runtime.complete(ROOT)
    assert pip == [] and capsys.readouterr().out == ""
    having(monkeypatch, av=None, numpy="2.1.3", jax="0.7.2", mbt_lite=None)
    runtime.complete(ROOT)
    (packages, (option, kept)), project = pip
    assert [re.match("[a-z]+", name)[0] for name in packages] == ["av"] and option == "--constraint"
    assert {"numpy==2.1.3", "jax==0.7.2"} <= set(kept.split())
    assert project == ([str(ROOT)], ["--no-deps", "--editable"])
    assert re.search("Installing av.*; all else stays as it is.", capsys.readouterr().out)


def test_what_had_to_be_replaced_though_it_was_loaded_restarts_the_kernel(monkeypatch, pip):
    kernel = SimpleNamespace(do_shutdown=lambda restart: pip.append(restart))
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=kernel))
    having(monkeypatch, tensorflow_metadata="1.21.0", jax="0.4.30")
    monkeypatch.setattr(runtime, "loaded", lambda: {"jax", "numpy"})
    with pytest.raises(SystemExit, match="^jax had to be replaced .* the kernel restarts now"):
        runtime.complete(ROOT)
    (packages, (_, kept)), restart = pip
    assert [re.match("[a-z-]+", name)[0] for name in packages] == ["jax", "tensorflow-metadata"]
    assert restart is True and "jax==" not in kept and "tensorflow-metadata" not in kept


def test_what_pip_cannot_install_is_a_sentence(monkeypatch):
    output = "looking for it\nERROR: No matching distribution found for av>=18\n"
    failed = SimpleNamespace(returncode=1, stderr=output)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match=r"^pip says: ERROR: No matching .* network\?"):
        runtime._pip(["av>=18"])


def test_an_accelerator_that_jax_does_not_see_is_said(monkeypatch, capsys):
    monkeypatch.setattr(runtime, "accelerator", lambda: "an NVIDIA GPU")
    course.begin()
    assert (
        "JAX sees only the CPU, though this machine has an NVIDIA GPU." in capsys.readouterr().out
    )
    assert jax.config.jax_default_matmul_precision == "highest"
