"""Policy: the defaults, the operator's file, and what a refusal looks like."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from glimpse.access import policy as policy_module
from glimpse.access.policy import Policy, require_owner
from glimpse.domain.context import Context
from glimpse.domain.record import Image
from glimpse.errors import Forbidden, NotFound, SettingsError
from glimpse.settings import load

THEN = datetime(2026, 1, 1)
ADMIN = Context(roles=frozenset({"admin"}), project_id="ops", is_admin=True)
MEMBER = Context(roles=frozenset({"member", "reader"}), project_id="p")
READER = Context(roles=frozenset({"reader"}), project_id="p")
STRANGER = Context(roles=frozenset({"member", "reader"}), project_id="other")
SYSTEM = Context(roles=frozenset({"admin", "member", "reader"}), system_scope="all", is_admin=True)
OWN = Image("id", "active", "private", THEN, THEN, owner="p")


def policy(folder: Path, rules: str = "", settings: str = "") -> Policy:
    conf = folder / "glance-api.conf"
    conf.write_text(
        f"[database]\nconnection = sqlite://\n[oslo_policy]\npolicy_file = {folder}/policy.yaml\n{settings}"
    )
    if rules:
        (folder / "policy.yaml").write_text(rules)
    return Policy(load(["--config-file", str(conf)]).conf)


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        ("get_image", [ADMIN, MEMBER, READER], [STRANGER, SYSTEM]),
        ("download_image", [ADMIN, MEMBER], [READER, STRANGER, SYSTEM]),
        ("modify_image", [ADMIN, MEMBER], [READER, STRANGER, SYSTEM]),
        ("delete_image", [ADMIN, MEMBER], [READER, STRANGER, SYSTEM]),
        ("publicize_image", [ADMIN], [MEMBER, READER, STRANGER, SYSTEM]),
    ],
)
def test_defaults_on_a_private_image(tmp_path: Path, rule: str, allowed: list[Context], refused: list[Context]) -> None:
    made = policy(tmp_path)
    for context in allowed:
        made.require_for_image(rule, context, OWN)
    for context in refused:
        with pytest.raises((Forbidden, NotFound)):
            made.require_for_image(rule, context, OWN)


def test_a_refusal_hides_what_may_not_be_seen(tmp_path: Path) -> None:
    made = policy(tmp_path)
    with pytest.raises(Forbidden):
        made.require_for_image("delete_image", READER, OWN)
    with pytest.raises(NotFound):
        made.require_for_image("delete_image", STRANGER, OWN)
    with pytest.raises(Forbidden):
        made.require_for_image("delete_image", STRANGER, OWN.with_(visibility="public"))


def test_the_operators_file_wins_and_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "RELOAD_CHECK", 0.0)
    made = policy(tmp_path, '"get_image": "role:auditor"\n')
    assert not made.allows("get_image", MEMBER, {"project_id": "p"})
    time.sleep(0.01)
    (tmp_path / "policy.yaml").write_text('"get_image": "role:member"\n')
    assert made.allows("get_image", MEMBER, {"project_id": "p"})


def test_a_call_that_began_before_a_change_is_answered_by_whole_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While oslo.policy reads a file, the rules that are not read yet let everybody in."""
    monkeypatch.setattr(policy_module, "RELOAD_CHECK", 0.0)
    made = policy(tmp_path, '"get_image": "role:auditor"\n')
    in_use = made._rules
    read: list[bool] = []
    monkeypatch.setattr(in_use, "load", lambda load=in_use.load: read.append(True) or load())
    time.sleep(0.01)
    (tmp_path / "policy.yaml").write_text('"get_image": "role:member"\n')
    assert made.allows("get_image", MEMBER, {"project_id": "p"})
    assert not read, "somebody may be asking them at this very moment"
    assert made.allows("get_image", MEMBER, {"project_id": "p"})
    assert read, "but they follow"
    assert made.allows("get_image", MEMBER, {"project_id": "p"})


def test_old_defaults_on_request(tmp_path: Path) -> None:
    made = policy(tmp_path, settings="enforce_new_defaults = false\n")
    assert made.allows("get_image", Context(project_id="x"), {"project_id": "p"})
    assert not made.allows("publicize_image", Context(project_id="x"), {"project_id": "p"})


def test_a_broken_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="policy"):
        policy(tmp_path, '"get_image": [unclosed')


def test_only_owners_and_admins_change_an_image() -> None:
    require_owner(ADMIN, OWN)
    require_owner(MEMBER, OWN)
    for context in (STRANGER, Context(read_only=True)):
        with pytest.raises(Forbidden):
            require_owner(context, OWN)
    with pytest.raises(Forbidden):
        require_owner(Context(), OWN.with_(owner=None))
