"""Makes the notebooks out of their texts: `python notebooks/build.py [--only 01] [--smoke]`.

Each notebook has a twin in `text/`, a script in jupytext's percent format, which is what is
written and reviewed. Put in here, so that they are the same everywhere, are the badge and the time
below the title, the set-up cell in place of a cell `# set-up`, and an exercise in place of a cell
`# exercise: NAME`. The notebook is executed and written whole, with the time it took.
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
    """The address of the project, from the one place where it stands."""
    settings = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    return settings["project"]["urls"]["Repository"]


def made(text: Path, seconds: int):
    """The notebook of a text, not executed; `seconds` is how long that took, as it says on top."""
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
    cells[0].source = f"{title}\n\n{badge}\n\n{needed(cells, seconds)}\n{rest}"
    for number, cell in enumerate(cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def needed(cells: list, seconds: int) -> str:
    """How long a person and a machine need for the cells of a notebook."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    return TIMES.format(reading(notebook), exercising(notebook), seconds)


def exercise_cells(name: str) -> list:
    """An exercise: what to do, with hint and solution folded; the function to write; its check."""
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
    """Seconds that the notebook took; it is written beside the texts unless it is but smoke."""
    notebook = made(text, seconds=0)
    os.environ["MBT_LITE_SMOKE"] = "1" if smoke else "0"
    start = time.perf_counter()
    place = {"metadata": {"path": str(HERE)}}
    options = {"timeout": 1800, "kernel_name": "python3", "store_widget_state": False}
    NotebookClient(notebook, resources=place, **options).execute()
    seconds = time.perf_counter() - start
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            keep_still(output)
    # the kernel adds its own version, which would be another on every machine
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["mbt_lite"] = {"seconds": round(seconds)}
    notebook.cells[0].source = made(text, round(seconds)).cells[0].source
    if not smoke:
        target = HERE / f"{text.stem}.ipynb"
        part = target.with_suffix(".part")
        nbformat.write(notebook, part)
        part.replace(target)
    return seconds


def keep_still(output) -> None:
    """Leave of an output what is seen without a kernel, its pictures with a palette of colours.

    The widget or page comes back when the cell is run.
    """
    data = output.get("data", {})
    if "image/png" in data:
        for live in ("application/vnd.jupyter.widget-view+json", "text/html"):
            data.pop(live, None)
        data["image/png"] = smaller(data["image/png"])


def smaller(png: str) -> str:
    """A base64 picture with a palette of 256 colours, a third of the bytes; as it was if not."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    made = io.BytesIO()
    image.quantize(256, Image.Quantize.FASTOCTREE).save(made, "png", optimize=True)
    return min(png, base64.b64encode(made.getvalue()).decode(), key=len)


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
