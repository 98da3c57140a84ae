"""Does a URL lead to an allowed host? Decided from its text alone.

A URL of the strict form means the same host to every program, so its verdict is plain. Anything else is read the
way browsers, RFC 3986 parsers and careless code would: only if every reading gives the same allowed host is it
allowed. Cloud metadata services and link-local addresses are critical whatever the policy says.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import unquote

from mcpwatch.policy.effort import Effort
from mcpwatch.policy.verdict import Finding, Verdict
from mcpwatch.text import safe

MAX_LENGTH: Final = 16_384
"""Longer values that are not of the strict form are ambiguous at best."""
_MAX_HOST: Final = 4_096
_MAX_NAME: Final = 253
_MAX_LABEL: Final = 63
_MAX_LABELS: Final = 127
_SHOWN: Final = 3
_READINGS: Final = 4
"""How many readings one URL that is not of the strict form counts for, of ASCII."""

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""The four schemes that can be allowed, and the port each means when none is named."""

METADATA_NETWORKS: Final = tuple(
    map(
        ip_network,
        (
            "169.254.0.0/16",  # link-local: AWS, GCP, Azure, Oracle, DigitalOcean, ECS task roles
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure host agent
            "192.0.0.192/32",  # Oracle classic
            "fe80::/10",
            "fd00:ec2::/32",  # AWS: instance metadata, DNS, pod identity
            "fd20:ce::254/128",  # GCP
        ),
    )
)
"""Addresses that hand out a machine's credentials to whoever asks from it."""

METADATA_NAMES: Final = frozenset(
    {
        "instance-data", "instance-data.ec2.internal", "metadata", "metadata.azure.internal", "metadata.goog",
        "metadata.google.internal", "metadata.packet.net", "metadata.platformequinix.com",
        "metadata.tencentyun.com", "rancher-metadata",
    }
)  # fmt: skip
"""Names under which such services answer."""

