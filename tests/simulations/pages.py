"""Run folders made by hand, their reports, and a page taken apart."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from config import flatten, parse, to_toml
from simulations import report

VOID = ("meta",)
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\ud800"


class Page(HTMLParser):
    """A page taken apart: its tables as rows of texts, all text, all attributes; a tag that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.attributes, self.tables, self.classes = [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])
            self.classes.append(dict(attributes).get("class"))
        elif name in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, *headings):
        (found,) = [one for one in self.tables if one[0][: len(headings)] == list(headings)]
        return found[1:]


def made(tmp_path, events=(), results=None, **manifest):
    """Write a run folder by hand."""
    path = tmp_path / "made"
    path.mkdir()
    told = {"name": "made", "strategy": "shared-fedavg", "status": "completed", "seed": 0, **manifest}
    (path / "manifest.json").write_text(json.dumps(told))
    (path / "config.toml").write_text(to_toml(flatten(parse({"run.name": "made"}))))
    if events:
        (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if results is not None:
        (path / "results.json").write_text(json.dumps(results))
    return path


def shown(path, whole=True):
    """Write the report and take it apart: XML too, no script, nothing from elsewhere, every section made if ``whole``."""
    text = report.write(path).read_text(encoding="utf-8")
    page = Page(text)
    assert ("do not give this section" not in page.text) == whole
    ElementTree.fromstring(text.removeprefix("<!doctype html>"))
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "a", "use", "image"} & set(page.names)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href", "style") or name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for reference in ("http:", "https:", "url(", "@import", "//"):
        assert reference not in style
    return page


def sections(page):
    known = ("Run", "Settings", "Result", "Transfer", "Curves", "Streams of tasks", "Continual learning", "Byte ledger")
    return [name for name in (*known, "Warnings and refused replies") if re.search(rf"^{name}$", page.text, re.MULTILINE)]


def message(arm, kind, round_, client, down, up, seconds):
    where = {"event": "message", "arm": arm, "type": kind, "round": round_, "client": client}
    return {**where, "bytes_down": down, "bytes_up": up, "framing_down": 10_000, "framing_up": 20_000, "seconds": seconds}


def validated(arm, client, round_, value, **fields):
    where = {"event": "evaluate", "arm": arm, "client": client, "round": round_, "split": "val"}
    return {**where, "balanced_accuracy": value, **fields}
