"""cl100k_base has OpenAI's ids, decodes them without loss, and costs nothing until it is used."""

import asyncio
import base64
import hashlib
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from compat.tiktoken_cache import fill_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from embedway.core.errors import InvalidRequest, ServiceOverloaded
from embedway.tokenizing import cl100k
from embedway.tokenizing.cl100k import Cl100kTokenizer

THREADS = {"cl100k-encode", "cl100k-decode"}
BEYOND_INLINE = "x " * cl100k.INLINE_CHARACTERS
TOKENS = [base64.b64decode(line.split()[0]) for line in cl100k.RANKS.read_bytes().splitlines()]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    """Run a scenario on an event loop where blocking calls raise."""
    with blockbuster_ctx():
        return asyncio.run(asyncio.wait_for(scenario(), 30))


def threads() -> set[str]:
    """Return the names of the tokenizer's running threads."""
    return THREADS & {thread.name for thread in threading.enumerate()}


@pytest.fixture(scope="module")
def loaded() -> Iterator[Cl100kTokenizer]:
    """A tokenizer that has read its vocabulary."""
    tokenizer = Cl100kTokenizer()
    run(lambda: tokenizer.encode(["a"]))
    yield tokenizer
    tokenizer.close()


def encode(codec: Cl100kTokenizer, *texts: str) -> list[list[int]]:
    return run(lambda: codec.encode(texts))


def decode(codec: Cl100kTokenizer, *items: list[int]) -> list[str]:
    return run(lambda: codec.decode(items))


def refusal(codec: Cl100kTokenizer, *items: list[int]) -> str:
    """Return the message for items that cannot be decoded."""
    with pytest.raises(InvalidRequest) as refused:
        decode(codec, *items)
    assert refused.value.param == "input"
    return refused.value.message


def test_file_is_openais():
    """The packaged ranks are OpenAI's file, byte for byte, with ids 0 to 100255 in order."""
    packed = cl100k.RANKS.read_bytes()
    assert hashlib.sha256(packed).hexdigest() == cl100k.RANKS_SHA256
    ranks = [int(line.split()[1]) for line in packed.splitlines()]
    assert ranks == list(range(cl100k.VOCABULARY_SIZE))


def test_pattern_is_openais(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pattern and digest are those of the installed tiktoken."""
    fill_cache(tmp_path)  # tiktoken looks there before it downloads
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    theirs = openai_public.cl100k_base()
    assert theirs["pat_str"] == cl100k.PATTERN
    assert len(theirs["mergeable_ranks"]) == cl100k.VOCABULARY_SIZE
    assert min(theirs["special_tokens"].values()) >= cl100k.VOCABULARY_SIZE


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("hello world", [15339, 1917]),
        ("tiktoken is great!", [83, 1609, 5963, 374, 2294, 0]),
        ("お誕生日おめでとう", [33334, 45918, 243, 21990, 9080, 33334, 62004, 16556, 78699]),
        ("2 + 2 = 4", [17, 489, 220, 17, 284, 220, 19]),
        ("\0", [188]),
        ("", []),
    ],
)
def test_known_ids(loaded: Cl100kTokenizer, text: str, ids: list[int]):
    """Texts have the ids that OpenAI publishes, and the ids decode to the texts."""
    assert encode(loaded, text) == [ids]
    assert decode(loaded, ids) == [text]


def test_special_tokens_in_a_text_are_text(loaded: Cl100kTokenizer):
    """A text that looks like a special token is encoded as its characters."""
    text = "<|endoftext|><|fim_prefix|><|endofprompt|>"
    [ids] = encode(loaded, text)
    assert ids[:7] == [27, 91, 8862, 728, 428, 91, 1822]
    assert decode(loaded, ids) == [text]


@settings(deadline=None)
@given(texts=st.lists(TEXTS, max_size=5))
def test_nothing_is_lost(loaded: Cl100kTokenizer, texts: list[str]):
    """Any text survives encoding and decoding."""
    assert decode(loaded, *encode(loaded, *texts)) == texts


@settings(deadline=None, max_examples=30)
@given(texts=st.lists(TEXTS, max_size=5))
def test_thread_and_event_loop_agree(loaded: Cl100kTokenizer, texts: list[str]):
    """The other items of a request do not change an item's ids or text."""
    ids = encode(loaded, *texts)
    *among_much, much = encode(loaded, *texts, BEYOND_INLINE)
    assert among_much == ids
    assert decode(loaded, *ids, much) == [*texts, BEYOND_INLINE]


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, cl100k.VOCABULARY_SIZE - 1), min_size=1, max_size=4))
def test_a_text_is_what_its_ids_stand_for(loaded: Cl100kTokenizer, ids: list[int]):
    """Ordinary ids decode exactly, or are refused if their bytes are not a text."""
    stands_for = b"".join(TOKENS[id] for id in ids)
    try:
        text = stands_for.decode()
    except UnicodeDecodeError:
        assert "whole UTF-8 characters" in refusal(loaded, ids)
    else:
        assert text
        assert decode(loaded, ids) == [text]