_EMBEDDED: Final = tuple(
    (IPv6Network(network), shift)
    for network, shift in (
        ("::ffff:0:0/96", 0),  # mapped
        ("::/96", 0),  # compatible
        ("::ffff:0:0:0/96", 0),  # translated
        ("64:ff9b::/96", 0),  # NAT64
        ("64:ff9b:1::/48", 0),  # local NAT64
        ("2002::/16", 80),  # 6to4
    )
)
"""IPv6 forms that carry an IPv4 address, and how far from the right it stands, in bits."""
_TEREDO: Final = IPv6Network("2001::/32")
# Public DNS names that resolve to the address they spell, in decimal, hexadecimal or as IPv6 with dashes.
_SPELLING_ZONE: Final = r"\.(?:[\w-]+\.)*(?:nip\.io|sslip\.io|xip\.io|traefik\.me|lvh\.me)$"
_SPELLED_ADDRESS: Final = re.compile(
    r"(?:^|[.-])(\d{1,3})[.-](\d{1,3})[.-](\d{1,3})[.-](\d{1,3})" + _SPELLING_ZONE
)
_SPELLED_HEX: Final = re.compile(r"(?:^|[.-])([0-9a-f]{8})" + _SPELLING_ZONE)
_SPELLED_V6: Final = re.compile(r"(?:^|\.)([0-9a-f-]{2,39})" + _SPELLING_ZONE)

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_STRICT: Final = re.compile(
    rf"(?:(?P<scheme>https?|wss?)://)?(?P<host>{_LABEL}(?:\.{_LABEL}){{0,126}})\.?(?::(?P<port>\d{{1,5}}))?"
    r"(?:[/?#][\x21-\x5b\x5d-\x7e]*)?",
    re.IGNORECASE | re.ASCII,
)
_NUMERIC_END: Final = re.compile(r"(?:^|\.)(?:\d+|0[xX][0-9a-fA-F]*)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Target:
    """One reading of a URL. `address` is set when the host is one; `port` is the one connected to, if known."""

    scheme: str
    name: str
    address: IPv4Address | IPv6Address | None
    port: int | None
    userinfo: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of `allowed_domains`."""

    text: str
    name: str
    address: IPv4Address | IPv6Address | None
    wildcard: bool
    port: int | None

    def allows(self, target: _Target) -> bool:
        """Whether the target's host and port are what the entry says. A wildcard never allows an address."""
        if self.port is not None:
            if target.port != self.port:
                return False
        elif target.port is not None and target.port not in _usual_ports(target.scheme):
            return False
        if self.address is not None or target.address is not None:
            return not self.wildcard and self.address == target.address
        if self.wildcard:
            return not self.name or (target.name.endswith("." + self.name) and target.name[0] != ".")
        return target.name == self.name


def _usual_ports(scheme: str) -> tuple[int, ...]:
    return (DEFAULT_PORTS[scheme],) if scheme in DEFAULT_PORTS else (80, 443)


@lru_cache(maxsize=256)
def _entries(allowed: tuple[str, ...]) -> tuple[_Entry, ...]:
    return tuple(map(_entry, allowed))


def _entry(text: str) -> _Entry:
    bare = re.sub(r"^(?:https?|wss?)://", "", text.strip().lower())
    host, port = _split_port(re.split(r"[/?#]", bare, maxsplit=1)[0])
    wildcard = host == "*" or host.startswith("*.")
    host = host[2:] if wildcard else host
    address = _address(host.strip("[]"))
    name = host.removesuffix(".")
    return _Entry(safe(text, 80), next(iter(_ascii_names(name)), name), address, wildcard, port)


def _split_port(authority: str) -> tuple[str, int | None]:
    """Host and port. A port that is no number stays with the host, which then matches nothing."""
    host, colon, port = authority.rpartition(":")
    if not colon or (authority.count(":") > 1 and not host.endswith("]")):
        return authority, None
    if not port:
        return host, None
    if port.isascii() and port.isdigit() and len(port) <= 16 and int(port) <= 65_535:
        return host, int(port)
    return authority, None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    bare, percent, zone = text.partition("%")
    # only IPv6 has zones; in anything else what follows the percent sign may be the real host
    if percent and not (":" in bare and re.fullmatch(r"[A-Za-z0-9_.-]+", zone, re.ASCII)):
        return None
    try:
        return ip_address(bare)
    except ValueError:
        return None


def _embedded(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """The address and every IPv4 address that it carries inside."""
    yield address
    if isinstance(address, IPv6Address):
        bits = int(address)
        for network, shift in _EMBEDDED:
            if address in network:
                yield IPv4Address(bits >> shift & 0xFFFFFFFF)
        if address in _TEREDO:
            yield IPv4Address(~bits & 0xFFFFFFFF)
            yield IPv4Address(bits >> 64 & 0xFFFFFFFF)
        if bits >> 32 & 0xFDFFFFFF == 0x5EFE:  # ISATAP interface identifiers
            yield IPv4Address(bits & 0xFFFFFFFF)
        if address in _EMBEDDED[4][0]:  # RFC 6052 with a /48 prefix skips bits 64 to 71
            yield IPv4Address((bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF)


def _is_metadata(target: _Target) -> bool:
    if target.address is not None:
        return any(inner in network for inner in _embedded(target.address) for network in METADATA_NETWORKS)
    if len(target.name) > _MAX_NAME:
        return False
    if target.name in METADATA_NAMES:
        # `metadata` alone may be any word; with a scheme before it, it is a host
        return "." in target.name or bool(target.scheme)
    return any(
        inner in network
        for address in _spelled_addresses(target.name)
        for inner in _embedded(address)
        for network in METADATA_NETWORKS
    )


def _spelled_addresses(name: str) -> Iterator[IPv4Address | IPv6Address]:
    """The addresses that a public DNS name such as 169-254-169-254.nip.io spells."""
    if (match := _SPELLED_ADDRESS.search(name)) and (address := _address(".".join(match.groups()))):
        yield address
    if match := _SPELLED_HEX.search(name):
        yield IPv4Address(int(match[1], 16))
    if (match := _SPELLED_V6.search(name)) and (address := _address(match[1].replace("-", ":"))):
        yield address


def _strict(text: str) -> _Target | None:
    """The target of a URL (or bare host) that no two programs read differently, else None."""
    match = _STRICT.fullmatch(text)
    if match is None or (match["scheme"] is None and match["host"].lower() in DEFAULT_PORTS):
        return None
    host = match["host"].lower()
    address = None
    if _NUMERIC_END.search(host):
        address = _address(host)
        if address is None:
            return None
    elif len(host) > _MAX_NAME or ("xn--" in host and not _is_idna(host)):
        return None
    scheme = (match["scheme"] or "").lower()
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS.get(scheme)
    if port is not None and port > 65_535:
        return None
    return _Target(scheme, host, address, port)


def _is_idna(host: str) -> bool:
    """Whether every `xn--` label of a host spells a name, so that all programs take it."""
    try:
        return all(
            len(label) <= _MAX_LABEL
            and label[4:].encode().decode("punycode").encode("idna").decode().lower() == label
            for label in host.split(".")
            if label.startswith("xn--")
        )
    except (UnicodeError, ValueError, IndexError, OverflowError):
        return False


_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST_PORT: Final = re.compile(r"(?!(?i:https?|wss?):)[^:/?#\\@\s]+:\d{1,5}(?:[/?#\\]|$)")
_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII)
_EDGES: Final = "".join(map(chr, range(0x21)))
_BROKEN: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]")


def _authorities(text: str) -> Iterator[tuple[str, str]]:
    """(scheme, authority) as different programs find them. The authority is "" where one finds none."""
    trimmed = text.strip(_EDGES)
    if _address(trimmed) is not None:
        yield "", f"[{trimmed}]"
        return
    joined = re.sub(r"[\t\r\n]", "", trimmed)
    for source in dict.fromkeys((joined, _BROKEN.split(trimmed, maxsplit=1)[0], trimmed)):
        match = None if _HOST_PORT.match(source) else _SCHEME.match(source)
        scheme = match[1].lower() if match else ""
        rest = source[match.end() :] if match else source
        web = scheme in DEFAULT_PORTS or not match
        # browsers: any number of slashes of either kind
        if web or rest.startswith("//"):
            slashes = len(rest) - len(rest.lstrip("/\\"))
            # without a scheme, one slash begins a path on whatever host the server prefers
            start = slashes if match or slashes != 1 else 0
            yield scheme, re.split(r"[/\\?#]", rest[start:], maxsplit=1)[0]
        # RFC 3986: two slashes or no host at all, and a backslash is a character like others
        if rest.startswith("//"):
            yield scheme, re.split(r"[/?#]", rest[2:], maxsplit=1)[0]
            # old parsers look for the next slash only
            yield scheme, rest[2:].partition("/")[0]
        elif match:
            yield scheme, ""


def _hosts(authority: str) -> Iterator[tuple[str, int | None, bool]]:
    """(host, port, userinfo) of an authority: what follows the last @, or the first."""
    userinfo = "@" in authority
    for part in dict.fromkeys((authority.rpartition("@")[2], authority.partition("@")[2] or authority)):
        # `#` and `?` can only be left here by parsers that look for a slash
        host, port = _split_port(part.partition("@")[0] if userinfo else part)
        yield host, port, userinfo


def _ascii_names(host: str) -> Iterator[str]:
    """The names a resolver may be asked for: as it is, percent-decoded, and in both versions of IDNA."""
    spellings = [host]
    for _ in range(3):
        decoded = unquote(spellings[-1], errors="replace")
        if decoded == spellings[-1]:
            break
        spellings.append(decoded)
    for spelling in spellings:
        if spelling.isascii():
            yield spelling.lower()
            continue
        folded = unicodedata.normalize("NFKC", spelling).lower()
        folded = re.sub("[。．｡]", ".", re.sub("[\u00ad\u200b\u2060\ufeff]", "", folded))
        labels = folded.split(".")
        if len(labels) > _MAX_LABELS + 1:  # no name, and each label takes long to encode
            yield folded
            continue
        yield ".".join(_punycode(label) for label in labels)
        yield ".".join(_idna(label) for label in labels)


def _punycode(label: str) -> str:
    # no label is longer, and Python's codec takes quadratic time
    if label.isascii() or len(label) > _MAX_LABEL:
        return label
    return "xn--" + label.encode("punycode", "replace").decode("ascii", "replace")


def _idna(label: str) -> str:
    try:
        return label.encode("idna").decode("ascii") if label else ""
    except (UnicodeError, ValueError):
        return _punycode(label)


def _numbers(part: str) -> set[int]:
    """What an address part can mean: 010 is 8 to C programs and 10 to others."""
    found = set()
    if re.fullmatch(r"0[x][0-9a-f]*", part):
        found.add(int(part[2:] or "0", 16))
    elif re.fullmatch(r"[0-9]+", part):
        found.add(int(part[:64]))
        if re.fullmatch(r"0[0-7]+", part[:64]):
            found.add(int(part[:64], 8))
    return found


def _ipv4_readings(host: str) -> set[IPv4Address]:
    """Every IPv4 address that a numeric host such as 0x7f.1, 2130706433 or 0177.0.0.1 can mean."""
    parts = host.split(".")
    if not 1 <= len(parts) <= 4:
        return set()
    values = {0}
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        width = 8 * (5 - len(parts)) if last else 8
        # too large a number wraps around in careless parsers
        values = {value << width | n & (1 << width) - 1 for value in values for n in _numbers(part)}
    return {IPv4Address(value) for value in values}


def _overflows(host: str) -> bool:
    """Whether a numeric host has a part too large for its place, so that careful programs refuse it."""
    *parts, last = host.split(".")
    small = all(number < 256 for part in parts for number in _numbers(part))
    return not small or any(number >= 1 << 8 * (4 - len(parts)) for number in _numbers(last))


def _targets(text: str) -> Iterator[_Target | None]:
    """Each reading of a text as a URL or host; None stands for one that finds no host."""
    for scheme, authority in dict.fromkeys(_authorities(text)):
        for host, named_port, userinfo in dict.fromkeys(_hosts(authority)):
            if not host or len(host) > _MAX_HOST:
                yield None
                continue
            port = named_port if named_port is not None else DEFAULT_PORTS.get(scheme)
            if host.startswith("["):
                address = _address(unquote(host[1:].partition("]")[0])) if host.endswith("]") else None
                yield _Target(scheme, host, address, port, userinfo) if address else None
                continue
            if ":" in host and (address := _address(host)) is not None:
                yield _Target(scheme, host, address, port, userinfo)
                yield None
                continue
            for name in dict.fromkeys(_ascii_names(host)):
                bare = name.removesuffix(".")
                if not _NAME.fullmatch(bare):
                    # folding or decoding made a separator appear: the host ends there, or there is none
                    bare = re.split(r"[/\\?#:]", bare.rpartition("@")[2], maxsplit=1)[0]
                    yield None
                if "xn--" in bare and not _is_idna(bare):
                    yield None
                if _NUMERIC_END.search(bare):
                    addresses = _ipv4_readings(bare)
                    for numeric in sorted(addresses):
                        yield _Target(scheme, bare, numeric, port, userinfo)
                    if not addresses or _overflows(bare):
                        yield None
                else:
                    yield _Target(scheme, bare, None, port, userinfo)


def _foreign_scheme(text: str) -> bool:
    text = re.sub(r"[\t\r\n]", "", text.strip(_EDGES))
    if _address(text) is not None:
        return False
    match = None if _HOST_PORT.match(text) else _SCHEME.match(text)
    return match is not None and match[1].lower() not in DEFAULT_PORTS


_UNRESTRICTED: Final = Finding("domain", Verdict.NOT_APPLICABLE, "", "not restricted")
_METADATA_REASON: Final = "cloud metadata or link-local address"


def _readings(value: str) -> int:
    """How many readings a URL counts for: to encode a label that is not ASCII takes as long as many."""
    return _READINGS if value.isascii() else _READINGS + min(len(value), MAX_LENGTH) // 2


def judge_url(value: object, allowed: tuple[str, ...] | None, effort: Effort | None = None) -> Finding:
    """Judge one URL, or bare host with or without a port, against the allowed domains. Never raises.

    Args:
        value: The parameter as logged. Anything but text is not evaluable.
        allowed: Exact hosts, `*.example.com`, `host:port`; None means the tool isn't restricted, an empty tuple
            that no host is allowed. Without a port only the scheme's usual one is allowed.
        effort: What is left for the values of the call, if it has so many that they share it.

    Returns:
        The finding. It is a critical violation for cloud metadata and link-local addresses, in any spelling and
        whatever is allowed, also for a tool that isn't restricted.
    """
    if not isinstance(value, str):
        if allowed is None:
            return _UNRESTRICTED
        return Finding("domain", Verdict.NOT_EVALUABLE, "", "not text")
    target = _strict(value)
    if target is not None:
        targets: list[_Target | None] = [target]
    elif effort is not None and not effort.read(min(len(value), MAX_LENGTH), _readings(value)):
        return Finding(
            "domain", Verdict.AMBIGUOUS, value, "one of too many in one call to be read in every way"
        )
    else:
        targets = list(_targets(value[:MAX_LENGTH]))
    if any(t is not None and _is_metadata(t) for t in targets):
        return Finding("domain", Verdict.VIOLATION, value, _METADATA_REASON, critical=True)
    if allowed is None:
        return _UNRESTRICTED
    verdict, reason = _judge(value, target, targets, allowed)
    return Finding("domain", verdict, value, reason)


def _judge(
    value: str, strict: _Target | None, targets: list[_Target | None], allowed: tuple[str, ...]
) -> tuple[Verdict, str]:
    if not value.strip(_EDGES):
        return Verdict.NOT_EVALUABLE, "empty"
    if not allowed:
        return Verdict.VIOLATION, "no domain is allowed"
    if strict is not None and (sure := _allowing(strict, allowed)) is not None:
        return Verdict.ALLOWED, f"allowed by {sure}"
    shown = ", ".join(safe(text, 80) for text in allowed[:_SHOWN])
    shown += f" and {len(allowed) - _SHOWN} more" if len(allowed) > _SHOWN else ""
    if strict is None and _foreign_scheme(value[:MAX_LENGTH]):
        return Verdict.VIOLATION, "scheme other than http, https, ws and wss"
    if not any(targets):
        # a bare path names no host on purpose; a URL whose host nobody can read is not to be trusted
        given = "://" in value or "[" in value
        return (Verdict.VIOLATION, "no readable host") if given else (Verdict.NOT_EVALUABLE, "names no host")
    by = {target: _allowing(target, allowed) for target in targets}
    if not any(by.values()):
        return Verdict.VIOLATION, f"outside {shown}"
    entry = next(filter(None, by.values()))
    if any(target is not None and target.userinfo for target in targets):
        return Verdict.AMBIGUOUS, f"allowed by {entry} in one reading; holds user information before a host"
    if not all(by.values()):
        return Verdict.AMBIGUOUS, f"allowed by {entry} in one reading, another host or none in others"
    if len({target.address or target.name for target in targets if target is not None}) > 1:
        return Verdict.AMBIGUOUS, "different hosts in different readings"
    if len(value) > MAX_LENGTH:
        return Verdict.AMBIGUOUS, f"allowed by {entry}; too long to read in every way"
    return Verdict.ALLOWED, f"allowed by {entry} in every reading, though oddly spelled"


def _allowing(target: _Target | None, allowed: tuple[str, ...]) -> str | None:
    if target is None:
        return None
    return next((entry.text for entry in _entries(allowed) if entry.allows(target)), None)
