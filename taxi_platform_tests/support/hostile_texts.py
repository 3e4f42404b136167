"""Texts that attack whoever shows them: what a published file may call its columns."""

EVIL = "evil.example"
"""Replace it by a host that listens, to see whether anybody calls."""

HOSTILE = {
    "image": f"![](http://{EVIL}/image.png)",
    "image with a space": f"![a b](http://{EVIL}/spaced.png 'c d')",
    "image by reference": f"![a][b]\n\n[b]: http://{EVIL}/reference.png",
    "link": f"[click](http://{EVIL}/link)",
    "autolink": f"<http://{EVIL}/autolink>",
    "bare link": f"http://{EVIL}/bare",
    "bare name": f"www.{EVIL}",
    "address": f"mail@{EVIL}",
    "html image": f'<img src="http://{EVIL}/html.png" onerror="window.injected=1">',
    "script": "<script>window.injected=1</script>",
    "end of an element": "</text></svg><h1>injected</h1>",
    "entity": "&lt;b&gt; &#60;b&#62;",
    "code": "`a` ``b`` ```c",
    "end of code": f"`` ` ![](http://{EVIL}/code.png) ` ``",
    "escaped": f"\\`![](http://{EVIL}/escaped.png)\\`",
    "emphasis": "*a* __b__ _c_ ~~d~~ (_e_)",
    "table": "a | b\n--|--\nc | d",
    "heading": "# a\n===",
    "mention": "<!channel> @everyone",
    "colour": "\x1b[31mred\x1b[0m \x9b31m",
    "title of the terminal": "\x1b]0;owned\x07",
    "link of the terminal": f"\x1b]8;;http://{EVIL}/osc\x1b\\text\x1b]8;;\x1b\\",
    "right to left": "\u202egnp.exe \u2066a\u2069 \u200fb\u200e",
    "invisible": "a\u200bb\u2060c\ufeffd\xad",
    "header of a mail": f"a\r\nBcc: victim@{EVIL}\r\n\r\nbody",
    "lines": "a\nb\vc\fd\x85e\u2028f\u2029g",
    "erased": "harmless\rowned \b\b\x7f",
    "nul": "a\0b",
    "half a character": "a\ud800b",
    "markup of the console": "[red]a[/] [/b] :smile: [link=http://evil.example]b[/link]",
    "very long": "x" * 100_000,
}
