"""Rules for the names of sites, which are also used as file names."""

import re

RESERVED = {"ca", "server", "superexec"}
"""Names of other files that `fedmosaic certs` writes into the same folder."""
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def is_site_name(name: str) -> bool:
    """Whether a site may have this name."""
    return bool(SITE.match(name)) and name not in RESERVED
