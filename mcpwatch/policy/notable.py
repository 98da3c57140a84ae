"""Files that matter whatever the policy says: those that hold secrets, and those that steer agents and hosts.

A file is known by its place: `.ssh/id_rsa` below any folder, `/etc/shadow` only from the root. Paths are read the
way the most lenient reader would: escapes decoded, look-alikes folded, case ignored, `..` and `//` collapsed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

Kind = Literal["sensitive", "tampering"]

_MAX_PATH: Final = 4_096
_MAX_ROUNDS: Final = 5
_FEW: Final = 8


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one sort.

    Attributes:
        kind: What touching them can be: `sensitive` when read, `tampering` when written.
        what: What they are.
        places: Lower-case patterns, parted by commas. One with a slash in front counts from the root, others from any
            folder. `*` stands for any part of one name; `/**` at the end for the folder and all below it.
        unless: Patterns of those that are harmless.
    """

    kind: Kind
    what: str
    places: str
    unless: str = ""


FILES: Final[tuple[Files, ...]] = (
    Files(
        "sensitive",
        "password hashes",
        "/etc/shadow, /etc/shadow-, /etc/gshadow, /etc/gshadow-, /etc/master.passwd, /etc/security/opasswd,"
        " /windows/system32/config/sam, ntds.dit, .htpasswd",
    ),
    Files("sensitive", "account list", "/etc/passwd, /etc/passwd-"),
    Files(
        "sensitive",
        "SSH keys",
        ".ssh/**, id_rsa, id_rsa.*, id_rsa_*, id_rsa-*, id_dsa, id_dsa.*, id_ecdsa, id_ecdsa.*, id_ecdsa_*,"
        " id_ed25519, id_ed25519.*, id_ed25519_*, id_ed25519-*, /etc/ssh/ssh_host_*_key",
        unless="*.pub, .ssh/known_hosts, .ssh/known_hosts.old",
    ),
    Files(
        "sensitive",
        "private keys",
        "*.pem, *.key, *.p8, *.p12, *.pfx, *.ppk, *.jks, *.keystore, *.kdbx, *.kdb, .gnupg/**",
        unless="cacert.pem, cacerts.pem, ca-bundle.pem, ca-certificates.pem, cert.pem, certs.pem, chain.pem,"
        " fullchain.pem, *.pub.pem, *.pub.key",
    ),
    Files(
        "sensitive",
        "environment file",
        ".env, .env.*, .envrc, /proc/*/environ, /proc/*/task/*/environ",
        unless=".env.example, .env.sample, .env.template, .env.dist, .env.*.example, .env.*.sample, .env.*.template",
    ),
    Files(
        "sensitive",
        "cloud credentials",
        ".aws/**, .kube/config, .docker/config.json, application_default_credentials.json, gcloud/credentials.db,"
        " gcloud/access_tokens.db, .azure/accesstokens.json, .azure/msal_token_cache.json,"
        " /etc/kubernetes/admin.conf, *.tfstate, *.tfstate.*, .terraform.d/credentials.tfrc.json, .boto, .s3cfg",
        unless=".aws/cli/**",
    ),
    Files("sensitive", "mounted secrets", "/run/secrets/**, /var/run/secrets/**, /etc/secrets/**"),
    Files(
        "sensitive",
        "stored credentials",
        ".netrc, _netrc, .pgpass, .my.cnf, .npmrc, .yarnrc.yml, .pypirc, .git-credentials, .config/git/credentials,"
        " .config/gh/hosts.yml, .vault-token, .cargo/credentials, .cargo/credentials.toml, .gem/credentials,"
        " .claude/.credentials.json, .codex/auth.json, .gemini/oauth_creds.json, .mcp-auth/**",
    ),
    Files(
        "sensitive",
        "browser data",
        "login data, login data for account, default/cookies, network/cookies, profile */cookies, cookies.sqlite,"
        " logins.json, key3.db, key4.db, cookies.binarycookies",
    ),
    Files(
        "sensitive",
        "keychain",
        "library/keychains/**, *.keychain, *.keychain-db, .local/share/keyrings/**, .password-store/**",
    ),
    Files("sensitive", "wallet", "wallet.dat, .bitcoin/**, .ethereum/keystore/**, .electrum/wallets/**"),
    Files(
        "sensitive",
        "command history",
        ".bash_history, .zsh_history, .history, .sh_history, .python_history, .psql_history, .mysql_history,"
        " .rediscli_history, .node_repl_history, fish/fish_history, psreadline/consolehost_history.txt",
    ),
    Files(
        "tampering",
        "MCP configuration",
        ".mcp.json, mcp.json, mcp_config.json, mcp_settings.json, cline_mcp_settings.json,"
        " claude_desktop_config.json",
    ),
    Files(
        "tampering",
        "agent configuration",
        ".claude/**, .claude.json, claude.md, claude.local.md, agents.md, agents.override.md, gemini.md, .cursor/**,"
        " .cursorrules, .windsurf/**, .windsurfrules, .codeium/windsurf/**, .continue/**, .gemini/**, .codex/**,"
        " .clinerules, .clinerules/**, .roo/**, .roomodes, .kiro/**, .amazonq/**, .junie/**, .opencode/**,"
        " opencode.json, .aider.conf.yml, .goosehints, .config/goose/**, .github/copilot-instructions.md,"
        " .github/instructions/**, .github/prompts/**, .github/agents/**, .copilot/**",
    ),
    Files(
        "tampering",
        "editor configuration",
        ".vscode/tasks.json, .vscode/settings.json, .vscode/launch.json, .vscode/extensions.json,"
        " code/user/settings.json, code/user/tasks.json, .zed/settings.json, .zed/tasks.json, .config/zed/**",
    ),
    Files(
        "tampering",
        "shell start file",
        ".bashrc, .bash_profile, .bash_login, .bash_logout, .bash_aliases, .profile, .zshrc, .zshenv, .zprofile,"
        " .zlogin, .zlogout, .kshrc, .cshrc, .tcshrc, .login, .envrc, .config/fish/**, /etc/fish/**, /etc/profile,"
        " /etc/profile.d/**, /etc/bash.bashrc, /etc/bashrc, /etc/zshrc, /etc/zshenv, /etc/zsh/**, /etc/environment,"
        " .config/environment.d/**, .pam_environment, .xinitrc, .xprofile, .xsession, .xsessionrc,"
        " microsoft.powershell_profile.ps1, windowspowershell/profile.ps1, powershell/profile.ps1",
    ),
    Files(
        "tampering",
        "scheduled jobs",
        "/etc/crontab, /etc/anacrontab, /etc/cron.allow, /etc/cron.deny, /etc/cron.d/**, /etc/cron.hourly/**,"
        " /etc/cron.daily/**, /etc/cron.weekly/**, /etc/cron.monthly/**, /etc/cron.yearly/**, /var/spool/cron/**,"
        " /var/spool/at/**, /windows/system32/tasks/**",
    ),
    Files(
        "tampering",
        "service definition",
        "/etc/systemd/**, /lib/systemd/**, /usr/lib/systemd/**, /usr/local/lib/systemd/**, /run/systemd/system/**,"
        " .config/systemd/**, .local/share/systemd/**, /etc/init.d/**, /etc/rc.local, library/launchagents/**,"
        " library/launchdaemons/**",
    ),
    Files(
        "tampering",
        "programs started at login",
        ".config/autostart/**, /etc/xdg/autostart/**, start menu/programs/startup/**",
    ),
    Files(
        "tampering",
        "who may log in",
        "authorized_keys, authorized_keys2, .ssh/config, .ssh/rc, .ssh/environment, /etc/ssh/sshd_config,"
        " /etc/ssh/sshd_config.d/**, /etc/sudoers, /etc/sudoers.d/**, /etc/passwd, /etc/shadow, /etc/group,"
        " /etc/gshadow, /etc/pam.d/**, /etc/security/**, /etc/doas.conf, /etc/polkit-1/**",
    ),
    Files("tampering", "library preload", "/etc/ld.so.preload, /etc/ld.so.conf, /etc/ld.so.conf.d/**"),
    Files(
        "tampering",
        "git hooks or configuration",
        ".git/hooks/**, .git/config, .git/info/attributes, .gitconfig, .config/git/config, .config/git/hooks/**,"
        " /etc/gitconfig, .husky/**",
        unless="hooks/*.sample",
    ),
    Files("tampering", "CI workflow", ".github/workflows/**, .github/actions/**, .gitlab-ci.yml"),
)
"""Every sort of file that is known."""

