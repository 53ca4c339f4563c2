"""report.html: one page about a run, without scripts and without files from elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from common.files import write_whole
from common.modality import subset_name
from common.words.best_model import best_in_words, warning_about
from common.words.figures import LEADING, heading, title, value
from common.words.printable import of_others, printable
from common.words.units import human
from server.report.alarm import Stalled, alarms
from server.report.drawing import Key, Plot
from server.report.plots import padded, plots
from server.report.run import Run, amount, mapping, number, read_run, round_of
from server.sites.attention import concerns, findings_of
from server.sites.measured import measured_on_little
from server.sites.standing import TAKES_PART, Standing, spans, standings

NONE = "–"
LONGEST = 4000
"""The maximum number of characters of a reason."""
CLASS_METRICS = {
    "single-label": ("sensitivity", "specificity", "macro_f1", "auroc", "average_precision"),
    "multi-label": ("auroc", "average_precision", "sensitivity", "specificity", "macro_f1"),
    "regression": ("r2", "mae", "rmse", "pearson"),
}
SHOWN_AT_ONCE = 20
"""The maximum number of classes whose table is open."""
CLASS_TITLES = {"macro_f1": "F1"}
WHAT_A_CLASS_IS = {"single-label": "Class", "multi-label": "Label", "regression": "Target"}


def write_report(run_dir: Path) -> Path:
    """Write report.html from the existing files of a run folder."""
    run = read_run(run_dir)
    target = run_dir / "report.html"
    # Names come from the sites and may contain characters that UTF-8 cannot encode.
    write_whole(target, page(run, run_dir.name).encode("utf-8", errors="replace"))
    return target


def page(run: Run, folder: str, head: str = "", top: str = "") -> str:
    """The whole page. head: HTML for the page's head. top: HTML for the beginning of its main part."""
    name = run.summary.get("name") or folder
    main = MAIN.substitute(
        top=top,
        accuracy="Figures so far" if run.live else "Final figures",
        header=header(run, name),
        tiles="".join(tiles(run)),
        plots="".join(figure(plot) for plot in plots(run)),
        subsets=subset_table(run),
        classes=f"By {WHAT_A_CLASS_IS[run.task].lower()}, with {text(said(run.modalities))}",
        by_class=class_table(run),
        sites=site_table(run),
        troubles=trouble_table(run),
        config=escape(run.config) or "No experiment.yaml in the run folder.",
    )
    return document(f"{text(name)} – fedmosaic report", main, head=head)


def document(title: str, main: str, own_style: str = "", head: str = "") -> str:
    """A whole HTML page in the style of the report. head: HTML for the page's head, before title and style."""
    return DOCUMENT.substitute(title=title, main=main, style=STYLE + own_style, head=head)


def text(value: Any) -> str:
    """A value as HTML text."""
    return escape(printable(value))


def lines(value: Any) -> str:
    """Lines from another machine, as HTML text."""
    return escape(of_others(str(value), LONGEST))


def percent(value: Any) -> str:
    """A share in percent, or a dash when it is unknown."""
    known = number(value)
    return NONE if known is None else f"{known:.1%}"


