"""Property protections: the file, and who may do what to a property."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from glimpse.access.policy import Policy
from glimpse.access.protection import Protection
from glimpse.domain.context import Context
from glimpse.domain.patch import Change
from glimpse.domain.record import Image
from glimpse.errors import Forbidden, SettingsError
from glimpse.settings import load

ADMIN = Context(roles=frozenset({"admin"}), is_admin=True)
MEMBER = Context(roles=frozenset({"member"}))
BILLING = Context(roles=frozenset({"member"}), service_roles=frozenset({"billing"}))
THEN = datetime(2026, 1, 1)
ALL = "create = {0}\nread = {0}\nupdate = {0}\ndelete = {0}\n"


def protection(folder: Path, text: str, form: str = "roles", policy: str = "") -> Protection:
    (folder / "protections.conf").write_text(text)
    (folder / "policy.yaml").write_text(policy)
    conf = folder / "glance-api.conf"
    conf.write_text(
        f"[DEFAULT]\nproperty_protection_file = {folder}/protections.conf\nproperty_protection_rule_format = {form}\n"
        f"[database]\nconnection = sqlite://\n[oslo_policy]\npolicy_file = {folder}/policy.yaml\n"
    )
    settings = load(["--config-file", str(conf)])
    return Protection(settings, Policy(settings.conf))


def test_the_first_section_that_matches_decides(tmp_path: Path) -> None:
    made = protection(
        tmp_path,
        "[^x_]\ncreate = Billing,admin\nread = @\nupdate = admin\ndelete = !\n[y$]\n" + ALL.format("member")
        + "[.*]\n" + ALL.format("@"),
    )  # fmt: skip
    assert made.allows("create", "x_y", BILLING)
    assert not made.allows("create", "x_y", MEMBER)
    assert made.allows("read", "x_y", MEMBER)
    assert not made.allows("delete", "x_y", ADMIN)
    assert made.allows("delete", "a_y", MEMBER)
    assert not made.allows("delete", "a_y", ADMIN)
    assert made.allows("delete", "other", ADMIN)


def test_what_no_section_matches_is_nobodys_but_marks_of_the_service_are_free(tmp_path: Path) -> None:
    made = protection(tmp_path, "[^x_]\n" + ALL.format("@") + "[os_glance_mine]\n" + ALL.format("!"))
    assert not made.allows("read", "other", ADMIN)
    assert made.allows("update", "os_glance_mine", MEMBER)


def test_rules_of_the_policy_file(tmp_path: Path) -> None:
    text = "[a]\n" + ALL.format("billers") + "[b]\n" + ALL.format("unheard_of") + "[c]\n" + ALL.format("@")
    made = protection(tmp_path, text, "policies", '"billers": "role:member"\n')
    assert made.allows("create", "a", MEMBER)
    assert not made.allows("create", "a", ADMIN)
    assert not made.allows("create", "b", ADMIN)
    assert made.allows("create", "c", MEMBER)


@pytest.mark.parametrize(
    ("text", "form", "word"),
    [
        ("[a]\ncreate = @\nread = @\nupdate = @\n", "roles", "delete"),
        ("[a]\n" + ALL.format("@,!"), "roles", "exclude"),
        ("[a]\n" + ALL.format("one,two"), "policies", "one policy rule"),
        ("[*a]\n" + ALL.format("@"), "roles", "regular expression"),
        ("no section", "roles", "section"),
    ],
)
def test_a_mistake_stops_the_start(tmp_path: Path, text: str, form: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        protection(tmp_path, text, form)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    conf = tmp_path / "glance-api.conf"
    conf.write_text("[DEFAULT]\nproperty_protection_file = nowhere.conf\n[database]\nconnection = sqlite://\n")
    settings = load(["--config-file", str(conf)])
    with pytest.raises(SettingsError, match=r"nowhere\.conf"):
        Protection(settings, Policy(settings.conf))


def test_changes_are_held_against_what_the_caller_sees(tmp_path: Path) -> None:
    made = protection(
        tmp_path,
        "[^open]\n" + ALL.format("@") + "[^fixed]\ncreate = @\nread = @\nupdate = admin\ndelete = admin\n"
        "[^hidden]\ncreate = admin\nread = admin\nupdate = admin\ndelete = admin\n",
    )
    image = Image("i", "queued", "shared", THEN, THEN, properties={"open": "1", "fixed": "2", "hidden": "3"})
    seen = made.readable(image, MEMBER)
    assert seen.properties == {"open": "1", "fixed": "2"}
    made.require_changes(
        [Change("add", "fixed_new", "1"), Change("remove", "open"), Change("replace", "name", "n")], seen, MEMBER
    )
    for change in (Change("replace", "fixed", "x"), Change("remove", "fixed"), Change("add", "hidden", "x"),
                   Change("add", "elsewhere", "x")):  # fmt: skip
        with pytest.raises(Forbidden):
            made.require_changes([change], seen, MEMBER)
