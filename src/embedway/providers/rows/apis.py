"""Companies that serve their own models with protocols of their own."""

import msgspec

from embedway.core.batch import BatchLimits
from embedway.providers.adapter import AddressTemplate, ProtocolFields, ProviderRow

COHERE_FIELDS = ProtocolFields(
    dimensions="output_dimension",
    input_type="input_type",
    input_types={
        "query": "search_query",
        "document": "search_document",
        "classification": "classification",
        "clustering": "clustering",
    },
    default_input_type="search_document",
    truncate="truncate",
    truncations={"none": "NONE", "end": "END", "start": "START"},
)
"""The fields of Cohere's protocol wherever its models are served."""

ROWS: tuple[ProviderRow, ...] = (
    ProviderRow(
        name="cohere",
        title="Cohere",
        adapter="embedway.providers.adapters.cohere:Cohere",
        base_url="https://api.cohere.com/v2",
        path="/embed",
        address=AddressTemplate(variables=("CO_API_URL",), strip=("/v2", "/v1"), path="/v2"),
        key_variables=("CO_API_KEY", "COHERE_API_KEY"),
        fields=msgspec.structs.replace(COHERE_FIELDS, base64=("embedding_types", "base64")),
        limits=BatchLimits(max_items=96),
        hq_country="CA",
        source="github.com/cohere-ai/cohere-developer-experience; the cohere package",
        notes="Embeds texts as documents unless input_type says otherwise.",
    ),
    ProviderRow(
        name="voyage",
        title="Voyage AI",
        base_url="https://api.voyageai.com/v1",
        by_key={"al-": "https://ai.mongodb.com/v1"},
        key_variables=("VOYAGE_API_KEY_PATH", "VOYAGE_API_KEY"),
        key_files=("VOYAGE_API_KEY_PATH",),
        fields=ProtocolFields(
            dimensions="output_dimension",
            base64=("encoding_format", "base64"),
            input_type="input_type",
            input_types={"query": "query", "document": "document"},
            truncate="truncation",
            truncations={"none": False, "end": True},
        ),
        # Some models take 320,000 tokens, some a million.
        limits=BatchLimits(max_items=1000, max_tokens=120_000),
        hq_country="US",
        source="docs.voyageai.com/reference/embeddings-api; the voyageai package, 0.5.0",
        notes="Keys that begin with al- belong to MongoDB Atlas and go to "
        "https://ai.mongodb.com/v1, unless you declare base_url.",
    ),
    ProviderRow(
        name="jina",
        title="Jina AI",
        base_url="https://api.jina.ai/v1",
        key_variables=("JINA_API_KEY",),
        fields=ProtocolFields(
            dimensions="dimensions",
            base64=("embedding_type", "base64"),
            input_type="task",
            input_types={
                "query": "retrieval.query",
                "document": "retrieval.passage",
                "classification": "classification",
                "clustering": "clustering",
            },
            truncate="truncate",
            truncations={"none": False, "end": True},
        ),
        limits=BatchLimits(max_items=2048),
        hq_country="DE",
        source="Jina's OpenAPI description",
        notes="The tasks are those of v5 models. The catalog gives other models their own: v3 "
        "calls clustering separation, v4 has only retrieval, and code models use "
        "nl2code.query and nl2code.passage; v2 and CLIP models have none. For a model "
        "that the catalog does not know, declare its input_types. Jina AI has belonged "
        "to Elastic since October 2025.",
    ),
    ProviderRow(
        name="nomic",
        title="Nomic",
        adapter="embedway.providers.adapters.nomic:Nomic",
        base_url="https://api-atlas.nomic.ai/v1",
        path="/embedding/text",
        address=AddressTemplate(variables=("ATLAS_API_PATH",), path="/v1"),
        key_variables=("NOMIC_API_KEY",),
        fields=ProtocolFields(
            dimensions="dimensionality",
            input_type="task_type",
            input_types={
                "query": "search_query",
                "document": "search_document",
                "classification": "classification",
                "clustering": "clustering",
            },
            default_input_type="search_document",
            truncate="long_text_mode",
            truncations={"end": "truncate"},
        ),
        limits=BatchLimits(max_items=10),
        hq_country="US",
        source="docs.nomic.ai; the nomic package",
        notes="Never refuses a text for its length: unless truncate is end, it returns the "
        "mean of the vectors of the text's parts. Embeds texts as documents unless "
        "input_type says otherwise. It is not stated how many items a call may hold; "
        "calls are limited to 10, as in Nomic's own client.",
    ),
    ProviderRow(
        name="huggingface",
        title="Hugging Face Inference",
        adapter="embedway.providers.adapters.huggingface:HuggingFace",
        base_url="https://router.huggingface.co/hf-inference",
        path="/models/{model}/pipeline/feature-extraction",
        key_variables=(
            *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
            *("HUGGINGFACE_API_KEY", "HUGGINGFACEHUB_API_TOKEN"),
        ),
        fields=ProtocolFields(
            input_type="prompt_name",
            input_types={"query": "query", "document": "document"},
            truncate="truncate",
            truncations={"none": False, "end": True, "start": True},
        ),
        limits=BatchLimits(max_items=32),
        hq_country="US",
        source="the huggingface_hub package",
        notes="The token file of a login, and HF_TOKEN_PATH, are not read: they belong to the "
        "person who logged in. HF_ENDPOINT and HF_INFERENCE_ENDPOINT belong to other "
        "APIs. input_type selects the prompt of that name, which the model must have. "
        "Reports no token counts. Models that are not served by Text Embeddings "
        "Inference may truncate texts regardless. It is not stated how many items a call "
        "may hold; calls are limited to 32.",
    ),
    ProviderRow(
        name="cloudflare",
        title="Cloudflare Workers AI",
        adapter="embedway.providers.adapters.cloudflare:Cloudflare",
        base_url="https://api.cloudflare.com/client/v4/accounts/{account_id}/ai",
        path="/run/{model}",
        address=AddressTemplate(
            variables=("CLOUDFLARE_BASE_URL",), path="/accounts/{account_id}/ai"
        ),
        key_variables=("CLOUDFLARE_API_TOKEN",),
        variables={"account_id": "CLOUDFLARE_ACCOUNT_ID"},
        fields=ProtocolFields(
            words_are_fields=True,
            truncate="truncate_inputs",
            truncations={"none": False, "end": True},
        ),
        limits=BatchLimits(max_items=100),
        hq_country="US",
        source="developers.cloudflare.com/workers-ai; github.com/cloudflare/cloudflare-docs, 11316",
        notes="CLOUDFLARE_API_KEY and CLOUDFLARE_EMAIL are not read: such a key has every "
        "right in the account. Pools the English bge models by mean unless each call "
        "says pooling = cls, which the catalog sees to. Reports no token counts. Only "
        "for bge-m3 is it documented that items that are too long are refused. The limit "
        "of 100 items comes from users' reports.",
    ),
    ProviderRow(
        name="watsonx",
        title="IBM watsonx.ai",
        adapter="embedway.providers.adapters.watsonx:Watsonx",
        base_url="{url}",
        path="/ml/v1/text/embeddings?version=2024-05-31",
        key_variables=("WATSONX_API_KEY", "WATSONX_APIKEY"),
        variables={
            "url": "WATSONX_URL",
            "project_id": "WATSONX_PROJECT_ID",
            "space_id": "WATSONX_SPACE_ID",
        },
        defaults={"project_id": "", "space_id": "", "iam_url": "https://iam.cloud.ibm.com"},
        credentials="embedway.providers.ibm:IamToken",
        limits=BatchLimits(max_items=1000),
        hq_country="US",
        source="ibm.com/watsonx/developer; the ibm-watsonx-ai package",
        notes="PROJECT_ID, SPACE_ID and USER_ACCESS_TOKEN, which IBM's package reads in its "
        "notebooks, are not read: other programs use these names. url is that of a "
        "region, such as https://us-south.ml.cloud.ibm.com. Needs project_id or "
        "space_id; if both are set, space_id is used. Refuses items that are too long, "
        "and cannot be told which side to cut. Uses only one key.",
    ),
    ProviderRow(
        name="pinecone",
        title="Pinecone Inference",
        adapter="embedway.providers.adapters.pinecone:Pinecone",
        base_url="https://api.pinecone.io",
        path="/embed",
        address=AddressTemplate(variables=("PINECONE_CONTROLLER_HOST",)),
        key_variables=("PINECONE_API_KEY",),
        credentials="header:Api-Key",
        fields=ProtocolFields(
            dimensions="dimension",
            input_type="input_type",
            input_types={"query": "query", "document": "passage"},
            default_input_type="passage",
            truncate="truncate",
            truncations={"none": "NONE", "end": "END"},
        ),
        # A plan's monthly tokens; the status is also 429 (docs.pinecone.io, database limits).
        failures=((r"reached the embedding token limit .{0,120} for the current month", "quota"),),
        limits=BatchLimits(max_items=96),
        hq_country="US",
        source="docs.pinecone.io, models, 2026-04; the pinecone package, API 2026-07",
        notes="Embeds texts as passages unless input_type is query. Takes dimensions only for "
        "llama-text-embed-v2. PINECONE_ADDITIONAL_HEADERS is not read: headers cannot be "
        "declared here.",
    ),
)
