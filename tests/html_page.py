"""What a page for a browser must be: one well-formed file that runs and loads nothing."""

import re
from html.parser import HTMLParser

# What someone might type to get out of any place of a page in which it could stand.
HOSTILE = (
    """</p></title></style><script>alert(1)</script>"><img src=x onerror=alert(1)>"""
    """' onload='alert(1) <!-- ]]> &lt;b&gt; {{ 7 * 7 }} {% raw %} {# a """
)


class Page(HTMLParser):
    """Tags with their attributes, and the text; holds closing tags to their opening ones."""

    VOID = ("meta", "br", "input", "link")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = source
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}

    def stands_alone(self) -> None:
        """Well-formed, no script, nothing loaded from anywhere, light and dark."""
        assert self.open == []
        assert not self.names & {"script", "link", "img", "iframe"}
        named = {name for _, attributes in self.tags for name in attributes}
        assert not [name for name in named if name in ("src", "href") or name.startswith("on")]
        assert not re.search(r"https?://|url\(|@import", self.source)
        assert "default-src 'none'" in self.source
        assert "prefers-color-scheme: dark" in self.source
