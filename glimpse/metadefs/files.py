"""Files of metadata definitions: into the database and out of it again (`glance-manage db load_metadefs` and others).

One file holds one namespace with all that is in it, as a JSON object of the shape that POST /v2/metadefs/namespaces
takes. Those that every cloud starts with are in `glimpse/metadef_seeds`.
"""

from __future__ import annotations

import enum
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from glimpse.db import metadefs
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle, metadef
from glimpse.domain.metadef import (
    ASSOCIATION,
    NAMESPACE,
    PARTS,
    PROPERTY,
    RESOURCE_TYPE,
    Definition,
    Kind,
    Part,
    Values,
)
from glimpse.domain.metadef_schema import FILE
from glimpse.domain.schema import Checker
from glimpse.errors import GlimpseError
from glimpse.metadefs.manage import NOBODY

Tell = Callable[[str], None]

_FILE = Checker("namespace", FILE)


class Mode(enum.Enum):
    """What becomes of a namespace that exists already."""

    SKIP = "left alone"
    ADD = "completed"
    UPDATE = "updated"
    REPLACE = "replaced"


def sources(path: str) -> Sequence[Traversable | Path]:
    """The files of a folder whose names end with .json, or the one file that `path` names. Raises `OSError`."""
    place = Path(path)
    return [place] if place.is_file() else sorted(each for each in place.iterdir() if each.suffix == ".json")


def shipped() -> Sequence[Traversable | Path]:
    """The files that come with the service."""
    folder = resources.files("glimpse").joinpath("metadef_seeds")
    return sorted((each for each in folder.iterdir() if each.name.endswith(".json")), key=lambda each: each.name)


def load(database: Database, files: Iterable[Traversable | Path], mode: Mode, tell: Tell, complain: Tell) -> None:
    """Bring files into the database, each as a whole or not at all; `complain` gets those that cannot be used.

    Raises `Unavailable`.
    """
    for file in files:
        try:
            document = _FILE.check_object(json.loads(file.read_bytes()))
            name, values = NAMESPACE.accept(document["namespace"], document)
            parts = metadef.read_parts(document)
        except (OSError, ValueError, GlimpseError) as error:
            complain(f"{file.name} cannot be used: {error}")
            continue
        done = database.write(partial(_store, name=name, values=values, parts=parts, mode=mode))
        tell(f"{file.name}: namespace {name} {done}")


def _store(connection: Connection, name: str, values: Values, parts: Sequence[Part], mode: Mode) -> str:
    now = lifecycle.now()
    values = {"owner": NOBODY, **values}
    home = before = metadefs.find(connection, NAMESPACE, name, lock=True)
    if home is not None and mode is Mode.REPLACE:
        metadefs.delete(connection, NAMESPACE, home)
        home = None
    if home is None:
        home = metadefs.insert(connection, NAMESPACE, name, values, now)
    elif mode is Mode.SKIP:
        return f"exists, {mode.value}"
    elif mode is Mode.UPDATE:
        home = metadefs.update(connection, NAMESPACE, home, name, values, now)
    for kind, inner, inner_values in parts:
        found = metadefs.find(connection, kind, inner, home)
        if found is not None and mode is Mode.UPDATE:
            metadefs.update(connection, kind, found, inner, inner_values, now)
        elif found is None:
            if kind is ASSOCIATION and metadefs.find(connection, RESOURCE_TYPE, inner) is None:
                metadefs.insert(connection, RESOURCE_TYPE, inner, {"protected": True}, now)
            metadefs.insert(connection, kind, inner, inner_values, now, home)
    return "loaded" if before is None else f"exists, {mode.value}"


def unload(database: Database) -> None:
    """Remove every definition, whoever made it. Raises `Unavailable`."""

    def work(connection: Connection) -> None:
        for kind in (*PARTS, NAMESPACE, RESOURCE_TYPE):
            metadefs.delete_all(connection, kind)

    database.write(work)


def export(database: Database, path: str, tell: Tell) -> None:
    """Write a file for each namespace into a folder, which is made if need be. Raises `OSError`, `Unavailable`."""

    def query(connection: Connection) -> tuple[list[Definition], dict[Kind, list[Definition]]]:
        homes = metadefs.all_of(connection, NAMESPACE)
        return homes, {kind: metadefs.all_of(connection, kind, homes) for kind in PARTS}

    homes, parts = database.read(query)
    os.makedirs(path, exist_ok=True)
    taken: set[str] = set()
    for home in homes:
        inside = {kind: [each for each in found if each.namespace_id == home.id] for kind, found in parts.items()}
        file = Path(path, _file_name(home, taken))
        file.write_text(json.dumps(_document(home, inside), indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
        tell(f"{file}: namespace {home.name}")


def _document(home: Definition, parts: dict[Kind, list[Definition]]) -> dict[str, Any]:
    document: dict[str, Any] = {"namespace": home.name, **home.values}
    for kind, found in parts.items():
        if kind is PROPERTY:
            document[kind.plural] = {each.name: each.values for each in found}
        else:
            document[kind.plural] = [{"name": each.name, **each.values} for each in found]
    return document


def _file_name(home: Definition, taken: set[str]) -> str:
    """Letters and digits of the display name, or of the namespace's own where that is taken or there is none."""
    names = [re.sub(r"[\W_]+", "", str(text or "")) for text in (home.values.get("display_name"), home.name)]
    candidates = [name for name in names if name] + [f"{names[1]}{home.id}"]
    # Some file systems do not tell names apart that differ by case.
    name = next((name for name in candidates if name.casefold() not in taken), candidates[-1])
    taken.add(name.casefold())
    return f"{name}.json"
