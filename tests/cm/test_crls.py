"""Lists: what was revoked before is on the next one without fail, OpenSSL agrees, and whatever stops a run leaves the
older list whole."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from cm_service.crl_settings import CrlSettings, list_urls, shard_key, sharded_profiles
from cm_service.issuer.generations import IssuerRegister, IssuerRenamedError, IssuerSettings
from cm_service.issuer.profiles import ProfileSettings
from cm_service.public.crls import Crls
from cm_service.records import CRL_CHANGES, CRL_STATE
from keyark.errors import ConfigurationError, KeyarkError
from keyark.errors.services import StoreError, WorkerDiedError
from keyark.keys.key_types import CA_KEY_TYPES, KeyType
from keyark.keys.signatures import IssuerKeyMismatchError
from keyark.x509.certificates import encode_certificate, save_certificates
from keyark.x509.crl_entries import encode_entry
from keyark.x509.crls import CrlContent, CrlIssuer
from keyark.x509.distribution import Distribution
from keyark.x509.end_entity import EndEntityProfile
from tests.support.keys.certificates import add_pairs, pair_record, serial_of
from tests.support.keys.lists import InlineCrlPool, Openssl, load_crl, new_crls, serials_of
from tests.support.keys.pki import DAY, NOW, issue_pair, issuing_ca, root_ca
from tests.support.stories.office import COMPROMISE, SUPERSEDED, Office

URL = "http://crl.example.org/full.crl"
DELTA_URL = "http://crl.example.org/delta.crl"
HOUR = 3600


@pytest.fixture
async def office() -> Office:
    return await Office().open()


@pytest.fixture
def crls(office: Office, tmp_path: Path) -> Crls:
    return new_crls(tmp_path, store=office.store, clock=office.clock)


@pytest.fixture
def openssl(tmp_path: Path) -> Openssl:
    return Openssl(tmp_path / "openssl")


def full(crls: Crls) -> x509.CertificateRevocationList:
    return load_crl(crls.path("full", 0))


async def test_openssl_reads_the_list_and_verifies_certificates_by_it(
    office: Office, crls: Crls, openssl: Openssl
) -> None:
    signing = openssl.certificate("signing.pem", office.pairs[0].signing_certificate)
    encryption = openssl.certificate("encryption.pem", office.pairs[0].encryption_certificate)
    await crls.publish_due()
    assert openssl.verify(signing, openssl.pem_crls(crls.path("full", 0)), NOW, "-crl_check") == "OK"
    await office.revoke(office.signing, invalidity_time=NOW - DAY)
    await crls.publish_all()
    path = crls.path("full", 0)
    text = openssl.run("crl", "-inform", "DER", "-in", path, "-noout", "-text", "-CAfile", "trusted.pem")
    assert "verify OK" in text.stderr
    for words in ("Version 2", "X509v3 CRL Number", "Key Compromise", "Invalidity Date", "Issuing CA"):
        assert words in text.stdout
    lists = openssl.pem_crls(path)
    assert "certificate revoked" in openssl.verify(signing, lists, NOW, "-crl_check")
    assert openssl.verify(encryption, lists, NOW, "-crl_check") == "OK"
    assert "CRL has expired" in openssl.verify(encryption, lists, NOW + 3 * DAY, "-crl_check")
    assert "unable to get certificate CRL" in openssl.verify(encryption, lists, NOW, "-crl_check_all")
    root = CrlIssuer(certificate=root_ca().certificate, private_key=root_ca().private_key)
    of_root = openssl.folder / "root.crl"
    of_root.write_bytes(root.issue(CrlContent(number=1, this_update=NOW, next_update=NOW + DAY, entries=b"")))
    assert openssl.verify(encryption, openssl.pem_crls(path, of_root), NOW, "-crl_check_all") == "OK"


async def test_deltas_take_certificates_out_and_put_them_back_for_openssl(
    office: Office, tmp_path: Path, openssl: Openssl
) -> None:
    crls = new_crls(
        tmp_path,
        store=office.store,
        clock=office.clock,
        urls=[URL],
        delta_every_minutes=60,
        delta_urls=[DELTA_URL],
    )
    pair = pair_record(0)
    issued = issue_pair(
        issuing_ca(),
        profile=EndEntityProfile(distribution=Distribution(crl_urls=(URL,))),
        signing_serial=pair.signing_serial,
        encryption_serial=pair.encryption_serial,
    )
    signing = openssl.certificate("signing.pem", issued.signing)
    encryption = openssl.certificate("encryption.pem", issued.encryption)
    await office.hold(office.encryption)
    await crls.publish_due()
    office.clock.advance(2 * HOUR)
    at = NOW + 2 * HOUR
    await office.revoke(office.signing)
    await office.release(office.encryption)
    number = crls.published("full", 0).number
    await crls.publish_due()
    assert crls.published("full", 0).number == number  # only the delta was due
    delta = load_crl(crls.path("delta", 0))
    assert delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator).critical
    base = full(crls)
    points = base.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert points[0].full_name[0].value == DELTA_URL
    only_full = openssl.pem_crls(crls.path("full", 0))
    assert openssl.verify(signing, only_full, at, "-crl_check") == "OK"
    assert "certificate revoked" in openssl.verify(encryption, only_full, at, "-crl_check")
    both = openssl.pem_crls(crls.path("full", 0), crls.path("delta", 0))
    options = ("-crl_check", "-use_deltas", "-extended_crl")
    assert "certificate revoked" in openssl.verify(signing, both, at, *options)
    assert openssl.verify(encryption, both, at, *options) == "OK"


async def test_a_delta_serves_holders_of_the_newest_full_list_and_of_the_one_before(
    office: Office, tmp_path: Path
) -> None:
    crls = new_crls(
        tmp_path, store=office.store, clock=office.clock, delta_every_minutes=60, delta_urls=[DELTA_URL]
    )
    await crls.publish_all()
    first = crls.published("full", 0).number
    await office.revoke(office.signing)
    await crls.publish_all()
    await office.revoke(office.encryption)
    await crls.publish_all()
    second = crls.published("full", 0).earlier_number
    delta = load_crl(crls.path("delta", 0))
    assert delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number == second > first
    assert serials_of(delta) == {office.encryption}
    assert office.store.read(lambda txn: txn.count(CRL_CHANGES)) == 1  # older changes are forgotten


async def test_the_list_is_published_when_due_and_not_before(office: Office, crls: Crls) -> None:
    await crls.publish_due()
    first = crls.path("full", 0).read_bytes()
    office.clock.advance(DAY - 1)
    await crls.publish_due()
    assert crls.path("full", 0).read_bytes() == first
    office.clock.advance(1)
    await crls.publish_due()
    found = full(crls)
    assert found.last_update_utc.timestamp() == NOW + DAY
    assert found.next_update_utc.timestamp() == NOW + 3 * DAY  # a day, and a day of overlap
    crls.path("full", 0).unlink()
    await crls.publish_due()
    assert full(crls).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3


async def test_a_clock_that_was_set_back_does_not_stop_the_lists(office: Office, crls: Crls) -> None:
    office.clock.advance(300 * DAY)
    await crls.publish_due()
    office.clock.advance(-300 * DAY)
    await office.revoke(office.signing)
    await crls.publish_due()
    assert serials_of(full(crls)) == {office.signing}


async def test_an_empty_list_has_no_element_of_entries(crls: Crls, openssl: Openssl) -> None:
    await crls.publish_due()
    text = openssl.run("crl", "-inform", "DER", "-in", crls.path("full", 0), "-noout", "-text")
    assert "No Revoked Certificates" in text.stdout


async def test_what_expired_stands_on_one_more_list_and_then_on_none(office: Office, crls: Crls) -> None:
    short = pair_record(3, not_after=NOW + HOUR)
    await add_pairs(office.store, [*office.pairs, short])
    await office.revoke(short.signing_serial, office.signing)
    await crls.publish_due()
    both = {short.signing_serial, office.signing}
    assert serials_of(full(crls)) == both
    office.clock.advance(DAY)
    await crls.publish_due()
    assert serials_of(full(crls)) == both  # expired since the last list
    office.clock.advance(DAY)
    await crls.publish_due()
    assert serials_of(full(crls)) == {office.signing}


async def test_numbers_grow_and_those_of_failed_runs_are_burned(office: Office, tmp_path: Path) -> None:
    pool = InlineCrlPool(tmp_path / "ca")
    crls = new_crls(tmp_path, store=office.store, clock=office.clock, pool=pool)
    await crls.publish_all()
    pool.before = crash
    with pytest.raises(WorkerDiedError):
        await crls.publish_all()
    pool.before = lambda: None
    await crls.publish_all()
    assert full(crls).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3


def crash() -> None:
    raise WorkerDiedError("A worker died.")


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_leaves_the_old_list_whole_and_the_next_run_tells_all(
    office: Office, tmp_path: Path, moment: str
) -> None:
    """The process ends between revocation and list, before the new list is in place or before that is recorded."""
    pool = InlineCrlPool(tmp_path / "ca")
    crls = new_crls(tmp_path, store=office.store, clock=office.clock, pool=pool)
    await crls.publish_due()
    old = crls.path("full", 0).read_bytes()
    await office.revoke(office.signing)
    setattr(pool, moment, crash)
    with pytest.raises(WorkerDiedError):
        await crls.publish_all()
    if moment == "before":
        assert crls.path("full", 0).read_bytes() == old
    (crls.settings.folder / ".full.crl.left-behind").write_bytes(b"half a list")
    # Another process, with nothing but store and folder.
    setattr(pool, moment, lambda: None)
    again = new_crls(tmp_path, store=office.store, clock=office.clock, pool=pool)
    office.clock.advance(DAY)
    await again.publish_due()
    assert serials_of(full(again)) == {office.signing}
    assert [path.name for path in again.settings.folder.iterdir()] == ["full.crl"]


async def test_a_cancelled_run_leaves_the_old_list_whole(office: Office, tmp_path: Path) -> None:
    pool = InlineCrlPool(tmp_path / "ca")
    crls = new_crls(tmp_path, store=office.store, clock=office.clock, pool=pool)
    await crls.publish_due()
    old = crls.path("full", 0).read_bytes()
    await office.revoke(office.signing)

    def cancel() -> None:
        raise asyncio.CancelledError

    pool.before = cancel
    with pytest.raises(asyncio.CancelledError):
        await crls.publish_all()
    assert crls.path("full", 0).read_bytes() == old
    pool.before = lambda: None
    await crls.publish_all()  # its turn was given back
    assert serials_of(full(crls)) == {office.signing}


async def test_a_revocation_while_a_list_is_made_is_on_it_or_on_the_next(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of one entry, and a revocation, a release and a hold between any two of them."""
    monkeypatch.setattr("cm_service.public.crls.PAGE", 1)
    records = [pair_record(number) for number in range(20)]
    await add_pairs(office.store, records)
    serials = [record.signing_serial for record in records]
    await office.revoke(*serials[:10])
    await office.hold(serials[10])
    crls = new_crls(
        tmp_path, store=office.store, clock=office.clock, delta_every_minutes=60, delta_urls=[DELTA_URL]
    )
    view, steps = office.store.view, itertools.count()

    async def view_and_change(fn):
        step = next(steps)
        if step % 20 == 0 and 11 + step // 20 < 20:
            await office.revoke(serials[11 + step // 20], reason=SUPERSEDED)
        if step == 130:
            await office.release(serials[10])
        return await view(fn)

    with monkeypatch.context() as patched:
        patched.setattr(office.store, "view", view_and_change)
        await crls.publish_all()
    assert serials_of(full(crls)) >= set(serials[:10])
    revoked = office.entries()
    delta = load_crl(crls.path("delta", 0))
    known = serials_of(full(crls))
    removed = {
        serial
        for serial in serials_of(delta)
        if delta.get_revoked_certificate_by_serial_number(int.from_bytes(serial, "big"))
        .extensions.get_extension_for_class(x509.CRLReason)
        .value.reason
        == x509.ReasonFlags.remove_from_crl
    }
    assert (known | serials_of(delta)) - removed == revoked
    await crls.publish_all()
    assert serials_of(full(crls)) == revoked


@pytest.mark.parametrize("shards", [2, 16, 256])
async def test_shards_hold_together_what_there_is(office: Office, tmp_path: Path, shards: int) -> None:
    records = [pair_record(number) for number in range(40)]
    await add_pairs(office.store, records)
    revoked = {record.signing_serial for record in records}
    await office.revoke(*revoked)
    crls = new_crls(
        tmp_path, store=office.store, clock=office.clock, shards=shards, urls=["http://a.example/{shard}.crl"]
    )
    await crls.publish_due()
    found: set[bytes] = set()
    for shard in range(shards):
        crl = load_crl(crls.path("full", shard))
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        assert point.critical
        assert point.value.full_name[0].value == f"http://a.example/{shard}.crl"
        serials = serials_of(crl)
        assert all(serial[-1] % shards == shard for serial in serials)
        found |= serials
    assert found == revoked


async def test_openssl_takes_a_shard_only_for_certificates_that_name_it(
    office: Office, tmp_path: Path, openssl: Openssl
) -> None:
    url = "http://crl.example.org/{shard}.crl"
    crls = new_crls(tmp_path, store=office.store, clock=office.clock, shards=2, urls=[url])
    await crls.publish_due()
    shard = office.signing[-1] % 2
    issued = issue_pair(
        issuing_ca(),
        profile=EndEntityProfile(distribution=Distribution(crl_urls=(url.replace("{shard}", str(shard)),))),
        signing_serial=office.signing,
    )
    certificate = openssl.certificate("certificate.pem", issued.signing)
    own, other = (openssl.pem_crls(crls.path("full", s)).read_text() for s in (shard, 1 - shard))
    for text, expected in ((own, "OK"), (other, "ifferent CRL scope")):
        lists = openssl.folder / "one.pem"
        lists.write_text(text)
        assert expected in openssl.verify(certificate, lists, NOW, "-crl_check")


@pytest.mark.parametrize("key_type", CA_KEY_TYPES)
def test_every_type_of_ca_key_signs_lists(key_type: KeyType) -> None:
    ca = issuing_ca(key_type)
    issuer = CrlIssuer(certificate=ca.certificate, private_key=ca.private_key)
    entry = encode_entry(serial_of(1, 1), revocation_time=NOW, reason=COMPROMISE, invalidity_time=0)
    der = issuer.issue(CrlContent(number=7, this_update=NOW, next_update=NOW + DAY, entries=entry))
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(ca.certificate.public_key())
    assert len(crl) == 1


def test_times_are_right_across_2050(openssl: Openssl) -> None:
    """RFC 5280 §5.1.2.4: UTCTime through 2049, GeneralizedTime from 2050; invalidity dates are always the latter."""
    first_2050 = 2_524_608_000
    ca = issuing_ca()
    issuer = CrlIssuer(certificate=ca.certificate, private_key=ca.private_key)
    entries = b"".join(
        encode_entry(
            serial_of(n, 1), revocation_time=first_2050 + n, reason=1, invalidity_time=first_2050 - DAY
        )
        for n in (-1, 0)
    )
    der = issuer.issue(
        CrlContent(number=1, this_update=first_2050 - 1, next_update=first_2050, entries=entries)
    )
    for element in (b"\x17\x0d491231235959Z\x18\x0f20500101000000Z", b"\x18\x0f20491231000000Z"):
        assert element in der
    crl = x509.load_der_x509_crl(der)
    assert [entry.revocation_date_utc.timestamp() - first_2050 for entry in crl] == [-1, 0]
    (openssl.folder / "late.crl").write_bytes(der)
    text = openssl.run("crl", "-inform", "DER", "-in", "late.crl", "-noout", "-text").stdout
    for words in (
        "Last Update: Dec 31 23:59:59 2049",
        "Next Update: Jan  1 00:00:00 2050",
        "Dec 31 00:00:00 2049",
    ):
        assert words in text


def test_a_ca_that_may_not_sign_lists_does_not() -> None:
    key = issuing_ca().private_key
    certificate = issue_pair(issuing_ca()).signing
    with pytest.raises(IssuerKeyMismatchError):
        CrlIssuer(certificate=x509.load_der_x509_certificate(certificate), private_key=key)


async def test_a_folder_that_cannot_be_written_is_said(office: Office, tmp_path: Path) -> None:
    crls = new_crls(tmp_path, store=office.store, clock=office.clock)
    crls.settings.folder.write_bytes(b"a file in the way")
    with pytest.raises(KeyarkError) as caught:
        await crls.publish_all()
    assert caught.value.reason == "UNWRITABLE_FILE"
    crls.settings.folder.unlink()
    await crls.publish_all()


async def test_where_the_number_cannot_be_reserved_no_list_is_made(
    office: Office, crls: Crls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise StoreError("no room")

    monkeypatch.setattr(office.store, "commit", fail)
    with pytest.raises(StoreError):
        await crls.publish_all()
    assert not crls.path("full", 0).exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"shards": 3},
        {"shards": 512},
        {"every_hours": 0},
        {"delta_every_minutes": 5},
        {"delta_urls": [DELTA_URL]},
        {"shards": 2, "delta_every_minutes": 5, "delta_urls": [DELTA_URL]},
        {"delta_every_minutes": 5, "delta_urls": ["http://crl.example.org/{shard}.crl"]},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shards|every_hours|delta"):
        CrlSettings(folder=tmp_path, **wrong)


def profile(*urls: str) -> ProfileSettings:
    return ProfileSettings(
        description="",
        signing_key_types=[KeyType.EC_P256],
        encryption_key_types=[KeyType.EC_P256],
        crl_urls=list(urls),
    )


def test_shards_and_urls_of_profiles_have_to_fit(tmp_path: Path) -> None:
    one, two = CrlSettings(folder=tmp_path), CrlSettings(folder=tmp_path, shards=2)
    sharded = "http://a.example/{shard}.crl"
    assert list_urls({"a": profile(URL), "b": profile(URL, DELTA_URL)}, one) == []
    assert list_urls({"a": profile(URL), "b": profile()}, one) == []
    assert list_urls({"a": profile(sharded)}, two) == [sharded]
    for profiles, settings in (
        ({"a": profile(URL)}, two),
        ({"a": profile(sharded)}, one),
        ({"a": profile(sharded), "b": profile()}, two),
    ):
        with pytest.raises(ConfigurationError):
            list_urls(profiles, settings)
    workers = sharded_profiles({"a": profile(sharded)}, 2)
    assert workers[shard_key("a", b"\x05", 2)].crl_urls == ("http://a.example/1.crl",)


async def test_any_web_server_can_read_the_lists(crls: Crls) -> None:
    await crls.publish_due()
    assert crls.settings.folder.stat().st_mode & 0o555 == 0o555
    assert crls.path("full", 0).stat().st_mode & 0o777 == 0o644


async def test_nss_loads_the_full_list_of_a_ca_with_urls(office: Office, tmp_path: Path) -> None:
    """It takes no list with a critical issuing distribution point, which a single list of everything does not need."""
    settings = CrlSettings(folder=tmp_path / "crls")
    urls = list_urls({"user": profile("http://crl.example.org/full.crl")}, settings)
    crls = new_crls(tmp_path, store=office.store, clock=office.clock, urls=urls)
    await office.revoke(office.signing)
    await crls.publish_due()
    store, ca = f"sql:{tmp_path}", tmp_path / "ca.der"
    ca.write_bytes(encode_certificate(issuing_ca().certificate))
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    for command in (
        ("certutil", "-N", "-d", store, "--empty-password"),
        ("certutil", "-A", "-d", store, "-n", "ca", "-t", "CT,C,C", "-i", ca),
        ("crlutil", "-I", "-d", store, "-i", crls.path("full", 0), "-B"),
    ):
        run(command)
    assert " CRL" in run(("crlutil", "-L", "-d", store)).stdout.splitlines()[-1]


async def test_lists_under_a_name_from_before_the_first_certificate_are_made_anew(tmp_path: Path) -> None:
    office = Office()
    await office.log.open(office.store)
    crls = new_crls(tmp_path, store=office.store, clock=office.clock)
    register = IssuerRegister(store=office.store, log=office.log, clock=office.clock)
    settings = IssuerSettings(key="file:key.pem", chain=tmp_path / "ca.pem")
    for authority, is_due in ((issuing_ca(), False), (root_ca(), True), (root_ca(), False)):
        save_certificates(settings.chain, [authority.certificate])
        await office.store.update(
            lambda txn: txn.delete(CRL_STATE, b"issuer/\0")
        )  # only the name is of interest
        await crls.publish_due()
        before = crls.published("full", 0)
        await register.record(settings)
        assert (crls.published("full", 0) is None) is is_due
        await crls.publish_due()
        after = crls.published("full", 0)
        assert before
        assert after
        assert (after.number > before.number) is is_due
    await add_pairs(office.store, office.pairs)
    save_certificates(settings.chain, [issuing_ca().certificate])
    await office.store.update(lambda txn: txn.delete(CRL_STATE, b"issuer/\0"))
    with pytest.raises(IssuerRenamedError, match="CN=Issuing CA as UTF8String"):
        await register.record(settings)
