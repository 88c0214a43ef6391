"""Configuration: unknown keys and wrong values are refused with file and line, and values are never echoed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm_service.config import CmConfig
from drm_service.config import DrmConfig
from keyark.config import Config, ConfigPath, load_config
from keyark.errors import ConfigurationError
from rm_service.config import RmConfig


class Inner(Config):
    port: int
    names: list[str] = []


class Outer(Config):
    title: str = ""
    path: ConfigPath = Path("default")
    inner: Inner | None = None
    many: list[Inner] = []


def load(folder: Path, text: str) -> Outer:
    path = folder / "service.toml"
    path.write_text(text)
    return load_config(path, Outer)


def test_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    assert load(tmp_path, 'path = "store"').path == tmp_path / "store"
    assert load(tmp_path, 'path = "/var/store"').path == Path("/var/store")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('title = "a"\ntitel = "b"', 2, "titel"),
        ("[inner]\n\n# port is missing\n", 1, "inner.port"),
        ('[inner]\nport = "x"', 2, "inner.port"),
        ("[inner]\nport = 1\nnames = [\n  'a',\n]\nextra = 3", 6, "inner.extra"),
        ("[[many]]\nport = 1\n[[many]]\nport = 2\nwrong = 1", 5, "many.1.wrong"),
        ("inner.port = 1\ninner.wrong = 2", 2, "inner.wrong"),
        ('title = """\nport = 3\n"""\nwrong = 1', 4, "wrong"),
        ("inner = { port = 1, wrong = 2 }", 1, "inner.wrong"),
        ('"titel" = 1', 1, "titel"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert f"service.toml:{line}: {key}: " in caught.value.message


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, "a = 1\nb = 2")
    assert caught.value.message.count("service.toml:") == 2


@pytest.mark.parametrize("text", ["title = ", "[inner", "title = 'a'\ntitle = 'b'", "\x00"])
def test_what_is_no_toml_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"service.toml:\d+: "):
        load(tmp_path, text)


def test_values_are_never_echoed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, '[inner]\nport = "hunter2-the-password"')
    assert "hunter2" not in caught.value.message


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_config(tmp_path / "nowhere.toml", Outer)


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("config")
    path = folder / "service.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    with contextlib.suppress(ConfigurationError):
        load_config(path, Outer)


@pytest.mark.parametrize(("role", "model"), [("rm", RmConfig), ("cm", CmConfig), ("drm", DrmConfig)])
def test_every_setting_of_a_service_is_written_and_explained(
    deployment_template: Path, role: str, model: type[Config]
) -> None:
    path = deployment_template / role / f"{role}.toml"
    load_config(path, model)
    lines = path.read_text().splitlines()
    written = {line.partition("=")[0].strip() for line in lines if "=" in line and not line.startswith("#")}
    sections = [
        field.annotation for field in model.model_fields.values() if isinstance(field.annotation, type)
    ]
    settings = {name for section in sections if issubclass(section, Config) for name in section.model_fields}
    assert settings - {"rule", "details"} <= written  # tables, of which there may be none


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
def test_an_unknown_key_stops_a_service(deployment_folder: Path, role: str) -> None:
    path = deployment_folder / role / f"{role}.toml"
    path.write_text(path.read_text().replace("[store]\n", "[store]\nfast = true\n"))
    line = path.read_text().splitlines().index("fast = true") + 1
    model = {"rm": RmConfig, "cm": CmConfig, "drm": DrmConfig}[role]
    with pytest.raises(ConfigurationError, match=rf"{role}.toml:{line}: store.fast: this key is unknown"):
        load_config(path, model)
