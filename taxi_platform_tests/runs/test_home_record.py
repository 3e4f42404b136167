"""`home.json`: the versions that opened a home, told to an older one that comes after them."""

import json
from pathlib import Path

import pytest

from taxi_platform import __version__
from taxi_platform.doctor import examine
from taxi_platform.runs.home_record import FILE, HOME_FORMAT, REMEMBERED, check_home, record_version
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.months import Month
from taxi_platform.trips.stored_json import dump
from taxi_platform_tests.test_cli import taxi

NEWER = "99.1.0"


def store(home, home_format=HOME_FORMAT, versions=(NEWER,), **fields):
    home.mkdir(exist_ok=True)
    opened = [{"version": version, "time": "2030-01-01T00:00:00+00:00"} for version in versions]
    content = {"home_format": home_format, "opened": opened, **fields}
    (home / FILE).write_text(dump(content))


def versions(home):
    return [opening.version for opening in check_home(home).opened]


def test_a_home_names_the_version_that_opened_it_once():
    settings = load_settings()
    for _ in range(2):
        with open_instance(settings):
            pass
        assert versions(settings.home) == [__version__]
    stored = json.loads((settings.home / FILE).read_text())
    assert stored["home_format"] == HOME_FORMAT
    home = next(finding for finding in examine(settings, Month(2020, 4)) if finding.name == "home")
    assert f"last opened by taxi_platform {__version__}" in home.message


@pytest.mark.fault(130)
def test_a_rollback_is_noted_and_said_once(tmp_path, caplog):
    store(tmp_path, versions=("0.1.5", NEWER), color="yellow")  # an unknown field is ignored
    for _ in range(2):
        record_version(tmp_path)
    assert versions(tmp_path) == ["0.1.5", NEWER, __version__]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path} was last opened by taxi_platform {NEWER}; this is {__version__}.")


def test_an_older_version_that_opened_it_last_needs_no_word(tmp_path, caplog):
    store(tmp_path, versions=("0.1.5", "of long ago", "0.1.9"))
    record_version(tmp_path)
    store(tmp_path, versions=("of long ago",))
    record_version(tmp_path)
    assert versions(tmp_path) == ["of long ago", __version__]
    assert caplog.text == ""


def test_two_versions_that_take_turns_do_not_fill_the_file(tmp_path):
    store(tmp_path, versions=("0.1.5", __version__, "0.1.6") * 40)
    record_version(tmp_path)
    assert len(versions(tmp_path)) == REMEMBERED
    assert versions(tmp_path)[-2:] == ["0.1.6", __version__]


@pytest.mark.fault(130)
@pytest.mark.parametrize(
    "arguments",
    [("ingest", "green", "2020-04"), ("prune", "--apply")],
)
def test_a_home_that_only_a_newer_version_can_read_is_refused_by_every_command(tmp_path, arguments):
    home = tmp_path / "home"
    store(home, HOME_FORMAT + 1)
    before = (home / FILE).read_bytes()
    status, out, err = taxi(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(
        f"{home} was written by taxi_platform {NEWER}, whose homes taxi_platform {__version__} cannot"
    )
    assert "Upgrade taxi_platform, or restore the backup" in err
    assert [path.name for path in home.iterdir()] == [FILE]
    assert (home / FILE).read_bytes() == before


@pytest.mark.fault(130)
def test_the_doctor_calls_a_home_of_a_newer_version_wrong():
    settings = load_settings()
    store(settings.home, HOME_FORMAT + 1)
    (finding,) = [finding for finding in examine(settings, Month(2020, 4)) if not finding.ok]
    assert finding.name == "home"
    assert NEWER in finding.message
    with pytest.raises(UserError, match=NEWER), open_instance(settings):
        pass


@pytest.mark.fault(130)
def test_a_record_of_a_newer_format_is_refused_without_being_understood(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"format_version": 2, "anything": 5}))
    with pytest.raises(UserError, match="written by a newer taxi_platform"):
        check_home(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\0" * 90, b'{"home_format": "1"}', b'{"opened": [5]}']
)
def test_a_damaged_record_is_written_again(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    assert check_home(tmp_path).opened == ()
    record_version(tmp_path)
    assert versions(tmp_path) == [__version__]


def test_a_home_that_cannot_be_written_is_not_noted():
    record_version(Path("/proc/no-home"))
