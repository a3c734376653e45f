"""Every notebook runs from top to bottom, in short; what it is committed with, see test_course.

`make test-colab` runs them beside what Colab brings.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_quickly")]
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_it_runs_from_top_to_bottom(path, monkeypatch):
    monkeypatch.setenv("MBT_LITE_SMOKE", "1")
    notebook = nbformat.read(path, as_version=4)
    kernel = {"metadata": {"path": str(path.parent)}}
    done = NotebookClient(notebook, timeout=240, resources=kernel).execute()
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert code and all(cell.execution_count for cell in code)
