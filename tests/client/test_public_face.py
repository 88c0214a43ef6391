"""What `keyark.client` shows to its users: typed, complete, and the same with and without an event loop."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import keyark.client
from keyark.client import (
    ApprovalClient,
    BlockingApprovalClient,
    BlockingEnrollmentClient,
    BlockingLogReading,
    BlockingRecoveryClient,
    BlockingSession,
    BlockingWitnesses,
    EnrollmentClient,
    LogReading,
    NotFoundError,
    RecoveryClient,
    Witnesses,
)
from keyark.client.blocking import Blocking, _blocking, _iterating, _Opening

ROOT = Path(__file__).parent.parent.parent
PUBLIC = {name: getattr(keyark.client, name) for name in keyark.client.__all__}
FACES = [
    (EnrollmentClient, BlockingEnrollmentClient),
    (RecoveryClient, BlockingRecoveryClient),
    (ApprovalClient, BlockingApprovalClient),
    (LogReading, BlockingLogReading),
    (Witnesses, BlockingWitnesses),
]


BLOCKING = {face.__name__: blocking for face, blocking in FACES} | {"Session": BlockingSession}


def waits(each: object) -> bool:
    return inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)


def test_nothing_that_is_public_takes_arbitrary_keywords():
    callables = [each for each in PUBLIC.values() if inspect.isfunction(each)]
    for each in PUBLIC.values():
        if inspect.isclass(each) and each.__module__.startswith("keyark.client"):
            members = inspect.getmembers(each, lambda f: inspect.isfunction(f) or inspect.ismethod(f))
            callables += [f for n, f in members if n[0] != "_" and f.__module__.startswith("keyark")]
    assert len(callables) > 90
    for each in callables:
        kinds = {parameter.kind for parameter in inspect.signature(each).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, each.__qualname__


@pytest.mark.parametrize(("face", "blocking"), FACES, ids=lambda each: each.__name__)
def test_the_blocking_face_of_a_client_has_all_its_methods(face, blocking):
    methods = [name for name, f in inspect.getmembers(face, waits) if not name.startswith("_")]
    assert methods
    for name in ("open", *methods):
        derived = inspect.signature(getattr(blocking, name)).parameters
        assert derived == inspect.signature(getattr(face, name)).parameters, name
        assert not waits(getattr(blocking, name)), name


def test_every_function_that_takes_a_session_or_a_client_is_a_blocking_method():
    found = 0
    for name, each in PUBLIC.items():
        if waits(each):
            first = next(iter(inspect.signature(each).parameters.values())).annotation
            blocking = BLOCKING[first]
            derived = getattr(blocking, name)
            assert (derived.__doc__, derived.__qualname__) == (each.__doc__, name)
            assert not waits(derived)
            found += 1
    assert found > 20


class Counting:
    def __init__(self, top: int) -> None:
        self.top, self.is_closed, self.is_done = top, False, False

    async def half(self, number: int) -> int:
        if number % 2:
            raise NotFoundError(f"{number} has no half")
        return number // 2

    async def numbers(self) -> AsyncIterator[int]:
        try:
            for number in range(self.top):
                yield number
        finally:
            self.is_done = True


@asynccontextmanager
async def opened(top: int) -> AsyncIterator[Counting]:
    if top < 0:
        raise NotFoundError("no such top")
    counting = Counting(top)
    try:
        yield counting
    finally:
        counting.is_closed = True


class BlockingCounting(Blocking[Counting]):
    open = _Opening(opened)
    half = _blocking(Counting.half)
    numbers = _iterating(Counting.numbers)


def test_what_is_derived_returns_raises_yields_and_closes_as_the_asynchronous_one():
    with BlockingCounting.open(3) as counting:
        inner = counting.client
        assert counting.half(4) == 2
        with pytest.raises(NotFoundError):
            counting.half(number=5)
        assert list(counting.numbers()) == [0, 1, 2]
        inner.is_done = False
        assert next(iter(counting.numbers())) == 0
        assert inner.is_done, "a generator that is left is closed"
        assert not inner.is_closed
    assert inner.is_closed
    with pytest.raises(NotFoundError), BlockingCounting.open(-1):
        pass


GOOD = """
import asyncio
from keyark.client import BlockingEnrollmentClient, BlockingSession, EnrollmentClient, Enrolled, KeyType
from keyark.client import OwnRequestError, RecoveryClient

async def main() -> None:
    async with EnrollmentClient.open("deployment", identity="client/enroller") as client:
        key_type = KeyType.EC_P256
        enrolled: Enrolled = await client.enroll(
            common_name="A", email="a@example.org", signing_key_type=key_type
        )
    async with RecoveryClient.open("deployment", identity="agent/bob") as bob:
        try:
            await bob.approve(await bob.review(b""))
        except OwnRequestError as error:
            print(error.remedy)

with BlockingEnrollmentClient.open("deployment", identity="client/enroller") as client:
    enrolled: Enrolled = client.enroll(common_name="A", email="a@example.org")
    print(enrolled.signing_certificate.serial_number)
with BlockingSession.open("deployment", "cm", identity="officer/jo") as session:
    for certificate in session.list_certificates():
        print(certificate.serial.hex())
"""
BAD = {
    'client.enroll(common_nam="A", email="a@example.org")': '"common_nam"',
    'client.enroll(common_name="A", email=b"a@example.org")': "incompatible type",
    "client.submit()": 'Too few arguments|Missing positional argument "prepared"',
    'BlockingEnrollmentClient.open("deployment", identiti="client/a")': '"identiti"',
    'EnrollmentClient.open("deployment", identiti="client/a")': '"identiti"',
    'session.get_key(key_ib=b"")': '"key_ib"',
}
BAD_HEAD = """
from keyark.client import BlockingEnrollmentClient, BlockingSession, EnrollmentClient
def use(client: BlockingEnrollmentClient, session: BlockingSession) -> None:
"""


def mypy(*files: Path) -> list[str]:
    options = ("--strict", "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'users'}")
    command = [sys.executable, "-m", "mypy", *options, *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=files[0].parent)
    return done.stdout.splitlines()


def test_a_misspelled_keyword_fails_mypy_and_a_right_program_passes(tmp_path: Path):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(GOOD)
    bad.write_text(BAD_HEAD + "".join(f"    {line}\n" for line in BAD))
    found = mypy(good, bad)
    assert not [line for line in found if line.startswith("good.py")]
    for number, words in enumerate(BAD.values(), BAD_HEAD.count("\n") + 1):
        lines = [line for line in found if line.startswith(f"bad.py:{number}: error:")]
        assert lines, (number, found)
        assert any(word in line for line in lines for word in words.split("|")), lines


def test_the_reference_has_every_public_name_with_its_documentation(tmp_path: Path):
    """pdoc reads docstrings and signatures, so it says what a user gets; no blocking method is shown as a coroutine."""
    modules = ("keyark.client", "keyark.client.blocking")
    command = (sys.executable, "-m", "pdoc", *modules, "--no-show-source", "--output-directory", tmp_path)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Warn" not in done.stderr
    reference = (tmp_path / "keyark" / "client.html").read_text()
    for name, each in PUBLIC.items():
        assert f'id="{name}"' in reference or inspect.ismodule(each), name
        if inspect.isroutine(each) or inspect.isclass(each):
            assert each.__doc__ or each.__module__.endswith("_pb2"), name
    shown = reference[reference.index('id="BlockingEnrollmentClient.enroll"') :][:2000]
    assert "async" not in shown.partition("enroll</span>")[0]
