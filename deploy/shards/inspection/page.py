"""One page about a shard, without scripts and without files from elsewhere."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from string import Template
from typing import Any

from PIL.Image import Image

from common.modality import Modality
from common.tasks.labels import in_words
from deploy.shards.inspection.attention import attention
from deploy.shards.inspection.distribution import BINS, histogram, quantiles_in_words
from deploy.shards.inspection.drawing import SMALL, encoded
from deploy.shards.inspection.gallery import Shown
from deploy.shards.inspection.labels import NAMED, counted
from deploy.shards.inspection.survey import Survey
from deploy.shards.inspection.tables import ColumnSeen, TableSeen
from server.report.drawing import FULL
from server.report.page import bar, document, table, text, tile

ABSENT = "#b0413e"
MOST_BROKEN = 200
"""The maximum number of broken files in the list."""


def page(survey: Survey, shown: list[Shown]) -> str:
    """The whole page."""
    info = survey.shard.info
    main = MAIN.substitute(
        site=text(info.site),
        lead=_lead(survey),
        concerns=_concerns(survey),
        tiles="".join(_tiles(survey)),
        modalities=_modalities(survey),
        tables="".join(_table(m, seen) for m, seen in survey.tables.items()),
        patterns=_patterns(survey),
        named=NAMED[info.task][1].capitalize(),
        classes=_targets(survey) if survey.targets else _classes(survey),
        sets=_sets(survey),
        generated=_generated(survey),
        broken=_broken(survey),
        examples="".join(_example(survey, one) for one in shown),
        licence=text(info.licence) or "not given",
        made="; ".join(map(text, _entries(info.made))) if info.made else "not given",
    )
    return document(f"{text(info.site)} – fedmosaic shard", main, OWN_STYLE, HEAD)


def _lead(survey: Survey) -> str:
    info = survey.shard.info
    return f"{counted(info, len(survey.shard.records))}: {text(', '.join(survey.modalities))}."


def _entries(made: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The entries of `made` as readable texts, e.g. "by fedmosaic import" or "dicom, image, Modality: DX 40"."""
    for name, value in made.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            yield from _entries(value, f"{above}{name}, ")
        elif isinstance(value, Mapping):
            yield f"{above}{name}: {', '.join(f'{inner} {_plain(count)}' for inner, count in value.items())}"
        else:
            yield f"{above}{name} {_plain(value)}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _concerns(survey: Survey) -> str:
    rows = "".join(f"<li>{text(one)}</li>" for one in attention(survey))
    return f'<div class="reason" role="alert"><b>Check these.</b><ul>{rows}</ul></div>' if rows else ""


def _tiles(survey: Survey) -> Iterable[str]:
    info, examples = survey.shard.info, len(survey.shard.records)
    one, several = NAMED[info.task]
    yield tile("Examples", f"{examples:,}", "in metadata.jsonl")
    yield tile(several.capitalize(), f"{len(info.classes):,}", _range(survey, one))
    yield tile("Modalities", str(len(survey.modalities)), text(", ".join(survey.modalities)))
    yield tile("Complete", f"{survey.complete / examples:.1%}", "of the examples have all modalities")
    yield tile("Generated", f"{sum(len(made.values) for made in survey.generated):,}", "values by frozen models")
    yield tile("Broken files", f"{len(survey.broken):,}", "count as missing")


def _range(survey: Survey, one: str) -> str:
    """The numbers of examples per class or label, or the names of the targets."""
    info = survey.shard.info
    if info.task == "regression":
        return text(", ".join(info.classes))
    counts = [survey.examples[label] for label in info.classes] or [0]
    return f"{min(counts):,} to {max(counts):,} examples per {one}"


def _modalities(survey: Survey) -> str:
    examples = len(survey.shard.records)
    rows = [
        [text(name), bar(len(values.lengths) / examples, FULL), f"{len(values.lengths):,}", text(values.extent),
         text(values.range), text(values.form)]
        for name, values in survey.modalities.items()
    ]  # fmt: skip
    return table(["Modality", "Share of examples", "Values", "Length", "Range", "Kind"], rows, [2])


def _table(modality: Modality, seen: TableSeen) -> str:
    rows = [
        [text(name), text(column.kind), bar(column.missing, ABSENT), _spread(column), text(column.distribution)]
        for name, column in seen.columns.items()
    ]
    head = ["Column", "Type", "Missing cells", "Spread", "Distribution"]
    return f'<section id="table-{text(modality)}"><h2>Table {text(modality)}</h2>{table(head, rows)}</section>'


def _spread(column: ColumnSeen) -> str:
    """A histogram as bars of different heights."""
    return _bars(column.histogram or [count for _, count in column.categories.most_common(BINS)])


def _bars(counts: Sequence[int]) -> str:
    heights = [100 * count / max(counts) for count in counts]
    return f'<span class="spread">{"".join(f"<i style=height:{one:.0f}%></i>" for one in heights)}</span>'


def _patterns(survey: Survey) -> str:
    examples = len(survey.shard.records)
    rows = [
        [text(name), bar(survey.patterns[name] / examples, FULL), f"{survey.patterns[name]:,}"]
        for name in survey.pattern_names
    ]
    return table(["Has", "Share", "Examples"], rows, [2])


