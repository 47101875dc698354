"""`web-shelf`: keeps objects on a small HTTP server, over a connection of its own.

The configuration grants the server by name and port, and the host lets the component connect there and nowhere else. What
the server understands stands in `server.py`.
"""

# Python loads it when it first looks up a name, and here nothing can be loaded later.
import encodings.idna  # noqa: F401
import http.client
from urllib.parse import urlencode

# Made of `wit/`, which describes what the host and this component say to each other.
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import storage
from wit_world.exports.metadata import Info
from wit_world.imports.objects import Error, Kind, Object

OBJECT_BYTES_MAX = 32 << 20

SETTINGS = """{
  "type": "object",
  "properties": { "server": { "type": "string", "description": "where the server is, as host:port" } },
  "required": ["server"],
  "additionalProperties": false
}"""

KINDS = {401: Kind.DENIED, 403: Kind.DENIED, 404: Kind.NOT_FOUND, 412: Kind.EXISTS, 501: Kind.UNSUPPORTED}


class Metadata(exports.Metadata):
    def describe(self) -> Info:
        return Info(
            name="web-shelf",
            version="0.1.0",
            description="keeps objects on a small HTTP server",
            settings_schema=SETTINGS,
            laws=1,
        )


class Session(storage.Session):
    """An open storage: a connection, which is made when it is needed."""

    def __init__(self, server: str):
        self.connection = http.client.HTTPConnection(server)

    @classmethod
    def open(cls, settings: list[tuple[str, str]]) -> "Session":
        known = dict(settings)
        for name in known:
            if name != "server":
                raise Err(Error(Kind.PERMANENT, f"there is no setting `{name}`; there is only `server`", None))
        if "server" not in known:
            raise Err(Error(Kind.PERMANENT, "`server` is not set", None))
        return cls(known["server"])

    def ask(self, what: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple:
        """Sends a request; gives the status, the headers and the body of its answer."""
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            self.connection.request(method, path, body, named)
            answer = self.connection.getresponse()
            status, headers, content = answer.status, answer.headers, answer.read(OBJECT_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            # It may work later, on another connection: the host tries again.
            self.connection.close()
            raise Err(Error(Kind.TEMPORARY, f"cannot {what}: {error or type(error).__name__}", None))
        if status >= 400 and status != 416:
            # Unless it is known to be of no use, the host tries again: as late as the server wants.
            after = headers["Retry-After"]
            after = int(after) * 1000 if after and after.isdigit() else None
            kind = KINDS.get(status, Kind.TEMPORARY if status >= 500 else Kind.PERMANENT)
            raise Err(Error(kind, f"cannot {what}: the server answers {status}", after))
        return status, headers, content

    def traits(self) -> storage.Traits:
        return storage.Traits(max_object=OBJECT_BYTES_MAX, put_if_absent=True, ranged_get=True, atomic_put=True)

    def check(self) -> None:
        self.ask("put `check`", "PUT", "/check", b"")
        self.ask("delete `check`", "DELETE", "/check")

    def put(self, key: str, body: bytes, if_absent: bool) -> None:
        headers = {"If_None_Match": "*"} if if_absent else {}
        self.ask(f"put `{key}`", "PUT", f"/{key}", body, **headers)

    def get(self, key: str, offset: int, length: int | None) -> bytes:
        headers = {}
        if length == 0:
            # No range is of nothing; that the object is there has to be known all the same.
            self.stat(key)
            return b""
        if offset > 0 or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        status, _, body = self.ask(f"get `{key}`", "GET", f"/{key}", **headers)
        # Of a part behind the end nothing is there.
        return b"" if status == 416 else body

    def stat(self, key: str) -> Object:
        _, headers, _ = self.ask(f"stat `{key}`", "HEAD", f"/{key}")
        return Object(key, int(headers["Content-Length"]), int(headers["X-Modified"]), None)

    def list_keys(self, prefix: str, after: str | None, limit: int) -> list[Object]:
        query = urlencode({"prefix": prefix, "after": after or "", "limit": limit})
        _, _, body = self.ask(f"list `{prefix}`", "GET", f"/?{query}")
        objects = []
        for line in body.decode().splitlines():
            size, modified, key = line.split(" ")
            objects.append(Object(key, int(size), int(modified), None))
        return objects

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self.ask(f"delete `{key}`", "DELETE", f"/{key}")
