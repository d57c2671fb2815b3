"""Which format a file has, by its first bytes, and its structure."""

from collections.abc import Callable

from node.errors import BadImage
from node.imagefiles import bmp, gif, jpeg, png, webp
from node.imagefiles.base import Data, File

_FORMATS: dict[str, tuple[bytes, Callable[[Data], File]]] = {
    "JPEG": (jpeg.MAGIC, jpeg.read),
    "PNG": (png.MAGIC, png.read),
    "WEBP": (webp.MAGIC, webp.read),
    "GIF": (gif.MAGIC, gif.read),
    "BMP": (bmp.MAGIC, bmp.read),
}
FORMATS = tuple(_FORMATS)


def walk(data: Data) -> File:
    """Take a file apart. Raises ``BadImage`` for what is none of ``FORMATS``, or has not their structure."""
    for name, (magic, read) in _FORMATS.items():
        if data.startswith(magic) and (name != "WEBP" or data[8:12] == b"WEBP"):
            file = read(data)
            if not file.width or not file.height:
                raise BadImage(f"the {name} image has no pixels")
            return file
    raise BadImage(f"the bytes are no image this node reads ({', '.join(FORMATS)})")
