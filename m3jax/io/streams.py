"""Reads a file in chunks of bounded size and decompresses gzip and zstd."""

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 18
# A few compressed bytes may decompress to 128 KiB; with this input size a chunk is at most 6 MiB.
ZSTD_FEED = 128


def open_chunks(path: str) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file, or of standard input if `path` is "-".

    Raises FileNotFoundError; EOFError for damaged or truncated compressed data, after yielding all
    bytes before the damage; ImportError if the file is zstd and zstandard is not installed.
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
            # read1, since read would drop the bytes before the damage.
            while chunk := file.read1(CHUNK):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EOFError(f"damaged gzip data ({error})") from error


def _unzstd(stream: BinaryIO, path: str) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(f"{path} is zstd: pip install 'm3jax[data]'") from error

    # Not stream_reader, which takes the end of a truncated file for the end of the data.
    decoder = zstandard.ZstdDecompressor().decompressobj()
    in_frame = False
    try:
        while data := stream.read(ZSTD_FEED):
            while data:
                in_frame = True
                if chunk := decoder.decompress(data):
                    yield chunk
                data = b""
                if decoder.eof:  # another frame may follow
                    data = decoder.unused_data
                    decoder, in_frame = zstandard.ZstdDecompressor().decompressobj(), False
    except zstandard.ZstdError as error:
        raise EOFError(f"damaged zstd data ({error})") from error
    if in_frame:
        raise EOFError("damaged zstd data (the last frame is truncated)")
