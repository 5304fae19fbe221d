"""Runs without a network: what is set and refused, and how a refusal is explained.

A process is offline where ``HF_HUB_OFFLINE`` is set, by ``--offline`` or by the user. Child processes inherit it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from functools import cache
from typing import Any

from harness.core.errors import DataMissing, UserError, causes

VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""What libraries read when they are imported."""
WHY = "nothing may be fetched: --offline was given, or HF_HUB_OFFLINE is set"
FIX = "where there is a network: python -m harness fetch --download, with the same --profile, --generator, --suite and --set"
_TRUE = ("1", "ON", "YES", "TRUE")
_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_ABSENT = ("OfflineModeIsEnabled", "LocalEntryNotFoundError")
"""Errors of huggingface_hub for a model that is not in its cache."""
_state = {"hooked": False}


class NetworkRefused(UserError, ConnectionError):
    """Report a connection that was refused because the process is offline.

    It is a ``ConnectionError`` too: a library that can do without the network goes on as if there were none.
    """


def offline() -> bool:
    """Return whether this process may use no network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def refuse_network() -> None:
    """Refuse any network to this process and those it starts; connections within this machine go on working.

    Libraries are told by their environment variables, which they read when they are imported: call it before. What does not
    read them is stopped at its socket, for the rest of the process. Not stopped are sockets that libraries open outside Python, and
    other programs that it starts.
    """
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True
    if not _state["hooked"]:
        _state["hooked"] = True
        sys.addaudithook(_guard)


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith("socket.") or not offline():
        return
    if event in _LOOKUPS and _address(arguments[0]) is None and not _is_this_machine(arguments[0]):
        raise _refused(f"looking up {_text(arguments[0])}")
    if event in _CONNECTIONS:
        handle, address = arguments[:2]
        if handle.family in (socket.AF_INET, socket.AF_INET6) and address and not _is_this_machine(address[0]):
            raise _refused(f"a connection to {_text(address[0])}, port {address[1]}")


def _refused(what: str) -> NetworkRefused:
    return NetworkRefused(f"{what} was refused", WHY, FIX)


def _is_this_machine(host: Any) -> bool:
    """Return whether a name or an address is one of this machine's."""
    name = _text(host)
    if name in ("", "localhost", socket.gethostname()):
        return True
    address = _address(name)
    if address is None:
        return name.startswith(f"{socket.gethostname()}.") and name == _own_full_name()
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified or str(mapped) in _own_addresses()


def _address(host: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(_text(host))
    except ValueError:
        return None


def _text(host: Any) -> str:
    if host is None:
        return ""
    return host.decode(errors="replace") if isinstance(host, bytes | bytearray) else str(host)


@cache
def _own_full_name() -> str:
    return socket.getfqdn(socket.gethostname())


@cache
def _own_addresses() -> frozenset[str]:
    """Return the addresses to which this machine's own name leads."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return frozenset()
    return frozenset(str(entry[4][0]).partition("%")[0] for entry in found)


def explained(error: BaseException) -> UserError | None:
    """Return what an error means where a refused network is behind it; None where it is not."""
    if not offline():
        return None
    for each in causes(error):
        if isinstance(each, NetworkRefused):
            return each
        if type(each).__name__ in _ABSENT:
            what = error.what if isinstance(error, UserError) else " ".join(str(error).split())[:300]
            return DataMissing(what, WHY, FIX)
    return None
