"""The model chosen in the window, loaded when it is first needed."""

from __future__ import annotations

from napari_segany.core.protocols import ImageModel


class ModelChoice:
    """A model's name, device and precision, and the model once it is there.

    Parameters
    ----------
    name, device, dtype : str
        See `napari_segany.load_model`.
    """

    def __init__(self, name: str = "nano", device: str = "auto", dtype: str = "auto") -> None:
        self.name, self.device, self.dtype = name, device, dtype
        self.model: ImageModel | None = None

    def load(self) -> ImageModel:
        """Return the model; this takes seconds the first time, so it is called in another thread."""
        from napari_segany import api

        if self.model is None:
            self.model = api.load_model(self.name, device=self.device, dtype=self.dtype)
        return self.model

    @property
    def where(self) -> str:
        """The device in use; the one that is wanted before the model is loaded."""
        return str(getattr(self.model, "device", self.device))

    def describe(self) -> str:
        """Name the model and the device in use; empty before it is loaded."""
        return "" if self.model is None else f"{self.model.name} on {self.where}"

    def describe_memory(self) -> str:
        """Tell the precision in use and what memory is left; empty before the model is loaded."""
        from napari_segany import api

        if self.model is None:
            return ""
        free = api.free_memory(self.model)
        dtype = str(getattr(self.model, "dtype", self.dtype)).removeprefix("torch.")
        left = "" if free is None else f", {free / 1e9:.1f} GB of memory free"
        return f"{self.describe()} in {dtype}{left}"
