"""The page of a case: one HTML file that needs nothing else, runs nothing, and shows every text as text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from ctpipe.errors import NotThereError
from ctpipe.report.files import write_whole
from ctpipe.report.text import escaped
from ctpipe.scoring import RULE, VolumeScores, number

_CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b2129; --faint: #5d6875; --line: #dde2e8; --soft: #f4f6f8;
  --good: #1d8a63; }
@media (prefers-color-scheme: dark) { :root { --paper: #0e1116; --ink: #f0f3f6; --faint: #9aa7b4; --line: #2a313c;
  --soft: #161b22; --good: #46c79a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 26px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 34px 0 10px; font-size: 17px; }
p { margin: 6px 0; } .faint, caption, figcaption { color: var(--faint); font-size: 13px; }
figure { margin: 0; } figure img { display: block; width: 100%; height: auto; border-radius: 8px; }
figure.curve img { width: auto; max-width: 100%; border: 1px solid var(--line); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; }
.card { flex: 1 1 190px; padding: 12px 16px; background: var(--soft); border: 1px solid var(--line);
  border-radius: 8px; overflow-wrap: anywhere; }
.card b { display: block; font-size: 25px; line-height: 1.25; color: var(--good); font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; padding-top: 6px; }
th, td { padding: 6px 12px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; } thead th { color: var(--faint); font-size: 13px; white-space: nowrap; }
th:first-child, td.text { text-align: left; overflow-wrap: anywhere; }
td.same { background: var(--soft); font-weight: 600; }
pre { margin: 0; padding: 10px 14px; background: var(--soft); border: 1px solid var(--line); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
"""

# Nothing is loaded and nothing runs: pictures are data: URLs, the one style is named by its digest (CSP level 2).
_POLICY = (
    "default-src 'none'; img-src data:; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)


def case_html(
    path: str | Path,
    *,
    title: str,
    png: str | Path,
    scores: VolumeScores | None = None,
    provenance: Mapping[str, object] | None = None,
    curve: str | Path | None = None,
    napari_line: str | None = None,
) -> Path:
    """Writes the page of a case and returns its path.

    png: the picture of `case_png`; curve: a picture of the training; both are put into the page.
    provenance: what a reader needs to find or repeat the case (series, run, model digest, …), shown in this order.
    napari_line: the command that opens the case in napari.
    Every text is escaped, unseen characters included (RELIABILITY.md X9). Raises NotThereError without the pictures.
    """
    parts = [f"<h1>{escaped(title)}</h1>"]
    if scores is not None:
        parts += [_about(scores), _cards(scores)]
    parts.append(_figure(png, "CT, truth and prediction in three planes", "Radiological display, true proportions."))
    if napari_line:
        parts.append(f"<h2>Open it in napari</h2>\n<pre>{escaped(napari_line)}</pre>")
    if scores is not None:
        parts += [_overlap(scores), _lesions(scores), _confusion(scores)]
    if curve is not None:
        parts.append("<h2>Training</h2>\n" + _figure(curve, "Training curve", "", kind="curve"))
    if provenance:
        parts.append(_provenance(provenance))
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + '\n<p class="faint">Made by ctpipe. For research; not a medical device.</p>\n</body>\n</html>\n'
    )
    path = Path(path)
    write_whole(path, page.encode("utf-8"))
    return path


def _about(scores: VolumeScores) -> str:
    lines = [f"Prediction {scores.prediction} against {scores.truth}, series {scores.series}."]
    if scores.only_in_truth:
        lines.append(f"Only the truth has {_list(scores.only_in_truth)}: the model does not know it.")
    if scores.only_in_prediction:
        lines.append(f"Only the prediction has {_list(scores.only_in_prediction)}: nothing there is right or wrong.")
    return "\n".join(f'<p class="faint">{escaped(line)}</p>' for line in lines)


