"""The whole ceremony as people type it, and OpenSSL opening what came back."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from keyark.files import make_private_folder
from tests.support.running.processes import KEYARK, init_home, keyark, up

MESSAGE = b"meet me at the archive\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "deployment"
    init_home(folder)
    return folder


def openssl(*arguments: object, data: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def enroll(
    home: Path, out: Path, *, name: str = "Alice Example", email: str = "alice@example.org", **key: str
) -> None:
    options = [part for option, value in key.items() for part in (f"--{option.replace('_', '-')}", value)]
    keyark("enroll", "--home", home, "--name", name, "--email", email, "--out", out, *options)


def certified(home: Path, owner: str) -> list[dict[str, str]]:
    """The owner's keys; the archive hears of certificates a moment after they were issued."""
    for _ in range(50):
        keys: list[dict[str, str]] = json.loads(
            keyark("keys", "list", "--home", home, "--owner", owner, "--json").stdout
        )
        if keys and all(key["state"] == "KEY_STATE_CERTIFIED" for key in keys):
            return keys
    raise AssertionError("the key was never certified")


def test_a_lost_key_comes_back_and_reads_the_mail_of_before(home: Path, tmp_path: Path) -> None:
    alice, p12, password = tmp_path / "alice", tmp_path / "alice.p12", tmp_path / "password"
    password.write_text("correct horse battery staple\n")
    password.chmod(0o600)
    with up(home):
        enroll(home, alice)
        certificate_file = alice / "encryption.pem"
        encrypted = openssl(
            "cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", certificate_file, data=MESSAGE
        )
        (alice / "encryption-key.pem").unlink()
        certified(home, "ALICE@example.org")
        request = keyark(
            "recover", "request", "--home", home, "--owner", "alice@example.org", "--reason", "disk broke"
        )
        assert "asked for   Alice Example <alice@example.org>, archived 20" in request.stderr
        asked = request.stdout.strip()
        for name in ("signing.pem", "chain.pem"):
            words = ("--home", home, "--cert", alice / name, "--reason", "disk broke")
            refused = keyark("recover", "request", *words, code=2).stderr
            assert f"{name} is not an encryption certificate" in refused
        assert re.fullmatch("[0-9a-f]{32}", asked)
        shown = keyark("recover", "show", asked, "--home", home, "--as", "agent/bob").stdout
        for expected in (
            "agent/alice",
            "disk broke",
            "Alice Example <alice@example.org>",
            "OPEN",
            "counted     0 of 2 approvals",
        ):
            assert expected in shown
        assert "collect" not in keyark("recover", "list", "--home", home, "--state", "OPEN").stdout
        early = keyark("recover", "collect", asked, "--home", home, "--out", p12, code=1)
        assert "CEREMONY_CLOSED" in early.stderr
        assert not p12.exists()
        own = keyark("recover", "approve", asked, "--home", home, "--yes", code=1)
        assert "OWN_REQUEST" in own.stderr
        keyark("recover", "approve", asked, "--home", home, "--as", "agent/bob", code=1)  # nobody said yes
        for agent in ("bob", "carol"):
            keyark("recover", "approve", asked, "--home", home, "--as", f"agent/{agent}", "--yes")
        facts = json.loads(keyark("recover", "show", asked, "--home", home, "--json").stdout)
        assert (facts["state"], len(facts["approved"])) == ("READY", 2)
        keyark("recover", "collect", asked, "--home", home, "--out", p12, "--password-file", password)
        again = keyark("recover", "collect", asked, "--home", home, "--out", tmp_path / "more.p12", code=1)
        assert "CEREMONY_CLOSED" in again.stderr or "RECIPIENT_KEY_MISSING" in again.stderr
    assert p12.stat().st_mode & 0o777 == 0o600
    key = openssl("pkcs12", "-in", p12, "-nodes", "-nocerts", "-passin", f"file:{password}")
    certificate = openssl("pkcs12", "-in", p12, "-clcerts", "-nokeys", "-passin", f"file:{password}")
    assert openssl("x509", "-noout", "-serial", data=certificate) == openssl(
        "x509", "-noout", "-serial", "-in", alice / "encryption.pem"
    )
    recovered = tmp_path / "recovered.pem"
    recovered.write_bytes(key)
    (tmp_path / "message.cms").write_bytes(encrypted)
    assert openssl(
        "cms", "-decrypt", "-binary", "-inform", "DER", "-in", tmp_path / "message.cms", "-inkey", recovered,
        "-recip", alice / "encryption.pem",
    ) == MESSAGE  # fmt: skip


