"""The trackers that a run continued without, kept in the run folder for the command that shows the run."""

from pathlib import Path

FILE = "trackers-failed.txt"


def note(folder: Path, failure: str) -> None:
    """Add a failure. A folder that cannot be written is not an error, because the log contains the failure too."""
    try:
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(f"{failure}\n")
    except OSError:
        return


def failures(folder: Path) -> list[str]:
    """The failures of a run and of the runs that it continues."""
    try:
        return (folder / FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
