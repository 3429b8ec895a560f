"""Files of a data set: found, fetched with resume, verified once, and named when they are missing."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jellyfit.datamodules.fetch import SourceFile, fetch, verify
from jellyfit.errors import DataError

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()
PAGE = "example.org/data"


class Server:
    """Serves CONTENT; breaks off as often as it is told to, and may not know ranges."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.breaks = 0
        self.ranges = True
        self.content = CONTENT
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                server.asked.append(asked)
                if self.path == "/gone":
                    self.send_error(404)
                    return
                begin = int(asked[6:-1]) if asked and server.ranges else 0
                body = server.content[begin:]
                if asked and server.ranges and not body:
                    self.send_error(416)
                    return
                self.send_response(206 if asked and server.ranges else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if server.breaks > 0:
                    server.breaks -= 1
                    body = body[: len(body) // 2]
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("jellyfit.datamodules.fetch.time.sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_a_file_is_downloaded_verified_and_not_fetched_again(tmp_path: Path, server: Server) -> None:
    file = SourceFile("a.zip", MD5, (f"{server.url}/a.zip",))
    for _ in range(2):
        assert fetch([file], tmp_path, PAGE) == {"a.zip": tmp_path / "download" / "a.zip"}
    assert (tmp_path / "download" / "a.zip").read_bytes() == CONTENT
    assert server.asked == [""]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path, server: Server, ranges: bool) -> None:
    server.breaks, server.ranges = 2, ranges
    fetch([SourceFile("a.zip", MD5, (f"{server.url}/a.zip",))], tmp_path, PAGE)
    assert (tmp_path / "download" / "a.zip").read_bytes() == CONTENT
    assert len(server.asked) == 3
    assert server.asked[1] == f"bytes={len(CONTENT) // 2}-"


def test_what_arrived_before_an_interruption_is_used_later(tmp_path: Path, server: Server) -> None:
    (tmp_path / "download").mkdir()
    (tmp_path / "download" / "a.zip.part").write_bytes(CONTENT[:1000])
    fetch([SourceFile("a.zip", MD5, (f"{server.url}/a.zip",))], tmp_path, PAGE)
    assert server.asked == ["bytes=1000-"]
    (tmp_path / "download" / "b.zip.part").write_bytes(CONTENT)  # all of it, not yet renamed
    fetch([SourceFile("b.zip", MD5, (f"{server.url}/b.zip",))], tmp_path, PAGE)
    assert (tmp_path / "download" / "b.zip").read_bytes() == CONTENT


def test_mirrors_are_tried_in_turn(tmp_path: Path, server: Server) -> None:
    urls = (f"{server.url}/gone", "http://127.0.0.1:1/nobody", f"{server.url}/a.zip")
    fetch([SourceFile("a.zip", MD5, urls)], tmp_path, PAGE)
    assert (tmp_path / "download" / "a.zip").read_bytes() == CONTENT


def test_when_no_mirror_has_it_each_ones_answer_is_told(tmp_path: Path, server: Server) -> None:
    server.content = b"another file"
    urls = (f"{server.url}/gone", f"{server.url}/a.zip")
    with pytest.raises(DataError, match=r"(?s)gone: HTTP Error 404.*a.zip: .*MD5.*by hand"):
        fetch([SourceFile("a.zip", MD5, urls)], tmp_path, PAGE)
    assert not list(tmp_path.rglob("*.part"))  # a whole file that is another one is no beginning of it


def test_missing_files_are_named_with_size_md5_page_and_place(tmp_path: Path) -> None:
    files = [SourceFile("Train.zip", MD5, size=1_181_000_000), SourceFile("Test.zip"), SourceFile("x", needed=False)]
    (tmp_path / "Test.zip").write_bytes(b"")
    with pytest.raises(DataError) as told:
        fetch(files, tmp_path, PAGE)
    text = str(told.value)
    assert text.startswith("1 of 3 files")
    assert f"Train.zip, 1,181 MB, MD5 {MD5}" in text
    assert PAGE in text
    assert str(tmp_path.resolve()) in text
    assert "Test.zip" not in text


def test_nothing_is_downloaded_where_that_is_forbidden(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match="missing"):
        fetch([SourceFile("a.zip", MD5, (f"{server.url}/a.zip",))], tmp_path, PAGE, download=False)
    assert server.asked == []


def test_a_damaged_file_is_found_and_a_good_one_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT[:-1])
    file = SourceFile("a.zip", MD5)
    with pytest.raises(DataError, match=rf"its MD5 is .*expected {MD5}"):
        verify(file, path)
    path.write_bytes(CONTENT)
    verify(file, path)
    monkeypatch.setattr("jellyfit.datamodules.fetch._md5", lambda path: pytest.fail("read again"))
    verify(file, path)


def test_a_file_that_changes_is_verified_again(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    verify(SourceFile("a.zip", MD5), path)
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(DataError, match="MD5"):
        verify(SourceFile("a.zip", MD5), path)
