"""The figures of a run: rates, latencies, CPU and memory, and how well work was shared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from keyark.identity.spiffe import SERVICE_ROLES
from keyark.load.driving.fleet import LoadResult
from keyark.load.driving.observing import Sample
from keyark.load.measuring.processes import mebibytes
from keyark.load.measuring.recording import PERCENTILES, Tally
from keyark.load.planning.plan import ENROLL, Closed

CLIENT_BOUND: Final = 0.9
"""Of one core: a client process that is busier than this holds the run back."""
LATE_MS: Final = 5.0
BATCH_PARTS: Final = {"archive": ("rm", "archive_batches"), "issue": ("rm", "issue_batches")}


@dataclass(frozen=True, kw_only=True)
class KindFigures:
    """One kind of call; latencies in milliseconds, from the intended start, of calls answered well."""

    calls: int
    items: int
    items_per_second: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    percentiles_ms: dict[str, float]
    errors: dict[str, int]
    messages: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ServiceFigures:
    """One service with its workers over the whole run, warming up included."""

    cpu_seconds: float
    cpu_us_per_enrollment: float
    rss_mb: float
    anonymous_mb: float
    commits: int
    commits_per_second: float
    calls: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All figures; what could not be observed is absent (services) or 0."""

    seconds: float
    items_per_second: float
    errors: int
    kinds: dict[str, KindFigures]
    services: dict[str, ServiceFigures]
    server_cpu_us: float
    client_cpu_us: float
    client_busiest: float
    late_p99_ms: float
    checked_fully: int
    batch_mean: float
    batches: dict[str, float]
    fsyncs_per_enrollment: float
    rpcs_per_enrollment: float
    memory_growth_percent: float
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        return asdict(self)


def summarize(result: LoadResult) -> Summary:
    """Return the figures of a run."""
    seconds = _seconds(result)
    kinds = {kind: _kind(tally, seconds) for kind, tally in sorted(result.totals.items())}
    done, client = result.done[ENROLL], _client_cores(result)
    services, batches = {}, {}
    if len(result.ends) == 2:
        first, last = result.ends
        services = {
            role: _service(role, first, last, done) for role in SERVICE_ROLES if role in last.services
        }
        batches = {name: _mean_batch(part, first, last) for name, part in BATCH_PARTS.items()}
    means = [mean for mean in batches.values() if mean]
    figures = {
        "seconds": seconds,
        "items_per_second": sum(kind.items_per_second for kind in kinds.values()),
        "errors": sum(sum(kind.errors.values()) for kind in kinds.values()),
        "server_cpu_us": sum(service.cpu_us_per_enrollment for service in services.values()),
        "client_cpu_us": _per(result.client_cpu * 1e6, done),
        "client_busiest": max(client),
        "late_p99_ms": _late_ms(result),
        "checked_fully": result.checked_fully,
        "batch_mean": sum(means) / len(means) if means else 0.0,
        "fsyncs_per_enrollment": _per(sum(s.commits for s in services.values()), done),
        "rpcs_per_enrollment": _per(sum(sum(s.calls.values()) for s in services.values()), done),
        "memory_growth_percent": _growth(result),
    }
    notes = _notes(result, max(client))
    return Summary(kinds=kinds, services=services, batches=batches, notes=notes, **figures)  # type: ignore[arg-type]


def _client_cores(result: LoadResult) -> list[float]:
    """How much of a core each client process used during the measurement."""
    if len(result.samples) < 2:
        return [0.0]
    first, last = result.samples[0], result.samples[-1]
    both = zip(first.client_cpu, last.client_cpu, strict=True)
    return [(after - before) / (last.at - first.at) for before, after in both]


def _seconds(result: LoadResult) -> float:
    """How long was measured; less than planned where keys ran out."""
    window = result.window
    if not result.exhausted or not result.moments:
        return window.end - window.measure
    return max(0.001, min(window.end, max(moment.at for moment in result.moments)) - window.measure)


def _kind(tally: Tally, seconds: float) -> KindFigures:
    return KindFigures(
        calls=tally.calls,
        items=tally.items,
        items_per_second=tally.items / seconds,
        mean_ms=tally.histogram.get_mean_value() / 1000 if tally.calls else 0.0,
        p50_ms=tally.percentile_ms(50),
        p99_ms=tally.percentile_ms(99),
        p999_ms=tally.percentile_ms(99.9),
        percentiles_ms={f"{p:g}": tally.percentile_ms(p) for p in PERCENTILES},
        errors=dict(tally.errors.most_common()),
        messages=tally.messages,
    )


def _service(role: str, first: Sample, last: Sample, enrollments: int) -> ServiceFigures:
    cpu = last.services[role].cpu - first.services[role].cpu
    commits = last.commits(role) - first.commits(role)
    before = first.calls(role)
    calls = {name: count - before.get(name, 0) for name, count in last.calls(role).items()}
    return ServiceFigures(
        cpu_seconds=cpu,
        cpu_us_per_enrollment=_per(cpu * 1e6, enrollments),
        rss_mb=mebibytes(last.services[role].rss),
        anonymous_mb=mebibytes(last.services[role].anonymous),
        commits=commits,
        commits_per_second=commits / (last.at - first.at),
        calls={name: count for name, count in calls.items() if count},
    )


def _mean_batch(part: tuple[str, str], first: Sample, last: Sample) -> float:
    batches = last.batches(*part)[0] - first.batches(*part)[0]
    items = last.batches(*part)[1] - first.batches(*part)[1]
    return _per(items, batches)


def _late_ms(result: LoadResult) -> float:
    late = result.late
    return float(late.get_value_at_percentile(99)) / 1000 if late.get_total_count() else 0.0


def _growth(result: LoadResult) -> float:
    """How much the services' memory grew from a quarter of the measurement to its end, per cent."""
    totals = [sum(usage.anonymous for usage in sample.services.values()) for sample in result.samples]
    if len(totals) < 4 or not totals[len(totals) // 4]:
        return 0.0
    return (totals[-1] / totals[len(totals) // 4] - 1) * 100


def _per(value: float, count: float) -> float:
    return value / count if count else 0.0


def _notes(result: LoadResult, busiest: float) -> list[str]:
    """What a reader has to know before believing the figures."""
    notes = []
    if busiest >= CLIENT_BOUND:
        notes.append(
            f"The client was the bottleneck: a client process used {busiest:.0%} of a core; run more with --processes."
        )
    if not isinstance(result.plan.arrival, Closed) and _late_ms(result) > LATE_MS:
        notes.append(
            f"The client began 1 % of the calls more than {_late_ms(result):.1f} ms late (counted as latency); "
            "run more client processes, or leave them a core."
        )
    if result.exhausted:
        notes.append("Keys ran out, so the run ended early; make more with --items.")
    if len(result.services) < len(SERVICE_ROLES):
        notes.append(
            "Not every service was seen on this machine: figures of CPU, memory, commits and batches lack."
        )
    return notes