OWN: Final = "a file of this monitor"
"""What the files are that a caller names: the policy, the logs."""

# Where the root of a host is found from inside a container, and what stands before /etc on a Mac.
_ROOT: Final = r"^(?:/proc/[^/]*(?:/task/[^/]*)?/root|/host(?:fs)?|/rootfs|/mnt/[^/]*|/private)?/"
# Only where one can begin, so that taking it out leaves no word that wasn't one before.
_WEB: Final = re.compile(r"(?<![^\s\"'<>`=(,;:|&@\[{])(?:https?|wss?|ftps?)://[^\s\"'<>`]*", re.IGNORECASE)
_FILE_URI: Final = re.compile(r"(?<![a-z0-9])file:(?://[^/\s]*)?(?=/)")
_TOKEN: Final = re.compile(r"[^\s\"'`;|&<>(){}\[\],=:@#?\x00]+")
_QUOTED: Final = re.compile(r"\"([^\"\n]{1,4096})\"|'([^'\n]{1,4096})'")
# Words so frequent in paths that they tell nothing.
_COMMON: Final = frozenset(
    re.findall(r"\w+", "config json settings system32 data local library share user etc usr var run")
)
_NESTED: Final = re.compile(r"%(?:25)+(?=[0-9A-Fa-f]{2})")
_ASCII: Final = {f"%{n:{form}}": chr(n) for n in range(128) for form in ("02x", "02X")}
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_WORDS: Final = bytes(b if chr(b).isalnum() and b < 0x80 else 0x20 for b in range(256)).lower()


