"""What every page of ours is made of: one file that needs nothing else, runs nothing, and shows every text as text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from ctpipe.errors import NotThereError
from ctpipe.report.text import escaped

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
.chip { display: inline-block; width: 12px; height: 12px; margin-right: 7px; vertical-align: -1px; }
.pair { display: flex; flex-wrap: wrap; gap: 12px; }
.pair figure { flex: 1 1 420px; }
pre { margin: 0; padding: 10px 14px; background: var(--soft); border: 1px solid var(--line); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
@media print { body { padding: 0; max-width: none; font-size: 11px; } h1 { font-size: 18px; }
  .card b { font-size: 17px; }
  h2 { margin: 14px 0 6px; } th, td { padding: 2px 8px; } figure, .cards, tr { break-inside: avoid; } }
"""

# Nothing is loaded and nothing runs: pictures are data: URLs, the one style is named by its digest (CSP level 2).
_POLICY = (
    "default-src 'none'; img-src data:; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)


def document(title: str, parts: list[str]) -> bytes:
    """A whole page from parts that are HTML already; the title is text."""
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + '\n<p class="faint">Made by ctpipe. For research; not a medical device.</p>\n</body>\n</html>\n'
    )
    return page.encode("utf-8")


def table(header: list[str], rows: list[list[str]], note: str) -> str:
    """Rows of text under a header; the first cell of each is its name."""
    head = "".join(f"<th>{escaped(name)}</th>" for name in header)
    body = "\n".join(
        f"<tr><th>{escaped(row[0])}</th>{''.join(f'<td>{escaped(cell)}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table>\n<caption>{escaped(note)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table></div>"
    )


def picture_of(path: str | Path) -> bytes:
    """The bytes of a PNG. Raises NotThereError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotThereError(f"the picture {path} cannot be read", "make it before the page") from error


def figure(png: bytes, alternative: str, note: str, kind: str = "case") -> str:
    """A picture within the page, its note below it."""
    data = base64.b64encode(png).decode()
    caption = f"<figcaption>{escaped(note)}</figcaption>" if note else ""
    image = f'<img alt="{escaped(alternative)}" src="data:image/png;base64,{data}">'
    return f'<figure class="{kind}">{image}{caption}</figure>'


def provenance_table(provenance: Mapping[str, object]) -> str:
    """Where it comes from: names and values, in their order."""
    rows = (
        f'<tr><th>{escaped(name)}</th><td class="text">{escaped(value)}</td></tr>' for name, value in provenance.items()
    )
    return f'<h2>Where it comes from</h2>\n<div class="wide"><table><tbody>{"".join(rows)}</tbody></table></div>'
