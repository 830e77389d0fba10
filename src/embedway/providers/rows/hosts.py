"""Hosts that speak OpenAI's protocol or one close to it. To add a host, add a row."""

from embedway.core.batch import BatchLimits
from embedway.providers.adapter import AddressTemplate, ProtocolFields, ProviderRow

_BASE64 = ("encoding_format", "base64")
# Numbers take long to decode, so a larger call would delay all others.
_NUMBERS = BatchLimits(max_items=256)
_OPENAI = ProtocolFields(dimensions="dimensions", base64=_BASE64, token_ids=True, user="user")
NVIDIA_FIELDS = ProtocolFields(
    dimensions="dimensions",
    base64=_BASE64,
    user="user",
    input_type="input_type",
    input_types={"query": "query", "document": "passage"},
    default_input_type="passage",
    truncate="truncate",
    truncations={"none": "NONE", "end": "END", "start": "START"},
)
"""The fields of NVIDIA's protocol, in its API catalog and in NIM."""
# For hosts that do not say how many items a call may hold.
_UNSTATED = BatchLimits(max_items=128)
_UNSTATED_NOTE = "It is not stated how many items a call may hold; calls are limited to 128."

ROWS: tuple[ProviderRow, ...] = (
    ProviderRow(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        # LangChain and older versions of OpenAI's package read the second.
        address=AddressTemplate(variables=("OPENAI_BASE_URL", "OPENAI_API_BASE")),
        key_variables=("OPENAI_API_KEY",),
        key_elsewhere={"OPENAI_API_TYPE": ("azure", "azure_ad", "azuread")},
        headers={"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"},
        fields=_OPENAI,
        limits=BatchLimits(max_items=2048, max_tokens=300_000),
        hq_country="US",
        source="github.com/openai/openai-openapi; the openai package, 3.57.0",
        notes="OPENAI_CUSTOM_HEADERS and OPENAI_ADMIN_KEY are not read: headers cannot be "
        "declared here, and an admin key cannot embed.",
    ),
    ProviderRow(
        name="mistral",
        title="Mistral",
        base_url="https://api.mistral.ai/v1",
        key_variables=("MISTRAL_API_KEY",),
        fields=ProtocolFields(dimensions="output_dimension"),
        limits=BatchLimits(max_items=512, max_tokens=16_000),
        eu_native=True,
        hq_country="FR",
        source="docs.mistral.ai; limits: github.com/langchain-ai/langchain, 20523",
        notes="The limits of a call, 512 items and 16,384 tokens, come from users' reports.",
    ),
    ProviderRow(
        name="together",
        title="Together AI",
        base_url="https://api.together.xyz/v1",
        address=AddressTemplate(variables=("TOGETHER_BASE_URL",), strip=("/v1",), path="/v1"),
        key_variables=("TOGETHER_API_KEY",),
        limits=BatchLimits(max_items=100),
        hq_country="US",
        source="docs.together.ai; the together package",
        notes="Takes only a model and texts. The limit of 100 items is not confirmed.",
    ),
    ProviderRow(
        name="fireworks",
        title="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        address=AddressTemplate(variables=("FIREWORKS_BASE_URL",), strip=("/v1",), path="/v1"),
        key_variables=("FIREWORKS_API_KEY",),
        fields=ProtocolFields(dimensions="dimensions"),
        limits=_NUMBERS,
        hq_country="US",
        source="docs.fireworks.ai; the fireworks-ai package, 1.2.30",
        notes="FIREWORKS_CREDENTIAL_CMD is not read: the gateway runs no command to get a key. "
        "Takes 2,048 items but returns only numbers, so calls are limited to 256. "
        "Returns vectors at the length that the model gives them; the gateway scales "
        "those of normalised models to length one.",
    ),
    ProviderRow(
        name="deepinfra",
        title="DeepInfra",
        base_url="https://api.deepinfra.com/v1",
        address=AddressTemplate(
            variables=("DEEPINFRA_BASE_URL",), strip=("/v1/openai", "/v1"), path="/v1"
        ),
        key_variables=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        fields=ProtocolFields(dimensions="dimensions", base64=_BASE64),
        limits=BatchLimits(max_items=1024),
        hq_country="US",
        source="DeepInfra's OpenAPI description, 2026-11",
        notes="Pads vectors with zeros if more dimensions are requested than the model has. "
        "Has no field for input_type, so it embeds texts as they are sent.",
    ),
    ProviderRow(
        name="nebius",
        title="Nebius Token Factory",
        base_url="https://api.tokenfactory.nebius.com/v1",
        key_variables=("NEBIUS_API_KEY",),
        fields=ProtocolFields(dimensions="dimensions", base64=_BASE64, user="user"),
        limits=_UNSTATED,
        eu_native=True,
        hq_country="NL",
        region="eu-north1 (Finland)",
        source="docs.tokenfactory.nebius.com",
        notes=f"For another region, declare its address as base_url. {_UNSTATED_NOTE}",
    ),
    ProviderRow(
        name="scaleway",
        title="Scaleway Generative APIs",
        base_url="https://api.scaleway.ai/v1",
        key_variables=("SCW_SECRET_KEY",),
        limits=_UNSTATED,
        eu_native=True,
        hq_country="FR",
        region="Paris, France",
        source="scaleway.com/en/docs/generative-apis",
        notes=f"Takes neither dimensions nor base64. {_UNSTATED_NOTE}",
    ),
    ProviderRow(
        name="ovh",
        title="OVHcloud AI Endpoints",
        base_url="https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        key_variables=("OVH_AI_ENDPOINTS_ACCESS_TOKEN",),
        fields=_OPENAI,
        limits=_UNSTATED,
        eu_native=True,
        hq_country="FR",
        region="Gravelines, France",
        zero_data_retention=True,
        source="github.com/ovh/docs; endpoints.ai.cloud.ovh.net",
        notes="Allows 400 requests per minute for each model. How many items a call may hold "
        "depends on the model; calls are limited to 128.",
    ),
    ProviderRow(
        name="siliconflow",
        title="SiliconFlow",
        base_url="https://api.siliconflow.cn/v1",
        key_variables=("SILICONFLOW_API_KEY",),
        fields=ProtocolFields(dimensions="dimensions", base64=_BASE64),
        limits=BatchLimits(max_items=32),
        hq_country="CN",
        source="docs.siliconflow.cn",
        notes="Takes dimensions only for Qwen3 models. For an account at siliconflow.com, "
        "declare base_url as https://api.siliconflow.com/v1.",
    ),
    ProviderRow(
        name="dashscope",
        title="Alibaba Cloud Model Studio",
        adapter="embedway.providers.adapters.dashscope:DashScope",
        base_url="https://dashscope-intl.aliyuncs.com/api/v1",
        other_path="/compatible-mode/v1",
        path="/services/embeddings/text-embedding/text-embedding",
        address=AddressTemplate(
            variables=("DASHSCOPE_COMPATIBLE_BASE_URL", "DASHSCOPE_HTTP_BASE_URL"),
            strip=("/compatible-mode/v1", "/api/v1"),
            path="/api/v1",
        ),
        key_variables=("DASHSCOPE_API_KEY", "DASHSCOPE_API_KEY_FILE_PATH"),
        key_files=("DASHSCOPE_API_KEY_FILE_PATH",),
        key_elsewhere={
            "DASHSCOPE_API_REGION": (
                *("cn-beijing", "cn-hongkong", "us-east-1", "eu-central-1", "ap-northeast-1"),
            )
        },
        fields=ProtocolFields(
            dimensions="dimension",
            input_type="text_type",
            input_types={"query": "query", "document": "document"},
        ),
        # With 429, the second pattern is a limit per minute, as users report (help.apiyi.com,
        # p=10007, and tests of clients, 2026; DashScope's own page of errors was not readable).
        # A spent account gets 400 Arrearage or 403 AllocationQuota.FreeTierOnly.
        failures=(
            (r"free allocated quota exceeded", "quota"),
            (r"insufficient_quota|throttling\.allocationquota", "rate_limit"),
        ),
        limits=BatchLimits(max_items=10),
        hq_country="CN",
        region="Singapore",
        source="alibabacloud.com/help/en/model-studio, text embedding, 2026-03; the dashscope "
        "package 2.0.2",
        notes="The gateway uses its native protocol, because the compatible one drops "
        "input_type. A key belongs to one region: here Singapore, while Alibaba's own "
        "package calls China. For China, declare base_url as "
        "https://dashscope.aliyuncs.com/api/v1; for another region, its own address. "
        "DASHSCOPE_API_VERSION and DASHSCOPE_WORKSPACE_ID, which make up the addresses "
        "of other regions, are not read. Embeds texts as documents unless input_type is "
        "query; with a query, send instruct in extra_body to say what it is for.",
    ),
    ProviderRow(
        name="databricks",
        title="Databricks",
        base_url="{host}/serving-endpoints",
        key_variables=("DATABRICKS_TOKEN",),
        variables={"host": "DATABRICKS_HOST"},
        limits=_UNSTATED,
        hq_country="US",
        source="docs.databricks.com, query embedding models",
        notes="The model is the serving endpoint's name; host is https:// and the workspace. "
        "Needs a token: DATABRICKS_CLIENT_ID, DATABRICKS_CLIENT_SECRET and "
        f"DATABRICKS_CONFIG_PROFILE are not read. {_UNSTATED_NOTE}",
    ),
    ProviderRow(
        name="perplexity",
        title="Perplexity",
        adapter="embedway.providers.adapters.perplexity:Perplexity",
        base_url="https://api.perplexity.ai/v1",
        address=AddressTemplate(variables=("PERPLEXITY_BASE_URL",), strip=("/v1",), path="/v1"),
        key_variables=("PERPLEXITY_API_KEY", "PPLX_API_KEY"),
        fields=ProtocolFields(dimensions="dimensions"),
        limits=BatchLimits(max_items=512, max_tokens=120_000),
        hq_country="US",
        source="Perplexity's OpenAPI description",
        notes="Returns int8 only: its vectors have 8 bits per number, whatever format they are "
        "sent in.",
    ),
    ProviderRow(
        name="nvidia",
        title="NVIDIA API catalog",
        base_url="https://integrate.api.nvidia.com/v1",
        address=AddressTemplate(variables=("NVIDIA_BASE_URL",), strip=("/v1",), path="/v1"),
        key_variables=("NVIDIA_API_KEY",),
        fields=NVIDIA_FIELDS,
        limits=BatchLimits(max_items=50),
        hq_country="US",
        source="docs.nvidia.com/nim/nemo-retriever/text-embedding",
        notes="Embeds texts as passages unless input_type is query. It is not stated how many "
        "items a call may hold; calls are limited to 50, as in NVIDIA's own client.",
    ),
    ProviderRow(
        name="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_variables=("OPENROUTER_API_KEY",),
        fields=ProtocolFields(dimensions="dimensions", base64=_BASE64, user="user"),
        limits=_UNSTATED,
        hq_country="US",
        source="openrouter.ai/docs, embeddings; the openrouter package; 2026-11",
        notes="Passes texts to one of several hosts of a model, which may serve it at "
        "different precisions: send provider in extra_body to name one. Its input_type "
        "uses the host's words and is therefore not sent. For hosts in Europe, declare "
        f"base_url as https://eu.openrouter.ai/api/v1. {_UNSTATED_NOTE}",
    ),
    ProviderRow(
        name="vercel",
        title="Vercel AI Gateway",
        base_url="https://ai-gateway.vercel.sh/v1",
        key_variables=("AI_GATEWAY_API_KEY",),
        fields=ProtocolFields(dimensions="dimensions"),
        limits=_UNSTATED,
        hq_country="US",
        source="vercel.com/docs/ai-gateway, OpenAI-compatible embeddings, 2026-09",
        notes="VERCEL_OIDC_TOKEN is not read: such a token expires after hours. Passes texts "
        f"to the model's maker or to a host. {_UNSTATED_NOTE}",
    ),
    ProviderRow(
        name="novita",
        title="Novita AI",
        base_url="https://api.novita.ai/openai/v1",
        key_variables=("NOVITA_API_KEY",),
        fields=ProtocolFields(base64=_BASE64),
        limits=_UNSTATED,
        hq_country="US",
        source="novita.ai/docs/api-reference/model-apis-llm-create-embeddings, 2026",
        notes=f"Takes only a model, texts and a format. {_UNSTATED_NOTE}",
    ),
    ProviderRow(
        name="venice",
        title="Venice",
        base_url="https://api.venice.ai/api/v1",
        key_variables=("VENICE_API_KEY",),
        # The host behind Venice may not know base64, but numbers always work.
        fields=ProtocolFields(dimensions="dimensions", user="user"),
        limits=_NUMBERS,
        hq_country="US",
        source="docs.venice.ai, embeddings; github.com/veniceai/skills, venice-embeddings; 2026",
        notes="Refuses items that it estimates at over 8,192 tokens, whatever the model takes. "
        "Keeps no data for models that it calls private, and passes other models' texts "
        "to their makers. Takes 2,048 items but returns only numbers, so calls are "
        "limited to 256.",
    ),
    ProviderRow(
        name="mixedbread",
        title="Mixedbread",
        base_url="https://api.mixedbread.com/v1",
        address=AddressTemplate(variables=("MIXEDBREAD_BASE_URL",), strip=("/v1",), path="/v1"),
        key_variables=("MXBAI_API_KEY", "MIXEDBREAD_API_KEY"),
        fields=ProtocolFields(dimensions="dimensions", base64=_BASE64),
        limits=BatchLimits(max_items=256),
        hq_country="US",
        source="the mixedbread package, 2026-11; @langchain/mixedbread-ai, for the limit",
        notes="Adds no prompt to texts: send prompt in extra_body, or put the model's prompt "
        "before queries yourself. What it does with items that are too long is not "
        "documented.",
    ),
)
