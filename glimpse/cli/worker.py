"""`glance-worker`: work on tasks without serving the API, on this node or on one of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from oslo_config import cfg

from glimpse import server, settings
from glimpse.errors import SettingsError
from glimpse.options import DEFAULT_OPTS

WORKERS: list[cfg.Opt] = [opt for opt in DEFAULT_OPTS if opt.name == "workers"]


def main(argv: Sequence[str] | None = None) -> int:
    """Work with the configuration of `glance-api`; `--workers` says with how many processes. Exit code 1 with one line
    when it cannot.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return server.do_tasks(lambda: settings.load(arguments, "glance-worker", WORKERS))
    except SettingsError as error:
        print(f"glance-worker: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
