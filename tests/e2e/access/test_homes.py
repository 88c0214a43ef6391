"""`keyark home`: a home is made of one public file, and of none that the internal CA did not sign."""

from __future__ import annotations

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from keyark.client.access.bundles import create_home, fetch, update_home
from keyark.client.access.home import Home
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.bundle import BundleSource, sign_bundle
from keyark.errors import KeyarkError
from keyark.identity.bundles import BUNDLE, Bundle, BundleError, OlderBundleError
from keyark.identity.certificates import fingerprint
from keyark.identity.revoked import OlderIdentityListError
from tests.support.running.deployment import Deployment
from tests.support.running.processes import keyark, run_printed


@contextmanager
def published(folder: Path) -> Iterator[str]:
    """A web server with the files of a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Tell nobody."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def internal_ca(folder: Path) -> str:
    return fingerprint(DeploymentAuthority.load(folder / "authority").internal.certificate)


def signed(folder: Path) -> Bundle:
    authority = DeploymentAuthority.load(folder / "authority")
    return sign_bundle(BundleSource.of_home(folder), authority, folder / BUNDLE)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


async def test_a_person_comes_to_a_home_and_an_identity_without_copying_a_file_twice(
    deployment: Deployment, tmp_path: Path
) -> None:
    folder, home = deployment.folder, tmp_path / "home"
    (tmp_path / "public").mkdir()
    told = (await run_printed(f"keyark home bundle --home {folder}")).split()[-1]
    shutil.copy(folder / BUNDLE, tmp_path / "public")
    with published(tmp_path / "public") as url:
        await run_printed(f"keyark home create {home} --from {url}/{BUNDLE} --fingerprint {told}")
    await run_printed(f"keyark identities request officer/dora --home {home}")
    csr, out = home / "identities/officer/dora/identity.csr", tmp_path / "dora.pem"
    await run_printed(f"keyark identities issue officer/dora {csr} --home {folder} --out {out}")
    await run_printed(f"keyark identities install {out} --home {home}")
    assert await run_printed(f"keyark enrollments list --home {home} --as officer/dora --json") == "[]\n"


def test_on_three_hosts_the_authority_signs_what_the_services_made(
    deployment_folder: Path, tmp_path: Path
) -> None:
    folder, out = deployment_folder, tmp_path / "deployment.toml"
    addresses = (
        "--rm",
        "rm.example.org:7710",
        "--cm",
        "cm.example.org:7711",
        "--drm",
        "drm.example.org:7712",
    )
    logs = ("--rm-log", folder / "rm/log.pub.pem", "--cm-log", folder / "cm/log.pub.pem")
    command = ("home", "bundle", "--authority", folder / "authority", "--out", out, *addresses, *logs)
    public = ("--ca", folder / "cm/ca.pem", "--transport", folder / "drm/transport-keys/1/transport.pem")
    assert "--transport" in keyark(*command, *public[:2], code=2).stderr
    told = keyark(*command, *public).stdout.split()[-1]
    keyark("home", "create", tmp_path / "home", "--from", out, "--fingerprint", told)
    made, there = Home.load(tmp_path / "home"), Home.load(folder)
    assert made.config.drm == "drm.example.org:7712"
    assert (made.trust_anchor, made.ca_chain) == (there.trust_anchor, there.ca_chain)


def test_a_number_that_no_later_one_could_follow_is_no_bundle(deployment_folder: Path) -> None:
    data = re.sub(
        rb"number = \d+", b"number = 9223372036854775808", (deployment_folder / BUNDLE).read_bytes()
    )
    with pytest.raises(BundleError, match="not the bundle of a deployment"):
        Bundle.parse(data)


def test_init_writes_the_bundle_of_what_it_made(deployment_folder: Path, tmp_path: Path) -> None:
    create_home(
        tmp_path / "home",
        Bundle.parse(fetch(str(deployment_folder / BUNDLE))),
        believed=internal_ca(deployment_folder),
    )
    there, made = Home.load(deployment_folder), Home.load(tmp_path / "home")
    assert (there.trust_anchor, there.ca_chain) == (made.trust_anchor, made.ca_chain)
    for name in ("transport.pem", "rm-log.pem", "cm-log.pem"):
        assert (deployment_folder / name).read_bytes() == (tmp_path / "home" / name).read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('rm = "127', 'rm = "128'),
        ("number = 1", "number = 2"),
        ("version = 1\n", "version = 1\n# more\n"),
        ('signature = "', 'signature = "AA'),
    ],
)
def test_a_bundle_that_anybody_altered_makes_no_home(
    deployment_folder: Path, tmp_path: Path, before: str, after: str
) -> None:
    path = deployment_folder / BUNDLE
    edit(path, before, after)
    with pytest.raises(BundleError):
        create_home(
            tmp_path / "home", Bundle.parse(fetch(str(path))), believed=internal_ca(deployment_folder)
        )
    assert not (tmp_path / "home").exists()


def test_nothing_may_stand_behind_the_signature(deployment_folder: Path) -> None:
    path = deployment_folder / BUNDLE
    for more in (b'rm = "evil:1"\n', b"\n", b'signature = "AA=="\n'):
        with pytest.raises(BundleError):
            Bundle.parse(path.read_bytes() + more).verify([internal_ca(deployment_folder)])


def test_another_ca_does_not_stand_in_for_the_one_that_the_operator_told(
    deployment_folder: Path, tmp_path: Path
) -> None:
    """Somebody in the network, or the operator of the web server, offers a deployment of their own."""
    told, path = internal_ca(deployment_folder), deployment_folder / BUNDLE
    keyark("init", tmp_path / "other")
    other = (tmp_path / "other" / BUNDLE).read_text()
    with pytest.raises(BundleError, match="not signed"):
        create_home(tmp_path / "home", Bundle.parse(other.encode()), believed=told)
    both = other.replace(
        "trust_anchor = '''\n", "trust_anchor = '''\n" + (deployment_folder / "trust-anchor.pem").read_text()
    )
    with pytest.raises(BundleError, match="not signed"):
        create_home(tmp_path / "home", Bundle.parse(both.encode()), believed=told)
    asked = keyark("home", "create", tmp_path / "home", "--from", path, code=2)
    assert "--fingerprint" in asked.stderr
    assert not (tmp_path / "home").exists()


def test_a_home_with_anothers_transport_certificate_is_not_signed(
    deployment_folder: Path, tmp_path: Path
) -> None:
    assert "--password-file FILE encrypts them" in keyark("init", tmp_path / "other").stderr
    shutil.copy(tmp_path / "other" / "transport.pem", deployment_folder)
    before = (deployment_folder / BUNDLE).read_bytes()
    with pytest.raises(KeyarkError, match="internal CA"):
        signed(deployment_folder)
    assert (deployment_folder / BUNDLE).read_bytes() == before


def test_a_home_takes_what_changed_and_nothing_older(deployment_folder: Path, tmp_path: Path) -> None:
    home, first = tmp_path / "home", signed(deployment_folder)
    create_home(home, first, believed=internal_ca(deployment_folder))
    edit(deployment_folder / "keyark.toml", 'rm = "127.0.0.1', 'rm = "rm.example.org')
    revoke, reason = ("identities", "revoke"), ("--reason", "keyCompromise", "--home", deployment_folder)
    keyark(*revoke, "client/enroller", *reason)
    newest = Bundle.parse((deployment_folder / BUNDLE).read_bytes())  # which the revocation signed anew
    told = keyark("home", "update", "--from", deployment_folder / BUNDLE, "--home", home).stdout
    assert "is up to date with bundle" in told
    assert Home.load(home).config.rm.startswith("rm.example.org:")
    assert Home.load(home).revoked.serials
    with pytest.raises(OlderBundleError):
        update_home(home, first)
    (home / BUNDLE).unlink()
    keyark(*revoke, "officer/officer", *reason)
    shutil.copy(deployment_folder / "revoked-identities.crl", home)
    with pytest.raises(OlderIdentityListError):
        update_home(home, newest)


def test_a_bundle_of_another_deployment_updates_no_home(deployment_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    create_home(home, signed(deployment_folder), believed=internal_ca(deployment_folder))
    keyark("init", tmp_path / "other")
    before = (home / "keyark.toml").read_bytes()
    with pytest.raises(BundleError, match="not signed"):
        update_home(home, Bundle.parse((tmp_path / "other" / BUNDLE).read_bytes()))
    assert (home / "keyark.toml").read_bytes() == before


def test_what_cannot_be_fetched_is_told(tmp_path: Path) -> None:
    for source in (tmp_path / "missing", "http://127.0.0.1:1/deployment.toml", "http://[/"):
        made = ("home", "create", tmp_path / "home", "--from", source)
        assert str(source) in keyark(*made, "--fingerprint", "00", code=1).stderr
