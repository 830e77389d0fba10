"""Asks the gateway what a client should give: the plain answer, without any client's help."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.cases import QUESTION, Case, pieces
from compat.server import Gateway, Key, Servers
from embedway.core.limit import Limit

Rows = NDArray[np.float32]
"""The vectors of a case, one in each row."""
PIECE = 1000
"""How many items to send at once where a client cuts."""


@dataclass(frozen=True)
class Refusal:
    """An error of the gateway."""

    status: int
    message: str

    @property
    def constant(self) -> str:
        """The part of the message that depends neither on the time nor on the form of `input`."""
        return re.sub(r"^'input(\[0\])?' ", "", self.message).partition(" Try again in")[0]


class Reference:
    """Gives the plain answers, and keeps the vectors that several clients are held against."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._kept: dict[tuple[str, bool], Rows] = {}

    def gateway(self, case: Case) -> Gateway:
        """Return the gateway that the case is for."""
        return self._servers.prepared if case.gateway == "prepared" else self._servers.usual

    def items(self, case: Case) -> str | list[str] | list[list[int]]:
        """Return the `input` of the plain request."""
        if case.split_tokens:
            return [piece for each in self._split(case) for piece in each]
        return case.texts[0] if case.single else case.texts

    def answer(self, case: Case, key: Key, *, cut: bool, joined: bool) -> Rows | Refusal:
        """Return the vectors, or the error.

        Args:
            case: What to send.
            key: The key to send.
            cut: Whether to send a long list in pieces.
            joined: Whether to join the pieces of a text into their mean, by the number of tokens.
        """
        named = (case.name, cut)
        if named not in self._kept or key != self.gateway(case).own:
            items = self.items(case)
            step = PIECE if cut and isinstance(items, list) else max(len(items), 1)
            parts: list[Any] = [items]
            if isinstance(items, list):
                parts = [items[start : start + step] for start in range(0, len(items), step)]
            rows: list[Rows] = []
            for part in parts:
                answer = self._post(case, key, part)
                if isinstance(answer, Refusal):
                    return answer
                rows.append(answer)
            self._kept[named] = np.concatenate(rows)
        found = self._kept[named]
        return self._mean(case, found) if joined and case.split_tokens else found

    def described(self, case: Case) -> str:
        """Return what the gateway answers to the plain request, for the page."""
        answer = self.answer(case, self.key(case), cut=False, joined=False)
        if isinstance(answer, Refusal):
            message = re.sub(r"key_\w{16}", "key_1", answer.message)
            message = re.sub(r"[\d.]+ s\.$", "N s.", message)
            return f"{answer.status}: {message}"
        count, width = answer.shape
        return f"{count} vector{'s' * (count > 1)} of {width} dimensions"

    def key(self, case: Case) -> Key:
        """Return the key to send; if it is a limited one, it is new and its limit is full."""
        gateway = self.gateway(case)
        if case.key == "wrong":
            return Key("", "sk-gateway-nope")
        if not case.is_limited:
            return gateway.own
        key = gateway.new_key(Limit(of="requests", amount=1, per=case.key))
        gateway.fill(key)
        return key

    def nearest(self, case: Case) -> str:
        """Return the text of the case that is nearest to the question."""
        own = self.gateway(case).own
        texts = self._post(case, own, case.texts)
        question = self._post(case, own, [QUESTION])
        assert not isinstance(texts, Refusal)
        assert not isinstance(question, Refusal)
        return case.texts[int(np.argmax(texts @ question[0]))]

    def _post(self, case: Case, key: Key, items: Any) -> Rows | Refusal:
        body = {"model": case.model, "input": items, **case.options}
        body["encoding_format"] = "float"
        answer = self.gateway(case).post(key.secret, **body)
        if answer.is_success:
            return np.array([each["embedding"] for each in answer.json()["data"]], np.float32)
        return Refusal(answer.status_code, answer.json()["error"]["message"])

    def _split(self, case: Case) -> list[list[list[int]]]:
        assert case.split_tokens
        return [pieces(text, self._servers.encoding, case.split_tokens) for text in case.texts]

    def _mean(self, case: Case, rows: Rows) -> Rows:
        means, start = [], 0
        for cut in self._split(case):
            part = rows[start : start + len(cut)]
            means.append(np.average(part, axis=0, weights=[len(piece) for piece in cut]))
            start += len(cut)
        return np.array([mean / np.linalg.norm(mean) for mean in means], np.float32)
