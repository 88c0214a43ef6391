"""`keyark init`: a whole deployment on one machine, made by calling each service's own `init`.

On three hosts the same steps are taken by hand, as docs/deployment.md shows: each service makes its own keys on its
own host, and only requests and certificates travel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from keyark.client.access.bundles import HOME
from keyark.client.recovery.archive_pins import ArchivePins
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import QuorumRule, check_quorum
from keyark.deployment.access.agents import make_share_key
from keyark.deployment.access.authority import MAX_REQUEST, DeploymentAuthority
from keyark.deployment.access.bundle import BundleSource, publish_bundle
from keyark.deployment.commands import service_command
from keyark.errors import ConfigurationError
from keyark.files import PRIVATE, PUBLIC, make_private_folder, read_file, write_new_file
from keyark.folders import filling
from keyark.identity.bundles import BUNDLE
from keyark.identity.certificates import request_identity
from keyark.identity.spiffe import SERVICE_ROLES, SpiffeId, check_trust_domain
from keyark.keys.key_types import CA_KEY_TYPES, TRANSPORT_KEY_TYPES, KeyType, check_key_type, generate_signing
from keyark.keys.private_keys import save_private_key
from keyark.service.program.answers import REQUEST
from keyark.service.program.initialization import save_request
from keyark.x509.certificates import load_certificates, save_certificates


@dataclass(frozen=True, kw_only=True)
class DeploymentPlan:
    """What `keyark init` was asked for.

    ``password`` encrypts people's private keys; ``authority_password`` and ``key_password`` say where the passwords of
    the keys of the authority and of the services are (see ``keyark.keys.at_rest``).
    """

    folder: Path
    trust_domain: str = "example.org"
    agents: tuple[str, ...] = ("alice", "bob", "carol")
    quorum: int = 2
    quorum_rule: QuorumRule = QuorumRule.SEPARATE
    ca_key_type: KeyType = KeyType.EC_P256
    transport_key_type: KeyType = KeyType.EC_P256
    port_base: int = 7710
    password: bytes | None = field(default=None, repr=False)
    authority_password: str | None = None
    key_password: str | None = None

    def check(self) -> None:
        """Raise before anything is made where the plan cannot be carried out."""
        check_trust_domain(self.trust_domain, field="--trust-domain")
        if len(set(self.agents)) != len(self.agents):
            raise ConfigurationError("An agent is named twice; every agent holds one share.")
        for agent in self.agents:
            SpiffeId(self.trust_domain, f"agent/{agent}")
        check_quorum(len(self.agents), self.quorum, rule=self.quorum_rule)
        check_key_type(self.ca_key_type, CA_KEY_TYPES, field="--ca-key")
        check_key_type(self.transport_key_type, TRANSPORT_KEY_TYPES, field="--transport-key")
        if not 1 <= self.port_base <= 65_533:
            raise ConfigurationError("--port-base and the next two ports must be between 1 and 65535.")

    @property
    def addresses(self) -> dict[str, str]:
        """Where each service listens."""
        return {role: f"127.0.0.1:{self.port_base + i}" for i, role in enumerate(SERVICE_ROLES)}

    @property
    def ca_name(self) -> str:
        """Common name of the issuing CA."""
        return f"Issuing CA of {self.trust_domain}"[:64]


def initialize(plan: DeploymentPlan, say: Callable[[str], None]) -> None:
    """Make the deployment; ``say`` gets a line per step.

    Raises ConfigurationError and other typed errors, before anything is made where the plan is at fault.
    """
    plan.check()
    with filling(plan.folder):
        _fill(plan, say)
    say(f"made the issuing CA; the deployment is in {plan.folder}")


def _fill(plan: DeploymentPlan, say: Callable[[str], None]) -> None:
    folder = plan.folder
    authority = DeploymentAuthority.create(
        folder / "authority",
        trust_domain=plan.trust_domain,
        root_key_type=plan.ca_key_type,
        key_password=plan.authority_password,
    )
    save_certificates(folder / "trust-anchor.pem", [authority.internal.certificate])
    say("made the internal CA and the root in authority/; move their keys offline when you are done")
    _make_people(plan, authority)
    say(f"made identities for {', '.join(plan.agents)} (agents), enroller, officer and auditor")
    storage_key_id = _init_drm(plan)
    pin_agents(plan, storage_key_id)
    say(
        f"made the DRM's transport key, and storage key {storage_key_id} split {plan.quorum} of {len(plan.agents)}"
    )
    trusted = _archive_arguments(plan, storage_key_id)
    _init_cm(plan, trusted)
    _init_rm(plan, trusted)
    _certify_services(plan, authority)
    write_new_file(
        folder / "keyark.toml",
        Template(HOME).substitute(trust_domain=plan.trust_domain, **plan.addresses).encode(),
        mode=PRIVATE,
    )
    bundle = publish_bundle(folder, BundleSource.of_home(folder), authority)
    say(f"made {BUNDLE}, from which people make their homes; fingerprint {bundle.fingerprints[0]}")


def _make_people(plan: DeploymentPlan, authority: DeploymentAuthority) -> None:
    for path in (
        *(f"agent/{agent}" for agent in plan.agents),
        "client/enroller",
        "officer/officer",
        "auditor/auditor",
    ):
        make_person(plan, authority, SpiffeId(plan.trust_domain, path))


def make_person(plan: DeploymentPlan, authority: DeploymentAuthority, identity: SpiffeId) -> None:
    """Make the identity of one person below identities/; an agent gets a share key as well."""
    folder = plan.folder / "identities" / identity.role / identity.name
    make_private_folder(folder.parent.parent)
    make_private_folder(folder.parent)
    key = generate_signing(KeyType.EC_P256)
    save_private_key(folder / "key.pem", key, password=plan.password)
    save_request(folder / "identity.csr", request_identity(key, identity))
    authority.sign_identity(folder / "identity.csr", identity, folder / "cert.pem")
    (folder / "identity.csr").unlink()
    if identity.role == "agent":
        make_share_key(folder, key, password=plan.password)


def _init_drm(plan: DeploymentPlan) -> str:
    agents = [
        option
        for agent in plan.agents
        for option in ("--agent", str(plan.folder / "identities" / "agent" / agent / "share-key.json"))
    ]
    printed = _run_init(
        plan,
        "drm",
        *agents,
        "--quorum",
        str(plan.quorum),
        "--quorum-rule",
        plan.quorum_rule.value,
        "--transport-key",
        plan.transport_key_type.value,
    )
    storage_key_id: str = json.loads(printed)["storage_key_id"]
    return storage_key_id


def pin_agents(plan: DeploymentPlan, storage_key_id: str) -> None:
    """Tell every agent's own folder who the agents are, their quorum, and the storage key that they hold shares of."""
    folders = [plan.folder / "identities" / "agent" / agent for agent in plan.agents]
    pins = ArchivePins.first(
        [
            AgentShareKey.from_json(read_file(folder / "share-key.json", max_size=MAX_REQUEST).decode())
            for folder in folders
        ],
        quorum=plan.quorum,
        rule=plan.quorum_rule,
        storage_keys=[bytes.fromhex(storage_key_id)],
    )
    for folder in folders:
        pins.save(folder)


