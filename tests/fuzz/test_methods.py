"""P6, P10: no message makes a handler fail: every method of every service gets messages of arbitrary fields."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from keyark.errors import KeyarkError
from keyark.rpc.calling.channels import Channel, call, open_channel
from keyark.rpc.errors import error_from_status
from keyark.rpc.identities import LocalIdentity
from keyark.v1 import archive_pb2, audit_pb2, certificates_pb2, recovery_pb2, registration_pb2
from tests.fuzz.test_targets import EVERYTHING
from tests.support.running.deployment import Deployment

ROLES = ("rm", "cm", "drm", "client/enroller", "officer/officer", "agent/alice", "auditor/auditor")
TEXTS = (
    "", "a", "\x00", "\u202e", "A" * 5000, "alice@example.org", "spiffe://example.org/client/enroller", "user", "-1",
    "é💥", "AAAA", "\ufdd0", "00" * 32,
)  # fmt: skip
BYTES = (b"", bytes(16), bytes(20), bytes(32))
NUMBERS = (0, 1, 2, 7, 100, 2**31 - 1)
VALUES = {
    FieldDescriptor.CPPTYPE_STRING: TEXTS,
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 99, -1),
    FieldDescriptor.CPPTYPE_INT32: (*NUMBERS, -1, -(2**31)),
    FieldDescriptor.CPPTYPE_UINT32: (*NUMBERS, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (*NUMBERS, -1, -(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (*NUMBERS, 2**64 - 1, 2**63),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, float("nan"), float("inf")),
    FieldDescriptor.CPPTYPE_DOUBLE: (0.0, float("nan"), float("inf")),
}
DEEPEST = 4
ROUNDS = 3


def filled(random: Random, kind: Any, depth: int = 0) -> Message:
    """A message some of whose fields hold anything."""
    message: Message = GetMessageClass(kind)()
    for field in kind.fields:
        if random.random() < 0.3:
            continue
        values = [
            value(random, field, depth) for _ in range(random.choice((0, 1, 3)) if field.is_repeated else 1)
        ]
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry or depth > DEEPEST:
                continue
            for one in values:
                target = getattr(message, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(one)
        elif field.is_repeated:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])
    return message


def value(random: Random, field: Any, depth: int) -> Any:
    """A value of a field's type."""
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return filled(random, field.message_type, depth + 1) if depth <= DEEPEST else None
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.choice((*BYTES, random.randbytes(8), random.choice(EVERYTHING)))
    return random.choice(VALUES[field.cpp_type])


def reasons(message: Message) -> list[str]:
    """The reasons of all statuses in an answer."""
    found = []
    for field, content in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE or field.message_type.GetOptions().map_entry:
            continue
        for one in content if field.is_repeated else [content]:
            if field.message_type.full_name == "google.rpc.Status":
                found += [error_from_status(one).reason] if one.code else []
            else:
                found += reasons(one)
    return found


SERVICES = {
    "rm": (registration_pb2,),
    "cm": (certificates_pb2,),
    "drm": (archive_pb2, recovery_pb2),
}


def methods(role: str) -> list[Any]:
    """The methods that a service has."""
    files = (*(module.DESCRIPTOR for module in SERVICES[role]), audit_pb2.DESCRIPTOR)
    return [m for file in files for service in file.services_by_name.values() for m in service.methods]


def identity(folder: Path, path: str) -> LocalIdentity:
    """The identity of a service or a person."""
    home = folder / path if path in {"rm", "cm", "drm"} else folder / "identities" / path
    names = ("identity-key.pem", "identity.pem") if path in {"rm", "cm", "drm"} else ("key.pem", "cert.pem")
    return LocalIdentity.load(
        key=home / names[0], certificate=home / names[1], trust_anchor=folder / "trust-anchor.pem"
    )


async def ask(channel: Channel, method: Any, message: Message) -> list[str]:
    """Call a method; returns the reasons of what was refused."""
    answer = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    try:
        return reasons(await call(answer, message, timeout=30))  # type: ignore[type-var]
    except KeyarkError as error:
        return [error.reason]


async def test_no_message_makes_a_handler_fail(deployment: Deployment) -> None:
    random, told = Random(1), Counter[str]()
    for role in SERVICES:
        address = getattr(deployment.home().config, role)
        for path in ROLES:
            channel = open_channel(
                address, identity(deployment.folder, path), server_role=role, trust_domain="example.org"
            )
            for method in methods(role):
                for _ in range(ROUNDS):
                    message = filled(random, method.input_type)
                    refused = await ask(channel, method, message)
                    told.update(refused)
                    assert "INTERNAL_ERROR" not in refused, (path, method.full_name, message)
                    if refused == ["PERMISSION_DENIED"]:
                        break
            await channel.close()
    assert told["INVALID_INPUT"] > 10
