"""Guards path validation: what RFC 5280 §6 refuses is refused, in whatever order the chain comes."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keyark.keys.key_types import CA_KEY_TYPES, KeyType
from keyark.x509.authority import Authority, ca_name, create_root, issue_ca, key_usage, request_ca
from keyark.x509.certificates import Validity, load_certificate
from keyark.x509.chains import (
    CertificateChainError,
    CertificateExpiredError,
    KnownChains,
    path_in_force,
    verify_chain,
    verify_chain_once,
)
from tests.support.keys.pki import (
    CA_VALIDITY,
    NOW,
    VALIDITY,
    internal_ca,
    issue_pair,
    issuing_ca,
    private_key,
    root_ca,
)

ROOT, ISSUING = root_ca().certificate, issuing_ca().certificate


def leaf(authority=None):
    return load_certificate(issue_pair(authority or issuing_ca()).signing)


def subordinate(parent: Authority, name: str, *, number: int, path_length: int = 0) -> Authority:
    key = private_key(KeyType.EC_P256, number)
    request = request_ca(key, subject=ca_name(name))
    certificate = issue_ca(
        parent, request, subject=ca_name(name), validity=CA_VALIDITY, path_length=path_length
    )
    return Authority(certificate=certificate, private_key=key)


def handmade(
    *,
    subject="Odd CA",
    key=None,
    issuer=None,
    signer=None,
    digest=None,
    basic=(True, None),
    basic_critical=True,
    usage=("key_cert_sign",),
    extra=(),
    validity=CA_VALIDITY,
):
    """A certificate that keyark itself would not make; self-signed unless an issuer is given."""
    key = key or private_key(KeyType.EC_P256, 910)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    not_before, not_after = validity.dates()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if basic is not None:
        builder = builder.add_extension(x509.BasicConstraints(*basic), critical=basic_critical)
    if usage is not None:
        builder = builder.add_extension(key_usage(*usage), critical=True)
    for extension in extra:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(signer or key, digest or hashes.SHA256())


def signed_by(ca, key=None):
    """An end entity's certificate under a handmade CA."""
    return handmade(
        subject="Leaf",
        key=private_key(KeyType.EC_P256, 911),
        issuer=ca,
        signer=key or private_key(KeyType.EC_P256, 910),
        basic=None,
        usage=("digital_signature",),
    )


@pytest.mark.parametrize(
    "intermediates", [[ISSUING], [ISSUING, ROOT], [ROOT, ISSUING], [ISSUING, ISSUING, ROOT]]
)
def test_a_path_is_found_in_any_order(intermediates):
    certificate = leaf()
    path = verify_chain(certificate, intermediates=intermediates, anchors=[ROOT], at=NOW)
    assert path == [certificate, ISSUING, ROOT]


@pytest.mark.parametrize("key_type", CA_KEY_TYPES)
def test_every_ca_key_type_verifies(key_type):
    issuing = issuing_ca(key_type)
    path = verify_chain(leaf(issuing), intermediates=[issuing.certificate], anchors=[ROOT], at=NOW)
    assert path[1:] == [issuing.certificate, ROOT]


def test_an_intermediate_can_be_the_anchor():
    assert verify_chain(leaf(), intermediates=[], anchors=[ISSUING], at=NOW)[-1] == ISSUING


def test_the_right_anchor_is_found_among_others():
    others = [internal_ca().certificate, root_ca(name="Other").certificate]
    assert verify_chain(leaf(), intermediates=[ISSUING], anchors=[*others, ROOT], at=NOW)[-1] == ROOT


def test_without_the_intermediate_there_is_no_path():
    with pytest.raises(CertificateChainError, match="Issuing CA"):
        verify_chain(leaf(), intermediates=[], anchors=[ROOT], at=NOW)


@pytest.mark.parametrize("anchors", [[], [internal_ca().certificate]])
def test_a_root_that_comes_along_is_no_anchor(anchors):
    with pytest.raises(CertificateChainError):
        verify_chain(leaf(), intermediates=[ISSUING, ROOT], anchors=anchors, at=NOW)


def test_a_ca_of_the_same_name_with_another_key_is_refused():
    impostor = handmade(subject="Root CA")
    with pytest.raises(CertificateChainError, match="not signed by"):
        verify_chain(leaf(), intermediates=[ISSUING], anchors=[impostor], at=NOW)


