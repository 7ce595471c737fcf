"""A fingerprint of a sequence that can be broken off and gone on with: each link hashes the one before and one item."""

from __future__ import annotations

from hashlib import sha256

NOTHING = sha256().hexdigest()
"""Of no items yet.  A running SHA-256 cannot be stored, so a stopped run could not go on with one; a link can."""


def link(before: str, item: bytes | memoryview) -> str:
    """The digest of the items that `before` is the digest of, and this one after them."""
    joined = sha256(bytes.fromhex(before))
    joined.update(item)
    return joined.hexdigest()
