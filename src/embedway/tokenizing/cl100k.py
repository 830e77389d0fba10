"""Encodes and decodes cl100k_base, the vocabulary of OpenAI's embedding models.

Owns the vocabulary file beside this module, when it is read, and which thread does the work. Knows
nothing about models or their limits.
"""

import base64
import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from embedway.concurrency.group_worker import EqualShares, GroupWorker
from embedway.core.errors import InvalidRequest, ServiceOverloaded

if TYPE_CHECKING:
    import tiktoken

RANKS = Path(__file__).with_name("cl100k_base.tiktoken")
RANKS_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
VOCABULARY_SIZE = 100_256
"""How many ordinary ids there are. The ids of special tokens come after them."""

# Copied from tiktoken.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

# Up to this size the event loop does the work itself. A thread costs 85 to 120 us of time and of
# CPU. 2,048 characters take 150 us as prose and 240 at worst, 2,048 ids take 25, and a short text
# takes 2. 2,048 texts of one character take 1.3 ms, and 1.9 with the thread.
INLINE_CHARACTERS = 2_048
INLINE_TOKENS = 2_048

# As for local models, a small request behind a large one waits for a group or two.
GROUP_CHARACTERS = 65_536
GROUP_TOKENS = 65_536
MAX_WAITING_CHARACTERS = 64 * 2**20
MAX_WAITING_TOKENS = 600_000

T = TypeVar("T")


class _ItemError(Exception):
    """Says what is wrong with one item. The others are answered."""


class Cl100kTokenizer:
    """Encodes texts to the token ids that OpenAI bills, and decodes ids to texts.

    It reads nothing and starts no thread before its first use. All requests of an event loop share
    one instance.
    """

    def __init__(self) -> None:
        self._vocabulary: tiktoken.Encoding | None = None
        self._reading = threading.Lock()
        self._encoding: GroupWorker[str, list[int] | _ItemError] | None = None
        self._decoding: GroupWorker[Sequence[int], str | _ItemError] | None = None
        self._closed = False

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text. What looks like a special token is treated as text.

        Time is linear in the characters, whatever they are: 100,000 take 1 to 30 ms. Texts must
        not have lone surrogates.

        Raises:
            InvalidRequest: A text cannot be tokenised, such as one with a million spaces in a row.
            ServiceOverloaded: The queue is full.
        """
        self._check_open()
        if self._vocabulary and sum(map(len, texts)) <= INLINE_CHARACTERS:
            return _require_all([_encode(self._vocabulary, text) for text in texts])
        if not self._encoding:
            self._encoding = GroupWorker(
                self._encode_group,
                name="cl100k-encode",
                queue=EqualShares(GROUP_CHARACTERS),
                max_waiting_weight=MAX_WAITING_CHARACTERS,
                weigh=len,
            )
        return _require_all(await self._encoding.submit(texts))

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each item, byte for byte.

        Encoding the text again may give other ids, because several lists of ids can have one text.

        Raises:
            InvalidRequest: An id is special or unknown, or an item cuts a character in two.
            ServiceOverloaded: The queue is full.
        """
        self._check_open()
        if self._vocabulary and sum(map(len, items)) <= INLINE_TOKENS:
            return _require_all([_decode(self._vocabulary, ids) for ids in items])
        if not self._decoding:
            self._decoding = GroupWorker(
                self._decode_group,
                name="cl100k-decode",
                queue=EqualShares(GROUP_TOKENS),
                max_waiting_weight=MAX_WAITING_TOKENS,
                weigh=len,
            )
        return _require_all(await self._decoding.submit(items))

    @property
    def alive(self) -> bool:
        """Whether it is open and its threads are running."""
        started = (worker for worker in (self._encoding, self._decoding) if worker)
        return not self._closed and all(worker.is_alive for worker in started)

    def close(self) -> None:
        """Finish the queued work and end the threads. Blocks until they have ended."""
        self._closed = True
        for worker in (self._encoding, self._decoding):
            if worker:
                worker.close()

    def _check_open(self) -> None:
        # Without this check a late request would start a thread that never ends.
        if self._closed:
            raise ServiceOverloaded("This gateway is stopping. Send requests elsewhere.")

    def _encode_group(
        self, texts: list[str]
    ) -> Iterator[tuple[Sequence[int], Sequence[list[int] | _ItemError]]]:
        vocabulary = self._read()
        yield range(len(texts)), [_encode(vocabulary, text) for text in texts]

    def _decode_group(
        self, items: list[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], Sequence[str | _ItemError]]]:
        vocabulary = self._read()
        yield range(len(items)), [_decode(vocabulary, ids) for ids in items]

    def _read(self) -> "tiktoken.Encoding":
        """Return the vocabulary. The first thread reads it, which takes 110 ms."""
        with self._reading:
            if not self._vocabulary:
                self._vocabulary = _read_vocabulary()
            return self._vocabulary


def token_offsets(text: str) -> list[tuple[int, int]]:
    """Return where each token of a text begins and ends, in characters.

    Several tokens that make one character have the same place, of which only the last is not empty.

    Raises:
        InvalidRequest: The text cannot be tokenised.
    """
    vocabulary = _shared_vocabulary()
    [ids] = _require_all([_encode(vocabulary, text)])
    _, starts = vocabulary.decode_with_offsets(ids)
    return list(pairwise([*starts, len(text)]))


@cache
def _shared_vocabulary() -> "tiktoken.Encoding":
    return _read_vocabulary()


def _read_vocabulary() -> "tiktoken.Encoding":
    """Read the packaged file, because `tiktoken.get_encoding` would download it.

    Raises:
        OSError: The file cannot be read.
        RuntimeError: The file is not the one that was packaged.
    """
    import tiktoken  # noqa: PLC0415  # only gateways that use it pay for the import

    packed = RANKS.read_bytes()
    if hashlib.sha256(packed).hexdigest() != RANKS_SHA256:
        raise RuntimeError(f"{str(RANKS)!r} has been altered. Install embedway again.")
    ranks = {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in packed.splitlines())
    }
    vocabulary = tiktoken.Encoding(
        "cl100k_base", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    # tiktoken has copied the ranks; it keeps these 14 MB only for pickling.
    ranks.clear()
    return vocabulary


def _encode(vocabulary: "tiktoken.Encoding", text: str) -> list[int] | _ItemError:
    try:
        return vocabulary.encode_ordinary(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # a Rust panic is not an Exception
        # The regex engine gives up on texts such as a million spaces in a row.
        return _ItemError(f"cannot be tokenised ({type(error).__name__}). Shorten or split it.")


def _decode(vocabulary: "tiktoken.Encoding", ids: Sequence[int]) -> str | _ItemError:
    try:
        return vocabulary.decode_bytes(ids).decode()
    except UnicodeDecodeError:
        return _ItemError(
            "has token ids whose bytes are not whole UTF-8 characters. Send text, or ids of "
            "cl100k_base cut at character boundaries."
        )
    except (KeyError, OverflowError):
        unknown = next(id for id in ids if not 0 <= id < VOCABULARY_SIZE)
        return _ItemError(
            f"has the token id {unknown}, which is not in cl100k_base (0 to "
            f"{VOCABULARY_SIZE - 1}). Send text, or ids of cl100k_base cut at character boundaries."
        )


def _require_all(results: Sequence[T | _ItemError]) -> list[T]:
    accepted: list[T] = []
    for index, result in enumerate(results):
        if isinstance(result, _ItemError):
            raise InvalidRequest(f"'input[{index}]' {result}", param="input")
        accepted.append(result)
    return accepted
