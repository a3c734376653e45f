"""Makes the notebooks out of their texts: `python notebooks/build.py [--only 01] [--smoke]`.

Each notebook has a twin in `text/`, a script in jupytext's percent format, which is what is
written and reviewed. Three things are put in here, so that they are the same everywhere: the badge
below the title, the set-up cell in place of a cell `# set-up`, and an exercise in place of a cell
`# exercise: NAME`. Then the notebook is executed and written whole, with the time it took.
"""

import argparse
import os
import sys
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
TEXTS = sorted((HERE / "text").glob("*.py"))
SETUP = """\
# Set-up, the same in every notebook: installs what is missing, then says what there is.
import importlib.util, os, subprocess, sys
from pathlib import Path

if importlib.util.find_spec("mbt_lite") is None:
    if not Path("mbt-lite").is_dir():
        subprocess.run(["git", "clone", "-q", "--depth=1", "{repository}", "mbt-lite"], check=True)
    package = "./mbt-lite[demo,notebooks,data]"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", package], check=True)
    sys.path.insert(0, str(Path("mbt-lite").resolve()))
    os.chdir("mbt-lite/notebooks")
from mbt_lite.course import begin, check, pick, samples

begin()"""
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{slug}/blob/main/notebooks/{name}.ipynb)"
)
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def repository() -> str:
    """The address of the project, from the one place where it stands."""
    settings = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    return settings["project"]["urls"]["Repository"]


def made(text: Path):
    """The notebook of a text, not executed."""
    notebook = jupytext.read(text, fmt="py:percent")
    cells = []
    for cell in notebook.cells:
        source = cell.source.strip()
        if cell.cell_type == "code" and source == "# set-up":
            cell.source = SETUP.format(repository=repository())
        if cell.cell_type == "code" and source.startswith("# exercise: "):
            cells += exercise_cells(source.removeprefix("# exercise: "))
        else:
            cells.append(cell)
    slug = repository().removeprefix("https://github.com/")
    title, _, rest = cells[0].source.partition("\n")
    badge = BADGE.format(slug=slug, name=text.stem)
    cells[0].source = f"{title}\n\n{badge}\n{rest}"
    for number, cell in enumerate(cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def exercise_cells(name: str) -> list:
    """An exercise: what to do, with hint and solution folded; the function to write; its check."""
    from mbt_lite.course import exercise

    one = exercise(name)
    words = (
        f"### Exercise: {one.title}\n\n*{one.level}, {one.minutes} minutes.* {one.task}\n\n"
        f"<details><summary>Hint</summary>\n\n{one.hint}\n\n</details>\n\n"
        f"<details><summary>Solution</summary>\n\n```python\n{one.solution.strip()}\n```\n\n</details>"
    )
    code = f"{one.start.strip()}\n\n\ncheck({one.name})"
    return [nbformat.v4.new_markdown_cell(words), nbformat.v4.new_code_cell(code)]


def run(text: Path, smoke: bool) -> float:
    """Seconds that the notebook took; it is written beside the texts unless it is but smoke."""
    notebook = made(text)
    os.environ["MBT_LITE_SMOKE"] = "1" if smoke else "0"
    start = time.perf_counter()
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()
    seconds = time.perf_counter() - start
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    # the kernel adds its own version, which would be another on every machine
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["mbt_lite"] = {"seconds": round(seconds)}
    if not smoke:
        target = HERE / f"{text.stem}.ipynb"
        part = target.with_suffix(".part")
        nbformat.write(notebook, part)
        part.replace(target)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="texts whose name begins so")
    parser.add_argument("--smoke", action="store_true", help="short, and nothing is written")
    options = parser.parse_args()
    chosen = [text for text in TEXTS if text.name.startswith(options.only)]
    if not chosen:
        sys.exit(f"build.py: no text in {HERE / 'text'} begins with {options.only!r}.")
    for text in chosen:
        seconds = run(text, options.smoke)
        size = (HERE / f"{text.stem}.ipynb").stat().st_size if not options.smoke else 0
        print(f"{text.stem:36} {seconds:6.0f} s {size / 1e6:6.2f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