def test_a_ca_of_the_same_name_does_not_hide_the_right_one():
    impostor = handmade(subject="Root CA")
    assert verify_chain(leaf(), intermediates=[ISSUING], anchors=[impostor, ROOT], at=NOW)[-1] == ROOT
    odd = handmade(subject="Root CA", issuer=ROOT, signer=root_ca().private_key)
    certificate = leaf(root_ca())
    assert verify_chain(certificate, intermediates=[odd], anchors=[ROOT], at=NOW) == [certificate, ROOT]


@pytest.mark.parametrize("at", [VALIDITY.not_before, VALIDITY.not_after])
def test_both_ends_of_the_validity_count(at):
    verify_chain(leaf(), intermediates=[ISSUING], anchors=[ROOT], at=at)


@pytest.mark.parametrize("at", [VALIDITY.not_before - 1, VALIDITY.not_after + 1])
def test_an_expired_or_future_leaf_is_refused(at):
    with pytest.raises(CertificateExpiredError, match="Alice"):
        verify_chain(leaf(), intermediates=[ISSUING], anchors=[ROOT], at=at)


@pytest.mark.parametrize("place", ["anchor", "intermediate"])
def test_an_expired_issuer_is_refused(place):
    short = handmade(validity=VALIDITY)
    outlives = handmade(subject="Leaf", issuer=short, signer=private_key(KeyType.EC_P256, 910), basic=None)
    intermediates, anchors = ([], [short]) if place == "anchor" else ([short], [ROOT])
    with pytest.raises(CertificateExpiredError, match="Odd CA"):
        verify_chain(outlives, intermediates=intermediates, anchors=anchors, at=VALIDITY.not_after + 1)


def test_an_end_entity_issues_nothing():
    person = leaf()
    below = handmade(
        subject="Below",
        key=private_key(KeyType.EC_P256, 911),
        issuer=person,
        signer=private_key(KeyType.EC_P256),
        basic=None,
    )
    with pytest.raises(CertificateChainError, match="not a CA"):
        verify_chain(below, intermediates=[person, ISSUING], anchors=[ROOT], at=NOW)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"basic": None}, "not a CA"),
        ({"basic": (False, None)}, "not a CA"),
        ({"basic_critical": False}, "not a CA"),
        ({"usage": None}, "not a CA"),
        ({"usage": ("crl_sign", "digital_signature")}, "may not sign"),
        ({"extra": (x509.NameConstraints([x509.DNSName("example.org")], None),)}, "2.5.29.30"),
        ({"extra": (x509.PolicyConstraints(0, None),)}, "2.5.29.36"),
        ({"extra": (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),)}, "1.2.3.4"),
    ],
)
def test_unfit_issuers_are_refused(fields, words):
    ca = handmade(**fields)
    with pytest.raises(CertificateChainError, match=words):
        verify_chain(signed_by(ca), intermediates=[], anchors=[ca], at=NOW)


def test_a_critical_extension_that_is_not_understood_refuses_the_leaf():
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    certificate = handmade(issuer=ROOT, signer=root_ca().private_key, extra=(odd,))
    with pytest.raises(CertificateChainError, match=r"1\.2\.3\.4"):
        verify_chain(certificate, intermediates=[], anchors=[ROOT], at=NOW)


def test_weak_keys_of_issuers_are_refused():
    key = rsa.generate_private_key(65537, 1024)
    ca = handmade(key=key)
    with pytest.raises(CertificateChainError, match="1024"):
        verify_chain(signed_by(ca, key), intermediates=[], anchors=[ca], at=NOW)


def test_weak_hashes_are_refused():
    """The library signs with none, so SHA-256 is renamed: the check comes before that of the signature."""
    key = private_key(KeyType.RSA_2048, 912)
    ca = handmade(key=key)
    der = signed_by(ca, key).public_bytes(Encoding.DER)
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    weak = x509.load_der_x509_certificate(der.replace(sha256, sha1))
    verify_chain(x509.load_der_x509_certificate(der), intermediates=[], anchors=[ca], at=NOW)
    with pytest.raises(CertificateChainError, match="sha1"):
        verify_chain(weak, intermediates=[], anchors=[ca], at=NOW)


