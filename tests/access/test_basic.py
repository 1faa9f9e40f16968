"""HTTP basic: who gets in, as whom, and what a wrong file says."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import bcrypt
import pytest

from glimpse.access.auth import BasicAuth, Call
from glimpse.access.policy import Policy
from glimpse.errors import SettingsError, Unauthorized
from glimpse.settings import load


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def auth(folder: Path, *lines: str) -> BasicAuth:
    users, conf = folder / "htpasswd", folder / "glance-api.conf"
    users.write_text("\n".join(lines) + "\n")
    conf.write_text(
        f"[DEFAULT]\nhttp_basic_auth_user_file = {users}\n[paste_deploy]\nflavor = http_basic\n"
        "[database]\nconnection = sqlite://\n"
    )
    settings = load(["--config-file", str(conf)])
    return BasicAuth(settings, Policy(settings.conf))


def call(user: str, password: str) -> Call:
    return Call({"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}, "GET", "/")


def test_users_have_projects_and_roles(tmp_path: Path) -> None:
    basic = auth(
        tmp_path, "# people", f"root:{hashed('a')}:ops:Admin,member", f"ann:{hashed('b')}:lab", f"bob:{hashed('c')}"
    )
    root, ann, bob = (basic.identify(call(*who)) for who in (("root", "a"), ("ann", "b"), ("bob", "c")))
    assert (root.project_id, root.is_admin, root.roles) == ("ops", True, {"admin", "member"})
    assert (ann.project_id, ann.is_admin, ann.roles) == ("lab", False, {"member", "reader"})
    assert (bob.user_id, bob.project_id) == ("bob", "bob")


def test_a_known_password_is_not_hashed_again(tmp_path: Path) -> None:
    basic = auth(tmp_path, f"ann:{hashed('b')}")
    assert basic.known(call("ann", "b")) is None
    assert basic.identify(call("ann", "b")) == basic.known(call("ann", "b"))


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"ann").decode(), "Basic /w=="]
)
def test_what_is_no_password(tmp_path: Path, header: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        auth(tmp_path, f"ann:{hashed('b')}").identify(Call({"Authorization": header}, "GET", "/"))
    assert caught.value.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("who", [("ann", "x"), ("nobody", "b"), ("", ""), ("ann", "b" * 200), ("ann", "b\0")])
def test_who_stays_out(tmp_path: Path, who: tuple[str, str]) -> None:
    with pytest.raises(Unauthorized):
        auth(tmp_path, f"ann:{hashed('b')}").identify(call(*who))


def test_a_changed_file_counts_at_once_for_new_passwords(tmp_path: Path) -> None:
    basic = auth(tmp_path, f"ann:{hashed('b')}")
    path = tmp_path / "htpasswd"
    path.write_text(f"eve:{hashed('e')}:lab:reader\n")
    os.utime(path, (1, 1))
    assert basic.identify(call("eve", "e")).roles == {"reader"}
    with pytest.raises(Unauthorized):
        basic.identify(call("ann", "b"))


def test_a_wrong_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="user 'ann'"):
        auth(tmp_path, "ann:plain-password")
