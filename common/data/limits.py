"""Limits in gigabytes that a site sets with environment variables. The site needs them because the server chooses the
sizes."""

import os

from common.errors import ShardError


def bytes_allowed(variable: str, default: float) -> int:
    """The limit in bytes that an environment variable sets. default: gigabytes without the variable.

    Raises ShardError when the variable is not a number.
    """
    given = os.environ.get(variable, str(default))
    try:
        return int(float(given) * 1e9)
    except (ValueError, OverflowError):
        raise ShardError(f"{variable}={given!r} is not a number of gigabytes") from None
