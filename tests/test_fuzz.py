"""Whatever is in a file or on the command line: it is read, or refused in one sentence.

``FUZZ=20`` in the environment tries twenty times as much.
"""

import copy
import io
import json
import math
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from napari_segany import api, cli
from napari_segany.core.errors import CheckpointError, InvalidPromptError, SeganyError, StorageError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.prompts import Prompt, make_prompt
from napari_segany.core.state import TABLES, ImageReference, SessionState
from napari_segany.io.journal import Journal, read_journal
from napari_segany.io.session_store import load_state, save_state
from napari_segany.models import registry
from napari_segany.models.nano.network import Nano, NanoConfig
from napari_segany.models.nano.weights import save_weights
from napari_segany.session.propagating_session import PropagatingSession as Session
from tests.fakes import DiscModel
from tests.session.conftest import ArrayFrames, ArrayLabels

MORE = int(os.environ.get("FUZZ", "1"))


def fuzz(examples: int) -> Callable:
    return settings(
        max_examples=MORE * examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def refused_or_not(act: Callable[[], Any], kind: type[SeganyError] = SeganyError) -> Any:
    """The result, or None after one sentence; any other error fails the test."""
    try:
        return act()
    except kind as error:
        assert str(error) and "\n" not in str(error), repr(str(error))
        return None


# -- checkpoints ---------------------------------------------------------------------------------


def small_nano() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_weights(Nano(NanoConfig(8, (8, 8, 8, 8), (1, 1, 1, 1), 8, 8, 16, 1, 1)), Path(folder) / "n.safetensors")
        return (Path(folder) / "n.safetensors").read_bytes()


def pickled(state: object, archive: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


TENSORS = {"mask_decoder.iou_token.weight": torch.ones(1, 4), "image_encoder.pos_embed": torch.zeros(1, 2, 2, 3)}
SEEDS = {
    "nano.safetensors": small_nano(),
    "a.safetensors": save(TENSORS),
    "archive.pt": pickled({"model": TENSORS}),
    "old.pth": pickled(TENSORS, archive=False),
}


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that were flipped, cut, repeated, or replaced, the beginning and the end above all."""
    spoiled = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        far = draw(st.sampled_from([64, 1024, len(data)]))
        start = draw(st.integers(0, max(0, min(far, len(spoiled)) - 1)))
        if draw(st.booleans()):
            start = max(0, len(spoiled) - 1 - start)
        how = draw(st.sampled_from(["set", "cut", "insert", "end"]))
        piece = draw(st.binary(min_size=1, max_size=9))
        if how == "set":
            spoiled[start : start + len(piece)] = piece
        elif how == "cut":
            del spoiled[start : start + draw(st.integers(1, 99))]
        elif how == "insert":
            spoiled[start:start] = piece
        elif draw(st.booleans()):
            del spoiled[start:]
    return bytes(spoiled)


@pytest.mark.parametrize("name", SEEDS)
@given(data=st.data())
@fuzz(15)
def test_damaged_checkpoints(name: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data.draw(damaged(SEEDS[name])))
        refused_or_not(lambda: registry.load_model(path, "cpu", "float32"), CheckpointError)


#: Keys that tell families, and some that are renamed, joined or cut on the way.
KEYS = [
    "image_encoder.pos_embed",
    "mask_decoder.iou_token.weight",
    "image_encoder.patch_embed.seq.0.c.weight",
    "vision_encoder.pos_embed",
    "prompt_encoder.shared_embedding.positional_embedding",
    "prompt_encoder.point_embed.weight",
    "image_encoder.trunk.pos_embed_window",
    "image_encoder.trunk.pos_embed",
    "image_encoder.trunk.blocks.1.norm1.weight",
    "vision_encoder.backbone.pos_embed_window",
    "vision_encoder.backbone.pos_embed",
    "no_obj_embed_spatial",
    "detector.backbone.vision_backbone.trunk.pos_embed",
    "detector_model.vision_encoder.backbone.embeddings.position_embeddings",
    "detector_model.vision_encoder.backbone.layers.0.attention.q_proj.weight",
    "detector_model.vision_encoder.backbone.layers.0.attention.k_proj.weight",
    "tracker_model.prompt_encoder.point_embed.weight",
    "decoder.to_weights.weight",
    "encoder.stem.0.0.weight",
    "x",
]
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 96, 112, 144, 768, 1024, 10**6, 10**9]), max_size=5).map(tuple)
shapes = shapes.filter(lambda shape: math.prod(max(extent, 1) for extent in shape) < 2**60)


def claimed(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of any shape from a few bytes, as a file can claim it."""
    return torch.zeros(1, dtype=dtype).as_strided(shape, (0,) * len(shape))


tensors = st.builds(claimed, shapes, st.sampled_from([torch.float32, torch.int64, torch.bool, torch.complex64]))
others = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
states = st.dictionaries(st.sampled_from(KEYS), tensors, max_size=8)


@given(states, others | states, st.sampled_from(["model", "model_state", "state_dict", "sam", None]))
@fuzz(30)
def test_tensors_that_claim_to_be_anything(state: dict, other: object, wrap: str | None) -> None:
    loaded: object = {wrap: state, "other": other} if wrap else {**state, "other": other} if other is None else state
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.pt"
        path.write_bytes(pickled(loaded))
        assert refused_or_not(lambda: registry.load_model(path, "cpu", "float32"), CheckpointError) is None


# -- sessions ------------------------------------------------------------------------------------

SHAPE = (4, 9, 11)
REFERENCE = ImageReference(None, "zyx", "z", {}, SHAPE, IntensityRange((0.0,), (255.0,)))
STATE = SessionState(
    REFERENCE,
    "disc",
    {(1, 0): Prompt(np.array([[3.0, 4.0]]), np.array([1])), (2, 3): Prompt(mask=np.ones((9, 11), np.float32))},
    {(1, 0): True},
    {(1, 0): 0.5, (2, 3): 0.25},
    {(2, 3): 1},
    finished={0, 1},
)
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, -(2**63), 2**80, 1e308, float("nan"), float("inf"), "", "z", "../../x", "\0", "ü" * 99]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["mask", "shape", "points"]), inner),
    max_leaves=5,
)


