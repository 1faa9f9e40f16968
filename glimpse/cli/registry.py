"""`glance-registry`: stands in for a service that Glance gave up in Stein, as older guides and units start it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from glimpse import config_files
from glimpse.errors import SettingsError

PROG = "glance-registry"


def main(argv: Sequence[str] | None = None) -> int:
    """Read the configuration, say that nothing is to be done; returns the exit code: 0, or 1 for a wrong file."""
    try:
        config_files.parse(list(sys.argv[1:] if argv is None else argv), PROG)
    except SettingsError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"{PROG}: glance-api reads the database itself and needs no registry any more; done.", file=sys.stderr)
    return 0
