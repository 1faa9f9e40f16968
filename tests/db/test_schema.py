"""The schema that we make and the one that Glance makes are one: on each database, from each release."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

import glimpse.migrations
from glimpse import config_files, settings
from glimpse.db import additions, tables
from glimpse.db.engine import open_engine
from glimpse.db.schema import Schema, SchemaError
from glimpse.errors import SettingsError
from glimpse.settings import DatabaseSettings
from tests.db.schema_facts import VERSION_TABLE, added_facts, facts, glance_facts

HEAD = "2024_1_contract01"
INDEXES_TOLD = [
    "Building 12 indexes for lists of images: minutes, if there are a million of them.",
    "Indexes built: 12.",
]
NOW = datetime(2017, 9, 1, 12, 0, 0)
# What images and tasks got after Pike, and after Train; `cached_images` and `node_reference` came later still.
AFTER_TRAIN = ("column image_id", "column request_id", "column user_id", "index ix_tasks_image_id")
AFTER_PIKE = ("column os_hidden", "column os_hash", "index os_hidden", "index os_hash")


def database_settings(folder: Path, url: str) -> DatabaseSettings:
    """`[database]` as the service reads it from a file with that URL."""
    file = folder / "glance-api.conf"
    file.write_text(f"[database]\nconnection = {url}\n")
    return settings.database_settings(config_files.parse(["--config-file", str(file)], "glance-manage"))


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("mariadb_url", marks=pytest.mark.server),
        pytest.param("postgresql_url", marks=pytest.mark.server),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return database_settings(tmp_path, f"sqlite:///{tmp_path}/glance.sqlite")
    return database_settings(tmp_path, request.getfixturevalue(request.param))


@pytest.fixture
def told() -> list[str]:
    """What the schema tells the operator."""
    return []


@pytest.fixture
def schema(database: DatabaseSettings, told: list[str]) -> Iterator[Schema]:
    opened = Schema(database, told.append)
    yield opened
    opened.close()


@pytest.fixture
def connection(database: DatabaseSettings) -> Iterator[Connection]:
    """A connection that commits each statement, to look around and to spoil things."""
    engine = open_engine(database, autocommit=True)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def of_glance(connection: Connection) -> list[str]:
    return glance_facts(connection.dialect.name)


def expected(connection: Connection) -> list[str]:
    return sorted(of_glance(connection) + added_facts(connection.dialect.name))


def before(lines: list[str], words: tuple[str, ...], *, gone: tuple[str, ...] = ()) -> list[str]:
    """The facts without those of `images` and `tasks` that start with a word, and without the tables in `gone`."""
    kept = []
    for line in lines:
        table, fact = line.split(" ", 1)
        if table not in gone and not (table in ("images", "tasks") and fact.startswith(words)):
            kept.append(line)
    return kept


def rows(connection: Connection, table: sa.Table) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sa.select(table).order_by(table.c.id)).mappings()]


def pike_rows(connection: Connection) -> None:
    """An image of 2017 with all that belongs to it, in the columns of its time."""
    times = {"created_at": NOW, "updated_at": NOW, "deleted_at": None, "deleted": False}
    image = {"id": "i1", "name": "Ünïcode", "size": 2**40, "status": "active", "min_disk": 1, "min_ram": 2}
    connection.execute(sa.insert(tables.images).values(**image, **times, visibility="community", owner="p1"))
    connection.execute(sa.insert(tables.image_properties).values(image_id="i1", name="os", value=None, **times))
    connection.execute(sa.insert(tables.image_tags).values(image_id="i1", value="lts", **times))
    connection.execute(sa.insert(tables.image_members).values(image_id="i1", member="p2", can_share=False, **times))
    for text in ('{"backend": "fast", "other": 1}', '{"store": "a", "backend": "b"}', '"backend"', "{}", None):
        location = {"image_id": "i1", "value": "file:///x", "meta_data": text}
        connection.execute(sa.insert(tables.image_locations).values(**location, **times))
    connection.execute(sa.insert(tables.tasks).values(id="t1", type="import", status="success", owner="p1", **times))


def test_revisions_are_those_of_glance() -> None:
    def names(value: Any) -> str:
        return ",".join(sorted([value] if isinstance(value, str) else value or [])) or "-"

    script = ScriptDirectory(glimpse.migrations.__path__[0])
    lines = [
        f"{found.revision} {names(found.down_revision)} {names(found.module.branch_labels)}"
        f" {names(found.module.depends_on)}"
        for found in script.walk_revisions()
    ]
    assert sorted(lines) == Path(__file__).with_name("glance_revisions.txt").read_text().splitlines()


def test_new_database_is_the_one_of_glance(schema: Schema, connection: Connection) -> None:
    assert schema.revisions() == ()
    assert schema.sync() is True
    assert facts(connection) == expected(connection)
    assert schema.revisions() == (HEAD,)
    assert connection.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == [HEAD]


def test_tables_describe_the_head(connection: Connection) -> None:
    tables.metadata.create_all(connection)
    without_version = [line for line in of_glance(connection) if not line.startswith(VERSION_TABLE)]
    assert facts(connection) == without_version


def test_database_of_glance_gets_what_is_added(schema: Schema, connection: Connection, told: list[str]) -> None:
    schema.upgrade("heads")
    assert facts(connection) == of_glance(connection)
    for step in (schema.sync, schema.expand):
        told.clear()
        assert step() is True
        assert told == ["Added beside Glance's tables: quota_reservations, quota_turns.", *INDEXES_TOLD]
        assert facts(connection) == expected(connection)
        assert step() is False
        additions.metadata.drop_all(connection)
        for index in additions.indexes(connection.dialect.name):
            index.drop(connection)


def test_an_index_that_cannot_be_built_stops_nothing(
    schema: Schema, connection: Connection, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.upgrade("heads")
    known = additions.indexes

    def one_of_no_use(dialect: str) -> list[sa.Index]:
        table = sa.Table("images", sa.MetaData(), sa.Column("no_such_column", sa.Integer))
        return [sa.Index("images_list_no_such_column", table.c.no_such_column), *known(dialect)]

    monkeypatch.setattr(additions, "indexes", one_of_no_use)
    assert schema.sync() is True
    assert facts(connection) == expected(connection)
    [failure] = [line for line in told if "cannot be built" in line]
    assert "images_list_no_such_column" in failure
    assert schema.sync() is False


@pytest.mark.server
def test_an_index_whose_building_was_interrupted(postgresql_url: str, tmp_path: Path) -> None:
    settings = database_settings(tmp_path, postgresql_url)
    schema = Schema(settings, lambda line: None)
    schema.sync()
    engine = open_engine(settings, autocommit=True)
    with engine.connect() as connection:
        broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'images_list_name'::regclass"
        connection.execute(sa.text(broken))
        assert [index.name for index in additions.missing_indexes(connection)] == ["images_list_name"]
        assert schema.sync() is True
        assert additions.missing_indexes(connection) == []
    engine.dispose()
    schema.close()


def test_second_sync_finds_nothing_to_do(schema: Schema, connection: Connection, told: list[str]) -> None:
    schema.sync()
    told.clear()
    assert schema.sync() is False
    assert schema.expand() is False
    assert schema.migrate() == 0
    assert schema.contract() is False
    assert schema.upgrade("heads") == (HEAD,)
    assert told == []
    assert facts(connection) == expected(connection)


def test_phases_one_by_one(schema: Schema, connection: Connection) -> None:
    assert schema.next_phase() == "expand"
    with pytest.raises(SchemaError, match="db expand first"):
        schema.migrate()
    with pytest.raises(SchemaError, match="db expand first"):
        schema.contract()
    assert schema.revisions() == ()
    assert schema.expand() is True
    assert schema.next_phase() == "contract"
    assert schema.revisions() == ("2024_1_expand01",)
    assert schema.contract() is True
    assert schema.next_phase() is None
    assert facts(connection) == expected(connection)


def test_pike_database_keeps_its_rows(schema: Schema, connection: Connection, told: list[str]) -> None:
    schema.upgrade("pike_contract01")
    late = ("cached_images", "node_reference")
    assert facts(connection) == before(of_glance(connection), AFTER_PIKE + AFTER_TRAIN, gone=late)
    pike_rows(connection)

    assert schema.expand() is True
    assert schema.revisions() == ("2024_1_expand01", "pike_contract01")
    assert schema.next_phase() == "migrate"
    with pytest.raises(SchemaError, match="db migrate first"):
        schema.contract()
    assert schema.migrate() == 1
    assert schema.migrate() == 0
    assert schema.contract() is True

    assert facts(connection) == expected(connection)
    [image] = rows(connection, tables.images)
    assert (image["name"], image["size"], image["visibility"]) == ("Ünïcode", 2**40, "community")
    assert (image["os_hidden"], image["os_hash_algo"], image["created_at"]) == (False, None, NOW)
    metadata = [location["meta_data"] for location in rows(connection, tables.image_locations)]
    assert json.loads(metadata[0]) == {"store": "fast", "other": 1}
    assert metadata[1:] == ['{"store": "a", "backend": "b"}', '"backend"', "{}", None]
    assert [task["image_id"] for task in rows(connection, tables.tasks)] == [None]
    for table in (tables.image_properties, tables.image_tags, tables.image_members):
        assert len(rows(connection, table)) == 1


def test_pike_database_at_one_go(schema: Schema, connection: Connection, told: list[str]) -> None:
    schema.upgrade("pike_contract01")
    pike_rows(connection)
    told.clear()
    assert schema.sync() is True
    assert facts(connection) == expected(connection)
    assert json.loads(rows(connection, tables.image_locations)[0]["meta_data"])["store"] == "fast"
    assert [line.rpartition(" ")[2] for line in told] == [
        "pike_contract01.", "1.", f"{HEAD}.", "quota_turns.", "them.", "12.",
    ]  # fmt: skip


def test_train_database_keeps_its_rows(schema: Schema, connection: Connection) -> None:
    schema.upgrade("train_contract01")
    late = ("cached_images", "node_reference")
    assert facts(connection) == before(of_glance(connection), AFTER_TRAIN, gone=late)
    pike_rows(connection)
    kept = rows(connection, tables.image_locations)
    assert schema.sync() is True
    assert facts(connection) == expected(connection)
    assert rows(connection, tables.image_locations) == kept  # from Train on, `backend` is the operator's own key
    assert rows(connection, tables.images)[0]["visibility"] == "community"


def test_artifact_tables_of_ocata_go(schema: Schema, connection: Connection) -> None:
    schema.upgrade("ocata_contract01")
    connection.execute(sa.text("CREATE TABLE artifacts (id VARCHAR(36) PRIMARY KEY)"))
    connection.execute(
        sa.text(
            "CREATE TABLE artifact_tags (id VARCHAR(36) PRIMARY KEY, artifact_id VARCHAR(36),"
            " FOREIGN KEY(artifact_id) REFERENCES artifacts (id))"
        )
    )
    schema.sync()
    assert facts(connection) == expected(connection)


def test_database_that_glance_expanded(schema: Schema, connection: Connection) -> None:
    schema.upgrade("zed_contract01")
    schema.upgrade("2024_1_expand01")
    assert schema.revisions() == ("2024_1_expand01", "zed_contract01")
    assert schema.next_phase() == "contract"
    schema.sync()
    assert facts(connection) == expected(connection)


def test_names_from_before_the_branches(schema: Schema, connection: Connection) -> None:
    for old, name in (("ocata01", "ocata_contract01"), ("pike01", "pike_contract01")):
        schema.upgrade(name)
        connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{old}'"))
        assert schema.revisions() == (name,)
    schema.sync()
    assert facts(connection) == expected(connection)
    assert connection.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == [HEAD]


def test_sync_that_was_killed_half_way(schema: Schema, connection: Connection) -> None:
    """What MySQL leaves: statements without the revision that they belong to."""
    schema.upgrade("rocky_expand01")
    connection.execute(sa.text("ALTER TABLE images ADD COLUMN os_hash_algo VARCHAR(64)"))
    connection.execute(sa.text("ALTER TABLE tasks ADD COLUMN image_id VARCHAR(36)"))
    tables.node_reference.create(connection)
    schema.sync()
    assert facts(connection) == expected(connection)


def test_first_sync_that_was_killed_half_way(schema: Schema, connection: Connection) -> None:
    schema.upgrade("liberty")
    next(index for index in tables.images.indexes if index.name == "owner_image_idx").drop(connection)
    connection.execute(sa.text("DROP TABLE metadef_tags"))
    connection.execute(sa.text("DROP TABLE alembic_version"))
    assert schema.next_phase() == "expand"
    schema.sync()
    assert facts(connection) == expected(connection)


def test_tables_from_before_2017_are_refused(schema: Schema, connection: Connection) -> None:
    for columns in ("is_public BOOLEAN", "is_public BOOLEAN, visibility VARCHAR(9)", "unrelated INTEGER"):
        connection.execute(sa.text(f"CREATE TABLE images (id VARCHAR(36) PRIMARY KEY, {columns})"))
        found = facts(connection)
        for call in (schema.sync, schema.expand, schema.migrate, schema.contract, schema.next_phase):
            with pytest.raises(SchemaError, match="before 2017") as refused:
                call()
            assert "\n" not in str(refused.value)
        with pytest.raises(SchemaError, match="before 2017"):
            schema.upgrade("heads")
        assert facts(connection) == found
        connection.execute(sa.text("DROP TABLE images"))


def test_revision_of_a_newer_release_is_refused(schema: Schema, connection: Connection) -> None:
    schema.sync()
    connection.execute(sa.text("UPDATE alembic_version SET version_num = '2031_1_contract01'"))
    assert schema.revisions() == ("2031_1_contract01",)
    for call in (schema.sync, schema.expand, schema.migrate, schema.contract, schema.next_phase):
        with pytest.raises(SchemaError, match="2031_1_contract01"):
            call()
    assert schema.revisions() == ("2031_1_contract01",)


def test_unknown_target(schema: Schema) -> None:
    for call in (schema.upgrade, schema.stamp):
        with pytest.raises(SchemaError, match="nope"):
            call("nope")
    assert schema.revisions() == ()


def test_stamp_records_and_changes_nothing(schema: Schema, connection: Connection) -> None:
    schema.sync()
    schema.stamp("liberty")
    assert schema.revisions() == ("liberty",)
    assert facts(connection) == expected(connection)
    schema.sync()
    assert facts(connection) == expected(connection)


def test_failure_is_one_line_and_can_be_repeated(
    schema: Schema, connection: Connection, database: DatabaseSettings
) -> None:
    connection.execute(sa.text("CREATE TABLE tasks (id VARCHAR(36) PRIMARY KEY)"))  # somebody else's
    with pytest.raises(SchemaError) as failed:
        schema.sync()
    assert "\n" not in str(failed.value)
    assert "CREATE" not in str(failed.value)
    assert "rig-secret" not in str(failed.value)
    if connection.dialect.name != "mysql":
        assert not sa.inspect(connection).has_table("images")  # all or nothing
    connection.execute(sa.text("DROP TABLE tasks"))
    assert schema.sync() is True
    assert facts(connection) == expected(connection)


def in_threads(count: int, work: Callable[[], None]) -> list[BaseException]:
    """Run `work` in threads that start together; what they raised."""
    barrier = threading.Barrier(count)
    raised: list[BaseException] = []

    def run() -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def test_syncs_at_once(database: DatabaseSettings, connection: Connection) -> None:
    results: list[bool] = []

    def work() -> None:
        schema = Schema(database, lambda line: None)
        assert schema.reach() is None
        results.append(schema.sync())
        schema.close()

    assert in_threads(3, work) == []
    # Who makes the tables may find that another one has built the indexes meanwhile.
    assert results.count(True) in (1, 2)
    assert facts(connection) == expected(connection)


def test_who_waits_says_so(database: DatabaseSettings, told: list[str]) -> None:
    """On the servers, whose lock is not the transaction itself."""
    inside, go_on = threading.Event(), threading.Event()

    def stop_here(line: str) -> None:
        inside.set()
        assert go_on.wait(60)

    first, second = Schema(database, stop_here), Schema(database, told.append)
    working = threading.Thread(target=first.sync)
    waiting = threading.Thread(target=second.sync)
    working.start()
    assert inside.wait(60)
    waiting.start()
    waiting.join(0.7)
    assert waiting.is_alive()
    said = [] if first.name.startswith("sqlite") else ["Another command changes this database; waiting for it."]
    assert told == said
    go_on.set()
    for thread in (working, waiting):
        thread.join(60)
        assert not thread.is_alive()
    # Either of them may build the indexes.
    assert all(line.endswith("waiting for it.") or "ndexes" in line for line in told)
    assert second.revisions() == (HEAD,)
    first.close()
    second.close()


def test_cluster_without_locks(mariadb_url: str, tmp_path: Path, told: list[str]) -> None:
    """Percona XtraDB Cluster in its strict mode refuses GET_LOCK with error 1105."""
    refusal = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1105, MESSAGE_TEXT = 'prohibits use of GET_LOCK'"

    def refuse(*call: Any) -> tuple[str, Any]:
        statement, parameters = call[2], call[3]
        return (refusal, ()) if "get_lock" in statement else (statement, parameters)

    schema = Schema(database_settings(tmp_path, mariadb_url), told.append)
    sa.event.listen(sa.Engine, "before_cursor_execute", refuse, retval=True)
    try:
        assert schema.sync() is True
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", refuse)
    assert "no locks" in told[0]
    assert schema.revisions() == (HEAD,)
    schema.close()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2/hunter2@hunter2@127.0.0.1/glance",
        "mysql://u:hunter2@hunter2@127.0.0.1/glance",
        "postgresql://u:pass@127.0.0.1:hunter2/glance",
        "mysql://u:hunter2@127.0.0.1",
    ],
)
def test_url_that_cannot_be_meant(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Schema(database_settings(tmp_path, url), print)
    assert "[database] connection" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_refusals_that_waiting_does_not_cure(mariadb_url: str, postgresql_url: str, tmp_path: Path) -> None:
    for url in (mariadb_url, postgresql_url):
        stem = url.rpartition("/")[0]
        for wrong in (f"{stem}/nothing_here", url.replace("rig-secret", "not-this"), f"{url}?nonsense=1"):
            schema = Schema(database_settings(tmp_path, wrong), print)
            with pytest.raises(SchemaError, match="cannot be used") as refused:
                schema.reach()
            assert "not-this" not in str(refused.value)
            assert "rig-secret" not in str(refused.value)
            assert "\n" not in str(refused.value)
            schema.close()
