"""Builds type information (BTF) type by type, as Documentation/bpf/btf.rst lays it down."""

import struct

INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNCTION, PROTOTYPE = range(1, 14)
VARIABLE, SECTION, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(14, 20)


class Blob:
    """Types are numbered from 1 in the order in which they are added; 0 is void."""

    def __init__(self):
        self.strings = b"\0"
        self.types = b""
        self.count = 0

    def name(self, text):
        if not text:
            return 0
        at = self.strings.find(b"\0" + text.encode() + b"\0")
        if at >= 0:
            return at + 1
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, name, kind, size_or_type=0, items=0, flag=0, extra=b""):
        self.types += struct.pack("=III", self.name(name), flag << 31 | kind << 24 | items, size_or_type) + extra
        self.count += 1
        return self.count

    def integer(self, name, size):
        return self.add(name, INT, size, extra=struct.pack("=I", 8 * size))

    def members(self, kind, name, size, members, bit_fields=False):
        """Add a struct or union of (name, type, bit offset) or, with bit fields, (name, type, bit offset, bits)."""
        extra = b""
        for member, its_type, offset, *bits in members:
            extra += struct.pack("=III", self.name(member), its_type, (bits[0] << 24 | offset) if bit_fields else offset)
        return self.add(name, kind, size, len(members), int(bit_fields), extra)

    def prototype(self, arguments):
        """Add a function type with arguments of these types, returning void."""
        return self.add("", PROTOTYPE, 0, len(arguments), extra=b"".join(struct.pack("=II", 0, argument) for argument in arguments))

    def tracepoint(self, name, arguments):
        """Add what the kernel has for a tracepoint: a typedef of a pointer to a function of void * and the arguments."""
        data = self.add("", POINTER, 0)
        return self.add(f"btf_trace_{name}", TYPEDEF, self.add("", POINTER, self.prototype([data] + [data] * arguments)))

    def write(self, path):
        header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        path.write_bytes(header + self.types + self.strings)
        return path
