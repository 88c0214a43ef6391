"""The ceremonies of a running DRM, put together: what each type does, and what follows from it."""

from __future__ import annotations

from functools import partial
from typing import Final

from drm_service.ceremonies.journal import CeremonyJournal
from drm_service.ceremonies.key_ceremonies import ChangeAgents, ResealKeys, RotateStorageKey
from drm_service.ceremonies.records import RECOVER
from drm_service.ceremonies.recovery import RecoverKeys
from drm_service.ceremonies.room import AgentRates, AgentWork
from drm_service.ceremonies.steps import Ceremonies, CeremonySettings
from drm_service.ceremonies.worker import FACTORY
from drm_service.config import DrmConfig
from drm_service.keys.storage_keys import StorageKeys
from drm_service.workers.pool import ArchiveWorkers
from keyark.policy.engine import PolicyEngine
from keyark.service.program.assembly import Foundation
from keyark.statements.ceremonies import AgentTrust
from keyark.v1.ceremony_pb2 import CeremonyType
from keyark.workers.disposable import disposable_worker
from keyark.x509.certificates import load_certificates

CHANGE_AGENTS: Final = CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS
ROTATE: Final = CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY


def build_ceremonies(
    config: DrmConfig,
    foundation: Foundation,
    *,
    policy: PolicyEngine,
    storage_keys: StorageKeys,
    workers: ArchiveWorkers,
) -> Ceremonies:
    """Return the ceremonies, not yet opened."""
    trust = AgentTrust(
        trust_domain=config.service.trust_domain,
        anchors=load_certificates(config.service.trust_anchor),
        revoked=foundation.revoked,
    )
    store, log, clock = foundation.store, foundation.log, foundation.clock
    start_worker = partial(disposable_worker, FACTORY)
    ceremonies = Ceremonies(
        trust=trust,
        settings=CeremonySettings(
            expiry_seconds=round(config.recovery.expiry_hours * 3600), quorum_rule=config.recovery.quorum_rule
        ),
        store=store,
        journal=CeremonyJournal(store=store, log=log, clock=clock),
        clock=clock,
        start_worker=start_worker,
        work=AgentWork(clock=clock, rates=AgentRates(requests=config.recovery.requests_per_hour)),
    )
    recoveries_anew = partial(ceremonies.reopen_all, only=(RECOVER,))
    ceremonies.actions = {
        RECOVER: RecoverKeys(store=store, log=log, policy=policy, clock=clock),
        CHANGE_AGENTS: ChangeAgents(
            store=store,
            clock=clock,
            trust=trust,
            quorum_rule=config.recovery.quorum_rule,
            agents_changed=ceremonies.agents_changed,
        ),
        ROTATE: RotateStorageKey(
            store=store,
            clock=clock,
            storage_keys=storage_keys,
            start_worker=start_worker,
            reconfigure_workers=workers.take_storage_keys,
            storage_key_changed=partial(
                ceremonies.reopen_all, "the storage key changed", only=(CHANGE_AGENTS, ROTATE)
            ),
        ),
        CeremonyType.CEREMONY_TYPE_RESEAL_KEYS: ResealKeys(
            store=store,
            log=log,
            clock=clock,
            storage_keys=storage_keys,
            keys_moved=partial(recoveries_anew, "the keys were sealed under another storage key"),
        ),
    }
    return ceremonies
