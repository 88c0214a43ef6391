"""The DRM's face to recovery agents: translates, calls keys and ceremonies, translates back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from grpc.aio import ServicerContext

from drm_service.ceremonies.key_states import KeyStates
from drm_service.ceremonies.quorum import check_present
from drm_service.ceremonies.records import find_ceremony
from drm_service.ceremonies.recovery import RecoveredKeyDelivery
from drm_service.ceremonies.steps import Ceremonies
from drm_service.ceremonies.views import CeremonyViews
from drm_service.ceremony_rows import CEREMONIES
from drm_service.keys.search import find_key, find_keys
from drm_service.records import describe
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import CeremonyRecord
from keyark.rpc.serving.authorization import Admission
from keyark.rpc.serving.server import current_caller
from keyark.service.id_prefix import IdPrefix
from keyark.service.paging import page_of
from keyark.statements.ceremonies import AGENT_ROLE
from keyark.store import Store
from keyark.v1 import recovery_pb2 as pb
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceServicer

Context = ServicerContext[Any, Any]

READING: Final = (
    "ListKeys",
    "GetKey",
    "ListStorageKeys",
    "ListArchiveChanges",
    "ListCeremonies",
    "GetCeremony",
)
ACTING: Final = (
    "DeactivateKey",
    "ActivateKey",
    "RequestCeremony",
    "ApproveCeremony",
    "RejectCeremony",
    "CancelCeremony",
    "GetRecoveredKeys",
    "AcknowledgeRecoveredKeys",
)
METHODS: Final = (*READING, *ACTING)
SERVICE: Final = "/keyark.v1.KeyRecoveryService"
ALLOWED: Final = {
    **{f"{SERVICE}/{method}": {"agent", "auditor"} for method in READING},
    **{f"{SERVICE}/{method}": {"agent"} for method in ACTING},
}


def admission(store: Store) -> Admission:
    """Return what every method asks of an agent beyond its role: that it holds a share now."""

    def admit(caller: SpiffeId) -> None:
        if caller.role == AGENT_ROLE:
            store.read(lambda txn: check_present(txn, caller))

    return admit


@dataclass(frozen=True, kw_only=True)
class KeyRecoveryServicer(KeyRecoveryServiceServicer):
    """For recovery agents, and auditors to read; only GetRecoveredKeys returns keys, sealed to who asked for them."""

    store: Store
    key_states: KeyStates
    ceremonies: Ceremonies
    views: CeremonyViews
    delivery: RecoveredKeyDelivery

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """The archived keys that a filter selects, oldest first."""
        page = page_of(request.page, query=request.filter)
        found = await self.store.view(lambda txn: find_keys(txn, request.filter, page))
        return pb.ListKeysResponse(keys=found.keys, next_page_token=page.token(found.next_position))

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        """One archived key by its key id, with its receipt."""
        key = self.store.read(lambda txn: find_key(txn, request.key_id))
        return pb.GetKeyResponse(key=key, receipt=await self.views.receipt(request.key_id))

    async def DeactivateKey(
        self, request: pb.DeactivateKeyRequest, context: Context
    ) -> pb.DeactivateKeyResponse:
        """Keep a key from being recovered."""
        record = await self.key_states.deactivate(current_caller(), request.key_id, request.reason)
        return pb.DeactivateKeyResponse(key=describe(record))

    async def ActivateKey(self, request: pb.ActivateKeyRequest, context: Context) -> pb.ActivateKeyResponse:
        """Let a key be recovered again."""
        record = await self.key_states.activate(current_caller(), request.key_id, request.reason)
        return pb.ActivateKeyResponse(key=describe(record))

    async def ListStorageKeys(
        self, request: pb.ListStorageKeysRequest, context: Context
    ) -> pb.ListStorageKeysResponse:
        """Who holds shares of which storage key."""
        return pb.ListStorageKeysResponse(storage_keys=self.views.storage_keys(current_caller()))

    async def ListArchiveChanges(
        self, request: pb.ListArchiveChangesRequest, context: Context
    ) -> pb.ListArchiveChangesResponse:
        """How agents and storage keys changed, for an agent's client to verify."""
        return pb.ListArchiveChangesResponse(
            changes=await self.views.archive_changes(known=request.newest_change)
        )

    async def RequestCeremony(
        self, request: pb.RequestCeremonyRequest, context: Context
    ) -> pb.RequestCeremonyResponse:
        """Open what an agent asks for."""
        caller = current_caller()
        record = await self.ceremonies.request(caller, request.request)
        return pb.RequestCeremonyResponse(ceremony=await self.views.whole(record, caller))

    async def ListCeremonies(
        self, request: pb.ListCeremoniesRequest, context: Context
    ) -> pb.ListCeremoniesResponse:
        """The ceremonies, oldest first; a page holds those of its rows that are in the state asked for."""
        await self.ceremonies.expire()
        prefix = IdPrefix(request.ceremony_id_prefix)
        query = pb.ListCeremoniesRequest(state=request.state, ceremony_id_prefix=prefix.digits)
        page = page_of(request.page, query=query)
        rows = await self.store.view(
            lambda txn: prefix.rows(txn, CEREMONIES, after=page.after, limit=page.limit)
        )
        records = [CeremonyRecord.FromString(value) for _, value in rows]
        views = [self.views.brief(record) for record in records]
        return pb.ListCeremoniesResponse(
            ceremonies=[view for view in views if request.state in (0, view.state)],
            next_page_token=page.next_token(rows),
        )

    async def GetCeremony(self, request: pb.GetCeremonyRequest, context: Context) -> pb.GetCeremonyResponse:
        """One ceremony, with all that an agent has to see before it decides."""
        await self.ceremonies.expire()
        record = self.store.read(lambda txn: find_ceremony(txn, request.ceremony_id))
        return pb.GetCeremonyResponse(ceremony=await self.views.whole(record, current_caller()))

    async def ApproveCeremony(
        self, request: pb.ApproveCeremonyRequest, context: Context
    ) -> pb.ApproveCeremonyResponse:
        """An agent's approval with its shares."""
        caller = current_caller()
        decided = await self.ceremonies.approve(
            caller, request.ceremony_id, request.approval, list(request.shares)
        )
        record, proof = decided.record, await self.views.decision_proof(decided.log_index)
        return pb.ApproveCeremonyResponse(
            ceremony=await self.views.whole(record, caller),
            change=await self.views.change_of(record),
            decision_proof=proof,
        )

    async def RejectCeremony(
        self, request: pb.RejectCeremonyRequest, context: Context
    ) -> pb.RejectCeremonyResponse:
        """An agent's rejection."""
        caller = current_caller()
        decided = await self.ceremonies.reject(caller, request.ceremony_id, request.rejection)
        proof = await self.views.decision_proof(decided.log_index)
        return pb.RejectCeremonyResponse(
            ceremony=await self.views.whole(decided.record, caller), decision_proof=proof
        )

    async def CancelCeremony(
        self, request: pb.CancelCeremonyRequest, context: Context
    ) -> pb.CancelCeremonyResponse:
        """End a ceremony for its requester."""
        caller = current_caller()
        record = await self.ceremonies.cancel(caller, request.ceremony_id)
        return pb.CancelCeremonyResponse(ceremony=await self.views.whole(record, caller))

    async def GetRecoveredKeys(
        self, request: pb.GetRecoveredKeysRequest, context: Context
    ) -> pb.GetRecoveredKeysResponse:
        """The recovered keys, for their requester."""
        keys = self.delivery.recovered_keys(current_caller(), request.ceremony_id)
        return pb.GetRecoveredKeysResponse(keys=keys)

    async def AcknowledgeRecoveredKeys(
        self, request: pb.AcknowledgeRecoveredKeysRequest, context: Context
    ) -> pb.AcknowledgeRecoveredKeysResponse:
        """The requester has them: erase them here."""
        await self.delivery.acknowledge(current_caller(), request.ceremony_id)
        return pb.AcknowledgeRecoveredKeysResponse()
