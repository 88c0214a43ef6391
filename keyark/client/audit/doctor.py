"""`keyark doctor`: what RM, CM and DRM say, held against each other and against the clock.

Each check is one function that yields findings; a check whose service is away yields that, and the others go on. Only
what the services tell to an officer and an auditor is looked at, a page at a time. Where the home cannot act as one of
the two, that is one finding, which names the checks that are left out; no service is blamed for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

from keyark.client.access.sessions import Session
from keyark.client.administration.lists import (
    get_enrollment,
    get_key,
    get_refusal,
    list_certificates,
    list_keys,
)
from keyark.client.audit.expiring import certificates_end, users_certificates_end
from keyark.client.audit.findings import UNDER_WAY, Examination, Finding, error, warning
from keyark.client.audit.log_heads import (
    LogHead,
    followed_changes_are_known,
    followed_log_leads_on,
    log_leads_on,
)
from keyark.client.audit.waiting import ceremonies_move_on, enrollments_move_on
from keyark.errors import ConfigurationError, KeyarkError, Kind
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.v1 import audit_pb2, certificates_pb2, recovery_pb2

AUDITOR: Final = "auditor"
OFFICER: Final = "officer"
MAX_SKEW: Final = 30.0
"""Seconds that clocks may differ; certificates are backdated by 300."""
MAX_KEYS: Final = 1000
"""Findings of one kind that one run tells."""
ENCRYPTION: Final = certificates_pb2.KeyRole.KEY_ROLE_ENCRYPTION
SIGNING: Final = certificates_pb2.KeyRole.KEY_ROLE_SIGNING
VALID: Final = certificates_pb2.CertificateState.CERTIFICATE_STATE_VALID

Check: TypeAlias = Callable[[Examination], AsyncIterator[Finding]]


async def examine(examination: Examination) -> AsyncIterator[Finding]:
    """Yield all findings; none means that the deployment is healthy."""
    unusable = set()
    for role in (AUDITOR, OFFICER):
        left_out = ", ".join(name for name, (_, roles) in CHECKS.items() if role in roles)
        if fault := examination.fault_of(role, left_out):
            unusable.add(role)
            yield fault
    for name, (check, roles) in CHECKS.items():
        if not unusable.isdisjoint(roles):
            continue
        try:
            async for finding in check(examination):
                yield finding
        except KeyarkError as failure:
            command = f"keyark doctor --home {examination.home.folder}"
            yield error(name, f"could not be examined: {failure.message}", command)


async def services_answer(examination: Examination) -> AsyncIterator[Finding]:
    """Whether each service is there, has the right time and a log that only grew, signed as known, and no alarm."""
    for role in SERVICE_ROLES:
        try:
            async with examination.session(role, AUDITOR) as session:
                async for finding in _service(examination, session):
                    yield finding
        except KeyarkError as failure:
            command = f"keyark-{role} check {examination.service_file(role)}"
            yield error(role, f"does not answer properly: {failure.message}", command)


async def _service(examination: Examination, session: Session) -> AsyncIterator[Finding]:
    role, asked = session.role, examination.now()
    head = await LogHead.fetch(session)
    skew = head.told.time_us / 1_000_000 - (asked + examination.now()) / 2
    if abs(skew) > MAX_SKEW:
        way = "ahead of" if skew > 0 else "behind"
        text = f"its clock is {abs(skew):.0f} seconds {way} this machine's"
        yield warning(role, text, "chronyc makestep  # on the host whose clock is wrong")
    async for finding in log_leads_on(examination, session, head):
        yield finding
    if head.told.waits_for:
        command = f"keyark transport-key rotate --home {examination.home.folder}"
        yield error(role, head.told.waits_for, f"{command}  # then confirm the restore to RM and CM")
    if head.told.alarm:
        command = f"keyark-{role} clear-alarm {examination.service_file(role)}"
        yield error(
            role,
            _alarm(head.told),
            f"{command}  # while it is stopped: shows the evidence, and clears nothing yet",
        )


def _alarm(told: audit_pb2.GetCheckpointResponse) -> str:
    """Return the alarm with the heads of its evidence: the text of each signed note, on one line."""
    evidence = told.contradiction
    notes = [note.partition(b"\n\n")[0] for note in (evidence.first_note, evidence.second_note) if note]
    texts = " and ".join(" ".join(note.decode(errors="replace").split()) for note in notes)
    return f"{told.alarm} It signed {texts}." if texts else told.alarm


async def archived_keys_are_certified(examination: Examination) -> AsyncIterator[Finding]:
    """Which archived keys have no certificate: because none was issued, or because the DRM was not told."""
    before = int((examination.now() - UNDER_WAY) * 1_000_000)
    uncertified = recovery_pb2.KeyFilter(
        state=recovery_pb2.KeyState.KEY_STATE_UNCERTIFIED, archived_until_us=before
    )
    seen = 0
    async with (
        examination.session("drm", AUDITOR) as archive,
        examination.session("cm", OFFICER) as issuer,
    ):
        async for key in list_keys(archive, uncertified):
            seen += 1
            if seen > MAX_KEYS:
                text = f"more than {MAX_KEYS} are not certified"
                yield warning(
                    "archived keys",
                    text,
                    f"keyark keys list --state uncertified --home {examination.home.folder}",
                )
                return
            yield await _uncertified(examination, key, issuer)


async def _uncertified(examination: Examination, key: recovery_pb2.ArchivedKey, issuer: Session) -> Finding:
    subject = f"key {key.key_id.hex()}"
    wanted = certificates_pb2.CertificateFilter(spki_sha256=key.key_id)
    async for certificate in list_certificates(issuer, wanted):
        if certificate.role == SIGNING and certificate.state != VALID:
            continue
        if certificate.role == SIGNING:
            return error(
                subject,
                f"of {key.email} is archived, and also signs with certificate {certificate.serial.hex()}",
                f"keyark certificates revoke {certificate.serial.hex()} --pair --reason keyCompromise "
                f"--home {examination.home.folder}",
            )
        return error(
            subject,
            f"of {key.email} has certificate {certificate.serial.hex()}, which the archive does not know, "
            "so it cannot be recovered (not linked)",
            f"keyark-rm relink {examination.service_file('rm')} {key.enrollment_id.hex()}",
        )
    refusal = await get_refusal(issuer, key.enrollment_id)
    if refusal is not None:
        return warning(
            subject,
            f"of {key.email} is archived, but was never certified: the CM's policy "
            f"({', '.join(refusal.rules)}) refused it for good. Its owner must submit a new request",
            f"keyark keys deactivate {key.key_id.hex()} --reason 'refused for good' "
            f"--home {examination.home.folder}{_as_agent(examination)}",
        )
    return warning(
        subject,
        f"of {key.email} is archived, but was never certified: its enrollment was not completed",
        "keyark enroll --out FOLDER  # by its client: the same folder completes it",
    )


def _as_agent(examination: Examination) -> str:
    """Return the option that names an agent of this home; the command goes to an agent's own home where it has none."""
    try:
        return f" --as {examination.person('agent')}"
    except ConfigurationError:
        return " --as agent/NAME  # by an agent, with the agent's own home"


