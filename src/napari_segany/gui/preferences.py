"""What a person has set in the preferences of napari; the manifest declares it, older napari knows none of it."""

from __future__ import annotations

from typing import Any


def preference(group: str, name: str, default: Any) -> Any:
    """Value of a setting, the default where napari keeps none for us."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(getattr(get_plugin_settings("napari-segany"), group), name)
    except (ImportError, KeyError, AttributeError):
        return default
