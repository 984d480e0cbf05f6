"""Records of large JSON files, wherever a chunk ends."""

from __future__ import annotations

import json

import pytest

from data_partition import json_records
from data_partition.files import DataError
from data_partition.json_records import records

TOLD = {
    "info": {"year": 2017, "text": 'a "quoted" ] } , text'},
    "number": -12345.5e3,
    "empty": [],
    "images": [{"id": 1, "list": [[1, 2], []]}, {"id": 22, "name": "é \\u00e9 \\"}],
    "numbers": [123456, 7, 89],
    "none": None,
}
FLAT = [(key, one) for key, value in TOLD.items() for one in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_records_do_not_depend_on_where_a_chunk_ends(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    path = tmp_path / "file.json"
    path.write_text(json.dumps(TOLD, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert list(records(path)) == FLAT
    path.write_text(f" {json.dumps(TOLD['numbers'], indent=indent)}\n", encoding="utf-8")
    assert list(records(path)) == [("", 123456), ("", 7), ("", 89)]
    path.write_text("{}")
    assert list(records(path)) == []


def test_bytes_that_are_no_utf8_are_latin_1(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes('["café", "naïve"]'.encode("latin-1"))
    assert [one for _, one in records(path)] == ["café", "naïve"]
    path.write_bytes(b"\xef\xbb\xbf" + '["café"]'.encode())
    assert [one for _, one in records(path)] == ["café"]


@pytest.mark.parametrize("content", ["", "[", "[1, 2", '{"a": [1, {"b": 2}', '{"a" 1}', "[1 2]", "12", '{"a": [1], }'])
def test_what_is_not_whole_is_refused(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"file\.json is not whole JSON .*fetch or unpack it again"):
        list(records(path))


def test_a_damaged_record_is_not_sought_in_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "CHUNK", 10)
    monkeypatch.setattr(json_records, "LARGEST", 50)
    path = tmp_path / "file.json"
    path.write_text('[{"a": nul, "b": "' + "x" * 10_000 + '"}]')
    read = []
    more = json_records._Reader.more
    monkeypatch.setattr(json_records._Reader, "more", lambda self: read.append(1) or more(self))
    with pytest.raises(DataError, match="not whole"):
        list(records(path))
    assert len(read) < 10
