"""`make reference`: write the pages of docs/reference from the code."""

from pathlib import Path

import commands
import configuration

FOLDER = Path(__file__).parents[1] / "reference"


def pages() -> dict[Path, str]:
    """The text of each page that is made from the code."""
    return {FOLDER / "commands.md": commands.reference(), FOLDER / "configuration.md": configuration.reference()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)
