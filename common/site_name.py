"""Names of sites, which are names of files as well."""

import re

RESERVED = {"ca", "server", "superexec"}
"""Files that `fedmosaic certs` writes beside those of the sites."""
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def is_site_name(name: str) -> bool:
    """Whether a name can be a site's."""
    return bool(SITE.match(name)) and name not in RESERVED
