"""Files of the hubs: from the cache on this machine first, from the network only if it answers at once.

    hub_files("org/name", (...), ...)    several files of one repository, some of which it may lack
    hub_file("timm/resnet18.a1_in1k", ("model.safetensors",), spec) -> Path      Hugging Face hub, safetensors only
    url_file("https://.../resnet18-f37072fd.pth", folder, spec) -> Path           one file by address

A dead network costs at most WAIT_SECONDS (the hub's own client retries for a minute), then one line says where to put
what. HF_HUB_OFFLINE=1 asks nobody.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from topwork import settings
from topwork.errors import WeightsNotHere

WAIT_SECONDS = 3.5


def hub_file(repo: str, names: Sequence[str], spec: str) -> Path:
    """The first of these files of a repository that is in the hub's cache, else that can be downloaded."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    here = hub_file_here(repo, names)
    if here is not None:
        return here
    repo, _, revision = repo.partition("@")
    url = f"{constants.ENDPOINT}/{repo}/resolve/{revision or 'main'}/{names[0]}"
    place = _place(repo, revision or "main") / names[0]
    _demand_network(constants.ENDPOINT, url, place, spec)
    for name in names:
        try:
            return Path(
                huggingface_hub.hf_hub_download(repo, name, revision=revision or None, etag_timeout=WAIT_SECONDS)
            )
        except errors.EntryNotFoundError:
            continue
        except (OSError, errors.HfHubHTTPError) as error:
            raise _not_here(spec, url, place, (str(error).splitlines() or ["no answer"])[0]) from error
    raise WeightsNotHere(f"{spec}: {repo} on the hub has none of {', '.join(names)}; pickles are not loaded")


def hub_file_here(repo: str, names: Sequence[str]) -> Path | None:
    """The first of these files that the hub's cache holds."""
    from huggingface_hub import constants, try_to_load_from_cache

    repo, _, revision = repo.partition("@")
    for name in names:
        found = try_to_load_from_cache(repo, name, cache_dir=constants.HF_HUB_CACHE, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_files(
    repo: str, needed: Sequence[str], optional: Sequence[str], weights: Sequence[str], spec: str
) -> tuple[Path, ...]:
    """All needed files and the weights; those that a repository may lack are asked for before its weights come."""
    import huggingface_hub
    from huggingface_hub import errors

    name, _, revision = repo.partition("@")
    found = [hub_file(repo, (file,), spec) for file in needed]
    if hub_file_here(repo, weights) is None:  # with its weights here it is complete: nobody is asked for more
        for file in optional:
            if hub_file_here(repo, (file,)) is None and not settings.offline():
                with contextlib.suppress(OSError, errors.HfHubHTTPError, errors.EntryNotFoundError):
                    huggingface_hub.hf_hub_download(name, file, revision=revision or None, etag_timeout=WAIT_SECONDS)
    return (*found, hub_file(repo, weights, spec))


def cached_repos() -> tuple[str, ...]:
    """Names of the repositories that the hub's cache holds, in whatever state."""
    from huggingface_hub import constants

    folders = sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*"))
    return tuple(folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders)


def url_file(url: str, folder: Path, spec: str) -> Path:
    """The file of this address in `folder`; downloaded to a hidden name first, so that it is whole or absent."""
    path = folder / url.rpartition("/")[2]
    if path.is_file():
        return path
    _demand_network(url, url, path, spec)
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=30) as answer:
            shutil.copyfileobj(answer, out)
        os.replace(part, path)
    except OSError as error:
        Path(part).unlink(missing_ok=True)
        raise _not_here(spec, url, path, str(error)) from error
    return path


def _demand_network(asked: str, url: str, place: Path, spec: str) -> None:
    if settings.offline():
        raise _not_here(spec, url, place, "HF_HUB_OFFLINE=1")
    silence = _silence_of(asked)
    if silence:
        raise _not_here(spec, url, place, silence)


def _silence_of(url: str) -> str:
    """Why an address does not answer; "" if it does. In a thread: looking up a name knows no timeout."""
    said = [f"no answer within {WAIT_SECONDS} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=WAIT_SECONDS).close()
            said[0] = ""
        except urllib.error.HTTPError as error:
            error.close()
            said[0] = ""  # it answers, whatever it thinks of the question
        except (OSError, ValueError) as error:
            said[0] = f"no network: {getattr(error, 'reason', error)}"

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    return said[0]


def _place(repo: str, revision: str) -> Path:
    """The folder of the hub's cache where a file of this repository is looked for."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    known = folder / "refs" / revision
    return folder / "snapshots" / (known.read_text().strip() if known.is_file() else revision)


def _not_here(spec: str, url: str, place: Path, why: str) -> WeightsNotHere:
    return WeightsNotHere(f"The weights of {spec} are not on this machine ({why}). Put {url} at {place}")