def test_path_length_is_held():
    root = root_ca(path_length=1)
    middle = subordinate(root, "Middle", number=920, path_length=0)
    bottom = subordinate(middle, "Bottom", number=921)
    certificate = leaf(bottom)
    with pytest.raises(CertificateChainError, match="permits 0"):
        verify_chain(
            certificate,
            intermediates=[middle.certificate, bottom.certificate],
            anchors=[root.certificate],
            at=NOW,
        )
    assert (
        len(
            verify_chain(leaf(middle), intermediates=[middle.certificate], anchors=[root.certificate], at=NOW)
        )
        == 3
    )


def test_the_internal_ca_has_no_ca_below_it():
    below = subordinate(internal_ca(), "Below", number=922)
    with pytest.raises(CertificateChainError, match="permits 0"):
        verify_chain(
            leaf(below), intermediates=[below.certificate], anchors=[internal_ca().certificate], at=NOW
        )


def test_loops_end():
    one = handmade(subject="One")
    two = handmade(subject="Two", issuer=one)
    one = handmade(subject="One", issuer=two)
    with pytest.raises(CertificateChainError):
        verify_chain(signed_by(one), intermediates=[one, two], anchors=[ROOT], at=NOW)


def test_long_chains_are_refused_unread():
    with pytest.raises(CertificateChainError, match="more than 8"):
        verify_chain(leaf(), intermediates=[ISSUING] * 9, anchors=[ROOT], at=NOW)


OTHER_ROOT = create_root(
    private_key(KeyType.EC_P256, 920), subject=ca_name("Other Root"), validity=CA_VALIDITY, path_length=None
)


def certified_again(authority: Authority, validity=CA_VALIDITY) -> x509.Certificate:
    """The issuing CA's certificate below another root, or of another time."""
    request = request_ca(issuing_ca().private_key, subject=ISSUING.subject)
    return issue_ca(authority, request, subject=ISSUING.subject, validity=validity)


def test_a_certificate_is_verified_at_a_moment_when_its_whole_path_is_valid():
    begins, ends = VALIDITY.not_before + 10, VALIDITY.not_after - 10
    later = certified_again(root_ca(), Validity(begins, CA_VALIDITY.not_after))
    earlier = certified_again(root_ca(), Validity(CA_VALIDITY.not_before, ends))
    apart = certified_again(root_ca(), Validity(VALIDITY.not_after + 1, CA_VALIDITY.not_after))
    for issuer in (later, earlier):
        path = verify_chain_once(leaf(), intermediates=[issuer], anchors=[ROOT])
        assert path[1:] == [issuer, ROOT]
        assert KnownChains.among([issuer, ROOT]).verify(path[0]) == path
    with pytest.raises(CertificateExpiredError):
        verify_chain_once(leaf(), intermediates=[apart], anchors=[ROOT])
    with pytest.raises(CertificateExpiredError):
        KnownChains.among([apart, ROOT]).verify(leaf())
    with pytest.raises(CertificateExpiredError):
        KnownChains.among([later, ROOT]).verify(leaf(), at=begins - 1)


def test_the_chain_in_force_is_the_first_and_those_of_before_are_kept():
    again = certified_again(OTHER_ROOT)
    kept = [again, ISSUING, ROOT, OTHER_ROOT.certificate]
    assert path_in_force(kept) == [again, OTHER_ROOT.certificate]
    assert KnownChains.among(kept).paths == ((again, OTHER_ROOT.certificate), (ISSUING, ROOT))
    assert path_in_force([ISSUING, ROOT]) == [ISSUING, ROOT]
    assert path_in_force([ISSUING]) == [ISSUING]
    with pytest.raises(CertificateChainError, match="from the first certificate"):
        path_in_force([ISSUING, OTHER_ROOT.certificate])


def test_a_root_of_before_vouches_only_for_the_ca_certificates_that_it_signed_then():
    known = KnownChains.among([certified_again(OTHER_ROOT), ISSUING, ROOT, OTHER_ROOT.certificate])
    assert known.verify(leaf(), at=NOW)[-1] == OTHER_ROOT.certificate
    upstart = subordinate(root_ca(), "Upstart", number=921)
    for authority in (upstart, root_ca(), OTHER_ROOT):
        with pytest.raises(CertificateChainError):
            known.verify(leaf(authority))
    with pytest.raises(CertificateChainError, match="by a CA that is not known"):
        KnownChains(paths=()).verify(leaf())
