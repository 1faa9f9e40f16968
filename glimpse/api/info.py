"""What clients can find out about this installation (API reference, Image Service Info)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glimpse.access.policy import Policy
from glimpse.access.quota import Quotas
from glimpse.api.wire import Reply, Request, json_reply
from glimpse.errors import NotFound
from glimpse.settings import Settings
from glimpse.stores.registry import ConfiguredStore, Stores


@dataclass(frozen=True)
class InfoCalls:
    """The handlers of /v2/info."""

    settings: Settings
    policy: Policy
    stores: Stores
    quotas: Quotas

    def import_methods(self, request: Request) -> Reply:
        """GET /v2/info/import"""
        methods = list(self.settings.enabled_import_methods)
        described = {"description": "Import methods available.", "type": "array", "value": methods}
        return json_reply({"import-methods": described})

    def list_stores(self, request: Request) -> Reply:
        """GET /v2/info/stores"""
        self._require_many()
        return json_reply({"stores": [self._store(each) for each in self.stores]})

    def list_stores_in_detail(self, request: Request) -> Reply:
        """GET /v2/info/stores/detail"""
        self.policy.require("stores_info_detail", request.context, {})
        self._require_many()
        more = [
            {"type": each.store.facts.type, "properties": dict(each.store.details), "weight": each.weight}
            for each in self.stores
        ]
        return json_reply(
            {"stores": [self._store(each) | extra for each, extra in zip(self.stores, more, strict=True)]}
        )

    def usage(self, request: Request) -> Reply:
        """GET /v2/info/usage: of the caller's project; sizes are in MiB."""
        return json_reply({"usage": self.quotas.usage(request.context.project_id)})

    def _require_many(self) -> None:
        if not self.stores.multi:
            raise NotFound("This service has a single store without a name.")

    def _store(self, configured: ConfiguredStore) -> dict[str, Any]:
        """Flags are the text "true" or absent: clients know them so."""
        store = {"id": configured.id}
        if configured.description:
            store["description"] = configured.description
        if configured is self.stores.default:
            store["default"] = "true"
        if not configured.store.facts.writable:
            store["read-only"] = "true"
        return store
