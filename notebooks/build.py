"""Build the notebooks from their texts: `python notebooks/build.py [--only 01] [--smoke]`.

Each notebook has a twin in `text/`, a script in jupytext's percent format, which is edited and
reviewed. The build inserts what is the same everywhere: the badge and the times below the title,
the set-up cell for a cell `# set-up`, and an exercise for a cell `# exercise: NAME`. The notebook
is executed and then written, with the time that took.
"""

import argparse
import base64
import io
import os
import sys
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
from landing import exercising, reading
from nbclient import NotebookClient
from PIL import Image

from mbt_lite.paths import replacing

HERE = Path(__file__).resolve().parent
TEXTS = sorted((HERE / "text").glob("*.py"))
SETUP = """\
# Set-up, the same in every notebook: installs what is missing, leaves alone what is there.
import importlib.util, os, sys
from pathlib import Path

if not Path("course").is_dir() or importlib.util.find_spec("mbt_lite") is None:
    clone = "git clone -q --depth=1 {repository} mbt-lite"
    if not Path("mbt-lite").is_dir() and os.system(clone):
        sys.exit("The project could not be cloned. Is there a network? Then run this cell again.")
    sys.path[:0] = [str(Path("mbt-lite").resolve()), str(Path("mbt-lite/notebooks").resolve())]
    from course.runtime import complete

    complete()
    os.chdir("mbt-lite/notebooks")
from course import begin, check, pick, samples

begin()"""
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{slug}/blob/main/notebooks/{name}.ipynb)"
)
TIMES = "*{} minutes to read, {} for the exercises; runs in {} s on two CPU cores.*"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def repository() -> str:
    """The address of the project, from pyproject.toml."""
    settings = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    return settings["project"]["urls"]["Repository"]


def assemble(text: Path, seconds: int):
    """Assemble the notebook of a text, not executed; `seconds` is the run time that it states."""
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
    title, _, body = cells[0].source.partition("\n")
    badge = BADGE.format(slug=slug, name=text.stem)
    cells[0].source = f"{title}\n\n{badge}\n\n{times(cells, seconds)}\n{body}"
    for number, cell in enumerate(cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def times(cells: list, seconds: int) -> str:
    """State how long reading, the exercises and the execution take."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    return TIMES.format(reading(notebook), exercising(notebook), seconds)


def exercise_cells(name: str) -> list:
    """The cells of an exercise: task with folded hint and solution, and the code to complete."""
    from course import exercise

    one = exercise(name)
    words = (
        f"### Exercise: {one.title}\n\n*{one.level}, {one.minutes} minutes.* {one.task}\n\n"
        f"<details><summary>Hint</summary>\n\n{one.hint}\n\n</details>\n\n"
        f"<details><summary>Solution</summary>\n\n```python\n{one.solution.strip()}\n```\n\n</details>"
    )
    code = f"{one.start.strip()}\n\n\ncheck({one.name})"
    return [nbformat.v4.new_markdown_cell(words), nbformat.v4.new_code_cell(code)]


def run(text: Path, smoke: bool) -> float:
    """Execute a notebook, write it unless `smoke`, and return the seconds that it took."""
    notebook = assemble(text, seconds=0)
    os.environ["MBT_LITE_SMOKE"] = "1" if smoke else "0"
    start = time.perf_counter()
    resources = {"metadata": {"path": str(HERE)}}
    options = {"timeout": 1800, "kernel_name": "python3", "store_widget_state": False}
    NotebookClient(notebook, resources=resources, **options).execute()
    seconds = time.perf_counter() - start
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            keep_still(output)
    # the kernel adds its own version, which would be another on every machine
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["mbt_lite"] = {"seconds": round(seconds)}
    notebook.cells[0].source = assemble(text, round(seconds)).cells[0].source
    if not smoke:
        with replacing(HERE / f"{text.stem}.ipynb") as temporary:
            nbformat.write(notebook, temporary)
    return seconds


def keep_still(output) -> None:
    """Leave of an output what is seen without a kernel, its pictures with a palette of colors.

    The widget or page comes back when the cell is run.
    """
    data = output.get("data", {})
    if "image/png" in data:
        for live in ("application/vnd.jupyter.widget-view+json", "text/html"):
            data.pop(live, None)
        data["image/png"] = smaller(data["image/png"])


def smaller(png: str) -> str:
    """Reduce a base64 PNG to a palette of 256 colors, if that makes it smaller."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    buffer = io.BytesIO()
    image.quantize(256, Image.Quantize.FASTOCTREE).save(buffer, "png", optimize=True)
    return min(png, base64.b64encode(buffer.getvalue()).decode(), key=len)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only texts whose name starts with this")
    parser.add_argument("--smoke", action="store_true", help="short runs; nothing is written")
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
