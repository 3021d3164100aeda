"""A new trace folder is private, new, and where nobody else can exchange it."""

import os
import stat

import pytest

from ringtape.recorder.folder import create_folder
from ringtape.schemas.errors import RecordingError


def refusal(path):
    with pytest.raises(RecordingError) as caught:
        create_folder(path)
    assert caught.value.hint
    return caught.value


def test_a_new_folder_is_the_owner_s_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        descriptor = create_folder(tmp_path / "run.trace")
    finally:
        os.umask(before)
    status = (tmp_path / "run.trace").stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert os.fstat(descriptor).st_ino == status.st_ino
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_name_without_a_folder_is_made_in_the_current_one(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    os.close(create_folder(Path("run.trace")))
    assert (tmp_path / "run.trace").is_dir()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_exists_is_never_overwritten(tmp_path, kind):
    path = tmp_path / "run.trace"
    path.touch() if kind == "file" else path.mkdir()
    assert f"{path} exists already" in refusal(path).what


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_symbolic_link_is_refused_whether_or_not_it_leads_anywhere(tmp_path, target):
    (tmp_path / "there").mkdir()
    path = tmp_path / "run.trace"
    path.symlink_to(tmp_path / target)
    assert f"{path} is a symbolic link" in refusal(path).what
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_parent_that_does_not_exist_is_named(tmp_path):
    error = refusal(tmp_path / "missing" / "run.trace")
    assert error.what == f"{tmp_path / 'missing'}: no such file or directory"
    assert "--output" in error.hint


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "run.trace").what == f"{tmp_path / 'file'}: not a directory"


def test_a_parent_in_which_others_may_rename_is_refused_with_the_command_that_mends_it(tmp_path):
    tmp_path.chmod(0o777)
    error = refusal(tmp_path / "run.trace")
    assert "mode 777" in error.what
    assert f"chmod o-w {tmp_path}" in error.hint
    assert list(tmp_path.iterdir()) == []


def test_a_sticky_parent_that_all_may_write_is_fine_as_tmp_is(tmp_path):
    tmp_path.chmod(0o1777)
    os.close(create_folder(tmp_path / "run.trace"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_may_not_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert "permission denied" in refusal(tmp_path / "run.trace").what


def test_a_folder_that_was_exchanged_while_it_was_made_is_refused(tmp_path, monkeypatch):
    genuine = os.mkdir

    def exchanged(path, mode=0o777, *, dir_fd=None):
        genuine(path, mode, dir_fd=dir_fd)
        os.chmod(path, 0o777, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", exchanged)
    assert "was replaced while it was made" in refusal(tmp_path / "run.trace").what
