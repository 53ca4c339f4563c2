"""How many updates have left a site, ever: counted by the site itself, whatever a server says of its rounds."""

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

from common.errors import PolicyError
from common.files import write_whole


@dataclass(frozen=True)
class UpdateCount:
    """A file {"updates": 12}. It is replaced at once, under a lock, as processes of several runs may count in it."""

    path: Path

    def read(self) -> int:
        """The number so far; 0 while there is no file.

        Raises PolicyError when the file is something else: a count that is lost must not begin again at 0.
        """
        try:
            count = json.loads(self.path.read_bytes())["updates"]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise PolicyError(f"the count of updates in {self.path.name} cannot be read: {error}") from None
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise PolicyError(f"the count of updates in {self.path.name} is not a number of updates")
        return count

    def check(self, most: int) -> None:
        """Raises PolicyError when no more updates may leave."""
        if (count := self.read()) >= most:
            raise PolicyError(f"{count} updates have left this site, its policy allows {most} (max_updates)")

    def add(self, most: int) -> None:
        """Count one more, on disk when this returns.

        Raises PolicyError when no more may leave or the count cannot be written.
        """
        try:
            with self.path.with_name(f"{self.path.name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.check(most)
                write_whole(self.path, json.dumps({"updates": self.read() + 1}).encode() + b"\n")
        except OSError as error:
            raise PolicyError(f"the count of updates in {self.path.name} cannot be kept: {error.strerror}") from None
