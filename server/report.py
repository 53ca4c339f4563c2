"""The page a run leaves: self-contained, no script, nothing loaded from elsewhere."""

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from common.units import human
from server import report_plots as plots
from server.report_plots import Line, measured_on, subset_names

STYLE = """
:root { --ink: #1d2733; --soft: #5b6775; --line: #e3e6ea; --good: #00734f; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 74rem; color: var(--ink); background: #fafbfc;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .8rem; }
.about { color: var(--soft); margin: .2rem 0 1.2rem; } .status { font-weight: 600; }
.completed { color: var(--good); } .failed { color: var(--bad); }
.reason { border-left: 4px solid var(--bad); background: #fff; padding: .6rem 1rem; white-space: pre-wrap;
          overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; }
.tile, figure, .table { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: .8rem 1rem; } .tile b { display: block; font-size: 1.45rem; line-height: 1.25; }
.tile span { color: var(--soft); font-size: .85rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: 1rem; min-width: 0; } figure h3 { margin: 0 0 .4rem; font-size: 1rem; }
figure svg { width: 100%; height: auto; display: block; } figcaption { color: var(--soft); font-size: .88rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .5rem .9rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; } th { color: var(--soft); font-weight: 600; font-size: .85rem; }
td.wrap { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 16rem; }
td.n, th.n { text-align: right; } details pre { background: #fff; border: 1px solid var(--line); border-radius: 10px;
padding: 1rem; overflow-x: auto; font-size: .85rem; }
"""


def write_report(run_dir: Path) -> Path:
    """Write report.html from metrics.jsonl, summary.json and experiment.yaml of a run folder; return its path."""
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    metrics = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()] if metrics.exists() else []
    config = run_dir / "experiment.yaml"
    page = _page(summary, lines, config.read_text(encoding="utf-8") if config.exists() else "")
    path = run_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _page(summary: dict[str, Any], lines: Sequence[Line], config: str) -> str:
    name = escape(summary["name"])
    body = [_header(summary), _tiles(summary), _plots(summary, lines), _subsets(lines), _sites(summary, lines)]
    body += [_failures(summary, lines), _config(config)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} · fedmosaic</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _header(summary: dict[str, Any]) -> str:
    status = summary["status"]
    facts = [
        f"{summary['method']} with {summary['strategy']} aggregation on {summary['dataset']}",
        f"engine {summary['engine']}",
        f"{summary.get('rounds', 0)} rounds",
        f"seed {summary['seed']}",
    ]
    about = escape(" · ".join(facts))
    reason = f'<p class="reason">{escape(summary["reason"])}</p>' if summary.get("reason") else ""
    mark = f'<span class="status {escape(status)}">{escape(status)}</span>'
    return f'<h1>{escape(summary["name"])}</h1><p class="about">{mark} · {about}</p>{reason}'


def _tiles(summary: dict[str, Any]) -> str:
    accuracy: dict[str, float] = summary.get("accuracy", {})
    where = summary.get("accuracy_on", "test")
    tiles = []
    complete = "+".join(summary.get("modalities", []))
    if complete in accuracy:
        tiles.append((_percent(accuracy[complete]), f"{where} accuracy, {complete}"))
    if summary.get("macro_f1") is not None:
        tiles.append((f"{summary['macro_f1']:.3f}", "macro-F1"))
    if singles := {name: value for name, value in accuracy.items() if "+" not in name}:
        weakest = min(singles, key=singles.__getitem__)
        tiles.append((_percent(singles[weakest]), f"weakest modality alone: {weakest}"))
    tiles.append((human(summary.get("bytes_up", 0)), "sent by the clients"))
    tiles.append((human(summary.get("bytes_down", 0)), "sent to the clients"))
    tiles.append((_duration(summary["seconds"]), "from first to last"))
    cells = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(label)}</span></div>' for v, label in tiles)
    return f'<div class="tiles">{cells}</div>'


