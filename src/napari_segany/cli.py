"""``segany``: the same work without a window."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_segany import api, labelling
from napari_segany import demo as _demo
from napari_segany.core.errors import InvalidPromptError, SeganyError, StorageError
from napari_segany.core.instances import Instances
from napari_segany.core.settings import EverythingSettings, FindSettings, TrackSettings

#: Said when nothing of what was looked for is there.
NOTHING = "Nothing was found; lower the threshold, or draw a box around an example."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segment anything in microscopy images. Coordinates are array indices, rows first.",
)
models_app = typer.Typer(no_args_is_help=True, help="The models that can be used.")
app.add_typer(models_app, name="models")
train_app = typer.Typer(help="Train models.", no_args_is_help=True)
app.add_typer(train_app, name="train")

Image = Annotated[Path, typer.Argument(help="zarr array, OME-Zarr image, TIFF, PNG or JPEG")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="where the labels go; .zarr, .tif or .png")]
Model = Annotated[str, typer.Option("--model", "-m", help="registered name or checkpoint file")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "mps", or a Dask scheduler, "tcp://host:8786"')]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]
Point = Annotated[
    list[str] | None, typer.Option("--point", "-p", help="y,x inside the object; y,x,0 outside it; repeat for more")
]
Box = Annotated[str | None, typer.Option("--box", "-b", help="y0,x0,y1,x1 around the object, half-open")]
Axis = Annotated[str, typer.Option(help='axis to propagate along: "z", "t", or its number')]
Axes = Annotated[str | None, typer.Option(help='names of the axes, such as "tzyx", if the file does not tell')]
Embeddings = Annotated[
    Path | None,
    typer.Option(help="folder that keeps embeddings, so that no plane or tile is encoded twice; see precompute"),
]
Level = Annotated[str, typer.Option(help='resolution to work at, 0 is full; "auto" chooses by the size of objects')]
Region = Annotated[str | None, typer.Option(help="y0,x0,y1,x1, look only there; labels have the whole image's size")]
Resume = Annotated[bool, typer.Option("--resume", help="pass over planes that an earlier run has finished")]
Scheduler = Annotated[str | None, typer.Option(help='Dask scheduler whose workers do the work, "tcp://host:8786"')]
Resource = Annotated[list[str] | None, typer.Option(help="what a worker must offer, such as GPU=1")]
Index = Annotated[list[str] | None, typer.Option("--at", help='position on a further axis, such as "t=3"')]


def _numbers(text: str, counts: tuple[int, ...], what: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise InvalidPromptError(f'"{text}" is no {what}; give {" or ".join(map(str, counts))} numbers with commas.')
    return numbers


def _prompt(points: list[str] | None, box: str | None) -> dict[str, Any]:
    parsed = [_numbers(text, (2, 3), "point") for text in points or []]
    return {
        "points": [numbers[:2] for numbers in parsed] or None,
        "labels": [numbers[2] if len(numbers) == 3 else 1 for numbers in parsed] or None,
        "box": None if box is None else _numbers(box, (4,), "box"),
    }


def _region(text: str | None) -> list[float] | None:
    return None if text is None else _numbers(text, (4,), "region")


def _axis(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _index(positions: list[str] | None) -> dict[str, int]:
    index = {}
    for text in positions or []:
        name, _, at = text.partition("=")
        try:
            index[name.strip()] = int(at)
        except ValueError as error:
            raise InvalidPromptError(f'"{text}" is no position; write for example t=3.') from error
    return index


def _resources(asked: list[str] | None) -> dict[str, float] | None:
    found = {}
    for text in asked or []:
        name, _, amount = text.partition("=")
        try:
            found[name.strip()] = float(amount or 1)
        except ValueError as error:
            raise InvalidPromptError(f'"{text}" is no resource; write for example GPU=1.') from error
    return found or None


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _progress(what: str) -> Any:
    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{what} {done} of {total}", end="\n" if done == total else "", file=sys.stderr)

    return show


def _report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")


def _report_objects(found: Instances, output: Path | None, as_json: bool) -> None:
    result: dict[str, Any] = {"objects": len(found)}
    if output is not None:
        result["output"] = str(api.write_labels(found, output))
    if as_json:
        result["boxes"] = found.boxes.tolist()
        result["scores"] = [round(float(score), 4) for score in found.scores]
    _report(result, as_json)


def _stack(path: Path, axis: str, axes: str | None, at: list[str] | None) -> Any:
    """Open a stack, and say what about its chunks makes work on it slow or wrong."""
    frames = api.open_stack(path, _axis(axis), axes, _index(at))
    for remark in frames.remarks():
        _say(remark)
    return frames


def _image(path: Path) -> Any:
    """The single plane of an image file."""
    frames = api.open_stack(path)
    if len(frames) != 1:
        raise InvalidPromptError(f"{path} is a stack of {len(frames)} planes; use segany propagate.")
    return frames[0], frames.intensity


@app.command()
def segment(
    image: Image,
    point: Point = None,
    box: Box = None,
    output: Output = None,
    model: Model = "nano",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Segment one object of an image from points or a box."""
    plane, intensity = _image(image)
    found = api.segment(plane, **_prompt(point, box), model=api.load_model(model, device), intensity=intensity)
    best = found.best_index
    box_found, patch = found.patch(best)
    result = {
        "score": round(float(found.scores[best]), 4),
        "area": int(patch.sum()),
        "box": list(box_found),
        "scores": [round(float(score), 4) for score in found.scores],
    }
    if output is not None:
        result["output"] = str(api.write_labels(found.best.astype("uint8"), output))
    _report(result, as_json)


