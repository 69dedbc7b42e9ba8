"""Which addresses, redirects and proxies a request may use."""

import pytest
from file_server import FileServer, redirect

from cvpods_ext.errors import DownloadError
from cvpods_ext.runtime import http


@pytest.fixture
def server():
    with FileServer({"/a": b"content"}) as running:
        yield running


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://example.org/w.pth", "not encrypted"),
        ("ftp://example.org/w.pth", "no address"),
        ("file:///etc/passwd", "no address"),
        ("https:///w.pth", "no address"),
        ("https://example.org/a b", "no address"),
        ("https://example.org/a\nHost: b", "no address"),
        ("https://user:secret@example.org/a", "holds a name or password"),
        ("https://example.org:port/a", "no address"),
        ("https://[::1/a", "no address"),
    ],
)
def test_addresses_that_are_not_fetched_from(address, words):
    with pytest.raises(DownloadError, match=words) as caught:
        http.check_address(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["https://example.org/w.pth", "http://127.0.0.1:80/a", "http://localhost/a", "http://[::1]/a"]
)
def test_https_and_plain_http_to_this_machine_are_fetched_from(address):
    http.check_address(address)
    http.check_address("http://example.org/data.zip", plain_http=True)


@pytest.mark.parametrize("to", ["http://example.org/a", "file:///etc/passwd", "ftp://example.org/a"])
def test_a_redirect_to_a_less_safe_address_is_not_followed(server, to):
    server.faults["/a"] = [redirect(to)]
    with pytest.raises(DownloadError), http.get(f"{server.url}/a"):
        pass


def test_a_redirect_from_https_to_http_is_not_followed_even_to_this_machine():
    handler = http._Redirects(plain_http=True)
    request = http.urllib.request.Request("https://example.org/a?token=secret")
    with pytest.raises(DownloadError, match="not encrypted: not followed") as caught:
        handler.redirect_request(request, None, 302, "", {}, "http://127.0.0.1/a")
    assert "secret" not in str(caught.value)


def test_redirects_in_a_circle_end(server):
    server.faults["/a"] = [redirect("/a")] * 50
    with pytest.raises(DownloadError, match="302"), http.get(f"{server.url}/a"):
        pass


def test_a_token_goes_to_its_own_host_only(server):
    server.files["/b"] = b"b"
    server.faults["/a"] = [redirect("/b"), redirect(f"{server.other_host}/b")]
    for _ in range(2):
        with http.get(f"{server.url}/a", headers={"Authorization": "Bearer secret"}) as answer:
            assert answer.body.read() == b"b"
    own, other = server.gets("/b")
    assert own["authorization"] == "Bearer secret"
    assert "authorization" not in other


def test_the_proxy_of_the_environment_is_asked_but_not_for_this_machine(server, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    with http.get("http://images.example/a", plain_http=True) as answer:  # the proxy answers for the host
        assert answer.body.read() == b"content"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http.get(f"{server.url}/a") as answer:
        assert answer.body.read() == b"content"


def test_headers_alone_tell_the_size(server):
    assert http.head(f"{server.url}/a")["content-length"] == "7"
    server.files["/b"] = b"b"
    server.head_faults["/a"] = [redirect(f"{server.other_host}/b")] * 2
    assert http.head(f"{server.url}/a")["content-length"] == "1"
    assert http.head(f"{server.url}/a", leave_host=False)["location"].endswith("/b")
    assert not server.gets("/a")


@pytest.mark.parametrize(("value", "forbids"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_by_variable(monkeypatch, value, forbids):
    for name in http.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PODS_OFFLINE", value)
    assert bool(http.offline()) == forbids
