"""The identity of a run at a tracker, kept in the run folder, so that a resumed run continues there."""

from pathlib import Path

FOLDER = "trackers"


def remember(folder: Path, tracker: str, identity: str) -> None:
    """Save the identity of a run at a tracker. folder: the run folder."""
    (folder / FOLDER).mkdir(exist_ok=True)
    (folder / FOLDER / tracker).write_text(identity, encoding="utf-8")


def remembered(folder: Path, tracker: str) -> str:
    """The saved identity, or "" if there is none."""
    try:
        return (folder / FOLDER / tracker).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
