"""The counts of messages, which a site keeps independently of the server's round numbers, and the secret key of its
split."""

import fcntl
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from common.config.component import Options
from common.errors import PolicyError
from common.files import write_whole

SECRET_BYTES = 16
Count = Annotated[int, Field(ge=0)]


class Counted(Options):
    """The content of the file."""

    updates: Count
    """Number of training messages that have used the examples so far."""
    day: str = ""
    """The day (UTC) of the last introduction."""
    introductions: Count = 0
    """Number of introductions on that day."""
    secret: str = Field("", pattern=r"^([0-9a-f]{32})?$")
    """The secret key of the site's split."""


@dataclass(frozen=True)
class SiteState:
    """A JSON file with a `Counted`. Changes replace the whole file under a lock, because processes of several runs may
    count in it."""

    path: Path

    def read(self) -> Counted:
        """The counts so far; 0 if there is no file.

        Raises PolicyError when the file cannot be read, because a lost count must not start again at 0.
        """
        try:
            return Counted.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return Counted(updates=0)
        except (OSError, ValidationError, RecursionError) as error:
            why = str(error).splitlines()[0]
            raise PolicyError(f"the counts in {self.path.name} cannot be read: {why}") from None

    def check_updates(self, most: int | None) -> None:
        """Raises PolicyError when no more training messages may reach the examples."""
        _check_updates(self.read(), most)

    def count_update(self, most: int | None) -> None:
        """Count a training message. The count is on disk when this returns.

        Raises PolicyError when the policy allows no more updates or the count cannot be written.
        """

        def counted(before: Counted) -> Counted:
            _check_updates(before, most)
            return before.model_copy(update={"updates": before.updates + 1})

        self._change(counted)

    def count_introduction(self, most: int | None) -> None:
        """Count an introduction. The count is on disk when this returns.

        Raises PolicyError when the policy allows no more introductions on this day or the count cannot be written.
        """

        def counted(before: Counted) -> Counted:
            today = datetime.now(UTC).date().isoformat()
            count = before.introductions if before.day == today else 0
            if most is not None and count >= most:
                told = f"this site has introduced itself {count} times today"
                raise PolicyError(f"{told}, its policy allows {most} (max_introductions)")
            return before.model_copy(update={"day": today, "introductions": count + 1})

        self._change(counted)

    def secret(self) -> str:
        """The secret, which is made on the first call.

        Raises PolicyError when it cannot be written.
        """
        if found := self.read().secret:
            return found
        self._change(lambda before: before if before.secret else before.model_copy(update={"secret": new_secret()}))
        return self.read().secret

    def _change(self, changed: Callable[[Counted], Counted]) -> None:
        try:
            with self.path.with_name(f"{self.path.name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                write_whole(self.path, changed(self.read()).model_dump_json().encode() + b"\n")
        except OSError as error:
            raise PolicyError(f"the counts in {self.path.name} cannot be written: {error.strerror}") from None


def new_secret() -> str:
    """A new secret from the operating system's random numbers, in hexadecimal."""
    return secrets.token_hex(SECRET_BYTES)


def _check_updates(counted: Counted, most: int | None) -> None:
    if most is not None and counted.updates >= most:
        raise PolicyError(f"{counted.updates} updates have left this site, its policy allows {most} (max_updates)")
