"""Edits the hash in a Storable image, and copies the bytes of everything that did not change.

Python values cannot represent everything in an image: the class of an object, a reference to a
scalar, or whether a string is bytes or characters. For this reason a changed session is not
written again from its values. Only the pairs that changed are replaced in the image that Perl
wrote, and the others are copied. Objects and classes have numbers in an image, by which it refers
to them. These numbers are corrected in the copies.
"""

from __future__ import annotations

from .changes import REMOVED, Changes, edit_hash
from .hash_image import HashImage, Key, read_hash

__all__ = ["REMOVED", "Changes", "HashImage", "Key", "edit_hash", "read_hash"]
