"""Speaks Azure OpenAI's protocol: OpenAI's with deployment and API version in the URL."""

from urllib.parse import quote

from embedway.core.batch import Batch
from embedway.providers.adapters.openai import OpenAi


class Azure(OpenAi):
    """Adds the deployment, which is the model, and the API version to the path."""

    def build_path(self, batch: Batch) -> str:
        """Return the path with the model and the API version."""
        version = quote(self._variables["api_version"], safe="")
        return f"{super().build_path(batch)}?api-version={version}"
