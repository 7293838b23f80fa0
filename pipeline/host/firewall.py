"""Opens the instances' ports, and no others, in this host's firewall: firewalld or nftables.

With nftables a packet has to pass every base chain of its hook: an accept in our table ends our
chain only and overrides nobody's drop (nft(8), VERDICT STATEMENTS). So where another chain drops by
default, the rule must stand in that chain, which is its owner's; `blocking` finds such chains and
`snippet` is the rule for them. firewalld has one table, and adding a service to a zone is enough.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import distribution, files
from pipeline.errors import NiftyError
from pipeline.host.binds.rules import check_plain
from pipeline.host.units import systemd, unit_files
from pipeline.host.units.unit_files import MARK, UnitFile
from pipeline.run import CLEAN_ENVIRONMENT, ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.host.state.layout import Layout
    from pipeline.run import Completed

TABLE = "nifty"
UNIT = "nifty-firewall.service"
SERVICE_FILE = Path("/etc/firewalld/services/nifty.xml")


class FirewallError(NiftyError):
    """A firewall that is not there, or refuses."""


class Kind(StrEnum):
    """Which firewall this host has."""

    NFT = "nft"
    FIREWALLD = "firewalld"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A base chain at the input hook whose policy is to drop."""

    family: str
    table: str
    name: str


def kind() -> Kind:
    """The one this host uses: firewalld if it runs, else nft."""
    if shutil.which("firewall-cmd", path=CLEAN_ENVIRONMENT["PATH"]) is not None:
        told = run(["firewall-cmd", "--state"], check=False)
        if told.returncode == 0:
            return Kind.FIREWALLD
    return Kind.NFT


