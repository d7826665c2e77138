"""What is served: only our files, under a policy that lets nothing else in."""

import gzip
import hashlib
import re

import httpx
import pytest
from dashboard_kit import Served

from edge_fleet.dashboard import files

PAGE_MAX_BYTES = 500_000
SCHEMES = re.compile(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", re.IGNORECASE)
NAMED_ONLY = (b"http://www.w3.org/2000/svg", b"https://html.spec.whatwg.org")


@pytest.fixture
def client(nobody: Served) -> httpx.Client:
    return httpx.Client(base_url=nobody.url, timeout=60)


def test_the_root_leads_to_the_page_and_needs_no_token(client: httpx.Client) -> None:
    for path in ("/", "/dashboard"):
        assert client.get(path).headers["location"].endswith("dashboard/")
    page = client.get("/", follow_redirects=True)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert client.get("/api/v1/overview").status_code == 401, "what it shows needs one"


def test_each_file_comes_whole_with_its_type_and_the_policy(client: httpx.Client) -> None:
    for name, file in files.read().items():
        found = client.get(f"/dashboard/{name}")
        assert found.content == file.data
        policy = dict(
            each.split(" ", 1) for each in found.headers["content-security-policy"].split("; ")
        )
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
            "connect-src": "'self'", "img-src": "'self' data:", "frame-ancestors": "'none'",
            "base-uri": "'none'", "form-action": "'none'",
            "require-trusted-types-for": "'script'", "trusted-types": "'none'",
        }  # fmt: skip
        assert found.headers["x-content-type-options"] == "nosniff"
        again = client.get(f"/dashboard/{name}", headers={"If-None-Match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        plain = client.get(f"/dashboard/{name}", headers={"Accept-Encoding": "identity"})
        assert plain.content == file.data
        assert gzip.decompress(file.zipped) == file.data


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "vendor/README.md", "../files.py", "..%2ffiles.py", "%2e%2e/files.py",
     "%2fetc%2fpasswd", "x" * 5000],
)  # fmt: skip
def test_no_other_file_is_given(client: httpx.Client, path: str) -> None:
    assert client.get(f"/dashboard/{path}").status_code in (404, 405)


def test_all_of_it_is_smaller_than_a_page_may_be() -> None:
    assert sum(len(one.zipped) for one in files.read().values()) < PAGE_MAX_BYTES / 2
    assert sum(len(one.data) for one in files.read().values()) < PAGE_MAX_BYTES


def test_what_is_vendored_is_what_its_readme_says() -> None:
    folder = files.STATIC / "vendor"
    told = re.findall(
        r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.M
    )
    there = {path.name for path in folder.glob("*.js")} | {
        path.name for path in folder.glob("*.css")
    }
    assert {name for name, _ in told} == there
    for name, sha256 in told:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256, name
    assert (folder / "LICENSE.htm").exists()
    assert (folder / "LICENSE.preact").exists()


def test_no_file_names_another_host_or_holds_an_inline_script() -> None:
    for name, file in files.read().items():
        data = file.data
        for known in NAMED_ONLY:
            data = data.replace(known, b"")
        assert not SCHEMES.findall(data), name
        if name.endswith(".html"):
            assert not re.findall(rb"<script(?![^>]*\ssrc=)|\son[a-z]+=|\sstyle=|<style", data)
        if name.endswith(".js") and not name.startswith("vendor/"):
            assert b"innerHTML" not in data.replace(b"no innerHTML", b""), name
            assert not re.findall(rb"\beval\(|new Function", data), name


def test_every_import_and_every_page_of_the_registry_is_there() -> None:
    there = files.read()
    for name, file in there.items():
        if not name.endswith(".js") or name.startswith("vendor/"):
            continue
        folder = (files.STATIC / name).parent
        for wanted in re.findall(
            r"""(?:from |import\(|^import )["'](\.[^"']+)["']""", file.data.decode(), re.M
        ):
            if name == "registry.js" and not wanted.startswith("./"):
                continue  # the example in its comment
            target = (folder / wanted).resolve()
            assert target.relative_to(files.STATIC).as_posix() in there, (name, wanted)
    for wanted in re.findall(r'(?:href|src)="([^"]+)"', there["index.html"].data.decode()):
        assert wanted in there, wanted
