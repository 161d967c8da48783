"""Weights from their publishers: whole or not at all, resumed where a connection broke, shared by processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from napari_segany.core.errors import DownloadError

CHUNK = 1 << 20
#: Seconds without a byte after which a connection is taken for dead.
TIMEOUT = 30.0
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
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1"):
        raise DownloadError(f"{url} is not fetched: models come over https only.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.exists():
                part = path.with_name(path.name + ".part")
                _fetch(url, part, token, progress)
                _check(part, sha256, url)
                part.replace(path)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def _fetch(url: str, part: Path, token: str | None, progress: Progress | None) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:
                # All of it was there, or the file has become shorter: from the start.
                part.unlink()
                _fetch(url, part, token, progress)
                return
            if urlsplit(answer.url).scheme != urlsplit(url).scheme:
                raise DownloadError(f"{url} leads to {answer.url}, which is not safe; nothing was fetched.")
            _refuse(answer.status_code, url)
            if answer.status_code != 206:
                have = 0
            total = have + int(answer.headers.get("Content-Length", 0))
            with part.open("ab" if have else "wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    if progress is not None and progress(have, total) is False:
                        raise DownloadError(f"The download of {url} was stopped; it goes on from here the next time.")
                file.flush()
                os.fsync(file.fileno())
    except requests.RequestException as error:
        raise DownloadError(
            f"The connection to {urlsplit(url).hostname} broke off ({type(error).__name__}); try again, and the "
            "download goes on where it stopped."
        ) from error
    if have < total:
        raise DownloadError(f"Only {have} of {total} bytes of {url} arrived; try again, and the download goes on.")


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
    if not digest.hexdigest().startswith(sha256):
        part.unlink()
        raise DownloadError(
            f"What {url} sent is not the file expected (sha256 {digest.hexdigest()[:12]}..., expected {sha256}); it "
            "was thrown away."
        )
