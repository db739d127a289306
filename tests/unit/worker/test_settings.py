"""Settings from the environment: read once, all mistakes named at once."""

from pathlib import Path

import pytest

from domain.errors import Invalid
from worker.settings import Settings

pytestmark = pytest.mark.unit


def test_an_empty_environment_gives_the_embedded_engine() -> None:
    settings = Settings.from_env({"PATH": "/bin", "HOME": "/nowhere"})
    assert settings == Settings()
    assert settings.api_host == "127.0.0.1"
    assert settings.traces == "off"


def test_every_setting_is_read_under_its_name_with_the_prefix() -> None:
    env = {
        "HOLDFAST_VAR": "/srv/x",
        "HOLDFAST_DATABASE_URL": "postgresql+asyncpg://db/holdfast",
        "HOLDFAST_TEMPORAL_ADDRESS": "127.0.0.1:7233",
        "HOLDFAST_API_HOST": "127.0.0.2",
        "HOLDFAST_API_PORT": "0",
        "HOLDFAST_UI_PORT": "8233",
        "HOLDFAST_TRACES": "otlp",
        "HOLDFAST_FLEET": "sim:hosts=3",
        "HOLDFAST_STEPS_AT_ONCE": "4",
        "HOLDFAST_RETENTION_DAYS": "7",
        "HOLDFAST_MONITORS": "2",
        "HOLDFAST_MONITOR_NAME": "north",
        "HOLDFAST_MACHINE": "engine-1",
        "HOLDFAST_LOG_LEVEL": "debug",
    }
    settings = Settings.from_env(env)
    assert len(env) == len(Settings.model_fields)
    assert (settings.var, settings.api_port, settings.steps_at_once) == (Path("/srv/x"), 0, 4)
    assert settings.database == "postgresql+asyncpg://db/holdfast"


def test_a_misspelt_setting_is_refused_by_its_full_name() -> None:
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"HOLDFAST_API_PROT": "1"})
    assert refused.value.code == "SETTINGS_INVALID"
    assert "HOLDFAST_API_PROT" in refused.value.detail


def test_all_wrong_settings_are_named_at_once() -> None:
    env = {"HOLDFAST_API_PORT": "70000", "HOLDFAST_TRACES": "loud", "HOLDFAST_STEPS_AT_ONCE": "0"}
    with pytest.raises(Invalid) as refused:
        Settings.from_env(env)
    assert all(name in refused.value.detail for name in env)


@pytest.mark.parametrize("name", ["LAB_CACHE", "PYTHON", "URL", "TOKEN", "TOKEN_FILE"])
def test_variables_of_our_other_programs_are_left_alone(name: str) -> None:
    assert Settings.from_env({f"HOLDFAST_{name}": "anything"}) == Settings()


def test_without_an_address_the_database_is_a_file_in_var(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path)
    assert settings.database == f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"


def test_a_relative_var_is_the_same_folder_for_a_child_elsewhere() -> None:
    passed_on = Settings.from_env(Settings(var=Path("here")).as_env())
    assert passed_on.var == Path("here").absolute()


def test_a_child_reads_back_what_its_parent_passed_on(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path, api_port=1234, traces="console", log_level="error")
    assert Settings.from_env(settings.as_env()) == settings


def test_the_docstring_explains_every_setting() -> None:
    explained = (Settings.__doc__ or "").split()
    assert [name for name in Settings.model_fields if name not in explained] == []