def duration(seconds: float) -> str:
    """A duration with units, e.g. "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def header(run: Run, name: Any) -> str:
    """The header: name, status, outcome in a sentence, alarms and settings of the run."""
    status = "running" if run.live else str(run.summary.get("status") or "unfinished")
    reason = run.summary.get("reason")
    why = f'<div class="reason"><b>Why it stopped.</b> {lines(reason)}</div>' if reason else ""
    done = f"{len(run.trained)} of {run.about['planned']}" if run.live else len(run.trained)
    facts = [
        ("Data set", run.about["dataset"]),
        ("Method", run.about["method"]),
        ("Strategy", run.about["strategy"]),
        ("Modalities", ", ".join(run.modalities)),
        ("Rounds", run.summary.get("rounds", done)),
        ("Seed", run.about["seed"]),
        ("Engine", run.summary.get("engine")),
    ]
    known = ((what, text(value)) for what, value in facts if value not in (None, ""))
    shown = "".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for what, value in known)
    kind = status if status in ("completed", "failed", "running") else "unfinished"
    return (
        f'<h1>{text(name)} <span class="status {kind}">{text(status)}</span></h1>'
        f'<p class="lead">{lead(run)}</p>{best_model(run)}{why}{"".join(map(alarm, alarms(run)))}{measure(run)}'
        f"{attention(run)}"
        f'<dl class="facts">{shown}</dl>'
    )


def best_model(run: Run) -> str:
    """The best model of the run, and the reason for an early end."""
    best, stopped = mapping(run.summary.get("best")), run.summary.get("stopped")
    known = [f"The run kept {best_in_words(best)}.", warning_about(best)] if best else []
    said = " ".join([*filter(None, known), *([f"The run ended early: {stopped}."] if stopped else [])])
    return f'<p class="footnote">{text(said)}</p>' if said else ""


def attention(run: Run) -> str:
    """The list of possible problems in the sites' data."""
    found = concerns(mapping(run.told("sites")), [str(name) for name in run.classes])
    if not found:
        return ""
    rows = "".join(f"<li>{f'<b>{text(one.site)}</b>: ' if one.site else ''}{text(one.what)}</li>" for one in found)
    return f'<div class="reason" role="alert"><b>Check the data.</b><ul>{rows}</ul></div>'


def alarm(found: Stalled) -> str:
    """The alarm about a modality."""
    ahead = f" {text(found.leader)} alone reaches {percent(found.best)}." if found.leader != found.modality else ""
    return (
        f'<div class="reason" role="alert"><b>{text(found.modality)} has stopped learning.</b> Alone it reaches'
        f" {percent(found.recent)} (guessing: {percent(found.guess)}). That is no clear gain over the"
        f" {percent(found.before)} of the {found.window} rounds before.{ahead}</div>"
    )


def scores(run: Run) -> dict[str, float]:
    """The final value of the main metric by subset, from the summary or else from the last evaluation."""
    final = {name: mapping(run.final.get(name)).get(run.metric) for name in run.subsets}
    known = {name: number(value) for name, value in (final | mapping(run.summary.get("scores"))).items()}
    return {name: value for name, value in known.items() if value is not None}


def final_figure(run: Run, subset: str, metric: str) -> Any:
    """The final value of a metric for a subset, from the summary or else from the last evaluation; None if unknown."""
    told = mapping(mapping(run.summary.get("figures")).get(subset)) or mapping(run.final.get(subset))
    return told.get(metric)


def where(run: Run) -> str:
    """The examples on which the model was measured."""
    on_test = run.summary.get("measured_on", run.measured_on) == "test"
    return "test examples" if on_test else "validation examples of the sites"


def lead(run: Run) -> str:
    """The outcome of the run in a sentence."""
    known = scores(run)
    if run.full not in known and run.live:
        return "No model has been evaluated yet." if run.rounds else "Waiting for the sites."
    if run.full not in known:
        return "The run ended before any model was evaluated."
    rounds = counted(len(run.trained), "round")
    trained = f"After {rounds} of training" if run.trained else "Before any training"
    shown = value(run.metric, known[run.full])
    right = f"<b>{shown}</b> of the {where(run)} right with {text(said(run.modalities))}"
    if run.metric != "accuracy":
        right = f"{title(run.metric)} <b>{shown}</b> on the {where(run)} with {text(said(run.modalities))}"
    singles = [name for name in run.singles if name in known and name != run.full]
    alone = [f"{value(run.metric, known[name])} with {text(name)} alone" for name in singles]
    verb = "gets" if run.metric == "accuracy" else "reaches"
    return f"{trained}, the model {verb} {right}{', ' * bool(alone)}{said(alone)}."


def measure(run: Run) -> str:
    """The problems of the examples that the accuracy was measured on."""
    classes = [str(name) for name in run.classes]
    found = list(measured_on_little(mapping(run.final.get(run.full)), classes, run.measured_on))
    return f'<p class="reason">{text(". ".join(one[0].upper() + one[1:] for one in found))}.</p>' if found else ""


def counted(count: int, what: str) -> str:
    """A count with its noun, e.g. "1 round" or "8 rounds"."""
    return f"{count} {what}{'s' * (count != 1)}"


