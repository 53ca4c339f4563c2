"""`make figures`: draw the figures of the documentation as SVG, in plain text.

Each figure is a light card, so that it can be read on a light and on a dark page. It uses the fonts of the reader's
system and loads nothing.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
WIDTH = 480
STYLE = """<style>
  /* A light card of its own, so that it can be read on a light and on a dark page. */
  text { font: 13px system-ui, sans-serif; fill: #1c2430; text-anchor: middle }
  .small { font-size: 11px; fill: #4a5568 } .bold { font-weight: 600 }
  .card { fill: #fbfbfd; stroke: #d5d9e0 } .frame { fill: #ffffff; stroke: #9aa4b2 }
  .audio { fill: #fde3c8; stroke: #c2701c } .image { fill: #d3e5fb; stroke: #2b6cb0 }
  .shared { fill: #e4dff5; stroke: #6b4fbb } .loss { fill: #fff; stroke: #b83280; stroke-width: 1.5 }
  .frozen { fill: #eef1f5; stroke: #4a5568; stroke-dasharray: 4 3 }
  .arrow { fill: none; stroke: #4a5568; stroke-width: 1.4; marker-end: url(#tip) }
  .teach { stroke: #b83280; stroke-dasharray: 5 3 }
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"\
 orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#4a5568"/></marker></defs>"""


def figure(height: int, about: str, shapes: Iterator[str]) -> str:
    """A whole figure, with a description for readers who do not see it."""
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    card = f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(about)}">'
    return "\n".join([head, STYLE, card, *shapes, "</svg>\n"])


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A line of text around x."""
    of = f' class="{kind}"' if kind else ""
    return f'<text{of} x="{x:g}" y="{y:g}">{escape(words, quote=False)}</text>'


def box(kind: str, x: float, y: float, width: float, height: float, *words: str, small: bool = False) -> Iterator[str]:
    """A box with one line, or with a second line in small letters."""
    yield f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>'
    middle = y + height / 2
    lines = [middle + 4.5] if len(words) == 1 else [middle - 2.5, middle + 12.5]
    for number, (line, said) in enumerate(zip(lines, words, strict=False)):
        yield text(x + width / 2, line, said, "small" if small or number else "")


def arrow(path: str, kind: str = "") -> str:
    """An arrow along a path."""
    return f'<path class="{f"arrow {kind}".strip()}" d="{path}"/>'


def round_of_training() -> Iterator[str]:
    """The server, three sites, and the blocks that go down and come up."""
    yield from box("frame", 90, 16, 300, 92)
    yield text(240, 36, "server: the global model", "bold")
    for x, block in ((102, "audio"), (196, "image"), (290, "shared")):
        yield from box(block, x, 50, 88, 44, block, "block")
    for x, site, held in (
        (14, "site a", ("audio", "image", "shared")),
        (170, "site b", ("audio", "shared")),
        (326, "site c", ("image", "shared")),
    ):
        yield from _site(x, site, held)
    yield from map(arrow, ("M130 108 L84 208", "M240 108 L240 208", "M350 108 L396 208"))
    yield from map(arrow, ("M108 208 L152 110", "M262 208 L262 110", "M372 208 L328 110"))
    yield text(58, 150, "blocks down", "small")
    yield text(424, 150, "blocks up,", "small")
    yield text(424, 165, "trained", "small")


def _site(x: int, name: str, held: Sequence[str]) -> Iterator[str]:
    yield from box("frame", x, 210, 140, 128)
    yield text(x + 70, 230, name, "bold")
    width = (124 - 4 * (len(held) - 1)) // len(held)
    for number, block in enumerate(held):
        yield from box(block, x + 8 + number * (width + 4), 242, width, 30, block, small=True)
    yield from box("frozen", x + 8, 284, 124, 42, "shard", "examples stay here")


def fedcmi() -> Iterator[str]:
    """A client with two modalities, and the teacher."""
    yield text(240, 26, "a client with sound and images, sound being dominant", "bold")
    for kind, y, value, above, below in (
        ("audio", 68, "xₐ", "P: infiltr.", "S: self"),
        ("image", 224, "xᵥ", "S: self", "P: infiltr."),
    ):
        yield from box(kind, 14, y, 46, 36, value)
        yield from box(kind, 82, y, 62, 36, "encoder", small=True)
        yield from box(kind, 176, y - 24, 76, 34, above, small=True)
        yield from box(kind, 176, y + 28, 76, 34, below, small=True)
        yield from box(kind, 286, y, 76, 36, "classifier C", small=True)
        yield arrow(f"M60 {y + 18} H80")
        yield arrow(f"M144 {y + 14} L174 {y - 6}")
        yield arrow(f"M144 {y + 22} L174 {y + 44}")
        yield arrow(f"M252 {y - 6} L284 {y + 12}")
        yield arrow(f"M252 {y + 46} L284 {y + 24}")
    yield from box("loss", 388, 66, 80, 40, "CE(uₐ, y)")
    yield arrow("M362 86 H386")
    yield from box("loss", 388, 196, 80, 40, "CE(uᵥ, y)")
    yield arrow("M362 236 L386 222")
    yield from box("loss", 388, 256, 80, 40, "L_inf")
    yield arrow("M362 250 L386 268")
    yield from box("shared", 176, 148, 76, 34, "fusion F", small=True)
    yield from box("loss", 286, 145, 76, 40, "CE(u, y)")
    yield from map(arrow, ("M252 165 H284", "M214 130 V146", "M214 200 V184"))
    yield text(210, 330, "the global model as received, frozen: the teacher", "bold")
    yield from box("frozen", 14, 346, 46, 36, "xₐ")
    for x, width, words in (
        (82, 62, "encoder"),
        (176, 76, "S: self"),
        (286, 76, "classifier C"),
        (388, 80, "softmax, T"),
    ):
        yield from box("frozen", x, 346, width, 36, words, small=True)
    yield from map(arrow, ("M60 364 H80", "M144 364 H174", "M252 364 H284", "M362 364 H386"))
    yield arrow("M428 346 V298", "teach")


def fedmvp() -> Iterator[str]:
    """Completion at a site, training at a client, aggregation at the server."""
    yield text(240, 26, "1. once, at the site: frozen models make what is missing", "bold")
    for y, given, maker, made in (
        (44, "image", "BLIP-2, CoCa", "text"),
        (92, "text", "diffusion, or a public pool", "image"),
    ):
        colours = {"image": "image", "text": "audio"}
        yield from box(colours[given], 30, y, 96, 36, given)
        yield from box("frozen", 150, y, 180, 36, maker, small=True)
        yield from box(colours[made], 354, y, 96, 36, made, "generated")
        yield from map(arrow, (f"M126 {y + 18} H148", f"M330 {y + 18} H352"))
    yield text(240, 160, "2. every round, at the client", "bold")
    yield from box("frozen", 30, 178, 150, 36, "frozen image encoder", small=True)
    yield from box("frozen", 300, 178, 150, 36, "frozen text encoder", small=True)
    yield from box("shared", 150, 244, 180, 40, "joint encoder: attention", small=True)
    yield from map(arrow, ("M120 214 L184 242", "M360 214 L296 242"))
    yield text(190, 230, "tokens", "small")
    yield text(290, 230, "tokens", "small")
    yield from box("frame", 14, 300, 452, 50)
    for kind, x, vector in (("image", 44, "h_I"), ("shared", 210, "h_J"), ("audio", 376, "h_T")):
        yield from box(kind, x, 308, 60, 34, vector)
    yield from map(arrow, ("M74 214 V306", "M406 214 V306", "M240 284 V306"))
    yield text(52, 262, "pooled", "small")
    yield text(430, 262, "pooled", "small")
    for x, width, loss, about in (
        (14, 146, "L_MCM", "contrasts h_J, h_m"),
        (176, 128, "CE(logits, y)", "from h_J"),
        (320, 146, "L_RAM", "aligns h_J, h_m"),
    ):
        yield from box("loss", x, 376, width, 40, loss, about)
        yield arrow(f"M{x + width / 2:g} 350 V374")
    yield text(240, 450, "3. at the server: weights by similarity", "bold")
    for kind, x, width, words in (
        ("frozen", 14, 90, ("probe set", "synthetic")),
        ("shared", 134, 104, ("h_J of each", "client's model")),
        ("frame", 268, 76, ("CKA", "all pairs")),
        ("shared", 390, 76, ("Σ w θ", "new model")),
    ):
        yield from box(kind, x, 468, width, 48, *words)
    yield from map(arrow, ("M104 492 H132", "M238 492 H266", "M344 492 H388"))
    yield text(366, 484, "w", "small")


def figures() -> dict[str, str]:
    """The text of each file."""
    return {
        "round.svg": figure(
            352,
            "A round: the server sends each site the blocks that it holds; the site trains them on its shard and"
            " returns them",
            round_of_training(),
        ),
        "fedcmi.svg": figure(
            396,
            "FedCMI at a client: the frozen global model's dominant modality teaches the infiltration projector of the"
            " weak one",
            fedcmi(),
        ),
        "fedmvp.svg": figure(
            532,
            "FedMVP: completion by frozen models, the joint encoder with its three losses, and weights by the"
            " similarity of models",
            fedmvp(),
        ),
    }


if __name__ == "__main__":
    for name, drawn in figures().items():
        (FOLDER / name).write_text(drawn)
        print(FOLDER / name)
