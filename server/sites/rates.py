"""Sampling rates of recordings and signals, from the findings in the sites' introductions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from common.findings import Findings
from common.words.units import few

FORM = re.compile(r"(?:sound|signal), .*?([\d.]+(?:e[+]\d+)?) (?:Hz|per second)\b")
"""The form of a recording or of a signal with a known rate (`common.data.observation.measured`)."""
LISTED = 5
"""The maximum number of sites in a sentence."""


def rates_of(findings: Findings) -> Counter[float]:
    """The sampling rates of the values of one modality in Hz, with the numbers of values."""
    rates = Counter[float]()
    for form, count in findings.forms.items():
        if (found := FORM.match(form)) and (rate := float(found[1])):
            rates[rate] += count
    return rates


def different_rates(found: Mapping[str, Mapping[str, Findings]]) -> Iterable[str]:
    """A sentence for each modality whose values have several rates. found: the findings by site and modality."""
    for modality in sorted({modality for modalities in found.values() for modality in modalities}):
        rates = {site: rates_of(own[modality]) for site, own in sorted(found.items()) if modality in own}
        every = sorted({rate for own in rates.values() for rate in own})
        if len(every) > 1:
            parts = "; ".join(_one_rate(rate, rates) for rate in every)
            yield f"{modality} values have several sampling rates: {parts}. {_consequence(every[0])}"


def lower_rates(modality: str, findings: Findings, wanted: float | None) -> Iterable[str]:
    """Sentences about the rates of one site and the encoder's rate `wanted`. None: the encoder has no rate. Then
    signals are not resampled, and the encoder chooses the rate of recordings itself."""
    are_signals = any(form.startswith("signal") for form in findings.forms)
    for rate, count in sorted(rates_of(findings).items()):
        share = f"{count} of {findings.values} {modality} values have {rate:g} Hz"
        if wanted is None and are_signals:
            yield f"{share}, and are not resampled, because the encoder has no rate: set its option rate"
        elif wanted is not None and rate < wanted:
            yield f"{share}, less than the {wanted:g} Hz of the encoder. {_consequence(rate)}"


def _one_rate(rate: float, rates: Mapping[str, Counter[float]]) -> str:
    sites = [site for site, own in rates.items() if rate in own]
    count = sum(own[rate] for own in rates.values())
    where = f" at {few(sites, LISTED)}" if len(rates) > 1 else ""
    return f"{rate:g} Hz in {count} value{'s' * (count != 1)}{where}"


def _consequence(lowest: float) -> str:
    return (
        "An encoder with a rate resamples them. Values of the lower rate have no frequencies above "
        f"{lowest / 2:g} Hz, and a model can learn this difference between sites, unless the encoder's rate is "
        f"{lowest:g} or less"
    )