_WORDS_OF_LINES: Final = _WORDS[:10] + b"\n" + _WORDS[11:]


def words_of(text: str) -> list[bytes]:
    """The runs of ASCII letters and digits in a text, in lower case."""
    return text.encode("utf-8", "surrogatepass").translate(_WORDS).split()


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    kind: Kind
    what: str
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None


def _regex(place: str) -> str:
    below = place.endswith("/**")
    names = re.escape(place.removesuffix("/**").removeprefix("/")).replace(r"\*", "[^/]*")
    return (_ROOT if place.startswith("/") else "/") + names + ("(?:/|$)" if below else "$")


def _word(place: str) -> bytes:
    """A word that each path of this place holds, as rare a one as there is."""
    whole = re.findall(r"(?<![a-z0-9*])[a-z0-9]+(?![a-z0-9*])", place)
    return str(max(whole, key=lambda word: (word not in _COMMON, len(word)))).encode()


def _by_word() -> dict[bytes, tuple[_Place, ...]]:
    index: dict[bytes, tuple[_Place, ...]] = {}
    for files in FILES:
        unless = re.compile("|".join(map(_regex, files.unless.split(", ")))) if files.unless else None
        for text in files.places.split(", "):
            place = _Place(files.kind, files.what, re.compile(_regex(text)), unless)
            word = _word(text)
            index[word] = (*index.get(word, ()), place)
    return index


_PLACES: Final = _by_word()
WORDS: Final = frozenset(_PLACES)
"""A path that is `found` holds one of these words, once it is `plain`."""


def _decoded(escapes: re.Match[str]) -> str:
    run = escapes[0]
    return _ASCII.get(run) or bytes.fromhex(run.replace("%", "")).decode("utf-8", "replace")


def plain(text: str) -> str:
    """The text with percent escapes decoded, look-alike characters folded, slashes forward and case ignored."""
    return (_plain if len(text) <= _MAX_PATH else _plain_of_long)(text)


