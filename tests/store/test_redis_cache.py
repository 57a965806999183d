"""A Redis server that refuses, is full, goes away, hangs or is none; claims; what else lies in it stays."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time

import pytest

from topwork import settings
from topwork.errors import BadSetting, MissingExtra, StoreError
from topwork.store import redis_cache, redis_entries
from topwork.store.cache import Cache, open_cache
from topwork.store.redis_cache import RedisCache
from topwork.types import Choice

from ..redis_server import RedisServer, free_port

OutOfMemoryError = pytest.importorskip("redis", reason="the redis extra is not installed").exceptions.OutOfMemoryError

LIMIT = Choice("cache limit", 100_000_000, "test")
SECRET = "hunter2-and-more"


@pytest.fixture
def own(tmp_path):
    """Starts servers that a test may do anything to."""
    servers = []

    def start(*options, **more):
        servers.append(RedisServer(tmp_path / f"redis{len(servers)}", *options, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def local(tmp_path):
    return Cache(tmp_path / "local", LIMIT)


# the address


def refused(url):
    with pytest.raises((StoreError, BadSetting)) as caught:
        RedisCache(url)
    said = str(caught.value)
    assert SECRET not in said
    assert "\n" not in said
    assert caught.value.__cause__ is None  # nothing to print below it
    return said


def test_what_cannot_be_used_is_one_line_without_the_password(own, monkeypatch):
    server = own("--requirepass", SECRET)
    assert "does not take this password" in refused(server.url(user=":wrong-" + SECRET + "@"))
    assert "does not take this password" in refused(server.url())
    assert "Connection refused" in refused(f"redis://:{SECRET}@127.0.0.1:{free_port()}/0")
    assert "is no address" in refused(f"redis://:{SECRET}@127.0.0.1:port/0")
    assert "is no address" in refused(f"redis://:{SECRET}@127.0.0.1:6379/0?colour=red")
    assert "DB index" in refused(server.url(99, f":{SECRET}@"))
    with RedisCache(server.url(user=f":{SECRET}@")) as store:
        assert SECRET not in str(store.info())
        assert store.info()["folder"].startswith("redis://***@127.0.0.1")
    monkeypatch.setenv("TOPWORK_REDIS_PASSWORD", SECRET)
    RedisCache(server.url()).close()


def test_a_cluster_is_one_line(own):
    ports = [free_port() for _ in range(3)]
    nodes = [own("--cluster-enabled", "yes", "--cluster-port", free_port(), port=port) for port in ports]
    alone = refused(nodes[0].url())  # before it has any slot
    command = ["redis-cli", "--cluster", "create", *(f"127.0.0.1:{port}" for port in ports), "--cluster-yes"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    for node in nodes:  # also to whom INFO is forbidden
        node.client.execute_command("ACL", "SETUSER", "shy", "on", ">" + SECRET, "~*", "+@all", "-info")
    urls = [url for node in nodes for url in (node.url(), node.url(1), node.url(user=f"shy:{SECRET}@"))]
    for one in (alone, *map(refused, urls)):
        assert "is a node of a Redis Cluster" in one
        assert one.endswith("Expected a single server: start a redis-server beside it, or name a folder with --cache")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer as a Redis server does"),
        (b"", "cannot be used as a cache"),
        (None, "does not answer within 0.3 seconds"),
    ],
    ids=["http", "nothing", "hangs"],
)
def test_another_service_is_no_redis(answer, expected, monkeypatch):
    monkeypatch.setattr(redis_cache, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held = []

        def serve():
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(100)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        said = refused(f"redis://127.0.0.1:{listening.getsockname()[1]}/0")
        assert expected in said
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


def test_the_library_is_asked_for_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"redis://\*\*\*@h:1/0 needs the 'redis' extra"):
        RedisCache(f"redis://:{SECRET}@h:1/0")


def test_over_tls(own, tmp_path):
    certificate, key = self_signed(tmp_path)
    port = free_port()
    own("--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no")
    with RedisCache(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", None, LIMIT) as store:
        store.put_many("a", [(b"k", b"1")])
        assert store.get_many("a", [b"k"]) == [b"1"]
    assert "certificate" in refused(f"rediss://127.0.0.1:{port}/0")  # one that nobody vouches for
    assert "cannot be used as a cache" in refused(f"redis://127.0.0.1:{port}/0")


def self_signed(folder):
    """A certificate of 127.0.0.1 and its key."""
    import datetime
    import ipaddress

    x509 = pytest.importorskip("cryptography.x509", reason="the encrypt extra is not installed")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=2100))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert").write_bytes(certificate.public_bytes(pem))
    (folder / "key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert", folder / "key"


def test_the_settings_name_it(redis_server, tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE", redis_server.url(3))
    monkeypatch.setenv("TOPWORK_CACHE_FOLDER", str(tmp_path / "beside"))
    monkeypatch.setenv("TOPWORK_CACHE_GB", "0.5")
    store = open_cache()
    assert open_cache() is store
    assert settings.cache_folder() == tmp_path / "beside"
    store.put_many("a", [(b"k", b"v")])
    assert store.info()["limit"] == "0.5 GB (TOPWORK_CACHE_GB)"
    assert store.info()["local"]["namespaces"]["a"]["entries"] == 1
    store.close()
    monkeypatch.setenv("TOPWORK_CACHE", "memcached://somewhere")
    with pytest.raises(BadSetting, match="Expected a folder or redis://"):
        open_cache()


def test_no_password_is_left_in_a_text():
    hide = settings.without_password
    assert hide("--cache redis://user:a@b/c@host:1/0 --seed 1") == "--cache redis://***@host:1/0 --seed 1"
    assert hide("rediss://host/0?password=abc&x=1") == "rediss://host/0?password=***&x=1"
    assert hide("fit data/a@b --out c://d") == "fit data/a@b --out c://d"


# what else lies in the server


def test_only_what_is_ours_is_touched(redis_server):
    redis_server.client.set("theirs", "1")
    redis_server.client.set("topworker", "1")
    with RedisCache(redis_server.url(), None, LIMIT) as store:
        store.put_many("a", [(b"k", b"v")])
        assert {key.split(b":")[0] for key in redis_server.client.scan_iter()} == {b"theirs", b"topworker", b"topwork"}
        store.clear()
    assert sorted(redis_server.client.keys()) == [b"theirs", b"topworker"]


def test_a_changed_value_is_not_there(redis_server):
    with RedisCache(redis_server.url(), None, LIMIT) as store:
        store.put_many("a", [(b"k", b"value"), (b"l", b"other")])
        name = redis_entries.ROOT + b"v:" + redis_entries.member("a", b"k")
        redis_server.client.setrange(name, 6, b"X")
        assert store.get_many("a", [b"k", b"l"]) == [None, b"other"]
        assert store.notes == [f"The cache at {store.url} held damaged entries; they are computed again"]
        redis_server.client.set(name, b"")  # shorter than a checksum
        assert store.get_many("a", [b"k"]) == [None]


def test_an_account_that_is_lost_is_begun_anew(redis_server):
    """As under allkeys-lru: the server drops what it likes."""
    with RedisCache(redis_server.url(), None, Choice("cache limit", 20_000, "test")) as store:
        for round_ in range(3):
            for i in range(10):
                store.put_many("a", [(b"%d" % i, bytes(3000))])
            redis_server.client.delete(*[b"topwork:1:" + name for name in ([b"uses"], [b"sizes"], [b"total"])[round_]])
        store.put_many("a", [(b"new", b"1")])
        assert store.get_many("a", [b"new"]) == [b"1"]
        assert store.notes == []


def test_an_encrypted_one_shows_neither_keys_nor_values(redis_server):
    from topwork.store.encryption import Encrypted
    from topwork.store.keys import Key

    pytest.importorskip("cryptography", reason="the encrypt extra is not installed")
    key, value = b"a telling key", b"a telling value" * 20

    def shown():
        client = redis_server.client
        strings = [name for name in client.scan_iter() if client.type(name) == b"string"]
        rest = [client.hgetall(name) for name in client.scan_iter() if client.type(name) == b"hash"]
        return repr((list(client.scan_iter()), client.mget(strings), rest, client.zrange("topwork:1:uses", 0, -1)))

    with RedisCache(redis_server.url(), None, LIMIT) as store:
        store.put_many("n", [(key, value)])
        assert "telling key" in shown()
        assert "telling value" in shown()
        store.clear()
        sealed = Encrypted(store, Key(bytes(32)))
        assert sealed.claims.claim("n", [key]) == ["ours"]
        sealed.put_many("n", [(key, value)])
        assert "telling" not in shown()
        assert sealed.claims.claim("n", [key]) == ["there"]
        assert sealed.get_many("n", [key]) == [value]


def test_large_values_go_in_several_transactions(redis_server, monkeypatch):
    monkeypatch.setattr(redis_entries, "BATCH_BYTES", 10_000)
    values = {b"%d" % i: random.Random(i).randbytes(random.Random(i).randrange(9000)) for i in range(50)}
    values[b"larger than a batch"] = bytes(50_000)
    with RedisCache(redis_server.url(), None, LIMIT) as store:
        before = redis_server.client.info("commandstats").get("cmdstat_exec", {"calls": 0})["calls"]
        store.put_many("a", values.items())
        assert redis_server.client.info("commandstats")["cmdstat_exec"]["calls"] - before > 15
        assert store.get_many("a", list(values)) == list(values.values())


def test_ours_are_counted_as_the_memory_that_they_take(redis_server):
    before = redis_server.client.info("memory")["used_memory"]
    with RedisCache(redis_server.url(), None, LIMIT) as store:
        for size in (20, 5120, 700):
            for _ in range(20):
                store.put_many("a", [(random.randbytes(16), bytes(size)) for _ in range(100)])
            taken = redis_server.client.info("memory")["used_memory"] - before
            assert 0.85 * taken < store.info()["bytes"] < 1.15 * taken


# a server that is full, read-only, gone, or hangs


def test_a_full_server_drops_what_was_used_longest_ago(own):
    server = own("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    with RedisCache(server.url(), None, LIMIT) as store:  # its own limit is never reached
        for i in range(40):
            store.put_many("a", [(b"%d %d" % (i, j), random.randbytes(5000)) for j in range(50)])
        assert store.notes == []
        there = [store.get_many("a", [b"%d 0" % i])[0] is not None for i in range(40)]
        assert there == sorted(there)
        assert there[-1]
        assert not there[0]


def test_a_server_full_of_other_things_is_read_and_not_written(own, tmp_path):
    server = own("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    with RedisCache(server.url(), local(tmp_path), LIMIT) as store:
        store.put_many("a", [(b"before", b"1")])
        with contextlib.suppress(OutOfMemoryError):
            for i in range(10_000):
                server.client.set(f"theirs {i}", bytes(10_000))
        store.put_many("a", [(b"k", b"v" * 100_000)])
        assert len(store.notes) == 1
        assert "is full (maxmemory): what is new is kept in" in store.notes[0]
        assert store.get_many("a", [b"k", b"before"]) == [b"v" * 100_000, b"1"]
        assert store.claims.claim("a", [b"x", b"y"]) == ["ours", "ours"]  # where nobody can claim, nobody waits
        assert len(store.notes) == 1


def test_a_replica_is_read_and_not_written(own, tmp_path):
    server = own()
    with RedisCache(server.url(), local(tmp_path), LIMIT) as store:
        store.put_many("a", [(b"k", b"1")])
        server.client.config_set("min-replicas-to-write", "0")
        server.client.replicaof("127.0.0.1", free_port())
        store.put_many("a", [(b"l", b"2")])
        assert store.get_many("a", [b"k", b"l"]) == [b"1", b"2"]
        assert len(store.notes) == 1
        assert "cannot be written" in store.notes[0]


def test_what_is_put_while_the_server_is_away_is_kept_and_handed_up_later(own, tmp_path, monkeypatch):
    server = own()
    monkeypatch.setenv("TOPWORK_CACHE", server.url())
    monkeypatch.setenv("TOPWORK_CACHE_FOLDER", str(tmp_path / "local"))
    store = open_cache()
    store.put_many("a", [(b"before", b"1")])
    server.kill()
    store.put_many("a", [(b"after", b"2")])
    assert store.get_many("a", [b"before", b"after"]) == [b"1", b"2"]
    assert len(store.notes) == 1
    assert "went away" in store.notes[0]
    assert "Nothing that was computed here is lost" in store.notes[0]
    assert open_cache() is store  # still away, and no error in mid-run
    back = own(port=server.port)
    assert open_cache().get_many("a", [b"before", b"after"]) == [b"1", b"2"]
    with RedisCache(back.url(), None, LIMIT) as other:  # another machine
        assert other.get_many("a", [b"before", b"after"]) == [b"1", b"2"]
    store.close()


def test_without_a_local_cache_nothing_more_is_kept(own):
    server = own()
    store = RedisCache(server.url(), None, LIMIT)
    server.kill()
    store.put_many("a", [(b"k", b"1")])
    assert store.get_many("a", [b"k"]) == [None]
    assert store.notes[0].endswith("nothing more is kept")
    store.close()


def test_a_server_that_hangs_costs_one_timeout(own, tmp_path, monkeypatch):
    monkeypatch.setattr(redis_cache, "SECONDS", 0.5)
    server = own()
    with RedisCache(server.url(), local(tmp_path), LIMIT) as store:
        store.put_many("a", [(b"k", b"1")])
        server.pause()
        began = time.monotonic()
        for i in range(50):
            store.put_many("a", [(b"%d" % i, b"1")])
            assert store.get_many("a", [b"k", b"%d" % i]) == [b"1", b"1"]
            assert store.claims.claim("a", [b"x%d" % i]) == ["ours"]
        assert 0.5 <= time.monotonic() - began < 3
        assert len(store.notes) == 1


def test_a_connection_that_the_server_closed_is_opened_again(redis_server):
    with RedisCache(redis_server.url(), None, LIMIT) as store:
        store.put_many("a", [(b"k", b"1")])
        redis_server.client.client_kill_filter(_type="normal", skipme=True)
        assert store.get_many("a", [b"k"]) == [b"1"]
        assert store.notes == []


def test_a_forked_child_works_on_its_own(redis_server):
    with RedisCache(redis_server.url(), None, LIMIT) as store:
        store.put_many("a", [(b"k", b"1")])
        assert store.claims.claim("a", [b"mine"]) == ["ours"]
        child = os.fork()
        if child == 0:
            ok = store.get_many("a", [b"k"]) == [b"1"] and store.claims.claim("a", [b"mine", b"c"]) == [
                "theirs",
                "ours",
            ]
            store.put_many("a", [(b"child", b"2")])
            os._exit(0 if ok and not store.notes else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.get_many("a", [b"k", b"child"]) == [b"1", b"2"]


# claims


@pytest.fixture
def two(redis_server):
    stores = [RedisCache(redis_server.url(), None, LIMIT, claim_seconds=0.6) for _ in range(2)]
    yield stores
    for store in stores:
        store.close()


def test_a_claim_is_one_workers(two):
    a, b = (store.claims for store in two)
    assert a.claim("n", [b"1", b"2"]) == ["ours", "ours"]
    assert b.claim("n", [b"2", b"3"]) == ["theirs", "ours"]
    assert a.claim("n", [b"1", b"3"]) == ["ours", "theirs"]  # asked twice
    assert b.claim("other", [b"1"]) == ["ours"]
    two[0].put_many("n", [(b"1", b"value")])
    a.release("n", [b"1", b"2"])
    assert b.claim("n", [b"1", b"2"]) == ["there", "ours"]


def test_claims_are_renewed_while_their_process_lives(two, redis_server):
    a, b = (store.claims for store in two)
    a.claim("n", [b"1"])
    time.sleep(1.5)
    assert b.claim("n", [b"1"]) == ["theirs"]
    a._held.clear()  # as if it had died
    time.sleep(1.0)
    assert b.claim("n", [b"1"]) == ["ours"]
    assert a._thread is None


def test_what_another_one_took_over_is_not_taken_away(two, redis_server):
    a, b = (store.claims for store in two)
    a.claim("n", [b"1"])
    redis_server.client.delete(*redis_server.client.keys("topwork:1:c:*"))  # expired while a was suspended
    assert b.claim("n", [b"1"]) == ["ours"]
    a.release("n", [b"1"])
    assert a.claim("n", [b"1"]) == ["theirs"]


def test_closing_gives_claims_back(two):
    two[0].claims.claim("n", [b"1"])
    two[0].close()
    assert two[1].claims.claim("n", [b"1"]) == ["ours"]