def _cards(scores: VolumeScores) -> str:
    cards = []
    for name in scores.classes:
        c, lesions = scores.index(name), scores.lesions[name]
        pieces = "piece" if lesions.count == 1 else "pieces"
        cards.append(
            f'<div class="card">{escaped(name)}<b>{number(scores.confusion.dice(c))}</b>'
            f'<span class="faint">Dice · IoU {number(scores.confusion.iou(c))} · '
            f"{lesions.found} of {lesions.count} {pieces} found</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _overlap(scores: VolumeScores) -> str:
    m, rows = scores.confusion, []
    for name in scores.classes:
        c = scores.index(name)
        measures = [number(v) for v in (m.dice(c), m.iou(c), m.precision(c), m.recall(c))]
        true_ml, predicted_ml = m.true_voxels(c) * scores.voxel_ml, m.predicted_voxels(c) * scores.voxel_ml
        rows.append([name, *measures, number(true_ml, 1), number(predicted_ml, 1)])
    header = ["class", "Dice", "IoU", "precision", "recall", "truth mL", "predicted mL"]
    note = "Over the voxels of the whole volume. Dice = 2·IoU / (1 + IoU). A dash: no voxels to score."
    return "<h2>Overlap</h2>\n" + _table(header, rows, note)


def _lesions(scores: VolumeScores) -> str:
    bins = [b.name for b in next(iter(scores.lesions.values())).by_size] if scores.lesions else []
    rows = [
        [
            name,
            f"{found.found} of {found.count}",
            *(f"{b.found} of {b.count}" if b.count else "–" for b in found.by_size),
            str(found.false_components),
        ]
        for name, found in scores.lesions.items()
    ]
    note = (
        f"Separate pieces of a class: {RULE} counts as found. Sizes are diameters of balls of equal volume; "
        "false pieces are predicted ones that touch no true voxel of the class."
    )
    return "<h2>Pieces found</h2>\n" + _table(["class", "all", *bins, "false pieces"], rows, note)


def _confusion(scores: VolumeScores) -> str:
    names = ["background", *scores.classes]
    head = "".join(f"<th>{escaped(name)}</th>" for name in names)
    body = []
    for t, name in enumerate(names):
        cells = [f"<td>{int(n):,}</td>" for n in scores.confusion.counts[t]]
        cells[t] = cells[t].replace("<td>", '<td class="same">')
        body.append(f"<tr><th>{escaped(name)}</th>{''.join(cells)}</tr>")
    return (
        '<h2>Voxels by class</h2>\n<div class="wide"><table>\n'
        "<caption>Rows: true class. Columns: predicted class.</caption>\n"
        f"<thead><tr><th>true \\ predicted</th>{head}</tr></thead>\n<tbody>{''.join(body)}</tbody>\n</table></div>"
    )


def _provenance(provenance: Mapping[str, object]) -> str:
    rows = (
        f'<tr><th>{escaped(name)}</th><td class="text">{escaped(value)}</td></tr>' for name, value in provenance.items()
    )
    return f'<h2>Where it comes from</h2>\n<div class="wide"><table><tbody>{"".join(rows)}</tbody></table></div>'


def _table(header: list[str], rows: list[list[str]], note: str) -> str:
    head = "".join(f"<th>{escaped(name)}</th>" for name in header)
    body = "\n".join(
        f"<tr><th>{escaped(row[0])}</th>{''.join(f'<td>{escaped(cell)}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table>\n<caption>{escaped(note)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table></div>"
    )


def _figure(picture: str | Path, alternative: str, note: str, kind: str = "case") -> str:
    try:
        data = base64.b64encode(Path(picture).read_bytes()).decode()
    except OSError as error:
        raise NotThereError(f"the picture {picture} cannot be read", "make it before the page") from error
    caption = f"<figcaption>{escaped(note)}</figcaption>" if note else ""
    image = f'<img alt="{escaped(alternative)}" src="data:image/png;base64,{data}">'
    return f'<figure class="{kind}">{image}{caption}</figure>'


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
