"""How long to wait for the parts of a message that its sender has announced and is still sending."""

from typing import Any

PARTS: dict[str, Any] = {"initial_backoff": 0.05, "backoff_cap": 0.2, "max_tries_per_object": None}
"""Options of Flower's `pull_objects`, whose own first wait is 1 s and grows to 10 s. Without a limit of tries, only its
limit of time ends them."""
