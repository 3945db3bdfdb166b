"""Settings: read once, checked, and silent about passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from customer_panel import errors
from customer_panel.redaction import redacted
from customer_panel.settings import SETTINGS, Settings, parse_bytes

ROOT = Path(__file__).parents[2]
NOWHERE = "/nonexistent/.env"


def load(**env: str) -> Settings:
    return Settings.load(env, NOWHERE)


def test_defaults_need_nothing() -> None:
    settings = load()
    assert settings.database_url is None
    assert settings.home.name == "customer-panel"
    assert settings.memory == 512 << 20
    assert (settings.host, settings.port) == ("127.0.0.1", 3000)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CP_MEMORY", "lots"),
        ("CP_MEMORY", "1k"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("IMPORT_BATCH_SIZE", "99"),
        ("IMPORT_PROGRESS_EVERY_MS", "1e3"),
        ("IMPORT_RECENT_LIMIT", "201"),
        ("DATABASE_URL", "mysql://x"),
    ],
)
def test_value_out_of_range_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(errors.SettingsError, match=rf"^{name}: "):
        load(**{name: text})


def test_unknown_name_of_ours_is_an_error_and_others_are_not() -> None:
    with pytest.raises(errors.SettingsError, match="CP_MEMROY; did you mean CP_MEMORY"):
        load(CP_MEMROY="1G")
    load(NODE_ENV="production", REDIS_URL="redis://x")


def test_empty_value_is_not_set() -> None:
    assert load(DATABASE_URL="", PORT=" ") == load()


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("512MiB", 512 << 20), ("2g", 2 << 30), ("64 MB", 64 << 20), ("1T", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "\ufeff# a comment\n\nexport PORT=1\nHOST='::1' # why\n"
        "CSV_PATH=a b.csv # c\nCORS_ORIGINS=http://x,http://y:*\n"
    )
    settings = Settings.load({"PORT": "2"}, path)
    assert (settings.port, settings.host, settings.csv_path) == (2, "::1", "a b.csv")
    assert settings.cors_origins == ("http://x", "http://y:*")


def test_file_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PORT=1\nnonsense\n")
    with pytest.raises(errors.SettingsError, match="line 2"):
        Settings.load({}, path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# a comment\n\n\n  \nPORT\n", 5),
        ("PORT=1\r\n\r\nexport HOST\r\n", 3),
        ("=1", 1),
        ("a name=1", 1),
        ("1ST=1", 1),
        ("\nHOST='it's'\n", 2),
        ('CSV_PATH="a\nPORT=1\n', 1),
    ],
)
def test_the_line_is_counted_as_an_editor_does(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / ".env"
    path.write_bytes(text.encode())
    with pytest.raises(errors.SettingsError, match=rf"{path}, line {line}: ") as raised:
        Settings.load({}, path)
    assert "it's" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("pa$$word-$HOME-${HOME}.csv", "pa$$word-$HOME-${HOME}.csv"),
        ("a#b#.csv # c", "a#b#.csv"),
        ("'a # b.csv' # c", "a # b.csv"),
        ('"it\'s.csv"', "it's.csv"),
        ('"a \\"b\\".csv"', 'a "b".csv'),
        ("a\\tb=c;d?e&f.csv", "a\\tb=c;d?e&f.csv"),
        ("'a\\tb.csv'", "a\\tb.csv"),
        ("grün.csv", "grün.csv"),
        (" # not set", None),
        ("", None),
    ],
)
def test_values_of_the_file_are_what_they_look_like(
    tmp_path: Path, text: str, value: str | None
) -> None:
    path = tmp_path / ".env"
    path.write_text(f"PORT=1\nCSV_PATH={text}\nHOST=::1\n", encoding="utf-8")
    settings = Settings.load({}, path)
    assert (settings.port, settings.csv_path, settings.host) == (1, value, "::1")


def test_url_written_for_prisma_is_understood() -> None:
    url = "postgresql://me:p@h:5432/d?schema=public&connection_limit=5&sslmode=require"
    assert load(DATABASE_URL=url).database_url == "postgresql://me:p@h:5432/d?sslmode=require"
    url = "postgresql://h/d?schema=crm"
    assert load(DATABASE_URL=url).database_url == ("postgresql://h/d?options=-csearch_path%3Dcrm")


def test_no_password_is_ever_shown() -> None:
    settings = load(
        DATABASE_URL="postgresql://me:secret@h/d", CP_DIRECT_URL="host=h password='sec ret' user=x"
    )
    assert "sec" not in repr(settings).replace("***", "")
    assert redacted("x?password=secret&y=1") == "x?password=***&y=1"


def test_example_file_lists_every_setting_and_none_else() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    names = [line.lstrip("#").partition("=")[0] for line in lines if line[1:2].isupper()]
    names = [name for name in names if name.isupper() or "_" in name]
    assert sorted(n for n in names if " " not in n) == sorted(s.name for s in SETTINGS)


def test_example_file_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    path = tmp_path / ".env"
    path.write_text("\n".join(line.lstrip("#") for line in text.splitlines() if "=" in line))
    Settings.load({}, path)


def test_table_names_fields_of_the_struct_once() -> None:
    assert sorted(setting.field for setting in SETTINGS) == sorted(Settings.__struct_fields__)


# -- those of the server --------------------------------------------------------------------------


def test_defaults_of_the_server_are_closed() -> None:
    settings = load()
    assert (settings.api_keys, settings.allow_no_auth, settings.max_streams) == ((), False, 500)
    assert settings.cors_origins == ("http://localhost:*", "http://127.0.0.1:*")
    assert settings.roots() == (Path.cwd() / "data",)
    assert load(CSV_PATH="in/customers.csv").roots() == (Path.cwd() / "in",)
    assert load(CSV_PATH="/a/b.csv", IMPORT_ROOTS="/x:y").roots() == (Path("/x"), Path.cwd() / "y")


def test_keys_have_scopes() -> None:
    long = "0123456789abcdef"
    keys = load(CP_API_KEYS=f"{long}:read, {long}0:write+import,{long}1").api_keys
    assert [key.scopes for key in keys] == [
        {"read"},
        {"write", "import"},
        {"read", "write", "import"},
    ]
    assert len({key.digest for key in keys}) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CP_API_KEYS", "secret-short"),
        ("CP_API_KEYS", "secret-0123456789:all"),
        ("CP_API_KEYS", "secret-0123456789:"),
        ("CP_API_KEYS", "secret-0123456789:read,secret-0123456789:write"),
        ("CP_API_KEYS", "secret 0123456789"),
        ("CP_API_KEYS", "secret-0123456789:read:write"),
        ("CP_ALLOW_NO_AUTH", "yes"),
        ("CP_ALLOWED_HOSTS", "panel.example:80"),
        ("CP_ALLOWED_HOSTS", "http://panel.example"),
        ("CORS_ORIGINS", "panel.example"),
        ("CORS_ORIGINS", "https://panel.example/"),
        ("CORS_ORIGINS", "https://*.example"),
        ("HOST", "http://localhost"),
        ("HOST", "a b"),
        ("SSE_MAX_STREAMS", "0"),
    ],
)
def test_a_value_of_the_server_that_is_ill_formed_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(errors.SettingsError, match=rf"^{name}: ") as raised:
        load(**{name: text})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("CORS_ORIGINS", "https://a.example, http://[::1]:*", "https://a.example,http://[::1]:*"),
        ("CORS_ORIGINS", "*", "*"),
        ("CP_ALLOWED_HOSTS", "Panel.example,[::1],*", "panel.example,::1,*"),
        ("IMPORT_ROOTS", "/a:/b", "/a:/b"),
        ("CP_ALLOW_NO_AUTH", "1", "1"),
        ("CP_API_KEYS", "0123456789abcdef:import+read", "***:read+import"),
        ("HOST", "::1", "::1"),
    ],
)
def test_values_of_the_server_are_shown_as_they_are_written(
    name: str, text: str, shown: str
) -> None:
    assert dict(load(**{name: text}).shown())[name] == shown


def test_the_page_of_the_command_line_lists_every_setting() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for setting in SETTINGS:
        assert f"| `{setting.name}` | {setting.meaning} |" in text
