"""What a site counts for itself, whatever a server says of its rounds, and the secret that its split is keyed with."""

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
    """Training messages that were let at the examples, ever."""
    day: str = ""
    """The day (UTC) of the last introduction."""
    introductions: Count = 0
    """Those of that day."""
    secret: str = Field("", pattern=r"^([0-9a-f]{32})?$")
    """What the site's split is keyed with."""


@dataclass(frozen=True)
class SiteState:
    """A JSON file of a `Counted`, replaced at once and under a lock: processes of several runs may count in it."""

    path: Path

    def read(self) -> Counted:
        """What was counted so far; nothing while there is no file.

        Raises PolicyError when the file is something else: a count that is lost must not begin again at 0.
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
        """Count a training message, on disk when this returns.

        Raises PolicyError when no more may be answered or the count cannot be written.
        """

        def counted(before: Counted) -> Counted:
            _check_updates(before, most)
            return before.model_copy(update={"updates": before.updates + 1})

        self._change(counted)

    def count_introduction(self, most: int | None) -> None:
        """Count an introduction, on disk when this returns.

        Raises PolicyError when there may be no more on this day or the count cannot be written.
        """

        def counted(before: Counted) -> Counted:
            today = datetime.now(UTC).date().isoformat()
            count = before.introductions if before.day == today else 0
            if most is not None and count >= most:
                raise PolicyError(f"this site has introduced itself {count} times today (max_introductions)")
            return before.model_copy(update={"day": today, "introductions": count + 1})

        self._change(counted)

    def secret(self) -> str:
        """The secret, made when it is asked for first.

        Raises PolicyError when it cannot be kept.
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
            raise PolicyError(f"the counts in {self.path.name} cannot be kept: {error.strerror}") from None


def new_secret() -> str:
    """Hexadecimal, of the operating system's randomness."""
    return secrets.token_hex(SECRET_BYTES)


def _check_updates(counted: Counted, most: int | None) -> None:
    if most is not None and counted.updates >= most:
        raise PolicyError(f"{counted.updates} updates have left this site, its policy allows {most} (max_updates)")
