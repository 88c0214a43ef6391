"""Guards certificates against an independent linter of RFC 5280: no error and no warning."""

import pytest
from pkilint import loader
from pkilint.cabf import smime
from pkilint.cabf.smime.smime_constants import Generation, ValidationLevel
from pkilint.pkix import certificate as pkix
from pkilint.pkix import extension, name
from pkilint.report import get_findings_count
from pkilint.validation import ValidationFindingSeverity

from cm_service.issuer.profiles import ProfileSettings
from keyark.keys.key_types import CA_KEY_TYPES, ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType
from keyark.x509.certificates import Validity, encode_certificate
from keyark.x509.distribution import Distribution
from keyark.x509.end_entity_profile import EndEntityProfile
from tests.support.keys.pki import (
    CA_VALIDITY,
    NOW,
    identity_certificate,
    internal_ca,
    issue_pair,
    issuing_ca,
    private_key,
    root_ca,
    spki,
)

FULL = EndEntityProfile(
    subject=("O=Beispiel GmbH", "CN={common_name}"),
    distribution=Distribution(
        crl_urls=("http://crl.example.org/ca.crl",),
        ca_issuer_urls=("http://example.org/ca.cer",),
        ocsp_urls=("http://ocsp.example.org/",),
        policy_oids=("1.3.6.1.4.1.99999.1.2",),
    ),
)
# Its syntax check knows a fixed list of schemes; SPIFFE IDs are URIs all the same (RFC 3986).
SPIFFE_FINDING = "pkix.invalid_uri_syntax"


def findings(der: bytes, *, threshold=ValidationFindingSeverity.WARNING) -> set[str]:
    """The codes of the findings at or above a severity, as ``lint_pkix_cert lint`` tells them."""
    validator = pkix.create_pkix_certificate_validator_container(
        pkix.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            pkix.create_issuer_validator_container([]),
            pkix.create_validity_validator_container(),
            pkix.create_subject_validator_container([]),
            pkix.create_extensions_validator_container([]),
            pkix.create_spki_validator_container([]),
        ],
    )
    return codes_of(validator, der, threshold=threshold)


def codes_of(validator, der: bytes, *, threshold=ValidationFindingSeverity.WARNING) -> set[str]:
    """What a validator finds at or above a severity."""
    results = validator.validate(loader.load_certificate(der, "certificate").root)
    codes = {
        found.finding.code
        for result in results
        for found in result.finding_descriptions
        if found.finding.severity <= threshold
    }
    assert bool(codes) == bool(get_findings_count(results, threshold))
    return codes


@pytest.mark.parametrize("profile", [EndEntityProfile(), FULL], ids=["bare", "full"])
@pytest.mark.parametrize("key_type", SIGNING_KEY_TYPES)
def test_signing_certificates(key_type, profile):
    assert findings(issue_pair(issuing_ca(), profile=profile, signing_spki=spki(key_type)).signing) == set()


@pytest.mark.parametrize("profile", [EndEntityProfile(), FULL], ids=["bare", "full"])
@pytest.mark.parametrize("key_type", ENCRYPTION_KEY_TYPES)
def test_encryption_certificates(key_type, profile):
    pair = issue_pair(issuing_ca(), profile=profile, encryption_spki=spki(key_type, 1))
    assert findings(pair.encryption) == set()


@pytest.mark.parametrize("key_type", CA_KEY_TYPES)
def test_certificates_of_every_ca_key_type(key_type):
    pair = issue_pair(issuing_ca(key_type), profile=FULL)
    authorities = (root_ca(key_type), issuing_ca(key_type))
    for der in (pair.signing, pair.encryption, *(encode_certificate(a.certificate) for a in authorities)):
        assert findings(der) == set()


def test_the_internal_ca():
    assert findings(encode_certificate(internal_ca().certificate)) == set()


@pytest.mark.parametrize(
    "path", ["rm", "cm", "drm", "client/alice", "officer/olga", "agent/ann", "auditor/aud"]
)
def test_identities(path):
    assert findings(encode_certificate(identity_certificate(path))) <= {SPIFFE_FINDING}


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_3072])
def test_the_transport_key(key_type):
    certificate = identity_certificate("drm/transport", key=private_key(key_type, 906))
    assert findings(encode_certificate(certificate)) <= {SPIFFE_FINDING}


@pytest.mark.parametrize(
    "common_name",
    ["x" * 64, "Zoë Ünal", "山田太郎", "Константин Константинович Константинопольский"],
    ids=len,
)
def test_names_in_other_scripts(common_name):
    assert findings(issue_pair(issuing_ca(), profile=FULL, common_name=common_name).signing) == set()


def test_times_after_2049():
    late = Validity(NOW, CA_VALIDITY.not_after)
    assert findings(issue_pair(issuing_ca(), validity=late).signing) == set()


STRICT = ProfileSettings.model_validate(
    {
        "base": "smime-strict",
        "crl_urls": ["http://crl.example.org/ca.crl"],
        "ca_issuer_urls": ["http://example.org/ca.cer"],
    }
)


def baseline_findings(der: bytes) -> set[str]:
    """What ``lint_cabf_smime_cert lint`` says: the CA/Browser Forum's S/MIME Baseline Requirements, strict."""
    level = (ValidationLevel.MAILBOX, Generation.STRICT)
    certificate = loader.load_certificate(der, "certificate")
    assert smime.determine_validation_level_and_generation(certificate) == level
    validator = pkix.create_pkix_certificate_validator_container(
        smime.create_decoding_validators(), smime.create_subscriber_validators(*level)
    )
    return codes_of(validator, der)


@pytest.mark.parametrize("key_type", STRICT.signing_key_types)
def test_strict_signing_certificates_keep_the_baseline_requirements(key_type):
    pair = issue_pair(issuing_ca(), profile=STRICT.content, signing_spki=spki(key_type))
    assert baseline_findings(pair.signing) == set()


@pytest.mark.parametrize("key_type", STRICT.encryption_key_types)
def test_strict_encryption_certificates_keep_the_baseline_requirements(key_type):
    pair = issue_pair(issuing_ca(), profile=STRICT.content, encryption_spki=spki(key_type, 1))
    assert baseline_findings(pair.encryption) == set()


def test_the_linter_does_find_a_profile_that_only_claims_them():
    claimed = EndEntityProfile(distribution=Distribution(policy_oids=("2.23.140.1.5.1.3",)))
    assert baseline_findings(issue_pair(issuing_ca(), profile=claimed).signing)


def test_the_linter_does_find_errors():
    """A certificate whose authority key identifier goes by a name that nobody knows."""
    der = issue_pair(issuing_ca()).signing
    authority_identifier, unknown = bytes.fromhex("0603551d23"), bytes.fromhex("0603551d7f")
    found = findings(der.replace(authority_identifier, unknown))
    assert "pkix.authority_key_identifier_extension_absent" in found