async def archived_keys_open(examination: Examination) -> AsyncIterator[Finding]:
    """Which archived keys did not open or match when a quorum wanted them, while others still encrypt to them."""
    async with examination.session("drm", AUDITOR) as archive, examination.session("cm", OFFICER) as issuer:
        async for key in list_keys(archive, recovery_pb2.KeyFilter(failed=True)):
            in_force = certificates_pb2.CertificateFilter(spki_sha256=key.key_id, state=VALID)
            async for certificate in list_certificates(issuer, in_force):
                yield _did_not_open(examination, key, certificate.serial.hex())


def _did_not_open(examination: Examination, key: recovery_pb2.ArchivedKey, serial: str) -> Finding:
    on = datetime.fromtimestamp(key.failed_time_us / 1e6, UTC).date()
    return error(
        f"key {key.key_id.hex()}",
        f"of {key.email} could not be opened in a ceremony on {on}. Restore it from a backup of the "
        "DRM's store, or have its owner submit a new request",
        f"keyark certificates revoke {serial} --pair --reason superseded --home {examination.home.folder}",
    )


async def certificates_are_archived(examination: Examination) -> AsyncIterator[Finding]:
    """Which certificates in force have no key in the archive: after a restore of the DRM from a backup.

    Both lists are in the order of enrollment ids and read side by side, a page at a time.
    """
    async with (
        examination.session("cm", OFFICER) as issuer,
        examination.session("drm", AUDITOR) as archive,
    ):
        keys = list_keys(archive)
        key, missing = await anext(keys, None), 0
        async for certificate in list_certificates(issuer):
            if (certificate.role, certificate.state) != (ENCRYPTION, VALID):
                continue
            while key is not None and key.enrollment_id < certificate.enrollment_id:
                key = await anext(keys, None)
            if key is not None and key.enrollment_id == certificate.enrollment_id:
                continue
            if await _is_missing(examination, certificate, archive):
                missing += 1
                yield _not_archived(examination, certificate)
            if missing == MAX_KEYS:
                return


async def _is_missing(
    examination: Examination, certificate: certificates_pb2.Certificate, archive: Session
) -> bool:
    """Look again, for it may have been archived meanwhile, and whether its profile archives: the RM has the receipt."""
    try:
        await get_key(archive, certificate.spki_sha256)
    except KeyarkError as failure:
        if failure.kind is not Kind.NOT_FOUND:
            raise
    else:
        return False
    async with examination.session("rm", OFFICER) as registrar:
        try:
            enrollment = await get_enrollment(registrar, certificate.enrollment_id)
        except KeyarkError as failure:
            if failure.kind is not Kind.NOT_FOUND:
                raise
            return True
    return bool(enrollment.receipt)


def _not_archived(examination: Examination, certificate: certificates_pb2.Certificate) -> Finding:
    serial = certificate.serial.hex()
    return warning(
        f"certificate {serial}",
        f"of {certificate.email} is in force, but its key is not in the archive",
        f"keyark certificates revoke {serial} --pair --reason superseded --home {examination.home.folder}",
    )


CHECKS: Final[dict[str, tuple[Check, Sequence[str]]]] = {
    "services": (services_answer, [AUDITOR]),
    "logs": (followed_log_leads_on, [AUDITOR]),
    "agents and storage keys": (followed_changes_are_known, [AUDITOR]),
    "certificates' end": (certificates_end, []),
    "users' certificates": (users_certificates_end, [OFFICER]),
    "archived keys": (archived_keys_are_certified, [AUDITOR, OFFICER]),
    "recovery": (archived_keys_open, [AUDITOR, OFFICER]),
    "certificates": (certificates_are_archived, [AUDITOR, OFFICER]),
    "requests": (enrollments_move_on, [OFFICER]),
    "ceremonies": (ceremonies_move_on, [AUDITOR]),
}
"""Each check with the roles that it looks as; without any it makes do with what lies in the home."""
