"""Compares the pre-trained weights of sites with those of the server. They are not sent, and adapters or heads that
were trained on other weights are worthless."""

from collections.abc import Mapping

from common.modality import Modality
from common.types import Site


def unlike_bases(own: Mapping[Modality, frozenset[str]], site: Site) -> str:
    """The first difference between the server's weights and those of a site; "" if there is none. own: the weights that
    a site may have, see `common.build.bases`."""
    for modality in sorted(site.modalities):
        known, base = own.get(modality, frozenset[str]()), site.bases.get(modality, "")
        if base not in (known or {""}):
            there, here = base or "none", " or ".join(sorted(known)) or "none"
            return f"its pre-trained weights for {modality} are not the server's: {there} at the site, {here} here"
    return ""
