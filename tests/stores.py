"""Stand-ins for S3 and Azure Blob Storage on the loopback, which are spoken to as gs:// is."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest
from buckets import free_port, running

from cxr_embed.storage import azure_client, s3_client
from cxr_embed.storage.settings import RETRY_SECONDS_VARIABLE

MOTO = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"

# Not to be found in any message, table or log.
SECRET = "wJalrXUtnFEMI-a-secret"


class Store(NamedTuple):
    """A running stand-in.

    Attributes:
        scheme: of its addresses.
        address: where it is on the loopback.
        spoken_to: lets this process and its children speak to an address, which may be a bad line.
    """

    scheme: str
    address: str
    spoken_to: Callable[..., AbstractContextManager[None]]

    @property
    def folder(self) -> str:
        """The bucket of the tests."""
        return f"{self.scheme}://bucket"


@contextlib.contextmanager
def s3_spoken_to(address: str, retry_seconds: float = 60, **more: str) -> Iterator[None]:
    values = {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        RETRY_SECONDS_VARIABLE: str(retry_seconds),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in {**values, **more}.items():
            patch.setenv(name, value)
        yield


@contextlib.contextmanager
def moto() -> Iterator[Store]:
    """moto's server with an empty bucket named `bucket`."""
    pytest.importorskip("moto")
    port = free_port()
    with running([sys.executable, "-c", MOTO, str(port)], port) as address:
        with s3_spoken_to(address):
            s3_client.client().create_bucket(Bucket="bucket")
        yield Store("s3", address, s3_spoken_to)


# azurite's own account, which is no secret.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def azurite_program() -> Path | None:
    """Returns the program, installed with `npm install azurite` where CXR_EMBED_AZURITE says."""
    folder = Path(os.environ.get("CXR_EMBED_AZURITE") or Path.home() / ".cache" / "azurite")
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    return program if program.is_file() and shutil.which("node") else None


@contextlib.contextmanager
def azure_spoken_to(address: str, retry_seconds: float = 60, **more: str) -> Iterator[None]:
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
        f"BlobEndpoint={address}/{ACCOUNT};"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in azure_client._CONFIGURED_BY:
            patch.delenv(name, raising=False)
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        patch.setenv(RETRY_SECONDS_VARIABLE, str(retry_seconds))
        for name, value in more.items():
            patch.setenv(name, value)
        yield


@contextlib.contextmanager
def azurite() -> Iterator[Store]:
    """azurite with an empty container named `bucket`."""
    program = azurite_program()
    if program is None:
        pytest.skip("no azurite here: npm install --prefix ~/.cache/azurite azurite")
    port = free_port()
    command = [
        "node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port),
        "--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck",
    ]  # fmt: skip
    with running(command, port) as address:
        with azure_spoken_to(address):
            azure_client.client().create_container("bucket")
        yield Store("az", address, azure_spoken_to)


STORES = {"s3": moto, "az": azurite}
