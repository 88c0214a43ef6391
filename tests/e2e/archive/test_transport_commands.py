"""`keyark transport-key` and `keyark-drm transport-key` against the running programs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from keyark.deployment.commands import ServiceCommandError, service_command
from keyark.x509.certificates import load_certificates
from tests.e2e.running.test_reload import children, enroll, service
from tests.support.running.processes import init_home, keyark, up


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A deployment that is not running yet."""
    folder = tmp_path / "deployment"
    init_home(folder, workers=2)
    return folder


def keys(home: Path) -> list[tuple[int, str]]:
    listed = json.loads(keyark("transport-key", "list", "--home", home, "--json").stdout)
    return [(key["generation"], key["state"]) for key in listed]


def verify_receipt(home: Path, name: str, transport: Path) -> None:
    keyark("audit", "verify-receipt", home / name / "receipt.tlog-proof", "--transport-cert", transport)


def test_rotate_and_retire_as_an_operator_does(home: Path) -> None:
    with up(home):
        enroll(home, "alice")
        keyark("transport-key", "rotate", "--home", home)
        enroll(home, "bob")
        assert (home / "transport.pem").read_text() in (home / "deployment.toml").read_text()
        assert keys(home) == [(2, "OFFERED"), (1, "TAKEN")]
        retired = keyark("transport-key", "retire", "1", "--home", home)
        assert "warning" in retired.stderr
        assert keys(home) == [(2, "OFFERED"), (1, "RETIRED")]
        keyark("transport-key", "rotate", "--home", home, "--key-type", "rsa-3072")
        enroll(home, "carol")
        keyark("audit", "verify", "--home", home)
        assert "that clients use" in keyark("transport-key", "retire", "3", "--home", home, code=1).stderr
    for name in ("alice", "bob", "carol"):
        verify_receipt(home, name, home / "transport.pem")
        verify_receipt(home, name, home / name / "transport.pem")
    keyark(
        "audit", "verify-receipt", home / "alice" / "receipt.tlog-proof",
        "--transport-cert", home / "carol" / "transport.pem", code=1,
    )  # fmt: skip
    with up(home):
        enroll(home, "dave")
        keyark("audit", "verify", "--home", home)
        assert keys(home) == [(3, "OFFERED"), (2, "TAKEN"), (1, "RETIRED")]


def at_once(drm: int, before: set[int]) -> bool:
    return True


def the_first_worker_takes_the_key(drm: int, before: set[int]) -> bool:
    return bool(set(children(drm)) - before)


def all_workers_have_the_key(drm: int, before: set[int]) -> bool:
    return not before & set(children(drm))


@pytest.mark.parametrize("is_time", [at_once, the_first_worker_takes_the_key, all_workers_have_the_key])
def test_a_drm_killed_while_it_rotates_starts_again_with_keys_and_log_that_agree(home: Path, is_time) -> None:
    """Wherever the kill lands: the key waits or is in force, and the same command goes on from there."""
    config = home / "drm" / "drm.toml"
    with up(home) as process:
        enroll(home, "alice")
        drm = service(process.pid, "drm")
        new = json.loads(service_command("drm", "transport-key", "new", str(config)))
        csr, certificate = new["request"], new["certificate"]
        keyark("identities", "issue", "drm/transport", csr, "--home", home, "--out", certificate)
        before = set(children(drm))
        os.kill(drm, signal.SIGHUP)
        for _ in range(1_000_000):
            if is_time(drm, before):
                break
        os.kill(drm, signal.SIGKILL)
        process.communicate(timeout=60)
    with up(home):
        keyark("transport-key", "rotate", "--home", home)
        assert keys(home) == [(2, "OFFERED"), (1, "TAKEN")]
        keyark("transport-key", "retire", "1", "--home", home)
        enroll(home, "bob")
        keyark("audit", "verify", "--home", home)
    assert "ready to run" in service_command("drm", "check", str(config))


def test_a_rotation_that_stopped_before_it_was_published_is_finished_and_not_repeated(home: Path) -> None:
    config = home / "drm" / "drm.toml"
    with up(home):
        new = json.loads(service_command("drm", "transport-key", "new", str(config)))
        csr, certificate = new["request"], new["certificate"]
        keyark("identities", "issue", "drm/transport", csr, "--home", home, "--out", certificate)
        service_command("drm", "reload", str(config))
        keyark("transport-key", "rotate", "--home", home)
        assert keys(home) == [(2, "OFFERED"), (1, "TAKEN")]
        assert len(load_certificates(home / "transport.pem")) == 2
        keyark("audit", "verify", "--home", home)
        keyark("transport-key", "rotate", "--home", home)
        assert keys(home) == [(3, "OFFERED"), (2, "TAKEN"), (1, "TAKEN")]


def test_nothing_is_made_where_the_drm_does_not_run(home: Path) -> None:
    before = sorted(home.rglob("*"))
    for command in (["rotate"], ["retire", "1"], ["list"]):
        assert "start it" in keyark("transport-key", *command, "--home", home, code=1).stderr
    assert sorted(home.rglob("*")) == before


def test_replace_lost_as_an_operator_does(home: Path) -> None:
    config = home / "drm" / "drm.toml"
    (home / "drm" / "transport-keys" / "1" / "key.pem").unlink()
    replace = ("transport-key", "replace-lost", str(config))
    new = json.loads(service_command("drm", *replace))
    csr, certificate = new["request"], new["certificate"]
    keyark("identities", "issue", "drm/transport", csr, "--home", home, "--out", certificate)
    assert json.loads(service_command("drm", *replace))["state"] == "OFFERED"
    assert "(retired)" in service_command("drm", "check", str(config))
    with pytest.raises(ServiceCommandError, match="TRANSPORT_KEY_STATE"):
        service_command("drm", *replace)
    with up(home):
        enroll(home, "alice")
        assert keys(home) == [(2, "OFFERED"), (1, "RETIRED")]


def test_a_key_type_that_transport_keys_do_not_have_is_refused(home: Path) -> None:
    keyark("transport-key", "rotate", "--home", home, "--key-type", "ed25519", code=2)
