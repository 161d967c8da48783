"""The line to a model on another computer, mended when it breaks."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

from napari_segany.cluster.connection import close, connect, result_of
from napari_segany.core.errors import ClusterError

#: Seconds for which a broken line is mended before the person is told.
MEND = 60.0
#: Seconds between two attempts.
PAUSE = 0.5
#: Seconds after which a worker that has not answered is looked for.
CHECK = 2.0


class Link:
    """Calls of a `ModelServer` that is kept alive on some worker of a scheduler.

    When the worker, the scheduler or the network goes, the next call starts
    another server as soon as there is a place for it.

    Parameters
    ----------
    address : str
    name, dtype : str
        See `napari_segany.load_model`.

    Raises
    ------
    ClusterError
    """

    def __init__(self, address: str, name: str, dtype: str) -> None:
        self.address, self.name, self.dtype = address, name, dtype
        self._client: Any = None
        self._actor: Any = None
        # An actor is let go when nobody holds its future.
        self._future: Any = None
        self._turn = threading.RLock()
        with self._turn:
            self._open()

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the server.

        Raises
        ------
        ClusterError
            The line stays broken.
        ForgottenError
            The server does not have what the call is about: it is a new one, or had to make room.
        SeganyError
            What the work itself raised.
        """
        deadline = time.monotonic() + MEND
        while True:
            try:
                with self._turn:
                    if self._actor is None:
                        self._open()
                    client, actor = self._client, self._actor
                # An actor finds its client by asking for the current one.
                with client.as_current():
                    future = actor.call(method, *args)
                fine, answer = self._wait(future, client, actor)
            except Exception as error:
                self._drop()
                if time.monotonic() > deadline - PAUSE:
                    raise ClusterError(
                        f"The connection to the model at {self.address} is lost and did not come back within "
                        f"{MEND:.0f} s; prompts and labels are safe, try again when it is there."
                    ) from error
                time.sleep(PAUSE)
                continue
            if not fine:
                raise answer
            return answer

    def _wait(self, future: Any, client: Any, actor: Any) -> Any:
        """Wait for an answer for as long as the actor that is to give it is there."""
        while True:
            try:
                return future.result(timeout=CHECK)
            except TimeoutError:
                if client.status != "running":
                    raise
                place = actor._address
                if place not in client.scheduler_info(n_workers=-1)["workers"]:
                    raise
                # A worker that was started again at the same address does not know it.
                if not client.run(_has_actor, actor.key, workers=[place])[place]:
                    raise

    def _open(self) -> None:
        from napari_segany.cluster.server import ModelServer

        self._client = connect(self.address)
        offers = [worker["resources"] for worker in self._client.scheduler_info(n_workers=-1)["workers"].values()]
        # A worker that says it has a GPU is the better place.
        needs = {"GPU": 1} if any(offer.get("GPU", 0) >= 1 for offer in offers) else None
        self._future = self._client.submit(
            ModelServer, self.name, self.dtype, actor=True, key=f"segany-model-{uuid4().hex}", resources=needs
        )
        self._actor = result_of(self._future, "Starting the model")

    def _drop(self) -> None:
        with self._turn:
            client, self._client, self._actor, self._future = self._client, None, None, None
        if client is not None:
            with suppress(Exception):
                close(client)

    def close(self) -> None:
        """Let go of the server."""
        self._drop()


def _has_actor(key: str, dask_worker: Any = None) -> bool:
    return key in dask_worker.state.actors
