"""Every setting: a field of a section with its default, bounds and help text. `tympan.config` reads them."""

from tympan.settings.deploy import DeploySettings
from tympan.settings.limits import KeySettings, LimitSettings
from tympan.settings.model import ModelSettings, RecordingSettings, TurnSettings
from tympan.settings.server import ServerSettings

__all__ = [
    "DeploySettings",
    "KeySettings",
    "LimitSettings",
    "ModelSettings",
    "RecordingSettings",
    "ServerSettings",
    "TurnSettings",
]
