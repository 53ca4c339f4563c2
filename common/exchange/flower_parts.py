"""How long to wait for the parts of a message while its sender is still sending them."""

from typing import Any

PARTS: dict[str, Any] = {"initial_backoff": 0.05, "backoff_cap": 0.2, "max_tries_per_object": None}
"""Options of Flower's `pull_objects`. By default, its first wait is 1 s and its waits grow to 10 s. Without a limit on
the number of tries, only its time limit ends them."""
