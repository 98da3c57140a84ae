"""The configuration file: each key is the name of a long option; `[keys]` is the console's key map."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from mcpwatch.cli.exits import ConfigError
from mcpwatch.text import safe

MAX_BYTES: Final = 256 * 1024
PREFIX: Final = "MCPWATCH_"
KEYS: Final = "keys"
"""The table of the console's keys."""


def folder() -> Path:
    """The user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "mcpwatch"


def path() -> Path:
    """Where the configuration file is looked for."""
    return folder() / "config.toml"


def setting(param: click.Parameter) -> str | None:
    """The key that sets an option, None for one that only the command line can set."""
    named = isinstance(param.envvar, str) and param.envvar.startswith(PREFIX)
    return param.envvar.removeprefix(PREFIX).lower().replace("_", "-") if named else None  # type: ignore[union-attr]


def load(known: frozenset[str]) -> dict[str, Any]:
    """The configuration file by the names of options; empty where there is none.

    Raises:
        ConfigError: It can't be read, has a key that is not `known`, or a value of a wrong kind.
    """
    place = path()
    try:
        if not place.is_file():
            if place.exists():
                raise ConfigError(f"{safe(place)}: is no regular file")
            return {}
        with place.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{safe(place)}: over {MAX_BYTES // 1024} KiB: not a configuration file")
        values = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{safe(place)}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{safe(place)}: is no TOML: {error}") from None
    named = {name.replace("_", "-"): value for name, value in values.items()}
    for name, value in named.items():
        if name not in known and name != KEYS:
            near = difflib.get_close_matches(name, sorted(known | {KEYS}), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}, [{KEYS}]"
            raise ConfigError(f"{safe(place)}: unknown key {safe(name, 60)!r}: {hint}")
        if name == KEYS and not _is_key_map(value):
            raise ConfigError(f'{safe(place)}: [{KEYS}] is a table of action = "key"')
        if name != KEYS and isinstance(value, dict | list):
            raise ConfigError(f"{safe(place)}: {name} must be one value, not a table or a list")
        if isinstance(value, int) and value.bit_length() > 64:
            raise ConfigError(f"{safe(place)}: {name} is a number beyond 64 bits")
    return named


def _is_key_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value.values())


def defaults(command: click.Command, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the file sets of a command's options, as click's default map."""
    if isinstance(command, click.Group):
        return {name: defaults(each, values) for name, each in command.commands.items()}
    named = ((param.name, setting(param)) for param in command.params)
    found = {name: values[key] for name, key in named if key is not None and key in values}
    # options read text; a bare number or date in the file is the same text
    return {str(name): value if isinstance(value, bool) else str(value) for name, value in found.items()}
