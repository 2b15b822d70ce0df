"""The server of the curation page: what it gives, what it writes, and whom it refuses."""

import contextlib
import http.client
import io
import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from curation_sets import write_set
from PIL import Image

from hepipe.dataset.decisions import Decision, read_decisions, write_decisions
from hepipe.errors import ConfigError
from hepipe.report import curation_server as module
from hepipe.report.curation_page import read_set, write_page
from hepipe.report.curation_server import CurationServer


class Client:
    """Asks a running server, as the page does unless told otherwise."""

    def __init__(self, server):
        self.server = server
        self.base = f"/{server.token}/"
        self.origin = f"http://127.0.0.1:{server.port}"

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        found = {"Host": f"127.0.0.1:{self.server.port}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if body is not None:
            found.setdefault("Content-Length", str(len(body)))
        for name, value in found.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    def get(self, path, **headers):
        return self.ask("GET", self.base + path, **headers)

    def post(self, body, path="decisions", **headers):
        usual = {"Origin": self.origin, "X_Hepipe": "curation", "Content_Type": "application/json"}
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", self.base + path, text, **{**usual, **headers})

    def decide(self, number, decision, reason=""):
        key = self.server.found.pairs[number].content_id
        return self.post({"decisions": [{"content_id": key, "decision": decision, "reason": reason, "time": ""}]})


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = write_set(tmp_path_factory.mktemp("template") / "set", cases=("a",), n_tiles=6)
    write_page(read_set(folder), folder / "curation", reader="ann", thumb_px=8, view_px=16)
    return folder


@pytest.fixture
def folder(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "set"))


@contextlib.contextmanager
def served(folder):
    with CurationServer(read_set(folder), folder / "curation", reader="ann") as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        yield Client(server)
        server.stop()
        thread.join()


@pytest.fixture
def running(folder):
    with served(folder) as client:
        yield client


@pytest.fixture(scope="module")
def shared(template, tmp_path_factory):
    """For tests that are refused, or only read."""
    with served(Path(shutil.copytree(template, tmp_path_factory.mktemp("shared") / "set"))) as client:
        client.decide(0, "keep")
        yield client


def test_it_gives_the_page_its_sheets_and_the_tiles_of_the_store(shared):
    answer, page = shared.get("")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"Curation" in page
    sheet = next((shared.server.page / "sheets").iterdir()).name
    assert shared.get(f"sheets/{sheet}")[1].startswith(b"\xff\xd8")
    key = shared.server.found.pairs[3].content_id
    picture = np.asarray(Image.open(io.BytesIO(shared.get(f"tile/{key}.jpg")[1])))
    assert picture.shape == (16, 32, 3)
    np.testing.assert_allclose(picture[8, [8, 24]], [[13] * 3, (197, 150, 90)], atol=4)
    assert shared.get(f"pictures-16/{key}.jpg")[0].status == 200


def test_decisions_are_in_the_file_when_the_answer_comes(running):
    assert json.loads(running.decide(4, "drop", "pen")[1]) == {"saved": 1}
    running.decide(1, "keep")
    file = running.server.page / "decisions-ann.csv"
    rows = list(read_decisions(file).decisions.values())
    assert [(row.tile_id, row.decision, row.reason, row.reader) for row in rows] == [
        ("a/1-0", "keep", "", "ann"),
        ("a/4-0", "drop", "pen", "ann"),
    ]
    assert json.loads(running.get("decisions.json")[1])["decisions"][1]["reason"] == "pen"
    running.decide(4, "")
    assert [row.tile_id for row in read_decisions(file).decisions.values()] == ["a/1-0"]


