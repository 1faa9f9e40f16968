"""How it is sent: one side is a service with its database and the tokens of all users."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql

from tests.differential.steps import ABSENT, UNKNOWN, Scenario, Settle, Step

_FIRST_TIME = datetime(2026, 1, 1)
_PLACEHOLDER = re.compile(r"\$\{([\w-]+)\}")


@dataclass(frozen=True)
class Answer:
    """What came back; names of headers are lower-cased. Status 0: the connection was broken off."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """Without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON, or `ABSENT`."""
        try:
            return json.loads(self.body)
        except ValueError:
            return ABSENT


@dataclass
class Side:
    """One of the two services: where it is, who may ask it, and what is known when a step is sent.

    `known` holds what every scenario may use (projects, places), `kept` what this one has found out; of these, `ids`
    differ between the sides. `database` is a URL of MariaDB, `folder` where its stores are.
    """

    name: str
    url: str
    database: str
    folder: str
    tokens: Mapping[str, str]
    known: Mapping[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def play(self, scenario: Scenario) -> Iterator[Answer | None]:
        """The answer to each step, None for what is no request."""
        self._wipe()
        self.kept, self.ids = {}, {}
        for step in scenario.steps:
            if isinstance(step, Settle):
                self._settle()
                yield None
            else:
                yield self._send(step)

    def asks(self, user: str) -> bool:
        """Whether this user gets an answer that is not a failure."""
        return 0 < self._send(Step(user, "GET", "/v2/images?limit=1")).status < 500

    def _send(self, step: Step) -> Answer:
        headers = {name: self._fill(value) for name, value in step.headers.items()}
        if token := self.tokens.get(step.user):
            headers["X-Auth-Token"] = token
        body = step.body
        if step.json is not ABSENT:
            body = self._fill(json.dumps(step.json)).encode()
            headers.setdefault("Content-Type", "application/json")
        with closing(http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)) as connection:
            try:
                connection.request(step.method, self._fill(step.path), body, headers)
                got = connection.getresponse()
                found = {name.lower(): value for name, value in got.getheaders()}
                answer = Answer(got.status, found, got.read())
            except (ConnectionError, http.client.HTTPException) as error:
                answer = Answer(0, {}, repr(error).encode())
        if step.keep:
            self._keep(step, answer)
        return answer

    def _fill(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: {**self.known, **self.kept}.get(match[1], UNKNOWN), text)

    def _keep(self, step: Step, answer: Answer) -> None:
        document = answer.json()
        value = document.get(step.key) if isinstance(document, dict) else None
        if isinstance(value, str):
            self.kept[step.keep] = value
            if step.key == "id" and "-0000-4000-8000-" not in value:
                self.ids[step.keep] = value

    def _wipe(self) -> None:
        with closing(_connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
            cursor.execute("SHOW TABLES")
            tables = [name for (name,) in cursor.fetchall() if name != "alembic_version"]
            cursor.execute(" UNION ALL ".join(f"(SELECT '{name}' FROM `{name}` LIMIT 1)" for name in tables))
            for (name,) in cursor.fetchall():  # those with rows; emptying the empty ones takes longer than all this
                cursor.execute(f"DELETE FROM `{name}`")
            connection.commit()
        for file in Path(self.folder).glob("*/*"):
            if file.is_file():
                file.unlink()

    def _settle(self) -> None:
        with closing(_connect(self.database)) as connection, connection.cursor() as cursor:
            for table, order in (("images", "id"), ("metadef_namespaces", "namespace")):
                cursor.execute(f"SELECT id FROM {table} ORDER BY {order}")
                for number, (row,) in enumerate(cursor.fetchall()):
                    created = _FIRST_TIME + timedelta(minutes=number)
                    updated = _FIRST_TIME + timedelta(days=1, minutes=-number)
                    cursor.execute(
                        f"UPDATE {table} SET created_at = %s, updated_at = %s WHERE id = %s", (created, updated, row)
                    )
            connection.commit()


def _connect(url: str) -> pymysql.Connection:
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=parts.username, password=parts.password or "",
        database=parts.path.strip("/").partition("?")[0], charset="utf8mb4",
    )  # fmt: skip