def said(parts: Sequence[str]) -> str:
    """The parts as an enumeration, e.g. "audio, image and text"."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def tiles(run: Run) -> Iterable[str]:
    """The headline figures."""
    known, second = scores(run), LEADING[run.task][1]
    measured = f"{text(run.full)}, {where(run)}" if known else "not measured"
    bounds = interval(run, run.full, run.metric)
    yield tile(heading(run.metric), value(run.metric, known.get(run.full)), bounds or measured)
    note = "every class has the same weight" if second == "macro_f1" else measured
    yield tile(heading(second), value(second, final_figure(run, run.full, second)), note)
    yield weakest_tile(run, known)
    refused = len(mapping(run.told("refused")))
    yield tile("Sites", str(len(site_names(run))), f"{refused} more refused" if refused else "none refused")
    up, down = total(run, "bytes_up"), total(run, "bytes_down")
    yield tile("Data moved", human(up + down), f"↑ {human(up)} · ↓ {human(down)}")
    yield tile("Time", duration(seconds(run)), per_round(run))


def weakest_tile(run: Run, known: Mapping[str, float]) -> str:
    """The main metric of the worst single modality."""
    name = min((name for name in run.singles if name in known), key=known.__getitem__, default=None)
    if len(run.modalities) == 1:
        return tile("Weakest modality", NONE, "one modality only")
    note = f"{text(name)} alone" if name else "not measured"
    return tile("Weakest modality", value(run.metric, known.get(name or "")), note)


def interval(run: Run, subset: str, metric: str) -> str:
    """The bootstrap interval of a figure, e.g. "95 % interval: 81.2% to 85.0%"; "" if there is none."""
    bounds = mapping(mapping(run.summary.get("intervals")).get(subset)).get(metric)
    if not isinstance(bounds, list) or len(bounds) != 2:
        return ""
    low, high = (value(metric, bound) for bound in bounds)
    return f"95 % interval: {low} to {high}"


def tile(what: str, value: str, note: str) -> str:
    """One headline figure."""
    lines = (("what", what), ("value", value), ("note", note))
    return f'<div class="tile">{"".join(f"<div class={kind}>{line}</div>" for kind, line in lines)}</div>'


def total(run: Run, way: str) -> float:
    """The bytes of the whole run in one direction."""
    known = number(run.summary.get(way))
    return sum(amount(line.get(way)) for line in run.rounds) if known is None else known


def seconds(run: Run) -> float:
    """The seconds of the whole run. They include the wait for the sites if there is a summary."""
    known = number(run.summary.get("seconds"))
    return sum(round_seconds(run.rounds)) if known is None else known


def round_seconds(lines: Iterable[Mapping[str, Any]]) -> list[float]:
    """The seconds of each round."""
    return [amount(mapping(line.get("seconds")).get("total")) for line in lines]


def per_round(run: Run) -> str:
    """The mean time of a round."""
    taken = round_seconds(run.trained)
    return f"{duration(sum(taken) / len(taken))} per round" if taken else "no round finished"


def figure(plot: Plot) -> str:
    """A plot with its title, legend and caption."""
    legend = "".join(legend_entry(key) for key in plot.keys)
    drawn = f'<ul class="keys">{legend}</ul><div class="drawing">{plot.svg}</div>'
    body = drawn if plot.svg else '<div class="empty">nothing to show</div>'
    size = " tall" if plot.tall else ""
    return (
        f'<figure class="card{size}" id="plot-{plot.slug}"><h3>{plot.title}</h3>{body}'
        f"<figcaption>{text(plot.caption)}</figcaption></figure>"
    )


def legend_entry(key: Key) -> str:
    """The legend entry of one colour."""
    return f'<li><span class="{key.shape}" style="color:{key.colour}"></span>{text(key.label)}</li>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table in a box that scrolls. head, rows: cells as HTML. numbers: columns to align right."""
    right = set(numbers)

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=n' * (i in right)}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<thead><tr>{cells('th', head)}</tr></thead>"
    return f'<div class="scroll" tabindex="0"><table>{top}<tbody>{body}</tbody></table></div>'