def _classes(survey: Survey) -> str:
    largest = max(survey.examples.values(), default=1)
    rows = [
        [
            text(label),
            f'<span class="bar"><i style="width:{100 * survey.examples[label] / largest:.1f}%;background:{FULL}">'
            f"</i></span>{survey.examples[label]:,}",
            *(f"{survey.values[label, modality]:,}" for modality in survey.modalities),
        ]
        for label in survey.shard.info.classes
    ]
    head = [NAMED[survey.shard.info.task][0].capitalize(), "Examples", *map(text, survey.modalities)]
    return table(head, rows, range(2, 2 + len(survey.modalities)))


def _sets(survey: Survey) -> str:
    """The numbers of labels per example."""
    if not survey.sets:
        return ""
    examples = len(survey.sets.applies)
    rows = [
        [str(number), bar(count / examples, FULL), f"{count:,}"] for number, count in survey.sets.per_example.items()
    ]
    return (
        f'<section id="sets"><h2>Labels per example</h2>{table(["Labels", "Share", "Examples"], rows, [2])}</section>'
    )


def _targets(survey: Survey) -> str:
    rows = [
        [text(name), f"{seen.mean:g}", f"{seen.std:g}", _bars(histogram(seen.numbers)),
         text(quantiles_in_words(seen.numbers))]
        for name, seen in survey.targets.items()
    ]  # fmt: skip
    note = f'<p class="footnote">In the experiment: <code>{text(survey.task_line)}</code></p>'
    return table(["Target", "Mean", "Standard deviation", "Spread", "Distribution"], rows, [1, 2]) + note


def _generated(survey: Survey) -> str:
    if not survey.generated:
        return '<p class="fine">No value is generated: all values are the site\'s own.</p>'
    rows = [
        [text(made.modality), f"{len(made.values):,}", f"{made.rejected:,}", f"{made.failed:,}", text(made.model)]
        for made in survey.generated
    ]
    return table(["Modality", "Values", "Rejected", "Failed", "By"], rows, [1, 2, 3])


def _broken(survey: Survey) -> str:
    if not survey.broken:
        return '<p class="fine">Every file can be read.</p>'
    rows = [[text(one.file), text(one.id), text(one.reason)] for one in survey.broken[:MOST_BROKEN]]
    more = len(survey.broken) - len(rows)
    note = f'<p class="footnote">and {more:,} more: <code>fedmosaic inspect --json</code> lists all</p>' if more else ""
    return table(["File", "Example", "Reason"], rows) + note


def _example(survey: Survey, shown: Shown) -> str:
    values = "".join(_value(modality, shown) for modality in sorted({*survey.modalities, *shown.drawn, *shown.broken}))
    label, name = text(in_words(shown.record.label)), text(shown.record.id)
    return f'<article class="card"><h3>{label}</h3><div class="id">{name}</div>{values}</article>'


def _value(modality: Modality, shown: Shown) -> str:
    generated = ' <span class="status unfinished">generated</span>' if not shown.record.has(modality) else ""
    if modality in shown.broken:
        body, generated = f'<p class="gone">broken: {text(shown.broken[modality])}</p>', ""
    elif modality not in shown.drawn:
        body, generated = '<p class="gone">missing</p>', ""
    else:
        body = _drawn(modality, shown.drawn[modality])
    return f'<div class="value-of"><div class="what">{text(modality)}{generated}</div>{body}</div>'


def _drawn(modality: Modality, drawn: Image | str) -> str:
    if isinstance(drawn, str):
        return f'<blockquote dir="auto">{text(drawn)}</blockquote>'
    kind, data = encoded(drawn)
    size = ' class="pixels"' if max(drawn.size) <= SMALL else ""
    source = base64.b64encode(data).decode()
    return f'<img{size} alt="{text(modality)}" src="data:{kind};base64,{source}">'


HEAD = """<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""
MAIN = Template("""<header><div class="brand">fedmosaic · shard</div><h1>$site</h1><p class="lead">$lead</p>
<div class="reason"><b>Keep this page at the site.</b> It shows examples of the site's data.</div>$concerns</header>
<section id="headline" class="tiles">$tiles</section>
<section id="modalities"><h2>Modalities</h2>$modalities</section>
$tables<section id="patterns"><h2>Which modalities the examples have</h2>$patterns</section>
<section id="classes"><h2>$named</h2>$classes</section>
$sets<section id="broken"><h2>Broken files</h2>$broken</section>
<section id="generated"><h2>Generated by frozen models</h2>$generated</section>
<section id="examples"><h2>Some examples</h2><div class="examples">$examples</div></section>
<section id="origin"><h2>Licence and origin</h2><dl class="facts">
<div><dt>Licence</dt><dd>$licence</dd></div><div><dt>Made</dt><dd>$made</dd></div></dl></section>
""")

OWN_STYLE = """
.examples{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(240px,1fr))}
.examples .card{min-width:0}
.spread{display:inline-flex;align-items:flex-end;gap:1px;width:96px;height:28px}
.spread i{flex:1;min-height:1px;background:#7b8794}
.examples h3{margin:0;overflow-wrap:anywhere}
.id{color:#52606d;font-size:12px;overflow-wrap:anywhere}
.value-of{margin-top:12px}
.value-of img{display:block;margin-top:4px;max-width:100%;border-radius:6px}
.value-of .pixels{width:112px;image-rendering:pixelated}
.value-of .status{padding:0 8px;font-size:12px}
.gone{margin:2px 0;color:#7b8794;font-size:14px;overflow-wrap:anywhere}
blockquote{margin:2px 0;padding:0 0 0 10px;border-left:3px solid #e1e6eb;font-size:14px;overflow-wrap:anywhere}
"""