def test_a_server_goes_on_from_the_file_and_keeps_decisions_on_tiles_that_are_gone(folder):
    file = folder / "curation" / "decisions-ann.csv"
    found = read_set(folder)
    gone = Decision("0" * 32, "z/1", "drop", "pen", "ann", "")
    write_decisions(file, [gone, Decision(found.pairs[2].content_id, "a/2-0", "keep", "", "ann", "")])
    with CurationServer(found, folder / "curation", reader="ann") as server:
        server.take(json.dumps({"decisions": [{"content_id": found.pairs[0].content_id, "decision": "drop"}]}).encode())
    rows = list(read_decisions(file).decisions.values())
    assert [row.tile_id for row in rows] == ["a/0-0", "a/2-0", "z/1"]
    assert rows[2] == gone


def test_a_file_that_cannot_be_read_is_never_written_over(folder):
    file = folder / "curation" / "decisions-ann.csv"
    file.write_text("content_id,tile_id,decision,reason\nabc,t,drop,\n")
    with pytest.raises(ConfigError, match="line 2, column content_id"):
        CurationServer(read_set(folder), folder / "curation", reader="ann")
    assert file.read_text().endswith("abc,t,drop,\n")


def test_two_servers_never_write_the_same_file(folder, running):
    with pytest.raises(ConfigError, match="another server takes the decisions of ann"):
        CurationServer(read_set(folder), folder / "curation", reader="ann")
    with CurationServer(read_set(folder), folder / "curation", reader="bob") as other:
        assert other.file.name == "decisions-bob.csv"
    with pytest.raises(ConfigError, match=f"port {running.server.port}: .* give another --port"):
        CurationServer(read_set(folder), folder / "curation", reader="cid", port=running.server.port)
    with pytest.raises(ConfigError, match="at most 32 letters"):
        CurationServer(read_set(folder), folder / "curation", reader="../../ann")


def test_it_listens_on_loopback_alone(shared):
    assert shared.server._http.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "//", "/wrong/", "/wrong/decisions.json", "", "*", "/%2e%2e/"])
def test_without_the_token_nothing_is_given(shared, path):
    answer, content = shared.ask("GET", path or "/index.html")
    assert answer.status == 403
    assert b"Curation" not in content
    assert shared.server.token.encode() not in content


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", "", None]
)
def test_a_page_of_another_site_that_rebinds_its_name_is_refused(shared, host):
    named = None if host is None else host.format(port=shared.server.port)
    assert shared.get("", Host=named)[0].status == 421
    assert shared.post({"decisions": []}, Host=named)[0].status == 421
    assert shared.get("", Host=f"localhost:{shared.server.port}")[0].status == 200


def test_another_origin_may_neither_read_nor_write(shared):
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{shared.server.port}", "http://127.0.0.1:1"):
        assert shared.get("decisions.json", Origin=origin)[0].status == 403
        assert shared.post({"decisions": []}, Origin=origin)[0].status == 403
    assert shared.post({"decisions": []}, Origin=None)[0].status == 403
    assert shared.get("", Origin=shared.origin)[0].status == 200
    assert "Access-Control-Allow-Origin" not in shared.get("", Origin=shared.origin)[0].headers


def test_a_form_of_another_page_cannot_post(shared):
    assert shared.post({"decisions": []}, Content_Type="text/plain")[0].status == 415
    assert shared.post({"decisions": []}, X_Hepipe=None)[0].status == 415
    assert shared.ask("OPTIONS", shared.base + "decisions")[0].status == 501


@pytest.mark.parametrize(
    "path",
    [
        "../decisions-ann.csv", "sheets/../index.html", "sheets/..%2findex.html", "decisions-ann.csv", "/etc/passwd",
        "sheets/", "sheets/0000000000000000.jpg", "tile/" + "0" * 32 + ".jpg", "tile/../tile/x.jpg",
        "sheets//etc/passwd",
        ".decisions-ann.lock", "index.html/..", "..\\index.html", "sheets/\x00.jpg".replace("\x00", "%00"),
    ],
)  # fmt: skip
def test_no_path_leads_to_another_file(shared, path):
    answer, content = shared.get(path)
    assert answer.status == 404
    assert json.loads(content) == {"error": "nothing here"}


