"""What an image is made of, as frozen models: components, accounts, files, drop-ins."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from pipeline.builder.recipes.component import Location, Source
from pipeline.builder.recipes.fields import (
    AbsolutePath,
    Id,
    InitLine,
    Licence,
    Mode,
    Model,
    Name,
    PackageName,
    PasswdPath,
    PasswordHash,
    PublicKey,
    RelativePath,
    TimeZone,
    Version,
    Word,
)
from pipeline.image.manifest import AccountName
from pipeline.paths import PLAIN


class Group(Model):
    """A line of /etc/group."""

    name: AccountName
    gid: Id
    members: tuple[AccountName, ...] = ()


class Account(Model):
    """A line of /etc/passwd and /etc/shadow, the home directory, its authorised keys.

    `password` is a $6$ hash, `*` (keys only) or `!` (locked, even for keys: see Dropbear).
    """

    name: AccountName
    uid: Id
    gid: Id
    gecos: Annotated[str, StringConstraints(pattern=r"^[^:\n]*$")] = ""
    home: PasswdPath
    shell: PasswdPath = "/bin/sh"
    password: PasswordHash = "*"  # noqa: S105 (no password, keys only)
    authorized_keys: tuple[PublicKey, ...] = ()


class ExtraFile(Model):
    """A file of the image: its content stands here or in a file beside the recipe."""

    path: RelativePath
    content: str | None = None
    file: RelativePath | None = None
    mode: Mode = 0o644
    uid: Id = 0
    gid: Id = 0

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if (self.content is None) == (self.file is None):
            raise ValueError("needs exactly one of 'content' and 'file'")
        return self


class Package(Model):
    """A Debian binary package whose files a drop-in may take instead of the build host's."""

    name: PackageName
    version: Version
    licence: Licence
    source: Source
    location: Annotated[tuple[Location, ...], Field(min_length=1)]


class Dropin(Model):
    """A program taken as it is, with what it needs to run.

    *source* is a path of the build host or, with *packages*, of the tree that these make together.
    `bind`: an instance gets libraries and *files* from the host it runs on; `copy`: the image has
    them. *files* are data, files or whole directories, at the same path for the program.
    """

    source: AbsolutePath
    target: RelativePath
    libraries: Literal["bind", "copy"]
    files: tuple[AbsolutePath, ...] = ()
    packages: tuple[PackageName, ...] = ()

    @model_validator(mode="after")
    def _files_apart(self) -> Self:
        for path in self.files:
            inner = [other for other in self.files if other.startswith(f"{path}/")]
            if inner:
                raise ValueError(f"files: {inner[0]} is in {path} already")
            # what no unit can name no host will bind
            if self.libraries == "bind" and not PLAIN.fullmatch(path):
                raise ValueError(
                    f"files: {path!r} cannot be bound: only letters, digits and ._+- in its names"
                )
        return self


class Image(Model):
    """What an image is made of.

    `console` puts a getty on the console, where it has a terminal; `timezone` is a name of
    zoneinfo(5), which the host's files resolve.
    """

    name: Name
    title: Annotated[str, StringConstraints(pattern=r"^[^\"\n\\$`]+$")]
    version: Version
    released: date
    components: Annotated[tuple[Name, ...], Field(min_length=1)]
    hostname: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 2200
    ssh: Annotated[tuple[Word, ...], Field(min_length=1)]
    inittab: tuple[InitLine, ...] = ()
    console: bool = False
    timezone: TimeZone | None = None
    group: tuple[Group, ...]
    account: tuple[Account, ...]
    file: tuple[ExtraFile, ...] = ()
    package: tuple[Package, ...] = ()
    dropin: tuple[Dropin, ...] = ()

    @property
    def epoch(self) -> int:
        """The time stamp of everything in the archive: the release day's midnight, UTC."""
        return int(datetime.combine(self.released, time(), UTC).timestamp())
