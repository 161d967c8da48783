"""A model on another computer: the same answers, little on the wire, nothing lost when the line breaks."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import distributed
import numpy as np
import pytest
import zarr

import napari_segany as segany
from napari_segany.cluster import link
from napari_segany.cluster.link import Link
from napari_segany.cluster.remote import RemoteModel, RemoteProposingModel, RemoteStackModel
from napari_segany.cluster.server import KEPT, ModelServer
from napari_segany.cluster.wire import Facts
from napari_segany.core.errors import ClusterError, UnknownModelError
from napari_segany.core.masks import interior_point
from napari_segany.core.protocols import ConceptModel, RevisableTracker, StackModel, StorableModel, VolumeModel
from napari_segany.session.everything import ProposesBoxes
from tests.fakes import DiscModel
from tests.models.conformance import ImageModelConformance


class Short:
    """A line to a server in this process; what passes is pickled, and counted in bytes."""

    address = "tcp://here"

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.sent: dict[str, int] = {}
        self.received: dict[str, int] = {}

    def call(self, method: str, *args: object) -> object:
        there = pickle.dumps(args, protocol=5)
        fine, answer = self.server.call(method, *pickle.loads(there))
        back = pickle.dumps(answer, protocol=5)
        self.sent[method], self.received[method] = len(there), len(back)
        if not fine:
            raise pickle.loads(back)
        return pickle.loads(back)


def short(model: object) -> RemoteProposingModel:
    server = ModelServer("")
    server._model = model
    line = Short(server)
    return RemoteProposingModel(line, line.call("facts"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nano():
    return segany.load_model("nano", device="cpu", dtype="float32")


class TestRemoteNano(ImageModelConformance):
    @pytest.fixture
    def model(self, nano) -> RemoteProposingModel:
        return short(nano)

    def test_stored_embeddings_answer_alike(self, model, embedding) -> None:
        assert not isinstance(model, StorableModel), "embeddings stay where they are"


def test_a_remote_model_can_what_it_can_there(nano) -> None:
    far = short(nano)
    assert isinstance(far, StackModel) and isinstance(far, ConceptModel) and isinstance(far, ProposesBoxes)
    assert isinstance(far, VolumeModel) and far.volume_window == nano.volume_window
    shape = (2, far.volume_window.depth, far.volume_window.side, far.volume_window.side)
    windows = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.ones(shape, bool)
    assert np.array_equal(far.complete(*windows), nano.complete(*windows))
    facts = Facts("x", "sam", frozenset({"image"}), "cpu", "float32", None, None, None, True)
    plain = RemoteModel(Short(ModelServer("")), facts)  # type: ignore[arg-type]
    assert not isinstance(plain, StackModel) and not isinstance(plain, ConceptModel)
    stack = RemoteStackModel(Short(ModelServer("")), facts)  # type: ignore[arg-type]
    assert isinstance(stack, StackModel) and not isinstance(stack, ConceptModel)


def test_memories_forget_and_are_revised_there() -> None:
    told: list[tuple] = []

    class Memory:
        def forget(self, object_id):
            told.append(("forget", object_id))

        def revise(self, frame, embedding, found, trusted):
            told.append(("revise", frame, {i: answer.best.sum() for i, answer in found.items()}, list(trusted)))

    class Remembering(DiscModel):
        words = ("disc",)
        everything_settings = None

        def tracker(self, frames, motion=False):
            return Memory()

        describe = find = None

    model = Remembering()
    far = short(model)
    memory = far.tracker(5)
    assert isinstance(memory, RevisableTracker)
    assert not isinstance(short(segany.load_model("nano", device="cpu")).tracker(5), RevisableTracker)
    embedding = far.embed(np.zeros((20, 20), np.uint8))
    answer = segany.segment(embedding, box=(2, 3, 6, 9), model=far)
    memory.revise(3, embedding, {4: answer}, [4])
    memory.forget(4)
    assert told == [("revise", 3, {4: 24}, [4]), ("forget", 4)]


def test_everything_find_and_propagate_are_the_same_from_afar(nano) -> None:
    far = short(nano)
    image, truth = (array[:80, :80] for array in segany.samples.image("nuclei", seed=1))
    for ask in (
        lambda model: segany.everything(image, model=model),
        lambda model: segany.find(image, exemplars=[np.array(_box(truth == truth.max()))], model=model),
    ):
        here, there = ask(nano), ask(far)
        assert len(here) == len(there) > 0
        np.testing.assert_array_equal(here.labels, there.labels)
    stack, truth = segany.samples.stack("nuclei-3d")
    found = []
    for model in (nano, far):
        session = segany.Session(stack[9:12, :96, :96], model=model)
        shown = truth[9, :96, :96]
        session.prompt(1, 0, points=[interior_point(shown == np.bincount(shown.ravel())[1:].argmax() + 1)])
        list(session.propagate())
        found.append(np.asarray(session.labels))
    np.testing.assert_array_equal(*found)
    assert found[0].any(axis=(1, 2))[:2].all()


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def test_only_prompts_masks_and_planes_cross_the_wire(nano) -> None:
    far = short(nano)
    image = np.random.default_rng(0).integers(0, 4000, (512, 512), dtype=np.uint16)
    embedding = far.embed(image)
    line = far.link
    assert line.sent["embed"] < image.nbytes + 1000 and line.received["embed"] < 100  # type: ignore[attr-defined]
    segany.segment(embedding, points=[(200, 200)], mask=np.eye(512, dtype=bool), model=far)
    # One bit a pixel there; logits at the decoder's resolution back.
    assert line.sent["predict"] < 512 * 512 / 8 + 2000  # type: ignore[attr-defined]
    assert line.received["predict"] < 200_000  # type: ignore[attr-defined]


def test_what_the_server_had_to_drop_is_made_again(nano) -> None:
    far = short(nano)
    images = [np.full((40, 40), i, np.uint8) for i in range(KEPT + 3)]
    first = far.embed(images[0])
    answer = segany.segment(first, points=[(20, 20)], model=far)
    for image in images[1:]:
        far.embed(image)
    again = segany.segment(first, points=[(20, 20)], model=far)
    np.testing.assert_array_equal(answer.logits, again.logits)


def test_a_propagation_survives_the_loss_of_its_memory(nano) -> None:
    stack, truth = segany.samples.stack("nuclei-3d")
    stack, truth = stack[8:14, :96, :96], truth[8:14, :96, :96]
    # One that is there on all planes: past its end, an object is carried on or not by next to nothing.
    lasting = max(np.unique(truth)[1:], key=lambda i: (truth == i).sum(axis=(1, 2)).min())
    found = []
    for lose in (False, True):
        far = short(nano)
        session = segany.Session(stack, model=far)
        session.prompt(1, 0, mask=truth[0] == lasting)
        for frame, _ in session.propagate():
            if lose and frame == 3:
                far.link.server._kept.clear()  # type: ignore[attr-defined]
        found.append(np.asarray(session.labels))
    assert found[0].any()
    agree = (found[0] == found[1])[found[0] + found[1] > 0].mean()
    assert agree > 0.95


@pytest.fixture
def far(address: str) -> Iterator[RemoteModel]:
    model = segany.load_model("disc", device=address)
    assert isinstance(model, RemoteModel)
    yield model
    model.link.close()


def test_a_model_on_a_worker_answers_as_here(far: RemoteModel) -> None:
    image = np.zeros((40, 50), np.uint8)
    here = segany.segment(image, points=[(20, 20)], model=DiscModel())
    there = segany.segment(image, points=[(20, 20)], model=far)
    np.testing.assert_array_equal(here.masks, there.masks)
    assert "of tcp://" in far.device


def test_nothing_is_lost_when_the_worker_is_killed(far: RemoteModel, address: str) -> None:
    embedding = far.embed(np.zeros((40, 50), np.uint8))
    before = segany.segment(embedding, points=[(20, 20)], model=far)
    with distributed.Client(address, set_as_default=False) as client:
        place = far.link._actor._address
        os.kill(client.run(os.getpid)[place], signal.SIGKILL)
    after = segany.segment(embedding, points=[(20, 20)], model=far)
    np.testing.assert_array_equal(before.masks, after.masks)


def test_nothing_is_lost_when_the_worker_has_let_go_of_the_model(
    far: RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "CHECK", 0.3)
    embedding = far.embed(np.zeros((40, 50), np.uint8))
    key, place = far.link._actor.key, far.link._actor._address
    far.link._client.run(lambda dask_worker: dask_worker.state.actors.pop(key) and None, workers=[place])
    assert segany.segment(embedding, points=[(20, 20)], model=far).best.any()


def test_mistakes_are_told_as_they_are_here(address: str) -> None:
    with pytest.raises(UnknownModelError, match='There is no model or file "none"'):
        segany.load_model("none", device=address)


def test_a_line_that_stays_broken_is_said(far: RemoteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MEND", 2.0)
    monkeypatch.setattr(Link, "_open", lambda self: (_ for _ in ()).throw(OSError("no route")))
    far.link._drop()
    with pytest.raises(ClusterError, match="did not come back within 2 s; prompts and labels are safe"):
        far.embed(np.zeros((4, 4)))


def test_a_computer_without_torch_uses_a_model_elsewhere(address: str) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np, napari_segany as segany
model = segany.load_model("disc", device={address!r})
print(segany.segment(np.zeros((40, 50)), points=[(20, 20)], model=model).best.sum())
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) > 50


def test_certificates_are_asked_for_and_used(tmp_path: Path) -> None:
    import dask
    from distributed.security import Security

    from tests.cluster.plugin import FakeModels

    safe = Security.temporary()
    stack = zarr.create_array(tmp_path / "s.zarr", data=np.zeros((2, 30, 30), np.uint8), chunks=(1, 30, 30))
    assert stack.shape == (2, 30, 30)
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, security=safe, protocol="tls://", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, security=safe, set_as_default=False) as client,
    ):
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        with pytest.raises(ClusterError, match="certificates"):
            segany.load_model("disc", device=address)
        files = {}
        for name in ("tls_ca_file", "tls_client_cert", "tls_client_key"):
            files[name] = tmp_path / name
            files[name].write_text(getattr(safe, name))
        chosen = {
            "distributed.comm.tls.ca-file": str(files["tls_ca_file"]),
            "distributed.comm.tls.client.cert": str(files["tls_client_cert"]),
            "distributed.comm.tls.client.key": str(files["tls_client_key"]),
        }
        from napari_segany.models import registry

        original = registry.load_model
        client.register_plugin(FakeModels())
        try:
            with dask.config.set(chosen):
                model = segany.load_model("disc", device=address)
                assert segany.segment(np.zeros((40, 50)), points=[(20, 20)], model=model).best.any()
                model.link.close()
        finally:
            registry.load_model = original
