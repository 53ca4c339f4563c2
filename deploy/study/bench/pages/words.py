"""Words that the files of a benchmark share: names of measures, and what the intervals cover."""

from collections.abc import Sequence

OWN_SHARDS = (
    "All runs have the same shards and the same test examples. The seeds draw the initial weights, the order of the "
    "examples and the validation examples again. So the deviations and intervals cover the randomness of training. "
    "They do not cover the choice of the sites, of their examples, and of the test examples. A figure of several "
    "modalities is that of the test examples that have all of them."
)
TITLES = {"accuracy": "Accuracy", "macro_f1": "Macro-F1"}
HEADS = {"chosen": "fused, chosen round", "macro_f1": "macro-F1"}


def title_of(metric: str) -> str:
    """The name of a metric at the beginning of a sentence."""
    return TITLES.get(metric, metric.replace("_", " "))


def head(name: str, metric: str) -> str:
    """The head of a measure's column. metric: the main metric."""
    kind, _, part = name.partition(":")
    if part:
        return f"probe {part}" if kind == "probe" else f"only {part}"
    return "fused" if name == metric else HEADS.get(name, name.replace("_", " "))


def compared(name: str, references: Sequence[str]) -> Sequence[str]:
    """The references of a measure. Measures of single modalities have no references, because methods aim at the other
    measures."""
    kind, _, part = name.partition(":")
    return [] if part and kind != "probe" else references
