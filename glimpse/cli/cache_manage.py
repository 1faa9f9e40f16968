"""`glance-cache-manage`: see and change the cache of one node, through its API (/v2/cached_images, /v2/queued_images).

The node must run with flavor cachemanagement. Names and options are those of Glance's command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any
from urllib.parse import quote

from keystoneauth1 import exceptions, noauth, session, token_endpoint
from keystoneauth1.identity import v3

PROG = "glance-cache-manage"
TIMEOUT = 60  # seconds


class CommandError(Exception):
    """What went wrong, in one line for the operator."""


@dataclass(frozen=True)
class Node:
    """The API of one node."""

    base: str
    client: session.Session

    def call(self, method: str, path: str) -> Any:
        """One call; the JSON that comes back. Raises `CommandError`."""
        try:
            response = self.client.request(f"{self.base}/v2/{path}", method, raise_exc=False)
        except exceptions.Unauthorized as error:
            raise CommandError("The identity service does not accept these credentials.") from error
        except exceptions.ClientException as error:
            raise CommandError(" ".join(str(error).split())) from error
        match response.status_code:
            case 200:
                return response.json()
            case 401 | 403:
                raise CommandError("You are not authorized to do this.")
            case 404:
                raise CommandError(f"{self.base} has no cache management (flavor cachemanagement), or no such image.")
            case status:
                raise CommandError(f"{self.base} answered {status}.")


@dataclass(frozen=True)
class Command:
    """A subcommand; one that changes something asks `question` first. `run` gets the id of an image, "" without."""

    help: str
    run: Callable[[Node, str], str]
    question: str = ""
    takes_id: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done (or not wanted after all), 1 failed, 2 wrong usage."""
    parser = _parser()
    given = parser.parse_args(argv)
    name, *ids = given.command
    if name == "help":
        return _help(parser, ids)
    command = COMMANDS.get(name)
    if command is None or len(ids) != command.takes_id:
        parser.error(f"{name}: " + ("no such command" if command is None else "takes " + _arguments(command)))
    image_id = ids[0] if ids else ""
    try:
        if command.question and not given.force and not _confirmed(command.question.format(image_id)):
            return 0
        told = command.run(_node(given), quote(image_id, safe=""))
    except CommandError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if told and (given.verbose or not command.question):
        print(told)
    return 0


def _arguments(command: Command) -> str:
    return "one argument, the id of an image" if command.takes_id else "no argument"


def _help(parser: argparse.ArgumentParser, names: Sequence[str]) -> int:
    if not names:
        parser.print_help()
        return 0
    command = COMMANDS.get(names[0])
    if command is None:
        parser.error(f"{names[0]}: no such command")
    print(f"{PROG} {names[0]}{' IMAGE_ID' if command.takes_id else ''} [options]: {command.help}")
    return 0


