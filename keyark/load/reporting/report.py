"""The report of a run: JSON for scripts, a summary for the terminal, a page for people."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from keyark.load.driving.fleet import LoadResult
from keyark.load.driving.observing import machine
from keyark.load.planning.plan import Closed, LoadPlan, Open
from keyark.load.reporting import pages
from keyark.load.reporting.capacity import Capacity
from keyark.load.reporting.plots import Axis, line_plot
from keyark.load.reporting.series import build_series
from keyark.load.reporting.summary import Summary, summarize
from keyark.text.console import SafeConsole


def build_report(result: LoadResult) -> dict[str, Any]:
    """Return the whole report, fit for JSON: plan, machine, figures, series."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "plan": json.loads(result.plan.model_dump_json()),
        "machine": machine(),
        "figures": summarize(result).as_dict(),
        "series": build_series(result),
    }


def describe_plan(plan: LoadPlan) -> str:
    """Return a plan in one line for people."""
    arrival = plan.arrival
    if isinstance(arrival, Closed):
        how = f"{arrival.clients} clients in a closed loop"
    elif isinstance(arrival, Open):
        how = f"{arrival.rate:g} calls per second ({arrival.process})"
    else:
        how = f"{arrival.start:g} to {arrival.end:g} calls per second"
    mix = "" if not plan.queries else ", mixed " + ":".join(f"{kind} {w:g}" for kind, w in plan.mix.items())
    return (
        f"{how}, {plan.batch} per call, key {plan.delivery.value}, {plan.signing.value} and "
        f"{plan.encryption.value}{mix}, {plan.seconds:g} s after {plan.warm_up:g} s of warming up"
    )


def terminal_summary(plan: LoadPlan, summary: Summary) -> RenderableType:
    """Return what a person looks for after a run."""
    calls = Table(title=describe_plan(plan), title_justify="left")
    for column in ("call", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "errors"):
        calls.add_column(column, justify="left" if column == "call" else "right")
    for kind, k in summary.kinds.items():
        errors = ", ".join(f"{reason} {count}" for reason, count in k.errors.items()) or "none"
        latencies = (k.p50_ms, k.p99_ms, k.p999_ms, k.percentiles_ms["100"])
        calls.add_row(kind, f"{k.items_per_second:.1f}", *(f"{ms:.1f}" for ms in latencies), errors)
    services = Table()
    for column in ("service", "CPU us per enrollment", "memory MiB", "commits per second"):
        services.add_column(column, justify="left" if column == "service" else "right")
    for role, s in summary.services.items():
        cpu, memory, commits = s.cpu_us_per_enrollment, s.rss_mb, s.commits_per_second
        services.add_row(role, f"{cpu:.0f}", f"{memory:.0f}", f"{commits:.1f}")
    shared = Text(
        f"mean batch {summary.batch_mean:.1f}, commits per enrollment {summary.fsyncs_per_enrollment:.2f}, calls per "
        f"enrollment {summary.rpcs_per_enrollment:.2f}, client CPU {summary.client_cpu_us:.0f} us per enrollment, "
        f"memory grew by {summary.memory_growth_percent:.1f} %"
    )
    messages = {
        f"{reason}: {text}" for kind in summary.kinds.values() for reason, text in kind.messages.items()
    }
    notes = [Text(line, style="red") for line in sorted(messages)]
    notes += [Text(f"note: {note}", style="yellow") for note in summary.notes]
    return Group(calls, *((services, shared) if summary.services else ()), *notes)


def html_report(report: dict[str, Any], plan: LoadPlan) -> str:
    """Return the report as a page."""
    figures, host = report["figures"], report["machine"]
    kinds = [
        (kind, k["items_per_second"], k["mean_ms"], *k["percentiles_ms"].values(), _errors(k["errors"]))
        for kind, k in figures["kinds"].items()
    ]
    percentiles = next(iter(figures["kinds"].values()))["percentiles_ms"] if kinds else {}
    services = [
        (
            role,
            s["cpu_us_per_enrollment"],
            s["cpu_seconds"],
            s["rss_mb"],
            s["anonymous_mb"],
            s["commits_per_second"],
        )
        for role, s in figures["services"].items()
    ]
    names = ("server_cpu_us", "client_cpu_us", "batch_mean", "fsyncs_per_enrollment", "rpcs_per_enrollment")
    body = [
        *(pages.note(note) for note in figures["notes"]),
        *(pages.note(f"{r}: {text}") for k in figures["kinds"].values() for r, text in k["messages"].items()),
        pages.table(("call", "per second", "mean ms", *(f"p{p} ms" for p in percentiles), "errors"), kinds),
        pages.heading("Over time"),
        pages.plots(report["series"]),
        pages.heading("Services"),
        pages.table(
            ("service", "CPU us per enrollment", "CPU s", "RSS MiB", "anonymous MiB", "commits per s"),
            services,
        ),
        pages.table(names, [[figures[name] for name in names]]),
    ]
    lead = f"{report['time']} · {describe_plan(plan)} · {host['cpus']} CPUs, {host['cpu']}"
    return pages.page("keyark under load", lead=lead, body=body)


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in errors.items()) or "none"


def write_report(result: LoadResult, folder: Path) -> dict[str, Any]:
    """Write report.json and report.html into a folder, which is made if need be; returns the report."""
    report = build_report(result)
    _write(folder, report, html_report(report, result.plan))
    return report


def print_summary(result: LoadResult, console: SafeConsole) -> None:
    """Print the summary of a run."""
    console.print(terminal_summary(result.plan, summarize(result)))


def write_capacity(found: Capacity, plan: LoadPlan, p99_ms: float, folder: Path) -> dict[str, Any]:
    """Write what a search for the highest rate found as report.json and report.html; returns the report."""
    trials = [asdict(trial) for trial in found.trials]
    report = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "plan": json.loads(plan.model_dump_json(exclude={"arrival"})),
        "machine": machine(),
        "p99_bound_ms": p99_ms,
        "calls_per_second": found.rate,
        "trials": trials,
    }
    ordered = sorted((trial.rate, trial.p99_ms) for trial in found.trials)
    bound = [(rate, p99_ms) for rate, _ in ordered]
    body = [
        pages.table(list(trials[0]), [list(trial.values()) for trial in trials]),
        pages.heading("99th percentile of latency by rate"),
        line_plot({"p99": ordered, "bound": bound}, x=Axis(label="calls per second"), y=Axis(label="ms")),
    ]
    lead = f"{report['time']} · {found.rate:.1f} calls per second within {p99_ms:g} ms at the 99th percentile"
    _write(folder, report, pages.page("keyark capacity", lead=lead, body=body))
    return report


def print_capacity(found: Capacity, p99_ms: float, console: SafeConsole) -> None:
    """Print the highest rate that was sustained."""
    if found.rate:
        console.print(
            f"sustained: {found.rate:.1f} calls per second within {p99_ms:g} ms at the 99th percentile"
        )
    else:
        console.print(f"no rate that was tried was sustained within {p99_ms:g} ms at the 99th percentile")


def _write(folder: Path, report: dict[str, Any], page: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "report.html").write_text(page)
