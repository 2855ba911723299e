"""What a run found around it is given back, and paths are shown as the user would type them."""

import os

from ga3c.surroundings import Surroundings, shown


def test_what_user_code_has_changed_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setenv("GA3C_TEST", "before")
    before = Surroundings.now()
    os.chdir(tmp_path)
    os.umask(0o777)
    os.environ["GA3C_TEST"] = "after"
    before.restore()
    assert Surroundings.now() == before
    assert before.variables["GA3C_TEST"] == "before"


def test_a_path_is_shown_relative_to_the_folder_where_the_run_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Surroundings.now()
    monkeypatch.chdir("/")
    assert shown(tmp_path / "runs" / "one") == "runs/one"
    assert shown(tmp_path.parent / "other") == str(tmp_path.parent / "other")
