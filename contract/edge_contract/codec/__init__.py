"""The lossless codec of a bundle's members: columns for ONNX files, zstd for the rest.

Pure: bytes in, bytes out, without the onnx library. The format: docs/formats/codec.md.
"""

from edge_contract.codec._container import decode, decode_pieces, encode
from edge_contract.codec._error import CodecError

__all__ = ["CodecError", "decode", "decode_pieces", "encode"]
