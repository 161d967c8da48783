"""The napari side: layer adapters, controller and widgets."""
