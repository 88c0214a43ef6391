"""A deployment whose keys are all encrypted runs, rotates, renews and rolls over; whoever takes its disk has no key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyark.deployment.commands import ServiceCommandError, service_command
from keyark.keys.reencryption import unencrypted_keys
from tests.e2e.running.test_reload import enroll
from tests.support.running.processes import init_home, keyark, up

ROLES = ("rm", "cm", "drm", "authority")


def password_file(path: Path, password: bytes) -> str:
    path.write_bytes(password)
    path.chmod(0o600)
    return f"file:{path}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A deployment with encrypted keys, not running yet."""
    folder = tmp_path / "deployment"
    init_home(folder)
    source = password_file(tmp_path / "password", b"nothing on this disk")
    for role in ROLES:
        keyark("key-password", "set", folder / role, source)
    return folder


def bare(home: Path) -> list[Path]:
    return [file for role in ROLES for file in unencrypted_keys(home / role)]


def test_everything_that_makes_keys_makes_them_encrypted(home: Path, tmp_path: Path) -> None:
    assert bare(home) == []
    with up(home, "--http", "127.0.0.1:0"):  # OCSP responders have keys of their own
        enroll(home, "alice")
        keyark("transport-key", "rotate", "--home", home)
        enroll(home, "bob")
        keyark("identities", "renew", "--all", "--home", home)
        keyark("reload", "--home", home)
        enroll(home, "carol")
        assert bare(home) == []
    keyark("ca", "rollover", "--home", home, "--name", "Issuing CA 2")
    assert bare(home) == []
    source = password_file(tmp_path / "second", b"another place")
    for role in ROLES:
        keyark("key-password", "set", home / role, source)
    (tmp_path / "password").unlink()
    assert bare(home) == []
    with up(home):
        enroll(home, "dave")
        keyark("audit", "verify", "--home", home)
    shown = json.loads(keyark("key-password", "show", home / "drm", "--json").stdout)
    assert (shown["source"], shown["unencrypted"]) == (source, [])


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
def test_a_service_without_its_password_does_not_start_and_says_why(
    home: Path, tmp_path: Path, role: str
) -> None:
    (tmp_path / "password").write_bytes(b"a wrong one")
    with pytest.raises(ServiceCommandError, match=r"None of the passwords from .*key-password.toml opens"):
        service_command(role, "check", str(home / role / f"{role}.toml"))
    (tmp_path / "password").write_bytes(b"nothing on this disk")
    told = service_command(role, "check", str(home / role / f"{role}.toml"))
    assert "keys: all in the folder are encrypted" in told


def test_init_makes_encrypted_keys_where_it_is_told_to(tmp_path: Path) -> None:
    source = password_file(tmp_path / "password", b"in the safe")
    home = tmp_path / "deployment"
    keyark("init", home, "--authority-password", source, "--key-password", source)
    assert bare(home) == []


def test_an_authority_is_encrypted_unless_somebody_says_otherwise(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("KEYARK_AUTHORITY_PASSWORD")
    domain = ("--trust-domain", "example.org")
    told = keyark("authority", "init", tmp_path / "authority", *domain, code=2).stderr
    assert "no terminal" in told
    assert not (tmp_path / "authority").exists()
    source = password_file(tmp_path / "password", b"in the safe")
    keyark("authority", "init", tmp_path / "authority", *domain, "--authority-password", source)
    assert unencrypted_keys(tmp_path / "authority") == []
    keyark("authority", "renew", "--authority", tmp_path / "authority")
    assert unencrypted_keys(tmp_path / "authority") == []
    keyark("authority", "init", tmp_path / "bare", *domain, "--authority-password", "none")
    assert len(unencrypted_keys(tmp_path / "bare")) == 2
    told = keyark(
        "authority", "init", tmp_path / "other", *domain, "--authority-password", "secret", code=1
    ).stderr
    assert "must say where the password is" in told
    assert not (tmp_path / "other").exists()
