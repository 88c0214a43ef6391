"""The same clients for code without an event loop.

    with BlockingEnrollmentClient.open("deployment") as client:
        alice = client.enroll(common_name="Alice Example", email="alice@example.org")

Each method is derived from the asynchronous one: it takes and returns the same, and raises the same. What yields there
yields here. Each object runs an event loop of its own; one thread at a time may use it, and none that runs a loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from functools import update_wrapper
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast

from keyark.client.access.sessions import Session, open_session
from keyark.client.administration import lists as administration
from keyark.client.administration import revocation
from keyark.client.administration.approvals import ApprovalClient
from keyark.client.audit.log_heads import audit_logs
from keyark.client.audit.log_reading import LogReading
from keyark.client.enrollment.batch import enroll_many
from keyark.client.enrollment.client import EnrollmentClient
from keyark.client.enrollment.single import enroll_into
from keyark.client.recovery.client import RecoveryClient
from keyark.client.trust import receipts as audit
from keyark.client.trust.witnesses import Witnesses

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")
Face = TypeVar("Face", bound="Blocking[Any]")


class Blocking(Generic[C]):
    """An asynchronous client on an event loop of its own; use it as a context manager."""

    def __init__(self, opener: Callable[[], AbstractAsyncContextManager[C]]) -> None:
        self._opener = opener

    def __enter__(self) -> Self:
        async def enter() -> C:
            self._opened = self._opener()
            return await self._opened.__aenter__()

        self._runner = asyncio.Runner()
        try:
            self.client = self._runner.run(enter())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def leave() -> None:
            await self._opened.__aexit__(kind, error, trace)

        with self._runner:
            self._runner.run(leave())

    def _run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        return self._runner.run(coroutine)

    def _iterate(self, items: AsyncIterator[R]) -> Iterator[R]:
        async def following() -> R:
            return cast("R", await anext(items, _END))

        try:
            while (item := self._run(following())) is not _END:
                yield item
        finally:
            if isinstance(items, AsyncGenerator):
                self._run(_close(items))


_END: Final = object()


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


class _Opening(Generic[P, C]):
    """``open`` of a blocking class: takes what the asynchronous one takes, and opens when its ``with`` begins."""

    def __init__(self, opener: Callable[P, AbstractAsyncContextManager[C]]) -> None:
        self._opener = opener

    def __get__(self, instance: object, owner: type[Face]) -> Callable[P, Face]:
        def opened(*args: P.args, **kwargs: P.kwargs) -> Face:
            return owner(lambda: self._opener(*args, **kwargs))

        _describe(opened, self._opener, returned=owner.__name__)
        return opened


def _blocking(
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Blocking[C], P], R]:
    """Derive the blocking method of a coroutine that takes the client first."""

    def called(face: Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return face._run(method(face.client, *args, **kwargs))

    _describe(called, method)
    return called


def _iterating(
    method: Callable[Concatenate[C, P], AsyncIterator[R]],
) -> Callable[Concatenate[Blocking[C], P], Iterator[R]]:
    """Derive the blocking method of an asynchronous generator that takes the client first."""

    def called(face: Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        return face._iterate(method(face.client, *args, **kwargs))

    _describe(called, method)
    return called


def _describe(derived: Callable[..., Any], method: Callable[..., Any], *, returned: str = "") -> None:
    """Give a derived method the name, signature and documentation of the asynchronous one, without its ``async``."""
    update_wrapper(derived, method)
    shown = inspect.signature(method)
    annotation = returned or str(shown.return_annotation).replace("AsyncIterator", "collections.abc.Iterator")
    derived.__signature__ = shown.replace(return_annotation=annotation)  # type: ignore[attr-defined]  # inspect reads it
    del derived.__wrapped__  # type: ignore[attr-defined]  # readers would unwrap it, and call it a coroutine


class BlockingEnrollmentClient(Blocking[EnrollmentClient]):
    """As ``EnrollmentClient``, without an event loop."""

    open = _Opening(EnrollmentClient.open)
    form = _blocking(EnrollmentClient.form)
    prepare = _blocking(EnrollmentClient.prepare)
    enroll = _blocking(EnrollmentClient.enroll)
    submit = _blocking(EnrollmentClient.submit)
    submit_and_wait = _blocking(EnrollmentClient.submit_and_wait)
    submit_many = _blocking(EnrollmentClient.submit_many)
    outcome = _blocking(EnrollmentClient.outcome)
    send = _blocking(EnrollmentClient.send)
    enroll_into = _blocking(enroll_into)
    enroll_many = _blocking(enroll_many)


class BlockingRecoveryClient(Blocking[RecoveryClient]):
    """As ``RecoveryClient``, without an event loop."""

    open = _Opening(RecoveryClient.open)
    request_keys = _blocking(RecoveryClient.request_keys)
    change_agents = _blocking(RecoveryClient.change_agents)
    rotate_storage_key = _blocking(RecoveryClient.rotate_storage_key)
    reseal_keys = _blocking(RecoveryClient.reseal_keys)
    ceremonies = _iterating(RecoveryClient.ceremonies)
    review = _blocking(RecoveryClient.review)
    look = _blocking(RecoveryClient.look)
    storage_keys = _blocking(RecoveryClient.storage_keys)
    approve = _blocking(RecoveryClient.approve)
    pins = _blocking(RecoveryClient.pins)
    reject = _blocking(RecoveryClient.reject)
    cancel = _blocking(RecoveryClient.cancel)
    collect = _blocking(RecoveryClient.collect)
    acknowledge = _blocking(RecoveryClient.acknowledge)


class BlockingApprovalClient(Blocking[ApprovalClient]):
    """As ``ApprovalClient``, without an event loop."""

    open = _Opening(ApprovalClient.open)
    list = _iterating(ApprovalClient.list)
    show = _blocking(ApprovalClient.show)
    approve = _blocking(ApprovalClient.approve)
    reject = _blocking(ApprovalClient.reject)
    cancel = _blocking(ApprovalClient.cancel)
    assign = _blocking(ApprovalClient.assign)


class BlockingLogReading(Blocking[LogReading]):
    """As ``LogReading``, without an event loop."""

    open = _Opening(LogReading.open)
    entries = _iterating(LogReading.entries)
    follow = _iterating(LogReading.follow)

    def check(self) -> None:
        """As ``LogReading.check``."""
        self.client.check()


class BlockingWitnesses(Blocking[Witnesses]):
    """As ``Witnesses``, without an event loop."""

    open = _Opening(Witnesses.open)
    confirm = _blocking(Witnesses.confirm)
    confirm_where_possible = _blocking(Witnesses.confirm_where_possible)
    believed_change = _blocking(Witnesses.believed_change)
    show_changes = _blocking(Witnesses.show_changes)
    audit_logs = _blocking(audit_logs)


class BlockingSession(Blocking[Session]):
    """As ``open_session``, without an event loop; the functions that take a session are its methods."""

    open = _Opening(open_session)
    list_enrollments = _iterating(administration.list_enrollments)
    get_enrollment = _blocking(administration.get_enrollment)
    list_certificates = _iterating(administration.list_certificates)
    get_certificate = _blocking(administration.get_certificate)
    get_refusal = _blocking(administration.get_refusal)
    list_keys = _iterating(administration.list_keys)
    keys_of_person = _blocking(administration.keys_of_person)
    get_key = _blocking(administration.get_key)
    get_proven_key = _blocking(administration.get_proven_key)
    deactivate_key = _blocking(administration.deactivate_key)
    activate_key = _blocking(administration.activate_key)
    list_ceremonies = _iterating(administration.list_ceremonies)
    get_ceremony = _blocking(administration.get_ceremony)
    list_storage_keys = _blocking(administration.list_storage_keys)
    revoke_certificates = _blocking(revocation.revoke_certificates)
    hold_certificates = _blocking(revocation.hold_certificates)
    release_certificates = _blocking(revocation.release_certificates)
    revoke_own_certificates = _blocking(revocation.revoke_own_certificates)
    publish_crls = _blocking(revocation.publish_crls)
    list_entries = _iterating(audit.list_entries)
    verify_log = _blocking(audit.verify_log)