def places(value: Any, here: tuple = ()) -> list[tuple]:
    """Where something can be replaced in a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*here, key) for key, _ in inside] + [at for key, one in inside for at in places(one, (*here, key))]


def spoiled(document: Any, data: st.DataObject) -> Any:
    """A document with some of its values replaced or removed."""
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(document)))
        inside = document
        for key in way:
            inside = inside[key]
        if data.draw(st.booleans()):
            inside[last] = data.draw(junk)
        else:
            del inside[last]
        if not places(document):
            break
    return document


def use(state: SessionState) -> None:
    """Whatever was believed must be fit to be worked with."""
    assume(state.image.shape == SHAPE)
    session = Session(ArrayFrames(np.zeros(SHAPE, np.uint8)), DiscModel(), ArrayLabels(SHAPE))
    for table in TABLES:
        getattr(session, table).update(getattr(state, table))
    session.finished.update(state.finished)
    for object_id in {i for i, _ in (*session.scores, *session.prompts)}:
        session.uncertainty(object_id)
        for frame in range(len(session.frames)):
            session.candidates(object_id, frame)
    assert session.tracks is not None and session.next_object_id() > 0
    session.most_uncertain()
    refused_or_not(lambda: list(session.propagate()))
    session.undo()


def use_what_opens(path: Path) -> None:
    state = refused_or_not(lambda: load_state(path), StorageError)
    if state is not None:
        use(state)


@given(st.data())
@fuzz(50)
@pytest.mark.filterwarnings("ignore")
def test_damaged_sessions(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        save_state(path, STATE)
        file = path / "segany" / "session.json"
        if data.draw(st.booleans()):
            file.write_text(json.dumps(spoiled(json.loads(file.read_text()), data)))
        else:
            file.write_bytes(data.draw(damaged(file.read_bytes())))
        use_what_opens(path)


EVENTS = [
    {"event": "set", "table": "prompts", "object": 1, "frame": 2, "value": {"points": [[1, 2]], "labels": [1]}},
    {"event": "set", "table": "scores", "object": 1, "frame": 2, "value": 0.5},
    {"event": "set", "table": "accepted", "object": 1, "frame": 0, "value": None},
    {"event": "run"},
    {"event": "frame", "frame": 3},
]


@given(st.data())
@fuzz(40)
@pytest.mark.filterwarnings("ignore")
def test_damaged_journals(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        save_state(path, STATE)
        file = path / "segany" / "journal.jsonl"
        document = {"version": 2, "events": EVENTS}
        body = json.dumps(spoiled(document, data)).encode()
        file.write_bytes(b"%08x %s\n" % (zlib.crc32(body), body))
        if data.draw(st.booleans()):
            file.write_bytes(data.draw(damaged(file.read_bytes())))
        use_what_opens(path)
        # What comes after it is kept.
        journal = Journal(file)
        journal.append({"event": "frame", "frame": 1})
        journal.close()
        events = refused_or_not(lambda: read_journal(file), StorageError)
        assert events is None or events[-1] == {"event": "frame", "frame": 1}


# -- prompts and the command line ------------------------------------------------------------------

numbers = st.integers(-3, 12) | st.sampled_from([float("nan"), float("inf"), -1e308, 2**70, 3.5, True, None, "4", 1j])
anything = numbers | st.lists(numbers, max_size=5) | st.lists(st.lists(numbers, max_size=5), max_size=3) | st.text()
arrays = st.builds(
    lambda shape, dtype, value: np.full(shape, value).astype(dtype),
    st.lists(st.integers(0, 11), max_size=3),
    st.sampled_from(["?", "u1", "i8", "f4", "f8", "c8", "U1", "O"]),
    st.sampled_from([0, 1, 2]),
)


@given(st.none() | anything | arrays, st.none() | anything | arrays, st.none() | anything | arrays, anything | arrays)
@fuzz(100)
@pytest.mark.filterwarnings("ignore")
def test_prompts_of_any_kind(points: Any, labels: Any, box: Any, mask: Any) -> None:
    prompt = refused_or_not(lambda: make_prompt((9, 11), points, labels, box, mask), InvalidPromptError)
    if prompt is not None:
        assert np.isfinite(prompt.points).all() and prompt.points.shape == (len(prompt.labels), 2)
        assert set(prompt.labels.tolist()) <= {0, 1}
        assert prompt.box is None or (prompt.box[2:] > prompt.box[:2]).all()
        assert prompt.mask is None or np.isfinite(prompt.mask).all()


WORDS = """
1,2 1,2,0 1,2,nan 1,2,inf inf,1 1e999,0 1,,2 , 1;2 -1,-1 0,0,9,9 z t=1 t=² ² -- --5 -5 +1 nan 0.5 99 -1
/dev/null / . .. nano sam none.tif a/../b {image} {stack} {folder}/o.zarr {folder}/o.tif forward
"""
words = [*WORDS.split(), "", " ", "\x00", "x" * 5000, "1" * 400, "ü" * 200]


#: Commands that do something by themselves, with a place for the image behind their first word.
VERBS = """
segment -p 4,5
everything
find --text nucleus
propagate --frame 0 -o o.zarr -p 4,5
track -o o.zarr --text nucleus
models import
"""
VERBS = [line.split() for line in VERBS.strip().splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import tifffile
    from skimage.io import imsave

    folder = tmp_path_factory.mktemp("cli")
    imsave(folder / "a.png", np.zeros((9, 11), np.uint8), check_contrast=False)
    tifffile.imwrite(folder / "s.tif", np.zeros((3, 9, 11), np.uint8), metadata={"axes": "ZYX"})
    return {"image": str(folder / "a.png"), "stack": str(folder / "s.tif"), "folder": str(folder)}


def options(verb: list[str]) -> list[str]:
    """The long names of what a command can be told."""
    command = typer.main.get_command(cli.app)
    for name in verb[:2] if verb[0] == "models" else verb[:1]:
        command = command.commands[name]  # type: ignore[attr-defined]
    return [max(parameter.opts, key=len) for parameter in command.params if parameter.opts[0].startswith("-")]


def variants(verb: list[str]) -> list[tuple[str, ...]]:
    """A command with another image, with one option more or another value for it, and with a word too many."""
    named = 2 if verb[0] == "models" else 1
    start, rest = verb[:named], verb[named:]
    return [
        *((*start, word, *rest) for word in words),
        *((*start, "{stack}", *rest, word) for word in words),
        *((*start, "{stack}", *rest, option, word) for option in options(verb) for word in words),
    ]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@given(st.data())
@fuzz(12)
def test_any_words_on_the_command_line(files: dict[str, str], verb: list[str], data: st.DataObject) -> None:
    typed = data.draw(st.sampled_from(variants(verb)))
    run_in_one_sentence([word.format(**files) if "{" in word else word for word in typed])


def run_in_one_sentence(args: list[str]) -> None:
    """Run the command line as `main` does; what it ends in is an exit code or one line."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(api, "load_model", lambda name, device="auto", dtype="auto": DiscModel())
        patch.setenv("SEGANY_CACHE", folder)
        patch.chdir(folder)
        patch.setattr("sys.argv", ["segany", *args])
        try:
            cli.main()
        except SystemExit as stop:
            if isinstance(stop.code, str):
                assert stop.code.startswith("segany: ") and "\n" not in stop.code, stop.code
