"""What parsing a broken file ends in."""

import struct
import tokenize
import zipfile
import zlib

# What parsing a broken file ends in, in numpy, zipfile, gzip and Pillow, besides OSError.
BROKEN = (
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
