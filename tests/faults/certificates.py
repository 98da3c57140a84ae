"""Certificates for the tests of TLS: by the commands that the documentation shows, and bad ones."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parents[2] / "docs/sources.md"
_EC: Final = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


def documented_commands() -> str:
    """What docs/sources.md says to run to make certificates."""
    blocks = re.findall(r"```sh\n(.*?)```", SOURCES.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "openssl req -x509" in block]
    return str(found)


def make_certificates(folder: Path) -> None:
    """`ca`, `watch`, `mcp-1` as documented; `foreign` of another authority, `expired`, and one for servers only."""
    folder.mkdir(exist_ok=True)
    more = f"""
openssl req -x509 {_EC} -days 30 -subj /CN=other -keyout other-ca.key -out other-ca.pem
openssl req {_EC} -subj /O=Example/CN=mcp-1 -keyout foreign.key -out foreign.csr
openssl x509 -req -in foreign.csr -CA other-ca.pem -CAkey other-ca.key -CAcreateserial -days 30 -out foreign.pem
openssl req {_EC} -subj /O=Example/CN=mcp-1 -keyout expired.key -out expired.csr
openssl x509 -req -in expired.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -out expired.pem
"""
    script = "set -e\n" + documented_commands() + more
    subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True, timeout=60)
