"""Themes: YAML files of colours, and the styles of the console's roles that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import yaml
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

from mcpwatch.text import SafeText, safe

MAX_BYTES: Final = 65_536
REQUIRED: Final = (
    "name", "dark", "primary", "secondary", "accent", "foreground", "background", "surface", "panel",
    "success", "warning", "error",
)  # fmt: skip
"""Fields that a theme file must have: Textual's own."""
DERIVED: Final[Mapping[str, str]] = {
    "tier-high": "error", "tier-medium": "warning", "tier-low": "success",
    "severity-critical": "error", "severity-high": "warning", "severity-medium": "accent",
    "severity-low": "secondary",
}  # fmt: skip
"""Fields that a theme file may have, and the field whose colour they take where it does not."""
_OPTIONAL: Final = ("ansi", "variables")
_TEXT_STYLES: Final = ("none", "bold", "dim", "italic", "reverse", "underline")

ROLES: Final = (
    "text", "dim", "bold", "brand", "frame", "frame-active", "title", "title-active", "head", "key",
    "trend", "ok", "warn", "error", "add", "remove", "hunk", "link", "chip", "selected", "selected-idle",
    "tier-high", "tier-medium", "tier-low",
    "severity-critical", "severity-high", "severity-medium", "severity-low",
    "chip-critical", "chip-high", "chip-medium", "chip-low",
)  # fmt: skip


class ThemeError(Exception):
    """A theme file can't be used. The message says which, what and where."""


def load_theme(path: Path) -> Theme:
    """Read one theme file.

    Raises:
        ThemeError: It is unreadable, no YAML, or a field is missing, unknown or no colour.
    """
    name = safe(path.name, 60)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ThemeError(f"theme {name}: larger than 64 KiB")
        data = yaml.safe_load(text)
    except OSError as error:
        raise ThemeError(f"theme {name}: can't be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 1}" if mark is not None else ""
        raise ThemeError(f"theme {name}: is no YAML{at}") from None
    if not isinstance(data, dict):
        raise ThemeError(f"theme {name}: must be a mapping with name, dark and colours")
    return _theme(name, data)


def _theme(file: str, data: Mapping[object, object]) -> Theme:
    for field in REQUIRED:
        if field not in data:
            raise ThemeError(f"theme {file}: {field} is missing")
    for key in data:
        if key not in REQUIRED and key not in DERIVED and key not in _OPTIONAL:
            raise ThemeError(f"theme {file}: {safe(key, 40)!r} is no field of a theme")
    title, dark, ansi = data["name"], data["dark"], data.get("ansi", False)
    if not isinstance(title, str) or not title.replace("-", "").isalnum() or not title.isascii():
        raise ThemeError(f"theme {file}: name must be letters, digits and hyphens")
    if not isinstance(dark, bool) or not isinstance(ansi, bool):
        raise ThemeError(f"theme {file}: dark and ansi must be true or false")
    extra = data.get("variables", {})
    if not isinstance(extra, dict):
        raise ThemeError(f"theme {file}: variables must be a mapping of names to colours")
    colours: dict[str, str] = {}
    for key in (*REQUIRED[2:], *DERIVED):
        value = data.get(key, data[DERIVED[key]] if key in DERIVED else None)
        colours[key] = _colour(file, key, value)
    variables = {key: colours.pop(key) for key in DERIVED}
    for key, value in extra.items():
        variables[str(key)] = value if value in _TEXT_STYLES else _colour(file, str(key), value)
    return Theme(
        name=title,
        dark=dark,
        ansi=ansi,
        variables=variables,
        primary=colours["primary"],
        secondary=colours["secondary"],
        accent=colours["accent"],
        foreground=colours["foreground"],
        background=colours["background"],
        surface=colours["surface"],
        panel=colours["panel"],
        success=colours["success"],
        warning=colours["warning"],
        error=colours["error"],
    )


def _colour(file: str, field: str, value: object) -> str:
    if isinstance(value, str):
        try:
            Color.parse(value)
        except ColorParseError:
            pass
        else:
            return value
    raise ThemeError(f"theme {file}: {field}: {safe(value, 40)!r} is no colour: write '#rrggbb'")


def load_themes(folders: Iterable[Path]) -> tuple[dict[str, Theme], list[SafeText]]:
    """Read every theme of these folders, later ones over earlier ones of the same name.

    Returns:
        (themes by name, what is wrong with those that were skipped).
    """
    themes: dict[str, Theme] = {}
    problems: list[SafeText] = []
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
            try:
                theme = load_theme(path)
            except ThemeError as error:
                problems.append(safe(f"{error} (skipped)"))
            else:
                themes[theme.name] = theme
    return themes, problems


def build_styles(theme: Theme, *, plain: bool = False) -> dict[str, Style]:
    """The style of every role under a theme.

    Args:
        plain: No colours are shown (`NO_COLOR`), so that what is selected or a chip must stand out without.
    """
    ansi = theme.ansi or plain
    fore = Color.parse(theme.foreground or "white")
    back = Color.parse(theme.background or "black")
    base = Style(color=fore.rich_color, bgcolor=back.rich_color)

    def ink(colour: str | Color | None, *, bold: bool | None = None, reverse: bool | None = None) -> Style:
        parsed = fore if colour is None else colour if isinstance(colour, Color) else Color.parse(colour)
        return base + Style(color=parsed.rich_color, bold=bold, reverse=reverse)

    muted = base + Style(dim=True) if ansi else ink(back.blend(fore, 0.62))
    faint = base + Style(dim=True) if ansi else ink(back.blend(fore, 0.26))

    def fill(colour: str | None) -> Style:
        # reverse instead of a background: what stands out still does in 16 colours and in none
        if ansi:
            return Style(reverse=True)
        return Style(bgcolor=Color.parse(colour or "black").rich_color)

    styles = {
        "text": base, "dim": muted, "bold": ink(None, bold=True), "brand": ink(theme.primary, bold=True),
        "frame": faint, "frame-active": ink(theme.primary), "title": ink(None, bold=True),
        "title-active": ink(theme.primary, bold=True), "head": muted, "key": ink(theme.accent, bold=True),
        "ok": ink(theme.success), "warn": ink(theme.warning), "error": ink(theme.error, bold=True),
        "add": ink(theme.success), "remove": ink(theme.error), "hunk": ink(theme.secondary),
        "link": ink(theme.secondary), "chip": ink(theme.primary, bold=True, reverse=True),
        "trend": ink(theme.secondary if ansi else back.blend(Color.parse(theme.secondary or "white"), 0.6)),
        "selected": fill(theme.panel), "selected-idle": Style() if ansi else fill(theme.surface),
    }  # fmt: skip
    for field, colour in theme.variables.items():
        if field in DERIVED:
            styles[field] = ink(colour, bold=field in ("severity-critical", "severity-high"))
            if field.startswith("severity-"):
                loud = not field.endswith("-low")
                styles[field.replace("severity", "chip")] = ink(colour, bold=loud, reverse=loud)
    return styles
