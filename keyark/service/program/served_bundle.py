"""The deployment's bundle that a service hands out: `deployment.toml` beside its configuration, if it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from grpc.aio import ServicerContext

from keyark.errors import KeyarkError
from keyark.files import read_file
from keyark.identity.bundles import MAX_BUNDLE, Bundle
from keyark.identity.certificates import fingerprint
from keyark.v1 import deployment_pb2 as pb
from keyark.v1.deployment_pb2_grpc import DeploymentServiceServicer

logger = logging.getLogger(__name__)

READERS = frozenset({"agent", "auditor", "client", "officer"})
METHOD = "/keyark.v1.DeploymentService/GetDeploymentBundle"


class ServedBundle:
    """The newest good bundle of a file, which is read again when it changed; ``anchors`` tells the internal CAs."""

    def __init__(self, path: Path, anchors: Callable[[], Sequence[x509.Certificate]]) -> None:
        self._path, self._anchors = path, anchors
        self._seen: tuple[int, int] | None = None
        self._bundle: Bundle | None = None

    def newer_than(self, number: int) -> bytes:
        """Return the bundle if it has a higher number, else nothing.

        A file that holds no bundle of the internal CA is told in the log once, and the one before it stays.
        """
        self._look()
        bundle = self._bundle
        return bundle.data if bundle is not None and bundle.content.number > number else b""

    def _look(self) -> None:
        state = _state(self._path)
        if state == self._seen:
            return
        self._seen = state
        if state is None:
            return
        try:
            self._bundle = read_bundle(self._path, self._anchors())
        except KeyarkError as error:
            logger.error("%s is not handed out: %s (%s)", self._path, error.message, error.reason)  # noqa: TRY400 — typed


def read_bundle(path: Path, anchors: Sequence[x509.Certificate]) -> Bundle:
    """Return the bundle of a file; raises BundleError unless one of these internal CAs signed it."""
    bundle = Bundle.parse(read_file(path, max_size=MAX_BUNDLE))
    bundle.verify([fingerprint(anchor) for anchor in anchors])
    return bundle


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns)


class DeploymentServicer(DeploymentServiceServicer):
    """Hands the bundle out."""

    def __init__(self, served: ServedBundle) -> None:
        self._served = served

    async def GetDeploymentBundle(
        self, request: pb.GetDeploymentBundleRequest, context: ServicerContext[Any, Any]
    ) -> pb.GetDeploymentBundleResponse:
        """The newest bundle, where it is newer than the caller's."""
        return pb.GetDeploymentBundleResponse(bundle=self._served.newer_than(request.known_number))
