"""P6: RM, CM and DRM in hostile hands answer with poisoned texts everywhere; no command lets one through."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner
from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from keyark.cli.main import main
from keyark.errors import PolicyRejectedError, Violation
from keyark.identity.revoked import RevokedIdentities
from keyark.meters import Meters
from keyark.rpc.identities import PeerReader
from keyark.rpc.serving.server import ServedService, build_server
from keyark.text.characters import unseen_positions
from keyark.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    certificates_pb2,
    certificates_pb2_grpc,
    recovery_pb2,
    recovery_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)
from tests.support.running.deployment import copy_deployment
from tests.support.running.rpc import budgets
from tests.support.stories.relays import service_identity

POISON = "\x1b[2J\x07\x9b31m\r\u202eevil\u2066\u2028\u3164\x7f\nforged line"
EVERYONE = {"rm", "cm", "drm", "client", "officer", "agent", "auditor"}
SERVED = {
    "rm": [(registration_pb2, registration_pb2_grpc, ("RegistrationService", "RegistrationAdminService"))],
    "cm": [
        (certificates_pb2, certificates_pb2_grpc, ("CertificateStatusService", "CertificateAdminService"))
    ],
    "drm": [(recovery_pb2, recovery_pb2_grpc, ("KeyRecoveryService",))],
}
AUDIT = (audit_pb2, audit_pb2_grpc, ("AuditService",))
ID, CEREMONY, SERIAL = "0192" + "ab" * 30, "01920000000070008000000000000000", "01" * 20
COMMANDS = [
    "enrollments list",
    f"enrollments show {ID}",
    f"enrollments show {ID} --as client/enroller",
    f"enrollments approve {ID}",
    f"enrollments reject {ID} --reason no",
    "certificates list",
    f"certificates show {SERIAL}",
    "certificates expiring --within 30d",
    f"certificates revoke {SERIAL} --reason superseded",
    "keys list",
    f"keys show {ID}",
    f"keys deactivate {ID} --reason no",
    "recover list",
    f"recover show {CEREMONY}",
    f"recover approve {CEREMONY} --yes",
    f"recover cancel {CEREMONY}",
    "recover request --owner alice@example.org --reason lost",
    "agents list",
    "storage-key list",
    "storage-key rotate --reason yearly",
    "enroll --name Alice --email alice@example.org --out OUT",
    "certificates export --out OUT.pem",
    f"certificates hold {SERIAL}",
    "certificates publish-crls",
    "audit verify",
    "audit log",
    "doctor",
]


def poisoned(descriptor: Any, depth: int = 0) -> Any:
    """A message with the poison in every text, and something in every other field."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.name == "next_page_token":
            continue
        value = _value(field, depth)
        if value is None:
            continue
        if field.is_repeated:
            getattr(message, field.name).extend([value])
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


def _value(field: Any, depth: int) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if depth > 4 or field.message_type.GetOptions().map_entry:
            return None
        return poisoned(field.message_type, depth + 1)
    if field.type == FieldDescriptor.TYPE_STRING:
        return POISON
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes.fromhex(ID)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values[-1].number
    return field.type != FieldDescriptor.TYPE_BOOL and 1


class Hostile:
    """Serves every method of a service: with poisoned answers, or with poisoned refusals."""

    def __init__(self, service: ServiceDescriptor, how: str) -> None:
        for method in service.methods:
            setattr(self, method.name, self._method(method, how))

    @staticmethod
    def _method(method: Any, how: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            if how == "refuses":
                violation = Violation(rule=POISON, subsystem=POISON, message=POISON)
                raise PolicyRejectedError(POISON, violations=[violation])
            return poisoned(method.output_type)

        return handle


@pytest_asyncio.fixture(params=["answers", "refuses"])
async def home(
    request: pytest.FixtureRequest, deployment_template: Path, tmp_path: Path
) -> AsyncIterator[Path]:
    """A home whose three services are in hostile hands, their identities included."""
    folder = copy_deployment(deployment_template, tmp_path / "deployment")
    text = (folder / "keyark.toml").read_text()
    async with AsyncExitStack() as stack:
        for role in SERVED:
            server = _server(folder, role, request.param)
            await server.start()
            stack.push_async_callback(server.drain, 0)
            text = re.sub(
                rf'^{role} = ".*"$', f'{role} = "127.0.0.1:{server.port}"', text, flags=re.MULTILINE
            )
        (folder / "keyark.toml").write_text(text)
        yield folder


def _server(folder: Path, role: str, how: str) -> Any:
    async def ignore(*_: Any) -> None:
        """Refusals of a hostile subsystem are its own business."""

    described = [
        (module.DESCRIPTOR.services_by_name[name], getattr(grpc, f"add_{name}Servicer_to_server"))
        for module, grpc, names in (*SERVED[role], AUDIT)
        for name in names
    ]
    return build_server(
        present=lambda: service_identity(folder, role),
        address="127.0.0.1:0",
        services=[
            ServedService(descriptor=descriptor, add=add, servicer=Hostile(descriptor, how))
            for descriptor, add in described
        ],
        allow={f"/{d.full_name}/{m.name}": EVERYONE for d, _ in described for m in d.methods},
        peers=PeerReader(lambda: int(time.time()), RevokedIdentities([])),
        budgets=budgets(),
        on_rejected=ignore,
        meters=Meters(Path()),
    )


async def test_no_command_lets_a_poisoned_text_through(home: Path, tmp_path: Path) -> None:
    shown = 0
    for command in COMMANDS:
        words = command.replace("OUT", str(tmp_path / command.split()[0])).split()
        for form in ([], ["--json"]):
            arguments = [*words, "--home", str(home), *form]
            done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
            assert done.exit_code in (0, 1, 3, 4), (arguments, done.output)
            assert "Traceback" not in done.output, (arguments, done.output)
            shown += "forged line" in done.output
            for line in done.output.split("\n"):
                assert list(unseen_positions(line)) == [], (arguments, line)
                assert not line.startswith("forged line"), (arguments, done.output)
    assert shown > 10  # it was there to be seen
