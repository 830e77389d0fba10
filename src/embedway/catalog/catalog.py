"""Loads the models this gateway knows from the data files beside this module."""

from importlib import resources

import msgspec

from embedway.catalog.model import Deployment, Model

AUTO = "auto"
AUTO_MODEL = "all-minilm-l6-v2"
"""The model behind `auto`: a pinned choice, for another one is another vector space."""


class Catalog:
    """The known models by id, and what `auto` stands for."""

    def __init__(self, models: list[Model], *, auto: str) -> None:
        self.models = {model.id: model for model in models}
        self.auto = self.models[auto]
        """The model behind `auto`."""

    def names(self) -> list[str]:
        """Every name a request may use."""
        qualified = (
            f"{deployment.provider}:{model.id}" for model, deployment in self.deployments()
        )
        return [AUTO, *qualified, *self.models]

    def deployments(self) -> list[tuple[Model, Deployment]]:
        """Every deployment with its model."""
        return [(model, each) for model in self.models.values() for each in model.deployments]


def load(*, eu_native: bool) -> Catalog:
    """The packaged catalog.

    Args:
        eu_native: Whether the operator declares this gateway's own models, which run where it
            runs, to be based and regulated in the EU.
    """
    folder = resources.files("embedway.catalog") / "models"
    models = [
        msgspec.toml.decode(file.read_bytes(), type=Model)
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
    ]
    local = [
        msgspec.structs.replace(
            model,
            deployments=[
                msgspec.structs.replace(each, eu_native=eu_native) for each in model.deployments
            ],
        )
        for model in models
    ]
    return Catalog(local, auto=AUTO_MODEL)
