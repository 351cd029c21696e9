"""Results as one HTML page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vkconv.benchmark import markdown
from vkconv.benchmark.charts import Bar, Point, bars, ratio_bars, roofline
from vkconv.benchmark.figures import TITLES, Result, Row, geometric_mean, ratio_of

__all__ = ["page", "suite_page"]

_PEERS = ("ncnn", "ncnn-defaults", "opencv", "torch", "onnxruntime")
_NODES = 12
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1d2430; --soft: #5d6778; --line: #d9dee6;
  --card: #f6f8fa; --vkconv: #1f6feb; --ncnn: #d9730d; --torch: #c2364f; --onnxruntime: #2c8a57;
  --opencv: #7d55c7; --defaults: #b3995d; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --ink: #e3e8ef; --soft: #98a3b3;
  --line: #313a47; --card: #1a2029; --vkconv: #5b9dff; --ncnn: #f0954a; --torch: #f0708a;
  --onnxruntime: #5cc48b; --opencv: #ac8cf0; --defaults: #d0b877; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 20px 60px; max-width: 1000px; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 38px 0 8px; }
h3 { font-size: 16px; margin: 26px 0 6px; } p, ul { margin: 6px 0; } .soft { color: var(--soft); }
ul { padding-left: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 14px 16px; margin: 10px 0; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 12.5px; }
svg text.small { font-size: 11px; fill: var(--soft); }
.vkconv { fill: var(--vkconv); } .ncnn { fill: var(--ncnn); } .torch { fill: var(--torch); }
.onnxruntime { fill: var(--onnxruntime); } .opencv { fill: var(--opencv); }
.ncnn-defaults { fill: var(--defaults); }
.line { stroke: var(--soft); fill: none; } .grid { stroke: var(--line); fill: none; }
.axis { stroke: var(--ink); fill: none; }
.roof { stroke: var(--ncnn); stroke-width: 2; fill: none; }
.node { fill: var(--vkconv); fill-opacity: .55; stroke: var(--vkconv); }
.key span { margin-right: 16px; white-space: nowrap; } .key svg { display: inline; width: 11px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 12.5px; width: 100%; }
th, td { padding: 4px 7px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
td.text, th.text { text-align: left; }
code { font: 12.5px ui-monospace, monospace; overflow-wrap: anywhere; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--soft); }
"""


def page(result: Result, command: str = "") -> str:
    """One model."""
    about = [f"<h1>{escape(result.title)}</h1>", _lead(result)]
    return _document(result.title, [*about, *_model(result, "h2"), *_facts(result, command)])


def suite_page(results: Sequence[Result], command: str = "") -> str:
    """Several models: how the runtimes compare on all of them, then each."""
    title = "The standard suite"
    body = [f"<h1>{title}</h1>", _lead(results[0]), "<h2>Times, by vkconv's</h2>"]
    body.append(
        '<p class="soft">How many times vkconv\'s time the others take, on a logarithmic axis. '
        "Right of the line vkconv is faster, left of it slower.</p>"
    )
    groups = [(r.title, _ratios(r)) for r in results]
    peers = [n for n in _PEERS if any(ratio_of(r, n) for r in results)]
    means = [(n, geometric_mean(ratio_of(r, n) for r in results)) for n in peers]
    mean = [Bar(TITLES[n], m, f"{m:.2f}", n) for n, m in means if m is not None]
    if mean:
        body.append(_card(_key(peers), ratio_bars([*groups, ("geometric mean", mean)], "ratios")))
    lines = "".join(f"<li>{escape(line)}</li>" for line in markdown.suite_figures(results))
    body += [
        f"<ul>{lines}</ul>",
        "<h2>Peak memory</h2>",
        _card(_key(["vkconv", *peers]), _peaks(results)),
    ]
    for result in results:
        body += [f"<h2>{escape(result.title)}</h2>", *_model(result, "h3")]
    return _document(title, [*body, *_facts(results[0], command)])


# --- a model -------------------------------------------------------------------------------------


def _model(result: Result, heading: str) -> list[str]:
    measured = {name: row for name, row in result.rows.items() if "p50" in row}
    parts = []
    if measured:
        times = [_time(name, row) for name, row in measured.items()]
        parts.append(_card("", bars(times, "median time of a run, and the 90th percentile")))
        parts.append(_rows(result))
        loads = [
            Bar(f"{TITLES[name]}, {key}", row[key], f"{row[key]:.2f} s", name)
            for name, row in measured.items()
            for key in ("cold", "warm")
            if row.get(key) is not None
        ]
        parts += [f"<{heading}>Loading</{heading}>", _card("", bars(loads, "loading, in seconds"))]
    reasons = [
        f"<li>{escape(TITLES[name])}: {escape(row.get('reason') or row['wrong'])}</li>"
        for name, row in result.rows.items()
        if "reason" in row or "wrong" in row
    ]
    if reasons:
        parts.append(f"<ul>{''.join(reasons)}</ul>")
    if result.profile:
        parts += _layers(result, heading)
    return parts


