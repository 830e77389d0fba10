"""Between texts and token ids of cl100k_base, the vocabulary of OpenAI's embedding models.

Owns the vocabulary file beside this module, when it is read and in which thread the work is done.
Must not know models, their limits, nor what becomes of the ids.
"""

import base64
import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from embedway.concurrency.group_worker import GroupWorker
from embedway.core.errors import InvalidRequest, ServiceOverloaded

if TYPE_CHECKING:
    import tiktoken

RANKS = Path(__file__).with_name("cl100k_base.tiktoken")
RANKS_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
VOCABULARY = 100_256
"""Ordinary ids are 0 up to this; special tokens come after it, and no text has them."""

# As tiktoken has it.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

# Up to here the event loop does the work itself. The way to a thread and back takes 85 to 120 us,
# and as much CPU time; 2,048 characters take 150 us of prose and 240 at worst, 2,048 ids take 25, a
# short text takes 2. As many texts of one character take 1.3 ms, and 1.9 with the thread.
INLINE_CHARACTERS = 2_048
INLINE_TOKENS = 2_048

# As of a local model: a small request behind a large one waits for a group or two.
GROUP_CHARACTERS = 65_536
GROUP_TOKENS = 65_536
MAX_WAITING_CHARACTERS = 64 * 2**20
MAX_WAITING_TOKENS = 600_000

T = TypeVar("T")


class _Refused(Exception):
    """What is wrong with one item, said without its place; its neighbours are none the worse."""


class Cl100kTokenizer:
    """OpenAI's cl100k_base: texts to the ids they are billed by, and ids back to texts.

    Nothing is read and no thread started before it is used; a gateway that never is asked for an
    OpenAI model pays nothing for it. One instance is shared by all requests of an event loop.
    """

    def __init__(self) -> None:
        self._vocabulary: tiktoken.Encoding | None = None
        self._reading = threading.Lock()
        self._encoding: GroupWorker[str, list[int] | _Refused] | None = None
        self._decoding: GroupWorker[Sequence[int], str | _Refused] | None = None
        self._closed = False

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, however many. What looks like a special token is text.

        Time grows with the characters and nothing else: 100,000 take 1 to 30 ms, be they one
        word, blanks, accents, ideographs or NUL. Lone surrogates must have been refused before.

        Raises:
            InvalidRequest: A text cannot be tokenised, as one with a million blanks in a row.
            ServiceOverloaded: Too much is waiting already.
        """
        self._check_open()
        if self._vocabulary and sum(map(len, texts)) <= INLINE_CHARACTERS:
            return _accepted(_encode(self._vocabulary, texts))
        if not self._encoding:
            self._encoding = GroupWorker(
                self._encode_group,
                name="cl100k-encode",
                group_weight=GROUP_CHARACTERS,
                max_waiting_weight=MAX_WAITING_CHARACTERS,
                weigh=len,
            )
        return _accepted(await self._encoding.submit(texts))

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        """The text of each item, byte for byte what its ids stand for.

        Encoding that text again gives other ids where the item's were not the usual ones.

        Raises:
            InvalidRequest: An id is special or unknown, or an item begins or ends amid a character.
            ServiceOverloaded: Too much is waiting already.
        """
        self._check_open()
        if self._vocabulary and sum(map(len, items)) <= INLINE_TOKENS:
            return _accepted(_decode(self._vocabulary, items))
        if not self._decoding:
            self._decoding = GroupWorker(
                self._decode_group,
                name="cl100k-decode",
                group_weight=GROUP_TOKENS,
                max_waiting_weight=MAX_WAITING_TOKENS,
                weigh=len,
            )
        return _accepted(await self._decoding.submit(items))

    @property
    def alive(self) -> bool:
        """Whether requests get answered."""
        started = (worker for worker in (self._encoding, self._decoding) if worker)
        return not self._closed and all(worker.is_alive for worker in started)

    def close(self) -> None:
        """Finishes what waits and ends the threads there are. Blocks until they have ended."""
        self._closed = True
        for worker in (self._encoding, self._decoding):
            if worker:
                worker.close()

    def _check_open(self) -> None:
        # Else a late request would start a thread that nobody ends.
        if self._closed:
            raise ServiceOverloaded("This gateway is stopping. Send requests elsewhere.")

    def _encode_group(
        self, texts: list[str]
    ) -> Iterator[tuple[Sequence[int], Sequence[list[int] | _Refused]]]:
        yield range(len(texts)), _encode(self._read(), texts)

    def _decode_group(
        self, items: list[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], Sequence[str | _Refused]]]:
        yield range(len(items)), _decode(self._read(), items)

    def _read(self) -> "tiktoken.Encoding":
        """The vocabulary, read by whichever thread comes first. Not for the event loop: 110 ms."""
        with self._reading:
            if not self._vocabulary:
                self._vocabulary = _vocabulary()
            return self._vocabulary


def _vocabulary() -> "tiktoken.Encoding":
    """Reads the file; `tiktoken.get_encoding` would download it.

    Raises:
        OSError: It cannot be read.
        RuntimeError: It is not what was packaged.
    """
    import tiktoken  # noqa: PLC0415  # for those who use it

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
    # It has made its own of them and would keep these 14 MB only to be pickled.
    ranks.clear()
    return vocabulary


def _encode(vocabulary: "tiktoken.Encoding", texts: Sequence[str]) -> list[list[int] | _Refused]:
    return [_encode_text(vocabulary, text) for text in texts]


def _encode_text(vocabulary: "tiktoken.Encoding", text: str) -> list[int] | _Refused:
    try:
        return vocabulary.encode_ordinary(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # a panic in Rust is no Exception
        # Its regex engine gives up on a million blanks in a row, which is the text's doing.
        return _Refused(f"cannot be tokenised ({type(error).__name__}). Shorten or split it.")


def _decode(
    vocabulary: "tiktoken.Encoding", items: Sequence[Sequence[int]]
) -> list[str | _Refused]:
    return [_decode_ids(vocabulary, ids) for ids in items]


def _decode_ids(vocabulary: "tiktoken.Encoding", ids: Sequence[int]) -> str | _Refused:
    try:
        return vocabulary.decode_bytes(ids).decode()
    except UnicodeDecodeError:
        return _Refused(
            "has token ids whose bytes are not whole UTF-8 characters. Send text, or ids of "
            "cl100k_base cut at character boundaries."
        )
    except (KeyError, OverflowError):
        unknown = next(id for id in ids if not 0 <= id < VOCABULARY)
        return _Refused(
            f"has the token id {unknown}, which is no text's in cl100k_base (0 to "
            f"{VOCABULARY - 1}). Send text, or ids of cl100k_base cut at character boundaries."
        )


def _accepted(results: Sequence[T | _Refused]) -> list[T]:
    """The results, if there is one for every item.

    Raises:
        InvalidRequest: An item was refused; names the first.
    """
    accepted: list[T] = []
    for index, result in enumerate(results):
        if isinstance(result, _Refused):
            raise InvalidRequest(f"'input[{index}]' {result}", param="input")
        accepted.append(result)
    return accepted
