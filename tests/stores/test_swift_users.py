"""The service's own users in Swift, from the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from glimpse.errors import SettingsError
from glimpse.stores.swift_users import Reference, references

OPTIONS: dict[str, Any] = {
    "swift_store_config_file": None,
    "default_swift_reference": "ref1",
    "swift_store_auth_address": None,
    "swift_store_user": None,
    "swift_store_key": None,
    "swift_store_application_credential_id": None,
    "swift_store_application_credential_secret": None,
}


def test_references_of_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "glance-swift.conf"
    path.write_text(
        '[ref1]\nuser = service:glance\nkey = "it\'s 100%% secret"\nauth_address = http://127.0.0.1:5000/v3\n'
        "auth_version = 2\nuser_domain_name = Users\n"
        "[ref2]\napplication_credential_id = one\napplication_credential_secret = two\nauth_address = keystone\n"
        "[broken]\nuser = glance\nkey = broken-secret\nauth_address = keystone\n"
    )
    found = references({**OPTIONS, "swift_store_config_file": str(path)}, "[store]")
    assert found == {
        "ref1": Reference(
            "http://127.0.0.1:5000/v3", "service:glance", "it's 100% secret", user_domain_name="Users",
            project_domain_id="default",
        ),
        "ref2": Reference("keystone", application_credential_id="one", application_credential_secret="two"),
    }  # fmt: skip
    assert "[broken] is left out" in caplog.text
    assert "broken-secret" not in caplog.text


@pytest.mark.parametrize("text", [None, "key = a-secret\n", "[ref\nkey = a-secret"])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "glance-swift.conf"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=re.escape("[store] swift_store_config_file")) as failure:
        references({**OPTIONS, "swift_store_config_file": str(path)}, "[store]")
    assert "a-secret" not in str(failure.value)


def test_the_reference_of_the_options() -> None:
    user = {"swift_store_user": "service:glance", "swift_store_key": "key", "swift_store_auth_address": "keystone"}
    (found,) = references({**OPTIONS, **user}, "").values()
    assert found == Reference(
        "keystone", "service:glance", "key", user_domain_id="default", project_domain_id="default"
    )
    credential = {
        "swift_store_application_credential_id": "one",
        "swift_store_application_credential_secret": "two",
    }
    (found,) = references({**OPTIONS, **user, **credential}, "").values()
    assert found == Reference("keystone", application_credential_id="one", application_credential_secret="two")
    assert references({**OPTIONS, **user, "swift_store_key": None}, "") == {}
    assert references({**OPTIONS, **user, "default_swift_reference": "other"}, "").keys() == {"other"}
