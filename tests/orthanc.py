"""A real DICOMweb store on the loopback: Debian's Orthanc with its DICOMweb plugin."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import free_port
from builders import as_bytes, make_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cxr_embed.storage import in_parallel

PLUGINS = [str(path) for path in Path("/usr").glob("*/orthanc/**/libOrthancDicomWeb.so*")]

needs_orthanc = pytest.mark.skipif(
    shutil.which("Orthanc") is None or not PLUGINS,
    reason="needs Orthanc: apt-get install orthanc orthanc-dicomweb",
)

SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, JPEGLSLossless,
    DeflatedExplicitVRLittleEndian,
)  # fmt: skip


def instance(number: int, **elements: Any) -> tuple[str, bytes]:
    """Returns a small radiograph's SOP Instance UID and its bytes, in one of `SYNTAXES`."""
    uid = f"1.2.826.0.1.3680043.8.498.1.{number}"
    pixels = np.random.default_rng(number).integers(0, 4096, (64, 64), np.uint16)
    dataset = make_dataset(
        pixels, SOPInstanceUID=uid, PatientID=f"SECRET-{number}", PatientName="SECRET^NAME",
        StudyInstanceUID=f"1.2.826.0.1.3680043.8.498.2.{number // 4}",
        SeriesInstanceUID=f"1.2.826.0.1.3680043.8.498.3.{number // 2}",
        StudyDate=f"202{number % 4}0101", **elements,
    )  # fmt: skip
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    syntax = SYNTAXES[number % len(SYNTAXES)]
    if syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    return uid, as_bytes(dataset)


class Orthanc:
    """A server that can be killed and started again.

    Attributes:
        address: of its DICOMweb service.
        url: the same with `http://`.
    """

    def __init__(self, folder: Path, users: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/dicom-web"
        self.address = f"dicomweb+{self.url}"
        self._folder = folder
        self._users = users or {}
        self._process: subprocess.Popen[bytes] | None = None
        config = {
            "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": self.port, "DicomServerEnabled": False, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": bool(users), "RegisteredUsers": self._users,
            "Plugins": PLUGINS[:1], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "SaveJobs": False,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(config))

    def start(self) -> None:
        if self._process is not None:
            return
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self._folder / "orthanc.json")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 300
        while True:
            try:
                self._open("/system")
                return
            except OSError:
                assert time.monotonic() < deadline
                assert self._process.poll() is None
                time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def store(self, data: bytes) -> None:
        self._open("/instances", data)

    def _open(self, path: str, data: bytes | None = None) -> None:
        from base64 import b64encode

        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        for user, password in self._users.items():
            secret = b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {secret}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()


@contextlib.contextmanager
def orthanc(folder: Path, users: dict[str, str] | None = None) -> Iterator[Orthanc]:
    server = Orthanc(folder, users)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def fill(server: Orthanc, folder: Path, count: int) -> None:
    """Stores images in a server and as files, whose names are the SOP Instance UIDs."""

    paths = []
    for number in range(count):  # in one thread: the encoders corrupt memory in several
        uid, data = instance(number)
        paths.append(folder / f"{uid}.dcm")
        paths[-1].write_bytes(data)
    list(in_parallel(lambda path: server.store(path.read_bytes()), paths))
