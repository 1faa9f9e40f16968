"""`glance-api`: serve the Image API."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from glimpse import server, settings
from glimpse.errors import SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve with the configuration that the command line names; exit code 1 with one line when it cannot."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return server.serve(lambda: settings.load(arguments, "glance-api"))
    except SettingsError as error:
        print(f"glance-api: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