@app.command()
def everything(
    image: Image,
    output: Output = None,
    model: Model = "nano",
    device: Device = "auto",
    points_per_side: Annotated[
        int | None, typer.Option(min=1, max=512, help="use a grid of this many clicks a side")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="model whose boxes are prompted instead of a grid, such as nano")
    ] = None,
    text: Annotated[str | None, typer.Option(help="what the detector looks for")] = None,
    axis: Axis = "0",
    axes: Axes = None,
    at: Index = None,
    level: Level = "0",
    region: Region = None,
    resume: Resume = False,
    embeddings: Embeddings = None,
    scheduler: Scheduler = None,
    resource: Resource = None,
    as_json: AsJson = False,
) -> None:
    """Segment every object of an image, or of every plane of a stack."""
    if text is not None and detector is None:
        raise InvalidPromptError("Only a detector looks for words: give --detector, or use segany find.")
    settings = None if points_per_side is None else EverythingSettings(points_per_side=points_per_side)
    frames = _stack(image, axis, axes, at)
    # Workers load it by its name.
    guide = detector if detector is None or scheduler is not None else api.load_model(detector, device)
    if len(frames) > 1 or level != "0" or scheduler is not None:
        what: dict[str, Any] = {"settings": settings, "text": text, "detector": guide, "embeddings": embeddings}
        _label(
            image, output, axis, axes, at, region, model, device, level, resume, scheduler, resource, as_json, **what
        )
        return
    found = api.everything(
        frames.plane(0),
        api.load_model(model, device),
        settings,
        frames.intensity,
        _progress("done:"),
        guide,
        text,
        _region(region),
        embeddings,
    )
    _report_objects(found, output, as_json)


