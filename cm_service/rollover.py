"""The CM's commands about its CA key: another key (`ca-key`), letting it sign from the next start on (`ca-switch`), the
request for the present one's certificate (`ca-request`), and whether the CA has issued anything (`ca-issued`).
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cm_service.config import CmConfig
from cm_service.issuer.generations import for_issuer
from cm_service.records import SCHEMA_VERSION, TABLES, has_issued
from keyark.config import load_config
from keyark.custody.uris import load_private_key_by_uri
from keyark.errors import ConfigurationError
from keyark.files import PRIVATE, PUBLIC, is_there, write_file
from keyark.keys.key_types import CA_KEY_TYPES, key_type_of, narrow_signing_key, parse_key_type
from keyark.keys.private_keys import load_private_key
from keyark.keys.signatures import check_crl_issuer
from keyark.service.control import ServiceNotRunningError, ask
from keyark.service.program.initialization import new_signing_key, save_request
from keyark.service.program.output import answer
from keyark.store import open_store
from keyark.x509.authority import ca_name, request_ca
from keyark.x509.certificates import load_certificates

ISSUED: Final = "issued"
"""The command of the running CM that answers whether it has issued anything."""
_SECTION: Final = re.compile(r"^\[issuer\]\s*?$(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
_REPLACED: Final = re.compile(r"^(?:generation\s*=.*|earlier\s*=\s*\[\])\n", re.MULTILINE)


def add_commands(commands: Any) -> None:
    """Add them to the CM's program; each prints JSON."""
    key = commands.add_parser("ca-key", help="make the CA's next key and the request for its certificate")
    key.add_argument("config", type=Path, help="cm.toml")
    key.add_argument("--name", required=True, help="common name of the issuing CA with this key")
    key.add_argument("--ca-key", default="ec-p256", help=" ".join(t.value for t in CA_KEY_TYPES))
    key.set_defaults(command=_printing(lambda parsed: make_key(parsed.config, parsed.name, parsed.ca_key)))
    switch = commands.add_parser("ca-switch", help="have the CA's next key sign from the CM's next start")
    switch.add_argument("config", type=Path, help="cm.toml")
    switch.add_argument(
        "--check", action="store_true", help="report whether it is possible, and change nothing"
    )
    switch.set_defaults(
        command=_printing(lambda parsed: (check_switch if parsed.check else switch_key)(parsed.config))
    )
    request = commands.add_parser("ca-request", help="make a new certificate request for the current CA key")
    request.add_argument("config", type=Path, help="cm.toml")
    request.set_defaults(command=_printing(lambda parsed: remake_request(parsed.config)))
    issued = commands.add_parser("ca-issued", help="report whether the CA has issued certificates")
    issued.add_argument("config", type=Path, help="cm.toml")
    issued.set_defaults(command=_printing(lambda parsed: ask_issued(parsed.config)))


def _printing(work: Callable[[argparse.Namespace], dict[str, Any]]) -> Callable[[argparse.Namespace], None]:
    return lambda parsed: answer(parsed, work(parsed))


def _next_files(config: CmConfig) -> tuple[int, Path, Path, Path]:
    """Return the next generation's number, and where its key, request and chain are."""
    number, folder = config.issuer.generation + 1, config.service.folder
    key, request, chain = (f"ca-key-{number}.pem", f"ca-{number}.csr", f"ca-{number}.pem")
    return number, folder / key, folder / request, folder / chain


def make_key(path: Path, name: str, key_type: str) -> dict[str, Any]:
    """Make the key and the request, or find those of an earlier call; returns where they are.

    Raises ConfigurationError where profiles leave no place for URLs of another CA key, or the name is the present
    one, and UnsupportedKeyError.
    """
    permitted = parse_key_type(key_type, permitted=CA_KEY_TYPES, field="--ca-key")
    config = load_config(path, CmConfig)
    number, key_path, request, chain = _next_files(config)
    for_issuer(config.profiles, number)
    if not request.exists():
        _check_name(config, ca_name(name))
        if not is_there(key_path):
            new_signing_key(key_path, permitted)
        key = narrow_signing_key(load_private_key(key_path))  # one that is there may be certified already
        if key_type_of(key.public_key()) is not permitted:
            raise ConfigurationError(
                f"{key_path} is a key of another type; give --ca-key {key_type_of(key.public_key()).value}."
            )
        save_request(request, request_ca(key, subject=ca_name(name)))
    return {"generation": number, "request": str(request), "chain": str(chain)}