def subset_table(run: Run) -> str:
    """The final figures of every subset."""
    known = scores(run)
    if not known:
        return f'<p class="empty">No model of this run {"has been evaluated yet" if run.live else "was evaluated"}.</p>'
    on_test = run.measured_on == "test"
    sites = last_validation(run.rounds) if on_test else {}
    rows = []
    main, *others = LEADING[run.task]
    for name in run.subsets:
        shown = [value(key, final_figure(run, name, key)) for key in others]
        shown += [text(mapping(run.final.get(name)).get("examples", NONE))]
        shown += [value(main, mapping(sites.get(name)).get(main))] if on_test else []
        bounds = mapping(mapping(run.summary.get("intervals")).get(name)).get(main)
        rows.append(
            [
                modality_chip(run, name),
                bar(known.get(name), run.colours[name], with_interval(main, known.get(name), bounds)),
                *shown,
            ]
        )
    head = ["Modalities", *(heading(key) for key in (main, *others)), "Examples"]
    head += ["At the sites*"] if on_test else []
    which = f"* {heading(main)}" if on_test else "Measured"
    note = f"{which} on the sites' validation examples, with the model that the sites received in the last round."
    if run.summary.get("intervals"):
        note += " In brackets: 95 % bootstrap intervals over the test examples."
    return table(head, rows, range(1, len(head))) + f'<p class="footnote">{note}</p>'


def class_table(run: Run) -> str:
    """The final figures by class with all modalities."""
    metrics = CLASS_METRICS[run.task]
    columns = [run.by_class(run.full, metric) for metric in metrics]
    rows = [
        [text(name), *(value(metric, padded(column, len(run.classes))[k])
                       for metric, column in zip(metrics, columns, strict=True))]
        for k, name in enumerate(run.classes)
    ]  # fmt: skip
    if not any(columns):
        return '<p class="empty">No model of this run was evaluated by class.</p>'
    head = [WHAT_A_CLASS_IS[run.task], *(CLASS_TITLES.get(metric, heading(metric)) for metric in metrics)]
    shown = table(head, rows, range(1, len(head)))
    many = len(rows) > SHOWN_AT_ONCE
    return f"<details><summary>{len(rows)} rows</summary>{shown}</details>" if many else shown


