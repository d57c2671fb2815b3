"""BMP: the header. Run-length encoded ones are refused: nobody sends them, and their decoder is slow."""

from node.errors import BadImage
from node.imagefiles.base import Data, File, damaged

MAGIC = b"BM"
_OLD_HEADER = 12
_RUN_LENGTHS = (1, 2)


def read(data: Data) -> File:
    """Look at the header. Raises ``BadImage``."""
    size = int.from_bytes(data[14:18], "little")
    if len(data) < 26 or (size != _OLD_HEADER and len(data) < 34):
        raise damaged("BMP", "its header is cut off")
    if size == _OLD_HEADER:
        width, height, bits = (int.from_bytes(data[at : at + 2], "little") for at in (18, 20, 24))
    else:
        width, height = (abs(int.from_bytes(data[at : at + 4], "little", signed=True)) for at in (18, 22))
        bits = int.from_bytes(data[28:30], "little")
        if int.from_bytes(data[30:34], "little") in _RUN_LENGTHS:
            raise BadImage("a run-length encoded BMP is not read here; send it as PNG")
    return File("BMP", width, height, (memoryview(data),), pixel=1 if bits <= 8 else 4)
