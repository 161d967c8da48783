"""``python -m napari_segany.gui.show IMAGE LABELS SCREENSHOT``: napari on a finished result."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def main() -> None:
    """Open the window, save a picture of it, and stay open unless told to quit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("screenshot", type=Path)
    parser.add_argument("--quit", action="store_true")
    args = parser.parse_args()

    import napari
    from qtpy.QtCore import QTimer

    from napari_segany.api import Session
    from napari_segany.gui.widget import SegmentWidget

    session = Session.open(args.labels)
    viewer = napari.Viewer(title="napari-segany", show=True)
    viewer.window.resize(1500, 1000)
    stack = np.stack([session.frames[frame] for frame in range(len(session.frames))])
    image = viewer.add_image(stack, name=args.image.stem, rgb=stack.ndim == 4)
    viewer.add_labels(np.asarray(session.labels), name="Labels", scale=image.scale)
    frames = [frame for _, frame in session.scores]
    viewer.dims.set_current_step(0, frames[len(frames) // 2] if frames else 0)
    session.close()
    viewer.window.add_dock_widget(SegmentWidget(viewer), name="Segment Anything")

    def picture() -> None:
        viewer.screenshot(str(args.screenshot), canvas_only=False, flash=False)
        if args.quit:
            viewer.close()

    QTimer.singleShot(1500, picture)
    napari.run()


if __name__ == "__main__":
    main()
