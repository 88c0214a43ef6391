"""`keyark renew`, and the key history that old mail needs, end to end."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from keyark.x509.certificates import load_certificates
from keyark.x509.serials import serial_text
from tests.support.running.processes import init_home, keyark, up

MAIL = "From Alice's first year.\n"


def enroll(home: Path, folder: Path, *more: object) -> None:
    keyark(
        "enroll", "--home", home, "--name", "Alice", "--email", "alice@example.org", "--out", folder, *more
    )


def serial(folder: Path, role: str = "signing") -> str:
    number = serial_text(load_certificates(folder / f"{role}.pem")[0].serial_number)
    return number if len(number) % 2 == 0 else f"0{number}"


def encrypt(folder: Path, target: Path) -> None:
    """Encrypt a mail to the certificate in a folder, as other people's software does."""
    message = target.with_suffix(".txt")
    message.write_text(MAIL)
    subprocess.run(
        ["openssl", "cms", "-encrypt", "-aes256", "-in", message, "-out", target, folder / "encryption.pem"],
        check=True,
        capture_output=True,
    )


def keys_in(bag: Path, password: str) -> list[Path]:
    """Unlock a PKCS#12 file; a PEM file for each key, in their order."""
    done = subprocess.run(
        ["openssl", "pkcs12", "-in", bag, "-nodes", "-nocerts", "-passin", f"pass:{password}"],
        check=True,
        capture_output=True,
        text=True,
    )
    keys = re.findall(r"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", done.stdout, re.DOTALL)
    paths = [bag.with_suffix(f".{number}.pem") for number in range(len(keys))]
    for path, key in zip(paths, keys, strict=True):
        path.write_text(key)
    return paths


def decrypt(mail: Path, key: Path) -> str:
    """Open a mail with a private key."""
    done = subprocess.run(
        ["openssl", "cms", "-decrypt", "-in", mail, "-inkey", key],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.replace("\r", "")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "deployment"
    init_home(folder)
    return folder


def test_a_person_renews_and_every_key_of_theirs_opens_its_mail(home: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("2026", "2028", "2030"))
    new_key = tmp_path / "password"
    new_key.write_text("correct horse battery staple\n")
    new_key.chmod(0o600)
    with up(home):
        enroll(home, first)
        for _ in range(2):
            keyark(
                "renew",
                "--in",
                first,
                "--out",
                second,
                "--home",
                home,
                "--format",
                "p12",
                "--password-file",
                new_key,
            )
        keyark("renew", "--in", second, "--in-password-file", new_key, "--out", third, "--home", home)
        assert (
            "ALREADY_RENEWED"
            in keyark("renew", "--in", first, "--out", tmp_path / "again", "--home", home, code=1).stderr
        )
        for folder in (first, second, third):
            encrypt(folder, folder / "mail.cms")
        shown = keyark("certificates", "show", serial(second), "--home", home, "--json").stdout
        assert '"renews"' in shown
        assert '"renewed_by"' in shown
        ceremony = keyark(
            "recover",
            "request",
            "--owner",
            "alice@example.org",
            "--all",
            "--reason",
            "a lost laptop",
            "--home",
            home,
        ).stdout.strip()
        for agent in ("bob", "carol"):
            keyark("recover", "approve", ceremony, "--home", home, "--as", f"agent/{agent}", "--yes")
        out = tmp_path / "recovered.p12"
        keyark("recover", "collect", ceremony, "--out", out, "--home", home, "--password-file", new_key)
    keys = keys_in(out, "correct horse battery staple")
    assert len(keys) == 3
    for folder, key in zip((third, second, first), keys, strict=True):  # the current key first
        assert decrypt(folder / "mail.cms", key) == MAIL


def test_what_does_not_fit_together_is_refused_before_anything_is_sent(home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    told = keyark("renew", "--in", empty, "--out", tmp_path / "new", "--home", home, code=1).stderr
    assert "has no enrollment" in told
    with up(home):
        enroll(home, tmp_path / "a")
        enroll(home, tmp_path / "b")
        keyark("renew", "--in", tmp_path / "a", "--out", tmp_path / "b", "--home", home, code=1)
        (tmp_path / "a" / "chain.pem").unlink()
        told = keyark("renew", "--in", tmp_path / "a", "--out", tmp_path / "c", "--home", home, code=1).stderr
    assert "complete that enrollment first" in told
