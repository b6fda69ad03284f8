"""Draw the way of the data: python docs/images/architecture.py writes architecture.svg beside itself."""

from pathlib import Path
from xml.sax.saxutils import escape

STEPS = [  # title, what it is, where it is made
    ("source", ["XTC2, HDF5, NeXus,", "Zarr, EuXFEL,", "simulated"], "io/sources"),
    ("raw", ["event, segment,", "row, column;", "lazy, as stored"], "io"),
    ("calibrated", ["keV or photons;", "NaN where not", "to be trusted"], "calibration"),
    ("reductions", ["roi, azint, droplet,", "projection, your own:", "one pass"], "reductions, engine"),
    ("small data", ["a Dataset over event,", "with errors and", "provenance"], "io/stores"),
    ("cube", ["bins of what was", "scanned: mean,", "spread, count"], "cube"),
]
BESIDE = [  # title, what it is, folder, under which step it joins
    ("geometry, beam", ["where pixels are:", "x, y, z; q"], "detector, frames", 1),
    ("constants", ["pedestal, gain,", "noise, status"], "io/constants", 2),
    ("masks, flags", ["what may be used,", "and why not"], "frames, calibration", 3),
    ("event variables", ["delay, laser on,", "scanned motors"], "events", 5),
]
WIDTH, HEIGHT, GAP, TOP, LOW = 150, 112, 26, 20, 196


def box(x: float, y: float, title: str, lines: list[str], folder: str, fill: str) -> str:
    middle = x + WIDTH / 2
    text = "".join(
        f'<text x="{middle}" y="{y + 43 + 16 * i}" class="what">{escape(line)}</text>' for i, line in enumerate(lines)
    )
    tall = HEIGHT if len(lines) == 3 else HEIGHT - 16
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{tall}" rx="8" fill="{fill}" stroke="#35506b"/>'
        f'<text x="{x + WIDTH / 2}" y="{y + 22}" class="title">{escape(title)}</text>{text}'
        f'<text x="{x + WIDTH / 2}" y="{y + tall - 9}" class="folder">{escape(folder)}/</text>'
    )


def main() -> None:
    at = [10 + i * (WIDTH + GAP) for i in range(len(STEPS))]
    parts = [box(x, TOP, *step, "#e8f0f8") for x, step in zip(at, STEPS, strict=True)]
    for x in at[:-1]:
        y = TOP + HEIGHT / 2
        parts.append(f'<path d="M{x + WIDTH + 2} {y} h{GAP - 6}" class="arrow"/>')
    for title, lines, folder, step in BESIDE:
        x = at[step]
        parts.append(box(x, LOW, title, lines, folder, "#fdf3e1"))
        parts.append(f'<path d="M{x + WIDTH / 2} {LOW - 2} V{TOP + HEIGHT + 6}" class="arrow"/>')
    width, height = at[-1] + WIDTH + 10, LOW + HEIGHT
    style = (
        "text{font-family:sans-serif;text-anchor:middle;fill:#1d2b3a}.title{font-size:15px;font-weight:bold}"
        ".what{font-size:12.5px}.folder{font-size:11.5px;font-family:monospace;fill:#35506b}"
        ".arrow{stroke:#35506b;stroke-width:2;fill:none;marker-end:url(#head)}"
    )
    head = (
        '<marker id="head" markerWidth="7" markerHeight="7" refX="4" refY="3" orient="auto">'
        '<path d="M0 0 L6 3 L0 6 z" fill="#35506b"/></marker>'
    )
    svg = "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
            f"<style>{style}</style><defs>{head}</defs>",
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )
    Path(__file__).with_suffix(".svg").write_text(svg, encoding="utf-8")


main()
