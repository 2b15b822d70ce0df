"""The curation page on this machine alone: its files, the tiles as they are in the store, and a place for decisions.

Whoever reaches the port needs the token in the address. A page of another site that a browser on this machine has
open reaches the port too: it is refused by the name it calls the server (DNS rebinding) and by its own origin.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from hepipe.dataset.decisions import COLUMNS, Decision, checked, read_decisions, write_decisions
from hepipe.errors import ConfigError, StoreError
from hepipe.report.curation_page import FULL_QUALITY, CurationSet, check_reader, jpeg, side_by_side

HOST = "127.0.0.1"
THREADS = 8
WAITING = 64
"""Connections that wait for a thread; one more is closed at once."""
TIMEOUT_S = 15.0
MAX_BODY = 2_000_000
MAX_ENTRIES = 20_000
SHEET = re.compile(r"(sheets|pictures-[0-9]{1,4})/([0-9a-f]{16,32}\.jpg)")
TILE = re.compile(r"tile/([0-9a-f]{32})\.jpg")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: Of the answer.
        reason: For the page's status line.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class CurationServer:
    """Serves one page to one reader and writes what is decided.

    Attributes:
        url: Where it is; holds the token.
        file: `decisions-<reader>.csv` in the page's folder.
        decisions: By content id.
    """

    def __init__(self, found: CurationSet, page: Path, *, reader: str, port: int = 0) -> None:
        """Take the port and the file of decisions.

        Args:
            found: What the page shows.
            page: Its folder.
            reader: Whose decisions are taken.
            port: Of 127.0.0.1; 0: any that is free.

        Raises:
            ConfigError: The port is taken, another server writes this reader's file, or the file cannot be read.
        """
        check_reader(reader)
        self.found = found
        self.page = page
        self.reader = reader
        self.file = page / f"decisions-{reader}.csv"
        self.numbers = {pair.content_id: number for number, pair in enumerate(found.pairs)}
        self.token = secrets.token_urlsafe(24)
        self._writing = threading.Lock()
        self._alone = _only_writer(page / f".decisions-{reader}.lock", reader)
        try:
            # What a person has decided is never written over: a file that cannot be read stops here.
            self.decisions = dict(read_decisions(self.file).decisions) if self.file.exists() else {}
            self._http = _Http((HOST, port), self)
        except OSError as error:
            os.close(self._alone)
            raise ConfigError(f"curate: port {port}: {error.strerror}; give another --port, or 0 for any") from None
        except BaseException:
            os.close(self._alone)
            raise
        self.port = int(self._http.server_address[1])
        self.url = f"http://{HOST}:{self.port}/{self.token}/"

    def __enter__(self) -> CurationServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.server_close()
        os.close(self._alone)

    def run(self) -> None:
        """Answer until Ctrl+C, or until `stop` is called from another thread."""
        with contextlib.suppress(KeyboardInterrupt):
            self._http.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """End `run`."""
        self._http.shutdown()

    def get(self, path: str) -> tuple[str, bytes, bool]:
        """Type and content of what lies at a path below the token, and whether it never changes.

        Raises:
            Refused: There is no such thing.
        """
        if path == "":
            return "text/html; charset=utf-8", self._file("index.html"), False
        if path == "decisions.json":
            with self._writing:
                rows = list(self.decisions.values())
            told = {"decisions": [{name: getattr(row, name) for name in COLUMNS} for row in rows]}
            return "application/json", json.dumps(told).encode(), False
        if found := SHEET.fullmatch(path):
            return "image/jpeg", self._file(found[0]), True
        if (found := TILE.fullmatch(path)) and found[1] in self.numbers:
            try:
                he, ihc = self.found.read(self.numbers[found[1]])
            except StoreError:
                raise Refused(HTTPStatus.NOT_FOUND, "the store cannot give this pair") from None
            return "image/jpeg", jpeg(side_by_side(he, ihc, he.shape[0]), FULL_QUALITY), True
        raise Refused(HTTPStatus.NOT_FOUND, "nothing here")

    def _file(self, name: str) -> bytes:
        """A file of the page, by a name that a pattern has let through; a link that leads elsewhere is none."""
        path = self.page / name
        try:
            if not path.resolve().is_relative_to(self.page.resolve()):
                raise Refused(HTTPStatus.NOT_FOUND, "nothing here")
            return path.read_bytes()
        except OSError:
            raise Refused(HTTPStatus.NOT_FOUND, "nothing here") from None

    def take(self, body: bytes) -> int:
        """Take decisions and write the whole file; returns how many there are now.

        Raises:
            Refused: The body is no list of decisions on pairs of this page, or the disk fails.
        """
        try:
            entries = json.loads(body)["decisions"]
            assert isinstance(entries, list)
            changes = [self._change(entry) for entry in entries[: MAX_ENTRIES + 1]]
        except ConfigError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
        except (AssertionError, KeyError, TypeError, ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "no list of decisions") from None
        if len(changes) > MAX_ENTRIES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_ENTRIES} decisions at once")
        with self._writing:
            after = dict(self.decisions)
            for key, decision in changes:
                if decision is None:
                    after.pop(key, None)
                else:
                    after[key] = decision
            rows = self._ordered(after)
            try:
                write_decisions(self.file, rows)
            except OSError as error:
                raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, f"not written: {error.strerror}") from None
            self.decisions = {row.content_id: row for row in rows}
            return len(rows)

    def _change(self, entry: Mapping[str, Any]) -> tuple[str, Decision | None]:
        """A pair and what is decided of it now; None: it is open again. Reader and tile id are the server's to say."""
        key = str(entry["content_id"])
        if key not in self.numbers:
            raise ConfigError("a pair that is not on this page")
        if entry["decision"] == "":
            return key, None
        row = {name: str(entry.get(name, "")) for name in COLUMNS}
        row["tile_id"] = str(self.found.pairs[self.numbers[key]].tile["tile_id"])
        return key, replace(checked({**row, "reader": ""}), reader=self.reader)

    def _ordered(self, decisions: Mapping[str, Decision]) -> list[Decision]:
        """As the pairs are on the page; those on pairs that are not come last, as they were."""
        end = len(self.numbers)
        return sorted(decisions.values(), key=lambda one: self.numbers.get(one.content_id, end))


