"""Property protections: which extra properties a caller may create, read, change and remove (option
property_protection_file; administration guide, Property protections).

Each section of the file is a regular expression that is searched in the property's name; the first section that matches
decides, also when it refuses (OSSN-0013), and a property that none matches is nobody's. Admins have no privilege here.
Marks of the service itself (`os_glance…`) are not subject to the file. Base attributes are not concerned.
"""

from __future__ import annotations

import configparser
import logging
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from glimpse.access.policy import Policy
from glimpse.domain.context import Context
from glimpse.domain.patch import LOCATIONS, WRITABLE, Change
from glimpse.domain.record import Image
from glimpse.domain.schema import RESERVED_PREFIX
from glimpse.errors import Forbidden, SettingsError
from glimpse.settings import Settings

LOG = logging.getLogger(__name__)

OPERATIONS = ("create", "read", "update", "delete")

Check = Callable[[Context], bool]


class Protection:
    """The file of one configuration. Without one, everybody may do everything."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        """Read the file. Raises `SettingsError` when it is missing, or says what cannot be meant."""
        self._sections: list[tuple[re.Pattern[str], dict[str, Check]]] = []
        self._policy = policy
        self._by_policy = settings.property_protection_rule_format == "policies"
        self.enabled = bool(settings.property_protection_file)
        if settings.property_protection_file:
            self._where = settings.property_protection_file
            self._read(settings.conf.find_file(self._where))
        self._deciding = lru_cache(maxsize=4096)(self._find)

    def _read(self, path: str | None) -> None:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            if path is None or not parser.read(path, encoding="utf-8"):
                raise self._wrong("the file cannot be found or read")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise self._wrong(" ".join(str(error).split())) from error
        for section in parser.sections():
            if section.startswith(RESERVED_PREFIX):
                continue  # ours, and open to everybody
            try:
                pattern = re.compile(section)
            except re.error as error:
                raise self._wrong(f"[{section}] is not a regular expression: {error}") from error
            missing = [name for name in OPERATIONS if name not in parser[section]]
            if missing:
                raise self._wrong(f"[{section}] does not say who may {missing[0]}; @ is everybody, ! is nobody")
            checks = {name: self._check(section, name, parser[section][name]) for name in OPERATIONS}
            self._sections.append((pattern, checks))

    def _check(self, section: str, operation: str, value: str) -> Check:
        names = {part.strip() for part in value.split(",") if part.strip()}
        if not names:
            LOG.warning("property protection [%s] %s is empty: nobody may", section, operation)
        if "@" in names and "!" in names:
            raise self._wrong(f"[{section}] {operation}: @ and ! exclude each other")
        if "@" in names:
            return lambda context: True
        if "!" in names or not names:
            return lambda context: False
        if not self._by_policy:
            roles = {name.lower() for name in names}
            return lambda context: not roles.isdisjoint(context.roles | context.service_roles)
        if "," in value:
            raise self._wrong(
                f"[{section}] {operation}: one policy rule is wanted; rules are combined in the policy file"
            )
        rule = value.strip()
        return lambda context: self._policy.knows(rule) and self._policy.allows(rule, context, {})

    def _wrong(self, why: str) -> SettingsError:
        return SettingsError(f"property_protection_file {self._where}: {why}")

    def _find(self, name: str) -> dict[str, Check] | None:
        return next((checks for pattern, checks in self._sections if pattern.search(name)), None)

    def allows(self, operation: str, name: str, context: Context) -> bool:
        """Whether the caller may do that (one of `OPERATIONS`) to the extra property of that name."""
        if not self.enabled or name.startswith(RESERVED_PREFIX):
            return True
        checks = self._deciding(name)
        return checks is not None and checks[operation](context)

    def require(self, operation: str, name: str, context: Context) -> None:
        """Raise `Forbidden` when the caller may not."""
        if not self.allows(operation, name, context):
            raise Forbidden(f"Property '{name[:255]}' is protected")

    def readable(self, image: Image, context: Context) -> Image:
        """The image with those properties that the caller may read."""
        if not self.enabled:
            return image
        kept = {name: value for name, value in image.properties.items() if self.allows("read", name, context)}
        return image.with_(properties=kept)

    def require_changes(self, changes: Iterable[Change], seen: Image, context: Context) -> None:
        """Raise `Forbidden` when one of the changes to what the caller sees is not for them."""
        there = set(seen.properties)
        for change in changes:
            if change.name in WRITABLE or change.name == LOCATIONS or not self.enabled:
                continue
            if change.operation == "remove":
                self.require("delete", change.name, context)
                there.discard(change.name)
            else:
                self.require("update" if change.name in there else "create", change.name, context)
                there.add(change.name)
