"""Small files, whole or as they were."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text under another name first, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
