"""`doit shell`: in the built image, as a user without rights, and nothing of it stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.run import Completed
    from tests.support.checkouts import Checkout

    Shell = Callable[[str], Completed]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="runs x86_64 programs"),
]
pytest_plugins = ["tests.support.checkouts"]


@pytest.fixture
def shell(checkout: Checkout, as_stranger: tuple[str, ...]) -> Shell:
    """Runs a command in the image, as a stranger to whom nothing here belongs."""

    def call(command: str) -> Completed:
        image = checkout.artifacts / "nifty-x86_64.tar.zst"
        env = {**os.environ, "NIFTY_SECRET": "1"}
        argv = [*as_stranger, *checkout.argv("shell", f"image={image}", f"command={command}")]
        return run(argv, cwd=checkout.root, env=env, check=False)

    return call


def test_stranger_is_root_inside(shell: Shell) -> None:
    assert shell("id -u; hostname; readlink /bin").stdout == "0\nnifty\ncbin\n"


def test_only_its_own_processes_are_there(shell: Shell) -> None:
    assert shell("cd /proc; echo [0-9]*").stdout == "1\n"


def test_hosts_files_are_not(shell: Shell) -> None:
    assert shell("umask; ls -a /").stdout.split()[1:] == [
        *(".", "..", "bin", "cbin", "dev", "etc", "home", "lib", "proc", "root", "run", "sbin"),
        *("sys", "tmp", "usr", "var"),
    ]


def test_environment_is_not(shell: Shell) -> None:
    assert "NIFTY_SECRET" not in shell("env").stdout


def test_what_is_written_is_gone(checkout: Checkout, shell: Shell) -> None:
    image = checkout.artifacts / "nifty-x86_64.tar.zst"
    before = image.read_bytes()
    shell("rm -r /cbin/vi /etc/passwd")
    told = shell("ls /etc/passwd /cbin/vi").stdout
    assert (image.read_bytes() == before, told) == (True, "/cbin/vi\n/etc/passwd\n")


def test_exit_code_is_the_commands(shell: Shell) -> None:
    assert shell("exit 7").returncode == 7


def test_host_without_user_namespaces_says_so(checkout: Checkout) -> None:
    image = checkout.artifacts / "nifty-x86_64.tar.zst"
    # a user namespace in which no further one may be made
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "--", "sh", "-c", limit, "sh"]
    if run([*argv, "true"], check=False).returncode != 0:
        pytest.skip("that limit cannot be written here, as in a container")
    done = run(
        [*argv, *checkout.argv("shell", f"image={image}", "command=true")],
        cwd=checkout.root,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 1
    assert "this host gives no user namespace" in done.stderr
    assert "max_user_namespaces" in done.stderr
