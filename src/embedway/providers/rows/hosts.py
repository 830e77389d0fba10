"""Hosts that speak OpenAI's protocol, each with its own words. To add one: add a row."""

from embedway.core.batch import Limits
from embedway.providers.adapter import Fields, Row

_BASE64 = ("encoding_format", "base64")
# Numbers take so long to decode that a call of more would hold up all others.
_NUMBERS = Limits(max_items=256)
_OPENAI = Fields(dimensions="dimensions", base64=_BASE64, token_ids=True, user="user")
# For hosts that do not say how many items a call may hold.
_UNSTATED = Limits(max_items=128)
_UNSTATED_NOTE = "How many items a call may hold is not stated; calls are kept to 128."

ROWS: tuple[Row, ...] = (
    Row(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        fields=_OPENAI,
        limits=Limits(max_items=2048, max_tokens=300_000),
        hq_country="US",
        source="github.com/openai/openai-openapi",
    ),
    Row(
        name="mistral",
        title="Mistral",
        base_url="https://api.mistral.ai/v1",
        key_variables=("MISTRAL_API_KEY",),
        fields=Fields(dimensions="output_dimension"),
        limits=Limits(max_items=512, max_tokens=16_000),
        eu_native=True,
        hq_country="FR",
        source="docs.mistral.ai; limits: github.com/langchain-ai/langchain, 20523",
        notes="The limits of a call, 512 items and 16,384 tokens, are from reports of users.",
    ),
    Row(
        name="together",
        title="Together AI",
        base_url="https://api.together.xyz/v1",
        key_variables=("TOGETHER_API_KEY",),
        limits=Limits(max_items=100),
        hq_country="US",
        source="docs.together.ai; the together package",
        notes="Takes a model and texts, nothing else. The limit of 100 items is not confirmed.",
    ),
    Row(
        name="fireworks",
        title="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        key_variables=("FIREWORKS_API_KEY",),
        fields=Fields(dimensions="dimensions"),
        limits=_NUMBERS,
        hq_country="US",
        source="docs.fireworks.ai",
        notes="Takes 2,048 items; as it gives numbers only, calls are kept to 256. Gives "
        "vectors at the length that the model makes them; the gateway brings those of normalised "
        "models to length one.",
    ),
    Row(
        name="deepinfra",
        title="DeepInfra",
        base_url="https://api.deepinfra.com/v1",
        key_variables=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        fields=Fields(dimensions="dimensions", base64=_BASE64),
        limits=Limits(max_items=1024),
        hq_country="US",
        source="DeepInfra's OpenAPI description, 2026-11",
        notes="Fills vectors up with zeros where more dimensions are asked for than the model has. "
        "Has no field for input_type: its vectors are of the texts as they are sent.",
    ),
    Row(
        name="nebius",
        title="Nebius Token Factory",
        base_url="https://api.tokenfactory.nebius.com/v1",
        key_variables=("NEBIUS_API_KEY",),
        fields=Fields(dimensions="dimensions", base64=_BASE64, user="user"),
        limits=_UNSTATED,
        eu_native=True,
        hq_country="NL",
        region="eu-north1 (Finland)",
        source="docs.tokenfactory.nebius.com",
        notes=f"Addresses of other regions are declared as base_url. {_UNSTATED_NOTE}",
    ),
    Row(
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
    Row(
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
        notes="400 requests a minute for each model. How many items a call may hold depends on the "
        "model; calls are kept to 128.",
    ),
    Row(
        name="siliconflow",
        title="SiliconFlow",
        base_url="https://api.siliconflow.cn/v1",
        key_variables=("SILICONFLOW_API_KEY",),
        fields=Fields(dimensions="dimensions", base64=_BASE64),
        limits=Limits(max_items=32),
        hq_country="CN",
        source="docs.siliconflow.cn",
        notes="Takes dimensions for Qwen3 models only. With an account of siliconflow.com, declare "
        "base_url as https://api.siliconflow.com/v1.",
    ),
    Row(
        name="dashscope",
        title="Alibaba Cloud Model Studio",
        adapter="embedway.providers.adapters.dashscope:DashScope",
        base_url="https://dashscope-intl.aliyuncs.com/api/v1",
        other_path="/compatible-mode/v1",
        path="/services/embeddings/text-embedding/text-embedding",
        key_variables=("DASHSCOPE_API_KEY",),
        fields=Fields(
            dimensions="dimension",
            input_type="text_type",
            input_types={"query": "query", "document": "document"},
        ),
        # With 429 these two are its limits a minute, by what its users report (help.apiyi.com,
        # p=10007, and tests of clients, 2026; its own page of errors could not be read for it).
        # What is spent is 400 Arrearage or 403 AllocationQuota.FreeTierOnly.
        failures=(
            (r"free allocated quota exceeded", "quota"),
            (r"insufficient_quota|throttling\.allocationquota", "rate_limit"),
        ),
        limits=Limits(max_items=10),
        hq_country="CN",
        region="Singapore",
        source="alibabacloud.com/help/en/model-studio, text embedding, 2026-03; the dashscope "
        "package 2.0.2",
        notes="Its native protocol, for the compatible one drops input_type. Keys are of one "
        "region: for China declare base_url as https://dashscope.aliyuncs.com/api/v1. Vectors are "
        "of documents unless input_type is query; send instruct in extra_body with it to say what "
        "queries are for.",
    ),
    Row(
        name="databricks",
        title="Databricks",
        base_url="{host}/serving-endpoints",
        key_variables=("DATABRICKS_TOKEN",),
        variables={"host": "DATABRICKS_HOST"},
        limits=_UNSTATED,
        hq_country="US",
        source="docs.databricks.com, query embedding models",
        notes="The model is the name of the serving endpoint; host is https://, the workspace, and "
        f"no slash at its end. {_UNSTATED_NOTE}",
    ),
    Row(
        name="perplexity",
        title="Perplexity",
        adapter="embedway.providers.adapters.perplexity:Perplexity",
        base_url="https://api.perplexity.ai/v1",
        key_variables=("PERPLEXITY_API_KEY",),
        fields=Fields(dimensions="dimensions"),
        limits=Limits(max_items=512, max_tokens=120_000),
        hq_country="US",
        source="Perplexity's OpenAPI description",
        notes="Gives int8 only: its vectors have 8 bits a number, whatever format they are sent "
        "in.",
    ),
    Row(
        name="nvidia",
        title="NVIDIA API catalog",
        adapter="embedway.providers.adapters.nvidia:Nvidia",
        base_url="https://integrate.api.nvidia.com/v1",
        key_variables=("NVIDIA_API_KEY",),
        fields=Fields(
            dimensions="dimensions",
            base64=_BASE64,
            user="user",
            input_type="input_type",
            input_types={"query": "query", "document": "passage"},
            truncate="truncate",
            truncations={"none": "NONE", "end": "END", "start": "START"},
        ),
        limits=Limits(max_items=50),
        hq_country="US",
        source="docs.nvidia.com/nim/nemo-retriever/text-embedding",
        notes="Vectors are of passages unless input_type is query. How many items a call may hold "
        "is not stated; calls are kept to 50, as NVIDIA's own client does.",
    ),
)
