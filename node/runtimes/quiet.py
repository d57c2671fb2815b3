"""Hold back what native libraries write to file descriptor 2 before anybody can set their log level.

The descriptor belongs to the whole process, so this is for loading only, and short. Lines that are not known noise are
written out afterwards: a reason to fail must not be lost.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def without(noise: re.Pattern[bytes]) -> Iterator[None]:
    """Drop the lines that ``noise`` matches at their beginning from what is written to descriptor 2 meanwhile."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no such descriptor here: nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            buffer.seek(0)
            for line in buffer:
                if not noise.match(line):
                    os.write(2, line)
