"""The policy that a service has in force: logged when it comes into force, and changed without a restart.

A change is all or nothing: the whole file is read and every rule is built before the first one counts. The log says
which policy is in force by its SHA-256, before it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyark.clock import Clock
from keyark.config import Config, load_config
from keyark.errors import ConfigurationError
from keyark.policy.config import PolicyConfig, build_engine
from keyark.policy.engine import PolicyEngine
from keyark.service.control import UnknownCommandError
from keyark.service.tables import POLICY
from keyark.store import Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType

IN_FORCE: Final = b"in_force"


@dataclass(kw_only=True)
class LivePolicy:
    """The policy of one subsystem; ``engine`` stays the same object when the policy changes."""

    engine: PolicyEngine
    config: Config
    store: Store
    log: Log
    clock: Clock

    async def reload(self) -> str:
        """Read the service's file again and put its policy in force; returns what to tell the operator.

        Raises ConfigurationError where anything in the file is wrong, and the errors of store and log; the
        policy in force then stays. Other sections of the file are checked, and count at the next start.
        """
        policy = policy_of(self.config)
        if policy.file is None:
            raise ConfigurationError("The policy did not come from a file, so it cannot be read again.")
        read = policy_of(load_config(policy.file, type(self.config)))
        engine = build_engine(self.engine.subsystem, read)
        changed = await self.record(read)
        self.engine.replace(engine)
        return f"policy {read.digest()} is {'now' if changed else 'still'} in force: {len(read.rule)} rules"

    async def command(self, words: Sequence[str]) -> list[str]:
        """Carry out ``policy`` of a running service: reload."""
        if words:
            raise UnknownCommandError("`policy` takes no arguments.")
        return [await self.reload()]

    async def record(self, policy: PolicyConfig) -> bool:
        """Log which policy comes into force; says whether it is another one than before."""
        digest = bytes.fromhex(policy.digest())
        event = AuditEvent(
            version=EVENT_VERSION,
            type=EventType.EVENT_TYPE_POLICY_IN_FORCE,
            time_us=self.clock.now_us(),
            policy_sha256=digest,
        )
        leaf = new_event(event, AuditDetails(count=len(policy.rule)))

        def write(txn: WriteTransaction) -> bool:
            if txn.get(POLICY, IN_FORCE) == digest:
                return False
            txn.put(POLICY, IN_FORCE, digest)
            self.log.append(txn, leaf)
            return True

        return await self.store.update(write)


async def open_policy(subsystem: str, config: Config, *, store: Store, log: Log, clock: Clock) -> LivePolicy:
    """Put the policy of a service that starts in force, and log it where the last one was another.

    Raises ConfigurationError as ``build_engine`` does, and the errors of store and log.
    """
    policy = policy_of(config)
    live = LivePolicy(
        engine=build_engine(subsystem, policy), config=config, store=store, log=log, clock=clock
    )
    await live.record(policy)
    return live


def policy_of(config: Config) -> PolicyConfig:
    """Return the section [policy] of a service's configuration."""
    policy: PolicyConfig = config.policy  # type: ignore[attr-defined]  # every service's configuration has it
    return policy
