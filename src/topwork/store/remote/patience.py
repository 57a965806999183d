"""Patience with remote endpoints: what may pass is tried again, what stays becomes one line.

After attempt n a wait drawn from 0 .. min(CAP, BASE 2^n) seconds (full jitter: Brooker, Exponential Backoff and Jitter,
AWS 2015), until PATIENCE is over: short before a server has ever answered, longer after. One that was given up is not
asked again for a while, so that many threads do not wait one after the other.

    FileNotFoundError, PermissionError     of one file
    Broken                                 what came is not what the server said
    StoreError                             the endpoint does not answer, or does not know us
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from topwork.errors import MissingExtra, StoreError
from topwork.store.remote.clients import where_from
from topwork.store.remote.files import Broken, Client

T = TypeVar("T")
FIRST_PATIENCE, PATIENCE = 6.0, 40.0  # seconds: before a server has ever answered, and after
BASE, CAP = 0.1, 5.0  # seconds of waiting
DEAD_SECONDS = 20.0  # during which a server that was given up is not asked again
NEVER_SECONDS = 300.0  # the same, where it has never answered
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_UNKNOWN_US = (
    "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidToken",
    "AuthorizationHeaderMalformed", "TokenRefreshRequired", "AuthenticationFailed", "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
)  # fmt: skip
_NO_KEY = (
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "AzureSigningError",
    "ClientAuthenticationError", "CredentialUnavailableError",
)  # fmt: skip


class Unreachable(StoreError):
    """An endpoint does not answer."""


class Endpoint:
    """A client with patience."""

    def __init__(self, name: str, client: Client) -> None:
        self.name, self.client = name, client
        self.answered = False
        self._given_up: tuple[float, str] | None = None
        self._lock = threading.Lock()

    def patiently(self, what: str, attempt: Callable[[], T]) -> T:
        """The answer of an attempt; passing errors are tried again, those that stay become one line."""
        began, tries = time.monotonic(), 0
        while True:
            with self._lock:
                if self._given_up and time.monotonic() < self._given_up[0]:
                    raise Unreachable(self._given_up[1])
            try:
                answer = attempt()
            except Exception as error:
                final = _final(error, what)
                if final is not None:
                    self.answered |= not isinstance(final, StoreError)
                    if final is error:
                        raise
                    raise final from error
                tries += 1
                left = (PATIENCE if self.answered else FIRST_PATIENCE) - (time.monotonic() - began)
                wait = random.uniform(0, min(CAP, BASE * 2**tries))
                if wait > left:
                    raise Unreachable(self._give_up(what, error, tries, time.monotonic() - began)) from error
                time.sleep(wait)
            else:
                self.answered, self._given_up = True, None
                return answer

    def _give_up(self, what: str, error: Exception, tries: int, seconds: float) -> str:
        many = "1 try" if tries == 1 else f"{tries} tries"
        line = f"{what}: {self.name} does not answer ({reason(error)}; {many} in {seconds:.0f} s)"
        line += ". Look to the network and the address, then run again: what was fetched is kept"
        with self._lock:
            self._given_up = time.monotonic() + (DEAD_SECONDS if self.answered else NEVER_SECONDS), line
        return line


def reason(error: BaseException) -> str:
    """Why, in a few words and without addresses that might hold a secret."""
    code, status = _code(error), _status(error)
    if status:
        return f"{code} {status}" if code and not code.isdigit() else f"status {status}"
    word = type(error).__name__
    return {
        "EndpointConnectionError": "no connection",
        "ClientConnectorError": "no connection",
        "ServiceRequestError": "no connection",
        "ServiceResponseError": "the connection was cut",
        "ClientConnectorDNSError": "its name is not known",
        "ConnectTimeoutError": "no connection in time",
        "ConnectionTimeoutError": "no connection in time",
        "SocketTimeoutError": "no answer in time",
        "ReadTimeoutError": "no answer in time",
        "TimeoutError": "no answer in time",
        "ServiceRequestTimeoutError": "no connection in time",
        "ServiceResponseTimeoutError": "no answer in time",
        "FSTimeoutError": "no answer in time",
        "ServerDisconnectedError": "the connection was cut",
        "ClientPayloadError": "the connection was cut",
        "Broken": str(error),
    }.get(word, word)


def _final(error: Exception, what: str) -> Exception | None:
    """What an error means for good; None where it may pass."""
    code, status = _code(error), _status(error)
    word = type(error).__name__
    if isinstance(error, StoreError | MissingExtra | Broken):
        return error
    if code in _UNKNOWN_US or word in _NO_KEY:
        return StoreError(f"{what}: the credentials are refused ({code or word}). Set those of this server again")
    if "Certificate" in word or "SSL" in word:
        return StoreError(f"{what}: the certificate of the server is not one that this machine trusts ({word})")
    if status == 401:
        if what.startswith("http"):
            return StoreError(f"{what}: a name and a password are needed (status 401): https://USER:PASSWORD@HOST/...")
        return StoreError(f"{what}: the credentials are refused, or there are none (status 401). {where_from(what)}")
    if status in _PASSING:
        return None
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return error if isinstance(error, FileNotFoundError) else FileNotFoundError(what)
    if isinstance(error, PermissionError) or status == 403:
        return error if isinstance(error, PermissionError) else PermissionError(f"not allowed ({code or status})")
    if isinstance(error, NotADirectoryError | IsADirectoryError):
        return error
    if word in ("ClientPayloadError", "IncompleteReadError", "ResponseStreamingError", "FlexibleChecksumError"):
        return Broken("the connection was cut before its end")
    if word in ("InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError", "ParamValidationError", "ValueError"):
        return StoreError(f"{what}: is not an address that can be asked ({word})")
    if status >= 400:
        return StoreError(f"{what}: refused ({reason(error)})")
    if isinstance(error, OSError) or word.endswith(("Error", "Exception")):
        return None if _is_network(error) else error
    return error


def _is_network(error: Exception) -> bool:
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return isinstance(error, OSError | TimeoutError) or bool(
        kinds
        & {
            "aiohttp.ClientError",
            "botocore.HTTPClientError",
            "botocore.BotoCoreError",
            "botocore.ClientError",
            "azure.ServiceRequestError",
            "azure.ServiceResponseError",
        }
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _code(error: BaseException) -> str:
    for one in _chain(error):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict) and "Error" in answer:
            return str(answer["Error"].get("Code", ""))
        if isinstance(code := getattr(one, "error_code", None), str):  # Azure; also an enum of words
            return str(getattr(code, "value", code))
    return ""


def _status(error: BaseException) -> int:
    for one in _chain(error):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict) and "ResponseMetadata" in answer:
            return int(answer["ResponseMetadata"].get("HTTPStatusCode") or 0)
        for name in ("status", "status_code", "code"):  # aiohttp; Azure; gcsfs
            status = getattr(one, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return int(status)
    return 0


def refused(error: PermissionError, what: str) -> str:
    """One line for what we may not do."""
    told = reason(error) if reason(error) != "PermissionError" else str(error)
    return f"not allowed, or not there ({told}). {where_from(what)}"
