"""The page of a predicted case: its pictures, its scores against the truth, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctpipe.report.files import write_whole
from ctpipe.report.page import document, figure, picture_of, provenance_table, table
from ctpipe.report.text import escaped
from ctpipe.scoring import RULE, VolumeScores, number


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
    alternative = "CT, truth and prediction in three planes"
    parts.append(figure(picture_of(png), alternative, "Radiological display, true proportions."))
    if napari_line:
        parts.append(f"<h2>Open it in napari</h2>\n<pre>{escaped(napari_line)}</pre>")
    if scores is not None:
        parts += [_overlap(scores), _lesions(scores), _confusion(scores)]
    if curve is not None:
        parts.append("<h2>Training</h2>\n" + figure(picture_of(curve), "Training curve", "", kind="curve"))
    if provenance:
        parts.append(provenance_table(provenance))
    path = Path(path)
    write_whole(path, document(title, parts))
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
    return "<h2>Overlap</h2>\n" + table(header, rows, note)


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
    return "<h2>Pieces found</h2>\n" + table(["class", "all", *bins, "false pieces"], rows, note)


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


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
