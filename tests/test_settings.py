"""Configuration files in, settings or one clear line out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glimpse.errors import SettingsError
from glimpse.settings import Settings, load, url_without_password

GOOD = "[database]\nconnection = sqlite:////tmp/x\n"


def settings(folder: Path, text: str) -> Settings:
    path = folder / "glance-api.conf"
    path.write_text(text)
    return load(["--config-file", str(path)])


def test_defaults(tmp_path: Path) -> None:
    made = settings(tmp_path, GOOD)
    assert (made.bind_host, made.bind_port, made.flavor, made.multi_store) == ("127.0.0.1", 9292, "", False)
    assert (made.hashing_algorithm, made.image_size_cap, made.limit_param_default) == ("sha512", 2**40, 25)
    assert [store.id for store in made.stores] == ["file", "http"]


def test_with_a_flavor_the_network_is_served(tmp_path: Path) -> None:
    text = (
        GOOD
        + "[DEFAULT]\nimage_cache_dir = /var/lib/glance/image-cache/\n"
        + "[paste_deploy]\nflavor = keystone+cachemanagement\n"
    )
    assert settings(tmp_path, text).bind_host == "0.0.0.0"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("mysql://u:Password123$@h/glance", "mysql+pymysql://u:Password123$@h/glance"),
        ("mysql+pymysql://u:p@h/glance?charset=utf8", "mysql+pymysql://u:p@h/glance?charset=utf8"),
        ("postgresql://u:p@h/glance", "postgresql+psycopg://u:p@h/glance"),
        ("postgresql+psycopg2://u:p@h/glance", "postgresql+psycopg://u:p@h/glance"),
        ("sqlite:////a/b", "sqlite:////a/b"),
    ],
)
def test_database_urls(tmp_path: Path, given: str, used: str) -> None:
    assert settings(tmp_path, f"[database]\nconnection = {given}\n").database.url == used


def test_stores_of_both_kinds(tmp_path: Path) -> None:
    many = settings(
        tmp_path,
        "[DEFAULT]\nenabled_backends = a:file, b:http\n[glance_store]\ndefault_backend = a\n[a]\nweight = 7\n" + GOOD,
    )
    assert [(store.id, store.type, store.weight) for store in many.stores] == [("a", "file", 7), ("b", "http", 0)]
    assert (many.default_store, many.multi_store) == ("a", True)
    one = settings(tmp_path, "[glance_store]\nstores = filesystem,https\ndefault_store = filesystem\n" + GOOD)
    assert ([store.type for store in one.stores], one.default_store) == (["file", "http"], "file")


def test_old_and_unknown_options_do_no_harm(tmp_path: Path) -> None:
    old = "[DEFAULT]\nverbose = True\nnotification_driver = noop\nregistry_host = x\ntransport_url = rabbit://u:p@h\n"
    assert (
        settings(tmp_path, old + "[DEFAULT]\ndebug = false\n[oslo_limit]\nendpoint_id = 1\n" + GOOD).bind_port == 9292
    )


def test_options_from_a_directory_win(tmp_path: Path) -> None:
    (tmp_path / "main.conf").write_text(GOOD)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10-port.conf").write_text("[DEFAULT]\nbind_port = 1234\n")
    made = load(["--config-file", str(tmp_path / "main.conf"), "--config-dir", str(tmp_path / "conf.d")])
    assert made.bind_port == 1234


def test_the_directory_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "glance-api.conf").write_text(GOOD + "[DEFAULT]\nworkers = 3\n")
    monkeypatch.setenv("OS_GLANCE_CONFIG_DIR", str(tmp_path))
    assert load([]).workers == 3


@pytest.mark.parametrize(
    ("text", "section", "option", "allowed"),
    [
        ("[DEFAULT]\nworkers = many\n", "DEFAULT", "workers", "at least 0"),
        ("[DEFAULT]\nworkers = -1\n", "DEFAULT", "workers", "at least 0"),
        ("[DEFAULT]\nshow_image_direct_url = maybe\n", "DEFAULT", "show_image_direct_url", "true or false"),
        ("[DEFAULT]\nenabled_import_methods = web-download\n", "DEFAULT", "enabled_import_methods", "square brackets"),
        ("[DEFAULT]\nhashing_algorithm = sha9\n", "DEFAULT", "hashing_algorithm", "sha512"),
        ("[DEFAULT]\nbind_host = 0.0.0.0\n", "DEFAULT", "bind_host", "loopback"),
        ("[DEFAULT]\nenabled_backends = a:tape\n", "DEFAULT", "enabled_backends", "file, http"),
        ("[DEFAULT]\nenabled_backends = os_glance_x:file\n", "DEFAULT", "enabled_backends", "reserved"),
        ("[DEFAULT]\nenabled_backends = a:file\n", "glance_store", "default_backend", "allowed: a"),
        ("[glance_store]\nstores = tape\n", "glance_store", "stores", "file, http"),
        ("[glance_store]\ndefault_store = tape\n", "glance_store", "default_store", "file, http"),
        ("[DEFAULT]\nuser_storage_quota = 1.5GB\n", "DEFAULT", "user_storage_quota", "KB, MB, GB or TB"),
        ("[DEFAULT]\nuser_storage_quota = -1\n", "DEFAULT", "user_storage_quota", "a whole number"),
        ("[DEFAULT]\nmetadata_encryption_key = short\n", "DEFAULT", "metadata_encryption_key", "16, 24 or 32"),
        ("[paste_deploy]\nflavor = vanilla\n", "paste_deploy", "flavor", "keystone, http_basic"),
        ("[database]\nmax_pool_size = x\n", "database", "max_pool_size", "whole number"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(tmp_path: Path, text: str, section: str, option: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, text + GOOD.replace("[database]\n", "" if "[database]" in text else "[database]\n"))
    line = str(caught.value)
    assert str(tmp_path / "glance-api.conf") in line
    assert f"[{section}] {option}" in line
    assert allowed in line
    assert "\n" not in line


def test_the_key_of_locations_is_nowhere_repeated(tmp_path: Path) -> None:
    found = settings(tmp_path, GOOD + "[DEFAULT]\nmetadata_encryption_key = sixteen letters!\n").database
    assert found.location_key == "sixteen letters!"
    assert "letters" not in repr(found)
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, GOOD + "[DEFAULT]\nmetadata_encryption_key = secretive\n")
    assert "secretive" not in str(caught.value)


@pytest.mark.parametrize("url", ["oracle://u:secret@h/db", "secret"])
def test_a_wrong_database_url_is_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, f"[database]\nconnection = {url}\n")
    assert "[database] connection" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_database_url_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mysql\+pymysql://"):
        settings(tmp_path, "[DEFAULT]\n")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("7", 7), ("7B", 7), ("2KB", 2**11), ("1MB", 2**20), ("3GB", 3 * 2**30), ("1TB", 2**40)],
)
def test_a_storage_quota_is_bytes(tmp_path: Path, text: str, size: int) -> None:
    assert settings(tmp_path, f"[DEFAULT]\nuser_storage_quota = {text}\n" + GOOD).user_storage_quota == size


def test_every_line_of_the_sample_can_be_used(tmp_path: Path) -> None:
    sample = Path(__file__).parents[1] / "etc" / "glance-api.conf"
    made = settings(tmp_path, re.sub(r"^#(?=\[|[a-z_]+ = )", "", sample.read_text(), flags=re.MULTILINE))
    assert made.imports.staging_store == "files"
    assert made.database.location_key == "SIXTEEN_LETTERS_"


def test_urls_for_the_log() -> None:
    assert url_without_password("mysql+pymysql://u:p@h:1/d?ssl_key=x") == "mysql+pymysql://u:***@h:1/d"
    assert url_without_password("mysql://u:a/b@c@h/d") == "mysql://u:***@h/d"
    assert url_without_password("sqlite:////a/b") == "sqlite:////a/b"


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("", ""),
        ("[keystone_authtoken]\nauth_url = http://inside:5000\nwww_authenticate_uri = http://outside:5000\n", "inside"),
        ("[keystone_authtoken]\nwww_authenticate_uri = http://outside:5000\n", "outside"),
        ("[keystone_authtoken]\nauth_uri = http://outside:5000\n", "outside"),
        ("[keystone_authtoken]\nauth_section = other\n[other]\nauth_url = http://inside:5000\n", "inside"),
        ("[keystone_authtoken]\nauth_section = other\nauth_uri = http://outside:5000\n", "outside"),
    ],
)
def test_where_keystone_is(tmp_path: Path, section: str, url: str) -> None:
    assert settings(tmp_path, GOOD + section).keystone_url() == (url and f"http://{url}:5000")
