"""The server of `web-shelf`: keeps objects in memory, and speaks HTTP. Start it with `python3 server.py 127.0.0.1:9131`.

| request | |
|---|---|
| `PUT /KEY` | keeps the body; with `If-None-Match: *` only if there is no such object, else 412 |
| `GET /KEY` | the object, or with `Range: bytes=A-B` a part of it |
| `HEAD /KEY` | whether there is such an object, its size, and when it came |
| `DELETE /KEY` | removes it |
| `GET /?prefix=P&after=A&limit=N` | a line of `SIZE MILLISECONDS KEY` for each object, in the order of their keys |
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

OBJECT_BYTES_MAX = 32 << 20

lock = threading.Lock()
objects: dict[str, tuple[bytes, int]] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # What is written goes out at once: small answers wait for nothing.
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        if length > OBJECT_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        with lock:
            if self.headers["If-None-Match"] == "*" and self.path[1:] in objects:
                return self.answer(412)
            objects[self.path[1:]] = (body, time.time_ns() // 1_000_000)
        self.answer(201)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            prefix, after = asked.get("prefix", ""), asked.get("after", "")
            with lock:
                keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
                keys = keys[: int(asked["limit"])]
                lines = [f"{len(objects[key][0])} {objects[key][1]} {key}\n" for key in keys]
            return self.answer(200, "".join(lines).encode())
        found = objects.get(url.path[1:])
        if found is None:
            return self.answer(404)
        body, modified = found
        asked = self.headers["Range"]
        if asked is None:
            return self.answer(200, body, modified)
        begin, _, end = asked.removeprefix("bytes=").partition("-")
        part = body[int(begin) : int(end) + 1 if end else None]
        self.answer(206 if part else 416, part, modified)

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        with lock:
            objects.pop(self.path[1:], None)
        self.answer(204)

    def answer(self, status: int, body: bytes = b"", modified: int | None = None) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        if modified is not None:
            self.send_header("X-Modified", str(modified))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9131"
    host, _, port = address.rpartition(":")
    with ThreadingHTTPServer((host, int(port)), Handler) as server:
        print(f"shelf at {host}:{server.server_port}", flush=True)
        server.serve_forever()


main()
