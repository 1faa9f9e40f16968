"""The configuration files: which ones are read, their values, and what is said of a value that cannot be used.

oslo.config reads them; here its errors become one line each: file, section, option, what is allowed.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from oslo_config import cfg, types
from oslo_log import log as oslo_log

from glimpse.errors import SettingsError


def parse(argv: Sequence[str], prog: str, extra_cli: Sequence[cfg.Opt] = ()) -> cfg.ConfigOpts:
    """The files and the command line as oslo.config has them: nothing of it is checked yet. Raises `SettingsError`."""
    conf = cfg.ConfigOpts()
    oslo_log.register_options(conf)
    conf.register_cli_opts(list(extra_cli))
    names = ["glance-image-import", "glance-api"] + ([prog] if prog != "glance-api" else [])
    files, folders = _default_files(names)
    try:
        conf(
            list(argv), project="glance", prog=prog, version=_version(), default_config_files=files,
            default_config_dirs=folders,
        )  # fmt: skip
    except (cfg.Error, UnicodeDecodeError, OSError) as error:
        # oslo.config does not say where a value of its own command line options came from.
        named = [after for before, after in itertools.pairwise(argv) if before.startswith("--config-")]
        raise SettingsError(f"{', '.join(named or files) or 'command line'}: {one_line(str(error))}") from error
    return conf


def _default_files(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files and the .conf.d directories that are read when the command line names none; later ones win."""
    folder = os.environ.get("OS_GLANCE_CONFIG_DIR")
    if folder is not None:
        paths = [os.path.join(folder, f"{name}.conf") for name in names]
        return [path for path in paths if os.path.exists(path)], [d for p in paths if os.path.isdir(d := f"{p}.d")]
    files = [path for name in names for path in cfg.find_config_files("glance", name)]
    return files, [path for name in names for path in cfg.find_config_dirs("glance", name)]


def read(conf: cfg.ConfigOpts, group: str, opts: Sequence[cfg.Opt]) -> dict[str, Any]:
    """The values of a section, by the names of their options. Raises `SettingsError`."""
    section = None if group == "DEFAULT" else group
    conf.register_opts(list(opts), group=section)
    values: dict[str, Any] = {}
    for opt in opts:
        try:
            values[opt.dest] = conf[opt.dest] if section is None else conf[section][opt.dest]
        except (cfg.Error, ValueError) as error:
            raise _translate(group, opt, error) from error
    return values


def is_default(conf: cfg.ConfigOpts, group: str, name: str) -> bool:
    """Whether nobody has set the option."""
    location = conf.get_location(name, group)
    return location is None or location.location in (cfg.Locations.opt_default, cfg.Locations.set_default)


_SOURCE = re.compile(r"detail='(?P<file>[^']*)'\) is not valid: (?P<why>.*)", re.DOTALL)


def _translate(group: str, opt: cfg.Opt, error: Exception) -> SettingsError:
    found = _SOURCE.search(str(error))
    where, why = (found["file"], found["why"]) if found else ("configuration", str(error))
    if opt.secret:
        why = "the value cannot be used"
    return SettingsError(f"{where}: [{group}] {opt.name}: {one_line(why)}; allowed: {_allowed(opt)}")


def _allowed(opt: cfg.Opt) -> str:
    kind = opt.type
    if isinstance(kind, types.Integer):
        bounds = [
            f"at least {kind.min}" if kind.min is not None else "",
            f"at most {kind.max}" if kind.max is not None else "",
        ]
        return " ".join(["a whole number", *filter(None, bounds)])
    if isinstance(kind, types.Boolean):
        return "true or false"
    if isinstance(kind, types.Dict):
        return "key:value pairs with commas between"
    if isinstance(kind, types.List):
        return "[a,b] in square brackets" if kind.bounds else "values with commas between"
    if choices := getattr(kind, "choices", None):
        return ", ".join(str(choice) for choice in choices)
    return str(kind)


def refuse(conf: cfg.ConfigOpts, group: str, name: str, why: str) -> SettingsError:
    """The refusal of a value, with the file that it came from."""
    location = conf.get_location(name, None if group == "DEFAULT" else group)
    where = location.detail if location is not None and location.location == cfg.Locations.user else files_of(conf)
    return SettingsError(f"{where}: [{group}] {name}: {why}")


def files_of(conf: cfg.ConfigOpts) -> str:
    """The files that were read, for a message."""
    return ", ".join(conf.config_file or []) or "configuration"


def one_line(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def _version() -> str:
    try:
        return metadata.version("glimpse")
    except metadata.PackageNotFoundError:
        return "unknown"
