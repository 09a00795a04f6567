"""Data at an address is downloaded once, fetched again when it has changed, and read without its server later."""

import gzip
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from zstandard import ZstdCompressor

from runner.data.reading.files import locate, pinned
from runner.data.sources.address import SOURCE
from runner.data.splits import Selection
from runner.data.survey import survey
from runner.errors import DataError
from tests.data.samples import simple_pair, trl, write_csv, write_lines


class Web(BaseHTTPRequestHandler):
    """Serves a folder, with a tag for each content; `got` are the files that were sent whole."""

    folder: Path
    got: list[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.got.append(self.path)
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        file = self.folder / self.path[1:]
        if not file.is_file():
            self.send_error(404)
            return
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{sha256(body).hexdigest()}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    (tmp_path / "web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyWeb", (Web,), {"folder": tmp_path / "web", "got": []}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(web: ThreadingHTTPServer, name: str) -> str:
    return f"http://127.0.0.1:{web.server_port}/{name}"


def test_a_file_at_an_address_is_fetched_once_until_it_changes(web: ThreadingHTTPServer, tmp_path: Path) -> None:
    file, name = tmp_path / "web" / "pairs.jsonl", address(web, "pairs.jsonl")
    got = web.RequestHandlerClass.got  # type: ignore[attr-defined]
    rows = [trl(simple_pair(number)) for number in range(5)]
    write_lines(file, rows[:3])
    counts = []
    for number in (3, 3, 5):
        write_lines(file, rows[:number])
        assert pinned(name) == name
        counts.append((survey(Selection(train=name, kind="preference")).splits["train"].rows, len(got)))
    assert counts == [(3, 1), (3, 1), (5, 2)]
    file.unlink()
    with pytest.raises(DataError, match=r"pairs.jsonl: cannot be fetched \("):
        pinned(name)


def test_what_was_fetched_is_read_without_its_server(tmp_path: Path, web: ThreadingHTTPServer) -> None:
    write_lines(tmp_path / "web" / "pairs.jsonl", [trl(simple_pair(1))])
    name = address(web, "pairs.jsonl")
    [first] = locate(name)
    web.shutdown()
    web.server_close()
    assert pinned(name) == name
    assert locate(name) == (first,)
    with pytest.raises(DataError, match=r"other.jsonl: cannot be fetched \("):
        locate(address(web, "other.jsonl"))


def test_a_table_keeps_its_name_and_a_packed_file_is_unpacked(tmp_path: Path, web: ThreadingHTTPServer) -> None:
    texts = [{"prompt": "Why?", "chosen": "Gas.", "rejected": "No."}, {"prompt": "So?", "chosen": "A", "rejected": "B"}]
    write_csv(tmp_path / "web" / "pairs.csv", texts)
    write_lines(tmp_path / "lines", texts)
    plain = (tmp_path / "lines").read_bytes()
    (tmp_path / "web" / "pairs.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "web" / "pairs.jsonl.zst").write_bytes(ZstdCompressor().compress(plain))
    prints = {
        survey(Selection(train=address(web, name), kind="preference")).splits["train"].fingerprint
        for name in ("pairs.csv", "pairs.jsonl.gz", "pairs.jsonl.zst")
    }
    assert len(prints) == 1


def test_an_object_store_is_read_by_its_file_system(tmp_path: Path) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("b", "a"):
        write_lines(tmp_path / name, [trl(simple_pair(1))])
        files.pipe(f"/store/{name}.jsonl", (tmp_path / name).read_bytes())
    assert [name for name, _ in SOURCE.files("memory://store/*.jsonl")] == [
        "memory:///store/a.jsonl",
        "memory:///store/b.jsonl",
    ]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("https://me:pass@store.example/a.jsonl", "it has a user before @"),
        ("https://store.example/a.jsonl?sv=1&sig=SECRET", "the query has `sig`"),
        ("https://store.example/a.jsonl?X-Amz-Signature=SECRET", "the query has `X-Amz-Signature`"),
    ],
)
def test_an_address_that_holds_a_credential_is_refused_without_naming_it(name: str, what: str) -> None:
    with pytest.raises(DataError, match="holds a credential") as caught:
        pinned(name)
    assert what in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_an_address_of_an_unknown_kind_names_those_that_are_known() -> None:
    with pytest.raises(DataError, match=r"ftp://a/b.jsonl: is at no address that is known; allowed: .*https:"):
        locate("ftp://a/b.jsonl")