def _check_name(config: CmConfig, name: x509.Name) -> None:
    if name == load_certificates(config.issuer.chain)[0].subject:
        raise ConfigurationError(
            "The next key would have the same name as the current one, and their revocation lists could "
            "not be told apart. Give another name."
        )


def switch_key(path: Path) -> dict[str, Any]:
    """Change the configuration: the next key signs, the present one keeps lists and OCSP of what it signed.

    Raises as ``check_switch`` does.
    """
    made, changed = _switched(path)
    write_file(path, changed.encode(), mode=PRIVATE)
    return made


def check_switch(path: Path) -> dict[str, Any]:
    """Return what a switch would answer; nothing is changed.

    Raises ConfigurationError where the next key has no good certificate, or the file cannot be changed by a program.
    """
    return _switched(path)[0]


def _switched(path: Path) -> tuple[dict[str, Any], str]:
    """Return what a switch answers, and the configuration after it."""
    config = load_config(path, CmConfig)
    number, key_path, _, chain = _next_files(config)
    if not chain.exists():
        raise ConfigurationError(
            f"{chain} is missing; save the certificate of the next key there, followed by those above it."
        )
    certificate = load_certificates(chain)[0]
    uri = f"file:{key_path.name}"
    check_crl_issuer(certificate, narrow_signing_key(load_private_key_by_uri(uri, config.service.folder)))
    _check_name(config, certificate.subject)
    changed = _changed(path.read_text(), number, uri, chain.name)
    trial = path.with_name(f".{path.name}.new")
    write_file(trial, changed.encode(), mode=PRIVATE)
    try:
        load_config(trial, CmConfig)
    finally:
        trial.unlink()
    return {"generation": number, "certificate": str(chain)}, changed


def remake_request(path: Path) -> dict[str, Any]:
    """Make the request for the present key anew: for the name, as encoded, and key identifier that are in force.

    Raises ConfigurationError, and the errors of keys and certificates.
    """
    config = load_config(path, CmConfig)
    certificate = load_certificates(config.issuer.chain)[0]
    key = narrow_signing_key(load_private_key_by_uri(config.issuer.key, config.service.folder))
    key_id = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    request = request_ca(key, subject=certificate.subject, key_id=key_id)
    target = config.issuer.chain.with_suffix(".csr")
    write_file(target, request.public_bytes(Encoding.PEM), mode=PUBLIC)
    return {"request": str(target)}


def ask_issued(path: Path) -> dict[str, Any]:
    """Ask the store, or the CM that has it open, whether anything was issued; says too whether the CM runs.

    Raises ConfigurationError and the errors of control socket and store.
    """
    config = load_config(path, CmConfig)
    try:
        return {"issued": ask(config.store.path, ISSUED), "running": True}
    except ServiceNotRunningError:
        has_store = config.store.path.exists()
        return {"issued": has_store and asyncio.run(_look_up(config)), "running": False}


async def _look_up(config: CmConfig) -> bool:
    store = open_store(config.store.path, tables=TABLES, schema_version=SCHEMA_VERSION)
    try:
        return store.read(has_issued)
    finally:
        await store.close()


def _changed(text: str, number: int, key: str, chain: str) -> str:
    """Return the configuration with another key in [issuer] and the present one in [[issuer.earlier]]."""
    found = _SECTION.search(text)
    values = dict(re.findall(r"^(key|chain)\s*=\s*(.+?)\s*$", found[1], re.MULTILINE)) if found else {}
    if found is None or set(values) != {"key", "chain"}:
        raise ConfigurationError(
            "The section [issuer] is not as keyark writes it; change it by hand as docs say."
        )
    body = _REPLACED.sub("", found[1])
    for name, value in (("key", key), ("chain", chain)):
        body = re.sub(rf"^{name}\s*=.*$", f'{name} = "{value}"', body, flags=re.MULTILINE)
    section = f"[issuer]{body.rstrip()}\ngeneration = {number}\n\n"
    earlier = (
        f"\n[[issuer.earlier]]\ngeneration = {number - 1}\nkey = {values['key']}\nchain = {values['chain']}\n"
    )
    return text[: found.start()] + section + text[found.end() :].rstrip("\n") + "\n" + earlier
