"""What POST /v2/tasks takes (API reference, Tasks; spec 1.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glimpse.domain.import_request import check_extent
from glimpse.domain.part_schemas import TASK
from glimpse.domain.schema import Checker, Schema, is_storable
from glimpse.errors import BadRequest

IMPORT = "import"  # the only kind that begins with this call; the others begin with calls on an image

# A client may send a whole task; what counts is its type and its input.
NEW_TASK: Schema = {**TASK, "additionalProperties": False, "required": ["type", "input"]}
_NEW_TASK = Checker("task", NEW_TASK)


@dataclass(frozen=True, slots=True)
class NewTask:
    """What a caller wants done, with what."""

    type: str
    input: Mapping[str, Any]

    @classmethod
    def parse(cls, body: Any) -> NewTask:
        """The JSON body of the call, checked. Raises `BadRequest`."""
        values = _NEW_TASK.check_object(body)
        given = values["input"]
        if given is None:
            raise BadRequest("The input of a task must be an object.")
        check_extent(given)
        image = given.get("image_id")
        if image is not None and not (isinstance(image, str) and len(image) <= 36 and is_storable(image)):
            raise BadRequest("The image_id of a task must be the id of an image.")
        wanted = cls(values["type"], given)
        if wanted.type == IMPORT:
            _check_source(given.get("import_from"))
        return wanted


def _check_source(url: Any) -> None:
    """Images come from the web, never from this machine's files (OSSA-2014-041)."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise BadRequest("An import needs import_from, and it must begin with http:// or https://.")
