"""A cluster of two processes on this computer."""

from collections.abc import Iterator

import pytest

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="session")
def cluster() -> Iterator["distributed.LocalCluster"]:
    from tests.cluster.plugin import FakeModels

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, resources={"ROOM": 1}
        ) as made,
        distributed.Client(made, set_as_default=False) as client,
    ):
        client.register_plugin(FakeModels())
        yield made


@pytest.fixture
def address(cluster: "distributed.LocalCluster") -> str:
    cluster.scale(2)
    return cluster.scheduler_address
