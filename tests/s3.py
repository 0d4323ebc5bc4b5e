"""S3 on this machine, which can also be told to refuse."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.retries.standard import ExponentialBackoff
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from pcl.storage.s3 import Bucket

SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
WRONG_KEY = (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
SECRET = "hunter2hunter2"
POLL_S = 0.05  # between the looks of a server whether it is to end


class S3:
    """A server with an empty bucket.

    Attributes:
        address: of the bucket.
        endpoint: of the server.
        refusal: status, code and message of what it answers to the requests that ``refuses`` picks, None: it works.
        refuses: takes the method and the path of a request.
        requests: methods and paths, in order.
    """

    def __init__(self) -> None:
        self.address, self.endpoint = "s3://bucket", ""
        self.refusal: tuple[int, str, str] | None = None
        self.refuses: Callable[[str, str], bool] = lambda method, path: True
        self.requests: list[tuple[str, str]] = []
        self._one_at_a_time = threading.Lock()  # moto looks whether a name exists, then writes it
        self._app = create_backend_app("s3")

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if self.refusal is None or not self.refuses(method, path):
            with self._one_at_a_time:
                return self._app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code, message = self.refusal
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]


class Silent(WSGIRequestHandler):
    """Logs nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def s3_server(host: str = "127.0.0.1", port: int = 0) -> Iterator[S3]:
    """Start a server, and point this process and its children to it: ``AWS_...`` of the environment."""
    s3 = S3()
    server = make_server(host, port, s3, threaded=True, request_handler=Silent)
    s3.endpoint = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        with s3_environment(s3.endpoint):
            client = boto3.client("s3")
            client.create_bucket(Bucket="bucket")
            yield s3
            s3.refusal = None
            while names := [{"Key": one["Key"]} for one in client.list_objects_v2(Bucket="bucket").get("Contents", [])]:
                client.delete_objects(Bucket="bucket", Delete={"Objects": names})
            client.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def s3_variables(endpoint: str) -> dict[str, str]:
    """Return what of the environment points to an endpoint, with credentials that mean nothing."""
    return {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


@contextmanager
def s3_environment(endpoint: str) -> Iterator[None]:
    """Point this process and its children to an endpoint; here botocore tries again without the pauses it draws."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_variables(endpoint).items():
            patch.setenv(name, value)
        patch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)
        patch.delenv("AWS_PROFILE", raising=False)
        Bucket.clear_instance_cache()
        try:
            yield
        finally:
            Bucket.clear_instance_cache()


def uploaded(path: Path) -> str:
    """Put a file, or all files of a folder, into the bucket under a name of its own; return its address."""
    client, prefix = boto3.client("s3"), f"{os.urandom(4).hex()}/{path.name}"
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            key = "/".join([prefix, *file.relative_to(path).parts])
            client.put_object(Bucket="bucket", Key=key, Body=file.read_bytes())
    client.close()
    return f"s3://bucket/{prefix}"
