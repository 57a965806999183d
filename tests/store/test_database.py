import sys

import pytest

from topwork.errors import BadData, BadSetting, MissingExtra
from topwork.store.database import Database, command_of, hidden, is_database, shown

SECRETS = ("Kiwi", "ann", "h:untr")


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("sqlite:///reviews.db", "sqlite:///reviews.db"),
        ("sqlite:////srv/a@b.db?mode=ro", "sqlite:////srv/a@b.db"),
        ("postgresql://db.example.org:5432/shop", "postgresql://db.example.org:5432/shop"),
        ("postgresql://ann@db/shop", "postgresql://***@db/shop"),
        ("postgresql://ann:Kiwi@db:5432/shop?sslmode=require", "postgresql://***@db:5432/shop"),
        ("mysql+pymysql://ann:Ki/w@i@[::1]:3306/shop", "mysql+pymysql://***@[::1]:3306/shop"),
        ("mariadb://ann:Ki?wi@db/shop", "mariadb://***"),
        ("postgresql://db/shop?user=ann&password=Ki@wi", "postgresql://***"),
        ("postgresql://ann:Kiwi", "postgresql://***"),
        ("${DATABASE_URL}", "${DATABASE_URL}"),
        ("photos/", "photos/"),
    ],
)
def test_who_asks_is_never_shown(uri, seen):
    assert shown(uri) == seen
    assert command_of(["topwork", "fit", uri, "--out", "m"]) == f"topwork fit {seen} --out m"
    if "://" in uri and " " not in uri:
        assert hidden(f"--data={uri} failed") == f"--data={seen} failed"


def test_other_addresses_lose_their_user_too():
    assert hidden("https://ann:Kiwi@example.org/x: gone") == "https://***@example.org/x: gone"
    assert hidden("see https://example.org/@ann") == "see https://example.org/@ann"


def test_drivers_and_the_environment(monkeypatch):
    assert Database("postgres://ann@db/shop").url.drivername == "postgresql+psycopg"
    assert Database("mysql://ann@db/shop").url.drivername == "mysql+pymysql"
    assert Database("mariadb://ann@db/shop").url.drivername == "mariadb+pymysql"
    assert Database("postgresql+psycopg2://ann@db/shop").url.drivername == "postgresql+psycopg2"
    assert Database("mysql://ann@db/shop").url.password is None
    monkeypatch.setenv("TOPWORK_SQL_PASSWORD", "K:i@w/i")
    assert Database("mysql://ann@db/shop").url.password == "K:i@w/i"
    assert Database("mysql://ann:other@db/shop").url.password == "other"
    assert Database("sqlite:///x.db").url.password is None
    monkeypatch.setenv("WHO", "a@b")
    monkeypatch.setenv("WHERE", "db.example.org")
    url = Database("mysql://${WHO}:${TOPWORK_SQL_PASSWORD}@${WHERE}/shop").url
    assert (url.username, url.password, url.host) == ("a@b", "K:i@w/i", "db.example.org")
    monkeypatch.setenv("DATABASE_URL", "postgresql://ann:Kiwi@db/shop")
    assert is_database("${DATABASE_URL}")
    assert Database("${DATABASE_URL}").url.host == "db"
    assert not is_database("${NOWHERE}")
    with pytest.raises(BadSetting, match=r"names \$\{NOWHERE\}, which the environment does not hold"):
        _ = Database("mysql://ann:${NOWHERE}@db/x").url


@pytest.mark.parametrize(
    "uri", ["postgresql://ann:Ki@wi@db/shop", "postgresql://ann:Kiwi@db:port/shop", "mysql://ann:Kiwi", "sqlite://"]
)
def test_addresses_that_are_none(uri):
    with pytest.raises((BadSetting, BadData)) as caught, Database(uri).snapshot():
        pass
    assert "Expected sqlite:///file.db" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("uri", ["postgresql://ann:Kiwi@127.0.0.1:1/x", "mariadb://ann:Kiwi@127.0.0.1:1/x"])
def test_nobody_there(uri):
    with pytest.raises(BadData) as caught, Database(uri).snapshot():
        pass
    assert "refused" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_drivers_that_are_missing(monkeypatch):
    with pytest.raises(BadSetting, match="SQLAlchemy knows no such driver"), Database("mysql+nope://h/x").snapshot():
        pass
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'topwork\[sql\]'"), Database("postgresql://h/x").snapshot():
        pass
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    other = Database("postgresql+psycopg2://h/x")
    with pytest.raises(BadSetting, match="write postgresql:// without a driver"), other.snapshot():
        pass
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with (
        pytest.raises(MissingExtra, match=r"sqlite:///x.db needs the 'sql' extra"),
        Database("sqlite:///x.db").snapshot(),
    ):
        pass
