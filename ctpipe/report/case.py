"""The page of one set of labels: three planes, a 3-D picture, every lesion measured. One file, to read or to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ctpipe.report.files import write_whole
from ctpipe.report.page import document, figure, provenance_table
from ctpipe.report.text import escaped
from ctpipe.scoring import Measured
from ctpipe.words import LABEL_COLOURS

MOST_ROWS = 60  # lesions that are listed; the rest is summed up


def labels_html(
    path: str | Path, *, title: str, about: str, planes: bytes, solid: bytes | None, classes: Mapping[int, str],
    lesions: Sequence[Measured], provenance: Mapping[str, object],
) -> Path:  # fmt: skip
    """Writes the page and returns its path.

    planes, solid: PNGs (solid: None where there is nothing to draw). classes: label -> name. lesions: of all classes.
    about: one line below the title. Every text is escaped, unseen characters included (RELIABILITY X9).
    """
    parts = [f"<h1>{escaped(title)}</h1>", f'<p class="faint">{escaped(about)}</p>', _cards(classes, lesions)]
    parts.append(figure(planes, "CT and labels in three planes", "Radiological display, true proportions."))
    if solid is not None:
        parts.append("<h2>In 3-D</h2>")
        parts.append(figure(solid, "Surfaces from the front and from the left",
                            "True proportions. Large bodies are glassy; bone, above 200 HU, is grey."))  # fmt: skip
    parts += [_lesions(lesions), provenance_table(provenance)]
    path = Path(path)
    write_whole(path, document(title, parts))
    return path


def _cards(classes: Mapping[int, str], lesions: Sequence[Measured]) -> str:
    cards = []
    for label, name in sorted(classes.items()):
        own = [one for one in lesions if one.label == label]
        if label and own:
            longest = max(one.axes.long_mm for one in own)
            pieces = "one piece" if len(own) == 1 else f"{len(own)} pieces"
            cards.append(
                f'<div class="card">{_chip(label)}{escaped(name)}<b>{sum(one.volume_ml for one in own):,.1f} mL</b>'
                f'<span class="faint">{pieces} · longest {longest:.1f} mm</span></div>'
            )
    return f'<div class="cards">{"".join(cards)}</div>'


def _lesions(lesions: Sequence[Measured]) -> str:
    ranked = sorted(lesions, key=lambda one: (one.label, -one.voxels))
    listed = {(one.label, one.number) for one in sorted(ranked, key=lambda one: -one.voxels)[:MOST_ROWS]}
    rows = "\n".join(_row(one) for one in ranked if (one.label, one.number) in listed)
    rest = [one for one in ranked if (one.label, one.number) not in listed]
    note = "Connected pieces of each class, over faces, edges and corners. Axes within one plane (RECIST 1.1)."
    if rest:
        note += f" {len(rest)} smaller pieces are not listed, together {sum(one.volume_ml for one in rest):.2f} mL."
    header = ("class", "piece", "mL", "long × short mm", "mean HU ± SD", "plane", "centre L, P, S mm")
    head = "".join(f"<th>{escaped(name)}</th>" for name in header)
    return (
        f'<h2>Measured</h2>\n<div class="wide"><table>\n<caption>{escaped(note)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>\n</table></div>"
    )


def _row(one: Measured) -> str:
    hu = "–" if one.hu is None else f"{one.hu[0]:.0f} ± {one.hu[1]:.0f}"
    centre = ", ".join(f"{mm:.1f}" for mm in one.centre_mm)
    cells = (str(one.number), f"{one.volume_ml:.2f}", f"{one.axes.long_mm:.1f} × {one.axes.short_mm:.1f}", hu,
             str(one.axes.plane), centre)  # fmt: skip
    words = "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
    return f"<tr><th>{_chip(one.label)}{escaped(one.name)}</th>{words}</tr>"


def _chip(label: int) -> str:
    """A square in the colour of a label; drawn, since the page allows no style but its own."""
    red, green, blue = LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]
    return (f'<svg class="chip" viewBox="0 0 12 12" aria-hidden="true"><rect width="12" height="12" rx="2" '
            f'fill="#{red:02x}{green:02x}{blue:02x}"/></svg>')  # fmt: skip
