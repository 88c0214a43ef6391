"""OCSP: the store's word at this moment, signed by a responder that the log knows; wrong requests have answers."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from cm_service.public.documents import HttpRequest, HttpResponse, http_date
from cm_service.public.web import Pages
from keyark.errors import InvalidInputError, OverloadedError
from keyark.keys import der as _der
from keyark.keys.key_types import CA_KEY_TYPES, KeyType
from keyark.keys.private_keys import save_private_key
from keyark.transparency.events import open_event
from keyark.v1.audit_pb2 import EventType
from keyark.x509.certificates import encode_certificate, save_certificates
from keyark.x509.ocsp import parse_ocsp_request
from tests.support.keys.certificates import serial_of
from tests.support.keys.ocsp import HOUR, OcspOffice, request_for
from tests.support.keys.pki import DAY, NOW, issuing_ca, root_ca
from tests.support.stories.office import COMPROMISE, UNSPECIFIED, Office

GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
Status = ocsp.OCSPResponseStatus
NO_SERIAL = serial_of(99, 1)


@pytest.fixture
async def office() -> Office:
    return await Office().open()


@pytest.fixture
async def answering(office: Office, tmp_path: Path) -> OcspOffice:
    return await OcspOffice(tmp_path, office).open()


@pytest.fixture
def pages(answering: OcspOffice) -> Pages:
    return Pages(
        crls=None,
        ocsp=answering.ocsp,
        chain=answering.responder.chain,
        clock=answering.office.clock,
        max_age=HOUR // 2,
    )


async def ask(pages: Pages, method: str, target: str, body: bytes = b"", **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await pages.answer(HttpRequest(method=method, target=target, headers=named, body=body))


def url_of(der: bytes) -> str:
    return "/ocsp/" + quote(base64.b64encode(der).decode(), safe="")


async def test_a_certificate_is_good_revoked_held_and_released(answering: OcspOffice) -> None:
    office = answering.office
    request = request_for(office.encryption)
    response = await answering.ask(request)
    assert response.certificate_status is GOOD
    assert response.this_update_utc == datetime.fromtimestamp(NOW, UTC)
    assert response.next_update_utc == datetime.fromtimestamp(NOW + HOUR, UTC)
    await office.hold(office.encryption)
    held = await answering.ask(request)
    assert (held.certificate_status, held.revocation_reason) == (REVOKED, x509.ReasonFlags.certificate_hold)
    await office.release(office.encryption)
    assert (await answering.ask(request)).certificate_status is GOOD
    office.clock.advance(5)
    await office.revoke(office.encryption, reason=COMPROMISE)
    revoked = await answering.ask(request)
    assert (revoked.certificate_status, revoked.revocation_reason) == (
        REVOKED,
        x509.ReasonFlags.key_compromise,
    )
    assert revoked.revocation_time_utc == datetime.fromtimestamp(NOW + 5, UTC)
    assert (await answering.ask(request_for(office.signing))).certificate_status is GOOD


async def test_no_reason_is_told_where_none_was_given(answering: OcspOffice) -> None:
    await answering.office.revoke(answering.office.signing, reason=UNSPECIFIED)
    response = await answering.ask(request_for(answering.office.signing))
    assert (response.certificate_status, response.revocation_reason) == (REVOKED, None)


async def test_what_was_never_issued_is_unknown_and_never_kept(answering: OcspOffice) -> None:
    request = request_for(NO_SERIAL)
    assert (await answering.ask(request)).certificate_status is UNKNOWN
    assert (await answering.ocsp.answer(request)).next_update is None
    assert answering.signed == 2


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
async def test_the_issuer_is_known_by_every_hash_and_the_answer_repeats_it(
    answering: OcspOffice, algorithm: hashes.HashAlgorithm
) -> None:
    response = await answering.ask(request_for(answering.office.signing, algorithm=algorithm))
    assert response.hash_algorithm.name == algorithm.name
    assert response.serial_number == int.from_bytes(answering.office.signing, "big")


async def test_another_ca_and_an_unknown_hash_are_unauthorized(answering: OcspOffice) -> None:
    serial = answering.office.signing
    for request in (
        request_for(serial, issuer=root_ca().certificate),
        request_for(serial, issuer=issuing_ca(KeyType.EC_P384).certificate),  # same name, another key
        request_for(serial, algorithm=hashes.SHA224()),
    ):
        assert (await answering.ask(request)).response_status is Status.UNAUTHORIZED
    assert answering.signed == 0


@pytest.mark.parametrize("size", [1, 16, 32, 128])
async def test_a_nonce_comes_back_and_its_answer_is_for_nobody_else(answering: OcspOffice, size: int) -> None:
    nonce = x509.OCSPNonce(bytes(range(size)))
    request = request_for(answering.office.signing, extensions=[(nonce, False)])
    for _ in range(2):
        response = await answering.ask(request)
        assert response.extensions.get_extension_for_class(x509.OCSPNonce).value == nonce
    assert (await answering.ocsp.answer(request)).next_update is None
    assert answering.signed == 3
    assert not list((await answering.ask(request_for(answering.office.signing))).extensions)


@pytest.mark.parametrize(
    "extensions",
    [
        [(x509.OCSPNonce(b""), False)],
        [(x509.OCSPNonce(bytes(129)), False)],
        [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), True)],
    ],
)
async def test_bad_nonces_and_unknown_critical_extensions_are_malformed(
    answering: OcspOffice, extensions: list[tuple[x509.ExtensionType, bool]]
) -> None:
    request = request_for(answering.office.signing, extensions=extensions)
    assert (await answering.ask(request)).response_status is Status.MALFORMED_REQUEST


async def test_an_unknown_extension_that_is_not_critical_is_passed_over(answering: OcspOffice) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
    request = request_for(answering.office.signing, extensions=[(extension, False)])
    assert (await answering.ask(request)).certificate_status is GOOD


@given(der=st.binary(max_size=200))
def test_garbage_is_no_request(der: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_ocsp_request(der)


@given(place=st.integers(min_value=0), byte=st.integers(0, 255), cut=st.integers(min_value=0))
def test_a_damaged_request_is_read_or_refused_and_nothing_else(place: int, byte: int, cut: int) -> None:
    der = bytearray(request_for(serial_of(1, 1), extensions=[(x509.OCSPNonce(bytes(16)), False)]))
    der[place % len(der)] = byte
    try:
        query = parse_ocsp_request(bytes(der[: len(der) - cut % 3]))
    except InvalidInputError:
        return
    assert query.certificate.serial[0] != 0


async def test_garbage_and_requests_for_two_certificates_are_malformed(answering: OcspOffice) -> None:
    one = request_for(answering.office.signing)
    # SEQUENCE { SEQUENCE { SEQUENCE { Request } } }: the same request twice in the list.
    single = one[6:]
    doubled = _der.sequence(_der.sequence(_der.sequence(single, single)))
    with pytest.raises(NotImplementedError):
        ocsp.load_der_ocsp_request(doubled)
    for der in (b"", b"\x30\x00", one + b"\x00", one[:-1], doubled):
        assert (await answering.ask(der)).response_status is Status.MALFORMED_REQUEST


@pytest.mark.parametrize("key_type", CA_KEY_TYPES)
async def test_responders_of_every_ca_key_type(office: Office, tmp_path: Path, key_type: KeyType) -> None:
    authority = issuing_ca(key_type)
    answering = OcspOffice(tmp_path, office, authority)
    await answering.open()
    certificate = answering.responder.certificate()
    get = certificate.extensions.get_extension_for_class
    assert list(get(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert get(x509.OCSPNoCheck)
    assert get(x509.KeyUsage).value.digital_signature
    assert certificate.not_valid_after_utc == datetime.fromtimestamp(NOW + 2 * DAY, UTC)
    answer = await answering.ocsp.answer(request_for(office.signing, issuer=authority.certificate))
    response = ocsp.load_der_ocsp_response(answer.body)
    assert response.certificates == [certificate]
    by_sha1 = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    assert response.responder_key_hash == by_sha1
    assert (answering.folder / "responder.pem").stat().st_mode & 0o777 == 0o600


async def events(office: Office) -> list[tuple[bytes, bytes]]:
    opened = [open_event(entry.event).event for entry in await office.log.entries(limit=1000)]
    wanted = EventType.EVENT_TYPE_RESPONDER_CERTIFIED
    return [(e.serials[0], e.certificate_sha256[0]) for e in opened if e.type == wanted]


async def test_the_responder_is_renewed_at_half_of_its_life_and_logged_before_it_signs(
    answering: OcspOffice,
) -> None:
    office, request = answering.office, request_for(answering.office.signing)
    first = answering.responder.certificate()
    await answering.ocsp.renew()
    assert answering.made == 1
    assert (await answering.ask(request)).certificates == [first]
    office.clock.advance(DAY)
    await answering.ocsp.renew()
    second = answering.responder.certificate()
    assert answering.made == 2
    assert (await answering.ask(request)).certificates == [second]  # not the one that was kept
    assert [digest for _, digest in await events(office)] == [
        sha256(encode_certificate(certificate)).digest() for certificate in (first, second)
    ]
    assert [path.name for path in answering.folder.iterdir() if "new" in path.name] == []


async def test_a_renewal_that_fails_leaves_the_responder_in_force_and_is_made_up_for(
    answering: OcspOffice,
) -> None:
    first, request = answering.responder.certificate(), request_for(answering.office.signing)
    answering.office.clock.advance(DAY)
    answering.fail = OverloadedError("Too much.")
    with pytest.raises(OverloadedError):
        await answering.ocsp.renew()
    answering.fail = None
    assert answering.responder.certificate() == first
    assert (await answering.ask(request)).certificates == [first]
    await answering.responder.renew_due()  # made, but no worker took it up, as in a crash
    await answering.ocsp.renew()
    assert answering.made == 2
    assert (await answering.ask(request)).certificates == [answering.responder.certificate()]


async def test_an_expired_responder_signs_nothing_and_answers_never_outlive_it(answering: OcspOffice) -> None:
    office, request = answering.office, request_for(answering.office.signing)
    office.clock.advance(2 * DAY - HOUR / 2)
    response = await answering.ask(request)
    assert response.next_update_utc == answering.responder.certificate().not_valid_after_utc
    office.clock.advance(HOUR)
    assert (await answering.ask(request)).response_status is Status.TRY_LATER
    await answering.ocsp.renew()
    assert (await answering.ask(request)).certificate_status is GOOD


@pytest.mark.parametrize("damage", ["gone", "garbage", "another CA", "ended while the CM was off"])
async def test_a_responder_that_is_not_there_or_not_of_this_ca_is_made_anew(
    office: Office, tmp_path: Path, damage: str
) -> None:
    if damage == "another CA":
        other = tmp_path / "other"
        other.mkdir()
        foreign = await OcspOffice(other, office, issuing_ca(KeyType.EC_P384)).open()
    answering = await OcspOffice(tmp_path, office).open()
    path = answering.responder.path
    if damage == "gone":
        path.unlink()
    elif damage == "garbage":
        path.write_text("garbage")
    elif damage == "ended while the CM was off":
        office.clock.advance(30 * DAY)
        before = path.read_bytes()
        answering = await answering.open()  # as at a start
        assert path.read_bytes() != before
    else:
        path.write_bytes(foreign.responder.path.read_bytes())
    await answering.ocsp.renew()
    assert (await answering.ask(request_for(office.signing))).certificate_status is GOOD
    assert answering.made == 2


async def test_when_the_ca_is_another_its_responder_and_its_requests_follow(answering: OcspOffice) -> None:
    office, before = answering.office, answering.authority
    answering.authority = issuing_ca(KeyType.EC_P384)
    for name in ("ca-key.pem", "ca.pem"):
        (answering.folder / name).unlink()
    save_private_key(answering.folder / "ca-key.pem", answering.authority.private_key)
    save_certificates(answering.folder / "ca.pem", [answering.authority.certificate])
    await answering.ocsp.renew()
    newer = request_for(office.signing, issuer=answering.authority.certificate)
    assert (await answering.ask(newer)).certificate_status is GOOD
    older = request_for(office.signing, issuer=before.certificate)
    assert (await answering.ask(older)).response_status is Status.UNAUTHORIZED


async def test_an_answer_is_signed_once_for_half_of_its_time_unless_the_certificate_changes(
    answering: OcspOffice,
) -> None:
    office, request = answering.office, request_for(answering.office.signing)
    first = await answering.ocsp.answer(request)
    office.clock.advance(HOUR / 2 - 1)
    assert await answering.ocsp.answer(request) == first
    office.clock.advance(1)
    assert await answering.ocsp.answer(request) != first
    assert answering.signed == 2
    await office.revoke(office.signing)
    assert (await answering.ask(request)).certificate_status is REVOKED


async def test_workers_that_are_busy_or_gone_mean_try_later(answering: OcspOffice) -> None:
    answering.fail = OverloadedError("Too much work is waiting.")
    request = request_for(answering.office.signing)
    assert (await answering.ask(request)).response_status is Status.TRY_LATER
    answering.fail = None
    assert (await answering.ask(request)).certificate_status is GOOD


async def test_get_is_cached_and_post_is_not(pages: Pages, answering: OcspOffice) -> None:
    request = request_for(answering.office.signing)
    posted = await ask(pages, "POST", "/ocsp", request)
    assert (posted.status, posted.content_type) == (200, "application/ocsp-response")
    assert dict(posted.headers)["Cache-Control"] == "no-store"
    got = await ask(pages, "GET", url_of(request))
    assert got.body == posted.body
    headers = dict(got.headers)
    assert headers["Cache-Control"] == "public, no-transform, max-age=1800"
    assert headers["Last-Modified"] == http_date(NOW)
    assert headers["Expires"] == http_date(NOW + HOUR // 2)
    assert (await ask(pages, "GET", url_of(request), if_none_match=headers["ETag"])).status == 304
    assert (await ask(pages, "HEAD", url_of(request))).body == posted.body  # the server leaves it out


async def test_get_with_a_nonce_or_of_an_unknown_certificate_is_not_cached(
    pages: Pages, answering: OcspOffice
) -> None:
    nonce = [(x509.OCSPNonce(bytes(16)), False)]
    for request in (request_for(answering.office.signing, extensions=nonce), request_for(NO_SERIAL)):
        response = await ask(pages, "GET", url_of(request))
        assert dict(response.headers)["Cache-Control"] == "no-store"
        assert ocsp.load_der_ocsp_response(response.body).response_status is Status.SUCCESSFUL


@pytest.mark.parametrize("path", ["/ocsp/!", "/ocsp/AAAA", "/ocsp/MA%ff", "/ocsp/%", "/ocsp/" + "A" * 9000])
async def test_garbage_in_the_url_is_malformed(pages: Pages, path: str) -> None:
    response = await ask(pages, "GET", path)
    assert response.status == 200
    assert dict(response.headers)["Cache-Control"] == "no-store"
    assert ocsp.load_der_ocsp_response(response.body).response_status is Status.MALFORMED_REQUEST


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/ocsp", "POST"),
        ("GET", "/ocsp/", "POST"),
        ("PUT", "/ocsp", "POST"),
        ("POST", "/ocsp/AAAA", "GET, HEAD"),
    ],
)
async def test_other_methods(pages: Pages, method: str, path: str, allow: str) -> None:
    response = await ask(pages, method, path)
    assert (response.status, dict(response.headers)["Allow"]) == (405, allow)


async def test_a_url_with_a_slash_at_its_end_is_answered_by_both_methods(
    pages: Pages, answering: OcspOffice
) -> None:
    """Such a URL stands in certificates for years, and clients put a slash of their own behind it, or none."""
    request = request_for(answering.office.signing)
    in_url = url_of(request).removeprefix("/ocsp/")
    answers = [
        await ask(pages, "POST", "/ocsp/", request),
        await ask(pages, "GET", f"/ocsp//{in_url}"),
        await ask(pages, "GET", f"/ocsp/{in_url}"),
    ]
    for answer in answers:
        assert answer.status == 200
        assert ocsp.load_der_ocsp_response(answer.body).certificate_status is GOOD


async def test_paths_beside_it_are_not_there(pages: Pages) -> None:
    assert (await ask(pages, "POST", "/ocspx")).status == 404
