"""What a site allows its shards to take, in gigabytes, by environment variables: a server chooses the sizes."""

import os

from common.errors import ShardError


def bytes_allowed(variable: str, default: float) -> int:
    """Raises ShardError when the environment says something else than a number."""
    given = os.environ.get(variable, str(default))
    try:
        return int(float(given) * 1e9)
    except (ValueError, OverflowError):
        raise ShardError(f"{variable}={given!r} is no number of gigabytes") from None
