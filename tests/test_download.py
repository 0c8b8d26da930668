"""Public files: whole and as published, or an error that says what is wrong. A server on this machine stands in."""

import errno
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from icl_transience.__main__ import main
from icl_transience.planning.plan import Plan
from icl_transience.specs.errors import StudyError
from icl_transience.study.sources.files import PUBLIC
from icl_transience.system.download import download

ROOT = Path(__file__).parents[1]
CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What it serves, how it fails, and what it was asked for."""

    url: str
    content: bytes = CONTENT
    ranges: bool = True
    break_after: int | None = None
    status: int = 200
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            served.asked.append(wanted)
            if served.status != 200:
                self.send_error(served.status)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and served.ranges else 0
            if start >= len(served.content):
                self.send_error(416)
                return
            body = served.content[start:]
            self.send_response(206 if wanted and served.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: served.break_after])

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        served = Server(f"http://127.0.0.1:{http.server_address[1]}/images.zip")
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield served
        http.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "sources/images.zip"


def left(path: Path) -> set[str]:
    return {found.name for found in path.parent.iterdir()}


def test_a_file_is_fetched_whole(server, path):
    download(server.url, SHA256, path)
    assert path.read_bytes() == CONTENT
    assert left(path) == {"images.zip"}


def test_a_cut_connection_is_an_error_and_the_next_attempt_goes_on_from_there(server, path):
    server.break_after = 100_000
    with pytest.raises(StudyError, match=r"images\.zip: .*cut off after 100,000 bytes .*run the same command again"):
        download(server.url, SHA256, path)
    assert not path.exists()
    server.break_after = None
    download(server.url, SHA256, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_server_that_cannot_go_on_sends_all_again(server, path):
    server.break_after = 100_000
    with pytest.raises(StudyError):
        download(server.url, SHA256, path)
    server.break_after, server.ranges = None, False
    download(server.url, SHA256, path)
    assert path.read_bytes() == CONTENT


def test_an_attempt_that_ended_before_the_check_is_checked_and_not_fetched_again(server, path):
    path.parent.mkdir()
    (path.parent / ".images.zip.part").write_bytes(CONTENT)
    download(server.url, SHA256, path)
    assert path.read_bytes() == CONTENT


def test_another_checksum_is_an_error_that_names_file_expected_and_found_and_keeps_nothing(server, path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(StudyError) as error:
        download(server.url, SHA256, path)
    for fragment in (str(path), hashlib.sha256(server.content).hexdigest(), f"expected {SHA256}"):
        assert fragment in str(error.value)
    assert left(path) == set()
    server.content = CONTENT
    download(server.url, SHA256, path)
    assert path.read_bytes() == CONTENT


def test_what_is_left_of_another_file_does_not_spoil_every_attempt(server, path):
    path.parent.mkdir()
    (path.parent / ".images.zip.part").write_bytes(b"another file" * 100_000)
    with pytest.raises(StudyError, match="expected"):
        download(server.url, SHA256, path)
    download(server.url, SHA256, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses_is_named_with_a_way_out(server, path, status):
    server.status = status
    with pytest.raises(StudyError, match=rf"images\.zip: http.* answers {status} .*by hand"):
        download(server.url, SHA256, path)


def test_a_server_that_is_not_there_is_an_error(path):
    with pytest.raises(StudyError, match="cannot be reached"):
        download("http://127.0.0.1:9/images.zip", SHA256, path)


def test_what_the_disk_says_is_not_blamed_on_the_network(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("icl_transience.system.download._fetch", fail)
    with pytest.raises(StudyError, match=r"cannot be written \(No space left on device\): make room") as error:
        download("http://127.0.0.1:9/images.zip", SHA256, path)
    assert "reached" not in str(error.value)


def test_a_download_that_a_colleague_has_left_is_begun_again(server, path, monkeypatch):
    """Of mode 0644: it may not be gone on with, but in a folder of the group it may be removed."""
    path.parent.mkdir()
    (path.parent / ".images.zip.part").write_bytes(CONTENT[:1000])
    monkeypatch.setattr("icl_transience.system.download.os.access", lambda *_: False)
    download(server.url, SHA256, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]


def test_the_command_line_fetches_and_says_how_far_it_is(server, path, tmp_path):
    log = tmp_path / "download.log"
    arguments = ["download", "--url", server.url, "--sha256", SHA256, "--output", str(path), "--log", str(log)]
    assert main(arguments) == 0
    assert path.read_bytes() == CONTENT
    assert "512,000 of 512,000 seen" in log.read_text()
    path.unlink()
    server.content = b"another"
    assert main(arguments) == 1
    assert "expected" in log.read_text()


# What is downloaded, and when.


def plan(folder: Path, encoder: str = "", **config) -> Plan:
    (folder / "mine.yaml").write_text(
        f"experiments: {{a: {{bank: {{source: omniglot, omniglot: {{characters: 200, exemplars: 5 {encoder}}}}}}}}}"
    )
    return Plan({"study": str(folder / "mine.yaml"), "results": str(folder / "results")} | config, ROOT)


RESNET18 = ", encoder: resnet18, dim: 512"


def test_without_a_folder_the_public_files_are_downloaded(tmp_path, monkeypatch):
    monkeypatch.delenv("ICL_OMNIGLOT", raising=False)
    planned = plan(tmp_path, RESNET18)
    (bank_id,) = planned.banks
    names = ["images_background_small1.zip", "images_background_small2.zip", "resnet18-f37072fd.pth"]
    assert planned.sources.downloads(bank_id) == [str(tmp_path / "results/sources" / name) for name in names]
    assert planned.banks[bank_id].files == tuple(PUBLIC[name].sha256 for name in names)


def test_with_a_folder_nothing_is_and_the_bank_is_the_same(tmp_path, monkeypatch, omniglot_folder):
    monkeypatch.delenv("ICL_OMNIGLOT", raising=False)
    downloaded, there = plan(tmp_path), plan(tmp_path, omniglot=str(omniglot_folder))
    (bank_id,) = there.banks
    assert there.sources.downloads(bank_id) == []
    # So the SHA-256 of the files at hand are the published ones.
    assert list(downloaded.banks) == [bank_id]


def test_weights_that_are_not_beside_the_zips_are_downloaded(tmp_path, monkeypatch, omniglot_folder):
    monkeypatch.delenv("ICL_OMNIGLOT", raising=False)
    planned = plan(tmp_path, RESNET18, omniglot=str(omniglot_folder))
    (bank_id,) = planned.banks
    assert [Path(path).name for path in planned.sources.downloads(bank_id)] == ["resnet18-f37072fd.pth"]


def test_a_folder_is_a_folder_wherever_it_is_named_from(tmp_path, monkeypatch, omniglot_folder):
    monkeypatch.chdir(omniglot_folder)
    planned = plan(tmp_path, omniglot=".")
    (bank_id,) = planned.banks
    assert planned.sources.downloads(bank_id) == []


@pytest.mark.parametrize(
    ("zips", "characters"),
    [
        (["images_background_small1.zip"], 136),
        (["images_background_small1.zip", "images_background_small2.zip"], 242),
        (["images_background.zip", "images_evaluation.zip"], 1623),
        (list(PUBLIC)[:4], 1623),
    ],
)
def test_how_many_characters_public_zips_hold_is_known_before_they_are_there(tmp_path, monkeypatch, zips, characters):
    monkeypatch.delenv("ICL_OMNIGLOT", raising=False)
    changes = f", zips: [{', '.join(zips)}], holdout_characters: "
    plan(tmp_path, f"{changes}{characters - 200}" if characters > 200 else ", zips: [images_evaluation.zip]")
    with pytest.raises(StudyError, match=f"hold {characters} characters"):
        plan(tmp_path, f"{changes}{max(characters - 199, 1)}")
