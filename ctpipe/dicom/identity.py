"""Pseudonyms: what stands in a store in place of patients and UIDs (PS3.15 E.1, keyed so that nobody can try names)."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ctpipe.errors import BudgetError, NotThereError, UsageError

KEY_BYTES = 32


@dataclass(frozen=True)
class Pseudonyms:
    """Maps identifiers to pseudonyms by HMAC-SHA256 under one key. keep_uids: UIDs pass unchanged (in-house)."""

    key: bytes = field(repr=False)
    keep_uids: bool = False

    @property
    def fingerprint(self) -> str:
        """16 hex digits that tell keys apart and give nothing of the key away."""
        return self._digest("fingerprint", "")

    def patient(self, text: str) -> str:
        """Pseudonym of a PatientID: 'p-' and 16 hex digits."""
        return "p-" + self._digest("patient", text)

    def uid(self, text: str) -> str:
        """Pseudonym of a study, series, instance or frame-of-reference UID: 'u-' and 16 hex digits.

        A UID that `uid_of_pseudonym` made is the pseudonym that it was made of: what was exported under pseudonyms
        comes back to its own volume.
        """
        return text if self.keep_uids else pseudonym_of_uid(text) or "u-" + self._digest("uid", text)

    def text(self, text: str) -> str:
        """Pseudonym of a text that serves only to tell things apart: 16 hex digits."""
        return self._digest("text", text)

    def _digest(self, domain: str, text: str) -> str:
        message = f"ctpipe/1/{domain}\0".encode() + text.encode("utf-8", "surrogateescape")
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:16]


def uid_of_pseudonym(pseudonym: str) -> str:
    """A UID that stands for the pseudonym 'u-…' in DICOM objects: a UUID of version 8 (RFC 9562 5.8) under 2.25.

    Only what is exported without its originals has such UIDs (decision 0009); they tell no more than the pseudonym.
    """
    number = int(pseudonym.removeprefix("u-"), 16)
    return f"2.25.{(_MARK | number >> 62) << 64 | 0b10 << 62 | number & _LOW}"


def pseudonym_of_uid(text: str) -> str | None:
    """The pseudonym that a UID of `uid_of_pseudonym` stands for; None for any other UID."""
    digits = text.removeprefix("2.25.")
    if digits == text or not re.fullmatch(r"[1-9][0-9]{30,38}", digits):
        return None
    high, low = divmod(int(digits), 1 << 64)
    if high & ~3 != _MARK or low >> 62 != 0b10:
        return None
    return f"u-{(high & 3) << 62 | low & _LOW:016x}"


# "ctpipe", the version (8) and ten bits of nothing; the last two bits and 62 more hold the pseudonym.
_MARK = int.from_bytes(b"ctpipe", "big") << 16 | 8 << 12
_LOW = (1 << 62) - 1


def key_path() -> Path:
    """Where the pseudonym key lies: CTPIPE_KEY, else `ctpipe/key` in the user's configuration folder."""
    given = os.environ.get("CTPIPE_KEY")
    if given:
        return Path(given)
    from platformdirs import user_config_dir

    return Path(user_config_dir("ctpipe")) / "key"


def load_pseudonyms(create: bool = True, keep_uids: bool = False) -> Pseudonyms:
    """The user's pseudonyms; the key file is made with mode 0600 at first use where `create` allows it.

    Raises NotThereError (no key and create=False), UsageError (a key that others can read, or that is no key).
    """
    path = key_path()
    if create and not path.exists():
        _make_key(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotThereError(f"there is no pseudonym key at {path}", "set CTPIPE_KEY to the key file") from None
    except OSError as error:
        raise UsageError(f"the pseudonym key at {path} cannot be read ({error.strerror})", "set CTPIPE_KEY") from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        text = file.read(4096).strip()
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise UsageError(f"the pseudonym key at {path} can be read by others", f"chmod 600 {path}")
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError(f"{path} is no pseudonym key", "set CTPIPE_KEY to the right file, or to a new one")
    return Pseudonyms(key, keep_uids)


def _make_key(path: Path) -> None:
    """Writes a fresh key whole or not at all; where two processes start at once, the first one's key stands."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(temporary, path)  # fails where the key appeared meanwhile
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        kind = BudgetError if error.errno in (28, 122) else UsageError
        raise kind(
            f"the pseudonym key cannot be written to {path} ({error.strerror})",
            "set CTPIPE_KEY to a place that can be written",
        ) from None
