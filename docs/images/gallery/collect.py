"""Copy figures into the gallery, with few colours: python docs/images/gallery/collect.py FIGURE.png ..."""

import sys
from pathlib import Path

from PIL import Image

WIDTH, COLORS = 1100, 128


def small(path: Path) -> Image.Image:
    """The figure, at most WIDTH wide, in a palette."""
    image = Image.open(path).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    return image.quantize(COLORS)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        small(Path(name)).save(Path(__file__).parent / Path(name).name, optimize=True)
