"""A plain reading of server-sent events, as the HTML standard words it (section 9.2.6), to compare the parser with."""


def interpret(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The type and data of each event that a client would dispatch."""
    dispatched = []
    event_type, data, has_data = b"", b"", False
    for line in split_complete_lines(stream.removeprefix(b"\xef\xbb\xbf")):
        if line == b"":
            if has_data:
                dispatched.append((event_type, data.removesuffix(b"\n")))
            event_type, data, has_data = b"", b"", False
            continue
        if line.startswith(b":"):
            continue
        field, value = (line, b"") if b":" not in line else tuple(line.split(b":", 1))
        if value.startswith(b" "):
            value = value[1:]
        if field == b"event":
            event_type = value
        elif field == b"data":
            data += value + b"\n"
            has_data = True
    return dispatched


def split_complete_lines(stream: bytes) -> list[bytes]:
    """The lines of a stream, each ended by CR LF, LF or CR; an unfinished last one is left out."""
    lines, line, at = [], b"", 0
    while at < len(stream):
        if stream[at : at + 2] == b"\r\n":
            lines.append(line)
            line, at = b"", at + 2
        elif stream[at : at + 1] in (b"\r", b"\n"):
            lines.append(line)
            line, at = b"", at + 1
        else:
            line, at = line + stream[at : at + 1], at + 1
    return lines
