"""Profiles as configuration: the ready ones, what is changed of them, and what stops the start with file and line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cm_service.crl_settings import sharded_profiles
from cm_service.issuer.profiles import READY, ProfileSettings, ready_profiles
from keyark.config import Config, load_config
from keyark.errors import ConfigurationError, InvalidInputError
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, SMIME_KEY_TYPES, KeyType
from keyark.statements.enrollment import parse_statement
from keyark.v1.statement_pb2 import EnrollmentStatement
from tests.support.keys.pki import statement_bytes

URLS = 'crl_urls = ["http://crl.example.org/ca.crl"]\n'
STRICT = 'base = "smime-strict"\n' + URLS
USER = 'base = "user"\n'


class File(Config):
    """Of cm.toml, the profiles."""

    profiles: dict[str, ProfileSettings]


def load(folder: Path, text: str) -> ProfileSettings:
    path = folder / "cm.toml"
    path.write_text(f"[profiles.it]\n{text}")
    return load_config(path, File).profiles["it"]


def test_there_are_the_ready_profiles_that_the_documentation_names() -> None:
    told = Path("docs/profiles.md").read_text()
    assert set(ready_profiles()) == {"user", "smime-strict", "signing-only", "pq"}
    assert all(f"`{name}`" in told for name in ready_profiles())


def test_the_documentation_names_every_key() -> None:
    told = Path("docs/profiles.md").read_text()
    assert [key for key in ProfileSettings.model_fields if f"`{key}`" not in told] == []


def test_the_rm_is_told_every_field_of_a_profile(tmp_path: Path) -> None:
    told = load(tmp_path, USER).to_proto("it")
    set_fields = {field.name for field, _ in told.ListFields()}
    assert set_fields == set(told.DESCRIPTOR.fields_by_name)


def test_a_form_asks_for_fields_that_a_statement_has(tmp_path: Path) -> None:
    assert set(load(tmp_path, USER).to_proto("it").fields) <= set(
        EnrollmentStatement.DESCRIPTOR.fields_by_name
    )


def ready(name: str) -> tuple[set[str], set[str]]:
    """The signing and encryption key types that a ready profile lists."""
    profile = tomllib.loads((READY / f"{name}.toml").read_text())
    return set(profile["signing_key_types"]), set(profile["encryption_key_types"])


def test_ready_profiles_list_every_key_type_that_fits() -> None:
    signing, encryption, smime = (
        {key_type.value for key_type in key_types}
        for key_types in (SIGNING_KEY_TYPES, ENCRYPTION_KEY_TYPES, SMIME_KEY_TYPES)
    )
    assert ready("user") == (signing, encryption)
    assert ready("signing-only") == (signing, set())
    assert ready("smime-strict") == (signing & smime, encryption & smime)


@pytest.mark.parametrize("name", ["user", "pq", "signing-only"])
def test_ready_profiles_are_complete(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, f'base = "{name}"\n') == ProfileSettings.model_validate(
        tomllib.loads((READY / f"{name}.toml").read_text())
    )


def test_what_is_given_beside_the_base_is_changed(tmp_path: Path) -> None:
    profile = load(tmp_path, USER + 'validity_days = 7\nsubject = ["O=Example Ltd", "CN={common_name}"]\n')
    assert profile.validity_days == 7
    assert profile.content.subject == ("O=Example Ltd", "CN={common_name}")
    assert profile.signing_key_types[0] is KeyType.EC_P256


def test_post_quantum_keys_are_all_that_pq_permits(tmp_path: Path) -> None:
    profile = load(tmp_path, 'base = "pq"\n')
    kinds = {*profile.signing_key_types, *profile.encryption_key_types}
    assert all(kind.value.startswith("ml-") for kind in kinds)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            'base = "users"\n',
            2,
            "no ready profile with this name; these exist: pq, signing-only, smime-strict, user",
        ),
        (USER + 'organization = "x"\n', 3, "this key is unknown"),
        (USER + 'signing_key_types = ["x25519"]\n', 3, "x25519 is no signing key type"),
        (USER + 'encryption_key_types = ["ed25519"]\n', 3, "ed25519 is no encryption key type"),
        (USER + "encryption_key_types = []\n", 1, "there is nothing to archive"),
        (USER + "signing_key_types = []\n", 3, "There is no signing key type"),
        (USER + 'encryption_key_types = []\narchival = "permitted"\n', 4, "there is nothing to archive"),
        (USER + 'signing_key_usage = ["keyEncipherment"]\n', 3, "is not a key usage of signing certificates"),
        (USER + "signing_key_usage = []\n", 3, "The key usage is missing"),
        (
            USER + 'encryption_key_usage = ["digitalSignature"]\n',
            3,
            "is not a key usage of encryption certificates",
        ),
        (
            USER + 'encryption_key_usage = ["keyEncipherment"]\n',
            3,
            "encryption certificates for ec-p256 keys",
        ),
        (
            USER + 'encryption_key_types = ["ec-p256"]\nencryption_key_usage = ["encipherOnly"]\n',
            4,
            "encrypts nothing",
        ),
        (USER + 'signing_extended_key_usage = ["serverAuth"]\n', 3, "not an extended key usage"),
        (USER + 'signing_extended_key_usage = ["1.3.6.1.5.5.7.3.1"]\n', 3, "serverAuth is for servers"),
        (USER + 'signing_extended_key_usage = ["1.3.6.1.5.5.7.3.9"]\n', 3, "speaks for the CA"),
        (USER + "signing_extended_key_usage = []\n", 3, "used for anything"),
        (USER + 'encryption_extended_key_usage = ["clientAuth"]\n', 3, "needs a key that signs"),
        (USER + 'subject = ["CN=Alice"]\n', 3, "the person's own"),
        (USER + 'subject = ["O={common_name}"]\n', 3, "takes no placeholder"),
        (USER + 'subject = ["SN={common_name}"]\n', 3, "is not a subject attribute"),
        (USER + 'subject = ["C=Germany"]\n', 3, "two capital letters"),
        (USER + 'subject = ["O=A", "O=B"]\n', 3, "more than once"),
        (USER + "subject = []\n", 1, "subjectAltName has to be critical"),
        (USER + 'alternative_names = ["upn"]\n', 3, "has the e-mail address as alternative name"),
        (USER + 'alternative_names = ["email", "dns"]\n', 3, "not an alternative name"),
        (USER + 'critical = ["basicConstraints"]\n', 3, "cannot be marked critical"),
        (USER + 'policy_oids = ["1.2.x"]\n', 3, "1.2.x"),
        (USER + 'crl_urls = ["ftp://example.org/"]\n', 3, "not a URL that a certificate may have"),
        (USER + "validity_days = 0\n", 3, "greater than or equal to 1"),
        ('base = "smime-strict"\n', 0, "At least one URL of the CRL"),
        (STRICT + "validity_days = 826\n", 4, "825 days are the most"),
        (STRICT + 'subject = ["CN={common_name}"]\n', 4, "only (§7.1.4.2.2)"),
        (STRICT + 'signing_extended_key_usage = ["emailProtection", "clientAuth"]\n', 4, "alone"),
        (STRICT + 'encryption_key_types = ["x25519"]\n', 4, "§7.1.3.1"),
        (STRICT + 'alternative_names = ["email", "upn"]\n', 4, "alone (§7.1.2.3 h)"),
        (STRICT + "critical = []\n", 4, "keyUsage has to be critical"),
        (STRICT + 'policy_oids = ["2.23.140.1.5.4.3"]\n', 4, "mailbox-validated"),
        (STRICT + 'policy_oids = ["2.23.140.1.5.1.2", "2.23.140.1.5.1.3"]\n', 4, "Only one policy"),
    ],
)
def test_what_is_wrong_stops_the_start_with_file_and_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, text)
    assert words in refused.value.message
    place = f"cm.toml:{line}: " if line else "cm.toml:"
    assert place in refused.value.message


def test_a_mailbox_that_is_too_long_for_a_common_name_is_refused(tmp_path: Path) -> None:
    profile = load(tmp_path, STRICT)
    fitting, long = ("a" * 52 + "@example.org", "a" * 53 + "@example.org")
    profile.check(parse_statement(statement_bytes(email=fitting)), receipt=b"r")
    with pytest.raises(InvalidInputError) as refused:
        profile.check(parse_statement(statement_bytes(email=long)), receipt=b"r")
    assert refused.value.field == "email"


def test_each_shard_has_its_own_urls(tmp_path: Path) -> None:
    profile = load(tmp_path, USER + 'crl_urls = ["http://crl.example.org/{shard}.crl"]\n')
    assert profile.content.distribution.crl_urls == ("http://crl.example.org/{shard}.crl",)
    shards = sharded_profiles({"it": profile}, 2)
    assert [shards[f"it/{n}"].content.distribution.crl_urls for n in range(2)] == [
        ("http://crl.example.org/0.crl",),
        ("http://crl.example.org/1.crl",),
    ]
