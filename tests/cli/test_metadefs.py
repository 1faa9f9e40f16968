"""`glance-manage db load_metadefs`, `unload_metadefs`, `export_metadefs`: definitions from files and back."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, config

TEXT = {"title": "T", "type": "string"}
WHOLE: dict[str, Any] = {
    "namespace": "Test::Home",
    "display_name": "A home, for tests",
    "description": "d" * 600,
    "visibility": "public",
    "protected": True,
    "resource_type_associations": [{"name": "OS::Test::Thing", "prefix": "p:"}, {"name": "OS::Test::Other"}],
    "properties": {"size": {**TEXT, "default": 80, "minimum": 1}},
    "objects": [{"name": "disk", "description": "d", "required": ["a"], "properties": {"a": TEXT}}, {"name": "bare"}],
    "tags": [{"name": "one"}, {"name": "two"}],
}
SHIPPED = 33


@pytest.fixture
def conf(tmp_path: Path) -> str:
    """A configuration whose folder of definitions does not exist."""
    extra = f"[DEFAULT]\nmetadata_source_path = {tmp_path}/definitions/\n"
    return config(tmp_path, f"sqlite:///{tmp_path}/glance.sqlite", extra)


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Path:
    """The tables are there, and a folder with one file."""
    assert run("db", "sync") == 0
    place = tmp_path / "files"
    place.mkdir()
    write(place / "home.json", WHOLE)
    return place


def write(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document))


def query(folder: Path, text: str) -> list[Any]:
    with sqlite3.connect(folder.parent / "glance.sqlite") as connection:
        return connection.execute(text).fetchall()


def exported(run: Run, folder: Path) -> dict[str, Any]:
    """The one namespace that there is, as the command writes it."""
    place = folder.parent / "exported"
    for file in place.glob("*"):
        file.unlink()
    assert run("db", "export_metadefs", "--path", str(place)) == 0
    (file,) = place.iterdir()
    document: dict[str, Any] = json.loads(file.read_text())
    return document


@pytest.mark.parametrize("style", [["db", "load_metadefs", "--path"], ["db_load_metadefs", "--path"],
                                   ["db", "load_metadefs"], ["db_load_metadefs"]])  # fmt: skip
def test_a_file_is_loaded_and_written_again(
    run: Run,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    style: list[str],
) -> None:
    assert run(*style, str(folder)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "home.json: namespace Test::Home loaded"
    document = exported(run, folder)
    assert document.pop("owner") == "admin"
    bare = {"name": "bare", "required": [], "properties": {}}
    expected = {**WHOLE, "properties": {"size": {**TEXT, "default": "80", "minimum": 1}},
                "objects": [bare, WHOLE["objects"][0]], "tags": [{"name": "two"}, {"name": "one"}],
                "resource_type_associations": WHOLE["resource_type_associations"][::-1]}  # fmt: skip
    assert document == expected
    assert query(folder, "select name, protected from metadef_resource_types order by id") == [
        ("OS::Test::Thing", 1),
        ("OS::Test::Other", 1),
    ]
    assert query(folder, "select distinct updated_at from metadef_namespaces") == [(None,)]


def test_one_file_is_enough(run: Run, folder: Path) -> None:
    write(folder / "other.json", {"namespace": "Test::Other"})
    assert run("db", "load_metadefs", "--path", str(folder / "other.json")) == 0
    assert query(folder, "select namespace, visibility, owner from metadef_namespaces") == [
        ("Test::Other", "private", "admin")
    ]


def test_the_shipped_definitions_are_loaded_where_there_is_no_folder(
    run: Run,
    folder: Path,
    conf: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("db_load_metadefs") == 0
    assert len(query(folder, "select * from metadef_namespaces")) == SHIPPED
    assert capsys.readouterr().err == ""
    assert run("db_unload_metadefs") == 0
    own = Path(conf).parent / "definitions"
    folder.rename(own)
    assert run("db_load_metadefs") == 0
    assert [row[0] for row in query(own, "select namespace from metadef_namespaces")] == ["Test::Home"]


MORE = {
    "namespace": "Test::Home",
    "visibility": "public",
    "properties": {"size": {"title": "New", "type": "string"}, "more": TEXT},
    "objects": [{"name": "disk"}, {"name": "more"}],
    "tags": [{"name": "three"}],
    "resource_type_associations": [{"name": "OS::Test::Thing", "prefix": "new:"}, {"name": "OS::Test::More"}],
}


@pytest.mark.parametrize(
    ("arguments", "description", "title", "prefix", "names"),
    [
        ([], 600, "T", "p:", {"bare", "disk"}),
        (["--merge"], 600, "T", "p:", {"bare", "disk", "more"}),
        (["--merge", "--prefer_new"], None, "New", "new:", {"bare", "disk", "more"}),
        (["--merge", "--overwrite"], None, "New", "new:", {"disk", "more"}),
        (["PATH", "true"], 600, "T", "p:", {"bare", "disk", "more"}),
        (["PATH", "True", "True"], None, "New", "new:", {"bare", "disk", "more"}),
        (["PATH", "True", "False", "True"], None, "New", "new:", {"disk", "more"}),
    ],
)
def test_what_becomes_of_a_namespace_that_exists(
    run: Run,
    folder: Path,
    arguments: list[str],
    description: int | None,
    title: str,
    prefix: str,
    names: set[str],
) -> None:
    assert run("db", "load_metadefs", str(folder)) == 0
    write(folder / "home.json", MORE)
    typed = [str(folder) if each == "PATH" else each for each in arguments]
    assert run("db", "load_metadefs", *([] if "PATH" in arguments else ["--path", str(folder)]), *typed) == 0
    document = exported(run, folder)
    assert document.get("description") == ("d" * description if description else None)
    assert document["properties"]["size"]["title"] == title
    assert {each["name"] for each in document["objects"]} == names
    assert {each["name"]: each.get("prefix") for each in document["resource_type_associations"]}[
        "OS::Test::Thing"
    ] == prefix


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--overwrite"], "need merge"),
        (["--prefer_new"], "need merge"),
        (["--merge", "--prefer_new", "--overwrite"], "exclude each other"),
        (["--path", "/nothing/there"], "/nothing/there: No such file"),
    ],
)
def test_arguments_that_make_no_sense(
    run: Run,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert run("db", "load_metadefs", *arguments) == 1
    assert said in capsys.readouterr().err
    assert query(folder, "select * from metadef_namespaces") == []


def test_a_folder_without_files_is_a_mistake(
    run: Run,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    assert run("db", "load_metadefs", str(tmp_path / "empty")) == 1
    assert run("db", "load_metadefs", str(folder), "perhaps") == 1
    assert "merge must be true or false" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '"text"', "{}", '{"namespace": 5}', '{"namespace": ""}', '{"namespace": "N", "properties": []}',
     '{"namespace": "N", "tags": [{}]}', '{"namespace": "N", "tags": [{"name": "\\u0000"}]}',
     '{"namespace": "N", "properties": {"a": {"title": "A", "type": "string", "unknown": 1}}}', "\\xff"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_does_not_stop_the_others(
    run: Run,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
) -> None:
    (folder / "bad.json").write_text(content)
    assert run("db", "load_metadefs", str(folder)) == 0
    assert capsys.readouterr().err.startswith("ERROR: bad.json cannot be used: ")
    assert [row[0] for row in query(folder, "select namespace from metadef_namespaces")] == ["Test::Home"]


def test_unload_takes_everything(run: Run, folder: Path) -> None:
    assert run("db", "load_metadefs", str(folder)) == 0
    assert run("db", "unload_metadefs") == 0
    for table in ("namespaces", "objects", "properties", "tags", "resource_types", "namespace_resource_types"):
        assert query(folder, f"select * from metadef_{table}") == []
    assert run("db_unload_metadefs") == 0


def test_files_of_an_export_have_names_of_their_own(run: Run, folder: Path) -> None:
    for number, name in enumerate((None, "Same!", "SAME", "Same", "::", "")):
        write(folder / f"{number}.json", {"namespace": f"N::{number}", **({"display_name": name} if name else {})})
    assert run("db", "load_metadefs", str(folder)) == 0
    place = folder.parent / "out" / "deep"
    assert run("db_export_metadefs", str(place)) == 0
    found = {file.name: json.loads(file.read_text())["namespace"] for file in place.iterdir()}
    assert set(found) == {"N0.json", "Same.json", "N1.json", "N2.json", "N4.json", "N5.json", "Ahomefortests.json"}
    assert len(set(found.values())) == 7


def test_an_export_that_cannot_be_written(
    run: Run,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("db", "load_metadefs", str(folder)) == 0
    assert run("db", "export_metadefs", str(folder / "home.json")) == 1
    assert "home.json: File exists" in capsys.readouterr().err


def test_without_tables_the_command_says_what_to_do(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for action in ("load_metadefs", "unload_metadefs", "export_metadefs"):
        assert run("db", action) == 1
        assert "db sync first" in capsys.readouterr().err
