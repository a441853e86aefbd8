"""H-3: no test reaches another machine, not even one that swallows the error; this machine can be reached."""

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from minisparse.data import download
from minisparse.errors import DataFormatError
from tests.conftest import NetworkUsed

FAR = ("192.0.2.1", 9)  # an address that is reserved for documentation: nothing is there


@pytest.mark.parametrize(
    "reach",
    [
        lambda s: s.connect(FAR),
        lambda s: s.connect_ex(FAR),
        lambda s: socket.create_connection(FAR, 1),
        lambda s: socket.create_connection(("data.invalid", 443), 1),
        lambda s: socket.getaddrinfo("data.invalid", 443),
    ],
)
def test_other_machines_are_out_of_reach(reach, attempts: list[str]) -> None:
    with socket.socket() as s, pytest.raises(NetworkUsed, match="no network in tests"):
        reach(s)
    assert len(attempts) == 1
    attempts.clear()


def test_datagrams_too(attempts: list[str]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as s, pytest.raises(NetworkUsed):
        s.sendto(b"x", FAR)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s, pytest.raises(NetworkUsed):
        s.connect(("2001:db8::1", 9))
    assert len(attempts) == 2
    attempts.clear()


def test_libraries_cannot_either_and_what_they_swallow_is_remembered(
    tmp_path: Path, attempts: list[str]
) -> None:
    with pytest.raises(urllib.error.URLError, match="no network in tests"):
        urllib.request.urlopen("https://data.invalid/x", timeout=1)
    assert len(attempts) == 1
    with pytest.raises(DataFormatError, match="failed"):
        download.get("mnist", tmp_path)
    assert len(attempts) > 1
    attempts.clear()


def test_this_machine_can_be_reached() -> None:
    for host in ("127.0.0.1", "localhost"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection((host, port), 5) as client, server.accept()[0] as other:
                client.sendall(b"here")
                assert other.recv(4) == b"here"
