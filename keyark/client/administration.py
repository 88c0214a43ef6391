"""What officers and agents look at: enrollments, certificates, archived keys; paged, never key material."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from keyark.client.sessions import Session
from keyark.rpc.channels import call
from keyark.v1 import certificates_pb2, recovery_pb2, registration_pb2
from keyark.v1.certificates_pb2_grpc import CertificateAdminServiceStub
from keyark.v1.common_pb2 import PageRequest
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub
from keyark.v1.registration_pb2_grpc import RegistrationAdminServiceStub

TIMEOUT: Final = 30.0
PAGE: Final = 500


async def list_enrollments(session: Session) -> AsyncIterator[registration_pb2.Enrollment]:
    """Yield every enrollment, oldest first; ``session`` is an officer's with the RM."""
    stub, token = RegistrationAdminServiceStub(session.channel), ""
    while True:
        request = registration_pb2.ListEnrollmentsRequest(page=PageRequest(page_size=PAGE, page_token=token))
        response = await call(stub.ListEnrollments, request, timeout=TIMEOUT)
        for enrollment in response.enrollments:
            yield enrollment
        if not (token := response.next_page_token):
            return


async def list_certificates(session: Session) -> AsyncIterator[certificates_pb2.Certificate]:
    """Yield every certificate, oldest first; ``session`` is an officer's with the CM."""
    stub, token = CertificateAdminServiceStub(session.channel), ""
    while True:
        request = certificates_pb2.ListCertificatesRequest(page=PageRequest(page_size=PAGE, page_token=token))
        response = await call(stub.ListCertificates, request, timeout=TIMEOUT)
        for certificate in response.certificates:
            yield certificate
        if not (token := response.next_page_token):
            return


async def get_certificate(session: Session, serial: bytes) -> certificates_pb2.Certificate:
    """Return the certificate with this serial number (big-endian); raises NotFoundError."""
    stub = CertificateAdminServiceStub(session.channel)
    request = certificates_pb2.GetCertificateRequest(serial=serial)
    return (await call(stub.GetCertificate, request, timeout=TIMEOUT)).certificate


async def list_keys(session: Session) -> AsyncIterator[recovery_pb2.ArchivedKey]:
    """Yield every archived key, oldest first; ``session`` is an agent's with the DRM."""
    stub, token = KeyRecoveryServiceStub(session.channel), ""
    while True:
        request = recovery_pb2.ListKeysRequest(page=PageRequest(page_size=PAGE, page_token=token))
        response = await call(stub.ListKeys, request, timeout=TIMEOUT)
        for key in response.keys:
            yield key
        if not (token := response.next_page_token):
            return


async def get_key(session: Session, key_id: bytes) -> recovery_pb2.ArchivedKey:
    """Return the archived key with this key id (32 bytes); raises NotFoundError."""
    stub = KeyRecoveryServiceStub(session.channel)
    return (await call(stub.GetKey, recovery_pb2.GetKeyRequest(key_id=key_id), timeout=TIMEOUT)).key
