"""Who logs in to a registry: read where docker and podman keep it, never from a command line.

Files in the order of containers-auth.json(5): REGISTRY_AUTH_FILE, then podman's
`$XDG_RUNTIME_DIR/containers/auth.json`, then docker's `$DOCKER_CONFIG/config.json` or
`~/.docker/config.json`. Credential helpers are asked as docker's credential-helper protocol says.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.errors import NiftyError, shown
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIMIT = 1 << 20
_HELPER_SECONDS = 60
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
# docker.io has kept the name of an older interface
_DOCKER = "https://index.docker.io/v1/"


class LoginError(NiftyError):
    """A login that is there and cannot be read; no secret is in its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user and a password, or a *token* that is exchanged for one that lasts shorter."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The header Authorization of RFC 7617."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


def find(host: str, name: str, environment: Mapping[str, str] | None = None) -> Login | None:
    """Who logs in to repository *name* at *host*; None: nobody is named, so nobody is sent.

    Raises LoginError for a file or a helper that is named and does not answer.
    """
    environment = os.environ if environment is None else environment
    for path in _paths(environment):
        config = _read(path, is_named="REGISTRY_AUTH_FILE" in environment)
        for key in _keys(host, name):
            helper = _table(config, "credHelpers").get(key)
            if helper:
                return _asked(str(helper), key, environment)
            entry = _table(config, "auths").get(key)
            if isinstance(entry, dict) and (found := _kept(entry, path, key)):
                return found
        if store := config.get("credsStore"):
            key = _DOCKER if host == "docker.io" else host
            if found := _asked(str(store), key, environment):
                return found
    return None


def _paths(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
        return
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    home = environment.get("HOME", "")
    if folder := environment.get("DOCKER_CONFIG") or (home and f"{home}/.docker"):
        yield Path(folder) / "config.json"


def _keys(host: str, name: str) -> Iterator[str]:
    """What a login for *name* may stand under, the narrowest first (containers-auth.json(5))."""
    parts = name.split("/")
    for count in range(len(parts), 0, -1):
        yield f"{host}/{'/'.join(parts[:count])}"
    yield host
    if host == "docker.io":
        yield _DOCKER
    yield f"https://{host}"
    yield f"https://{host}/v1/"
    yield f"https://{host}/v2/"


def _read(path: Path, *, is_named: bool) -> dict[str, Any]:
    try:
        # the path is the user's own, and dotfiles are links often enough
        content = files.read(path.resolve(), limit=_LIMIT)
        table = json.loads(content)
    except FileNotFoundError:
        if is_named:
            raise LoginError(f"{path}: REGISTRY_AUTH_FILE names it, it is not there") from None
        return {}
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "not JSON"
        raise LoginError(f"{path}: logins to registries: {why}") from None
    if not isinstance(table, dict):
        raise LoginError(f"{path}: logins to registries: not an object of JSON")
    return table


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _kept(entry: Mapping[str, Any], path: Path, key: str) -> Login | None:
    """The login in one entry; None for an empty one, as docker leaves it beside a credsStore."""
    if token := entry.get("identitytoken"):
        return Login(token=str(token))
    if not entry.get("auth"):
        return None
    try:
        user, colon, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise LoginError(f"{path}: auths: {shown(key)}: auth is not base64 of USER:PASSWORD")
    return Login(user=user, password=password.rstrip("\0"))


def _asked(helper: str, key: str, environment: Mapping[str, str]) -> Login | None:
    if not _HELPER.fullmatch(helper):
        raise LoginError(f"{shown(helper)!r} is no name of a credential helper")
    program = f"docker-credential-{helper}"
    done = run(
        [program, "get"],
        env=environment,
        stdin=key.encode(),
        timeout=_HELPER_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        if "credentials not found" in done.stdout:
            return None
        told = shown(" ".join(f"{done.stdout} {done.stderr}".split()), most=200)
        raise LoginError(f"{program} gives no login for {key}: {told}")
    try:
        table = json.loads(done.stdout)
        user, secret = str(table["Username"]), str(table["Secret"])
    except (ValueError, KeyError, TypeError):
        raise LoginError(f"{program} does not answer as a credential helper does") from None
    return Login(token=secret) if user == "<token>" else Login(user=user, password=secret)
