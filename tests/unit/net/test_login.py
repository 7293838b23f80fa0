"""Logins: found where docker and podman keep them, and no secret in any message."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.net import login
from pipeline.net.login import Login, LoginError

if TYPE_CHECKING:
    from pathlib import Path

HELPER = """#!/bin/sh
read -r host
case "$host" in
h) echo '{"ServerURL":"h","Username":"u","Secret":"s3cret"}' ;;
token) echo '{"Username":"<token>","Secret":"s3cret"}' ;;
odd) echo '[]' ;;
none) echo 'credentials not found in native keychain'; exit 1 ;;
*) echo 'locked'; exit 1 ;;
esac
"""


def _auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def _home(tmp_path: Path, table: Any) -> dict[str, str]:
    folder = tmp_path / "home/.docker"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(table))
    tools = tmp_path / "bin"
    tools.mkdir()
    helper = tools / "docker-credential-made"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    return {"HOME": str(tmp_path / "home"), "PATH": f"{tools}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("host", "name", "expected"),
    [
        ("h", "n", Login(user="u", password="p:q")),
        ("other", "n", None),
        ("h:5000", "a/b/c", Login(user="narrow", password="p")),
        ("h:5000", "a", Login(user="wide", password="p")),
        ("docker.io", "x/y", Login(user="hub", password="p")),
        ("old", "n", Login(user="old", password="p")),
        ("long", "n", Login(token="s3cret")),
    ],
)
def test_the_narrowest_login_is_taken(
    tmp_path: Path, host: str, name: str, expected: Login | None
) -> None:
    auths = {
        "h": _auth("u:p:q"),
        "h:5000": _auth("wide:p"),
        "h:5000/a/b": _auth("narrow:p"),
        "https://index.docker.io/v1/": _auth("hub:p"),
        "https://old/v1/": _auth("old:p"),
        "long": {"identitytoken": "s3cret"},
    }
    assert login.find(host, name, _home(tmp_path, {"auths": auths})) == expected


def test_files_are_read_in_order(tmp_path: Path) -> None:
    environment = _home(tmp_path, {"auths": {"h": _auth("docker:p")}})
    found = login.find("h", "n", environment)
    assert found is not None
    assert found.user == "docker"
    (tmp_path / "run/containers").mkdir(parents=True)
    environment["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    assert login.find("h", "n", environment) == found
    podman = tmp_path / "run/containers/auth.json"
    podman.write_text(json.dumps({"auths": {"h": _auth("podman:p")}}))
    assert login.find("h", "n", environment) == Login(user="podman", password="p")
    named = tmp_path / "named.json"
    named.write_text(json.dumps({"auths": {"h": _auth("named:p")}}))
    environment["REGISTRY_AUTH_FILE"] = str(named)
    assert login.find("h", "n", environment) == Login(user="named", password="p")
    environment["REGISTRY_AUTH_FILE"] = str(tmp_path / "gone.json")
    with pytest.raises(LoginError, match="REGISTRY_AUTH_FILE names it"):
        login.find("h", "n", environment)


@pytest.mark.parametrize("keyword", ["credHelpers", "credsStore"])
@pytest.mark.parametrize(
    ("host", "expected"),
    [("h", Login(user="u", password="s3cret")), ("token", Login(token="s3cret")), ("none", None)],
)
def test_a_helper_is_asked(tmp_path: Path, keyword: str, host: str, expected: Login | None) -> None:
    named = {host: "made"} if keyword == "credHelpers" else "made"
    environment = _home(tmp_path, {keyword: named, "auths": {host: {}}})
    assert login.find(host, "n", environment) == expected


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"credsStore": "made"}, "docker-credential-made gives no login for strange: locked"),
        ({"credHelpers": {"strange": "../made"}}, "no name of a credential helper"),
        ({"auths": {"strange": {"auth": "?"}}}, "not base64 of USER:PASSWORD"),
        ({"auths": {"strange": _auth("s3cret")}}, "not base64 of USER:PASSWORD"),
        ([], "not an object"),
    ],
)
def test_what_cannot_be_read_is_told_without_secrets(tmp_path: Path, table: Any, told: str) -> None:
    with pytest.raises(LoginError, match=told) as caught:
        login.find("strange", "n", _home(tmp_path, table))
    assert "s3cret" not in str(caught.value)


def test_a_helper_that_answers_oddly_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoginError, match="does not answer as"):
        login.find("odd", "n", _home(tmp_path, {"credsStore": "made"}))


def test_a_secret_is_in_no_representation() -> None:
    assert "s3cret" not in repr(Login(user="u", password="s3cret", token="s3cret"))


def test_without_any_file_nobody_logs_in(tmp_path: Path) -> None:
    assert login.find("h", "n", {"HOME": str(tmp_path)}) is None
    assert login.find("h", "n", {}) is None
