"""Weights from their publishers: whole or not at all, resumed where a connection broke, shared by processes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from filelock import FileLock, Timeout

from napari_segany.core.errors import DownloadError

if TYPE_CHECKING:
    from requests import Response

CHUNK = 1 << 20
#: Where publishers keep large files; from any other host than their own nothing is taken.
STORES = (".huggingface.co", ".hf.co")
LOCAL = ("localhost", "127.0.0.1")
REDIRECTS = 5
#: Seconds without a byte after which a connection is taken for dead.
TIMEOUT = 30.0
#: Seconds between two looks at what another process has fetched.
PATIENCE = 0.2
#: Told bytes done and bytes in all (0 when unknown); returns False to stop.
Progress = Callable[[int, int], bool | None]


def download(
    url: str, path: Path, sha256: str = "", token: str | None = None, progress: Progress | None = None
) -> Path:
    """Fetch a file, unless it is there.

    What has arrived is kept in ``<name>.part`` and the rest is asked for the
    next time; a second process waits for the first.

    Parameters
    ----------
    url : str
        https, or http on this computer.
    path : Path
    sha256 : str
        Checksum, or the beginning of it, as far as the publisher states it.
    token : str, optional
        Of an account that has agreed to the licence, for gated files.
    progress : callable, optional

    Returns
    -------
    path

    Raises
    ------
    DownloadError
        Not https, refused, not found, broken off, stopped, or not the file that was expected.
    """
    _check_address(url)
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.tag")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path, part, url, progress):
            if not path.exists():
                _fetch(url, part, tag, token, progress)
                tag.unlink(missing_ok=True)
                _check(part, sha256, url)
                part.replace(path)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


@contextmanager
def _alone(path: Path, part: Path, url: str, progress: Progress | None) -> Iterator[None]:
    """Wait for another process that fetches the same file; its progress is shown meanwhile."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    while True:
        try:
            lock.acquire(timeout=PATIENCE)
            break
        except Timeout:
            _tell(progress, part.stat().st_size if part.exists() else 0, 0, url)
    try:
        yield
    finally:
        lock.release()


def _tell(progress: Progress | None, done: int, total: int, url: str) -> None:
    if progress is not None and progress(done, total) is False:
        raise DownloadError(f"The download of {url} was stopped; it goes on from here the next time.")


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL):
        raise DownloadError(f"{url} is not fetched: models come over https only.")


def _fetch(url: str, part: Path, tag: Path, token: str | None, progress: Progress | None) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    # As it is in the file: what a server packs has another length than it states.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.exists():
            # The rest of another file would not fit to what is here.
            headers["If-Range"] = tag.read_text()
    try:
        with _open(url, headers, token) as answer:
            if have and (answer.status_code == 416 or _begins_elsewhere(answer, have)):
                # All of it was there, or the file has become shorter: from the start.
                part.unlink()
                _fetch(url, part, tag, token, progress)
                return
            _refuse(answer.status_code, url)
            if answer.status_code != 206:
                have = 0
                tag.unlink(missing_ok=True)
                if "ETag" in answer.headers:
                    tag.write_text(answer.headers["ETag"])
            total = have + int(answer.headers.get("Content-Length", 0))
            free = shutil.disk_usage(part.parent).free
            if total - have > free:
                raise DownloadError(
                    f"The rest of {url} takes {(total - have) / 1e9:.1f} GB and only {free / 1e9:.1f} GB are free in "
                    f"{part.parent}; make room, or set SEGANY_CACHE to another folder."
                )
            with part.open("ab" if have else "wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    _tell(progress, have, total, url)
                file.flush()
                os.fsync(file.fileno())
    except requests.RequestException as error:
        raise DownloadError(
            f"The connection to {urlsplit(url).hostname} broke off ({type(error).__name__}); try again, and the "
            "download goes on where it stopped."
        ) from error
    if have < total:
        raise DownloadError(f"Only {have} of {total} bytes of {url} arrived; try again, and the download goes on.")


def _open(url: str, headers: dict[str, str], token: str | None) -> Response:
    """Ask for a file, following redirections that are safe; the token is for the first host only."""
    import requests

    asked, first = url, urlsplit(url).hostname
    for _ in range(REDIRECTS):
        host = urlsplit(url).hostname or ""
        own = {"Authorization": f"Bearer {token}"} if token and host == first else {}
        answer = requests.get(url, headers={**headers, **own}, stream=True, timeout=TIMEOUT, allow_redirects=False)
        if not answer.is_redirect:
            return answer
        answer.close()
        url = urljoin(url, answer.headers["Location"])
        host = urlsplit(url).hostname or ""
        safe = urlsplit(url).scheme == urlsplit(asked).scheme and (host == first or host.endswith(STORES))
        if not safe:
            raise DownloadError(f"{asked} leads to {url}, which is not safe; nothing was fetched.")
    raise DownloadError(f"{asked} leads from one place to the next without end; nothing was fetched.")


def _begins_elsewhere(answer: Response, have: int) -> bool:
    """Whether a server sends another part than the one asked for."""
    sent = answer.headers.get("Content-Range", "")
    return answer.status_code == 206 and bool(sent) and not sent.startswith(f"bytes {have}-")


def _refuse(status: int, url: str) -> None:
    if status in (401, 403):
        page = url.split("/resolve/")[0]
        raise DownloadError(
            f"The publisher asks for a login: agree to the licence at {page}, and give an access token (--token or "
            "the variable HF_TOKEN)."
        )
    if status == 404:
        raise DownloadError(f"There is no file {url} any more; get the model from its publisher and import it.")
    if status >= 400:
        raise DownloadError(f"The server answered {status} for {url}; try again later.")


def _check(part: Path, sha256: str, url: str) -> None:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    if not digest.hexdigest().startswith(sha256.lower()):
        part.unlink()
        raise DownloadError(
            f"What {url} sent is not the file expected (sha256 {digest.hexdigest()[:12]}..., expected {sha256}); it "
            "was thrown away."
        )
