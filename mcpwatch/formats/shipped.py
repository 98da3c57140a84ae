"""The mappings that come with mcpwatch, one file for each product, read when the first record needs them."""

from __future__ import annotations

from functools import cache
from typing import Final

from mcpwatch import data
from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.mappingfile import FormatError, load_mapping
from mcpwatch.text import safe

_SUFFIX: Final = ".yaml"


@cache
def shipped_names() -> tuple[str, ...]:
    """The names of the shipped formats, in the order in which they are tried. No file is read."""
    return tuple(sorted(path.stem for path in data.shipped("formats").glob("*" + _SUFFIX)))


@cache
def shipped_mapping(name: str) -> Mapping:
    """A shipped mapping. Raises FormatError where the installation is broken."""
    path = data.shipped("formats") / (name + _SUFFIX)
    mapping = load_mapping(path)
    if mapping.name != name:
        raise FormatError(safe(f"{path}: is called '{mapping.name}', and must be called as the file is", 400))
    return mapping


@cache
def shipped_mappings() -> tuple[Mapping, ...]:
    """All of them. Raises FormatError where the installation is broken."""
    return tuple(map(shipped_mapping, shipped_names()))