def _plots(summary: dict[str, Any], lines: Sequence[Line]) -> str:
    where, trained = measured_on(lines), [line for line in lines if line["clients"]]
    known = [line for line in lines if line[where]]
    shard = "the server's test data" if where == "test" else "the clients' validation data"
    figures = []
    if known:
        figures += [
            ("Accuracy by modalities at hand", lambda: plots.accuracy(known, where),
             f"How often the global model is right on {shard} when it is given only these modalities."),
            ("Imbalance between modalities", lambda: plots.imbalance(known, where),
             "Lines: the probability each modality alone gives to the true class. Grey: by how much the best single "
             "modality beats the worst; a gap that grows means that one modality stops the other from learning."),
            ("Classes", lambda: plots.per_class(known[-1], where, summary["classes"]),
             f"Share of each class that is recognised on {shard} after the last round."),
        ]  # fmt: skip
    if any(line["losses"] for line in trained):
        figures.append(("Loss terms", lambda: plots.losses(trained),
                        "What the clients minimise, term by term as weighted, averaged over their examples."))  # fmt: skip
    if trained:
        figures += [
            ("Data moved", lambda: plots.traffic(trained),
             "Bytes each client sent in a round (bars) and all that was sent to them (mark). "
             "A client sends only the parts of the model that its modalities train."),
            ("Time", lambda: plots.phases(trained),
             "Where the seconds of a round went, along its slowest client."),
        ]  # fmt: skip
    if not figures:
        return "<h2>Rounds</h2><p>No round was finished.</p>"
    return f'<h2>Rounds</h2><div class="plots">{"".join(_figure(*figure) for figure in figures)}</div>'


def _figure(title: str, plot: Callable[[], str], caption: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{plot()}<figcaption>{escape(caption)}</figcaption></figure>"


def _subsets(lines: Sequence[Line]) -> str:
    where = measured_on(lines)
    known = [line for line in lines if line[where]]
    if not known:
        return ""
    rows = []
    for name in subset_names(known[-1:], where):
        found = known[-1][where][name]
        recalls = [value for value in found["per_class"] if value is not None]
        spread = f"{_percent(min(recalls))} to {_percent(max(recalls))}"
        rows.append([name, _percent(found["accuracy"]), f"{found['macro_f1']:.3f}", spread, str(found["examples"])])
    head = ["modalities", "accuracy", "macro-F1", "recall, worst to best class", "examples"]
    return f"<h2>After the last round, on {where} data</h2>" + _table(head, rows, numbers=4)


def _sites(summary: dict[str, Any], lines: Sequence[Line]) -> str:
    rows = []
    for site, facts in summary.get("sites", {}).items():
        took_part = [line["clients"][site] for line in lines if site in line["clients"]]
        validation = took_part[-1].get("validation", {}) if took_part else {}
        whole = validation.get("+".join(sorted(facts["modalities"])))
        rows.append(
            [
                site,
                " + ".join(facts["modalities"]),
                str(facts["num_examples"]),
                str(facts["unreadable"]),
                str(len(took_part)),
                _percent(whole["accuracy"]) if whole else "–",
                human(sum(part.get("bytes_up", 0) for part in took_part)),
            ]
        )
    if not rows:
        return ""
    head = ["site", "modalities", "examples", "unreadable files", "rounds", "validation accuracy", "sent"]
    return "<h2>Sites</h2>" + _table(head, rows, numbers=5)


def _failures(summary: dict[str, Any], lines: Sequence[Line]) -> str:
    rows = [["start", site, reason] for site, reason in summary.get("refused", {}).items()]
    rows += [[f"round {line['round']}", site, why] for line in lines for site, why in line.get("failed", {}).items()]
    return "<h2>Refused and failed</h2>" + _table(["when", "site", "reason"], rows, numbers=0) if rows else ""


def _config(config: str) -> str:
    if not config:
        return ""
    return f"<h2>Experiment</h2><details><summary>every option</summary><pre>{escape(config)}</pre></details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """A table whose last `numbers` columns are right-aligned; without any, the last column is prose."""
    first = len(head) - numbers
    kinds = ["n" if i >= first else "wrap" if numbers == 0 and i == len(head) - 1 else "" for i in range(len(head))]
    top = "".join(f'<th class="{kind}">{escape(cell)}</th>' for kind, cell in zip(kinds, head, strict=True))
    lines = (
        "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds, row, strict=True)) for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