def _confirmed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _parser() -> argparse.ArgumentParser:
    commands = "".join(f"\n  {name:26}{command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=PROG,
        description=f"See and change the cache of a node.\n\nCommands:{commands}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="+", help="the command, and the id of an image where it takes one")
    parser.add_argument("--version", action="version", version=metadata.version("glimpse"))
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what was done")
    parser.add_argument("-d", "--debug", action="store_true", help="as --verbose")
    parser.add_argument("-H", "--host", default="0.0.0.0", help="the node's address, or its URL")  # noqa: S104
    parser.add_argument("-p", "--port", type=int, default=9292)
    parser.add_argument("-k", "--insecure", action="store_true", help="do not verify certificates")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask before a change")
    parser.add_argument("-S", "--os_auth_strategy", "--os-auth-strategy", choices=("keystone", "noauth"))
    for name, short in _CREDENTIALS.items():
        spellings = [f"--os-{name}", f"--os_{name.replace('-', '_')}", *short]
        variable = f"OS_{name.replace('-', '_').upper()}"
        parser.add_argument(*spellings, default=os.environ.get(variable, ""), help=f"else ${variable}")
    return parser


_CREDENTIALS: Mapping[str, Sequence[str]] = {
    "auth-token": ("-A", "--auth_token"), "username": ("-I",), "password": ("-K",), "region-name": ("-R",),
    "project-id": (), "project-name": ("-T",), "user-domain-id": (), "project-domain-id": (), "domain-id": (),
    "auth-url": ("-N",),
}  # fmt: skip


def _node(given: argparse.Namespace) -> Node:
    base = given.host.rstrip("/") if "://" in given.host else f"http://{given.host}:{given.port}"
    strategy = given.os_auth_strategy or os.environ.get("OS_AUTH_STRATEGY", "")
    if given.os_auth_token:
        auth: Any = token_endpoint.Token(base, given.os_auth_token)
    elif strategy == "noauth" or not (strategy or given.os_auth_url):
        auth = noauth.NoAuth(base)
    elif not given.os_auth_url:
        raise CommandError("Keystone's address is missing: --os-auth-url, or $OS_AUTH_URL.")
    else:
        url = given.os_auth_url.rstrip("/")
        domain = given.os_domain_id or "default"
        auth = v3.Password(
            url if url.endswith("/v3") else f"{url}/v3",
            username=given.os_username,
            password=given.os_password,
            user_domain_id=given.os_user_domain_id or domain,
            project_id=given.os_project_id or None,
            project_name=None if given.os_project_id else given.os_project_name,
            project_domain_id=given.os_project_domain_id or domain,
        )
    return Node(base, session.Session(auth, verify=not given.insecure, timeout=TIMEOUT))


def _list_cached(node: Node, image_id: str) -> str:
    copies = node.call("GET", "cached_images")["cached_images"]
    if not copies:
        return "No cached images."
    rows = [
        [
            copy["image_id"],
            _moment(copy["last_accessed"]),
            _moment(copy["last_modified"]),
            copy["size"],
            copy["hits"],
        ]
        for copy in copies
    ]
    return _table(["ID", "Last Accessed (UTC)", "Last Modified (UTC)", "Size", "Hits"], rows)


def _list_queued(node: Node, image_id: str) -> str:
    queued = node.call("GET", "queued_images")["queued_images"]
    return _table(["ID"], [[each] for each in queued]) if queued else "No queued images."


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat() if seconds else "N/A"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """In a frame, as other OpenStack commands print theirs; numbers to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    frame = "+".join(["", *("-" * (width + 2) for width in widths), ""])
    lines = [
        frame,
        "|".join(["", *(f" {name:^{width}} " for name, width in zip(head, widths, strict=True)), ""]),
        frame,
    ]
    lines += [_line(row, widths) for row in rows]
    return "\n".join([*lines, frame])


def _line(row: Sequence[Any], widths: Sequence[int]) -> str:
    cells = (
        f" {cell:{'>' if isinstance(cell, int) else '<'}{width}} " for cell, width in zip(row, widths, strict=True)
    )
    return "|".join(["", *cells, ""])


def _simply(method: str, path: str, told: str) -> Callable[[Node, str], str]:
    """A call on one image."""

    def run(node: Node, image_id: str) -> str:
        node.call(method, f"{path}/{image_id}")
        return told.format(image_id)

    return run


def _all(path: str, told: str) -> Callable[[Node, str], str]:
    """A call on all images, which answers how many they were."""
    return lambda node, image_id: told.format(node.call("DELETE", path)["num_deleted"])


COMMANDS: Mapping[str, Command] = {
    "list-cached": Command("list the images in the cache", _list_cached),
    "list-queued": Command("list the images that are to be fetched into it", _list_queued),
    "queue-image": Command(
        "have an image fetched into it", _simply("PUT", "queued_images", "{} is queued."), "Queue image {}?", True
    ),
    "delete-cached-image": Command(
        "remove an image from it", _simply("DELETE", "cached_images", "{} is not cached."),
        "Delete cached image {}?", True
    ),
    "delete-all-cached-images": Command(
        "remove all images from it", _all("cached_images", "{} images were cached."), "Delete all cached images?"
    ),
    "delete-queued-image": Command(
        "do not fetch an image", _simply("DELETE", "queued_images", "{} is not queued."),
        "Delete queued image {}?", True
    ),
    "delete-all-queued-images": Command(
        "do not fetch any image", _all("queued_images", "{} images were queued."), "Delete all queued images?"
    ),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