@pytest.mark.parametrize("beyond_inline", [False, True])
@pytest.mark.parametrize("unknown", [100_256, 100_257, 100_276, 2**31 - 1, 2**40, -1])
def test_unknown_ids_are_refused(loaded: Cl100kTokenizer, unknown: int, beyond_inline: bool):
    """The message for a special or unknown id names it, its item and the cure."""
    more = [0] * cl100k.INLINE_TOKENS if beyond_inline else [0]
    message = refusal(loaded, [15339], [*more, unknown], more)
    assert message.startswith(f"'input[1]' has the token id {unknown},")
    assert "Send text, or ids of cl100k_base" in message


@pytest.mark.parametrize("beyond_inline", [False, True])
@pytest.mark.parametrize("cut", [slice(0, -1), slice(1, None)])
def test_half_characters_are_refused(loaded: Cl100kTokenizer, cut: slice, beyond_inline: bool):
    """The message for an item that cuts a character names the item and the cure."""
    [bear] = encode(loaded, "🐻")
    more = [0] * cl100k.INLINE_TOKENS if beyond_inline else [0]
    message = refusal(loaded, more, more, bear[cut], bear[cut])
    assert message.startswith("'input[2]' has token ids whose bytes are not whole UTF-8")
    assert "cut at character boundaries" in message
    assert decode(loaded, bear) == ["🐻"]


def test_one_refusal_leaves_others_alone(loaded: Cl100kTokenizer):
    """A refused request does not affect others in its group."""
    ids = [15339] * (cl100k.INLINE_TOKENS + 1)

    async def scenario() -> list[Any]:
        mixed = [loaded.decode([[*ids, at % 2 * 100_257]]) for at in range(6)]
        return await asyncio.gather(*mixed, return_exceptions=True)

    outcomes = run(scenario)
    assert [isinstance(outcome, InvalidRequest) for outcome in outcomes] == [False, True] * 3


def test_a_panic_is_a_refusal(loaded: Cl100kTokenizer):
    """A text that tiktoken fails on is named, and the thread goes on."""
    with pytest.raises(InvalidRequest, match=r"'input\[1\]' cannot be tokenised"):
        encode(loaded, "a", " " * 1_000_000 + "a")
    assert encode(loaded, BEYOND_INLINE)[0][:2] == [87, 865]
    assert loaded.alive


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", " \n", "1", "!", "\u0300", "中", "\0", "\U0010fffd", "👩\u200d"]
)
def test_repetition_is_tokenised(loaded: Cl100kTokenizer, unit: str):
    """The longest repetitive text is tokenised like any other."""
    text = (unit * 100_000)[:99_999] + "a"
    assert decode(loaded, *encode(loaded, text)) == [text]


def test_nothing_before_first_use():
    """An unused tokenizer imports no tiktoken and starts no thread."""
    probe = (
        "import sys, threading\n"
        "from embedway.tokenizing.cl100k import Cl100kTokenizer\n"
        "codec = Cl100kTokenizer()\n"
        "assert codec.alive\n"
        "print('tiktoken' in sys.modules, threading.active_count())\n"
        "codec.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]


def test_use_downloads_nothing(tmp_path: Path):
    """Encoding imports no HTTP client and leaves no cache behind."""
    probe = (
        "import asyncio, sys\n"
        "from embedway.tokenizing.cl100k import Cl100kTokenizer\n"
        "print(asyncio.run(Cl100kTokenizer().encode(['hello world'])))\n"
        "print({'requests', 'urllib3', 'regex'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[[15339, 1917]]", "set()"]
    assert list(tmp_path.iterdir()) == []


def test_first_use_may_be_shared():
    """Concurrent first requests are all answered."""
    codec = Cl100kTokenizer()

    async def scenario() -> list[Any]:
        return await asyncio.gather(
            *(codec.encode(["hello world"]) for _ in range(5)),
            *(codec.decode([[15339, 1917]]) for _ in range(5)),
        )

    assert run(scenario) == [[[15339, 1917]]] * 5 + [["hello world"]] * 5
    assert threads() == THREADS
    codec.close()


def test_closed():
    """Closing ends the threads. Later requests are refused and start none."""
    before = threading.active_count()
    codec = Cl100kTokenizer()
    assert encode(codec, BEYOND_INLINE)
    assert threading.active_count() == before + 1
    codec.close()
    assert not codec.alive
    for late in (lambda: codec.encode(["a"]), lambda: codec.decode([[64]])):
        with pytest.raises(ServiceOverloaded):
            run(late)
    assert threading.active_count() == before


def test_altered_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An altered file of ranks is refused every time."""
    altered = tmp_path / "ranks"
    altered.write_bytes(cl100k.RANKS.read_bytes()[:-1])
    monkeypatch.setattr(cl100k, "RANKS", altered)
    codec = Cl100kTokenizer()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="altered"):
            encode(codec, "a")
    codec.close()
