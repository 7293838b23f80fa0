"""Instances for tests that need no root on disk."""

from __future__ import annotations

from pipeline.host.state.records import Instance, Share, Users, base_of


def make_instance(
    suffix: str,
    *,
    number: int = 1,
    port: int = 2201,
    image: str = "0" * 64,
    share: Share = Share.CBIN,
    users: Users = Users.PRIVATE,
) -> Instance:
    """The instance nifty<suffix>."""
    return Instance(
        suffix=suffix,
        number=number,
        port=port,
        image=image,
        share=share,
        users=users,
        base=base_of(number, users),
        host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43,
        machine_id="0" * 32,
        login="luser",
    )
