"""Real database servers from Debian's packages, on a free port, for as long as a block lasts."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PASSWORD = "s3cret-Kiwi"
SECONDS = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def found(name, *places):
    """A binary, on the path or where Debian puts it."""
    here = shutil.which(name) or next(iter(sorted(p for place in places for p in glob.glob(f"{place}/{name}"))), None)
    if here is None:
        pytest.skip(f"{name} is not installed here")
    return here


@contextlib.contextmanager
def folder_of(user):
    """A folder of that user, and the words in front of a command that let it run as that user."""
    folder = Path(tempfile.mkdtemp(prefix="topwork-server-"))
    try:
        words = []
        if os.getuid() == 0:
            try:
                owner = pwd.getpwnam(user)
            except KeyError:
                pytest.skip(f"there is no user {user} here, and as root the server does not start")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            words = [found("setpriv"), f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        yield folder, words
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(command, answers, end_by):
    """A server until the block ends, entered once it answers."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                pytest.skip(f"{command[0]} does not start here: {process.communicate()[0].decode()[-300:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(end_by)
        process.communicate()


@contextlib.contextmanager
def postgresql():
    """Address, with its password, of a new and empty database."""
    import psycopg

    initdb = found("initdb", "/usr/lib/postgresql/*/bin")
    with folder_of("postgres") as (folder, words):
        secret, port = folder / "secret", free_port()
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = str(folder / "data")
        subprocess.run(
            [*words, initdb, "-D", data, "-U", "ann", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8",
             "--no-sync", "--locale=C"], check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        server = [*words, os.path.join(os.path.dirname(initdb), "postgres"), "-D", data, "-p", str(port)]
        server += ["-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        address = f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}/postgres"

        def answers():
            try:
                psycopg.connect(address, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        with running(server, answers, signal.SIGQUIT):  # at once, and its children too
            yield address


@contextlib.contextmanager
def mariadb():
    """Address, with its password, of a new and empty database."""
    import pymysql

    install, daemon = found("mariadb-install-db"), found("mariadbd", "/usr/sbin")
    with folder_of("mysql") as (folder, words):
        data, port, door = str(folder / "data"), free_port(), str(folder / "door")
        subprocess.run(
            [*words, install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
             "--skip-test-db"], check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        server = [*words, daemon, "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1"]
        server += [f"--socket={door}", "--innodb-flush-log-at-trx-commit=0"]

        def answers():
            with socket.socket(socket.AF_UNIX) as probe:  # PyMySQL leaves its own open where nobody answers
                if probe.connect_ex(door):
                    return False
            try:
                with pymysql.connect(unix_socket=door, user="root", charset="utf8mb4") as root, root.cursor() as cursor:
                    cursor.execute("create database if not exists shop character set utf8mb4")
                    cursor.execute(f"create user if not exists ann identified by '{PASSWORD}'")
                    cursor.execute("grant all on shop.* to ann")
            except pymysql.OperationalError:
                return False
            return True

        with running(server, answers, signal.SIGKILL):
            yield f"mariadb://ann:{PASSWORD}@127.0.0.1:{port}/shop"
