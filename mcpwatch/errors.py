"""What an error means for whoever started the program. Each room's own error derives from one of these."""

from __future__ import annotations


class Misused(Exception):
    """What was asked for makes no sense. The message says what, where and what to do."""


class Unusable(Exception):
    """A file or another input can't be used. The message says what, where and what to do."""


class NotApplied(Exception):
    """A change was not made. The message says why and what to do."""
