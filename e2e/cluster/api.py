"""A client of the Kubernetes API for the few calls the tool makes: one connection, JSON both ways.

Knows the certificates of the local cluster and nothing of what is asked.
"""

import http.client
import json
import ssl
from pathlib import Path

from layout import NODE_IP

TIMEOUT_S = 5.0
PORT = 6443


class ApiError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, request: str, answer: bytes) -> None:
        super().__init__(f"{request}: {status} {answer[:500].decode(errors='replace')}")
        self.status = status


class Api:
    """Speaks to the API server as cluster-admin. OSError and http.client errors mean that it is not there (yet)."""

    def __init__(self, pki: Path) -> None:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        self.connection = http.client.HTTPSConnection(NODE_IP, PORT, context=context, timeout=TIMEOUT_S)

    def call(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> bytes:
        """One request; the answer's body. Raises ApiError for a status of 400 and above."""
        data = None if body is None else json.dumps(body)
        try:
            self.connection.request(method, path, data, {"Content-Type": content_type, "Accept": "application/json"})
            response = self.connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        if response.status >= 400:
            raise ApiError(response.status, f"{method} {path}", answer)
        return answer

    def get(self, path: str) -> dict:
        return json.loads(self.call("GET", path))

    def apply(self, path: str, thing: dict) -> None:
        """Server-side apply."""
        query = "?fieldManager=slipway-cluster&force=true"
        self.call("PATCH", path + query, thing, "application/apply-patch+yaml")
