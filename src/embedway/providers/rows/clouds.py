"""Clouds that serve models of several makers with the cloud's own addresses and credentials."""

import msgspec

from embedway.core.batch import BatchLimits
from embedway.core.request import InputType
from embedway.providers.adapter import AddressTemplate, ProtocolFields, ProviderRow
from embedway.providers.rows.apis import COHERE_FIELDS

_GOOGLES: dict[InputType, str] = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}

ROWS: tuple[ProviderRow, ...] = (
    ProviderRow(
        name="azure",
        title="Azure OpenAI",
        adapter="embedway.providers.adapters.azure:Azure",
        base_url="{endpoint}",
        path="/openai/deployments/{model}/embeddings",
        key_variables=("AZURE_OPENAI_API_KEY",),
        variables={"endpoint": "AZURE_OPENAI_ENDPOINT", "api_version": "OPENAI_API_VERSION"},
        defaults={"api_version": "2024-10-21"},
        credentials="header:api-key",
        fields=ProtocolFields(
            dimensions="dimensions",
            base64=("encoding_format", "base64"),
            token_ids=True,
            user="user",
        ),
        limits=BatchLimits(max_items=2048, max_tokens=300_000),
        hq_country="US",
        source="Azure OpenAI's OpenAPI description, 2024-10-21; the openai package",
        notes="AZURE_OPENAI_AD_TOKEN is not read: such a token expires after about an hour. "
        "The model is the deployment's name. For addresses that end in /openai/v1, "
        "including Foundry's, declare a provider of kind openai with that base_url.",
    ),
    ProviderRow(
        name="gemini",
        title="Gemini API",
        adapter="embedway.providers.adapters.gemini:Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        path="/models/{model}:batchEmbedContents",
        address=AddressTemplate(
            variables=("GOOGLE_GEMINI_BASE_URL",), strip=("/v1beta", "/v1"), path="/v1beta"
        ),
        key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        key_elsewhere={
            "GOOGLE_GENAI_USE_ENTERPRISE": ("true", "1"),
            "GOOGLE_GENAI_USE_VERTEXAI": ("true", "1"),
        },
        credentials="header:x-goog-api-key",
        fields=ProtocolFields(
            dimensions="outputDimensionality", input_type="taskType", input_types=_GOOGLES
        ),
        limits=BatchLimits(max_items=100),
        hq_country="US",
        source="ai.google.dev/api/embeddings; the google-genai package",
        notes="Whether it truncates items that are too long is not documented, and Google's "
        "own library says that it cannot be told; Vertex AI can. gemini-embedding-2 "
        "ignores taskType, so the gateway puts Google's prompt for the input_type before "
        "each text.",
    ),
    ProviderRow(
        name="vertex",
        key_optional=True,
        title="Google Vertex AI",
        adapter="embedway.providers.adapters.vertex:Vertex",
        base_url="https://{region}-aiplatform.googleapis.com/v1/projects/{project}/locations/{region}",
        regional={
            "global": "https://aiplatform.googleapis.com/v1/projects/{project}/locations/global",
            "us": "https://aiplatform.us.rep.googleapis.com/v1/projects/{project}/locations/us",
            "eu": "https://aiplatform.eu.rep.googleapis.com/v1/projects/{project}/locations/eu",
        },
        address=AddressTemplate(
            variables=("GOOGLE_VERTEX_BASE_URL",),
            strip=("/v1beta1", "/v1"),
            path="/v1/projects/{project}/locations/{region}",
        ),
        path="/publishers/google/models/{model}",
        key_variables=("GOOGLE_APPLICATION_CREDENTIALS",),
        variables={"project": "GOOGLE_CLOUD_PROJECT", "region": "GOOGLE_CLOUD_LOCATION"},
        credentials="embedway.providers.google:GoogleToken",
        fields=ProtocolFields(
            dimensions="outputDimensionality",
            input_type="task_type",
            input_types=_GOOGLES,
            truncate="autoTruncate",
            truncations={"none": False, "end": True},
        ),
        limits=BatchLimits(max_items=250, max_tokens=20_000),
        hq_country="US",
        source="cloud.google.com/vertex-ai/generative-ai/docs; the google-genai package",
        notes="Needs pip install 'embedway[vertex]'. The key is the path of a credentials "
        "file. You must set a region, though Google's own package falls back to global. "
        "Keys in GOOGLE_API_KEY are used for the Gemini API here. Several items of "
        "Gemini's models go through batchEmbedContents, as Google's package 3.6.1 sends "
        "them; it is not stated how many a call may hold, and calls are limited to 100.",
    ),
    ProviderRow(
        name="bedrock",
        key_parts=("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        key_optional=True,
        title="Amazon Bedrock",
        adapter="embedway.providers.adapters.bedrock:Bedrock",
        base_url="https://bedrock-runtime.{region}.amazonaws.com",
        path="/model/{model}/invoke",
        key_variables=("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"),
        variables={"region": ("AWS_REGION", "AWS_DEFAULT_REGION")},
        address=AddressTemplate(
            variables=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
            ignored_if="AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        ),
        credentials="embedway.providers.aws:SigV4",
        # Cohere's names. The adapter translates them for Titan and Nova, where they exist.
        fields=msgspec.structs.replace(COHERE_FIELDS, dimensions="dimensions"),
        limits=BatchLimits(max_items=1, max_parallel=16),
        hq_country="US",
        source="docs.aws.amazon.com/bedrock, model parameters; the botocore package",
        notes="Needs pip install 'embedway[bedrock]', unless the key is a Bedrock API key. The "
        "key may also be ID:SECRET or ID:SECRET:TOKEN. For an application inference "
        "profile, declare a model with its ARN as name; if id does not say which model "
        "it is, base_model does. Titan and Nova take one item per call, and Cohere's "
        "models 96. Titan has no input_type and cannot be told to truncate. Endpoints in "
        "AWS's configuration file are not read.",
    ),
    ProviderRow(
        name="foundry",
        title="Microsoft Foundry, models of Cohere",
        adapter="embedway.providers.adapters.cohere:Cohere",
        base_url="{endpoint}/providers/cohere/v2",
        path="/embed",
        key_variables=("AZURE_AI_API_KEY",),
        variables={"endpoint": "AZURE_AI_API_BASE"},
        strip=("/models",),
        credentials="header:api-key",
        fields=COHERE_FIELDS,
        limits=BatchLimits(max_items=90),
        hq_country="US",
        source="addresses of Foundry's deployments, reported by several users, 2026-07 to 2026-11; "
        "docs.cohere.com/docs/cohere-on-microsoft-azure",
        notes="endpoint is that of the resource, https://NAME.services.ai.azure.com. The model "
        "is the deployment's name. Embeds texts as documents unless input_type says otherwise. "
        "Microsoft does not document this address. A user reports that 153 items are refused and "
        "90 are taken, so calls are limited to 90. For OpenAI's models there, declare a provider "
        "of kind openai with base_url https://NAME.services.ai.azure.com/openai/v1. For "
        "serverless endpoints, declare kind cohere with their address and /v2.",
    ),
    ProviderRow(
        name="snowflake",
        title="Snowflake Cortex",
        adapter="embedway.providers.adapters.snowflake:Snowflake",
        base_url="https://{account}.snowflakecomputing.com/api/v2/cortex",
        path="/inference:embed",
        key_variables=("SNOWFLAKE_PAT", "SNOWFLAKE_JWT"),
        variables={"account": ("SNOWFLAKE_ACCOUNT", "SNOWFLAKE_ACCOUNT_ID")},
        # Sent with 400, though it is not the client's fault (docs.snowflake.com, embed REST API).
        failures=((r"all requests were throttled by remote service", "overloaded"),),
        limits=BatchLimits(max_items=128),
        hq_country="US",
        source="docs.snowflake.com, vector embedding REST API, 2026; litellm 1.109.1",
        notes="The key is a programmatic access token; a JWT expires within the hour. In the "
        "account's name, write hyphens for underscores. It has no input types and does "
        "not truncate on request. It is not stated how many items a call may hold; calls "
        "are limited to 128.",
    ),
)
