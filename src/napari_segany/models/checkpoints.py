"""Model files: read safely, unwrapped, recognised by their keys and shapes, checked before any copy."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_segany.core.errors import CheckpointError, first_line
from napari_segany.core.paths import exists

State = dict[str, Tensor]

PICKLE_SUFFIXES = {".pt", ".pth"}


@dataclass(frozen=True)
class Layout:
    """One way in which a family's weights are written down.

    Attributes
    ----------
    family : str
    recognise : callable
        From a state to the name of the size, or None when it is not this layout.
    rename : callable
        From a state of this layout to the network's own names.
    build : callable
        From the size to the network, on the current default device.
    """

    family: str
    recognise: Callable[[State], str | None]
    rename: Callable[[State], State]
    build: Callable[[str], nn.Module]


def renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    """Apply every rule (pattern, replacement) that matches a key, in their order."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def read_state(path: Path) -> State:
    """Read the tensors of a checkpoint without running anything in it.

    Parameters
    ----------
    path : ``.safetensors``, ``.pt`` or ``.pth`` file, or a folder with ``model.safetensors``

    Raises
    ------
    CheckpointError
        Missing, empty, damaged, unsafe, or not a checkpoint.
    """
    if not exists(path):
        raise CheckpointError(f"There is no model file {path}.")
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file() or path.suffix not in {".safetensors", *PICKLE_SUFFIXES}:
        raise CheckpointError(f"{path} is not a model file; use .pt, .pth, .safetensors or a folder.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not head:
        raise CheckpointError(f"{path} is empty; download it again.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _checked(_unwrap(_read_pickle(path, head), path), path)


def write_state(network: nn.Module, path: Path) -> None:
    """Write the weights of a network as safetensors, under its own names."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)


def _read_folder(folder: Path) -> State:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        if not (folder / "model.safetensors").exists():
            raise CheckpointError(f"The folder {folder} holds no model.safetensors.")
        return _read_safetensors(folder / "model.safetensors")
    try:
        parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        outside = any(Path(part).name != part for part in parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged; download the model again.") from error
    state: State = {}
    for part in parts:
        if outside:
            raise CheckpointError(f"{index} points outside its folder; the file is not trusted.")
        state.update(_read_safetensors(folder / part))
    return state


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise CheckpointError(f"{path} ({size} bytes) is damaged or cut off ({error}); download it again.") from error


def _read_pickle(path: Path, head: bytes) -> object:
    if not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path} is not a checkpoint: it begins with {head!r}; download it again.")
    if head.startswith(b"PK"):
        _check_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except Exception as error:
        # Whatever an unpickler stumbles over in bytes that anybody may have written.
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is damaged or cut off ({first_line(error)}); download it again."
        ) from error


def _refusal(path: Path, message: str) -> str:
    """Name the object that would have run code, without torch's advice to load it unsafely."""
    for marker in ("Unsupported global: GLOBAL ", "Unsupported class ", "unsupported GLOBAL "):
        if marker in message:
            name = message.split(marker, 1)[1].split()[0]
            return (
                f"{path} holds more than weights: it would run {name}; export its state dict as .safetensors, "
                "or get the file from its publisher."
            )
    return f"{path} holds more than weights and is not loaded; export its state dict as .safetensors."


def _check_zip(path: Path) -> None:
    """Refuse archives whose entries unpack to more than the file, or lie outside it."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} ({path.stat().st_size} bytes) is cut off; download it again.") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{path} has compressed entries, which no checkpoint has; it is not trusted.")
        if entry.filename.startswith("/") or ".." in Path(entry.filename).parts:
            raise CheckpointError(f"{path} has an entry outside its own folder; it is not trusted.")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path} unpacks to more than it holds, which no checkpoint does; it is not trusted.")


def _unwrap(loaded: object, path: Path) -> State:
    """Find the state dict in the layouts that training programs write."""
    for key in ("model_state", "model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path} holds no weights: a {type(loaded).__name__} was found in it.")
    others = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f'{path} holds more than weights: "{others[0]}" is no tensor; export its state dict.')
    state = {str(name): value for name, value in loaded.items()}
    if all(name.startswith("sam.") for name in state):
        # micro-sam's training wraps the network.
        return {name.removeprefix("sam."): value for name, value in state.items()}
    return state


def _checked(state: State, path: Path) -> State:
    """Refuse tensors that are more than a view of the file's own bytes, before anything is done with them."""
    total = 0
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise CheckpointError(f"{path} is not trusted: {name} is no plain tensor.")
        held = value.untyped_storage().nbytes() // value.element_size()
        total += value.numel() * value.element_size()
        if max(value.numel(), *value.shape, 0) > held or total > 2 * path.stat().st_size:
            raise CheckpointError(
                f"{path} is not trusted: {name} claims the shape {tuple(value.shape)}, more than the file holds."
            )
    return state


def recognise(state: State, layouts: list[Layout], what: str) -> tuple[Layout, str]:
    """Find the family and size of a state from its keys and shapes.

    Raises
    ------
    CheckpointError
        No layout fits.
    """
    for layout in layouts:
        try:
            size = layout.recognise(state)
        except (KeyError, IndexError):
            # A key that it looks at is missing, or has no such axis.
            continue
        if size is not None:
            return layout, size
    first = ", ".join(list(state)[:5])
    known = ", ".join(sorted({layout.family for layout in layouts}))
    raise CheckpointError(f"{what} is of an unknown kind: its keys begin with {first}; known families are {known}.")


class Undrawn(TorchFunctionMode):
    """Lets networks on the meta device be made without drawing their first weights.

    There is nothing to fill there, yet PyTorch would load its whole compiler to
    draw: a second, and with CUDA a library (Triton) that crashes beside Mesa's.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.normal_ or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if func == torch.randn else func)(*args, **kwargs)


def build(state: State, layout: Layout, size: str, what: str) -> nn.Module:
    """Build the network of a state, strictly: every key, every shape, only finite numbers.

    Raises
    ------
    CheckpointError
        Keys are missing or left over, a shape differs, or a number is not finite.
    """
    with torch.device("meta"), Undrawn():
        network = layout.build(size)
    expected = network.state_dict()
    try:
        state = layout.rename(state)
    except (KeyError, IndexError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{what} looks like {size} but its tensors do not fit together ({first_line(error)})."
        ) from error
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        listed = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:5])}"
            for kind, names in (("missing", missing), ("not known", extra))
            if names
        )
        raise CheckpointError(f"{what} looks like {size} but its keys do not fit ({listed}).")
    for name, value in state.items():
        # Shapes first: a few bytes can claim to be a tensor of any size.
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{what} looks like {size} but {name} has the shape {tuple(value.shape)} instead of "
                f"{tuple(expected[name].shape)}."
            )
        if value.is_floating_point() != expected[name].is_floating_point():
            raise CheckpointError(f"{what} looks like {size} but {name} holds {value.dtype} numbers.")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(f"{what} is damaged: {name} holds numbers that are not finite.")
    # Buffers that follow from the numbers alone are in no checkpoint: build those for real.
    network = layout.build(size)
    network.load_state_dict(state)
    return network
