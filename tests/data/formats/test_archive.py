"""Archives that lead outside, contain links, declare too much or are damaged are rejected before extraction."""

import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.data.formats import archive
from vision_transfer.data.formats.archive import opened_archive
from vision_transfer.errors import UserError

OUTSIDE = ["../evil", "a/../../evil", "/etc/evil", "C:\\evil", "..\\evil", "\\\\server\\evil", "a/..", "c:evil"]


def zipped(*members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


def tarred(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "archive"
        path.write_bytes(content)
        return path

    return write


def test_harmless_archives_open(written):
    with opened_archive(written(zipped(("a/b.txt", "hello"), ("a..b/...c", "")))) as file:
        assert file.read("a/b.txt") == b"hello"
    with opened_archive(written(tarred(("a/b.txt", b"hello", tarfile.REGTYPE), ("d", b"", tarfile.DIRTYPE)))) as file:
        assert file.read("a/b.txt") == b"hello"


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside(written, name):
    with pytest.raises(UserError, match="leads outside"), opened_archive(written(zipped(("good", ""), (name, "")))):
        pass
    with pytest.raises(UserError, match="leads outside"), opened_archive(written(tarred((name, b"", tarfile.REGTYPE)))):
        pass


def test_links(written):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UserError, match="link is a link"), opened_archive(written(zipped((link, "/etc/passwd")))):
        pass
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with pytest.raises(UserError, match="link or device"), opened_archive(written(tarred(("link", b"", kind)))):
            pass


def test_too_much(written, monkeypatch):
    content = zipped(("a", bytes(600)), ("b", bytes(600)))
    tar = tarred(("a", bytes(600), tarfile.REGTYPE), ("b", bytes(600), tarfile.REGTYPE))
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(UserError, match=r"2 members of 1,200 bytes"), opened_archive(written(content)):
        pass
    with pytest.raises(UserError, match=r"2 members of 1,200 bytes"), opened_archive(written(tar)):
        pass
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 10**6)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    with pytest.raises(UserError, match="2 members"), opened_archive(written(content)):
        pass


def test_no_archive(written):
    bad_sum = zipped(("a", "hello")).replace(b"hello", b"hallo")
    cut = tarred(("a", np.random.default_rng(0).bytes(10**5), tarfile.REGTYPE))[:50_000]
    for content in (b"", b"hello", zipped(("a", "b"))[:-30], bad_sum, cut):
        with pytest.raises(UserError, match="damaged"), opened_archive(written(content)) as file:
            file.read("a")


WHOLE = {"zip": zipped(("a", "hello"), ("b", bytes(50))), "tar": tarred(("a", b"hello", tarfile.REGTYPE))}


@given(st.sampled_from(sorted(WHOLE)), st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_archives_are_read_or_refused(tmp_path_factory, kind, data):
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.archive"
    path.write_bytes(content)
    try:
        with opened_archive(path) as file:
            contents = [file.read(name) for name in file.members]
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert len(contents) <= 2
