"""Who may do what: the rules of `access.rules` on oslo.policy, with the operator's policy.yaml on top."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Hashable, Mapping
from typing import Any

from oslo_config import cfg
from oslo_policy import opts as policy_opts
from oslo_policy import policy as oslo_policy

from glimpse.access import rules
from glimpse.domain.context import Context
from glimpse.domain.metadef import NAMESPACE, Definition
from glimpse.domain.record import Image
from glimpse.errors import Forbidden, NotFound, SettingsError

LOG = logging.getLogger(__name__)

DECISIONS = 20_000  # kept per worker
RELOAD_CHECK = 1.0  # seconds between looks at the policy files; a changed file counts without a restart


class _Rules:
    """One reading of the policy files, with its decisions so far.

    A decision is a function of the rule, the caller, and those values of the target that some rule names; asking
    oslo.policy for it again takes as long as a query.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._enforcer = oslo_policy.Enforcer(conf)
        self._enforcer.suppress_deprecation_warnings = True
        self._enforcer.suppress_default_change_warnings = True
        self._enforcer.register_defaults(rules.defaults())
        self._texts: list[str] = []
        self.load()

    def load(self) -> bool:
        """Read files that changed, and tell whether any did. Between two calls the enforcer does not look."""
        self._enforcer.use_conf = True
        try:
            self._enforcer.load_rules()
        finally:
            self._enforcer.use_conf = False
        texts = sorted(f"{name}: {check}" for name, check in self._enforcer.rules.items())
        changed, self._texts = texts != self._texts, texts
        everything = " ".join(texts)
        self._named = sorted(set(re.findall(r"%\((\w+)\)s", everything)))
        self._lasting = not re.search(r"\bhttps?:", everything)  # those ask somebody else each time
        self._decisions: dict[Hashable, bool] = {}
        return changed

    def has(self, rule: str) -> bool:
        """Whether the rule is there, by default or in the operator's file."""
        return rule in self._enforcer.rules.keys()  # noqa: SIM118 - `in` alone asks for the default rule

    def allow(self, rule: str, context: Context, target: Mapping[str, Any]) -> bool:
        """What the rule says."""
        # Not with the token: it shall not lie in memory, and another one of the same caller changes nothing.
        key = (rule, context.without_token(), *(target.get(name) for name in self._named))
        known = self._decisions.get(key) if self._lasting else None
        if known is not None:
            return known
        decision = bool(self._enforcer.enforce(rule, target, context.credentials()))
        if len(self._decisions) >= DECISIONS:
            self._decisions.clear()
        self._decisions[key] = decision
        return decision


class Policy:
    """Answers for the whole process. Safe to use from any thread."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Read the policy files. Raises `SettingsError` when one cannot be understood."""
        policy_opts.set_defaults(conf, policy_file="policy.yaml")
        try:
            self._rules, self._standby = _Rules(conf), _Rules(conf)
        except Exception as error:  # yaml, json and oslo.policy each raise their own
            raise SettingsError(f"policy file: {' '.join(str(error).split())}") from error
        # With those an empty rule stands for everybody, so callers look at the owner themselves.
        self.old_defaults = not conf.oslo_policy.enforce_new_defaults
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def _reload(self) -> None:
        """Look for changed files, now and then. oslo.policy empties its rules while it reads them, and an empty rule
        lets everybody in: so it reads into an enforcer that nobody asks, and the two change places. The other one
        reads the change at the next look, when no call is left that began to ask it.
        """
        if time.monotonic() - self._looked < RELOAD_CHECK or not self._lock.acquire(blocking=False):
            return
        try:
            if self._standby.load():
                self._rules, self._standby = self._standby, self._rules
        except Exception:
            LOG.exception("the policy files cannot be read; the rules stay as they were")
        finally:
            self._looked = time.monotonic()
            self._lock.release()

    def allows(self, rule: str, context: Context, target: Mapping[str, Any]) -> bool:
        """Whether the rule lets the caller do this to the target."""
        self._reload()
        return self._rules.allow(rule, context, target)

    def knows(self, rule: str) -> bool:
        """Whether there is a rule of that name; oslo.policy takes `default`, which lets everybody in, for others."""
        self._reload()
        return self._rules.has(rule)

    def require(self, rule: str, context: Context, target: Mapping[str, Any]) -> None:
        """Raise `Forbidden` when the rule refuses."""
        if not self.allows(rule, context, target):
            raise Forbidden("The policy does not let you do this.")

    def require_for_image(self, rule: str, context: Context, image: Image) -> None:
        """Raise `Forbidden`, or `NotFound` for a caller who may not even know that the image exists."""
        target = image_target(image)
        if self.allows(rule, context, target):
            return
        if rule == "get_image" or not self.allows("get_image", context, target):
            raise NotFound(f"No image found with ID {image.id}")
        raise Forbidden("The policy does not let you do this.")

    def require_for_namespace(self, rule: str, context: Context, namespace: Definition | None) -> None:
        """The same for metadata definitions: what counts is who may see the namespace (spec 1.0.5).

        Without a namespace the rule is asked about the caller's own project.
        """
        target = namespace_target(context, namespace)
        if self.allows(rule, context, target):
            return
        shown = NAMESPACE.rules.show
        if rule == shown or not self.allows(shown, context, target):
            raise NotFound("The metadata definition namespace was not found.")
        raise Forbidden("The policy does not let you do this.")


def namespace_target(context: Context, namespace: Definition | None) -> dict[str, Any]:
    """A namespace of metadata definitions as rules see it."""
    if namespace is None:
        return {"project_id": context.project_id}
    return {"project_id": namespace.values["owner"], "visibility": namespace.values["visibility"]}


def image_target(image: Image) -> dict[str, Any]:
    """An image as rules see it: its attributes, its extra properties, and the names that older rules use."""
    return {
        **image.properties,
        "id": image.id,
        "image_id": image.id,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "owner": image.owner,
        "project_id": image.owner,
        "member": image.member,
        "member_id": image.member,
        "protected": image.protected,
        "os_hidden": image.os_hidden,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "size": image.size,
        "tags": image.tags,
    }


def refuse_anonymous(context: Context) -> None:
    """Raise `Forbidden` for a caller without an identity, who may only read, whatever the policy says."""
    if context.read_only:
        raise Forbidden("Anonymous callers may only read.")


def require_owner(context: Context, image: Image) -> None:
    """Only admins and the owner's project change an image, whatever the policy says. Raises `Forbidden`."""
    if not context.is_admin and (image.owner is None or image.owner != context.project_id):
        raise Forbidden("The policy does not let you do this.")
