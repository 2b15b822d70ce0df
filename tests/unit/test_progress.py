from hepipe import progress
from hepipe.progress import watched


def test_a_log_gets_a_line_now_and_then_with_rate_and_time_to_go(monkeypatch, capsys):
    now = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    assert list(watched("abcdef", "cut", total=10, unit="tile", start=4)) == list("abcdef")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cut: 6 of 10 tiles, 0.1 a second, 1:20 to go"
    assert lines[-1] == "cut: 10 of 10 tiles, 0.1 a second, 0:00 to go"


def test_a_short_job_leaves_no_line(capsys):
    assert list(watched(range(3), "cut", total=3, unit="tile")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_people_see_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(watched(range(3), "cut", total=3, unit="tile")) == [0, 1, 2]
    assert "cut: 100%" in capsys.readouterr().err