@app.command()
def find(
    image: Image,
    text: Annotated[str | None, typer.Option(help='what to look for, such as "nucleus"')] = None,
    exemplar: Annotated[list[str] | None, typer.Option(help="box around an example, y0,x0,y1,x1; repeatable")] = None,
    negative: Annotated[list[str] | None, typer.Option(help="box around something else; repeatable")] = None,
    frame: Annotated[int, typer.Option(help="plane of the examples")] = 0,
    threshold: Annotated[float, typer.Option(help="objects with a lower score are left out")] = 0.5,
    output: Output = None,
    model: Model = "nano",
    device: Device = "auto",
    axis: Axis = "0",
    axes: Axes = None,
    at: Index = None,
    level: Level = "0",
    region: Region = None,
    resume: Resume = False,
    embeddings: Embeddings = None,
    scheduler: Scheduler = None,
    resource: Resource = None,
    as_json: AsJson = False,
) -> None:
    """Find every object of a concept in an image, or on every plane of a stack."""
    shown, others = ([_numbers(box, (4,), "box") for box in boxes or []] for boxes in (exemplar, negative))
    settings = FindSettings(threshold=threshold)
    frames = _stack(image, axis, axes, at)
    if len(frames) > 1 or level != "0" or scheduler is not None:
        what: dict[str, Any] = {"text": text, "exemplars": shown, "negatives": others, "frame": frame}
        what |= {"settings": settings, "embeddings": embeddings}
        _label(
            image, output, axis, axes, at, region, model, device, level, resume, scheduler, resource, as_json, **what
        )
        return
    found = api.find(
        frames.plane(0),
        text,
        shown,
        others,
        model=api.load_model(model, device),
        settings=settings,
        intensity=frames.intensity,
        progress=_progress("tiles done:"),
        region=_region(region),
        embeddings=embeddings,
    )
    if not len(found):
        _say(NOTHING)
    _report_objects(found, output, as_json)


def _label(
    image: Path,
    output: Path | None,
    axis: str,
    axes: str | None,
    at: list[str] | None,
    region: str | None,
    model: str,
    device: str,
    level: str,
    resume: bool,
    scheduler: str | None,
    resource: list[str] | None,
    as_json: bool,
    **what: Any,
) -> None:
    """Label the planes of a stack."""
    if output is None:
        raise InvalidPromptError("The labels of a stack need a place: give --output with a folder ending in .zarr.")
    if level != "auto" and not level.isdigit():
        raise InvalidPromptError(f'"{level}" is no resolution level; give a number or "auto".')
    done = labelling.label(
        image,
        output,
        model=api.load_model(model, device) if scheduler is None else model,
        level="auto" if level == "auto" else int(level),
        resume=resume,
        scheduler=scheduler,
        resources=_resources(resource),
        progress=_progress("planes done:"),
        axis=_axis(axis),
        axes=axes,
        index=_index(at),
        region=_region(region),
        **what,
    )
    damaged = [one for one in done if one.damage]
    for one in damaged:
        _say(f"Plane {one.frame} was left out: {one.damage}")
    result: dict[str, Any] = {"planes": len(done), "objects": sum(one.objects for one in done), "output": str(output)}
    if as_json:
        result["objects_per_plane"] = {str(one.frame): one.objects for one in done if not one.damage}
        result["damaged"] = [one.frame for one in damaged]
    _report(result, as_json)
    if damaged:
        raise StorageError(f"{len(damaged)} of {len(done)} planes are damaged and were left out; see above.")


