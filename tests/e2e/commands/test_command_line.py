"""The commands that other people's scripts rely on: files, exit codes, JSON, going on after an interruption."""

from __future__ import annotations

import base64
import itertools
import json
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from keyark.statements.enrollment import new_request_id
from tests.support.running.processes import init_home, keyark, up


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A deployment that runs while this module's tests do."""
    folder = tmp_path_factory.mktemp("cli") / "deployment"
    init_home(folder)
    with up(folder):
        yield folder


def enroll(home: Path, out: Path, email: str = "alice@example.org", *more: object, code: int = 0):
    return keyark(
        "enroll", "--home", home, "--name", "Alice Example", "--email", email, "--out", out, *more, code=code
    )


def password_file(folder: Path, password: str = "correct horse battery staple") -> Path:
    path = folder / "password"
    path.write_text(password + "\n")
    path.chmod(0o600)
    folder.chmod(0o700)
    return path


def test_enroll_writes_keys_certificates_chain_and_receipt(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    enroll(home, out)
    assert {p.name for p in out.iterdir()} == {
        "signing-key.pem", "encryption-key.pem", "signing.pem", "encryption.pem", "chain.pem",
        "receipt.tlog-proof", "statement.bin", "transport.pem",
    }  # fmt: skip
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    for role in ("signing", "encryption"):
        key_file = out / f"{role}-key.pem"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        certificate = x509.load_pem_x509_certificate((out / f"{role}.pem").read_bytes())
        assert load_pem_private_key(key_file.read_bytes(), None).public_key() == certificate.public_key()
    done = keyark(
        "audit", "verify-receipt", out / "receipt.tlog-proof", "--transport-cert", home / "transport.pem"
    )
    assert "genuine" in done.stdout


def test_the_same_command_again_goes_on_and_issues_nothing_twice(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = enroll(home, out, "again@example.org", "--json")
    (out / "chain.pem").unlink()  # as if the answer had been lost
    (out / "signing.pem").unlink()
    second = enroll(home, out, "again@example.org", "--json")
    third = enroll(home, out, "again@example.org", "--json")
    assert json.loads(first.stdout) == json.loads(second.stdout) == json.loads(third.stdout)
    listed = json.loads(keyark("certificates", "list", "--home", home, "--json").stdout)
    assert len([c for c in listed if c["email"] == "again@example.org"]) == 2


def test_a_request_id_of_ones_own_is_taken_if_it_is_a_uuidv7(home: Path, tmp_path: Path) -> None:
    request_id = uuid.UUID(bytes=new_request_id())
    done = enroll(home, tmp_path / "out", "id@example.org", "--request-id", request_id, "--json")
    assert json.loads(done.stdout)["request_id"] == request_id.hex
    assert (
        "UUIDv7"
        in enroll(home, tmp_path / "v4", "id@example.org", "--request-id", uuid.uuid4(), code=1).stderr
    )
    assert not (tmp_path / "v4").exists()


def test_a_folder_of_another_enrollment_is_refused(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    enroll(home, out, "first@example.org")
    done = enroll(home, out, "second@example.org", code=1)
    assert "OTHER_REQUEST" in done.stderr


def test_pkcs12_files_open_with_the_password(home: Path, tmp_path: Path) -> None:
    out, password = tmp_path / "out", password_file(tmp_path)
    enroll(home, out, "p12@example.org", "--format", "p12", "--password-file", password)
    assert not (out / "encryption-key.pem").exists()
    for role in ("signing", "encryption"):
        data = (out / f"{role}.p12").read_bytes()
        key, certificate, chain = pkcs12.load_key_and_certificates(data, b"correct horse battery staple")
        assert key.public_key() == certificate.public_key()
        assert len(chain) >= 1
        openssl = [
            "openssl",
            "pkcs12",
            "-in",
            str(out / f"{role}.p12"),
            "-passin",
            "pass:correct horse battery staple",
            "-noout",
        ]
        subprocess.run(openssl, check=True, capture_output=True)


@pytest.mark.parametrize("option", [("--signing-key", "ml-dsa-65"), ("--encryption-key", "x25519")])
def test_pkcs12_is_refused_for_keys_that_it_does_not_hold(
    home: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    password = password_file(tmp_path)
    more = ("--format", "p12", "--password-file", password, *option)
    done = enroll(home, tmp_path / "out", "alice@example.org", *more, code=1)
    assert "--format pem" in done.stderr
    assert not (tmp_path / "out").exists()


def test_keys_are_encrypted_when_a_password_is_given(home: Path, tmp_path: Path) -> None:
    out, password = tmp_path / "out", password_file(tmp_path)
    enroll(home, out, "secret@example.org", "--encryption-key", "ml-kem-768", "--password-file", password)
    text = (out / "encryption-key.pem").read_bytes()
    assert b"ENCRYPTED PRIVATE KEY" in text
    load_pem_private_key(text, b"correct horse battery staple")


def test_a_key_type_that_does_not_fit_is_refused_with_those_that_do(home: Path, tmp_path: Path) -> None:
    done = enroll(home, tmp_path / "out", "alice@example.org", "--encryption-key", "ed25519", code=2)
    assert "x25519" in done.stderr
    assert not (tmp_path / "out").exists()


def test_policy_rejects_with_exit_code_3_and_names_the_rule(home: Path, tmp_path: Path) -> None:
    done = enroll(home, tmp_path / "out", "mallory@example.com", code=3)
    assert "who-enrolls-whom" in done.stderr


def test_many_are_enrolled_from_csv_and_failures_are_named(home: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text(
        "name,email,encryption_key\n"
        "Bob Example,bob@example.org,\n"
        "Eve Example,eve@example.com,\n"
        "Carol Example,carol@example.org,x25519\n"
    )
    out = tmp_path / "out"
    first = keyark("enroll", "--home", home, "--csv", users, "--out", out, "--json", code=3)
    assert "1 of 3 failed: eve@example.com" in first.stderr
    users.write_text(users.read_text().replace("Eve Example,eve@example.com,\n", ""))
    second = keyark("enroll", "--home", home, "--csv", users, "--out", out, "--json")
    issued = {r["email"]: r for r in json.loads(first.stdout) if r["state"] == "ISSUED"}
    assert {r["email"]: r for r in json.loads(second.stdout)} == issued
    assert (out / "carol@example.org" / "encryption.pem").exists()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name,mail\n", ":1:"),
        ("name,email\nBob,bob@example.org,extra\n", ":2:"),
        ("name,email\nBob,bob\n", ":2:"),
        ("name,email\nBob,b@example.org\nBen,b@example.org\n", ":3:"),
        ("name,email,signing_key\nBob,b@example.org,x25519\n", ":2:"),
    ],
)
def test_a_bad_csv_file_is_refused_before_anything_is_sent(
    home: Path, tmp_path: Path, text: str, place: str
) -> None:
    users = tmp_path / "users.csv"
    users.write_text(text)
    done = keyark("enroll", "--home", home, "--csv", users, "--out", tmp_path / "out", code=1)
    assert place in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_was_issued_and_archived_is_listed_and_shown(home: Path, tmp_path: Path) -> None:
    result = json.loads(enroll(home, tmp_path / "out", "listed@example.org", "--json").stdout)
    certificates = json.loads(keyark("certificates", "list", "--home", home, "--json").stdout)
    assert {c["role"] for c in certificates if c["email"] == "listed@example.org"} == {
        "KEY_ROLE_SIGNING", "KEY_ROLE_ENCRYPTION"
    }  # fmt: skip
    shown = json.loads(
        keyark("certificates", "show", result["signing_serial"], "--home", home, "--json").stdout
    )
    assert shown["common_name"] == "Alice Example"
    keys = json.loads(keyark("keys", "list", "--home", home, "--as", "agent/bob", "--json").stdout)
    assert "listed@example.org" in [k["email"] for k in keys]
    enrollments = json.loads(keyark("enrollments", "list", "--home", home, "--json").stdout)
    assert result["request_id"] in [e["enrollment_id"][:32] for e in enrollments]
    environment = {**os.environ, "KEYARK_HOME": str(home)}
    assert "listed@example.org" in keyark("keys", "list", env=environment).stdout


def _hex(base64_text: str) -> str:
    return base64.b64decode(base64_text).hex()


def test_an_unknown_serial_is_not_found(home: Path) -> None:
    assert "NOT_FOUND" in keyark("certificates", "show", "abcd", "--home", home, code=1).stderr


def test_whole_logs_verify_against_their_checkpoints(home: Path) -> None:
    audited = json.loads(keyark("audit", "verify", "--home", home, "--json").stdout)
    assert [log["origin"] for log in audited] == ["example.org/rm", "example.org/cm", "example.org/drm"]


def test_certificates_are_found_and_exported_by_what_is_known_of_them(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    enroll(home, out, "Finder@example.org")
    listed = ("certificates", "list", "--home", home, "--json")
    found = json.loads(keyark(*listed, "--email", "finder@EXAMPLE.org").stdout)
    assert [c["role"] for c in found] == ["KEY_ROLE_SIGNING", "KEY_ROLE_ENCRYPTION"]
    serial, key = (found[1][name] for name in ("serial", "spki_sha256"))
    for words in (("--serial", serial), ("--key", key), ("--key", key, "--state", "valid")):
        assert json.loads(keyark(*listed, *words).stdout) == found[1:]
    assert found[0] in json.loads(keyark(*listed, "--expires-within", 3650).stdout)
    assert json.loads(keyark(*listed, "--email", "finder@example.org", "--expires-within", 1).stdout) == []
    assert json.loads(keyark(*listed, "--profile", "user", "--expires-until", "2001-01-01").stdout) == []
    exported = tmp_path / "found.pem"
    keyark("certificates", "export", "--home", home, "--serial", serial, "--out", exported)
    assert exported.read_bytes() == (out / "encryption.pem").read_bytes()
    keyark("certificates", "export", "--home", home, "--serial", serial, "--out", exported, "--der")
    assert exported.read_bytes() == base64.b64decode(found[1]["certificate"])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("list", "--serial", "xyz"), 2, "hexadecimal"),
        (("list", "--key", "abcd"), 1, "INVALID_INPUT"),
        (("list", "--state", "lost"), 2, "lost"),
        (("list", "--expires-within", "3", "--state", "expired"), 2, "USAGE"),
        (("export", "--email", "nobody@example.org", "--out", "never.pem"), 1, "NOT_FOUND"),
    ],
)
def test_a_wrong_search_is_refused_with_its_reason(
    home: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    assert told in keyark("certificates", words[0], "--home", home, *words[1:], code=code).stderr
    assert not Path("never.pem").exists()


def serials(home: Path, email: str) -> list[str]:
    found = json.loads(keyark("certificates", "list", "--home", home, "--email", email, "--json").stdout)
    return [c["serial"] for c in found]


def test_an_officer_revokes_holds_and_releases(home: Path, tmp_path: Path) -> None:
    enroll(home, tmp_path / "out", "revoked@example.org")
    signing, encryption = serials(home, "revoked@example.org")
    at_home = ("--home", home)
    assert keyark("certificates", "hold", signing, "--pair", *at_home).stdout.count("ON_HOLD") == 2
    assert "VALID" in keyark("certificates", "release", encryption, *at_home).stdout
    assert "NOT_ON_HOLD" in keyark("certificates", "release", encryption, *at_home, code=1).stderr
    words = ("revoke", signing, "--reason", "superseded", "--invalid-since", "2026-01-01", "--json")
    (told,) = json.loads(keyark("certificates", *words, *at_home).stdout)
    assert told["state"] == "CERTIFICATE_STATE_REVOKED"
    assert told["revocation_reason"] == "REVOCATION_REASON_SUPERSEDED"
    assert told["invalidity_time"] == "2026-01-01T00:00:00Z"
    again = ("revoke", signing, "--reason", "cessationOfOperation")
    assert "ALREADY_REVOKED" in keyark("certificates", *again, *at_home, code=1).stderr
    assert "NOT_FOUND" in keyark("certificates", "revoke", "0102", *at_home, code=1).stderr
    revoked = json.loads(keyark("certificates", "list", *at_home, "--state", "revoked", "--json").stdout)
    assert told in revoked


def test_what_expires_soon_is_listed(home: Path, tmp_path: Path) -> None:
    enroll(home, tmp_path / "out", "expiring@example.org")
    words = ("certificates", "expiring", "--home", home, "--json", "--within")
    assert json.loads(keyark(*words, "1d").stdout) == []
    found = json.loads(keyark(*words, "5200w").stdout)
    assert {"expiring@example.org"} <= {certificate["email"] for certificate in found}
    assert found == sorted(found, key=lambda certificate: certificate["not_after"])
    for wrong in ("30", "d", "0d", "-3d", "3m"):
        assert "write 30d" in keyark(*words, wrong, code=2).stderr


def test_what_is_revoked_is_on_the_next_list(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    enroll(home, out, "on-the-list@example.org")
    at_home = ("--home", home)
    assert "full.crl" in keyark("certificates", "publish-crls", *at_home).stdout
    keyark("certificates", "revoke", serials(home, "on-the-list@example.org")[1], *at_home)
    (told,) = json.loads(keyark("certificates", "publish-crls", *at_home, "--json").stdout)
    crl = home / "cm" / "crls" / told["name"]
    assert crl.stat().st_size == int(told["size"])
    pem = tmp_path / "crl.pem"
    subprocess.run(["openssl", "crl", "-inform", "DER", "-in", crl, "-out", pem], check=True)
    words = ["openssl", "verify", "-crl_check", "-CAfile", home / "ca.pem", "-CRLfile", pem]
    for role, code in (("signing", 0), ("encryption", 2)):
        done = subprocess.run([*words, out / f"{role}.pem"], capture_output=True, check=False)
        assert done.returncode == code, done


def test_who_holds_the_keys_revokes_its_own(home: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    enroll(home, out, "own@example.org")
    enroll(home, other, "other@example.org")
    at_home = ("--home", home)
    (other / "signing-key.pem").write_bytes((out / "signing-key.pem").read_bytes())
    assert "REVOCATION_SIGNATURE" in keyark("certificates", "revoke-own", other, *at_home, code=1).stderr
    done = keyark("certificates", "revoke-own", out, "--only", "encryption", *at_home)
    assert done.stdout.count("REVOKED") == 1
    words = ("revoke-own", out, "--reason", "unspecified")
    assert keyark("certificates", *words, *at_home).stdout.count("REVOKED") == 2
    keys = json.loads(keyark("keys", "list", *at_home, "--json").stdout)
    (archived,) = [key for key in keys if key["email"] == "own@example.org"]
    assert archived["state"] == "KEY_STATE_CERTIFIED"  # recoverable all the same


def test_an_agent_may_not_list_certificates(home: Path) -> None:
    done = keyark("certificates", "list", "--home", home, "--as", "agent/alice", code=1)
    assert "PERMISSION_DENIED" in done.stderr


def test_init_refuses_a_folder_that_holds_anything(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = keyark("init", tmp_path, code=1)
    assert "not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        (("--agents", "alice,bob", "--quorum", "2"), "--allow-self-approval"),
        (("--agents", "alice", "--quorum", "1"), "--allow-single-agent"),
        (("--agents", "alice,bob,carol", "--quorum", "4"), "1 to the number"),
        (("--agents", "alice,alice,bob"), "twice"),
    ],
)
def test_init_refuses_plans_that_cannot_work(tmp_path: Path, options: tuple[str, ...], way_out: str) -> None:
    done = keyark("init", tmp_path / "deployment", *options, code=1)
    assert way_out in done.stderr
    assert not (tmp_path / "deployment").exists()


@pytest.mark.parametrize(
    ("options", "way_out"),
    [(("--ca-key", "ml-kem-768"), "ec-p256"), (("--trust-domain", "Not A Domain"), "trust")],
)
def test_a_value_that_an_option_does_not_take_is_a_usage_error(
    tmp_path: Path, options: tuple[str, ...], way_out: str
) -> None:
    done = keyark("init", tmp_path / "deployment", *options, code=2)
    assert way_out in done.stderr
    assert not (tmp_path / "deployment").exists()


def test_init_makes_private_files_and_encrypts_peoples_keys(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    keyark(
        "init", folder, "--agents", "ann,ben", "--quorum", "2", "--allow-self-approval",
        "--transport-key", "rsa-3072", "--ca-key", "ec-p384", "--password-file", password_file(tmp_path),
    )  # fmt: skip
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == 0o700 if path.is_dir() else mode in (0o600, 0o644), path
        if path.name.endswith("key.pem"):
            assert mode == 0o600, path
    for key in folder.glob("identities/*/*/key.pem"):
        assert b"ENCRYPTED" in key.read_bytes()
    done = keyark("keys", "list", "--home", folder, "--as", "agent/ann", code=1)
    assert "PASSWORD_REQUIRED" in done.stderr


def test_services_refuse_to_start_on_lax_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    init_home(folder)
    (folder / "drm" / "transport-keys" / "1" / "key.pem").chmod(0o640)
    done = subprocess.run(
        [sys.executable, "-m", "drm_service", "serve", str(folder / "drm" / "drm.toml")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize("command", ["init", "up", "enroll", "enrollments", "certificates", "keys", "audit"])
def test_every_command_explains_itself(command: str) -> None:
    assert "Usage: " in keyark(command, "--help").stdout
    assert keyark(command, "--no-such-option", code=2).stderr


def test_a_list_in_parts_is_the_whole_list(home: Path, tmp_path: Path) -> None:
    people = [f"part{number}@example.org" for number in range(3)]
    for number, email in enumerate(people):
        enroll(home, tmp_path / str(number), email)
        keyark("recover", "request", "--owner", email, "--reason", "lost", "--home", home)
    for words in (
        ("enrollments", "list"),
        ("certificates", "list"),
        ("certificates", "expiring", "--within", "200w"),
        ("keys", "list"),
        ("recover", "list", "--state", "open"),
    ):
        command = (*words, "--home", home, "--json")
        whole = json.loads(keyark(*command).stdout)
        most = 3 if words[0] == "certificates" else 2  # a pair is not split
        parts, token = [], ""
        while not parts or token:
            part = json.loads(
                keyark(*command, "--limit", 2, *(("--page-token", token) if token else ())).stdout
            )
            assert len(part["entries"]) <= most
            parts.append(part["entries"])
            token = part.get("next_page_token", "")
        assert [entry for part in parts for entry in part] == whole
        assert len(whole) >= 3, words


def test_ids_may_be_abbreviated_where_only_one_begins_so(home: Path, tmp_path: Path) -> None:
    enroll(home, tmp_path / "short", "short@example.org")
    keyark("recover", "request", "--owner", "short@example.org", "--reason", "lost", "--home", home)
    first: dict[str, str] = {}
    for words, name in (
        (("keys", "list"), "key_id"),
        (("certificates", "list"), "serial"),
        (("enrollments", "list"), "enrollment_id"),
        (("recover", "list"), "ceremony_id"),
    ):
        listed = json.loads(keyark(*words, "--home", home, "--json").stdout)
        first[words[0]] = whole = listed[-1][name]
        show = (words[0], "show")
        for digits in (whole[:-1], whole[:-2].upper(), whole):
            shown = json.loads(keyark(*show, digits, "--home", home, "--json").stdout)
            assert shown[name] == whole
        assert "NOT_FOUND" in keyark(*show, "ffffffff", "--home", home, "--json", code=1).stdout
        for wrong in ("fff", "xyz"):
            assert "INVALID_INPUT" in keyark(*show, wrong, "--home", home, "--json", code=2).stdout
    keyark("certificates", "hold", first["certificates"][:20], "--home", home)
    keyark("keys", "deactivate", first["keys"][:20], "--reason", "a test", "--home", home)
    signed = (
        ("enrollments", "approve", first["enrollments"][:-1]),
        ("recover", "approve", first["recover"][:-1], "--yes"),
        ("recover", "reject", first["recover"][:-1], "--reason", "a test"),
    )
    for words in signed:
        assert "whole" in keyark(*words, "--home", home, code=2).stderr
    assert first["recover"] in keyark("recover", "cancel", first["recover"][:-2], "--home", home).stdout


def test_an_abbreviation_of_several_ids_names_them(home: Path, tmp_path: Path) -> None:
    """Enrollment ids begin with the time, so two of one minute begin alike."""
    for number in range(2):
        enroll(home, tmp_path / str(number), f"alike{number}@example.org")
    ids = [
        e["enrollment_id"] for e in json.loads(keyark("enrollments", "list", "--home", home, "--json").stdout)
    ]
    digits = "".join(
        a for a, _ in itertools.takewhile(lambda two: two[0] == two[1], zip(*ids[-2:], strict=True))
    )
    done = keyark("enrollments", "show", digits, "--home", home, "--json", code=1)
    error = json.loads(done.stdout)["error"]
    assert error["reason"] == "AMBIGUOUS_ID"
    assert ids[-2] in error["message"]
    assert ids[-1] in error["message"]


def test_people_are_told_the_next_page_and_a_token_of_another_list_is_usage(
    home: Path, tmp_path: Path
) -> None:
    for number in range(2):
        enroll(home, tmp_path / str(number), f"next{number}@example.org")
    first = keyark("keys", "list", "--home", home, "--limit", 1)
    (token,) = [line.split()[-1] for line in first.stderr.splitlines() if line.startswith("more")]
    rest = keyark("keys", "list", "--home", home, "--page-token", token)
    assert (first.stdout + rest.stdout) == keyark("keys", "list", "--home", home).stdout
    assert "more" not in rest.stderr
    for wrong in (("keys", "list", "--state", "certified"), ("enrollments", "list"), ("audit", "log")):
        done = keyark(*wrong, "--home", home, "--page-token", token, "--json", code=2)
        assert json.loads(done.stdout)["error"]["reason"] == "INVALID_INPUT"
