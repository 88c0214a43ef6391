"""The HTML pages of the harness: one file each, without anything from a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import Any, Final

from keyark.load.reporting.plots import STYLE, Axis, line_plot, percentile_plot

SECONDS: Final = Axis(label="seconds")
PLOTS: Final = (
    ("items_per_second", "Throughput", "items per second"),
    ("p50_ms", "Median latency", "ms"),
    ("p99_ms", "99th percentile of latency", "ms"),
    ("cores", "CPU of each service with its workers", "cores"),
    ("memory_mb", "Memory of each service with its workers", "MiB, without the page cache"),
    ("batch_mean", "Batches from the RM to the DRM (archive) and to the CM (issue)", "items per call"),
    ("commits_per_second", "Durable commits", "per second"),
    ("errors_per_second", "Errors", "items per second"),
)

_PAGE: Final = Template("""\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title><style>
:root{--paper:#fff;--ink:#1d2430;--quiet:#667080;--line:#e4e8ee;--panel:#f7f8fa;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--paper:#14181f;--ink:#e4e8ee;--quiet:#9aa5b1;--line:#2b323d;--panel:#1b212a}}
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
body{max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .6rem}h3{font-size:.95rem;margin:.2rem 0 .4rem}
.quiet{color:var(--quiet);font-size:.85rem}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:1rem}
.panel{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem}
.note{border-left:4px solid #d9622b;padding:.4rem .8rem;margin:.6rem 0;background:var(--panel)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{text-align:right;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line)}
td{font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}th{color:var(--quiet);font-weight:600}
$style</style></head><body>
<h1>$title</h1><p class="quiet">$lead</p>
$body
</body></html>
""")


def page(title: str, *, lead: str, body: Iterable[str]) -> str:
    """Return a whole page; ``body`` is HTML, the other texts are not."""
    return _PAGE.substitute(title=escape(title), lead=escape(lead), body="\n".join(body), style=STYLE)


def heading(text: str) -> str:
    """Return a section's heading."""
    return f"<h2>{escape(text)}</h2>"


def note(text: str) -> str:
    """Return a remark that must not be overlooked."""
    return f'<p class="note">{escape(text)}</p>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers are shown with as many digits as they are worth."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(value))}</td>" for value in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def cell(value: object) -> str:
    """Return a value as people read it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def plots(series: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the plots of a run's series, side by side where there is room."""
    panels = [_panel("Latency by percentile", percentile_plot(series["percentiles_ms"]))]
    panels += [
        _panel(title, line_plot(series[name], x=SECONDS, y=Axis(label=unit)))
        for name, title, unit in PLOTS
        if series.get(name)
    ]
    return f'<div class="panels">{"".join(panels)}</div>'


def _panel(title: str, figure: str) -> str:
    return f'<div class="panel"><h3>{escape(title)}</h3>{figure}</div>'
