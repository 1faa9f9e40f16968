"""Metadata definitions while a caller waits: list, show, create, change, delete, the same for all kinds.

A call names a namespace, which has to be visible to the caller, and may name one definition in it. Whatever writes
takes the namespace's row first and holds it, so two writers in one namespace follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glimpse.access.policy import Policy, namespace_target
from glimpse.db import metadefs
from glimpse.db.engine import Connection, Database
from glimpse.db.metadefs import Filter, Page
from glimpse.domain import lifecycle, metadef
from glimpse.domain.context import Context
from glimpse.domain.metadef import ASSOCIATION, NAMESPACE, PARTS, PROPERTY, TAG, Definition, Kind, Values
from glimpse.errors import Forbidden, NotFound
from glimpse.notifications import MetadefChange, Notifications, gone

NOBODY = "admin"  # owns what a caller without a project makes, as it owns what comes out of files

Parts = dict[Kind, list[Definition]]


@dataclass(frozen=True)
class Metadefs:
    """The calls on metadata definitions, with what they need. `home` is always the namespace of a definition."""

    database: Database
    policy: Policy
    notifications: Notifications

    # --- read ----------------------------------------------------------------------------------------------------

    def find(self, context: Context, wanted: Filter, page: Page) -> list[tuple[Definition, list[Definition]]]:
        """A page of namespaces, each with its associations. Raises `NotFound`, `Forbidden` (for the marker)."""
        for rule in (NAMESPACE.rules.list, ASSOCIATION.rules.list):
            self.policy.require_for_namespace(rule, context, None)

        def query(connection: Connection) -> tuple[list[Definition], list[Definition]]:
            if page.marker is not None and not _sees(context, metadefs.get(connection, NAMESPACE, page.marker)):
                raise Forbidden("The namespace that the marker names is not visible to you.")
            found = metadefs.namespaces(connection, wanted, page, context)
            seen = [home for home in found if self._allows(NAMESPACE, context, home)]
            return seen, metadefs.all_of(connection, ASSOCIATION, seen)

        homes, associations = self.database.read(query)
        of_home: dict[int | None, list[Definition]] = {}
        for association in associations:
            of_home.setdefault(association.namespace_id, []).append(association)
        return [(home, of_home.get(home.id, [])) for home in homes]

    def list_in(
        self, kind: Kind, context: Context, namespace: str, page: Page | None = None
    ) -> tuple[Definition, list[Definition]]:
        """The definitions of one kind in a namespace; only a part of them with `page`. Raises `NotFound`."""

        def query(connection: Connection) -> tuple[Definition, list[Definition]]:
            home = self._home(connection, context, namespace, [kind.rules.list])
            if page is not None:
                return home, metadefs.page_of(connection, kind, page, home)
            return home, metadefs.all_of(connection, kind, [home])

        home, found = self.database.read(query)
        return home, found if self._allows(kind, context, home) else []

    def resource_types(self, context: Context) -> list[Definition]:
        """Every resource type that some namespace was ever associated with. Raises `Forbidden`."""
        kind = metadef.RESOURCE_TYPE
        self.policy.require_for_namespace(kind.rules.list, context, None)
        return self.database.read(lambda connection: metadefs.all_of(connection, kind))

    def show(self, kind: Kind, context: Context, namespace: str, name: str) -> tuple[Definition, Definition]:
        """One definition. Raises `NotFound`, `Forbidden`."""

        def query(connection: Connection) -> tuple[Definition, Definition]:
            home = self._home(connection, context, namespace, [kind.rules.show])
            return home, metadefs.get(connection, kind, name, home)

        return self.database.read(query)

    def show_whole(self, context: Context, namespace: str, resource_type: str | None) -> tuple[Definition, Parts]:
        """A namespace with all that is in it, under the names that it has on that resource type.

        Raises `NotFound`, `Forbidden`.
        """
        rules = [NAMESPACE.rules.show, *(kind.rules.list for kind in PARTS)]

        def query(connection: Connection) -> tuple[Definition, Parts]:
            home = self._home(connection, context, namespace, rules)
            return home, {kind: metadefs.all_of(connection, kind, [home]) for kind in PARTS}

        home, parts = self.database.read(query)
        prefixes = [each.values.get("prefix") for each in parts[ASSOCIATION] if each.name == resource_type]
        if prefixes and (prefix := prefixes[0]):
            parts = {kind: [metadef.with_prefix(prefix, kind, each) for each in found] for kind, found in parts.items()}
        return home, parts

    def show_on_resource(
        self, context: Context, namespace: str, name: str, resource_type: str
    ) -> tuple[Definition, Definition]:
        """The property that is called `name` on that resource type, under its own name. Raises `NotFound`."""

        def query(connection: Connection) -> tuple[Definition, Definition]:
            home = self._home(connection, context, namespace, [PROPERTY.rules.show, ASSOCIATION.rules.show])
            prefix = metadefs.get(connection, ASSOCIATION, resource_type, home).values.get("prefix")
            if not prefix or not name.startswith(prefix):
                raise NotFound(f"The name {name[:80]} does not begin with the prefix {prefix} of the resource type.")
            return home, metadefs.get(connection, PROPERTY, name.removeprefix(prefix), home)

        return self.database.read(query)

    # --- write ---------------------------------------------------------------------------------------------------

    def create_namespace(self, context: Context, body: Any) -> tuple[Definition, Parts]:
        """A namespace with all that its body holds, or nothing. Raises `BadRequest`, `Forbidden`, `Duplicate`."""
        name, values = _read(NAMESPACE, context, body)
        parts = metadef.read_parts(body)
        for kind in (NAMESPACE, *(kind for kind in PARTS if body.get(kind.plural))):
            self.policy.require_for_namespace(kind.rules.add, context, None)

        def work(connection: Connection) -> tuple[Definition, Parts]:
            now = lifecycle.now()
            home = metadefs.insert(connection, NAMESPACE, name, values, now, None, now)
            made: Parts = {kind: [] for kind in PARTS if kind.plural in body}
            for kind, definition in metadefs.insert_parts(connection, parts, home, now, now):
                made[kind].append(definition)
            return home, made

        home, made = self.database.write(work)
        self._tell("create", NAMESPACE, home, home)
        for kind, found in made.items():
            for each in found:
                self._tell("create", kind, home, each)
        return home, made

    def create(self, kind: Kind, context: Context, namespace: str, body: Any) -> tuple[Definition, Definition]:
        """A definition in a namespace. Raises `BadRequest`, `NotFound`, `Forbidden`, `Duplicate`."""
        name, values = kind.read(body)

        def work(connection: Connection) -> tuple[Definition, Definition]:
            home = self._home(connection, context, namespace, [kind.rules.add], lock=True)
            now = lifecycle.now()
            return home, metadefs.insert(connection, kind, name, values, now, home, now)

        home, made = self.database.write(work)
        self._tell("create", kind, home, made)
        return home, made

    def add_tags(
        self, context: Context, namespace: str, body: Any, append: bool
    ) -> tuple[Definition, list[Definition]]:
        """Many tags at once, beside or instead of those that are there; an empty list changes nothing.

        Raises `BadRequest`, `NotFound`, `Forbidden`, `Duplicate`.
        """
        names = metadef.read_tags(body)

        def work(connection: Connection) -> tuple[Definition, list[Definition]]:
            home = self._home(connection, context, namespace, [TAG.rules.add_many], lock=True)
            now = lifecycle.now()
            if names and not append:
                metadefs.delete_all(connection, TAG, home)
            return home, [metadefs.insert(connection, TAG, name, {}, now, home, now) for name in names]

        home, made = self.database.write(work)
        for each in made:
            self._tell("create", TAG, home, each)
        return home, made

    def change(
        self, kind: Kind, context: Context, namespace: str, name: str | None, body: Any
    ) -> tuple[Definition, Definition]:
        """Replace a definition, its name included; without a name the namespace itself.

        Raises `BadRequest`, `NotFound`, `Forbidden`, `Duplicate` (the new name is taken).
        """
        new_name, values = _read(kind, context, body)

        def work(connection: Connection) -> tuple[Definition, Definition, Definition]:
            home = self._home(connection, context, namespace, [kind.rules.change], lock=True)
            before = _target(connection, kind, home, name)
            return home, before, metadefs.update(connection, kind, before, new_name, values, lifecycle.now())

        home, before, after = self.database.write(work)
        self._tell("update", kind, home, after, before.name)
        return home, after

    def delete(self, kind: Kind, context: Context, namespace: str, name: str | None) -> None:
        """Remove a definition; without a name the namespace with all that is in it. Raises `NotFound`, `Forbidden`."""

        def work(connection: Connection) -> tuple[Definition, Definition]:
            home = self._home(connection, context, namespace, [kind.rules.remove], lock=True)
            found = _target(connection, kind, home, name)
            _check_unprotected(home)
            metadefs.delete(connection, kind, found)
            return home, found

        home, found = self.database.write(work)
        self._tell("delete", kind, home, found, **gone(lifecycle.now()))

    def delete_all(self, kind: Kind, context: Context, namespace: str) -> None:
        """Empty a namespace of one kind. Raises `NotFound`, `Forbidden`."""
        rules = [NAMESPACE.rules.remove, kind.rules.remove_all]

        def work(connection: Connection) -> Definition:
            home = self._home(connection, context, namespace, rules, lock=True)
            _check_unprotected(home)
            metadefs.delete_all(connection, kind, home)
            return home

        home = self.database.write(work)
        self._tell(f"delete_{kind.plural}", NAMESPACE, home, home)

    def _tell(
        self, verb: str, kind: Kind, home: Definition, what: Definition, old_name: str | None = None, **more: Any
    ) -> None:
        change = MetadefChange(verb, kind, home, what, old_name)
        self.notifications.tell(change.event, change, **more)

    # --- who may -------------------------------------------------------------------------------------------------

    def _home(
        self, connection: Connection, context: Context, namespace: str, rules: Sequence[str], lock: bool = False
    ) -> Definition:
        """The namespace of a call, if the caller may know of it and the rules let them; locked by those who write."""
        home = metadefs.get(connection, NAMESPACE, namespace, lock=lock)
        if not _sees(context, home):
            # In the caller's spelling, as where there is none: MariaDB finds other ones too.
            raise NotFound(f"Metadata definition namespace {namespace[:80]} was not found.")
        for rule in rules:
            self.policy.require_for_namespace(rule, context, home)
        return home

    def _allows(self, kind: Kind, context: Context, home: Definition) -> bool:
        """Whether items of a list may be shown."""
        rule = kind.rules.each
        return not rule or self.policy.allows(rule, context, namespace_target(context, home))


def _read(kind: Kind, context: Context, body: Any) -> tuple[str, Values]:
    name, values = kind.read(body)
    if kind is NAMESPACE:
        values["owner"] = values.get("owner") or context.project_id or NOBODY
    return name, values


def _target(connection: Connection, kind: Kind, home: Definition, name: str | None) -> Definition:
    return home if name is None else metadefs.get(connection, kind, name, home)


def _sees(context: Context, home: Definition) -> bool:
    return context.is_admin or home.values["visibility"] == "public" or home.values["owner"] == context.project_id


def _check_unprotected(home: Definition) -> None:
    if home.values["protected"]:
        raise Forbidden(f"The namespace {home.name} is protected: nothing in it can be deleted.")
