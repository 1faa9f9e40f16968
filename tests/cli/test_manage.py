"""`glance-manage`: what an operator types, sees and gets as exit code."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from glimpse.cli import manage
from tests.cli.conftest import Run, config
from tests.rig.databases import PASSWORD, MariaDB, PostgreSQL
from tests.rig.process import free_port

HEAD = "2024_1_contract01"


def script(name: str, *arguments: str) -> subprocess.Popen[str]:
    """The installed command in a process of its own."""
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("arguments", [["db_sync"], ["db", "sync"], ["db_sync", "77"], ["db", "sync", "77"]])
def test_sync(run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(*arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Database is synced successfully."
    assert run(*arguments) == 0
    assert capsys.readouterr().out == f"Database is up to date, at {HEAD}.\n"


@pytest.mark.parametrize("style", [["db", "{}"], ["db_{}"]])
def test_phases_and_check(run: Run, capsys: pytest.CaptureFixture[str], style: list[str]) -> None:
    def typed(action: str) -> tuple[int, str, str]:
        code = run(*(word.format(action) for word in style))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    code, out, _ = typed("version")
    assert code == 0
    assert out.startswith("No version")
    code, out, _ = typed("check")
    assert (code, "db expand is next" in out) == (3, True)
    for too_early in ("migrate", "contract"):
        code, out, error = typed(too_early)
        assert (code, out) == (1, "")
        assert error.startswith("ERROR: the database is not ")
        assert error.endswith("run glance-manage db expand first\n")
    assert typed("expand")[0] == 0
    assert typed("version") == (0, "2024_1_expand01\n", "")
    assert typed("expand")[1] == "Database needs no expansion.\n"
    code, out, _ = typed("check")
    assert (code, "db contract is next" in out) == (5, True)
    assert typed("migrate") == (0, "Migrated 0 rows.\n", "")
    assert typed("contract")[0] == 0
    assert typed("check") == (0, f"Database is up to date, at {HEAD}.\n", "")
    assert typed("contract") == (0, f"Database is up to date, at {HEAD}.\n", "")
    assert typed("version") == (0, f"{HEAD}\n", "")


def test_check_asks_for_migrate(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("db", "upgrade", "--version", "rocky_contract02") == 0
    with sqlite3.connect(tmp_path / "glance.sqlite") as connection:
        connection.execute(
            "INSERT INTO images (id, status, created_at, deleted, min_disk, min_ram) VALUES"
            " ('i', 'active', '2018-01-01 00:00:00.000000', 0, 0, 0)"
        )
        connection.execute(
            "INSERT INTO image_locations (image_id, value, created_at, deleted, meta_data) VALUES"
            " ('i', 'file:///i', '2018-01-01 00:00:00.000000', 0, '{\"backend\": \"fast\"}')"
        )
    assert run("db", "expand") == 0
    assert run("db", "check") == 4
    assert run("db", "contract") == 1
    assert "glance-manage db migrate first" in capsys.readouterr().err
    assert run("db", "migrate") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Migrated 1 rows."
    assert run("db", "check") == 5


@pytest.mark.parametrize("typed", ["db upgrade --version", "db upgrade", "db_upgrade --version", "db_upgrade"])
def test_upgrade_to_a_revision(run: Run, capsys: pytest.CaptureFixture[str], typed: str) -> None:
    words = typed.split()
    assert run(*words, "train_contract01") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Database is at train_contract01."
    assert run(*words, "nope") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert run(*(word for word in words if word != "--version")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Database is at {HEAD}."


def test_version_control(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("db_version_control") == 0
    assert run("db_version") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "liberty"
    assert run("db", "version_control", "--version", "train_contract01") == 0
    assert run("db_version") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "train_contract01"


def put_deleted(file: Path, count: int, days: int, location: str = "deleted") -> None:
    """Images in a synced SQLite database that were deleted so many days ago, each with a location."""
    with sqlite3.connect(file) as connection:
        for _ in range(count):
            image_id, when = str(uuid.uuid4()), f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d %H:%M:%S}.000000"
            connection.execute(
                "INSERT INTO images (id, status, created_at, deleted, deleted_at, min_disk, min_ram)"
                " VALUES (?, 'deleted', ?, 1, ?, 0, 0)",
                (image_id, when, when),
            )
            connection.execute(
                "INSERT INTO image_locations (image_id, value, created_at, deleted, deleted_at, status)"
                " VALUES (?, 'file:///i', ?, 1, ?, ?)",
                (image_id, when, when, location),
            )


def count_rows(file: Path, table: str) -> int:
    with sqlite3.connect(file) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.mark.parametrize(
    "typed",
    [
        "db purge --age_in_days 50 --max_rows 3",
        "db purge 50 3",
        "db purge --max_rows 3 50",
        "db_purge --age_in_days=50 --max_rows=3",
        "db_purge 50 3",
    ],
)
def test_purge(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str) -> None:
    assert run("db_sync") == 0
    file = tmp_path / "glance.sqlite"
    put_deleted(file, 4, days=60)
    put_deleted(file, 4, days=40)
    capsys.readouterr()
    assert run(*typed.split()) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines()[0] == "image_locations: 3 rows purged."
    assert (count_rows(file, "image_locations"), count_rows(file, "images")) == (5, 8)


def test_purge_without_arguments_takes_those_of_glance(run: Run, tmp_path: Path) -> None:
    assert run("db_sync") == 0
    file = tmp_path / "glance.sqlite"
    put_deleted(file, 110, days=181)
    put_deleted(file, 1, days=29)
    assert run("db", "purge") == 0
    assert count_rows(file, "image_locations") == 11
    assert run("db", "purge", "--max_rows", "-1") == 0
    assert count_rows(file, "image_locations") == 1
    assert run("db", "purge_images_table") == 0
    assert count_rows(file, "images") == 11
    assert run("db", "purge_images_table", "180", "-1") == 0
    assert count_rows(file, "images") == 1


def test_purge_of_images_that_cannot_go(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("db_sync") == 0
    file = tmp_path / "glance.sqlite"
    put_deleted(file, 2, days=200)
    put_deleted(file, 1, days=200, location="pending_delete")
    capsys.readouterr()
    assert run("db", "purge_images_table") == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("ERROR: 2 images stay")
    assert "glance-manage db purge first" in shown.err
    assert run("db", "purge") == 0
    capsys.readouterr()
    assert run("db", "purge_images_table") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "images: 2 rows purged.",
        "1 images stay until their data is erased from the stores.",
    ]
    assert shown.err == ""
    assert count_rows(file, "images") == 1


@pytest.mark.parametrize("action", ["purge", "purge_images_table"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--age_in_days", "x"], "age_in_days must be a whole number, not 'x'"),
        (["--age_in_days", "1.5"], "age_in_days must be a whole number"),
        (["--age_in_days", "-1"], "age_in_days must not be negative"),
        (["-1"], "age_in_days must not be negative"),
        (["--age_in_days", "30000"], "age_in_days must be less than the days since 1970"),
        (["30", "many"], "max_rows must be a whole number, not 'many'"),
        (["--max_rows", "-2"], "max_rows must be -1 (no limit) or more"),
        (["--max_rows", ""], "max_rows must be a whole number"),
    ],
)
def test_purge_with_wrong_arguments(
    run: Run, capsys: pytest.CaptureFixture[str], action: str, arguments: list[str], words: str
) -> None:
    assert run("db_sync") == 0
    capsys.readouterr()
    assert run("db", action, *arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"ERROR: {words}")
    assert shown.err.count("\n") == 1


def test_purge_without_tables(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("db", "purge") == 1
    assert capsys.readouterr().err.endswith("lacks tables or columns: run glance-manage db sync first\n")


def test_without_action_the_actions_are_shown(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert manage.main([]) == 2
    shown = capsys.readouterr().out
    assert all(action in shown for action in ("sync", "version", "check", "expand", "migrate", "contract"))
    assert run("db") == 2
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("arguments", [["db", "nonsense"], ["nonsense"], ["db_nonsense"]])
def test_unknown_action(run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[database]\nmax_retries = many\nconnection = sqlite:////x\n", "max_retries"),
        ("[database]\n", "connection is not set"),
        ("[database]\nconnection = oracle://u:hunter2@h/x\n", "connection"),
        ("[database]\nconnection = mysql://u:hunter2@h:hunter2/x\n", "cannot be read as a URL"),
        ("no assignment\n", "parse"),
    ],
)
def test_wrong_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_text(text)
    assert manage.main(["--config-file", str(file), "db_sync"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("ERROR: ")
    assert words in shown.err
    assert "hunter2" not in shown.err
    assert shown.err.count("\n") == 1


def test_missing_file_and_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert manage.main(["--config-file", f"{tmp_path}/nope.conf", "db_sync"]) == 1
    assert "nope.conf" in capsys.readouterr().err
    conf = config(tmp_path, f"sqlite:///{tmp_path}/nope/glance.sqlite")
    assert manage.main(["--config-file", conf, "db_sync"]) == 1
    assert "unable to open database file" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
def test_server_that_never_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str], scheme: str) -> None:
    url = f"{scheme}://glance:hunter2@127.0.0.1:{free_port()}/glance"
    conf = config(tmp_path, url, "max_retries = 3\nretry_interval = 0\n")
    assert manage.main(["--config-file", conf, "db_sync"]) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert len(lines) == 3
    assert "try 1 of 3" in lines[0]
    assert "try 2 of 3" in lines[1]
    assert lines[2].startswith("ERROR: ")
    assert "tried 3 times" in lines[2]
    assert "hunter2" not in shown.err


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
@pytest.mark.server
def test_server_that_comes_late(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: MariaDB | PostgreSQL = request.getfixturevalue(kind)
    conf = config(tmp_path, server.fresh_url(), "max_retries = -1\nretry_interval = 1\n")
    server.stop()
    try:
        command = script("glance-manage", "--config-file", conf, "db_sync")
        assert command.stderr is not None
        error = command.stderr.readline()
    finally:
        server.start()
    out, rest = command.communicate(timeout=60)
    assert (command.returncode, out.splitlines()[-1]) == (0, "Database is synced successfully.")
    assert "does not answer (try 1)" in error
    error += rest
    assert PASSWORD not in out + error


@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        pytest.param("mariadb_url", marks=pytest.mark.server),
        pytest.param("postgresql_url", marks=pytest.mark.server),
    ],
)
def test_two_at_once(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/glance.sqlite" if kind == "sqlite" else request.getfixturevalue(kind)
    conf = config(tmp_path, url)
    commands = [script("glance-manage", "--config-file", conf, "db_sync") for _ in range(3)]
    ends = []
    for command in commands:
        out, error = command.communicate(timeout=60)
        assert (command.returncode, error) == (0, "")
        ends.append(out.splitlines()[-1])
    up_to_date = f"Database is up to date, at {HEAD}."
    assert sorted(ends) == ["Database is synced successfully.", up_to_date, up_to_date]
