"""The CM's configuration file, cm.toml."""

from __future__ import annotations

import argparse
from typing import Annotated

from pydantic import Field, ValidationError

from cm_service.certificates.expiry_notices import ExpirySettings
from cm_service.crl_settings import CrlSettings
from cm_service.issuer.generations import IssuerSettings
from cm_service.issuer.profiles import ProfileSettings
from keyark.clock import SECONDS_PER_DAY
from keyark.config import Config, ConfigPath, Listen
from keyark.policy.config import PolicyConfig
from keyark.service.checks.callers import CallerSettings
from keyark.service.settings import (
    ArchiveTrust,
    LogSettings,
    ServiceSettings,
    StoreSettings,
    WorkerSettings,
)


class HttpSettings(Config):
    """[http]: where lists and CA certificates are served, and how much strangers may take."""

    listen: Listen
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 256
    max_age_seconds: Annotated[int, Field(ge=0, le=7 * SECONDS_PER_DAY)] = 3600


class OcspSettings(Config):
    """[ocsp]: OCSP answers on the HTTP port: how long each is valid, and how long their signer's certificate."""

    responder: ConfigPath
    valid_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = 60
    responder_days: Annotated[int, Field(ge=1, le=90)] = 7
    workers: Annotated[int, Field(ge=1, le=64)] = 1


class CmConfig(Config):
    """All of cm.toml."""

    service: ServiceSettings
    store: StoreSettings
    workers: WorkerSettings = WorkerSettings()
    issuer: IssuerSettings
    log: LogSettings
    archive: ArchiveTrust
    callers: CallerSettings = CallerSettings()
    profiles: Annotated[dict[str, ProfileSettings], Field(min_length=1)]
    policy: PolicyConfig
    crl: CrlSettings | None = None
    http: HttpSettings | None = None
    ocsp: OcspSettings | None = None
    expiry_notices: ExpirySettings | None = None


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the CM's `serve` takes."""
    parser.add_argument(
        "--http",
        type=_http_address,
        metavar="HOST:PORT",
        help="serve CRLs, CA certificates and OCSP over plain HTTP at this address, instead of what "
        "[http] says",
    )


def _http_address(text: str) -> HttpSettings:
    try:
        return HttpSettings(listen=text)
    except ValidationError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST:PORT; give for example 127.0.0.1:8080"
        ) from None


def adjust(config: CmConfig, arguments: argparse.Namespace) -> CmConfig:
    """Return the configuration with what `serve` was given on the command line."""
    if arguments.http is None:
        return config
    base = config.http or arguments.http
    return config.model_copy(update={"http": base.model_copy(update={"listen": arguments.http.listen})})
