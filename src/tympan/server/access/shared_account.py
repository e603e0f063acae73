"""The usage of a key over all front processes: this process's part, and the ledger that adds up all parts."""

from __future__ import annotations

from collections.abc import Iterable

from tympan.config import KeySettings
from tympan.errors import AccessError, QuotaError
from tympan.server.access.ledger_client import LedgerClient
from tympan.server.access.ledger_wire import Exhausted, KeyUse
from tympan.server.access.quota import Account


class SharedAccount(Account):
    """An account whose limits hold for all front processes together.

    Streams are reserved in the ledger before they open. Received audio and bytes are reported once a second, so a key
    can exceed these two limits by what it sends to the other fronts in a second.
    """

    def __init__(self, limits: KeySettings, ledger: LedgerClient) -> None:
        super().__init__(limits)
        self._ledger = ledger
        self._audio_to_report, self._bytes_to_report = 0.0, 0
        self._shared_audio_error: QuotaError | None = None
        self._shared_file_error: QuotaError | None = None

    def reserve(self, streams: int, now: float) -> None:
        if self.revoked:
            raise self.revoked_error()
        self._ledger.open(self.id, self.limits, streams)
        self.take(streams, now)

    def release(self, streams: int) -> None:
        super().release(streams)
        if streams:
            self._ledger.close(self.id, streams)

    def add_audio(self, seconds: float, now: float) -> None:
        super().add_audio(seconds, now)
        self._audio_to_report += seconds

    def add_file_bytes(self, count: int, now: float) -> None:
        super().add_file_bytes(count, now)
        self._bytes_to_report += count

    def error(self, now: float) -> AccessError | QuotaError | None:
        return super().error(now) or self._shared_audio_error

    def file_error(self, now: float) -> QuotaError | None:
        return super().file_error(now) or self._shared_file_error

    def take_use(self, now: float) -> KeyUse | None:
        """Return what is to be reported; None for a key that is not in use."""
        if not (self.streams or self._audio_to_report or self.file_bytes(now)):
            return None
        use = KeyUse(self.id, self.limits, self._audio_to_report, self._bytes_to_report)
        self._audio_to_report, self._bytes_to_report = 0.0, 0
        return use

    def set_limits(self, reached: Exhausted | None) -> None:
        """Keep which limits the key has reached in all fronts together."""
        self._shared_audio_error = reached.audio.error if reached and reached.audio else None
        self._shared_file_error = reached.files.error if reached and reached.files else None


def report_use(ledger: LedgerClient, accounts: Iterable[Account], now: float) -> None:
    """Report to the ledger what the accounts have received, and keep which limits they have reached.

    Raises:
        RestartingError: The supervisor does not answer.
    """
    reported = [
        (account, use)
        for account in accounts
        if isinstance(account, SharedAccount) and (use := account.take_use(now)) is not None
    ]
    exhausted = {each.key: each for each in ledger.report([use for _, use in reported])}
    for account, use in reported:
        account.set_limits(exhausted.get(use.key))
