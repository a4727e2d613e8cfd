"""The bytes of a file in chunks of bounded size, decompressed where it is gzip or zstd.

Never imports JAX.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 18
# A compressed block of few bytes may stand for 128 KiB: fed like this, no chunk has over 6 MiB.
ZSTD_FEED = 128


def open_chunks(path: str) -> Iterator[bytes]:
    """The decompressed bytes of a file, or of standard input for `-`.

    Raises FileNotFoundError, EOFError where the compressed data are damaged or cut off (after all
    bytes before the damage were yielded), ImportError where zstandard is needed and missing.
    """
    if path == "-":
        yield from _plain(sys.stdin.buffer)
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with open(path, "rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        if magic[:2] == b"\x1f\x8b":
            yield from _gunzip(stream)
        elif magic == b"\x28\xb5\x2f\xfd":
            yield from _unzstd(stream, path)
        else:
            yield from _plain(stream)


def _plain(stream) -> Iterator[bytes]:
    while chunk := stream.read1(CHUNK):
        yield chunk


def _gunzip(stream: BinaryIO) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=stream) as file:
            # read1: read would drop what it had when it meets the damage.
            while chunk := file.read1(CHUNK):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EOFError(f"damaged gzip data ({error})") from error


def _unzstd(stream: BinaryIO, path: str) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(f"{path} is zstd: pip install 'm3jax[data]'") from error

    # Not stream_reader: it takes the end of a file that was cut off for the end of the data.
    decoder = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    try:
        while data := stream.read(ZSTD_FEED):
            while data:
                begun = True
                if chunk := decoder.decompress(data):
                    yield chunk
                data = b""
                if decoder.eof:  # another frame may follow
                    data = decoder.unused_data
                    decoder, begun = zstandard.ZstdDecompressor().decompressobj(), False
    except zstandard.ZstdError as error:
        raise EOFError(f"damaged zstd data ({error})") from error
    if begun:
        raise EOFError("damaged zstd data (the last frame is cut off)")