def last_validation(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The latest validation figures among lines of rounds or of one site."""
    return next((mapping(line["validation"]) for line in reversed(lines) if line.get("validation")), {})


def bar(share: float | None, colour: str, shown: str = "") -> str:
    """A share as a bar and a text, by default its percentage."""
    width = 100 * min(max(share or 0.0, 0.0), 1.0)
    drawn = f'<span class="bar"><i style="width:{width:.1f}%;background:{colour}"></i></span>'
    return drawn + (shown or percent(share))


def with_interval(metric: str, known: float | None, bounds: Any) -> str:
    """A figure, with its interval if there is one."""
    if not isinstance(bounds, list) or len(bounds) != 2:
        return value(metric, known)
    return f"{value(metric, known)} <small>[{', '.join(value(metric, bound) for bound in bounds)}]</small>"


def modality_chip(run: Run, name: str) -> str:
    """A subset of modalities with its colour."""
    colour = run.colours.get(name, "#7f7f7f")
    return f'<span class="chip"><span class="dot" style="background:{colour}"></span>{text(name)}</span>'


def site_names(run: Run) -> list[str]:
    """Every site that took part."""
    return sorted(set(mapping(run.told("sites"))) | set(run.clients), key=natural)


def natural(name: str) -> tuple[int, str]:
    """A sort key that puts client-2 before client-10."""
    return len(name) if name.rstrip("0123456789") != name else 0, name


def site_table(run: Run) -> str:
    """The table of sites: status, modalities, examples, accuracy, bytes and device."""
    told = (mapping(run.told(what)) for what in ("refused", "missing"))
    found = standings(run.rounds, site_names(run), *told)
    rows = [site_row(run, name, found[name]) for name in sorted(found, key=natural)]
    if not rows:
        return f'<p class="empty">No site {"takes part yet" if run.live else "took part"}.</p>'
    head = ["Site", "Status", "Modalities", "Examples", "Unreadable", "Validation", "Rounds"]
    return table([*head, "Sent", "Received", "Trained on"], rows, range(3, 9))


def site_row(run: Run, name: str, standing: Standing) -> list[str]:
    """The row of one site."""
    lines = [mapping(mapping(line.get("clients")).get(name)) for line in run.trained]
    joined = [line for line in lines if line]
    about = {**(joined[-1] if joined else {}), **mapping(mapping(run.told("sites")).get(name))}
    own = sorted(str(modality) for modality in about.get("modalities") or [])
    measured = mapping(last_validation(joined).get(subset_name(own))).get(run.metric)
    return [
        text(name),
        status(standing, about),
        " ".join(modality_chip(run, modality) for modality in own) or NONE,
        f"{amount(about['num_examples']):,.0f}" if "num_examples" in about else NONE,
        unreadable(about) if about else NONE,
        value(run.metric, measured),
        str(len(joined)),
        human(sum(amount(line.get("bytes_up")) for line in joined)),
        human(sum(amount(line.get("bytes_down")) for line in joined)),
        text(next((line["device"] for line in reversed(joined) if line.get("device")), NONE)),
    ]


def status(standing: Standing, about: Mapping[str, Any]) -> str:
    """Whether a site takes part, and whether its policy adds noise. The table of troubles has the reason."""
    state = text(standing.state)
    shown = state if standing.state == TAKES_PART else f'<b title="{text(standing.why)}">{state}</b>'
    return f"{shown}, adds noise" if about.get("local_dp") else shown


def unreadable(about: Mapping[str, Any]) -> str:
    """The number of values that a site could not read, with their share if it is known."""
    value = about.get("unreadable")
    count = sum(amount(part) for part in value.values()) if isinstance(value, dict) else amount(value)
    values = sum(found.values for found in findings_of(about).values())
    of = f" of {values:,} ({count / values:.0%})" if values else ""
    return f"<b>{count:,.0f}{of}</b>" if count else "0"


def trouble_table(run: Run) -> str:
    """The table of refused, missing and failed sites and of undone rounds."""
    failed: dict[tuple[str, str], list[int]] = {}
    for line in run.rounds:
        for site, reason in mapping(line.get("failed")).items():
            failed.setdefault((site, str(reason)), []).append(int(amount(line.get("round"))))
    for site, reason in mapping(run.summary.get("failed")).items():
        failed.setdefault((site, str(reason)), []).append(int(amount(run.summary.get("rounds"))) + 1)
    gone = {"refused": "refused", "missing": "missing now" if run.live else "missing at the end"}
    rows = [
        (text(site), happened, lines(reason))
        for what, happened in gone.items()
        for site, reason in sorted(mapping(run.told(what)).items())
    ]
    rows += [
        (text(site), f"failed in {spans(rounds)}", lines(reason)) for (site, reason), rounds in sorted(failed.items())
    ]
    rows += [
        ("all", f"round {round_of(line)} undone", lines(line["collapsed"]))
        for line in run.rounds
        if line.get("collapsed")
    ]
    if not rows:
        return '<p class="fine">No site was refused, and no site failed in a round.</p>'
    return table(("Site", "What happened", "Reason"), rows)


DOCUMENT = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
$head<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$main</main>
</body>
</html>
""")

MAIN = Template("""$top<header id="top"><div class="brand">fedmosaic · run report</div>$header</header>
<section id="headline" class="tiles">$tiles</section>
<section id="plots"><h2>How the run went</h2><div class="grid">$plots</div></section>
<section id="subsets"><h2>$accuracy</h2>$subsets</section>
<section id="classes"><h2>$classes</h2>$by_class</section>
<section id="sites"><h2>Sites</h2>$sites</section>
<section id="troubles"><h2>Refused, late and failed sites</h2>$troubles</section>
<section id="configuration"><h2>Configuration</h2>
<details><summary>experiment.yaml</summary><pre>$config</pre></details></section>
""")

STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:#f5f7fa;color:#1f2933;-webkit-text-size-adjust:100%;
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1160px;margin:0 auto;padding:0 20px 48px}
header{padding-top:28px}
.brand{color:#52606d;font-size:13px;letter-spacing:.04em}
h1{margin:4px 0 8px;font-size:30px;line-height:1.2;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{margin:36px 0 12px;font-size:20px}
h3{margin:0 0 8px;font-size:16px}
.status{display:inline-block;vertical-align:middle;padding:2px 11px;border-radius:99px;
 font-size:13px;font-weight:600;letter-spacing:0}
.completed{background:#d8f3e6;color:#04553a}
.running{background:#dcecf8;color:#08385c}
.failed{background:#fde3df;color:#8a1c0c}
.unfinished{background:#fdf0cf;color:#6b4a00}
.lead{margin:0 0 14px;font-size:18px;max-width:46em;overflow-wrap:anywhere}
.reason{margin:0 0 16px;padding:12px 16px;background:#fff4f2;border-left:4px solid #c63d2b;border-radius:4px;
 white-space:pre-line;overflow-wrap:anywhere}
.live{position:sticky;top:0;z-index:1;margin:0 -20px;padding:6px 20px;background:#dcecf8;color:#08385c;
 font-size:14px;font-weight:600;font-variant-numeric:tabular-nums}
.live.ended{background:#e4e7eb;color:#1f2933}
.live.stopped,.live.unreadable{background:#fdf0cf;color:#6b4a00}
.facts{display:flex;flex-wrap:wrap;gap:8px 28px;margin:0 0 22px}
.facts dt{color:#52606d;font-size:13px}
.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.tiles{display:grid;gap:12px;grid-template-columns:repeat(6,minmax(0,1fr))}
.tile,.card,.scroll,details,.fine,p.empty{background:#fff;border:1px solid #e1e6eb;border-radius:10px}
.tile{padding:14px 16px}
.what,.note{color:#52606d;font-size:13px;line-height:1.35;overflow-wrap:anywhere}
.value{font-size:24px;font-weight:650;line-height:1.35;letter-spacing:-.01em;white-space:nowrap}
.grid{display:grid;gap:16px;grid-template-columns:repeat(2,minmax(0,1fr));align-items:start}
.card{margin:0;padding:18px 20px 16px;height:100%}
.tall{grid-row:span 3}
.keys{display:flex;flex-wrap:wrap;gap:2px 16px;margin:0 0 10px;padding:0;list-style:none;font-size:13px}
.keys li{display:flex;align-items:center;gap:7px;min-width:0;overflow-wrap:anywhere}
.keys span{flex:none;width:18px;border-top:3px solid}
.keys .dashed{border-top:2px dotted}
.keys .area{width:12px;height:12px;border:0;border-radius:3px;background:currentColor}
.drawing svg{display:block;width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt}
figcaption{margin-top:10px;color:#52606d;font-size:14px;line-height:1.45}
.empty{padding:34px 16px;text-align:center;color:#7b8794;font-size:14px}
.card .empty{border:1px dashed #cbd2d9;border-radius:8px}
.fine,p.empty{margin:0;padding:14px 18px;text-align:left;color:#1f2933;font-size:15px}
.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;font-size:15px;font-variant-numeric:tabular-nums}
th,td{padding:9px 16px;text-align:left;vertical-align:top;white-space:nowrap}
td:last-child:not(.n){white-space:pre-line;min-width:16em;overflow-wrap:anywhere}
th{color:#52606d;font-size:13px;font-weight:600}
tbody tr{border-top:1px solid #e9edf1}
.n{text-align:right}
.chip{display:inline-flex;align-items:center;gap:6px;margin-right:8px}
.dot{width:10px;height:10px;border-radius:50%}
.bar{display:inline-block;width:110px;height:8px;margin-right:12px;border-radius:4px;background:#e9edf1;overflow:hidden}
.bar i{display:block;height:100%;border-radius:4px}
.footnote{margin:8px 2px 0;color:#52606d;font-size:13px}
details{padding:12px 18px}
summary{cursor:pointer;font-weight:600}
pre{margin:12px 0 2px;overflow-x:auto;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:1000px){.tiles{grid-template-columns:repeat(3,minmax(0,1fr))}}
@media (max-width:760px){.grid{grid-template-columns:minmax(0,1fr)}.tall{grid-row:auto}}
@media (max-width:560px){main{padding-left:12px;padding-right:12px}.live{margin:0 -12px;padding:6px 12px}
 .tiles{grid-template-columns:repeat(2,minmax(0,1fr))}
 .card{padding:14px 14px 12px}h1{font-size:25px}.lead{font-size:16px}.value{font-size:22px}.tile{padding:12px}
 th,td{padding:8px 12px}.bar{width:64px}}
@media print{body{background:#fff}.card,.tile,tr{break-inside:avoid}}
"""
