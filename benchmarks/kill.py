"""Kill the program at random moments, open again what it left, and count what is lost.

``python benchmarks/kill.py --rounds 300 --seed 0`` forks a process for each
round, lets it prompt, accept, propagate, save, encode, download, import or
write checkpoints, and ends it with SIGKILL. Before and after everything that
it writes, the process says so through a pipe, which outlives it; another one
then opens what lies on the disk and compares. Exits with 1 when anything is
lost that is not the plane or the step in flight.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

import napari_segany as segany
from napari_segany import api
from napari_segany.core.errors import SeganyError
from napari_segany.core.state import TABLES
from napari_segany.models import checkpoints, registry
from napari_segany.models.download import download
from napari_segany.models.nano.network import Nano, NanoConfig
from napari_segany.models.nano.weights import save_weights
from napari_segany.training import run as training
from napari_segany.training.optimiser import Optimiser

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fakes import DiscModel, disc

SHAPE = (10, 300, 320)
STACK = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
#: A network that is written and read in milliseconds.
SMALL = NanoConfig(8, (8, 8, 8, 8), (1, 1, 1, 1), 8, 8, 16, 1, 1)
CONTENT = np.random.default_rng(0).bytes(2_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
#: Seconds within which a process that is ready is killed.
LONGEST = 0.8

Say = Callable[..., None]


# -- what is killed ------------------------------------------------------------------------------


def told(session: api.Session, say: Say) -> api.Session:
    """Let a session say what it is going to write, and when it has."""
    write, record = session.store.write, session._record

    def write_and_say(frame: int, labels: np.ndarray) -> None:
        say("write", frame, digest(labels))
        write(frame, labels)
        say("written", frame)

    def record_and_say(events: list[dict]) -> None:
        say("note", [plain(event) for event in events])
        record(events)
        say("noted")

    session.store.write, session._record = write_and_say, record_and_say  # type: ignore[method-assign]
    return session


def work(folder: Path, say: Say, seed: int, only: str) -> None:
    """Do what a person does, without end; every third time a kill may come while the session begins."""
    rng = random.Random(seed)
    if seed % 3 == 0:
        say("ready")
    session = told(api.Session(STACK, model=DiscModel(delay=0.002), labels=folder / "work.zarr"), say)
    say("ready")
    session.accept(1, 0, mask=disc(SHAPE[1:], (150, 160), 40))
    while True:
        if only == "save":
            session.save(folder / "work.zarr" if rng.random() < 0.5 else folder / f"copy-{rng.randint(0, 3)}.zarr")
        elif only == "propagate":
            for _ in session.propagate(direction=rng.choice(["both", "forward"]), start=0, stop=rng.randint(2, 10)):
                pass
        elif only == "embed":
            session.embedding(rng.randrange(SHAPE[0]))
        gesture(session, rng)


def gesture(session: api.Session, rng: random.Random) -> None:
    object_id, frame = rng.randint(1, 3), rng.randrange(SHAPE[0])
    point = rng.randint(0, SHAPE[1] - 1), rng.randint(0, SHAPE[2] - 1)
    what = rng.choice(["prompt", "accept", "accept", "forget", "remove", "undo", "undo", "redo"])
    if what == "prompt":
        session.prompt(object_id, frame, points=[point])
    elif what == "accept":
        session.accept(object_id, frame, mask=disc(SHAPE[1:], point, rng.randint(2, 60)), overwrite=rng.random() < 0.5)
    elif what == "forget":
        session.forget(object_id, frame)
    elif what == "remove":
        session.remove(object_id)
    else:
        (session.undo if what == "undo" else session.redo)()


def fetch(folder: Path, say: Say, seed: int, url: str) -> None:
    """Download one file after the other; every second time two processes want the same."""
    if seed % 2 and os.fork() == 0:
        say = nothing
    say("ready")
    for number in range(1000):
        download(url, folder / f"{number}.pt", DIGEST)
        say("downloaded", number)


def nothing(*words: Any) -> None:
    """Stay silent, as the second process of `fetch` does."""


def keep_models(folder: Path, say: Say, seed: int) -> None:
    """Import a model under one name after the other."""
    os.environ["SEGANY_CACHE"] = str(folder)
    save_weights(Nano(SMALL), folder / "small.safetensors")
    say("ready")
    for number in range(1000):
        segany.import_model(folder / "small.safetensors", f"mine-{number}")
        say("imported", number)


def train(folder: Path, say: Say, seed: int) -> None:
    """Write one checkpoint of a training after the other; all weights of number n are n."""
    model, average = Nano(SMALL), Nano(SMALL)
    optimiser = Optimiser(model, 1e-3, 0.0)
    say("ready")
    for step in range(1, 1000):
        with torch.no_grad():
            for weight in (*model.parameters(), *average.parameters()):
                weight.fill_(step)
        training._save(folder, model, average, optimiser, step, float(step))
        say("saved", step)


# -- what is compared ----------------------------------------------------------------------------


def digest(labels: np.ndarray) -> str:
    return hashlib.sha1(np.ascontiguousarray(labels, dtype=np.int32).tobytes()).hexdigest()[:12]


def plain(event: dict) -> dict:
    """An event as JSON, a prompt by what it is made of."""
    value = event.get("value")
    return {**event, "value": as_json(value)} if event["event"] == "set" else event


def as_json(value: Any) -> Any:
    if hasattr(value, "points"):
        return [value.points.tolist(), value.labels.tolist()]
    return value


def replayed(notes: list[list[dict]]) -> dict[str, Any]:
    """What a session must remember, by a replay as simple as can be."""
    state: dict[str, Any] = {table: {} for table in TABLES} | {"finished": []}
    for event in (event for events in notes for event in events):
        if event["event"] == "run":
            state["finished"] = []
        elif event["event"] == "frame":
            state["finished"] = sorted({*state["finished"], event["frame"]})
        else:
            key = f"{event['object']},{event['frame']}"
            state[event["table"]].pop(key, None)
            if event["value"] is not None:
                state[event["table"]][key] = event["value"]
    return state


def remembered(session: api.Session) -> dict[str, Any]:
    state: dict[str, Any] = {
        table: {f"{i},{frame}": as_json(value) for (i, frame), value in getattr(session, table).items()}
        for table in TABLES
    }
    return {**state, "finished": sorted(session.finished)}


def check_work(folder: Path, said: list[list]) -> str:
    """Compare a session with what its process said; returns what was in flight."""
    path = folder / "work.zarr"
    empty = digest(np.zeros(SHAPE[1:]))
    planes, flying, notes, noting = dict.fromkeys(range(SHAPE[0]), empty), None, [], None
    for word, *rest in said:
        if word == "write":
            flying = rest
        elif word == "written":
            assert flying is not None
            planes[flying[0]], flying = flying[1], None
        elif word == "note":
            noting = rest[0]
        elif word == "noted":
            notes.append(noting)
            noting = None
    state_file = path / "segany" / "session.json"
    if not state_file.exists():
        assert not notes, "a session that has noted something has no state"
        # Killed while it began: the next one can begin.
        api.Session(STACK, model=DiscModel(), labels=path).close()
        return "beginning"
    found = [digest(plane) for plane in zarr.open_array(path / "labels" / "segany" / "0", mode="r")]
    lost = [at for at in planes if found[at] != planes[at] and [at, found[at]] != flying]
    assert not lost, f"planes {lost} are not as they were"
    session = api.Session.open(path, stack=STACK, model=DiscModel())
    now = remembered(session)
    assert now in (replayed(notes), replayed([*notes, noting] if noting else notes)), "the journal is not as it was"
    session.accept(3, 1, mask=disc(SHAPE[1:], (9, 9), 3), overwrite=True)
    session.save(path)
    session.close()
    again = api.Session.open(path, stack=STACK, model=DiscModel())
    assert again.labels[1][9, 9] == 3 and again.accepted[3, 1], "the work cannot go on"
    again.close()
    assert not list(path.rglob("*.partial")), "half written files are left behind"
    for copy in folder.glob("copy-*.zarr"):
        try:
            api.Session.open(copy, stack=STACK, model=DiscModel()).close()
        except SeganyError as error:
            assert "holds no session" in str(error), str(error)
    return "plane" if flying else "step" if noting else "nothing"


def check_fetched(folder: Path, said: list[list], url: str) -> str:
    done = [number for _, number in said]
    whole = [path for path in folder.glob("*.pt") if path.read_bytes() == CONTENT]
    assert len(whole) == len(list(folder.glob("*.pt"))) and len(whole) >= len(done), "a file is there in part"
    parts = list(folder.glob("*.part"))
    assert all(CONTENT.startswith(part.read_bytes()) for part in parts), "a part is not the beginning of the file"
    assert download(url, folder / f"{len(done)}.pt", DIGEST).read_bytes() == CONTENT, "it cannot go on"
    return "file" if parts else "nothing"


def check_models(folder: Path, said: list[list]) -> str:
    os.environ["SEGANY_CACHE"] = str(folder)
    own = [info for info in registry.list_models() if info.name.startswith("mine")]
    assert len(own) >= len(said) and {info.family for info in own} <= {"nano"}, "a model is gone"
    for info in own[-2:]:
        segany.load_model(info.name, device="cpu")
    return "file" if list((folder / "models").glob("*.new")) else "nothing"


def check_training(folder: Path, said: list[list]) -> str:
    last = folder / "last.pt"
    if not last.exists():
        assert not said, "a checkpoint is gone"
        return "beginning"
    saved = training.read_checkpoint(last)
    assert saved["step"] in (len(said), len(said) + 1), "a checkpoint is gone"
    assert all((weight == saved["step"]).all() for weight in saved["model"].values() if weight.is_floating_point())
    weights = folder / "nano.safetensors"
    if weights.exists():
        state = checkpoints.read_state(weights)
        (kept,) = {float(one) for name, _ in Nano(SMALL).named_parameters() for one in state[name].unique()}
        assert saved["step"] - 1 <= kept <= saved["step"], "the weights are of another step"
    return "file" if list(folder.glob("*.new")) else "nothing"


# -- rounds --------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Sends CONTENT slowly, from where it is asked to."""

    def do_GET(self) -> None:
        """Answer."""
        given = self.headers.get("Range", "")
        start = int(given.removeprefix("bytes=").rstrip("-")) if given else 0
        self.send_response(416 if start >= len(CONTENT) else 206 if start else 200)
        self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        for at in range(start, len(CONTENT), 150_000):
            self.wfile.write(CONTENT[at : at + 150_000])
            time.sleep(0.01)

    def handle(self) -> None:
        """Answer, or not."""
        # Whoever asked may have been killed.
        with suppress(OSError):
            super().handle()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def in_child(target: Callable[[Say], None]) -> tuple[int, int]:
    """Run a function in a process of its own; returns its id and the end of a pipe for what it says."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    os.close(reader)
    os.setpgid(0, 0)

    def say(*words: Any) -> None:
        os.write(writer, (json.dumps(words) + "\n").encode())

    try:
        target(say)
    except BaseException:
        say("failed", traceback.format_exc())
    os._exit(0)


def heard(reader: int) -> list[list]:
    """All whole lines that a process has said."""
    with os.fdopen(reader, "rb") as pipe:
        return [json.loads(line) for line in pipe.read().split(b"\n")[:-1]]


def one_round(kind: str, folder: Path, seed: int, url: str) -> str:
    """Start, kill, open again; returns what was in flight.

    Raises
    ------
    AssertionError
        Something was lost.
    """
    rng = random.Random(seed)
    jobs: dict[str, tuple[Callable, Callable]] = {
        "download": (
            lambda say: fetch(folder, say, seed, url),
            lambda said: check_fetched(folder, said, url),
        ),
        "import": (lambda say: keep_models(folder, say, seed), lambda said: check_models(folder, said)),
        "train": (lambda say: train(folder, say, seed), lambda said: check_training(folder, said)),
    }
    session = (lambda say: work(folder, say, seed, kind), lambda said: check_work(folder, said))
    target, check = jobs.get(kind, session)
    pid, reader = in_child(target)
    # Its first word is that it is ready.
    select.select([reader], [], [])
    time.sleep(rng.uniform(0, LONGEST))
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    said = [words for words in heard(reader) if words != ["ready"]]
    failed = [words for words in said if words[0] == "failed"]
    assert not failed, failed[0][1]

    def compare(say: Say) -> None:
        warnings.simplefilter("error", UserWarning)
        say("flying", check(said))

    pid, reader = in_child(compare)
    os.waitpid(pid, 0)
    ((word, answer),) = heard(reader)
    assert word == "flying", answer
    return answer


KINDS = ("accept", "propagate", "save", "embed", "download", "import", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    args = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving, _ = in_child(lambda say: server.serve_forever())
    url = f"http://127.0.0.1:{server.server_port}/model.pt"
    flying: Counter[tuple[str, str]] = Counter()
    losses = 0
    for number in range(args.rounds):
        kind, seed = args.kinds[number % len(args.kinds)], 1000 * args.seed + number
        folder = Path(tempfile.mkdtemp(prefix="segany-kill-"))
        try:
            flying[kind, one_round(kind, folder, seed, url)] += 1
        except AssertionError as error:
            losses += 1
            print(f"round {number} ({kind}, seed {seed}): {error}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    os.kill(serving, signal.SIGKILL)
    for kind in args.kinds:
        found = {what: count for (one, what), count in sorted(flying.items()) if one == kind}
        print(f"{kind:10} {sum(found.values()):4} rounds, in flight: {found}")
    print(f"{args.rounds} rounds, {losses} with losses")
    sys.exit(losses > 0)


if __name__ == "__main__":
    main()
