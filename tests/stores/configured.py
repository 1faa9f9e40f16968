"""Settings with stores of any type, as an operator's file makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glimpse.settings import Settings, load


def settings_of(folder: Path, backends: Mapping[str, str], **sections: Mapping[str, object]) -> Settings:
    """The stores by id and type, the first of them the default; `sections` are those of the file.

    Without backends it is the older way, with one store of each type in `[glance_store]`.
    """
    everything: dict[str, Mapping[str, object]] = {"database": {"connection": f"sqlite:///{folder}/glance.sqlite"}}
    if backends:
        named = ",".join(f"{store_id}:{kind}" for store_id, kind in backends.items())
        everything["DEFAULT"] = {"enabled_backends": named}
        everything["glance_store"] = {"default_backend": next(iter(backends))}
    lines = []
    for name, options in {**everything, **sections}.items():
        lines += [f"[{name}]", *(f"{option} = {value}" for option, value in options.items())]
    path = folder / "glance-api.conf"
    path.write_text("\n".join(lines))
    return load(["--config-file", str(path)])
