"""The model chosen in the window, loaded when it is first needed."""

from __future__ import annotations

from napari_segany.core.protocols import ImageModel


class ModelChoice:
    """A model's name and device, and the model once it is there.

    Parameters
    ----------
    name, device : str
        See `napari_segany.load_model`.
    """

    def __init__(self, name: str = "nano", device: str = "auto") -> None:
        self.name, self.device = name, device
        self.model: ImageModel | None = None

    def load(self) -> ImageModel:
        """Return the model; this takes seconds the first time, so it is called in another thread."""
        from napari_segany import api

        if self.model is None:
            self.model = api.load_model(self.name, device=self.device)
        return self.model

    def describe(self) -> str:
        """Name the model and the device in use; empty before it is loaded."""
        if self.model is None:
            return ""
        return f"{self.model.name} on {getattr(self.model, 'device', self.device)}"
