"""Phrases as CLIP's tokens, against transformers with the same vocabulary."""

import gzip
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from napari_segany.core.errors import CheckpointError, InvalidPromptError
from napari_segany.models.sam3.tokenizer import VOCABULARY_FILES, Tokenizer, load_tokenizer

WORDS = re.split(
    r"\s+",
    "nucleus nuclei cell cells bacterium mitochondria membrane neurite dividing round dark bright of the in a with "
    "fluorescent 3D GFP-positive apical don't it's we'll 42 10µm β-tubulin café naïve façade zürich 細胞 ядро 🙂 "
    "&amp; &lt;b&gt; ﬁbre line's ... ?! (left) cell_7 HeLa/293T x²",
)


def merges() -> list[tuple[str, str]]:
    """A small vocabulary learned from the words above, most frequent pairs first."""
    tokenizer = Tokenizer([])
    corpus = [list(tokenizer._split_word(word.lower())) for word in WORDS if word.strip()]
    found: list[tuple[str, str]] = []
    for _ in range(150):
        counts: dict[tuple[str, str], int] = {}
        for parts in corpus:
            for pair in pairwise(parts):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda pair: (counts[pair], pair))
        found.append(best)
        tokenizer = Tokenizer(found)
        corpus = [list(tokenizer._split_word(word.lower())) for word in WORDS if word.strip()]
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(merges(), length=77)


@pytest.fixture(scope="module")
def oracle(tokenizer: Tokenizer) -> CLIPTokenizer:
    special = {"<|startoftext|>": tokenizer.start, "<|endoftext|>": tokenizer.end}
    return CLIPTokenizer(vocab=tokenizer.ids | special, merges=list(tokenizer.ranks))


def test_a_thousand_phrases_are_encoded_as_by_transformers(tokenizer: Tokenizer, oracle: CLIPTokenizer) -> None:
    rng = random.Random(0)
    # It leaves ligatures and HTML as they are; published code mends both.
    plain = [word for word in WORDS if "&" not in word and "ﬁ" not in word]
    phrases = [" ".join(rng.choices(plain, k=rng.randint(1, 8))) for _ in range(1000)]
    assert len({tuple(tokenizer(phrase)) for phrase in phrases}) > 900
    for phrase in phrases:
        assert tokenizer(phrase) == oracle(phrase)["input_ids"], phrase


def test_broken_text_is_mended(tokenizer: Tokenizer) -> None:
    assert tokenizer("ﬁbre &amp;amp;  Cell") == tokenizer("fibre & cell")
    assert tokenizer("CafÃ©") == tokenizer("café")


def test_letters_have_the_published_ids() -> None:
    ids = Tokenizer([]).ids
    assert (ids["!"], ids["a"], ids["!</w>"], ids["a</w>"]) == (0, 64, 256, 320)


def test_long_phrases_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidPromptError, match="fewer words"):
        tokenizer("cell " * 80)


def test_the_vocabulary_lies_beside_the_checkpoint(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="save it in"):
        load_tokenizer(tmp_path, 32)
    lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges())])
    (tmp_path / VOCABULARY_FILES[0]).write_bytes(gzip.compress(lines.encode()))
    assert load_tokenizer(tmp_path, 32)("nucleus") == tokenizer("nucleus")
    (tmp_path / VOCABULARY_FILES[0]).write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="not CLIP's vocabulary"):
        load_tokenizer(tmp_path, 32)
    (tmp_path / VOCABULARY_FILES[0]).write_bytes(gzip.compress(b"a b\n" * 5_000_000))
    with pytest.raises(CheckpointError, match="it is too long"):
        load_tokenizer(tmp_path, 32)
