"""Fetch files from the Hugging Face hub by addresses such as hf://user/repo."""

import contextlib
import re
from pathlib import Path

from mbt_lite.checkpoints.download import DownloadError

WEIGHTS = "model.safetensors"
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")


def hub_file(reference: str) -> Path:
    """The local path of hf://user/repo[@revision][/file], fetched if it is not here.

    Without a file that is model.safetensors, and the repository's config.json, if it has one, lies
    beside it. Raises ValueError for what is no such address, DownloadError for what does not come.
    """
    found = ADDRESS.fullmatch(reference)
    if not found:
        raise ValueError(f"{reference!r} is no address like hf://user/repo[@revision][/file].")
    repository, revision, file = found.groups()
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise ValueError(f"{reference} needs the package huggingface_hub; install it.") from None
    try:
        path = Path(hf_hub_download(repository, file or WEIGHTS, revision=revision))
        if not file:
            none = (errors.EntryNotFoundError, errors.LocalEntryNotFoundError)
            with contextlib.suppress(*none):
                hf_hub_download(repository, "config.json", revision=revision)
    except errors.HFValidationError as error:
        raise ValueError(f"{reference} is no name of the hub: {_first_line(error)}.") from None
    except Exception as error:  # its own, those of its HTTP library and the system's
        raise DownloadError(_sentence(errors, error, reference, file or WEIGHTS)) from None
    return path


def _sentence(errors, error: Exception, reference: str, file: str) -> str:
    """Why the hub gave no file, and what to do."""
    reasons = {  # the special ones first
        errors.GatedRepoError: "its owner gives it only to whom they allow; see its page",
        errors.RepositoryNotFoundError: "there is no such repository, or it is private",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.LocalEntryNotFoundError: "the hub is out of reach and no copy is on this machine",
        errors.EntryNotFoundError: f"the repository has no {file}",
    }
    known = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
    return (
        f"{reference}: {known or _first_line(error)}. Check the name, or download {file} elsewhere "
        "and give its path."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".: ")
