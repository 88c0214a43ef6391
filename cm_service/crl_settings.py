"""[crl] in cm.toml, and what it means for profiles and lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from pydantic import Field, model_validator

from cm_service.issuer.profiles import ProfileSettings
from keyark.config import Config, ConfigPath
from keyark.errors import ConfigurationError
from keyark.x509.crls import MAX_SHARDS, shard_of

PLACE: Final = "{shard}"


class CrlSettings(Config):
    """[crl]: where lists are written, how often, how long one outlasts its successor, and how many there are."""

    folder: ConfigPath
    every_hours: Annotated[float, Field(gt=0, le=24 * 366)] = 24
    overlap_hours: Annotated[float, Field(gt=0, le=24 * 366)] = 24
    delta_every_minutes: Annotated[float, Field(ge=0, le=24 * 60 * 366)] = 0
    delta_urls: list[str] = []
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] = 1

    @property
    def every(self) -> int:
        """Seconds from one full list to the next."""
        return int(self.every_hours * 3600)

    @property
    def overlap(self) -> int:
        """Seconds that a list stays valid after its successor is due."""
        return int(self.overlap_hours * 3600)

    @property
    def delta_every(self) -> int:
        """Seconds from one delta list to the next; 0 where there are none."""
        return int(self.delta_every_minutes * 60)

    @model_validator(mode="after")
    def _makes_sense(self) -> CrlSettings:
        if self.shards & (self.shards - 1):
            raise ValueError("shards is a power of two: 1, 2, 4, ... 256")
        if bool(self.delta_every_minutes) != bool(self.delta_urls):
            raise ValueError(
                "set both delta_every_minutes and delta_urls, or neither, since full lists name the URLs of "
                "deltas"
            )
        if any((PLACE in url) != (self.shards > 1) for url in self.delta_urls):
            raise ValueError(
                f"delta_urls must contain {PLACE} if there is more than one shard, and must not otherwise"
            )
        return self


def list_urls(profiles: Mapping[str, ProfileSettings], settings: CrlSettings) -> list[str]:
    """Return the issuing distribution point of the lists, with PLACE in it where there are several shards.

    A single list of everything has none: it needs none, and some programs (NSS) take no list with one. The lists of
    shards hold the URLs of all profiles. Raises ConfigurationError where shards and URLs do not fit together.
    """
    urls = dict.fromkeys(url for profile in profiles.values() for url in profile.crl_urls)
    sharded = settings.shards > 1
    everywhere = all(profile.crl_urls for profile in profiles.values())
    if any((PLACE in url) != sharded for url in urls) or (sharded and not everywhere):
        raise ConfigurationError(
            f"crl_urls of every profile must contain {PLACE} if [crl] has more than one shard, and must "
            "not otherwise."
        )
    return list(urls) if sharded else []


def for_shard(urls: Sequence[str], shard: int) -> list[str]:
    """Return URLs for one shard."""
    return [url.replace(PLACE, str(shard)) for url in urls]


def sharded_profiles(profiles: Mapping[str, ProfileSettings], shards: int) -> dict[str, ProfileSettings]:
    """Return what signing workers work with: each profile once for each shard, under ``shard_key``."""
    if shards == 1:
        return dict(profiles)
    return {
        f"{name}/{shard}": profile.model_copy(update={"crl_urls": tuple(for_shard(profile.crl_urls, shard))})
        for name, profile in profiles.items()
        for shard in range(shards)
    }


def shard_key(profile: str, serial: bytes, shards: int) -> str:
    """Return under which name signing workers know a profile for the shard of a serial number."""
    return f"{profile}/{shard_of(serial, shards)}" if shards > 1 else profile
