"""`keyark-cm check`: the CA keys of all generations, what they sign with, and where they write."""

from __future__ import annotations

import os
from pathlib import Path

from cm_service.config import CmConfig
from cm_service.crl_settings import list_urls
from cm_service.issuance import signing_worker
from cm_service.issuer.generations import EarlierIssuer, check_generations, for_issuer
from cm_service.public import crl_worker, ocsp_worker
from cm_service.public.port import responder_path
from cm_service.records import SCHEMA_VERSION, TABLES
from cm_service.subsystem import signing_setup
from keyark.custody.uris import load_private_key_by_uri
from keyark.errors import ConfigurationError, KeyarkError
from keyark.files import is_there
from keyark.keys.signatures import check_issuer
from keyark.service.program import maintenance
from keyark.service.program.assembly import load_log_key
from keyark.service.program.maintenance import check_address
from keyark.store import ReadTransaction
from keyark.x509.certificates import load_certificates


def check(config: CmConfig) -> list[str]:
    """Check all that a start needs and all that is stored; returns what to print, raises what is wrong."""

    def check_rows(txn: ReadTransaction) -> list[str]:
        check_generations(txn, config.issuer)
        return []

    return maintenance.check(
        "cm",
        config,
        tables=TABLES,
        schema_version=SCHEMA_VERSION,
        check_keys=lambda: check_keys(config),
        check_rows=check_rows,
    )


def check_keys(config: CmConfig) -> list[str]:
    """Load every key as the workers do that sign with it; returns a line for each.

    This process ends with the command, and leaves no core dump. Raises the errors of keys, certificates and chains.
    """
    load_log_key("cm", config.service, config.log.key)
    signing_worker.open_worker(signing_setup(config))
    lines = [line for issuer in config.issuer.all() for line in _check_issuer(config, issuer)]
    if config.crl is not None:
        _check_writable(config.crl.folder)
    if config.http is not None:
        check_address(config.http.listen)
    return lines


def _check_issuer(config: CmConfig, issuer: EarlierIssuer) -> list[str]:
    """Check one CA key for all that it signs: certificates, lists and OCSP responders."""
    base = config.service.folder
    chain = load_certificates(issuer.chain)
    key = load_private_key_by_uri(issuer.key, base)
    check_issuer(chain[0], key)  # type: ignore[arg-type]  # it compares public keys first
    if config.crl is not None:
        list_urls(for_issuer(config.profiles, issuer.generation), config.crl)
        crl_worker.open_worker(
            crl_worker.worker_setup(issuer_key_uri=issuer.key, base=base, chain=issuer.chain)
        )
    lines = [f"CA key: generation {issuer.generation}, {chain[0].subject.rfc4514_string()}"]
    if config.http is not None and config.ocsp is not None:
        ocsp_worker.open_maker(
            ocsp_worker.maker_setup(issuer_key_uri=issuer.key, base=base, chain=issuer.chain)
        )
        path = responder_path(config.ocsp, issuer.generation)
        _check_writable(path.parent)
        lines.append(_check_responder(path))
    return lines


def _check_responder(path: Path) -> str:
    """Check the key beside a responder's certificate; where there is no certificate the start makes both."""
    try:
        ocsp_worker.responder_certificate(path)
    except KeyarkError:
        return f"OCSP responder: none in {path}; the start makes one"
    ocsp_worker.open_signer(ocsp_worker.signer_setup(path))
    return f"OCSP responder: {path}"


def _check_writable(folder: Path) -> None:
    """Raise ConfigurationError unless files can be put into a folder, or it can be made."""
    existing = folder
    while not is_there(existing):
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(f"The CM cannot write to the folder {folder}; create it or grant access.")
