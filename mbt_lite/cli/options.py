"""Options that several commands share."""

from typing import Annotated

from tyro.conf import arg

Debug = Annotated[bool, arg(help="Show the traceback of an error.")]
Model = Annotated[str, arg(help="A name of the zoo, a weights file, a folder or hf://user/repo.")]
FrontEndName = Annotated[
    str | None, arg(help="Hear with this preset instead of the model's own front end.")
]
