"""`keyark load`: how much a deployment takes on this hardware."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, Final

import click
from pydantic import ValidationError

from keyark.cli.options import home_option, identity_option, json_option, needs
from keyark.cli.output import FAILED
from keyark.errors.commands import UsageError
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, parse_key_type
from keyark.load import Closed, Delivery, LoadPlan, Open, Ramp
from keyark.load.planning.plan import ENROLL, MAX_BATCH, Arrival
from keyark.load.planning.suites import SUITES

FIRST_RATE: Final = 50.0
UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """30s, 5m, 8h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value):
            return float(found[1]) * UNITS[found[2] or "s"]
        raise click.BadParameter(f"{value!r} is not a duration; write 30s, 5m or 8h.", ctx, param)


class Mix(click.ParamType[dict[str, float]]):
    """enroll=1,status=10."""

    name = "mix"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        """Return weights by kind of call."""
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        try:
            return {kind.strip(): float(weight or 1) for kind, _, weight in pairs}
        except ValueError:
            raise click.BadParameter(
                f"{value!r} is not a mix; write enroll=1,status=10.", ctx, param
            ) from None


@click.command()
@home_option
@identity_option("client/enroller")
@click.option("--clients", type=int, help="Closed loop with this many clients. This is the default, with 64.")
@click.option(
    "--rate", type=float, help="Open loop with this many calls per second, however long answers take."
)
@click.option("--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson", show_default=True)
@click.option("--ramp", metavar="FROM:TO", help="Open loop whose rate grows steadily over the run.")
@click.option("--soak", type=Duration(), help="Run for this long, and watch whether memory grows.")
@click.option(
    "--find-capacity", is_flag=True, help="Search for the highest rate whose latency stays within --p99."
)
@click.option(
    "--p99",
    type=float,
    default=250.0,
    show_default=True,
    help="Limit for the 99th percentile of latency, in ms.",
)
@click.option(
    "--duration", type=Duration(), default="30s", show_default=True, help="How long to measure: 30s, 5m, 8h."
)
@click.option(
    "--warm-up", type=Duration(), default="3s", show_default=True, help="How long to run before measuring."
)
@click.option(
    "--batch", type=click.IntRange(1, MAX_BATCH), default=1, show_default=True, help="Enrollments per call."
)
@click.option(
    "--key",
    "delivery",
    type=click.Choice([d.value for d in Delivery]),
    default=Delivery.ALONG.value,
    show_default=True,
    help="Send the private key along, or when the RM asks for it.",
)
@click.option(
    "--mix",
    type=Mix(),
    default=f"{ENROLL}=1",
    help="Weights of the calls: enroll, status, certificate, outcome, recover.",
)
@click.option(
    "--agents",
    default="alice,bob,carol",
    show_default=True,
    help="The agents who recover keys; the first one asks.",
)
@click.option("--profile", default="user", show_default=True)
@click.option(
    "--suite",
    type=click.Choice(list(SUITES)),
    default="ec",
    show_default=True,
    help="Key types of the users.",
)
@click.option("--signing-key", help="Key type that replaces the suite's.")
@click.option("--encryption-key", help="Key type that replaces the suite's.")
@click.option(
    "--sample",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of the answers that are verified in full.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many client processes to run.",
)
@click.option("--items", type=click.IntRange(1), help="Stop after this many enrollments.")
@click.option(
    "--keys",
    type=click.Path(file_okay=False, path_type=Path),
    default="keyark-load-keys",
    show_default=True,
    help="Folder for key pairs, which are made once and reused.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="keyark-load",
    show_default=True,
    help="Folder for report.json and report.html.",
)
@json_option
@click.pass_context
@needs("load")
def load(ctx: click.Context, /, **options: Any) -> None:
    """Put load on a running deployment, check every answer, and report what it took.

    The enrollments stay in the deployment, under names like "Load Test 1", with keys that protect nothing. Use
    a deployment that was made for this. Exits with 1 if a call failed or an answer was wrong.
    """
    plan = _plan(options)
    harness = importlib.import_module("keyark.load.reporting.terminal")  # with all that load tests need
    view = harness.Terminal(keys=options["keys"], out=options["out"], as_json=options["as_json"])
    if options["find_capacity"]:
        view.find_capacity(plan, plan.arrival, options["p99"])
    elif view.run(plan):
        ctx.exit(FAILED)


def _plan(options: dict[str, Any]) -> LoadPlan:
    suite = SUITES[options["suite"]]
    signing, encryption = options["signing_key"], options["encryption_key"]
    try:
        return LoadPlan(
            home=options["home"],
            arrival=_arrival(options),
            seconds=options["soak"] or options["duration"],
            warm_up=options["warm_up"],
            mix=options["mix"],
            batch=options["batch"],
            delivery=Delivery(options["delivery"]),
            profile=options["profile"],
            signing=parse_key_type(signing, permitted=SIGNING_KEY_TYPES) if signing else suite.signing,
            encryption=parse_key_type(encryption, permitted=ENCRYPTION_KEY_TYPES)
            if encryption
            else suite.encryption,
            sample=options["sample"],
            processes=options["processes"],
            items=options["items"],
            client=options["identity"],
            agents=tuple(name.strip() for name in options["agents"].split(",")),
        )
    except ValidationError as error:
        raise UsageError("; ".join(found["msg"] for found in error.errors()) + ".") from None


def _arrival(options: dict[str, Any]) -> Arrival:
    chosen = [name for name in ("clients", "rate", "ramp") if options[name] is not None]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other; choose one.")
    if options["find_capacity"] and chosen not in ([], ["rate"]):
        raise UsageError("--find-capacity chooses the rate; use --rate to say where it begins.")
    if options["rate"] is not None or options["find_capacity"]:
        rate = FIRST_RATE if options["rate"] is None else options["rate"]
        return Open(rate=rate, process=options["arrivals"])
    if options["ramp"] is None:
        return Closed(clients=64 if options["clients"] is None else options["clients"])
    start, _, end = options["ramp"].partition(":")
    try:
        return Ramp(start=float(start), end=float(end))
    except ValueError:
        raise UsageError("--ramp takes two rates, as in 10:500.") from None
