"""`folder-store`: keeps objects as files in one folder.

The host lends one folder, and `/` is it. An object is written beside its place and moved there, so that it is seen whole
or not at all. Its file name has a `~` until then; the host puts none into a key.
"""

from pathlib import Path

# Made of `wit/`, which describes what the host and this component say to each other.
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import storage
from wit_world.exports.metadata import Info
from wit_world.imports.objects import Error, Kind, Object

SETTINGS = """{
  "type": "object",
  "properties": { "folder": { "type": "string", "default": "/", "description": "where in the lent folder" } },
  "additionalProperties": false
}"""


class Metadata(exports.Metadata):
    def describe(self) -> Info:
        return Info(
            name="folder-store",
            version="0.1.0",
            description="keeps objects as files in one folder",
            settings_schema=SETTINGS,
            laws=1,
        )


class Session(storage.Session):
    """An open storage: where its files are."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def open(cls, settings: list[tuple[str, str]]) -> "Session":
        known = {"folder": "/"} | dict(settings)
        if len(known) > 1:
            name = next(name for name in known if name != "folder")
            raise Err(Error(Kind.PERMANENT, f"there is no setting `{name}`; there is only `folder`", None))
        return cls(Path("/", known["folder"]))

    def traits(self) -> storage.Traits:
        return storage.Traits(max_object=32 << 20, put_if_absent=True, ranged_get=True, atomic_put=True)

    def check(self) -> None:
        with failing("write", ""):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "check~").write_bytes(b"")
            (self.folder / "check~").unlink()

    def put(self, key: str, body: bytes, if_absent: bool) -> None:
        path, aside = self.folder / key, self.folder / f"{key}~"
        with failing("put", key):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(body)
                if if_absent:
                    # A link fails if the name is taken, a rename doesn't.
                    path.hardlink_to(aside)
                else:
                    aside.rename(path)
            finally:
                aside.unlink(missing_ok=True)

    def get(self, key: str, offset: int, length: int | None) -> bytes:
        with failing("get", key), open(self.folder / key, "rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def stat(self, key: str) -> Object:
        with failing("stat", key):
            known = (self.folder / key).stat()
        return Object(key=key, size=known.st_size, modified_ms=known.st_mtime_ns // 1_000_000, etag=None)

    def list_keys(self, prefix: str, after: str | None, limit: int) -> list[Object]:
        with failing("list", prefix):
            files = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        keys = [key for key in files if key.startswith(prefix) and not key.endswith("~") and key > (after or "")]
        return [self.stat(key) for key in sorted(keys)[:limit]]

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            with failing("delete", key):
                (self.folder / key).unlink(missing_ok=True)


class failing:
    """Turns an `OSError` into the error that the host knows. The kind decides whether it tries again."""

    KINDS = {FileNotFoundError: Kind.NOT_FOUND, FileExistsError: Kind.EXISTS, PermissionError: Kind.DENIED}

    def __init__(self, what: str, key: str):
        self.what, self.key = what, key

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            found = self.KINDS.get(kind, Kind.PERMANENT)
            raise Err(Error(found, f"cannot {self.what} `{self.key}`: {error.strerror}", None))