def _only_writer(path: Path, reader: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ConfigError(
            f"curate: another server takes the decisions of {reader} already; end it, or give another --reader"
        ) from None
    return lock


class _Http(HTTPServer):
    """An HTTP server with a bounded number of threads."""

    request_queue_size = WAITING
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], curation: CurationServer) -> None:
        self.curation = curation
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="curate")
        self._places = threading.BoundedSemaphore(THREADS + WAITING)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Without HTTPServer's look-up of the machine's name, which can take seconds and is never used.
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._pool.submit(self._work, request, client_address)

    def _work(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # The browser has gone, or said nothing for too long.
        finally:
            self.shutdown_request(request)
            self._places.release()

    def server_close(self) -> None:
        super().server_close()
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Handler(BaseHTTPRequestHandler):
    """One request; every answer closes its connection."""

    server: _Http
    server_version = "hepipe"
    sys_version = ""
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        """A file of the page, a tile, or the decisions so far."""
        with self._answering():
            path = self._below_token()
            if "Origin" in self.headers and self.headers["Origin"] not in self._origins():
                raise Refused(HTTPStatus.FORBIDDEN, "another origin")
            kind, content, for_ever = self.server.curation.get(path)
            cache = "private, max-age=86400, immutable" if for_ever else "no-store"
            self._send(HTTPStatus.OK, kind, content, {"Cache-Control": cache})

    def do_POST(self) -> None:
        """Decisions."""
        with self._answering():
            if self._below_token() != "decisions":
                raise Refused(HTTPStatus.NOT_FOUND, "nothing here")
            if self.headers.get("Origin") not in self._origins():
                raise Refused(HTTPStatus.FORBIDDEN, "another origin, or none")
            if self.headers.get("X-Hepipe") != "curation" or self.headers.get_content_type() != "application/json":
                raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "JSON from the curation page expected")
            length = self.headers.get("Content-Length", "")
            if not re.fullmatch("[0-9]{1,9}", length):
                raise Refused(HTTPStatus.LENGTH_REQUIRED, "a body of known length expected")
            if int(length) > MAX_BODY:
                raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY} bytes")
            saved = self.server.curation.take(self.rfile.read(int(length)))
            self._send(HTTPStatus.OK, "application/json", json.dumps({"saved": saved}).encode())

    def _below_token(self) -> str:
        """The path below the token.

        Raises:
            Refused: The server is called by another name, or the token is wrong.
        """
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in self._names():
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "another name than this server's")
        parts = self.path.split("?", 1)[0].split("/", 2)
        given = parts[1] if len(parts) == 3 and not parts[0] else ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.server.curation.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "open the address that `hepipe curate` has printed")
        return parts[2]

    def _names(self) -> tuple[str, str]:
        return f"{HOST}:{self.server.server_port}", f"localhost:{self.server.server_port}"

    def _origins(self) -> tuple[str, ...]:
        return tuple(f"http://{name}" for name in self._names())

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            self._send(error.status, "application/json", json.dumps({"error": error.reason}).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Cache-Control": "no-store", **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the address holds the token."""
