"""The CM's public documents over HTTP: the very files, with what caches need, and OpenSSL takes them."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from http import HTTPStatus
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from cm_service.__main__ import PROGRAM
from cm_service.config import CmConfig, adjust
from cm_service.public.documents import HttpRequest, HttpResponse, http_date
from cm_service.public.web import Pages
from keyark.client.access.sessions import open_session
from keyark.client.administration.revocation import publish_crls
from keyark.config import load_config
from keyark.keys.key_types import KeyType
from keyark.x509.certificates import load_certificates, save_certificates
from tests.support.keys.lists import new_crls
from tests.support.keys.pki import NOW, issuing_ca
from tests.support.running.deployment import edit, running
from tests.support.stories.office import Office

HOUR = 3600


@pytest.fixture
async def office() -> Office:
    return await Office().open()


@pytest.fixture
def pages(office: Office, tmp_path: Path) -> Pages:
    crls = new_crls(tmp_path, store=office.store, clock=office.clock, every_hours=2)
    return Pages(crls=crls, ocsp=None, chain=tmp_path / "ca" / "ca.pem", clock=office.clock, max_age=HOUR)


async def ask(pages: Pages, target: str, method: str = "GET", **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await pages.answer(HttpRequest(method=method, target=target, headers=named, body=b""))


def told(response: HttpResponse) -> dict[str, str]:
    if response.file is not None:
        response.file.close()
    return dict(response.headers)


async def test_a_list_is_cached_until_the_next_is_due_and_no_longer_than_configured(
    office: Office, pages: Pages
) -> None:
    await pages.crls.publish_due()
    path = pages.crls.path("full", 0)
    os.utime(path, (NOW, NOW))
    response = await ask(pages, "/crl/full.crl")
    assert (response.status, response.content_type) == (200, "application/pkix-crl")
    assert response.file.read() == path.read_bytes()
    assert response.size == path.stat().st_size
    headers = told(response)
    assert headers["Cache-Control"] == "public, no-transform, max-age=3600"
    assert headers["Expires"] == http_date(NOW + HOUR)
    assert headers["Last-Modified"] == http_date(NOW)
    office.clock.advance(1.5 * HOUR)
    assert "max-age=1800" in told(await ask(pages, "/crl/full.crl"))["Cache-Control"]
    office.clock.advance(HOUR)  # overdue: nobody keeps it
    assert "max-age=0" in told(await ask(pages, "/crl/full.crl"))["Cache-Control"]


async def test_a_client_gets_a_list_again_only_when_there_is_another(office: Office, pages: Pages) -> None:
    await pages.crls.publish_due()
    tag = told(await ask(pages, "/crl/full.crl"))["ETag"]
    assert (await ask(pages, "/crl/full.crl", if_none_match=tag)).status == HTTPStatus.NOT_MODIFIED
    await office.revoke(office.signing)
    await pages.crls.publish_all()
    response = await ask(pages, "/crl/full.crl", if_none_match=tag)
    assert response.status == HTTPStatus.OK
    assert told(response)["ETag"] != tag


async def test_a_list_that_is_replaced_while_it_is_sent_arrives_whole(office: Office, pages: Pages) -> None:
    await pages.crls.publish_due()
    before = pages.crls.path("full", 0).read_bytes()
    response = await ask(pages, "/crl/full.crl")
    await office.revoke(office.signing)
    await pages.crls.publish_all()
    assert pages.crls.path("full", 0).read_bytes() != before
    assert response.file.read() == before
    response.file.close()


async def test_ca_certificates_in_each_format(pages: Pages) -> None:
    ca = issuing_ca().certificate
    issuer = await ask(pages, "/ca/issuer.cer")
    assert issuer.content_type == "application/pkix-cert"
    assert x509.load_der_x509_certificate(issuer.body) == ca
    assert x509.load_pem_x509_certificates((await ask(pages, "/ca/chain.pem")).body) == [ca]
    message = await ask(pages, "/ca/chain.p7c")
    assert message.content_type == "application/pkcs7-mime; smime-type=certs-only"
    assert pkcs7.load_der_pkcs7_certificates(message.body) == [ca]
    headers = told(issuer)
    assert headers["Last-Modified"] == http_date(int(pages.chain.stat().st_mtime))
    again = await ask(pages, "/ca/issuer.cer", if_none_match=headers["ETag"])
    assert again.status == HTTPStatus.NOT_MODIFIED


async def test_the_url_in_a_certificate_leads_to_its_own_issuer_after_a_rollover(
    office: Office, tmp_path: Path
) -> None:
    chains = {}
    for generation, ca in enumerate((issuing_ca(), issuing_ca(KeyType.EC_P384))):
        chains[generation] = tmp_path / f"ca-{generation}.pem"
        save_certificates(chains[generation], [ca.certificate])
    pages = Pages(crls=None, ocsp=None, chain=chains[1], clock=office.clock, max_age=HOUR, chains=chains)
    for path, generation in (("issuer", 0), ("issuer-ca0", 0), ("issuer-ca1", 1)):
        served = x509.load_der_x509_certificate((await ask(pages, f"/ca/{path}.cer")).body)
        assert [served] == load_certificates(chains[generation])


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "*",
        "/crl/",
        "/crl/delta.crl",  # not configured
        "/crl/full-0.crl",
        "/crl/../ca/ca-key.pem",
        "/crl/%2e%2e/ca/ca-key.pem",
        "/crl//etc/passwd",
        "/crl/.full.crl.entries",
        "/ca/ca-key.pem",
        "/ca",
        "http://elsewhere.example/crl/full.crl",
    ],
)
async def test_nothing_else_is_served(pages: Pages, target: str) -> None:
    await pages.crls.publish_due()
    assert (await ask(pages, target)).status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("target", ["/crl/full.crl", "/ca/issuer.cer"])
async def test_documents_are_read_only(pages: Pages, target: str, method: str) -> None:
    response = await ask(pages, target, method)
    assert response.status == HTTPStatus.METHOD_NOT_ALLOWED
    assert told(response)["Allow"] == "GET, HEAD"


async def test_a_list_before_the_first_and_one_whose_file_is_gone(pages: Pages) -> None:
    assert (await ask(pages, "/crl/full.crl")).status == HTTPStatus.NOT_FOUND
    await pages.crls.publish_due()
    pages.crls.path("full", 0).unlink()
    response = await ask(pages, "/crl/full.crl")
    assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert "Retry-After" in told(response)


async def test_without_lists_only_the_ca_is_served(office: Office, pages: Pages) -> None:
    bare = Pages(crls=None, ocsp=None, chain=pages.chain, clock=office.clock, max_age=HOUR)
    assert (await ask(bare, "/crl/full.crl")).status == HTTPStatus.NOT_FOUND
    assert (await ask(bare, "/ca/issuer.cer")).status == HTTPStatus.OK


async def test_a_running_cm_serves_what_it_published(deployment_folder: Path, tmp_path: Path) -> None:
    edit(
        deployment_folder / "cm" / "cm.toml",
        '# [http]\n# listen = "0.0.0.0:8080"',
        '[http]\nlisten = "127.0.0.1:0"',
    )
    async with running(deployment_folder) as deployment:
        cm = deployment.services["cm"]
        assert cm.ready_line.endswith(f"; http at port {cm.http_port}")
        async with open_session(deployment.home(), "cm", identity="officer/officer") as session:
            await publish_crls(session)
        base = f"http://127.0.0.1:{cm.http_port}"
        served = await fetch(f"{base}/crl/full.crl")
        assert served == (deployment_folder / "cm" / "crls" / "full.crl").read_bytes()
        assert (await cm.reload())[-1] == "OCSP answers for the CA certificate in its file"
        chain = (await fetch(f"{base}/ca/chain.pem")).decode()
        assert x509.load_pem_x509_certificates(chain.encode()) == x509.load_pem_x509_certificates(
            (deployment_folder / "cm" / "ca.pem").read_bytes()
        )


async def fetch(url: str) -> bytes:
    def read() -> bytes:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()

    return await asyncio.to_thread(read)


@pytest.mark.parametrize(
    ("configured", "expected"), [(None, 256), ({"listen": "127.0.0.1:1", "max_connections": 7}, 7)]
)
def test_the_command_line_says_where_whatever_the_configuration_does(
    deployment_folder: Path, configured: dict[str, object] | None, expected: int
) -> None:
    config = load_config(deployment_folder / "cm" / "cm.toml", CmConfig)
    config = CmConfig.model_validate({**dict(config), "http": configured})
    arguments = PROGRAM.parser().parse_args(["serve", "cm.toml", "--http", "127.0.0.1:8080"])
    adjusted = adjust(config, arguments)
    assert adjusted.http.listen == "127.0.0.1:8080"
    assert adjusted.http.max_connections == expected
    assert adjust(config, PROGRAM.parser().parse_args(["serve", "cm.toml"])) == config


@pytest.mark.parametrize("address", ["8080", "http://127.0.0.1:80", ":80", "127.0.0.1:"])
def test_an_address_that_is_none_is_a_usage_error(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert PROGRAM.main(["serve", "cm.toml", "--http", address]) == 2
    assert "is not HOST:PORT" in capsys.readouterr().err
