"""Azure OpenAI: OpenAI's protocol with the deployment and the version of the API in the URL."""

from urllib.parse import quote

from embedway.core.batch import Batch
from embedway.providers.adapter import model_path
from embedway.providers.adapters.openai import OpenAi


class Azure(OpenAi):
    """The adapter. A model is the name of a deployment."""

    def path(self, batch: Batch) -> str:
        """The path, with the model in it."""
        version = self._variables["api_version"]
        return f"{model_path(self._row.path, batch.model)}?api-version={quote(version, safe='')}"
