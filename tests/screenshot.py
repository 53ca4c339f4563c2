"""A picture of a page, for docs/images/: `python tests/screenshot.py http://127.0.0.1:8060/ live.png --width 390`."""

import argparse
import io
from pathlib import Path

from browser import browser
from PIL import Image


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", help="an address, or an HTML file")
    parser.add_argument("out", type=Path, metavar="PNG")
    parser.add_argument("--width", type=int, default=1280, metavar="N", help="CSS pixels (default: 1280)")
    parser.add_argument("--height", type=int, metavar="N", help="CSS pixels from the top (default: the whole page)")
    options = parser.parse_args()
    address = options.page if "://" in options.page else Path(options.page).resolve().as_uri()
    with browser() as tab:
        tab.open(address, options.width)
        image = Image.open(io.BytesIO(tab.picture(options.height))).convert("RGB")
    image.quantize(palette=commonest(image), dither=Image.Dither.NONE).save(options.out, optimize=True)


def commonest(image: Image.Image) -> Image.Image:
    """The palette of an image's 256 commonest colours: flat areas stay as they are, and the file is a third."""
    counted = sorted(image.getcolors(image.width * image.height), reverse=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in counted[:256] for part in colour])
    return palette


if __name__ == "__main__":
    main()
