"""Words that the files of a benchmark share: names of measures, and what the intervals cover."""

from collections.abc import Sequence

from common.words.figures import title
from deploy.study.form import Form

OWN_SHARDS = (
    "All runs have the same shards and the same test examples. The seeds draw the initial weights, the order of the "
    "examples and the validation examples again. So the deviations and intervals cover the randomness of training. "
    "They do not cover the choice of the sites, of their examples, and of the test examples. A figure of several "
    "modalities is that of the test examples that have all of them."
)


def opening(metric: str) -> str:
    """The name of a metric at the beginning of a sentence, with "in %" for shares."""
    name = title(metric)
    return f"{name[:1].upper()}{name[1:]}{' in %' if Form.of(metric).percent else ''}"


def points(metric: str) -> str:
    """The unit of differences: " in points" for shares."""
    return " in points" if Form.of(metric).percent else ""


def form(name: str, metric: str) -> Form:
    """The form of a measure's values. metric: the main metric."""
    return Form.of(metric if name == "chosen" else name)


def head(name: str, metric: str) -> str:
    """The head of a measure's column. metric: the main metric."""
    kind, _, part = name.partition(":")
    if part:
        return f"probe {part}" if kind == "probe" else f"only {part}"
    if name == metric:
        return "fused"
    return "fused, chosen round" if name == "chosen" else title(name)


def compared(name: str, references: Sequence[str]) -> Sequence[str]:
    """The references of a measure. Measures of single modalities have no references, because methods aim at the other
    measures."""
    kind, _, part = name.partition(":")
    return [] if part and kind != "probe" else references
