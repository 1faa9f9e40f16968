"""The kinds of metadata definitions: what each says of itself is true, and bodies become values that can be kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from glimpse.access.rules import RULES
from glimpse.db.tables import metadata
from glimpse.domain.metadef import (
    ASSOCIATION,
    NAMESPACE,
    OBJECT,
    PARTS,
    PROPERTY,
    RESOURCE_TYPE,
    TAG,
    Definition,
    Kind,
    read_parts,
    read_property,
    show_property,
    with_prefix,
)
from glimpse.errors import BadRequest, Forbidden

KINDS = (NAMESPACE, *PARTS, RESOURCE_TYPE)
TEXT = {"title": "T", "type": "string"}
BODIES: dict[Kind, dict[str, Any]] = {
    NAMESPACE: {"namespace": "n", "description": "d", "protected": True},
    ASSOCIATION: {"name": "n", "prefix": "p:"},
    OBJECT: {"name": "n", "description": "d", "required": ["a"], "properties": {"a": TEXT}},
    PROPERTY: {"name": "n", **TEXT, "minimum": 1},
    TAG: {"name": "n"},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
def test_a_kind_knows_its_table_and_its_rules(kind: Kind) -> None:
    rules = kind.rules
    named = (rules.list, rules.show, rules.add, rules.change, rules.remove, rules.each, rules.add_many,
             rules.remove_all)  # fmt: skip
    assert {rule for rule in named if rule} <= RULES.keys()
    columns = metadata.tables[kind.table].c
    assert set(kind.columns) <= set(columns.keys())
    assert kind is ASSOCIATION or kind.key in columns
    assert {kind.key} <= kind.schema["properties"].keys()
    assert set(kind.pack({})) == set(kind.columns)


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.noun)
def test_columns_give_back_the_values(kind: Kind) -> None:
    name, values = kind.read(BODIES[kind])
    assert name == "n"
    assert {**values, kind.key: name}.items() >= BODIES[kind].items()
    assert kind.unpack(kind.pack(values)) == values


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.noun)
def test_read_only_fields_are_refused_but_ignored_inside(kind: Kind) -> None:
    body = {**BODIES[kind], "created_at": "2026-01-01T00:00:00Z"}
    with pytest.raises(Forbidden):
        kind.read(body)
    assert kind.read_nested(body) == kind.read(BODIES[kind])


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.noun)
@pytest.mark.parametrize("name", ["", "n" * 81, "nul\0", "\U0001f600", "\ud800"])
def test_names_that_cannot_be(kind: Kind, name: str) -> None:
    with pytest.raises(BadRequest):
        kind.read({**BODIES[kind], kind.key: name})


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1}, {"required": ["a"]}, {"enum": [1]}, {"enum": [["a"]]}, {"items": {}}, {"items": {"enum": []}},
        {"items": {"type": "string", "unknown": 1}}, {"items": {"type": "string", "enum": [1]}}, {"default": "ü"},
        {"maximum": 2.0**63}, {"minLength": 2**63}, {"confidential": "yes"},
    ],
)  # fmt: skip
def test_properties_that_glance_could_not_read(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        read_property({**TEXT, **fields})


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ({"default": 80, "minimum": 1.9}, {"default": "80", "minimum": 1}),
        ({"default": False}, {"default": "False"}),
        ({"default": [1]}, {"default": None}),
        ({"enum": [1, None], "unknown": 1}, {"enum": [1, None]}),
        ({"maximum": 1e300, "minimum": None}, {"maximum": 1e300, "minimum": None}),
        (None, {}),
        ([], {}),
    ],
)
def test_whatever_is_stored_can_be_shown(stored: Any, shown: dict[str, Any]) -> None:
    assert show_property(stored) == shown


def test_parts_come_in_the_order_in_which_they_are_stored() -> None:
    body = {
        "properties": {"p": TEXT},
        "tags": [{"name": "t"}, {"name": "u"}],
        "objects": [{"name": "o", "self": "ignored"}],
        "resource_type_associations": [{"name": "r"}],
    }
    assert [(kind, name) for kind, name, _ in read_parts(body)] == [
        (ASSOCIATION, "r"), (OBJECT, "o"), (TAG, "t"), (TAG, "u"), (PROPERTY, "p"),
    ]  # fmt: skip
    assert read_parts({}) == []


def test_a_prefix_stands_before_properties_only() -> None:
    then = datetime(2026, 1, 1)
    for kind, name in ((PROPERTY, "p:n"), (OBJECT, "n"), (TAG, "n")):
        values = kind.read(BODIES[kind])[1]
        found = with_prefix("p:", kind, Definition("n", values, then, then, 1))
        assert found.name == name
        if kind is OBJECT:
            assert (found.values["required"], found.values["properties"]) == (["p:a"], {"p:a": TEXT})