def _time(name: str, row: Row) -> Bar:
    p50, p90, p99 = (f"{markdown.milliseconds(row[key])} ms" for key in ("p50", "p90", "p99"))
    about = f"{TITLES[name]}: median {p50}, p90 {p90}, p99 {p99}"
    return Bar(TITLES[name], row["p50"], p50, name, row["p90"], about)


def _rows(result: Result) -> str:
    heading = (
        "runtime", "median ms", "p90", "p99", "least", "vkconv is", "load, cold s", "warm s",
        "peak MB", "NMSE",
    )  # fmt: skip
    cells = [markdown.cells(name, row) for name, row in result.rows.items() if "p50" in row]
    return _table(heading, cells)


def _layers(result: Result, heading: str) -> list[str]:
    """Which nodes take the time, and how near they come to what the device can do."""
    profile = result.profile
    rows: Sequence[Row] = profile["rows"]
    parts = [f"<{heading}>Where vkconv's time goes</{heading}>"]
    split = escape(markdown.split(result))
    parts.append(f'<p class="soft">{split[:1].upper()}{split[1:]}.</p>')
    costly = [_node_time(row) for row in rows[:_NODES]]
    if profile["rest"]["nodes"] or len(rows) > _NODES:
        seconds = profile["rest"]["seconds"] + sum(r["seconds"] for r in rows[_NODES:])
        count = profile["rest"]["nodes"] + len(rows[_NODES:])
        costly.append(Bar(f"{count} other nodes", seconds, f"{seconds * 1e3:.2f} ms", "opencv"))
    parts.append(_card("", bars(costly, "costliest nodes")))
    ceilings = result.ceilings
    points = [point for row in rows if (point := _node_point(row)) is not None]
    if ceilings and points:
        about = (
            '<p class="soft">Each circle is a node, its area the share of the time; the line is '
            "what the device can do at most, measured beside. Operations are those of the "
            "convolution as it is defined: Winograd kernels do fewer, and may come out above the "
            "line.</p>"
        )
        drawn = roofline(points, ceilings["gflops"], ceilings["gbytes"], "roofline of the nodes")
        parts += [f"<{heading}>Roofline</{heading}>", about, _card("", drawn)]
    lines = markdown.costliest(result, len(rows))
    listed = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    parts.append(
        f"<details><summary>{len(rows)} costliest nodes as a table</summary>"
        f"{_table(listed[0], listed[2:], text=(1, 7))}</details>"
    )
    return parts


def _node_time(row: Row) -> Bar:
    text = f"{row['seconds'] * 1e3:.2f} ms, {row['share']:.0%}"
    about = f"{row['node']}: {row['kernel']}, {row['detail']}"
    return Bar(row["node"], row["seconds"], text, about=about)


def _node_point(row: Row) -> Point | None:
    """A node in the roofline; None where nothing is counted."""
    if not (row["flops"] and row["bytes"] and row["seconds"]):
        return None
    rate = row["flops"] / row["seconds"] / 1e9
    return Point(row["node"], row["flops"] / row["bytes"], rate, row["share"])


def _ratios(result: Result) -> list[Bar]:
    pairs = ((name, ratio_of(result, name)) for name in _PEERS)
    return [Bar(TITLES[n], ratio, f"{ratio:.2f}", n) for n, ratio in pairs if ratio is not None]


def _peaks(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        for name in ("vkconv", *_PEERS):
            if "peak" in (row := result.rows.get(name, {})):
                text = f"{row['peak'] / 1e6:.0f} MB"
                label = result.title if name == "vkconv" else ""
                about = f"{result.title}, {TITLES[name]}: {text}"
                rows.append(Bar(label, row["peak"], text, name, about=about))
    return bars(rows, "the most memory that each process held")


# --- around it -----------------------------------------------------------------------------------


def _lead(result: Result) -> str:
    device = result.rows["vkconv"].get("device", "no device")
    return f'<p class="soft">vkconv beside other runtimes on {escape(device)}, {result.date}</p>'


def _facts(result: Result, command: str) -> list[str]:
    lines = [line.removeprefix("- ") for line in markdown.facts(result)]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    said = f"<p>Made by <code>{escape(command)}</code></p>" if command else ""
    how = (
        "Every block of runs is a process of its own; blocks take turns, with pauses between. All "
        "start from numpy arrays and end with numpy arrays. NMSE is the worst of the outputs "
        "against onnxruntime's in the same run."
    )
    return ["<h2>What was measured, and where</h2>", f"<p>{how}</p>", f"<ul>{listed}</ul>", said]


def _key(names: Sequence[str]) -> str:
    spans = "".join(
        f'<span><svg viewBox="0 0 10 10"><rect class="{n}" width="10" height="10" rx="2"/></svg> '
        f"{escape(TITLES[n])}</span>"
        for n in names
    )
    return f'<p class="key">{spans}</p>'


def _card(above: str, drawn: str) -> str:
    return f'<div class="card">{above}{drawn}</div>'


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = ()) -> str:
    def line(kind: str, cells: Sequence[str]) -> str:
        marked = (
            f"<{kind}{' class=text' if i in text else ''}>{escape(c)}</{kind}>"
            for i, c in enumerate(cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    head, body = line("th", heading), "".join(line("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _document(title: str, body: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - vkconv</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )
