"""CLIP's byte-pair encoding of phrases (Radford et al. 2021; Sennrich et al. 2016)."""

from __future__ import annotations

import gzip
import html
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from napari_segany.core.concepts import shortened
from napari_segany.core.errors import CheckpointError, InvalidPromptError

#: Names under which the merges lie beside a checkpoint: OpenAI's file, and that of transformers.
VOCABULARY_FILES = ("bpe_simple_vocab_16e6.txt.gz", "merges.txt")
VOCABULARY_URL = "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz"
#: Two byte alphabets (within a word, and at its end) and two special tokens are no merges.
MERGES = 49408 - 2 * 256 - 2
WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
END_OF_WORD = "</w>"
#: Bytes of a vocabulary at most, three times those of CLIP's.
LARGEST = 10_000_000


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes: itself where it is printable, else one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


class Tokenizer:
    """Phrases to token ids.

    Parameters
    ----------
    merges : pairs of pieces, the most frequent first
    length : int
        Tokens at most, the first and the last included.
    """

    def __init__(self, merges: list[tuple[str, str]], length: int = 32) -> None:
        import regex

        self.length = length
        self.letters = _byte_letters()
        # The ids of single bytes are in the order in which the bytes are printable.
        alphabet = sorted(self.letters, key=lambda letter: (ord(letter) >= 256, ord(letter)))
        pieces = [*alphabet, *(letter + END_OF_WORD for letter in alphabet), *("".join(pair) for pair in merges)]
        self.ids = {piece: number for number, piece in enumerate(pieces)}
        self.start, self.end = len(pieces), len(pieces) + 1
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.words = regex.compile(WORDS, regex.IGNORECASE)
        self._split = lru_cache(maxsize=4096)(self._split_word)

    def __call__(self, text: str) -> list[int]:
        """Encode a phrase, with the tokens of its beginning and end.

        Raises
        ------
        InvalidPromptError
            The phrase is too long.
        """
        ids = [self.ids[piece] for word in self.words.findall(_cleaned(text)) for piece in self._split(word)]
        if len(ids) + 2 > self.length:
            raise InvalidPromptError(
                f'The concept "{shortened(text)}" is {len(ids)} tokens long; at most {self.length - 2} fit, so say it '
                "in fewer words."
            )
        return [self.start, *ids, self.end]

    def _split_word(self, word: str) -> tuple[str, ...]:
        """Join the letters of a word, the most frequent pair of neighbours first, until no pair is known."""
        letters = [self.letters[byte] for byte in word.encode()]
        parts = [*letters[:-1], letters[-1] + END_OF_WORD]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return tuple(parts)


def _cleaned(text: str) -> str:
    """Mend broken encodings and entities, and write in small letters with single spaces."""
    import ftfy

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split()).lower()


def load_tokenizer(folder: Path, length: int) -> Tokenizer:
    """Read the vocabulary that lies beside a checkpoint.

    Raises
    ------
    CheckpointError
        It is not there or not a vocabulary.
    """
    path = next((folder / name for name in VOCABULARY_FILES if (folder / name).exists()), None)
    if path is None:
        raise CheckpointError(
            f"Words need CLIP's vocabulary: get {VOCABULARY_URL} and save it in {folder}; boxes work without it."
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(LARGEST)
            if file.read(1):
                raise ValueError("it is too long")
        # The first line says what the file is.
        lines = raw.decode().strip().split("\n")[1 : MERGES + 1]
        merges = [(first, second) for first, second in (line.split() for line in lines)]
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is not CLIP's vocabulary ({error}); get it from {VOCABULARY_URL}.") from error
    return Tokenizer(merges, length)
