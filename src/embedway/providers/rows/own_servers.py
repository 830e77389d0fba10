"""Servers that users run themselves."""

from embedway.core.batch import BatchLimits
from embedway.providers.adapter import ProtocolFields, ProviderRow
from embedway.providers.rows.hosts import NVIDIA_FIELDS

_BASE64 = ("encoding_format", "base64")
# These servers have no limit of their own. On the usual machines a larger call takes so long that
# several smaller ones are better.
_DESKTOP_LIMITS = BatchLimits(max_items=128, max_parallel=2)

ROWS: tuple[ProviderRow, ...] = (
    ProviderRow(
        name="ollama",
        title="Ollama",
        adapter="embedway.providers.adapters.ollama:Ollama",
        base_url="http://127.0.0.1:11434",
        path="/api/embed",
        fields=ProtocolFields(
            dimensions="dimensions",
            truncate="truncate",
            truncations={"none": False, "end": True},
        ),
        limits=_DESKTOP_LIMITS,
        own_server=True,
        port=11434,
        source="github.com/ollama/ollama, docs/api.md",
        notes="The gateway uses its native protocol: give base_url without /v1. OLLAMA_HOST is "
        "not read, because it may be where a server listens; neither is OLLAMA_API_KEY, "
        "a key for ollama.com.",
    ),
    ProviderRow(
        name="lmstudio",
        title="LM Studio",
        base_url="http://127.0.0.1:1234/v1",
        key_variables=("LM_STUDIO_API_KEY",),
        limits=_DESKTOP_LIMITS,
        own_server=True,
        port=1234,
        source="lmstudio.ai/docs; github.com/lmstudio-ai/lmstudio-bug-tracker, 756",
        notes="Ignores dimensions and base64, so neither is sent. Whether it truncates items "
        "that are too long is not documented, and it cannot be told.",
    ),
    ProviderRow(
        name="nim",
        title="NVIDIA NIM",
        base_url="http://127.0.0.1:8000/v1",
        key_variables=("NIM_API_KEY",),
        fields=NVIDIA_FIELDS,
        limits=BatchLimits(max_items=128),
        own_server=True,
        port=8000,
        source="docs.nvidia.com/nim/nemo-retriever/text-embedding",
        notes="Embeds texts as passages unless input_type is query. The largest batch depends on "
        "the model and is not stated; calls are limited to 128 items.",
    ),
    ProviderRow(
        name="vllm",
        title="vLLM",
        base_url="http://127.0.0.1:8000/v1",
        key_variables=("VLLM_API_KEY",),
        fields=ProtocolFields(dimensions="dimensions", base64=_BASE64, token_ids=True, user="user"),
        own_server=True,
        port=8000,
        source="docs.vllm.ai, entrypoints/pooling",
        notes="Refuses items that are too long. To truncate them, send truncate_prompt_tokens "
        "and truncation_side in extra_body. Versions before mid-2026 ignore the latter "
        "and may cut the wrong side, so truncate is not offered. Refuses dimensions for "
        "models that are not Matryoshka.",
    ),
    ProviderRow(
        name="tei",
        title="Text Embeddings Inference",
        adapter="embedway.providers.adapters.tei:Tei",
        base_url="http://127.0.0.1:8080",
        path="/embed",
        key_variables=("TEI_API_KEY",),
        fields=ProtocolFields(
            dimensions="dimensions",
            token_ids=True,
            input_type="prompt_name",
            input_types={"query": "query", "document": "document"},
            truncate="truncate",
            truncations={"none": False, "end": True, "start": True},
        ),
        limits=BatchLimits(max_items=32),
        own_server=True,
        port=8080,
        source="github.com/huggingface/text-embeddings-inference",
        notes="The gateway uses its native protocol: give base_url without /v1. A server has "
        "one model and serves it under any name. input_type selects the prompt of that "
        "name, which the model must have.",
    ),
    ProviderRow(
        name="infinity",
        title="Infinity",
        base_url="http://127.0.0.1:7997",
        key_variables=("INFINITY_API_KEY",),
        fields=ProtocolFields(dimensions="dimensions", base64=_BASE64, user="user"),
        limits=BatchLimits(max_items=2048),
        own_server=True,
        port=7997,
        source="github.com/michaelfeil/infinity",
        notes="Truncates items that are too long and cannot be told otherwise. If it was "
        "started with a url_prefix, include that in base_url.",
    ),
    ProviderRow(
        name="llamacpp",
        title="llama.cpp",
        base_url="http://127.0.0.1:8080/v1",
        key_variables=("LLAMA_API_KEY",),
        fields=ProtocolFields(base64=_BASE64),
        limits=_DESKTOP_LIMITS,
        own_server=True,
        port=8080,
        source="github.com/ggml-org/llama.cpp, tools/server",
        notes="Refuses items longer than its context or its physical batch; start it with "
        "--embeddings and an --ubatch-size as large as the longest item.",
    ),
    ProviderRow(
        name="xinference",
        title="Xinference",
        base_url="http://127.0.0.1:9997/v1",
        key_variables=("XINFERENCE_API_KEY",),
        limits=_DESKTOP_LIMITS,
        own_server=True,
        port=9997,
        source="github.com/xorbitsai/inference, xinference/api/restful_api.py, 2026",
        notes="Whether it takes dimensions and base64 depends on the model's engine, so neither is "
        "sent.",
    ),
    ProviderRow(
        name="localai",
        title="LocalAI",
        base_url="http://127.0.0.1:8080/v1",
        key_variables=("LOCALAI_API_KEY",),
        limits=_DESKTOP_LIMITS,
        own_server=True,
        source="localai.io/features/embeddings, 2026",
        notes="The gateway does not find it automatically: its list of models looks like any "
        "server's and does not say which models embed. Its backends differ in what they "
        "take besides texts, so nothing else is sent.",
    ),
    ProviderRow(
        name="dockermodelrunner",
        title="Docker Model Runner",
        base_url="http://127.0.0.1:12434/engines/v1",
        limits=_DESKTOP_LIMITS,
        own_server=True,
        source="docs.docker.com/ai/model-runner, 2026",
        notes="The gateway does not find it automatically: its list of models does not say which "
        "embed. A gateway in a container declares base_url as "
        "http://model-runner.docker.internal/engines/v1.",
    ),
)