def test_a_link_in_the_folder_of_sheets_is_not_followed_out_of_it(running, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("secret.txt", "0123456789abcdef.jpg"):
        (running.server.page / "sheets" / name).symlink_to(tmp_path / "secret.txt")
        assert running.get(f"sheets/{name}")[0].status == 404


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "no list"),
        (b"[]", 400, "no list"),
        (b"{" * 50_000, 400, "no list"),
        ({"decisions": {"a": 1}}, 400, "no list"),
        ({"decisions": ["x"]}, 400, "no list"),
        ({"decisions": [{"content_id": "0" * 32, "decision": "drop"}]}, 400, "not on this page"),
        ({"decisions": [{"content_id": "0" * 32, "decision": ""}]}, 400, "not on this page"),
    ],
)
def test_a_body_that_is_no_list_of_decisions_changes_nothing(shared, body, status, said):
    before = shared.server.file.read_bytes()
    answer, content = shared.post(body)
    assert answer.status == status
    assert said in json.loads(content)["error"]
    assert shared.server.file.read_bytes() == before


@pytest.mark.parametrize(
    "change", [{"decision": "maybe"}, {"reason": "=cmd()"}, {"time": "soon"}, {"reason": "x" * 65}]
)
def test_a_decision_that_the_file_would_not_take_back_is_refused(shared, change):
    key = shared.server.found.pairs[0].content_id
    answer, content = shared.post({"decisions": [{"content_id": key, "decision": "drop", **change}]})
    assert answer.status == 400
    assert "expected" in json.loads(content)["error"]
    assert len(read_decisions(shared.server.file)) == 1


def test_reader_and_tile_id_are_the_servers_to_say(running):
    key = running.server.found.pairs[0].content_id
    row = {"content_id": key, "decision": "drop", "reader": "eve", "tile_id": "other/1"}
    assert running.post({"decisions": [row]})[0].status == 200
    only = next(iter(read_decisions(running.server.file).decisions.values()))
    assert (only.reader, only.tile_id) == ("ann", "a/0-0")


def test_lengths_that_are_none_are_refused(shared):
    for length in ("-1", "1e3", "9" * 12, ""):
        assert shared.post(b"", Content_Length=length)[0].status == 411
    headers = {"Origin": shared.origin, "X_Hepipe": "curation", "Content_Type": "application/json"}
    assert shared.ask("POST", shared.base + "decisions", **headers)[0].status == 411


def test_a_body_that_is_too_long_is_not_even_read(shared):
    answer, content = shared.post(b"x", Content_Length="2000001")
    assert answer.status == 413
    assert "more than 2000000 bytes" in json.loads(content)["error"]


def test_many_at_once_lose_no_decision(running):
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda number: running.decide(number % 6, "drop" if number < 48 else "keep")[0].status, range(48))
        )
    assert set(answers) == {200}
    assert len(read_decisions(running.server.file)) == 6


def test_visitors_that_say_nothing_hold_few_threads_for_a_short_time(running, monkeypatch):
    def threads():
        return sum(thread.name.startswith("curate") for thread in threading.enumerate())

    before = threads()
    monkeypatch.setattr(module._Handler, "timeout", 0.5)
    silent = [socket.create_connection(("127.0.0.1", running.server.port)) for _ in range(30)]
    try:
        began = time.monotonic()
        assert running.get("")[0].status == 200
        assert time.monotonic() - began < 10
        assert 1 <= threads() - before <= module.THREADS
    finally:
        for one in silent:
            one.close()


def test_what_cannot_be_written_is_told_and_stays_undecided(running, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_decisions", full)
    answer, content = running.decide(0, "drop")
    assert answer.status == 507
    assert json.loads(content)["error"] == "not written: No space left on device"
    assert running.server.decisions == {}


def test_every_answer_forbids_framing_sniffing_and_referrers(shared):
    for answer in (shared.get("")[0], shared.get("nothing")[0], shared.ask("GET", "/")[0]):
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Python" not in (answer.headers["Server"] or "")
