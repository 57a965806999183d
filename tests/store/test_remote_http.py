"""Web servers: what passes is tried again, what is broken is said, what is dead costs seconds."""

import base64
import time

import pytest

from topwork import sources
from topwork.errors import BadData, BadSetting, StoreError
from topwork.store import remote
from topwork.store.remote import fetch, patience

from ..remote_servers import SILENT, Web

pytest.importorskip("aiohttp", reason="the remote extra is not installed")


@pytest.fixture
def web(tmp_path):
    (tmp_path / "web").mkdir()
    server = Web(tmp_path / "web")
    yield server
    server.close()
    remote.forget()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(patience, "FIRST_PATIENCE", 1.0)
    monkeypatch.setattr(patience, "PATIENCE", 1.5)


def plant(web, name, data=b"0123456789" * 100):
    (web.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (web.folder / name).write_bytes(data)
    return f"{web.url}/{name}", data


def test_a_file_is_fetched_once_and_asked_for_when_it_is_used_again(web):
    url, data = plant(web, "a.bin")
    assert remote.read(url) == data
    assert web.asked == {("GET", "/a.bin"): 1}  # nothing was here: no question beforehand
    assert remote.read(url) == data
    remote.forget()  # another process
    assert remote.read(url) == data
    assert web.asked == {("GET", "/a.bin"): 1, ("HEAD", "/a.bin"): 1}


def test_what_has_changed_is_fetched_anew_and_the_old_copy_goes(web):
    url, _ = plant(web, "a.bin")
    remote.read(url)
    plant(web, "a.bin", b"new")
    remote.forget()
    assert remote.read(url) == b"new"
    assert remote.copies().info()["files"] == 1


def test_no_etag_and_no_length(web):
    web.etags = web.lengths = False
    url, data = plant(web, "a.bin")
    assert remote.read(url) == data


def test_what_fails_twice_is_tried_again(web):
    url, data = plant(web, "a.bin")
    web.plans["/a.bin"] = [503, 500]
    assert remote.read(url) == data
    assert web.gets()["/a.bin"] == 3


def test_what_is_cut_off_is_tried_again_and_never_counts(web):
    url, data = plant(web, "a.bin")
    web.plans["/a.bin"] = ["cut", "cut"]
    assert remote.read(url) == data
    web.plans["/a.bin"] = ["cut"] * 50
    url = plant(web, "sub/b.bin")[0]
    web.plans["/sub/b.bin"] = ["cut"] * 50
    with pytest.raises(BadData, match=f"came broken {fetch.TRIES} times: the connection was cut"):
        remote.read(url)
    assert remote.copies().info()["files"] == 1
    assert not list((remote.copies().folder / "new").iterdir())


def test_a_wrong_length_is_said(web):
    url, _ = plant(web, "a.bin")
    web.plans["/a.bin"] = ["long"] * 50
    with pytest.raises(BadData, match="came broken"):
        remote.read(url)
    url, _ = plant(web, "b.bin")
    remote.read(url)
    web.plans["/b.bin"] = ["short"]  # the question says 995 bytes, the answer 1000
    remote.forget()
    remote.copies().clear()
    remote._fetcher().places._alone(url)
    assert len(remote.read(url)) == 1000  # asked again what it should be


def test_not_there_and_not_allowed_are_of_one_file(web):
    with pytest.raises(BadData, match="does not exist"):
        remote.read(f"{web.url}/no.bin")
    url, _ = plant(web, "a.bin")
    web.plans["/a.bin"] = [403]
    with pytest.raises(BadData, match=r"not allowed, or not there \(status 403\)"):
        remote.read(url)


def test_a_dead_server_costs_seconds_and_one_line():
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"does not answer \(no connection; \d+ tries in \d s\)") as caught:
        remote.read("http://127.0.0.1:9/a.bin")
    assert time.monotonic() - began < 3
    assert "\n" not in str(caught.value)
    began = time.monotonic()
    with pytest.raises(StoreError, match="does not answer"):  # known by now
        remote.read("http://127.0.0.1:9/b.bin")
    assert time.monotonic() - began < 0.1
    with pytest.raises(StoreError, match="does not answer"):
        sources.read("http://127.0.0.1:9/photos/")
    remote.forget()


def test_a_silent_server_costs_seconds(web, monkeypatch):
    monkeypatch.setattr("topwork.store.remote.web.READ_SECONDS", 0.5)
    url, _ = plant(web, "a.bin")
    web.plans["*"] = [SILENT] * 9
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"does not answer \(no answer in time"):
        remote.read(url)
    assert time.monotonic() - began < 4


