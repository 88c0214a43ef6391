"""Answers OCSP requests: what the store says of a certificate at this moment, signed by a worker.

An answer without a nonce is kept and given again while the certificate's standing is the same, so that what is asked
most costs no signature; a revocation is told at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cm_service.public.ocsp_worker import signer_setup
from cm_service.public.responder import Responder
from cm_service.records import find_by_serial, revocation_of
from keyark.clock import Clock
from keyark.errors import InvalidInputError, KeyarkError, NotFoundError, UnavailableError
from keyark.records.v1.cm_pb2 import SignOcspTask
from keyark.store import ReadTransaction, Store
from keyark.x509.certificates import Validity
from keyark.x509.ocsp import (
    MALFORMED,
    TRY_LATER,
    UNAUTHORIZED,
    CertificateId,
    OcspIssuer,
    OcspQuery,
    OcspStanding,
    parse_ocsp_request,
    refuse_ocsp,
)

KEPT_ANSWERS: Final = 10_000


class OcspPool(Protocol):
    """Where the responder's key is; raises WorkerStartError, OverloadedError and UnavailableError."""

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        """Work each serialized SignOcspTask to an OCSPResponse, DER."""

    async def reconfigure(self, setup: bytes) -> None:
        """Replace all workers by ones with the responder that its file holds now."""


@dataclass(frozen=True, kw_only=True)
class OcspAnswer:
    """An OCSPResponse, DER, and for which time it is good for anybody (seconds UTC); None for nobody else."""

    body: bytes
    this_update: int
    next_update: int | None = None


class Ocsp:
    """Answers for one CA key; an answer is valid for ``valid`` seconds, and given again in the first half of them."""

    def __init__(
        self,
        *,
        responder: Responder,
        store: Store,
        clock: Clock,
        pool: OcspPool,
        valid: int,
        generation: int = 0,
    ) -> None:
        self._responder, self._in_force = responder, responder.certificate()
        self._issuer = OcspIssuer(responder.issuer())
        self._store, self._clock, self._pool, self._valid = store, clock, pool, valid
        self._generation = generation
        self._kept: OrderedDict[CertificateId, tuple[OcspStanding, OcspAnswer]] = OrderedDict()

    async def answer(self, der: bytes) -> OcspAnswer:
        """Answer an OCSPRequest, DER; whatever is wrong is told by the answer's status, and raises nothing typed."""
        now = self._clock.now_us() // 1_000_000
        try:
            query = parse_ocsp_request(der)
        except InvalidInputError:
            return OcspAnswer(body=refuse_ocsp(MALFORMED), this_update=now)
        if not self._issuer.issued(query.certificate):
            return OcspAnswer(body=refuse_ocsp(UNAUTHORIZED), this_update=now)
        standing = self._store.read(lambda txn: _standing(txn, query.certificate.serial, self._generation))
        kept = self._find_kept(query, standing, now)
        if kept is not None:
            return kept
        try:
            answer = await self._sign(query, standing, now)
        except KeyarkError:
            return OcspAnswer(body=refuse_ocsp(TRY_LATER), this_update=now)
        if answer.next_update is not None:
            self._keep(query.certificate, standing, answer)
        return answer

    def asks_about_this_ca(self, der: bytes) -> bool:
        """Whether an OCSPRequest, DER, asks about a certificate of this CA key."""
        try:
            return self._issuer.issued(parse_ocsp_request(der).certificate)
        except InvalidInputError:
            return False

    async def renew(self) -> None:
        """Renew the responder where that is due, and let workers sign with it; raises what either raises."""
        await self._responder.renew_due()
        self._issuer = OcspIssuer(self._responder.issuer())
        newest = self._responder.certificate()
        if newest != self._in_force:
            await self._pool.reconfigure(signer_setup(self._responder.path))
            self._in_force = newest
            self._kept.clear()

    def _find_kept(self, query: OcspQuery, standing: OcspStanding, now: int) -> OcspAnswer | None:
        found = self._kept.get(query.certificate) if query.nonce is None else None
        if found is None or found[0] != standing:
            return None
        answer = found[1]
        half = answer.this_update + self._valid // 2
        return answer if answer.this_update <= now < half else None

    def _keep(self, asked: CertificateId, standing: OcspStanding, answer: OcspAnswer) -> None:
        self._kept[asked] = (standing, answer)
        self._kept.move_to_end(asked)
        if len(self._kept) > KEPT_ANSWERS:
            self._kept.popitem(last=False)

    async def _sign(self, query: OcspQuery, standing: OcspStanding, now: int) -> OcspAnswer:
        last = Validity.of(self._in_force).not_after if self._in_force is not None else now
        next_update = min(now + self._valid, last)
        if next_update <= now:
            raise UnavailableError(
                "The responder's certificate has expired, and renewing it fails; the entries above say why."
            )
        asked = query.certificate
        task = SignOcspTask(
            hash_name=asked.hash_name,
            issuer_name_hash=asked.issuer_name_hash,
            issuer_key_hash=asked.issuer_key_hash,
            serial=asked.serial,
            known=standing.known,
            revocation_time=standing.revocation_time,
            reason=standing.reason,
            this_update=now,
            next_update=next_update,
            nonce=query.nonce,
        )
        (signed,) = await self._pool.run([task.SerializeToString()])
        if isinstance(signed, KeyarkError):
            raise signed
        # What is not known now may be issued in a moment.
        for_all = query.nonce is None and standing.known
        return OcspAnswer(body=signed, this_update=now, next_update=next_update if for_all else None)


@dataclass(frozen=True)
class AllOcsp:
    """Answers for the CA keys whose certificates have not ended, the present one first, each by its own responder."""

    each: Sequence[Ocsp]
    clock: Clock

    async def answer(self, der: bytes) -> OcspAnswer:
        """Let the one answer that is asked; the first tells what none of them knows."""
        if not self.each:
            return OcspAnswer(body=refuse_ocsp(UNAUTHORIZED), this_update=self.clock.now_us() // 1_000_000)
        asked = next((ocsp for ocsp in self.each if ocsp.asks_about_this_ca(der)), self.each[0])
        return await asked.answer(der)

    async def renew(self) -> None:
        """Renew each responder where that is due; one that cannot be renewed keeps no other from it, and is raised."""
        failure: KeyarkError | None = None
        for ocsp in self.each:
            try:
                await ocsp.renew()
            except KeyarkError as error:
                failure = failure or error
        if failure is not None:
            raise failure


def _standing(txn: ReadTransaction, serial: bytes, generation: int) -> OcspStanding:
    try:
        found, pair = find_by_serial(txn, serial)
    except NotFoundError:
        return OcspStanding(known=False)
    if pair.issuer_generation != generation:
        return OcspStanding(known=False)
    revocation = revocation_of(pair, found.role)
    if revocation is None:
        return OcspStanding(known=True)
    return OcspStanding(known=True, revocation_time=revocation.revocation_time, reason=revocation.reason)
