"""`make reference`: write the pages of docs/reference from the code."""

from pathlib import Path

import commands
import configuration
import results

FOLDER = Path(__file__).parents[1] / "reference"


def pages() -> dict[Path, str]:
    """The text of each file that is made from the code."""
    made = {"commands.md": commands.reference(), "configuration.md": configuration.reference()}
    return {FOLDER / name: text for name, text in (made | results.files()).items()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)
