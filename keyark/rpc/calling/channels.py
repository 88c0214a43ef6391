"""Channels to the services, and the one way to call over them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, TypeVar

import grpc

from keyark.errors import UnavailableError
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.rpc.calling.retries import Retries
from keyark.rpc.deadlines import downstream_seconds
from keyark.rpc.errors import error_from_call
from keyark.rpc.identities import LocalIdentity

MAX_RESPONSE: Final = 16 << 20

BETWEEN_SERVICES: Final = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    (
        "grpc.http2.ping_timeout_ms",
        3_000,
    ),  # of gRPC's own pings: one that waits, for 60 s else, lets none of ours out
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
"""A connection that a firewall forgot is found dead within 5 seconds, before the next batch needs it."""

_FROM_PEOPLE: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),  # their lines may be slow
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # so that a call still has time for another address
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
_SERVICES: Final = frozenset(SERVICE_ROLES)

Channel = grpc.aio.Channel
UnaryCall = grpc.aio.UnaryUnaryMultiCallable
Request = TypeVar("Request")
Response = TypeVar("Response")


def open_channel(address: str, identity: LocalIdentity, *, server_role: str, trust_domain: str) -> Channel:
    """Open a channel to the service of this role ("rm"); it connects when it is first used.

    grpcio matches servers' names by DNS SAN only, so the name that the certificate must have is the role's,
    whatever the address.
    """
    credentials = grpc.ssl_channel_credentials(
        identity.trust_anchor, identity.private_key, identity.certificate
    )
    options = (
        ("grpc.ssl_target_name_override", f"{server_role}.{trust_domain}"),
        ("grpc.max_receive_message_length", MAX_RESPONSE),
        ("grpc.http2.max_pings_without_data", 0),  # else gRPC stops asking after two, while a call waits
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.enable_http_proxy", 0),
        *(BETWEEN_SERVICES if identity.spiffe_id.role in _SERVICES else _FROM_PEOPLE),
    )
    return grpc.aio.secure_channel(address, credentials, options=options)


async def call(
    method: UnaryCall[Request, Response],
    request: Request,
    *,
    timeout: float,  # noqa: ASYNC109 — it becomes the call's deadline, on both sides
) -> Response:
    """Make a unary call; raises the typed error that the service sent, or what TLS and gRPC refused.

    ``timeout`` is in seconds; a handler's own deadline shortens it. Raises UnavailableError where the channel is closed
    under the call. A channel that has ``Retries`` repeats what is idempotent, each time with that timeout.
    """
    retries: Retries | None = getattr(method, "retries", None)
    if retries is None:
        return await _call_once(method, request, timeout)
    return await retries.call(partial(_call_once, method, request, timeout))


async def _call_once(
    method: UnaryCall[Request, Response],
    request: Request,
    timeout: float,  # noqa: ASYNC109 — as above
) -> Response:
    try:
        return await method(request, timeout=downstream_seconds(timeout))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise UnavailableError("The connection was closed during the call; try again.") from None
    except grpc.aio.AioRpcError as error:
        raise error_from_call(error, getattr(method, "reach", None)) from None
