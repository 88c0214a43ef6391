"""`keyark doctor`: what is wrong with a deployment, and which command repairs it."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from pathlib import Path
from typing import Any

import click

from keyark.cli.officers.certificates import days
from keyark.cli.options import home_option, identity_password_option, json_option, password_source
from keyark.cli.output import FAILED, print_json, say
from keyark.client.access.home import Home
from keyark.client.audit.doctor import examine
from keyark.client.audit.findings import Examination, Finding
from keyark.clock import SECONDS_PER_DAY


@click.command()
@home_option
@click.option(
    "--within", default="30d", show_default=True, help="How far to look ahead: days (30d) or weeks (4w)."
)
@identity_password_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, /, **options: Any) -> None:
    """Compare RM, CM and DRM with each other and with the clock, and report problems. Exits with 1 if there is
    one.
    """
    home: Path = options["home"]
    examination = Examination(
        home=Home.load(home),
        password=cache(password_source(options["identity_password_file"])),  # many calls, one question
        now=time.time,
        within=days(options["within"]) * SECONDS_PER_DAY,
    )
    findings = asyncio.run(_collect(examination, as_json=options["as_json"]))
    if options["as_json"]:
        print_json([_json(finding) for finding in findings])
    elif not findings:
        say("healthy: no problem was found")
    if findings:
        ctx.exit(FAILED)


async def _collect(examination: Examination, *, as_json: bool) -> list[Finding]:
    """Collect all findings, and print each as it is found unless they are printed as JSON at the end."""
    findings = []
    async for finding in examine(examination):
        findings.append(finding)
        if not as_json:
            say(_line(finding))
    return findings


def _line(finding: Finding) -> str:
    """One line, whatever a service says: what may come from there is kept on it."""
    facts = (finding.severity.value, finding.subject, f"{finding.text}  -> {finding.command}")
    return "  ".join(" ".join(fact.splitlines()) for fact in facts)


def _json(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity.value,
        "subject": finding.subject,
        "text": finding.text,
        "command": finding.command,
    }