def test_one_dead_server_among_others_is_a_matter_of_its_files(web, tmp_path):
    good, _ = plant(web, "a.jpg")
    assert remote.read(good)
    with pytest.raises(BadData, match="does not answer"):
        remote.read("http://127.0.0.1:9/b.jpg")


def test_names_and_passwords_are_used_and_never_shown(web):
    url, data = plant(web, "a.bin")
    web.login = "Basic " + base64.b64encode(b"me:pass word").decode()
    with pytest.raises(StoreError, match="a name and a password are needed"):
        remote.read(url)
    word = url.replace("http://", "http://me:pass%20word@")
    path = remote.welcome(word)
    assert path == url
    assert remote.read(path) == data
    for what in (word, f"{word}?X-Amz-Signature=abcdef"):
        assert "pass" not in remote.shown(what)
        assert "abcdef" not in remote.shown(what)


def test_a_password_does_not_follow_to_another_server(web, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.bin").write_bytes(b"data")
    other = Web(tmp_path / "other")
    web.redirects["/a.bin"] = f"{other.url.replace('127.0.0.1', 'localhost')}/a.bin"
    assert remote.read(remote.welcome(f"{web.url}/a.bin".replace("http://", "http://me:word@"))) == b"data"
    assert [h.get("Authorization", "") for h in web.headers] == ["Basic bWU6d29yZA=="]
    assert [h.get("Authorization", "") for h in other.headers] == [""]
    other.close()


def test_a_signed_address_keeps_its_signature_to_itself(web):
    rows = "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(30))
    url, _ = plant(web, "t.csv", f"text,label\n{rows}".encode())
    data = sources.read(f"{url}?X-Amz-Signature=abcdef&Expires=9")
    assert len(data) == 30
    assert "abcdef" not in repr(data.root) + repr(data.history) + repr(data.notes) + data.name
    assert data.name == "t"


def test_a_folder_is_listed_by_its_links_and_none_leads_out(web, photos):
    for path in photos.rglob("*.png"):
        plant(web, f"p/{path.relative_to(photos).as_posix()}", path.read_bytes())
    plant(web, "p/moss/caf\u00e9 100% #1.png", next(photos.rglob("*.png")).read_bytes())
    plant(web, "p/golden hill/1.png", next(photos.rglob("*.png")).read_bytes())
    data = sources.read(f"{web.url}/p/")
    assert data.labels == ("amber", "golden hill", "moss", "slate")
    assert len(data) == 62
    assert not [path for path in web.gets() if path.endswith(".png")]  # listed, not fetched
    assert set(web.gets()) == {"/p/", *(f"/p/{label}/" for label in data.labels)}
    with remote.ahead(data.paths()):
        for row, path in enumerate(data.paths()):
            assert remote.read(path) == (web.folder / "p" / data.table["item"][row].as_py()).read_bytes()
    assert set(web.gets().values()) == {1}


def test_sizes_that_are_guessed_do_not_stop_the_reading_ahead(web, monkeypatch):
    from topwork.store.remote import readahead

    monkeypatch.setattr(fetch, "GUESS_BYTES", 1000)
    monkeypatch.setattr(readahead, "AHEAD_BYTES", 5000)
    for i in range(40):
        plant(web, f"p/{'ab'[i % 2]}/{i:02}.jpg", b"x" * 10)
    paths = sources.read(f"{web.url}/p").paths()
    with remote.ahead(paths) as _:
        for at, path in enumerate(paths):
            remote.read(path)
            if at == 30:
                time.sleep(0.3)
                assert sum(path.endswith(".jpg") for path in web.gets()) == 31 + 5


def test_a_redirection_is_followed(web):
    url, data = plant(web, "real.bin")
    web.redirects["/link.bin"] = url
    assert remote.read(f"{web.url}/link.bin") == data


def test_a_large_file_goes_on_behind_what_is_there(web, monkeypatch):
    monkeypatch.setattr(fetch, "LARGE_BYTES", 1000)
    monkeypatch.setattr(fetch, "BLOCK", 1000)
    url, data = plant(web, "a.bin", bytes(range(256)) * 40)
    remote._fetcher().places._alone(url)
    web.plans["/a.bin"] = ["cut", "cut"]
    assert remote.read(url) == data
    assert [h.get("Range") for h in web.headers if "Range" in h] == ["bytes=5120-", "bytes=7680-"]
    url, data = plant(web, "b.bin", bytes(range(256)) * 40)
    remote._fetcher().places._alone(url)
    web.ranges = False  # begun anew
    web.plans["/b.bin"] = ["cut"]
    assert remote.read(url) == data


def test_too_large_is_said_before_it_is_fetched(web):
    url, _ = plant(web, "a.bin")
    with pytest.raises(BadData, match="too large: 1,000 bytes, the limit is 999"):
        remote.read(url, 999)
    web.lengths = False
    with pytest.raises(BadData, match="too large"):
        remote.read(plant(web, "b.bin")[0], 999)


def test_a_table_of_addresses(web, photos, tmp_path):
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    for name in names:
        plant(web, name, (photos / name).read_bytes())
    rows = "".join(f"{web.url}/{name},{name.split('/')[0]}\n" for name in names)
    (tmp_path / "here.csv").write_text("path,label\n" + rows)  # a table here, images there
    plant(web, "there.csv", ("path,label\n" + "".join(f"{n},{n.split('/')[0]}\n" for n in names)).encode())
    here, there = sources.read(tmp_path / "here.csv"), sources.read(f"{web.url}/there.csv")
    assert len(here) == len(there) == len(names)
    assert here.paths() == there.paths()
    assert there.root == web.url
    assert web.gets() == {"/there.csv": 1}


@pytest.fixture
def sealed(monkeypatch, tmp_path):
    pytest.importorskip("cryptography", reason="the encrypt extra is not installed")
    monkeypatch.setenv("TOPWORK_ENCRYPT", "1")
    monkeypatch.setenv("TOPWORK_KEY", "5a" * 32)
    yield tmp_path
    remote.forget()


def test_copies_are_encrypted_where_that_is_asked_for(web, sealed, photos):
    import zipfile

    url, data = plant(web, "a.bin", b"a word that nobody may read" * 50)
    assert remote.read(url) == data
    rows = "".join(f"some private text {i},{'ab'[i % 2]}\n" for i in range(30))
    table, _ = plant(web, "t.csv", f"text,label\n{rows}".encode())
    assert len(sources.read(table)) == 30
    with zipfile.ZipFile(web.folder / "p.zip", "w") as file:
        file.write(next(photos.rglob("*.png")), "moss/1.png")
        file.writestr("u.csv", f"text,label\n{rows}")
    assert sources.items(f"{web.url}/p.zip/moss") == [f"{web.url}/p.zip/moss/1.png"]
    assert len(sources.read(f"{web.url}/p.zip/u.csv")) == 30
    kept = [path for path in (sealed / "cache").rglob("*") if path.is_file() and "locks" not in path.parts]
    assert sum("remote-v1-sealed" in path.parts for path in kept) == 3
    for path in kept:
        assert b"nobody may read" not in path.read_bytes()
        assert b"private" not in path.read_bytes()
    remote.forget()
    assert remote.read(url) == data
    assert web.gets()["/a.bin"] == 1
    copy = max((path for path in kept if path.suffix == ".bin"), key=lambda path: path.stat().st_size)
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")  # tampered with
    assert remote.read(url) == data
    assert web.gets()["/a.bin"] == 2


def test_texts_of_a_folder(web):
    for i in range(8):
        for label in ("pos", "neg"):
            plant(web, f"t/{label}/{i}.txt", f"a {label} text, number {i}".encode())
    plant(web, "t/big.zip", bytes(100_000))
    data = sources.read(f"{web.url}/t/")
    assert (len(data), data.labels, data.modality) == (16, ("neg", "pos"), "text")
    assert "/t/big.zip" not in web.gets()
    plant(web, "u/train.csv", b"text,label\n" + b"".join(b"text %d,%d\n" % (i, i % 2) for i in range(20)))
    plant(web, "u/test.csv", b"text,label\n" + b"".join(b"some %d,%d\n" % (i, i % 2) for i in range(6)))
    data = sources.read(f"{web.url}/u")  # without a slash at its end
    assert (len(data.rows_of("train")), len(data.rows_of("test"))) == (20, 6)


@pytest.mark.parametrize("uri", ["http://", "https://[bad/x.csv", "http://127.0.0.1:9999999/x.csv"])
def test_what_is_no_address(uri):
    with pytest.raises((BadData, BadSetting, StoreError)) as caught:
        sources.read(uri)
    assert "\n" not in str(caught.value)
    remote.forget()
