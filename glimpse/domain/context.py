"""Who is asking: the identity that every record call is made with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Context:
    """An authenticated caller, or nobody (anonymous, read-only).

    `roles` are lower-cased. `is_admin` is what the policy rule `context_is_admin` says. `token` never shows in a repr.
    """

    user_id: str | None = None
    project_id: str | None = None
    roles: frozenset[str] = frozenset()
    service_roles: frozenset[str] = frozenset()
    is_admin: bool = False
    read_only: bool = False
    user_domain_id: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    system_scope: str | None = None
    token: str | None = field(default=None, repr=False)

    def without_token(self) -> tuple[Any, ...]:
        """Who the caller is, to compare and to remember."""
        return (
            self.user_id, self.project_id, self.roles, self.service_roles, self.is_admin, self.user_domain_id,
            self.project_domain_id, self.domain_id, self.system_scope,
        )  # fmt: skip

    def credentials(self) -> dict[str, Any]:
        """The caller as policy rules know it (oslo.policy: `creds`)."""
        return {
            "user_id": self.user_id,
            "project_id": self.project_id,
            "roles": list(self.roles),
            "service_roles": list(self.service_roles),
            "is_admin": self.is_admin,
            "user_domain_id": self.user_domain_id,
            "project_domain_id": self.project_domain_id,
            "domain_id": self.domain_id,
            "system_scope": self.system_scope,
        }
