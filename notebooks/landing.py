"""Fill the table of README.md, the map of the course: `python notebooks/landing.py`.

Title, question, reading time, run time of the last build and size are read from the notebooks.
"""

import re
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
PAGE = HERE / "README.md"
MARK = "<!-- table -->"
HEADS = ("notebook", "question", "reading", "exercises", "runs in", "size")
WORDS, LINES = 130, 12  # words of text and lines of code that one reads in a minute
EXERCISE = re.compile(r"\*\(?(?:easy|medium|hard)\W+(\d+) minutes")


def landing(page: str, folder: Path = HERE) -> str:
    """Return the page with a new table of the folder's notebooks between its two marks."""
    before, _, after = page.split(MARK)
    rows = [HEADS, ["---"] * len(HEADS), *map(row, sorted(folder.glob("*.ipynb")))]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{before}{MARK}\n\n{table}\n\n{MARK}{after}"


def row(path: Path) -> list[str]:
    """A notebook's row of the table, in the order of `HEADS`."""
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0].source
    title = first.partition("\n")[0].removeprefix("# ")
    seconds = notebook.metadata.get("mbt_lite", {}).get("seconds", "?")
    return [
        f"[{path.stem.partition('_')[0]} {title}]({path.name})",
        question(first),
        f"{reading(notebook)}&nbsp;min",
        f"{exercising(notebook)}&nbsp;min",
        f"{seconds}&nbsp;s",
        f"{path.stat().st_size / 1e6:.1f}&nbsp;MB",
    ]


def question(first: str) -> str:
    """The question that a notebook's first cell asks."""
    match = re.search(r"\*\*The question\.\*\*(.*?\?)", first, re.S)
    if not match:
        raise ValueError(f"no **The question.** with a question mark in {first[:60]!r}.")
    return re.split(r"\.\s+", " ".join(match[1].split()))[-1]


def reading(notebook) -> int:
    """Minutes to read text and code without the exercises, in steps of five."""
    texts = {"markdown": [], "code": []}
    for cell in notebook.cells[2:]:  # after the set-up
        texts[cell.cell_type].append(cell.source.partition("<details>")[0])
    words = len(" ".join(texts["markdown"]).split())
    lines = len("\n".join(texts["code"]).splitlines())
    return max(5, 5 * round((words / WORDS + lines / LINES) / 5))


def exercising(notebook) -> int:
    """Minutes for the exercises, as they state them."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return sum(int(minutes) for text in texts for minutes in EXERCISE.findall(text))


if __name__ == "__main__":
    page = landing(PAGE.read_text("utf-8"))
    PAGE.write_text(page, "utf-8")
    sys.stdout.write(page.split(MARK)[1].strip() + "\n")
