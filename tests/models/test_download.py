"""Fetching weights from a local server that breaks off, refuses, lies and waits."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from filelock import FileLock

import napari_segany as segany
from napari_segany.core.errors import CheckpointError, DownloadError, StorageError, UnknownModelError
from napari_segany.models import registry
from napari_segany.models.download import download
from tests.weight_server import CONTENT, DIGEST, Server


def test_a_file_arrives_whole_and_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = download(server.url, tmp_path / "deep" / "m.pt", DIGEST, progress=lambda *both: told.append(both))
    assert path.read_bytes() == CONTENT and told[-1] == (len(CONTENT), len(CONTENT))
    download(server.url, path, DIGEST)
    assert len(server.asked) == 1
    assert {one.name for one in path.parent.iterdir()} <= {"m.pt", "m.pt.lock"}


@pytest.mark.parametrize("ranges", [True, False], ids=["resumed", "server-starts-over"])
def test_a_broken_download_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.cut_after, path = 3_000_000, tmp_path / "m.pt"
    with pytest.raises(DownloadError, match="try again"):
        download(server.url, path, DIGEST)
    assert not path.exists() and 0 < (tmp_path / "m.pt.part").stat().st_size <= 3_000_000
    server.cut_after, server.ranges = 0, ranges
    assert download(server.url, path, DIGEST).read_bytes() == CONTENT
    assert server.asked[-1].startswith("bytes=")


def test_a_part_that_is_whole_already_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.pt.part").write_bytes(b"x" * len(CONTENT))
    assert download(server.url, tmp_path / "m.pt", DIGEST).read_bytes() == CONTENT


def test_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not the file expected"):
        download(server.url, tmp_path / "m.pt", "0123")
    assert [path.suffix for path in tmp_path.iterdir()] in ([".lock"], [])


def test_a_download_can_be_stopped_and_goes_on(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="was stopped"):
        download(server.url, tmp_path / "m.pt", progress=lambda done, total: False)
    assert download(server.url, tmp_path / "m.pt", DIGEST).read_bytes() == CONTENT


def test_gated_files_want_a_token(server: Server, tmp_path: Path) -> None:
    server.token = "secret"
    with pytest.raises(DownloadError, match="agree to the licence"):
        download(server.url, tmp_path / "m.pt")
    assert download(server.url, tmp_path / "m.pt", DIGEST, token="secret").exists()


def test_refusals_are_one_sentence(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no file"):
        download(server.url.replace("model.pt", "gone"), tmp_path / "m.pt")
    with pytest.raises(DownloadError, match="over https only"):
        download("http://example.org/m.pt", tmp_path / "m.pt")
    with pytest.raises(DownloadError, match="broke off"):
        download("http://127.0.0.1:9/m.pt", tmp_path / "m.pt")


def test_two_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=download, args=(server.url, tmp_path / "m.pt", DIGEST)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1 and (tmp_path / "m.pt").read_bytes() == CONTENT


FETCH = """
import sys
from pathlib import Path
from napari_segany.models.download import download
print(download(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
"""


def test_two_processes_share_the_folder_of_models(server: Server, tmp_path: Path) -> None:
    server.pause = 0.05
    command = [sys.executable, "-c", FETCH, server.url, str(tmp_path / "m.pt"), DIGEST]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(tmp_path / "m.pt")] * 2
    assert len(server.asked) == 1 and (tmp_path / "m.pt").read_bytes() == CONTENT


def test_whoever_waits_for_another_process_can_stop_waiting(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.pt.part").write_bytes(b"x" * 7)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> bool:
        told.append((done, total))
        return len(told) < 3

    with FileLock(tmp_path / "m.pt.lock"), pytest.raises(DownloadError, match="was stopped"):
        download(server.url, tmp_path / "m.pt", DIGEST, progress=progress)
    assert told == [(7, 0)] * 3 and not server.asked


@pytest.mark.parametrize(
    "target",
    ["http://example.org/m.pt", "https://127.0.0.1:1/m.pt", "file:///etc/passwd", "//example.org/m.pt", "/loop"],
)
def test_redirections_that_are_not_safe_are_not_followed(server: Server, tmp_path: Path, target: str) -> None:
    server.redirect = target
    with pytest.raises(DownloadError, match=r"(which is not safe|without end); nothing was fetched"):
        download(server.url, tmp_path / "m.pt", DIGEST)
    assert not list(tmp_path.glob("m.pt*t"))


def test_a_token_goes_to_the_first_host_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    class Answer:
        status_code, headers, is_redirect = 302, {"Location": "https://cdn-lfs.hf.co/m.pt"}, True

        def close(self) -> None:
            pass

    def get(url: str, headers: dict, **kwargs: object) -> Answer:
        asked.append((url, headers.get("Authorization")))
        if len(asked) == 2:
            raise requests.ConnectionError
        return Answer()

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(DownloadError, match="broke off"):
        download("https://huggingface.co/m.pt", tmp_path / "m.pt", token="secret")
    assert asked == [("https://huggingface.co/m.pt", "Bearer secret"), ("https://cdn-lfs.hf.co/m.pt", None)]


def test_the_rest_of_another_file_is_not_put_behind_the_beginning_of_this(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.tag = 3_000_000, '"first"'
    with pytest.raises(DownloadError, match="try again"):
        download(server.url, tmp_path / "m.pt")
    (tmp_path / "m.pt.part").write_bytes(b"x" * 1000)
    server.cut_after, server.tag = 0, '"second"'
    assert download(server.url, tmp_path / "m.pt").read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} <= {"m.pt", "m.pt.lock"}


def test_a_server_that_sends_another_part_than_asked_for_is_asked_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.pt.part").write_bytes(b"x" * 1000)
    server.shift = 5
    assert download(server.url, tmp_path / "m.pt", DIGEST).read_bytes() == CONTENT


def test_a_file_larger_than_the_disk_is_not_begun(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DownloadError, match=r"takes 0\.0 GB and only 0\.0 GB are free"):
        download(server.url, tmp_path / "m.pt")
    assert not list(tmp_path.glob("*.part"))


def test_registered_models_are_put_where_they_are_looked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path))
    info = next(info for info in registry.REGISTERED if info.name == "mobile-sam")
    monkeypatch.setattr(registry, "REGISTERED", [type(info)(**{**vars(info), "url": server.url})])
    path = segany.download_model("mobile-sam")
    assert path == tmp_path / "models" / "mobile-sam.pt"
    assert segany.download_model("mobile-sam") == path and len(server.asked) == 1
    with pytest.raises(UnknownModelError, match="nothing to download"):
        segany.download_model("nano")


def test_checkpoints_are_imported_under_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path / "cache"))
    source = Path(registry.__file__).parent / "nano" / "nano.safetensors"
    info = segany.import_model(source, "mine")
    assert (info.name, info.family, info.installed) == ("mine", "nano", True)
    assert segany.load_model("mine", device="cpu").name == "mine"
    with pytest.raises(StorageError, match="already"):
        segany.import_model(source, "mine")
    with pytest.raises(StorageError, match="no name"):
        segany.import_model(source, "../mine")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError):
        segany.import_model(tmp_path / "junk.pt")
    assert {info.name for info in segany.list_models() if info.licence == "your own"} == {"mine"}