def _plain(text: str) -> str:
    for _ in range(_MAX_ROUNDS):
        if "%" not in text:
            break
        before = text
        if "%25" in text:
            text = _NESTED.sub("%", text)
        text = _ESCAPES.sub(_decoded, text)
        if text == before:
            break
    if not text.isascii():
        # each character by itself: to normalise a whole text takes quadratic time for many marks on one letter
        odd = {char: unicodedata.normalize("NFKC", char) for char in set(text) if char > "\x7f"}
        changed: dict[str, str] = {char: folded for char, folded in odd.items() if folded != char}
        if len(changed) <= _FEW:
            for char, folded in changed.items():
                text = text.replace(char, folded)
        else:
            text = text.translate({ord(char): folded for char, folded in changed.items()})
    return text.replace("\\", "/").casefold()


# A text as long as a line is asked for several times while its call is judged; two of them are all that is kept.
_plain_of_long: Final = lru_cache(maxsize=2)(_plain)


def paths_in(text: str, *, bare: bool) -> Iterator[str]:
    """What could be a path in a text, once `plain`: all of it, each quoted part, and each word of a command.

    Addresses of web pages are none.

    Args:
        text: As it was logged.
        bare: Take words without a slash as well, as a command's arguments are.
    """
    text = _FILE_URI.sub(" ", plain(_WEB.sub(" ", text)))
    if len(text) <= _MAX_PATH and "\n" not in text:
        yield text.partition("\0")[0]
    for quoted in _QUOTED.finditer(text):
        yield quoted[1] or quoted[2]
    for token in _TOKEN.findall(text):
        if "/" in token:
            # an option and its value, as in -o/etc/crontab
            yield token[token.index("/") :] if token[0] == "-" else token
        elif bare:
            yield token


def _collapsed(path: str) -> str:
    """The path from "/" on, or from "./" on where its start isn't known."""
    path = path.strip()
    if path[1:2] == ":":
        path = path[2:]
    start = "/" if path.startswith("/") else "./"
    parts: list[str] = []
    for part in path.split("/"):
        name = part.rstrip(" .")
        if name:
            parts.append(name)
        elif part.rstrip(" ") == "..":
            if parts:
                parts.pop()
            else:
                start = "/"  # climbs to who knows where: the root at worst
    return start + "/".join(parts)


def telling(paths: Collection[str], own: Own) -> list[str]:
    """Those of the paths that `found` may find something in: nearly none of those in a long text."""
    if not paths or own.words is None:
        return list(paths)
    words = WORDS | own.words
    # one pass over all of them, as each by itself would cost several times as much
    text = "\n".join(path.replace("\n", " ") for path in paths)
    lines = text.encode("utf-8", "surrogatepass").translate(_WORDS_OF_LINES).split(b"\n")
    return [path for path, line in zip(paths, lines, strict=True) if not words.isdisjoint(line.split())]


@dataclass(frozen=True, slots=True)
class Own:
    """Files that the caller names, to be found as well.

    Attributes:
        paths: Where they are, as `found` compares them.
        words: Each of their paths holds one of these; None when one holds no word at all.
    """

    paths: tuple[str, ...] = ()
    words: frozenset[bytes] | None = frozenset()


@lru_cache(maxsize=64)
def own_files(paths: tuple[str, ...]) -> Own:
    """Files or folders of the caller's own. Full paths, as from a bare name nobody can tell where it leads."""
    places = tuple(_collapsed(plain(path)) for path in paths)
    words = [words_of(place.rpartition("/")[2]) for place in places]
    return Own(places, frozenset(max(some, key=len) for some in words) if all(words) else None)


def _is_own(path: str, own: Own) -> bool:
    for mine in own.paths:
        if path == mine or path.startswith(mine + "/"):
            return True
        # where one of the two has no known start, the other's end decides, by two names at least
        shorter, longer = (path, mine) if path.startswith(".") else (mine, path)
        if shorter.startswith(".") and shorter.count("/") > 1 and longer.endswith(shorter[1:]):
            return True
    return False


def found(path: str, own: Own) -> Iterator[tuple[Kind, str]]:
    """What a path from `paths_in` leads to, as (kind, what); nothing for nearly all paths. Never raises."""
    places = [place for word in dict.fromkeys(words_of(path)) for place in _PLACES.get(word, ())]
    if not places and not own.paths:
        return
    full = _collapsed(path)
    for place in places:
        if place.pattern.search(full) and not (place.unless and place.unless.search(full)):
            yield place.kind, place.what
    if own.paths and _is_own(full, own):
        yield "tampering", OWN
