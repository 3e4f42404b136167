"""A file is replaced whole or not at all, and nothing else is left."""

import pytest

from taxi_platform.trips.replacing import replacing


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_file_is_replaced_at_the_end_and_stays_as_it_was_if_that_is_not_reached(tmp_path, elsewhere):
    path, folder = tmp_path / "page.html", tmp_path / "work"
    folder.mkdir()
    for content in ("old", "new"):
        with replacing(path, folder if elsewhere else None) as temporary:
            temporary.write_text(content)
            assert temporary.parent == (folder if elsewhere else tmp_path)
    with pytest.raises(OSError, match="full"), replacing(path, folder if elsewhere else None) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert path.read_text() == "new"
    assert sorted(tmp_path.rglob("*")) == [path, folder]
