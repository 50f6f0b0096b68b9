"""Templates of network configurations: what Go's text/template makes of the same text."""

from __future__ import annotations

import json

import pytest

from podwright.network.template import BadTemplate, Value, render

VALUES: dict[str, Value] = {
    "PodCIDR": "10.1.0.0/16",
    "PodCIDRRanges": ["10.1.0.0/16", "fd00::/64"],
    "Routes": ["0.0.0.0/0", "::/0"],
    "None": [],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain } text { }}", "plain } text { }}"),
        ("{{.PodCIDR}}", "10.1.0.0/16"),
        ("{{ .PodCIDR }}|{{$.PodCIDR}}", "10.1.0.0/16|10.1.0.0/16"),
        ("{{.Routes}}", "[0.0.0.0/0 ::/0]"),
        ("{{range .Routes}}<{{.}}>{{end}}", "<0.0.0.0/0><::/0>"),
        (
            "{{range $route := .Routes}}<{{$route}}{{$.PodCIDR}}>{{end}}",
            "<0.0.0.0/010.1.0.0/16><::/010.1.0.0/16>",
        ),
        ("{{range $i, $r := .Routes}}{{if $i}}, {{end}}{{$i}}={{$r}}{{end}}", "0=0.0.0.0/0, 1=::/0"),
        ("{{range $i,$r:=.Routes}}{{if $i}},{{end}}{{$r}}{{end}}", "0.0.0.0/0,::/0"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{if .None}}a{{else if .PodCIDR}}b{{else}}c{{end}}d", "bd"),
        ("{{if .None}}a{{else if .None}}b{{else}}c{{end}}d", "cd"),
        ("{{if not .None}}{{len .Routes}}{{end}}", "2"),
        ("{{index .PodCIDRRanges 1}}", "fd00::/64"),
        ("{{if eq (len) 2}}", None),
        ('{{if ne .PodCIDR "x"}}other{{end}}', "other"),
        ('{{"}} \\" in a string"}}', '}} " in a string'),
        ("a  {{- .PodCIDR -}}\n  b", "a10.1.0.0/16b".replace("{{", "")),
        ("a {{- /* a comment */ -}} b", "ab"),
        ("a{{/* {{.Nothing}} is a field */}}b", None),
        ("{{range .Routes}}{{if .}}{{range $.Routes}}.{{end}}{{end}}{{end}}", "...."),
    ],
)
def test_rendering(template: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(BadTemplate):
            render(template, VALUES)
    else:
        assert render(template, VALUES) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("\n{{.Nothing}}", r"line 2: '.Nothing' is not known here; there are .PodCIDR, .PodCIDRRanges"),
        ("{{range .PodCIDR}}{{end}}", r"line 1: .PodCIDR is no list"),
        ("a\n{{if .PodCIDR}}\n", r"line 2: \{\{if\}\} has no \{\{end\}\}"),
        ("{{end}}", r"ends nothing"),
        ("{{else}}", r"belongs to no"),
        ("{{if .PodCIDR}}{{else}}{{else}}{{end}}", r"belongs to no"),
        ("{{.PodCIDR", r"line 1: a \{\{ has no \}\}"),
        ("{{}}", "empty"),
        ('{{template "x"}}', "not known"),
        ("{{.PodCIDR | printf}}", "not known"),
        ("{{index .Routes 9}}", "index .Routes 9"),
        ("{{$x}}", r"'\$x' is not known"),
        ("{{len}}", "len takes 1"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(template: str, words: str) -> None:
    with pytest.raises(BadTemplate, match=words):
        render(template, VALUES)


def test_a_bridge_for_two_families_as_templates_are_written() -> None:
    text = render(
        """{
  "cniVersion": "1.0.0", "name": "pods",
  "plugins": [{"type": "bridge", "ipam": {"type": "host-local",
    "ranges": [{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}],
    "routes": [{{range $i, $route := .Routes}}{{if $i}}, {{end}}{"dst": "{{$route}}"}{{end}}]
  }}]
}""",
        VALUES,
    )
    [plugin] = json.loads(text)["plugins"]
    assert plugin["ipam"] == {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