def _archive_arguments(plan: DeploymentPlan, storage_key_id: str) -> list[str]:
    """What RM and CM are told of the archive."""
    agents = [option for agent in plan.agents for option in ("--agent", f"agent/{agent}")]
    quorum = ["--quorum", str(plan.quorum), "--quorum-rule", plan.quorum_rule.value]
    return ["--storage-key-id", storage_key_id, *agents, *quorum]


def _init_cm(plan: DeploymentPlan, trusted: Sequence[str]) -> None:
    arguments = (
        "--ca-key",
        plan.ca_key_type.value,
        "--ca-name",
        plan.ca_name,
        *trusted,
    )
    _run_init(plan, "cm", *arguments)


def _init_rm(plan: DeploymentPlan, trusted: Sequence[str]) -> None:
    addresses = plan.addresses
    _run_init(plan, "rm", "--cm", addresses["cm"], "--drm", addresses["drm"], *trusted)


def _run_init(plan: DeploymentPlan, role: str, *arguments: str) -> str:
    """Run a service's own init as its operator would; returns what it printed."""
    options = ["--trust-domain", plan.trust_domain, "--listen", plan.addresses[role]]
    options += ["--trust-anchor", str(plan.folder / "trust-anchor.pem"), *arguments]
    options += ["--key-password", plan.key_password] if plan.key_password else []
    return service_command(role, "init", str(plan.folder / role), *options)


def _certify_services(plan: DeploymentPlan, authority: DeploymentAuthority) -> None:
    """Sign the requests that the services made, and hand each the public certificates that it needs."""
    for role in SERVICE_ROLES:
        folder = plan.folder / role
        (folder / REQUEST).unlink()
        authority.sign_identity(
            folder / "identity.csr", SpiffeId(plan.trust_domain, role), folder / "identity.pem"
        )
    drm, cm = plan.folder / "drm", plan.folder / "cm"
    transport = drm / "transport-keys" / "1"
    authority.sign_identity(
        transport / "transport.csr",
        SpiffeId(plan.trust_domain, "drm/transport"),
        transport / "transport.pem",
    )
    authority.sign_issuing_ca(cm / "ca.csr", plan.ca_name, cm / "ca.pem")
    save_certificates(plan.folder / "transport.pem", load_certificates(transport / "transport.pem"))
    for role in ("rm", "cm"):
        public_key = read_file(plan.folder / role / "log.pub.pem", max_size=MAX_REQUEST)
        write_new_file(plan.folder / f"{role}-log.pem", public_key, mode=PUBLIC)
    for target in (plan.folder / "ca.pem", drm / "ca.pem"):
        save_certificates(target, load_certificates(cm / "ca.pem"))
