"""Keys of the widget, bound on the viewer while it is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from napari.components import ViewerModel
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.notifications import show_warning

from napari_segany.gui.preferences import preference

#: The keys unless other ones are preferred: neither napari's viewer nor its Points, Shapes and Labels layers use them.
KEYS = {
    "toggle_sign": "N",
    "accept": "J",
    "accept_all": "Shift-J",
    "next_object": "K",
    "next_candidate": "H",
    "undo": "U",
    "redo": "Shift-U",
    "most_uncertain": "W",
    "accept_suggestion": "G",
    "reject_suggestion": "Q",
}


def key_of(action: str) -> str:
    """Key of an action in `KEYS`, as the person prefers it."""
    return str(preference("shortcuts", action, KEYS[action]))


def is_key(key: str) -> bool:
    """Whether a keyboard has such a key, or combination of keys."""
    parts = coerce_keybinding(key).parts if key.strip() else []
    # What napari cannot read it takes for a key without a code.
    return bool(parts) and all(part.key is not None and int(part.key) for part in parts)


class Keys:
    """Binds actions to their keys, and gives the keys back.

    Parameters
    ----------
    viewer : napari viewer
    actions : name in `KEYS` -> function
        A key that is taken already is left alone, with a notice.
    """

    def __init__(self, viewer: ViewerModel, actions: Mapping[str, Callable[[], None]]) -> None:
        self.viewer = viewer
        self.bound: list[str] = []
        for name, action in actions.items():
            key, spoken = key_of(name), name.replace("_", " ")
            if not is_key(key):
                show_warning(f'"{key}" is no key; set another one for "{spoken}" in the preferences of napari.')
                continue
            try:
                viewer.bind_key(key, lambda _, action=action: action())
            except ValueError:
                show_warning(f'The key {key} is taken by something else; use the button "{spoken}".')
            else:
                self.bound.append(key)

    def release(self) -> None:
        """Give the keys back."""
        for key in self.bound:
            self.viewer.bind_key(key, None)
        self.bound.clear()