@app.command()
def track(
    image: Image,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for the OME-Zarr labels, ending in .zarr")],
    text: Annotated[list[str] | None, typer.Option(help="what to follow; repeatable")] = None,
    exemplar: Annotated[list[str] | None, typer.Option(help="box around an example, y0,x0,y1,x1; repeatable")] = None,
    negative: Annotated[list[str] | None, typer.Option(help="box around something else; repeatable")] = None,
    frame: Annotated[int, typer.Option(help="frame of the examples")] = 0,
    threshold: Annotated[float, typer.Option(help="objects with a lower score are left out")] = 0.5,
    divisions: Annotated[bool, typer.Option("--divisions", help="tell mothers and daughters; for time-lapses")] = False,
    axis: Axis = "0",
    axes: Axes = None,
    at: Index = None,
    embeddings: Embeddings = None,
    model: Model = "nano",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find every object of a concept in a stack and follow each of them.

    Stacks in z and t are followed in both: objects are three-dimensional, and examples are on the first time.
    """
    network = api.load_model(model, device)
    settings = TrackSettings(find=FindSettings(threshold=threshold), divisions=divisions)
    shown, others = ([_numbers(box, (4,), "box") for box in boxes or []] for boxes in (exemplar, negative))
    in_volumes = api.has_volumes(image, axes, _index(at))
    session: Any
    if in_volumes:
        session = api.VolumeSession(image, network, output, axes, _index(at))
    else:
        session = api.Session(image, _axis(axis), network, output, axes, _index(at), embeddings)
    try:
        if in_volumes:
            show, volumes = _progress("times done:"), session.track(text, shown, others, (0, frame), settings)
            for done, _ in enumerate(volumes):
                show(done + 1, session.times)
        else:
            show = _progress("frames looked at:")
            for _ in session.track(text, shown, others, frame, settings=settings, progress=show):
                pass
            session.save(output)
    finally:
        session.close()
    tracks = session.tracks
    if not tracks:
        _say(NOTHING)
    result: dict[str, Any] = {"objects": len(tracks), "output": str(output)}
    if as_json:
        result["tracks"] = [
            {"object": one.object_id, "first": one.first, "last": one.last, "parent": one.parent} for one in tracks
        ]
    _report(result, as_json)


@app.command()
def export(
    labels: Annotated[Path, typer.Argument(help="saved session, or label image over time")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="name ending in .geff, or a folder in the Cell Tracking Challenge's format"
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write tracks and divisions for tracking programs."""
    _report({"objects": api.export_tracks(labels, output), "output": str(output)}, as_json)


@app.command()
def propagate(
    image: Image,
    frame: Annotated[int, typer.Option(help="frame on which the object is prompted")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for the OME-Zarr labels, ending in .zarr")],
    point: Point = None,
    box: Box = None,
    object_id: Annotated[int, typer.Option("--object", help="id of the object, its label")] = 1,
    axis: Axis = "0",
    axes: Axes = None,
    at: Index = None,
    direction: Annotated[str, typer.Option(help='"both", "forward" or "backward"')] = "both",
    resume: Annotated[bool, typer.Option("--resume", help="go on where an earlier run stopped")] = False,
    motion: Annotated[bool, typer.Option("--motion", help="expect steady movement; for time-lapses")] = False,
    mask: Annotated[
        Path | None, typer.Option(help="label image of the frame: each of its objects is carried, under its own id")
    ] = None,
    embeddings: Embeddings = None,
    model: Model = "nano",
    device: Device = "auto",
    scheduler: Scheduler = None,
    resource: Resource = None,
    as_json: AsJson = False,
) -> None:
    """Segment one object on a frame, or take the objects of a label image, and carry them through the stack."""
    name = api.load_model(model, device) if scheduler is None else model
    if resume:
        session = api.Session.open(output, None, name, embeddings, scheduler, _resources(resource))
    else:
        session = api.Session(
            image, _axis(axis), name, output, axes, _index(at), embeddings, scheduler, _resources(resource)
        )
    session.settings = replace(session.settings, motion=motion)
    try:
        if mask is not None and not resume:
            session.accept_labels(frame, _image(mask)[0])
        elif not resume:
            session.prompt(object_id, frame, **_prompt(point, box))
        show = _progress("frames done:")
        chosen = None if resume or mask is not None else [object_id]
        run = session.propagate(chosen, direction=direction, resume=resume)  # type: ignore[arg-type]
        for done, _ in enumerate(run, start=1):
            show(min(done, len(session.frames)), len(session.frames))
        session.save(output)
    finally:
        session.close()
    if mask is not None or object_id not in {track.object_id for track in session.tracks}:
        _report({"objects": len(session.tracks), "frames": len(session.frames), "output": str(output)}, as_json)
        return
    track = next(track for track in session.tracks if track.object_id == object_id)
    frames = len(track.scores)
    _report(
        {"object": object_id, "first": track.first, "last": track.last, "frames": frames, "output": str(output)},
        as_json,
    )


@app.command()
def precompute(
    image: Image,
    embeddings: Annotated[Path, typer.Option("--output", "-o", help="folder to keep the embeddings in")],
    limit: Annotated[float, typer.Option(help="gigabytes to keep; beyond, what was not used for longest goes")] = 50.0,
    axis: Axis = "0",
    axes: Axes = None,
    at: Index = None,
    model: Model = "nano",
    device: Device = "auto",
    scheduler: Scheduler = None,
    resource: Resource = None,
    as_json: AsJson = False,
) -> None:
    """Encode every plane of a stack ahead of the work on it; started again, it goes on where it was stopped."""
    frames = _stack(image, axis, axes, at)
    made = api.precompute(
        frames,
        embeddings,
        api.load_model(model, device) if scheduler is None else model,
        limit=int(1e9 * limit),
        progress=_progress("planes done:"),
        scheduler=scheduler,
        resources=_resources(resource),
    )
    _report({"planes": len(frames), "encoded": made, "output": str(embeddings)}, as_json)


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models, their licences and whether they are on this computer."""
    models = api.list_models()
    if as_json:
        rows = [{**vars(info), "capabilities": sorted(info.capabilities)} for info in models]
        print(json.dumps(rows))
        return
    for info in models:
        state = "installed" if info.installed else f"get it from {info.url}"
        if info.provenance is not None:
            state += f", taught from {info.provenance['base']}"
        print(f"{info.name:22} {info.family:11} {info.size / 1e6:6.0f} MB  {info.licence:14} {state}")


@models_app.command("download")
def models_download(
    name: Annotated[str, typer.Argument(help="registered name, see segany models list")],
    token: Annotated[str | None, typer.Option(help="access token for gated models; HF_TOKEN by default")] = None,
) -> None:
    """Fetch the weights of a model from its publisher; a broken download goes on where it stopped."""
    show = _progress("bytes:")
    print(api.download_model(name, token, lambda done, total: show(done, total)))


@models_app.command("import")
def models_import(
    path: Annotated[Path, typer.Argument(help="checkpoint: .pt, .pth or .safetensors")],
    name: Annotated[str | None, typer.Option(help="name to load it by; the file's by default")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a checkpoint and keep it under a name."""
    info = api.import_model(path, name)
    _report({"name": info.name, "family": info.family, "capabilities": sorted(info.capabilities)}, as_json)


@train_app.command("nano")
def train_nano(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for checkpoints, the log and the weights")],
    data: Annotated[
        Path | None, typer.Option(help="folder of annotated images with an index.json; without, generated ones only")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="time in which to train; the longer the better")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with other numbers of the training")] = None,
    start: Annotated[Path | None, typer.Option(help="last.pt of another run whose weights to begin with")] = None,
) -> None:
    """Train the small model; stopped, it goes on when it is started again with the same output."""
    print(api.train_nano(data, output, minutes, config, start, _say))


@app.command()
def demo(
    image: Annotated[Path | None, typer.Argument(help="a stack of your own; generated nuclei by default")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for results")] = Path("segany-demo"),
    point: Annotated[str | None, typer.Option("--point", "-p", help="frame,y,x on the object to follow")] = None,
    model: Model = "nano",
    window: Annotated[bool, typer.Option(help="show the result in napari")] = True,
    as_json: AsJson = False,
) -> None:
    """Click one object, carry it through a stack, and show the result in napari.

    Without a display a virtual screen is used, and a screenshot is left beside the labels.
    """
    start = None if point is None else _numbers(point, (3,), "place (frame,y,x)")
    result = _demo.run(image, output, start, model, _progress("frames done:"))
    _say(f"Labels (OME-Zarr): {result.labels}")
    if window:
        shot = result.folder / "screenshot.png"
        if _demo.show(result, shot) == 0 and shot.exists():
            _say(f"Screenshot: {shot}")
    _report({"object": 1, "frames": result.frames, "score": result.score, "output": str(result.labels)}, as_json)


def main() -> None:
    """Run the command line; a mistake of the person's is one line and a non-zero exit."""
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except SeganyError as error:
        sys.exit(f"segany: {error}")
    except KeyboardInterrupt:
        sys.exit("segany: stopped; what was finished is saved.")
    except Exception as error:
        # What the command line parser has to say about its arguments.
        if not hasattr(error, "format_message"):
            raise
        sys.exit(f"segany: {error.format_message()}")


if __name__ == "__main__":
    main()
