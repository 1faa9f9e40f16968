"""The policy rules that operators know from Glance: names and defaults, as data (spec, Appendix B).

Every rule wants a project-scoped token: one for a domain or the whole system is refused (oslo.policy, scope types).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oslo_policy import policy as oslo_policy

_ADMIN = "rule:context_is_admin"
_SERVICE = "rule:service_api"
_MEMBER = f"{_ADMIN} or (role:member and project_id:%(project_id)s)"
_READER = f"{_ADMIN} or (role:reader and project_id:%(project_id)s)"
_OF_OWNER = "(role:member and project_id:%(project_id)s and project_id:%(owner)s)"
_SEEN = (
    "(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s"
    " or 'public':%(visibility)s or 'shared':%(visibility)s)"
)
_OWNER_OR_MEMBER = f"{_ADMIN} or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"
_METADEF_ADMIN = "rule:metadef_admin"
_METADEF_SEEN = f"{_ADMIN} or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"


@dataclass(frozen=True, slots=True)
class Rule:
    """A default; `before` is the older and wider check that `enforce_new_defaults = false` brings back beside it."""

    check: str
    before: str | None = None


PLAIN: Mapping[str, str] = {
    "default": "",
    "context_is_admin": "role:admin",
    "service_api": "role:service or role:admin",
    "metadef_default": "",
    "metadef_admin": _ADMIN,
}

_ANYBODY = "rule:default"
_ANYBODY_METADEF = "rule:metadef_default"

RULES: Mapping[str, Rule] = {
    "add_image": Rule(f"{_ADMIN} or {_OF_OWNER}", _ANYBODY),
    "delete_image": Rule(_MEMBER, _ANYBODY),
    "get_image": Rule(f"{_ADMIN} or (role:reader and {_SEEN})", _ANYBODY),
    "get_images": Rule(_READER, _ANYBODY),
    "modify_image": Rule(_MEMBER, _ANYBODY),
    "publicize_image": Rule(_ADMIN),
    "communitize_image": Rule(_MEMBER, _ANYBODY),
    "download_image": Rule(f"{_ADMIN} or (role:member and {_SEEN})", _ANYBODY),
    "download_from_store": Rule(f"{_ADMIN} or (role:member and {_SEEN})"),
    "upload_image": Rule(_MEMBER, _ANYBODY),
    "delete_image_location": Rule(_ADMIN, _ANYBODY),
    "get_image_location": Rule(_READER, _ANYBODY),
    "set_image_location": Rule(_MEMBER, _ANYBODY),
    "add_image_location": Rule(f"{_SERVICE} or {_OF_OWNER}"),
    "fetch_image_location": Rule(_SERVICE),
    "add_member": Rule(_MEMBER, _ANYBODY),
    "delete_member": Rule(_MEMBER, _ANYBODY),
    "get_member": Rule(_OWNER_OR_MEMBER, _ANYBODY),
    "get_members": Rule(_OWNER_OR_MEMBER, _ANYBODY),
    "modify_member": Rule(f"{_ADMIN} or (role:member and project_id:%(member_id)s)", _ANYBODY),
    "deactivate": Rule(_MEMBER, _ANYBODY),
    "reactivate": Rule(_MEMBER, _ANYBODY),
    "copy_image": Rule(_ADMIN),
    "get_task": Rule(_ANYBODY, _ANYBODY),
    "get_tasks": Rule(_ANYBODY, _ANYBODY),
    "add_task": Rule(_ANYBODY, _ANYBODY),
    "modify_task": Rule(_ANYBODY),
    "tasks_api_access": Rule(_ADMIN),
    "get_metadef_namespace": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "get_metadef_namespaces": Rule(_READER, _ANYBODY_METADEF),
    "modify_metadef_namespace": Rule(_METADEF_ADMIN),
    "add_metadef_namespace": Rule(_METADEF_ADMIN),
    "delete_metadef_namespace": Rule(_METADEF_ADMIN),
    "get_metadef_object": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "get_metadef_objects": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "modify_metadef_object": Rule(_METADEF_ADMIN),
    "add_metadef_object": Rule(_METADEF_ADMIN),
    "delete_metadef_object": Rule(_METADEF_ADMIN),
    "list_metadef_resource_types": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "get_metadef_resource_type": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "add_metadef_resource_type_association": Rule(_METADEF_ADMIN),
    "remove_metadef_resource_type_association": Rule(_METADEF_ADMIN),
    "get_metadef_property": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "get_metadef_properties": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "modify_metadef_property": Rule(_METADEF_ADMIN),
    "add_metadef_property": Rule(_METADEF_ADMIN),
    "remove_metadef_property": Rule(_METADEF_ADMIN),
    "get_metadef_tag": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "get_metadef_tags": Rule(_METADEF_SEEN, _ANYBODY_METADEF),
    "modify_metadef_tag": Rule(_METADEF_ADMIN),
    "add_metadef_tag": Rule(_METADEF_ADMIN),
    "add_metadef_tags": Rule(_METADEF_ADMIN),
    "delete_metadef_tag": Rule(_METADEF_ADMIN),
    "delete_metadef_tags": Rule(_METADEF_ADMIN),
    "manage_image_cache": Rule(_ADMIN),
    "list_cached_nodes": Rule(_ADMIN),
    "cache_image": Rule(_ADMIN, "rule:manage_image_cache"),
    "cache_list": Rule(_ADMIN, "rule:manage_image_cache"),
    "cache_delete": Rule(_ADMIN, "rule:manage_image_cache"),
    "cache_clean": Rule(_ADMIN),
    "cache_prune": Rule(_ADMIN),
    "stores_info_detail": Rule(f"{_ADMIN} or {_SERVICE}", _ADMIN),
}


def defaults() -> list[oslo_policy.RuleDefault]:
    """Every rule, for the enforcer and for oslo.policy's own tools."""
    plain = [oslo_policy.RuleDefault(name, check) for name, check in PLAIN.items()]
    return plain + [_default(name, rule) for name, rule in RULES.items()]


def _default(name: str, rule: Rule) -> oslo_policy.RuleDefault:
    before = None
    if rule.before is not None:
        before = oslo_policy.DeprecatedRule(
            name, rule.before, deprecated_reason="Defaults follow roles and projects.", deprecated_since="Yoga"
        )
    return oslo_policy.RuleDefault(name, rule.check, scope_types=["project"], deprecated_rule=before)
