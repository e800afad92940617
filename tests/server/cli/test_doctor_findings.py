"""What doctor finds, function by function."""

from pathlib import Path

from llmasos_server.doctor import check_sizes


def test_doctor_says_how_much_is_where(tmp_path: Path) -> None:
    """10-19: nobody could see that compiled components and environments fill the disk."""
    assert list(check_sizes(tmp_path / "missing")) == []
    for name, mebibytes in (("compiled", 3), ("environments", 5), ("small", 0)):
        (tmp_path / name / "inside").mkdir(parents=True)
        with (tmp_path / name / "inside" / "file").open("wb") as file:
            file.truncate(mebibytes << 20)
    (finding,) = check_sizes(tmp_path)
    assert str(finding.message) == "The home takes 8 MiB: environments 5, compiled 3."
