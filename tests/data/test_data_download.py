"""Downloads without a network: the connection is replaced below the HTTP library's redirects."""

import hashlib
import io
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests

from minisparse.data import cifar, download, idx
from minisparse.data.download import Remote
from minisparse.errors import DataFormatError, UnknownNameError, UsageError

CONTENT = b"published content" * 100
URL = "https://data.example/files/small.bin"


@pytest.fixture
def server(monkeypatch):
    """url -> (status, headers, body); also a list of the addresses asked for."""
    answers, asked = {}, []

    def send(self, request, **kwargs):
        asked.append(request.url)
        if request.url not in answers:
            raise requests.ConnectionError("no route to host")
        response = requests.Response()
        response.status_code, headers, body = answers[request.url]
        response.headers.update(headers)
        response.url, response.request, response.raw = request.url, request, io.BytesIO(body)
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    remote = Remote(URL, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(download, "REMOTES", {"small": (remote,)})
    answers["asked"] = asked
    return answers


def redirect(target):
    return 302, {"location": target}, b""


def test_file_is_stored_under_the_name_of_the_data_set(server, tmp_path):
    server[URL] = 200, {}, CONTENT
    calls = []
    folder = download.get("small", tmp_path, lambda *progress: calls.append(progress))
    assert folder == tmp_path / "small"
    assert (folder / "small.bin").read_bytes() == CONTENT
    assert calls[-1] == ("small.bin", len(CONTENT), len(CONTENT))


def test_intact_file_is_not_fetched_again_and_another_is_replaced(server, tmp_path):
    server[URL] = 200, {}, CONTENT
    path = download.get("small", tmp_path) / "small.bin"
    download.get("small", tmp_path)
    assert server["asked"] == [URL]
    path.write_bytes(b"half of it")
    download.get("small", tmp_path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"X" + CONTENT[1:], "SHA-256"),
        (CONTENT[:-1], "SHA-256"),
        (CONTENT + b"x", "is too large"),
        (bytes(10_000_000), "is too large"),
        (b"", "SHA-256"),
    ],
)
def test_other_content_is_refused_and_leaves_what_was_there(body, words, server, tmp_path):
    server[URL] = 200, {}, body
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "small.bin").write_bytes(b"before")
    with pytest.raises(DataFormatError, match=words) as caught:
        download.get("small", tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["small.bin"]
    assert (tmp_path / "small" / "small.bin").read_bytes() == b"before"


def test_redirects_are_followed_only_over_https(server, tmp_path):
    server[URL] = redirect("https://mirror.example/small.bin")
    server["https://mirror.example/small.bin"] = redirect("/moved.bin")
    server["https://mirror.example/moved.bin"] = 200, {}, CONTENT
    assert (download.get("small", tmp_path / "a") / "small.bin").exists()
    server["https://mirror.example/small.bin"] = redirect("http://mirror.example/moved.bin")
    server["http://mirror.example/moved.bin"] = 200, {}, CONTENT
    with pytest.raises(DataFormatError, match="unprotected address 'http://mirror"):
        download.get("small", tmp_path / "b")
    assert "http://mirror.example/moved.bin" not in server["asked"]


def test_no_connection_and_missing_page_are_data_errors(server, tmp_path):
    with pytest.raises(DataFormatError, match="no route to host"):
        download.get("small", tmp_path)
    server[URL] = 404, {}, b"not here"
    with pytest.raises(DataFormatError, match="404"):
        download.get("small", tmp_path)


def test_unknown_names_and_missing_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MINISPARSE_DATA", raising=False)
    with pytest.raises(UnknownNameError, match="Did you mean 'mnist'"):
        download.get("mnst", tmp_path)
    with pytest.raises(UsageError, match="MINISPARSE_DATA"):
        download.get("mnist")
    with pytest.raises(UnknownNameError):
        download.verify("mnst", tmp_path)


def test_every_pinned_file_is_https_and_one_the_loaders_look_for():
    expected = {
        "mnist": [f"{stem}.gz" for stem in idx.STEMS],
        "fashion-mnist": [f"{stem}.gz" for stem in idx.STEMS],
        "cifar-10": [cifar.ARCHIVE],
    }
    assert {name: [r.name for r in files] for name, files in download.REMOTES.items()} == expected
    for remote in (remote for files in download.REMOTES.values() for remote in files):
        assert urlsplit(remote.url).scheme == "https"
        assert len(bytes.fromhex(remote.sha256)) == 32


def test_verify_reports_files_and_samples(monkeypatch, quadruple, tiny_mnist, tmp_path):
    folder = quadruple(tmp_path / "mnist", *tiny_mnist, suffix=".gz")
    monkeypatch.setitem(download.OFFICIAL_SAMPLES, "mnist", (5, 3))
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    monkeypatch.setitem(download.REMOTES, "mnist", (Remote(f"https://x.example/{labels.name}", 1, digest),))
    found = download.verify("mnist", tmp_path)
    assert (found.n_train, found.n_test) == (5, 3)
    assert [file.path.name for file in found.files] == [f"{stem}.gz" for stem in idx.STEMS]
    assert [file.published for file in found.files] == [False, False, False, True]
    assert found.files[3].size == labels.stat().st_size


def test_verify_refuses_another_number_of_samples(quadruple, tiny_mnist, tmp_path):
    quadruple(tmp_path / "mnist", *tiny_mnist)
    with pytest.raises(DataFormatError, match="got 5 training and 3 test samples, expected 60000"):
        download.verify("mnist", tmp_path)


def test_verify_reads_everything(quadruple, tiny_mnist, tmp_path):
    path = quadruple(tmp_path / "mnist", *tiny_mnist) / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFormatError, match="too short"):
        download.verify("mnist", tmp_path)


def test_verify_of_the_embedded_digits_needs_no_files():
    found = download.verify("digits")
    assert (found.files, found.n_train + found.n_test) == ((), 1797)
    assert np.isscalar(found.n_train)
