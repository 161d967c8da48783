"""What can go wrong with a concept is said in one clear sentence, in scripts and on the command line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imsave
from tifffile import imwrite

import napari_segany as segany
from napari_segany import cli
from napari_segany.core.errors import InvalidPromptError, UnsupportedError
from napari_segany.models.sam3.tokenizer import Tokenizer
from tests.fakes import DiscModel
from tests.session.test_finding import Islands

LONG = "a mitochondrion " * 40


class Worded(Islands):
    """Knows one word, and reads phrases as SAM 3 does."""

    def describe(self, text, examples):  # type: ignore[no-untyped-def]
        if text is not None and text != "island":
            Tokenizer([("a", "b")], 32)(text)
            raise InvalidPromptError("islands knows: island.")
        return super().describe(text, examples)


def picture(islands: int = 1) -> np.ndarray:
    image = np.zeros((40, 60), dtype=np.uint8)
    for i in range(islands):
        image[4:12, 5 + 20 * i : 15 + 20 * i] = 250
    return image


REQUESTS = [
    ({"text": "  "}, "The concept is empty; type what to look for"),
    ({"text": LONG}, "say it in fewer words"),
    ({"text": "giraffe"}, "knows: island"),
    ({}, "Say what to look for: a word, or boxes"),
    ({"negatives": [(4, 5, 12, 15)]}, "Say what to look for: a word, or boxes"),
    ({"exemplars": [(50, 70, 60, 90)]}, "covers no part of the image"),
    ({"text": "island", "exemplars": [(5, 5, 5, 9)]}, "covers no part of the image"),
    ({"text": "island", "negatives": [(9, 9, 5, 20)]}, "covers no part of the image"),
]


@pytest.mark.parametrize(("asked", "words"), REQUESTS)
def test_scripts(asked: dict[str, Any], words: str) -> None:
    model, image = Worded(), picture()
    session = segany.Session(np.stack([image, image]), model=model)
    volumes = segany.VolumeSession(np.stack([[image] * 2] * 2), model=model)
    calls: list[Callable[[], Any]] = [
        lambda: segany.find(image, **asked, model=model),
        lambda: session.find(**asked),
        lambda: session.track(**asked),
        lambda: volumes.track(**asked),
    ]
    for call in calls:
        with pytest.raises(InvalidPromptError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    assert session.tracks == [] and not np.asarray(session.labels).any()


def test_nano_names_the_words_it_knows() -> None:
    with pytest.raises(InvalidPromptError, match=r'not know "a mito[^"]*…", it knows: nucleus, .*SAM 3') as caught:
        segany.find(picture(), text="a mitochondrion\n" * 40)
    assert "\n" not in str(caught.value)


def test_models_without_concepts_say_which_have_them() -> None:
    session = segany.Session(np.zeros((2, 40, 60)), model=DiscModel())
    for call in (
        lambda: segany.find(picture(), text="cell", model=DiscModel()),
        lambda: session.find("cell"),
        lambda: session.track("cell"),
        lambda: segany.VolumeSession(np.zeros((2, 2, 9, 9)), model=DiscModel()).track("cell"),
    ):
        with pytest.raises(UnsupportedError, match="disc does not find concepts; use nano or SAM 3"):
            call()


def run(monkeypatch: pytest.MonkeyPatch, model: Any, *args: object) -> str | None:
    """The sentence with which a command ends, None when it goes well."""
    monkeypatch.setattr(cli.api, "load_model", lambda *a, **k: model)
    monkeypatch.setattr(sys, "argv", ["segany", *map(str, args)])
    try:
        cli.main()
    except SystemExit as stop:
        return None if stop.code in (0, None) else str(stop.code)
    return None


@pytest.mark.parametrize(("asked", "words"), REQUESTS)
@pytest.mark.parametrize("verb", ["find", "track"])
def test_command_line(
    verb: str, asked: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imsave(tmp_path / "a.png", picture(), check_contrast=False)
    args: list[object] = [verb, tmp_path / "a.png"]
    for name, option in (("exemplars", "--exemplar"), ("negatives", "--negative")):
        for box in asked.get(name, ()):
            args += [option, ",".join(map(str, box))]
    args += ["--text", asked["text"]] if "text" in asked else []
    args += ["-o", tmp_path / "o.zarr"] if verb == "track" else []
    said = run(monkeypatch, Worded(), *args)
    assert said is not None and words in said and "\n" not in said


def test_command_line_with_a_model_of_another_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imsave(tmp_path / "a.png", picture(), check_contrast=False)
    said = run(monkeypatch, DiscModel(), "find", tmp_path / "a.png", "--text", "cell")
    assert said == "segany: disc does not find concepts; use nano or SAM 3, or prompt with boxes."


@pytest.mark.parametrize("axes", [None, "ZYX", "TZYX"])
def test_nothing_found_is_told_and_no_mistake(
    axes: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {None: (40, 60), "ZYX": (3, 40, 60), "TZYX": (2, 3, 40, 60)}[axes]
    imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), metadata={"axes": axes or "YX"})
    args = ["find", tmp_path / "a.tif"] if axes is None else ["track", tmp_path / "a.tif", "-o", tmp_path / "o.zarr"]
    assert run(monkeypatch, Worded(), *args, "--text", "island") is None
    said = capsys.readouterr()
    assert "Nothing was found; lower the threshold, or draw a box" in said.err and "objects: 0" in said.out
