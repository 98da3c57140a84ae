"""When two addresses are the same one, however they are written."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

_LONGEST: Final = 256
# Longer texts are no addresses, and are not worth remembering.


def canonical(text: str) -> str:
    """An address in one spelling; an IPv4 one that is written as IPv6 is the IPv4 one. Other text stays as it is."""
    return _canonical(text) if len(text) <= _LONGEST else text


@lru_cache(maxsize=8_192)
def _canonical(text: str) -> str:
    try:
        address = ip_address(text.strip().strip("[]"))
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def same_address(one: str | None, other: str | None) -> bool:
    """Whether both are the same address, or both are none."""
    if one is None or other is None:
        return one is other
    return canonical(one) == canonical(other)
