"""Bytes that no well-behaved client sends, on real sockets: each is answered or ended, and the next client is served."""

import json
import socket
from collections.abc import Iterator

import pytest

from conftest import API_KEYS, Server

GREEDY = {"model": "tiny", "prompt": "In the beginning", "max_tokens": 4, "temperature": 0}
ENDLESS = {"model": "tiny", "prompt": "And Moses said", "max_tokens": 1500, "ignore_eos": True}
AUTHORIZATION = f"Authorization: Bearer {API_KEYS[0]}\r\n"


class Wire:
    """A connection to the server, byte for byte."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.reader = self.socket.makefile("rb")

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def status(self) -> tuple[int, dict[str, str]]:
        """The next response's status and headers; 0 where the server has closed the connection."""
        line = self.reader.readline()
        if not line:
            return 0, {}
        headers = {}
        while (field := self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers

    def response(self) -> tuple[int, bytes]:
        """The next response with its whole body."""
        status, headers = self.status()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while n := int(self.reader.readline(), 16):
                body += self.reader.read(n)
                self.reader.readline()
            self.reader.readline()
            return status, body
        if "content-length" in headers:
            return status, self.reader.read(int(headers["content-length"]))
        return status, self.reader.read() if status else b""

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A connection; afterwards the server must be idle and answer others."""
    connection = Wire(server)
    yield connection
    connection.close()
    server.wait_until_idle()
    assert server.post("/v1/completions", GREEDY).status == 200


def head(fields: str = "", version: str = "1.1", path: str = "/v1/completions") -> str:
    return f"POST {path} HTTP/{version}\r\nHost: x\r\n{AUTHORIZATION}Content-Type: application/json\r\n{fields}\r\n"


def request(body: dict, version: str = "1.1", fields: str = "") -> bytes:
    data = json.dumps(body).encode()
    return head(f"Content-Length: {len(data)}\r\n{fields}", version).encode() + data


def text(body: bytes) -> str:
    return json.loads(body)["choices"][0]["text"]


@pytest.mark.parametrize("n_bytes", [1, 20, 90, 200], ids=lambda n: f"after {n} bytes")
def test_half_a_request_and_a_client_that_leaves(wire: Wire, n_bytes: int) -> None:
    whole = request(ENDLESS)
    assert n_bytes < len(whole)
    wire.send(whole[:n_bytes])


def test_a_client_that_sends_no_more_than_half_its_body(wire: Wire) -> None:
    wire.send(request(ENDLESS)[:-5])
    wire.socket.shutdown(socket.SHUT_WR)
    status, _ = wire.response()
    assert status in (0, 400)


def test_a_disconnect_in_mid_stream_ends_the_engines_work(server: Server, wire: Wire) -> None:
    cancelled = server.metric("slipway_requests_cancelled_total")
    wire.send(request({**ENDLESS, "stream": True}))
    assert wire.status()[0] == 200
    assert b"data: " in wire.reader.readline() + wire.reader.readline()
    wire.close()
    server.wait_until_idle()
    assert server.metric("slipway_requests_cancelled_total") == cancelled + 1


def test_a_disconnect_before_a_whole_answer_ends_the_engines_work(server: Server, wire: Wire) -> None:
    generated = server.metric("vllm:generation_tokens_total")
    wire.send(request(ENDLESS))
    wire.close()
    server.wait_until_idle()
    assert server.metric("vllm:generation_tokens_total") - generated < ENDLESS["max_tokens"]


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    wire.send(b"".join(request({**GREEDY, "max_tokens": n}) for n in (3, 1, 2)))
    answers = [wire.response() for _ in range(3)]
    assert [json.loads(body)["usage"]["completion_tokens"] for _, body in answers] == [3, 1, 2]


def test_a_refused_request_does_not_spoil_the_connection(wire: Wire) -> None:
    wire.send(request({**GREEDY, "temperature": 9}) + request(GREEDY))
    assert [wire.response()[0] for _ in range(2)] == [400, 200]


def test_one_byte_at_a_time(wire: Wire) -> None:
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request(GREEDY):
        wire.send(bytes([byte]))
    assert wire.response()[0] == 200


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunked_bodies(server: Server, wire: Wire, size: int) -> None:
    data = json.dumps(GREEDY).encode()
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    chunks = b"".join(b"%x;name=value\r\n%s\r\n" % (len(part), part) for part in parts)
    wire.send(head("Transfer-Encoding: chunked\r\n").encode() + chunks + b"0\r\nTrailer: x\r\n\r\n")
    status, body = wire.response()
    assert status == 200
    assert text(body) == text(server.post("/v1/completions", GREEDY).body)


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\n", b"-1\r\n\r\n", b"fffffffffffffffff\r\n", b"3\r\n{}\r\n0\r\n\r\n", b"2\r\n{}x"],
    ids=str,
)
def test_broken_chunks_are_a_400_or_the_end(wire: Wire, chunks: bytes) -> None:
    wire.send(head("Transfer-Encoding: chunked\r\n").encode() + chunks)
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.response()[0] in (0, 400)


def test_expect_100_continue(wire: Wire) -> None:
    data = json.dumps(GREEDY).encode()
    wire.send(head(f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\n"))
    assert wire.status()[0] == 100
    wire.send(data)
    assert wire.response()[0] == 200


@pytest.mark.parametrize(
    "fields", [f"Content-Length: {1 << 40}\r\n", f"Content-Length: {9 << 20}\r\nExpect: 100-continue\r\n"]
)
def test_a_length_that_is_too_large_is_refused_before_the_body_comes(wire: Wire, fields: str) -> None:
    wire.send(head(fields))
    status, body = wire.response()
    assert status == 413 and json.loads(body)["error"]["code"] == "body_too_large"


def test_endless_chunks_are_refused(wire: Wire) -> None:
    wire.send(head("Transfer-Encoding: chunked\r\n"))
    part = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    try:
        for _ in range(96):
            wire.send(part)
    except (BrokenPipeError, ConnectionResetError):
        return
    assert wire.response()[0] in (0, 413)


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 2, 3\r\n",
        "Content-Length: two\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Bad Header: x\r\n",
        "X: \0\r\n",
        "X-Many: y\r\n" * 1000,
        f"X-Long: {'y' * (1 << 20)}\r\n",
    ],
    ids=lambda fields: fields[:28].encode("unicode_escape").decode(),
)
def test_heads_that_are_refused(wire: Wire, fields: str) -> None:
    try:
        wire.send(head(fields) + "{}")
        status = wire.status()[0]
    except (BrokenPipeError, ConnectionResetError):
        status = 0
    assert status == 0 or 400 <= status < 500


def test_a_length_beside_chunks_smuggles_nothing(wire: Wire) -> None:
    data = json.dumps(GREEDY).encode()
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    wire.send(head(f"Content-Length: {len(chunk) + len(smuggled)}\r\nTransfer-Encoding: chunked\r\n").encode() + chunk)
    assert wire.response()[0] in (0, 200, 400)


@pytest.mark.parametrize("fields", ["Host: y\r\n", f"{AUTHORIZATION}", "Content-Type: application/json\r\n"])
def test_duplicate_headers_never_crash(wire: Wire, fields: str) -> None:
    wire.send(request(GREEDY, fields=fields))
    assert wire.response()[0] in (200, 400, 401, 415)


def test_a_second_key_does_not_open(wire: Wire) -> None:
    data = json.dumps(GREEDY).encode()
    lines = head(f"Authorization: Bearer wrong\r\nContent-Length: {len(data)}\r\n").replace(AUTHORIZATION, "")
    wire.send(lines.encode() + data)
    assert wire.response()[0] == 401


@pytest.mark.parametrize(
    "data",
    [
        b'{"model": "tiny", "prompt": "\xff\xfe"}',
        b'{"model": "tiny", "prompt": "\xed\xa0\x80"}',
        b'{"model": "tiny", "prompt": "\\ud800"}',
        b'{"model": "tiny", "prompt": "x", "temperature": NaN}',
        b'{"model": "tiny", "prompt": "x", "temperature": 1e999}',
        b'\xef\xbb\xbf{"model": "tiny"}',
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'"text"',
        b"null",
        b"",
        b"\0",
    ],
    ids=lambda data: data[:36].decode("latin1").encode("unicode_escape").decode(),
)
def test_bodies_that_are_no_request_are_a_400(wire: Wire, data: bytes) -> None:
    wire.send(head(f"Content-Length: {len(data)}\r\n").encode() + data)
    status, body = wire.response()
    assert status == 400 and json.loads(body)["error"]["type"] == "invalid_request_error"


def test_invalid_bytes_in_the_path(wire: Wire) -> None:
    wire.send(b"GET /v1/models/\xff%ff%00 HTTP/1.1\r\nHost: x\r\n" + AUTHORIZATION.encode() + b"\r\n")
    assert wire.response()[0] in (400, 404)


def test_http_1_0_gets_a_whole_answer_and_the_end(wire: Wire) -> None:
    wire.send(request(GREEDY, version="1.0"))
    status, headers = wire.status()
    assert status == 200 and "transfer-encoding" not in headers
    assert json.loads(wire.reader.read())["object"] == "text_completion"


def test_http_1_0_streams_until_the_connection_ends(wire: Wire) -> None:
    wire.send(request({**GREEDY, "stream": True}, version="1.0"))
    status, headers = wire.status()
    assert status == 200 and "transfer-encoding" not in headers
    assert wire.reader.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "line", ["GET / HTTP/9.9", "GET /", "POST  /v1/completions HTTP/1.1", "\x16\x03\x01", "PRI * HTTP/2.0"], ids=ascii
)
def test_what_is_not_http_1_is_ended(wire: Wire, line: str) -> None:
    wire.send(line + "\r\n\r\n")
    wire.socket.shutdown(socket.SHUT_WR)
    status = wire.status()[0]
    assert status == 0 or 400 <= status < 600 and status != 500


def test_a_client_that_never_reads_holds_nobody_up(server: Server) -> None:
    """Its answer does not fit the socket's buffers, and the server has others to answer meanwhile."""
    wires = [Wire(server) for _ in range(4)]
    for idle in wires:
        idle.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.send(request({**ENDLESS, "stream": True, "logprobs": 5}))
    assert server.post("/v1/completions", GREEDY).status == 200
    for idle in wires:
        idle.close()
    server.wait_until_idle()


def test_kept_connections_are_used_again(wire: Wire) -> None:
    for _ in range(5):
        wire.send(request(GREEDY))
        assert wire.response()[0] == 200
