"""Fills the table of README.md, the map of the course: `python notebooks/landing.py`.

All of it is read out of the notebooks: title, question, how long a person needs, the time that the
last execution took, and the size.
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
    """The page with the table between its two marks made anew, out of the folder's notebooks."""
    before, _, after = page.split(MARK)
    rows = [HEADS, ["---"] * len(HEADS), *map(row, sorted(folder.glob("*.ipynb")))]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{before}{MARK}\n\n{table}\n\n{MARK}{after}"


def row(path: Path) -> list[str]:
    """One notebook's cells of the table, in the order of `HEADS`."""
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0].source
    title = first.partition("\n")[0].removeprefix("# ")
    seconds = notebook.metadata.get("mbt_lite", {}).get("seconds", "?")
    return [
        f"[{path.stem[:2]} {title}]({path.name})",
        question(first),
        f"{reading(notebook)}&nbsp;min",
        f"{exercising(notebook)}&nbsp;min",
        f"{seconds}&nbsp;s",
        f"{path.stat().st_size / 1e6:.1f}&nbsp;MB",
    ]


def question(first: str) -> str:
    """The question that a notebook's first cell asks."""
    found = re.search(r"\*\*The question\.\*\*(.*?\?)", first, re.S)
    if not found:
        raise ValueError(f"no **The question.** with a question mark in {first[:60]!r}.")
    return re.split(r"\.\s+", " ".join(found[1].split()))[-1]


def reading(notebook) -> int:
    """Minutes that one needs to read text and code, without the exercises; in steps of five."""
    texts = {"markdown": [], "code": []}
    for cell in notebook.cells[2:]:  # behind the set-up
        texts[cell.cell_type].append(cell.source.partition("<details>")[0])
    words = len(" ".join(texts["markdown"]).split())
    lines = len("\n".join(texts["code"]).splitlines())
    return max(5, 5 * round((words / WORDS + lines / LINES) / 5))


def exercising(notebook) -> int:
    """Minutes that the exercises say they take."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return sum(int(minutes) for text in texts for minutes in EXERCISE.findall(text))


if __name__ == "__main__":
    made = landing(PAGE.read_text("utf-8"))
    PAGE.write_text(made, "utf-8")
    sys.stdout.write(made.split(MARK)[1].strip() + "\n")
