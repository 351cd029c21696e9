#!/usr/bin/env python3
"""Draw the pictures in ``examples/`` from seeds that neither training nor evaluation uses."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from vkconv.converters.demo_scenes import EXAMPLE_SEED, generate_scene

# File name, offset in the seed range of the examples, (width, height) in pixels. Chosen by eye, for
# looks and for showing what the detector can do; how often it errs is in docs/demo_detector.md.
EXAMPLES = (
    ("meadow.jpg", 452, (1280, 720)),
    ("winter.jpg", 133, (960, 640)),
    ("lake.jpg", 627, (640, 480)),
    ("dunes.jpg", 1028, (480, 640)),
)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("examples"), help="folder (default: examples)"
    )
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, offset, size in EXAMPLES:
        picture, _, labels = generate_scene(EXAMPLE_SEED + offset, size)
        path = folder / name
        Image.fromarray(picture).save(path, quality=90, subsampling=0, optimize=True)
        print(f"{path}: {size[0]}x{size[1]}, {len(labels)} objects, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
