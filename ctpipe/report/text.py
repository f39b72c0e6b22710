"""Text of others made safe to show: names of classes, runs and series may hold anything."""

from __future__ import annotations

import html
import unicodedata

# Control, format (bidirectional overrides among them), surrogate, private and unassigned characters; line separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible(text: object) -> str:
    """`text` on one line, each character that a reader would not see as written replaced by its code point."""
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) in _UNSEEN else c for c in str(text))


def escaped(text: object) -> str:
    """`visible` text for HTML, in element content or in a quoted attribute."""
    return html.escape(visible(text), quote=True)
