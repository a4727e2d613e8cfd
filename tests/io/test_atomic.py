"""Files and directories appear complete or not at all."""

import gzip
import json

import pytest

from m3jax.io.atomic import new_directory, new_file, replace_file, write_json


def test_a_file_is_whole_or_not_there(tmp_path):
    with replace_file(tmp_path / "deep" / "file") as stream:
        stream.write("whole")
    with pytest.raises(KeyboardInterrupt), replace_file(tmp_path / "deep" / "file") as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert (tmp_path / "deep" / "file").read_text() == "whole"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_a_new_directory_appears_complete_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "deep" / "out") as scratch:
        (scratch / "file").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "deep").iterdir()) == []
    with new_directory(tmp_path / "deep" / "out") as scratch:
        (scratch / "file").write_text("first")
        assert not (tmp_path / "deep" / "out").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert (tmp_path / "deep" / "out" / "file").read_text() == "first"


def test_a_directory_with_files_is_replaced_on_request_only(tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty directory is no obstacle
    with new_directory(out) as scratch:
        (scratch / "old").write_text("old")
    with pytest.raises(FileExistsError, match="out already exists"), new_directory(out):
        pytest.fail("the block must not run")
    with pytest.raises(OSError, match="disk full"), new_directory(out, replace=True) as scratch:
        (scratch / "new").write_text("half")
        raise OSError("disk full")
    assert [path.name for path in out.iterdir()] == ["old"]
    with new_directory(out, replace=True) as scratch:
        (scratch / "new").write_text("new")
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), new_directory(tmp_path / "file", replace=True):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_new_file_appears_complete_or_not_at_all(tmp_path, suffix):
    path = tmp_path / "deep" / f"lines.jsonl{suffix}"
    with pytest.raises(KeyboardInterrupt), new_file(path) as write:
        write("half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    for text in ("first é\n", "second\n"):
        with new_file(path, replace=True) as write:
            write(text)
        data = path.read_bytes()
        if suffix == ".gz":
            data = gzip.decompress(data)
        if suffix == ".zst":
            zstandard = pytest.importorskip("zstandard")
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        assert data.decode() == text
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="already exists"), new_file(path):
        pytest.fail("the block must not run")
    with pytest.raises(OSError, match="disk full"), new_file(path, replace=True) as write:
        write("half")
        raise OSError("disk full")
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "values.json"
    write_json(path, {"b": 1, "a": [2.5, "é"]}, indent=1, sort_keys=True)
    before = path.read_text(encoding="utf-8")
    assert json.loads(before) == {"a": [2.5, "é"], "b": 1} and before.endswith("}\n")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text(encoding="utf-8") == before and list(tmp_path.iterdir()) == [path]
