"""One thread for all tests: arrays are tiny, and several workers run side by side. And no network."""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import numba
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

OUTWARD = ("connect", "connect_ex", "sendto", "sendmsg")  # methods of a socket that name another machine


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Every test starts on one thread, whatever the one before it set."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


class NetworkUsed(OSError):
    """A test tried to reach another machine."""


def local(host: Any) -> bool:
    """Whether this names the machine itself, or nothing that could be reached."""
    try:
        return host in (None, "", b"", "localhost", b"localhost") or ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def attempts() -> Iterator[list[str]]:
    """Sockets reach this machine only; what tried to go elsewhere."""
    found: list[str] = []

    def refuse(what: str) -> None:
        found.append(what)
        raise NetworkUsed(f"no network in tests: {what}")

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, *args: Any) -> Any:
            pairs = (a for a in reversed(args) if isinstance(a, tuple) and len(a) > 1)
            address = next((a for a in pairs if isinstance(a[1], int)), None)  # a file's name in AF_UNIX
            if self.family in (socket.AF_INET, socket.AF_INET6) and address and not local(address[0]):
                refuse(f"{name} {address[0]!r}")
            return real(self, *args)

        return call

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not local(host) and host != socket.gethostname():
            refuse(f"name {host!r}")
        return lookup(host, *args, **kwargs)

    lookup = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        for name in OUTWARD:
            patch.setattr(socket.socket, name, guarded(name, getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", resolve)
        yield found


@pytest.fixture(autouse=True)
def no_network(attempts: list[str]) -> Iterator[None]:
    """An attempt fails its test even where the code under test takes the error for a broken line."""
    attempts.clear()
    yield
    assert not attempts, f"no network in tests: {attempts}"