def test_a_persons_whole_history_and_keys_that_pkcs12_does_not_hold(home: Path, tmp_path: Path) -> None:
    with up(home):
        enroll(home, tmp_path / "first", encryption_key="x25519")
        enroll(home, tmp_path / "second", encryption_key="rsa-2048")
        assert len(certified(home, "Alice Example")) == 2
        serial = openssl("x509", "-noout", "-serial", "-in", tmp_path / "second" / "encryption.pem").decode()
        by_serial = keyark(
            "keys", "list", "--home", home, "--serial", serial.strip().removeprefix("serial=")
        ).stdout
        by_file = keyark(
            "keys", "show", "--home", home, "--cert", tmp_path / "second" / "encryption.pem"
        ).stdout
        assert f"key         {by_serial.split()[0]}\n" in by_file
        options = ("--home", home, "--reason", "she left", "--json")
        asked = json.loads(
            keyark("recover", "request", "--owner", "alice@example.org", "--all", *options).stdout
        )
        assert len(asked["keys"]) == 2
        number = asked["ceremony_id"]
        for agent in ("bob", "carol"):
            keyark("recover", "approve", number, "--home", home, "--as", f"agent/{agent}", "--yes")
        out = tmp_path / "history"
        refused = keyark("recover", "collect", number, "--home", home, "--out", out, code=1)
        assert "--format pem" in refused.stderr
        command = ("recover", "collect", number, "--home", home, "--out", out, "--format", "pem")
        for unheard in ("2>&-", "2>/dev/null", "2>/dev/full"):
            shell = f"{shlex.join(map(str, (*KEYARK, *command)))} {unheard}"
            assert subprocess.run(shell, shell=True, check=False).returncode == 1
            assert not out.exists()
        done = keyark(*command)
        password = done.stderr.removeprefix("password: ").strip()
        files = sorted(out.iterdir())
        assert len(files) == 2
        for file in files:
            kinds = openssl("pkey", "-in", file, "-passin", f"pass:{password}", "-noout", "-text").decode()
            assert "X25519" in kinds or "2048 bit" in kinds


def test_an_agent_made_elsewhere_takes_over(home: Path, tmp_path: Path) -> None:
    dave = tmp_path / "dave"
    keyark("identities", "request", "agent/dave", "--home", home, "--out", dave)
    issue = ("identities", "issue", "agent/dave", dave / "identity.csr", "--home", home)
    keyark(*issue, "--out", tmp_path / "d.pem")
    keyark("identities", "install", tmp_path / "d.pem", "--in", dave)
    people = home / "identities" / "agent"
    with up(home):
        files = [
            people / "alice" / "share-key.json",
            people / "bob" / "share-key.json",
            dave / "share-key.json",
        ]
        named = [part for file in files for part in ("--agent", file)]
        opened = keyark("agents", "rotate", *named, "--quorum", "2", "--reason", "carol left", "--home", home)
        asked = opened.stdout.strip()
        for agent in ("bob", "carol"):
            words = ("recover", "approve", asked, "--home", home, "--as", f"agent/{agent}", "--yes")
            carried_out = keyark(*words).stderr
        alice = ("agents", "pins", "--home", home, "--as", "agent/alice")
        behind = keyark(*alice, "--offline")
        assert "newest change  none so far" in behind.stdout
        assert "may be out of date" in behind.stderr
        followed = keyark(*alice)
        newest = re.search("newest change  ([0-9a-f]{64})", followed.stdout)[1]
        assert newest in opened.stderr
        assert f"the newest change is {newest}" in carried_out
        assert followed.stderr == ""
        listed = keyark("agents", "list", "--home", home).stdout
        assert "agent/dave" in listed
        assert "agent/carol" not in listed
        assert "PIN epoch 2" in listed
        make_private_folder(people / "dave")
        for name in ("key.pem", "cert.pem", "share-key.pem"):
            (dave / name).rename(people / "dave" / name)
        told = keyark(*alice, "--json").stdout
        newest, (key_id,) = (json.loads(told)[name] for name in ("newest_change", "storage_keys"))
        known = ("--storage-key", f"{key_id}:2", "--newest-change", newest)
        options = ("--quorum", "2", *known, "--home", home, "--as", "agent/dave")
        pinned = keyark("agents", "pin", *named[:-1], dave / "share-key.json", *options).stdout
        assert keyark("agents", "pins", *options[-4:]).stdout == pinned
        assert "fingerprint" in pinned
        asked = keyark("storage-key", "rotate", "--reason", "carol left", "--home", home).stdout.strip()
        shown = keyark("recover", "show", asked, "--home", home).stdout
        assert re.search(
            r"makes +storage key 2  [0-9a-f]{64}\n +2 of 3: agent/alice, agent/bob, agent/dave", shown
        )
        for agent in ("bob", "dave"):
            keyark("recover", "approve", asked, "--home", home, "--as", f"agent/{agent}", "--yes")
        assert "storage key 2" in keyark("storage-key", "list", "--home", home).stdout
    stopped = keyark(*alice)
    assert "agent/dave" in stopped.stdout
    assert "could not check for newer changes" in stopped.stderr
