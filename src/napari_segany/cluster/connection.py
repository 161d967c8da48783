"""To a Dask scheduler and its workers, with one sentence for whatever stands in the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from napari_segany.core.errors import ClusterError, SeganyError, first_line

T = TypeVar("T")

#: Beginnings of addresses that lead to a scheduler rather than to a device of this computer.
PROTOCOLS = ("tcp://", "tls://", "ws://", "wss://", "ucx://")
#: Said when the scheduler went away in the middle.
GONE = "the scheduler is gone. What is finished is kept; start the scheduler again, and go on with resume."
#: Seconds to wait for a scheduler, and for its first worker.
PATIENCE = 15.0


def is_address(device: str) -> bool:
    """Whether a device is the address of a scheduler."""
    return device.startswith(PROTOCOLS)


@contextmanager
def connected(address: str, resources: Mapping[str, float] | None = None) -> Iterator[Any]:
    """A client of the scheduler, closed afterwards; see `connect`."""
    client = connect(address, resources)
    try:
        yield client
    finally:
        close(client)


def connect(address: str, resources: Mapping[str, float] | None = None, patience: float | None = None) -> Any:
    """Connect to a scheduler that has workers.

    Certificates for ``tls://`` are taken from Dask's configuration, such as
    the variables ``DASK_DISTRIBUTED__COMM__TLS__CA_FILE``,
    ``..._TLS__CLIENT__CERT`` and ``..._TLS__CLIENT__KEY``.

    Parameters
    ----------
    address : str
    resources : mapping, optional
        What at least one worker must offer.
    patience : float, optional
        Seconds to wait for each of the two.

    Raises
    ------
    ClusterError
        Dask is not installed, nobody answers, there is no worker, or none with these resources.
    """
    patience = PATIENCE if patience is None else patience
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError('Working on a cluster needs Dask: pip install "napari-segany[distributed]".') from error
    with warnings.catch_warnings():
        # That versions differ is only of interest when something fails.
        warnings.simplefilter("ignore")
        try:
            client = Client(address, timeout=patience, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ClusterError(
                f'No Dask scheduler answers at {address}: {first_line(error)}. Start one with "dask scheduler", '
                "and check the address, the firewall and the certificates."
            ) from error
    try:
        client.wait_for_workers(1, timeout=patience)
    except (OSError, TimeoutError) as error:
        close(client)
        raise ClusterError(f'The scheduler at {address} has no workers: start some with "dask worker".') from error
    offers = [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    if resources and not any(all(offer.get(k, 0) >= v for k, v in resources.items()) for offer in offers):
        close(client)
        asked = " ".join(f"{name}={amount:g}" for name, amount in resources.items())
        raise ClusterError(
            f'No worker of {address} offers {asked}: start workers with "dask worker --resources {asked}".'
        )
    return client


def close(client: Any) -> None:
    """Leave the scheduler, whether or not it is still there."""
    with suppress(Exception):
        client.close(timeout=2)


def result_of(future: Any, what: str) -> Any:
    """Result of a future, or one sentence on why there is none.

    Raises
    ------
    ClusterError
        The scheduler went away, the work killed its workers, or they lack this package.
    SeganyError
        What the work itself raised.
    """
    from distributed import KilledWorker

    try:
        return future.result()
    except SeganyError:
        raise
    except KilledWorker as error:
        raise ClusterError(
            f"{what} has brought down several workers, probably for lack of memory; give workers more memory, or run "
            "fewer of them on a computer."
        ) from error
    except CancelledError as error:
        raise ClusterError(f"{what} was cut off: {GONE}") from error
    except ImportError as error:
        raise ClusterError(f"The workers cannot run napari-segany ({error}); install it where they run.") from error
    except Exception as error:
        raise ClusterError(f"{what} failed on a worker: {first_line(error)}.") from error


def told_where(work: Callable[..., T]) -> Callable[..., T]:
    """Let errors of work on a worker say which worker it was."""
    from functools import wraps

    @wraps(work)
    def named(*args: Any, **kwargs: Any) -> T:
        try:
            return work(*args, **kwargs)
        except SeganyError as error:
            from distributed import get_worker

            raise type(error)(f"On the worker {get_worker().address}: {error}") from error

    return named
