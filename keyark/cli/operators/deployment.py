"""`keyark init`, `keyark up` and `keyark reload`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from keyark.cli.officers.certificates import days
from keyark.cli.operators.key_password import authority_password, authority_password_option
from keyark.cli.options import home_option, json_option, needs, new_identity_password, password_file_option
from keyark.cli.output import print_json, say, say_aside
from keyark.clock import SECONDS_PER_DAY
from keyark.custody.shares import QuorumRule
from keyark.deployment.access.authority import CONFIG, DeploymentAuthority
from keyark.deployment.access.identities import IdentityRenewal
from keyark.deployment.commands import reload_services
from keyark.deployment.initialize import DeploymentPlan, initialize
from keyark.deployment.launch import run_deployment
from keyark.deployment.scheduled import renewing_services, rotating_transport_keys
from keyark.deployment.transport import TransportKeyRotation
from keyark.keys.key_types import CA_KEY_TYPES, TRANSPORT_KEY_TYPES, parse_key_type


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--trust-domain", default="example.org", show_default=True)
@click.option(
    "--agents",
    default="alice,bob,carol",
    show_default=True,
    help="The names of the recovery agents, separated by commas.",
)
@click.option("--quorum", default=2, show_default=True, help="How many agents must approve a recovery.")
@click.option(
    "--allow-self-approval",
    is_flag=True,
    help="Let agents approve their own requests, so that the quorum may be all agents.",
)
@click.option("--allow-single-agent", is_flag=True, help="Let one agent recover keys alone.")
@click.option("--ca-key", default="ec-p256", show_default=True, help=" ".join(t.value for t in CA_KEY_TYPES))
@click.option(
    "--transport-key",
    default="ec-p256",
    show_default=True,
    help=" ".join(t.value for t in TRANSPORT_KEY_TYPES),
)
@click.option(
    "--port-base", default=7710, show_default=True, help="The RM's port. CM and DRM use the next two."
)
@password_file_option(
    "The file with the password that encrypts people's private keys. Without it, a terminal asks."
)
@authority_password_option
@click.option(
    "--key-password",
    metavar="SOURCE",
    help="Encrypt the services' keys with the password from this source: file:/PATH or "
    "credential:NAME. Without it, they are not encrypted.",
)
@json_option
@needs("server")
def init(folder: Path, **options: Any) -> None:
    """Make a deployment in FOLDER, which must be empty or not exist.

    All keys of the three services and of all agents are then on this disk, so its owner can recover keys alone.
    Before you rely on the quorum, give the agents their folders and delete them here.
    """
    plan = DeploymentPlan(
        folder=folder,
        trust_domain=options["trust_domain"],
        agents=tuple(name.strip() for name in options["agents"].split(",")),
        quorum=options["quorum"],
        quorum_rule=_quorum_rule(options),
        ca_key_type=parse_key_type(options["ca_key"], permitted=CA_KEY_TYPES, field="--ca-key"),
        transport_key_type=parse_key_type(
            options["transport_key"], permitted=TRANSPORT_KEY_TYPES, field="--transport-key"
        ),
        port_base=options["port_base"],
        password=new_identity_password(options["password_file"], "Password for people's private keys"),
        authority_password=authority_password(options["authority_password"], folder / "authority"),
        key_password=options["key_password"],
    )
    as_json: bool = options["as_json"]
    initialize(plan, (lambda _: None) if as_json else say)
    if as_json:
        print_json({"folder": str(folder), "trust_domain": plan.trust_domain, **plan.addresses})
    else:
        say(
            "note: the agents' keys are on this disk too; the quorum protects nothing until you move "
            "them to their owners"
        )


def _quorum_rule(options: dict[str, Any]) -> QuorumRule:
    if options["allow_single_agent"]:
        return QuorumRule.SINGLE_AGENT
    return QuorumRule.SELF_APPROVAL if options["allow_self_approval"] else QuorumRule.SEPARATE


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="Serve CRLs, CA certificates and OCSP over plain HTTP at this address.",
)
@click.option(
    "--renew",
    metavar="30d",
    help="Each day, renew the identities of services that end within this time. Needs FOLDER/authority.",
)
@needs("server")
def up(folder: Path, http: str | None, renew: str | None) -> None:
    """Run the three services of the deployment in FOLDER until SIGINT or SIGTERM.

    If FOLDER/authority exists, the transport key is rotated in the last third of its certificate's lifetime.
    """
    arguments = {"cm": ["--http", http]} if http else {}
    asyncio.run(_up(folder, arguments, within=None if renew is None else days(renew) * SECONDS_PER_DAY))


async def _up(folder: Path, arguments: dict[str, list[str]], *, within: int | None) -> None:
    async with AsyncExitStack() as stack:
        if within is not None:
            renewal = IdentityRenewal(home=folder, authority=DeploymentAuthority.load(folder / "authority"))
            await stack.enter_async_context(renewing_services(renewal, within=within, say=say_aside))
        if (folder / "authority" / CONFIG).is_file():
            rotation = TransportKeyRotation(home=folder)
            await stack.enter_async_context(rotating_transport_keys(rotation, say=say_aside))
        await run_deployment(folder, say, arguments=arguments)


@click.command()
@home_option
@json_option
@needs("server")
def reload(home: Path, *, as_json: bool) -> None:
    """Have the running services read their files again and replace all their workers, and wait until they have."""
    lines = reload_services(home)
    if as_json:
        print_json([{"done": line} for line in lines])
        return
    for line in lines:
        say(line)