def spans(ports: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """*ports* as first and last of each run without gaps: a thousand instances are one."""
    found: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if found and port == found[-1][1] + 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return tuple(found)


def elements(ports: Iterable[int]) -> str:
    """*ports* as the elements of an nftables set: `2100, 2201-3200`."""
    return ", ".join(_span(first, last) for first, last in spans(ports))


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def ruleset(ports: Iterable[int]) -> str:
    """What `nft -f` reads; loading it again, or another one like it, replaces the table whole."""
    return _RULESET.format(table=TABLE, elements=elements(ports))


def service(ports: Iterable[int]) -> str:
    """A service of firewalld (firewalld.service(5))."""
    lines = "".join(
        f'  <port protocol="tcp" port="{_span(first, last)}"/>\n' for first, last in spans(ports)
    )
    return _SERVICE.format(ports=lines)


def snippet(chain: Chain, ports: Iterable[int]) -> str:
    """The command that opens *ports* in somebody's own chain."""
    place = f"{chain.family} {chain.table} {chain.name}"
    return f"nft insert rule {place} tcp dport '{{ {elements(ports)} }}' accept"


def blocking() -> tuple[Chain, ...]:
    """Other tables' input chains that drop what they do not accept: ours alone opens nothing then.

    By their policy, or by a rule that drops or rejects whatever reaches it.
    """
    told = json.loads(_nft("--json", "list", "ruleset").stdout or "{}")
    items: list[dict[str, Any]] = told.get("nftables", [])
    final = {_chain(item["rule"]) for item in items if "rule" in item and _is_final(item["rule"])}
    return tuple(
        Chain(family=chain["family"], table=chain["table"], name=chain["name"])
        for chain in (item["chain"] for item in items if "chain" in item)
        if chain.get("hook") == "input"
        and (chain["family"], chain["table"]) != ("inet", TABLE)
        and (chain.get("policy") == "drop" or (*_chain(chain)[:2], chain["name"]) in final)
    )


def _chain(rule: dict[str, Any]) -> tuple[str, str, str]:
    return rule["family"], rule["table"], rule.get("chain", "")


def _is_final(rule: dict[str, Any]) -> bool:
    verdicts = [key for part in rule.get("expr", ()) for key in part if key != "counter"]
    return verdicts in (["drop"], ["reject"])


def apply_nft(ports: Iterable[int], layout: Layout) -> str:
    """Load the ruleset, now and after every boot; how that is done, in a sentence.

    Raises FirewallError, or UnitFilesError for a unit of that name that is not ours.
    """
    wanted = tuple(ports)
    if not systemd.is_booted():
        _nft("--file", "-", stdin=ruleset(wanted))
        return "until the next boot: systemd, which would load it again, does not run here"
    path = layout.state / "firewall.nft"
    unit = UnitFile(name=UNIT, text=f"{MARK}{layout.prefix}\n{_unit_text(path)}")
    todo = unit_files.changes((unit,))
    _nft("--check", "--file", "-", stdin=ruleset(wanted))
    _put(path, ruleset(wanted))
    unit_files.write(todo)
    systemd.reload()
    systemd.enable((UNIT,))
    systemd.restart((UNIT,))
    return f"{UNIT} loads {path} at every boot"


def undo_nft(layout: Layout) -> bool:
    """Remove the table and what loads it; whether there was anything. Raises UnitFilesError."""
    there = _nft("list", "table", "inet", TABLE, check=False).returncode == 0
    ours = unit_files.owned((UNIT,), layout.prefix)
    if ours:
        systemd.stop(ours)
        systemd.disable(ours)
        (unit_files.DIRECTORY / UNIT).unlink()
        systemd.reload()
    (layout.state / "firewall.nft").unlink(missing_ok=True)
    _nft("--file", "-", stdin=f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
    return there or bool(ours)


def apply_firewalld(ports: Iterable[int]) -> str:
    """Define the service and add it to the default zone, now and for good; how, in a sentence."""
    if SERVICE_FILE.exists() and _SIGN not in SERVICE_FILE.read_text("utf-8", errors="replace"):
        raise FirewallError(f"{SERVICE_FILE}: not written by nifty: left as it is")
    _put(SERVICE_FILE, service(ports))
    _firewalld("--reload")
    _firewalld("--permanent", "--add-service=nifty")
    _firewalld("--reload")
    return f"{SERVICE_FILE}, a service of the default zone"


def undo_firewalld() -> bool:
    """Take the service away; whether it was there."""
    if not SERVICE_FILE.exists() or _SIGN not in SERVICE_FILE.read_text("utf-8", errors="replace"):
        return False
    _firewalld("--permanent", "--remove-service=nifty")
    SERVICE_FILE.unlink()
    _firewalld("--reload")
    return True


def _put(path: Path, text: str) -> None:
    try:
        files.put(path, text.encode())
    except OSError as error:
        raise FirewallError(f"{path}: {error.strerror}") from error


def _nft(*words: str, stdin: str = "", check: bool = True) -> Completed:
    if shutil.which("nft", path=CLEAN_ENVIRONMENT["PATH"]) is None:
        hint = distribution.install_here(("nft",))
        raise FirewallError("nft: not on this host", hint=hint)
    try:
        return run(["nft", *words], stdin=stdin.encode(), check=check)
    except ProgramError as error:
        raise FirewallError(error.message, hint="nftables needs root, and CAP_NET_ADMIN") from error


def _firewalld(*words: str) -> None:
    try:
        run(["firewall-cmd", "--quiet", *words])
    except ProgramError as error:
        raise FirewallError(error.message, hint="firewall-cmd --state") from error


def _unit_text(path: Path) -> str:
    check_plain(str(path))
    nft = shutil.which("nft", path=CLEAN_ENVIRONMENT["PATH"])
    return _UNIT.format(nft=nft, path=path, table=TABLE)


_RULESET = """\
# the ports of this host's nifty instances; written by nifty
add table inet {table}
delete table inet {table}
table inet {table} {{
    set ports {{
        type inet_service
        flags interval
        elements = {{ {elements} }}
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        tcp dport @ports counter accept
    }}
}}
"""

_SIGN = "written by nifty"

_SERVICE = """\
<?xml version="1.0" encoding="utf-8"?>
<!-- written by nifty -->
<service>
  <short>nifty</short>
  <description>SSH of this host's nifty instances</description>
{ports}</service>
"""

_UNIT = """\
[Unit]
Description=Ports of the nifty instances in nftables
# nftables.service flushes every table when it starts: load ours after it, and again with it.
After=nftables.service
PartOf=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} --file {path}
ExecStop=-{nft} delete table inet {table}

[Install]
WantedBy=multi-user.target
"""
