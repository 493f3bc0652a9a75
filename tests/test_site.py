"What the site is made of: processed notebooks, the renderer, README, llms.txt, the search."
import json, os, re, shutil, urllib.parse
import pytest
from execnb.nbio import dict2nb
from browsing import PAGES, ROOT, anchors_of, page_of, process, served, site, violations, visit, visit_on_phone


def notebook(*cells):
    "A notebook of (type, source, outputs...)."
    def cell(kind, source, *outs): return dict(cell_type=kind, source=source, metadata={}, outputs=[*map(dict, outs)])
    return dict2nb(dict(cells=[cell(*c) for c in cells], metadata={}, nbformat=4, nbformat_minor=5))


def code(source, *outs): return notebook(("code", source, *outs)).cells[0]


def cells(name): return json.loads((site.PROC/name).read_text(encoding="utf-8"))["cells"]
def prose(name): return "\n".join("".join(c["source"]) for c in cells(name) if c["cell_type"] == "markdown")


# The processed notebooks, as both renderers read them

def test_build_reports_no_problem(built):
    assert built[1] == ""


def test_sidebar_lists_every_notebook():
    assert sorted(PAGES) == sorted(p.name for p in site.NBS.glob("*.ipynb"))


def test_options_stand_once_and_outputs_call_for_no_script(built):
    "Quarto refuses an option twice; for HTML or JavaScript it loads scripts from another host."
    all_cells = [c for name in PAGES for c in cells(name) if c["cell_type"] == "code"]
    assert sum(len(site.options("".join(c["source"]))[0]) for c in all_cells) > 500
    kinds = {k for c in all_cells for o in c["outputs"] for k in o.get("data", {})}
    assert "text/markdown" in kinds and not kinds & {"text/html", "application/javascript"}
    assert not any("widget" in k for k in kinds)


@pytest.mark.parametrize("path", sorted(site.NBS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_directives_of_the_source(path):
    "No option twice, and none that nbdev itself writes above a cell that it shows, unless settings.ini forbids it to."
    written = set() if "add_fold" in site.get_config().get("skip_procs", "") else {"code-fold", "code-summary"}
    for c in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(c["source"])
        keys = re.findall(r"(?m)^#\|\s*([\w-]+):", source)
        assert len(keys) == len({*keys}), source[:99]
        if re.search(r"(?m)^#\|\s*exports\b", source): assert not written & {*keys}, source[:99]


def test_numbers_of_pages(built):
    "Each title begins with the number of its page, and who says 'notebook 46' or 'page 46' means one that there is."
    fronts, there = site.fronts_of(), {n[:2] for n in PAGES if n[:2].isdigit()}
    for name in PAGES:
        assert not name[:2].isdigit() or fronts[name]["title"].startswith(f"{name[:2]} · ")
        assert {*re.findall(r"\b(?:[Nn]otebooks?|[Pp]ages?) (\d\d)\b", prose(name))} <= there, name
        links = re.findall(r"\[[^\]]*?\b(?:notebook|page)s? (\d\d)\]\((\d\d)_\w+\.ipynb", prose(name))
        assert all(said == to for said, to in links), name


def test_symbols_of_all_pages_are_in_the_index(built):
    "Each row of a symbol table has its page in the index."
    index, tables = prose("05_symbols.ipynb").splitlines(), 0
    for name in PAGES:
        for table in re.findall(r"(?m)^\| symbol \| variable .*\n\|[-| ]+\n((?:\|.*\n?)+)", prose_of_source(name)):
            tables += 1
            for row in [r for r in table.splitlines() if not r.startswith("| |")]:
                meaning = re.split(r"(?<!\\)\| (?=[^|]*$)", row.rstrip("| "))[-1].strip()
                assert any(meaning in ln and f"[{name[:2]}]({name}" in ln for ln in index), (name, row)
    assert tables > 15


def prose_of_source(name):
    nb = json.loads((site.NBS/name).read_text(encoding="utf-8"))
    return "\n\n".join("".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "markdown")


def test_llms_txt(built):
    "Title, summary, and each page with its subtitle, under its subject."
    text = (built[0]/"llms.txt").read_text(encoding="utf-8")
    assert text.startswith(f"# {site.get_config().title}\n\n> ")
    assert re.findall(r"(?m)^- \[.+\]\((\S+)\): .+", text) == [*map(page_of, PAGES)]
    assert re.findall(r"(?m)^## (.+)", text) == [part for part, _ in site.navigation()]


def test_every_entry_of_the_search_has_its_place(built):
    "No entry leads nowhere, none holds markup or LaTeX."
    text = (built[0]/"search.js").read_text(encoding="utf-8")
    entries = json.loads(text.removeprefix("window.mlclSearch = ").removesuffix(";\n"))
    anchors = anchors_of(built[0])
    assert {e[0].split("#")[0] for e in entries} == {*map(page_of, PAGES)}
    for address, _, heading, text in entries:
        path, _, anchor = urllib.parse.unquote(address).partition("#")
        assert not anchor or anchor in anchors[path]
        assert not re.search(r"<[a-z]+[ >]|&[a-z]+;", heading) and not re.search(r"\\(frac|sum|log)\b", text)


def test_two_renderings_are_the_same(built, tmp_path):
    "The same bytes from the same notebooks, in another process."
    fronts, anchors = site.fronts_of(), anchors_of(built[0])
    for name in PAGES[::8]:
        site.page(name, fronts, tmp_path)
        for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
            new, old = path.read_bytes(), (built[0]/path.relative_to(tmp_path)).read_bytes()
            assert (site.unlink(new.decode(), anchors, path.name).encode() if path.suffix == ".html" else new) == old


def test_no_other_host():
    "Style, script and icon name none; the addresses that the site gives are those of settings.ini."
    for path in [p for p in site.NBS.iterdir() if p.suffix in (".css", ".scss", ".js", ".svg")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@import|https?://(?!www\.w3\.org)", text), path.name
        assert path.suffix != ".scss" or "$web-font-path: false" in text
    cfg, web = site.get_config(), site.yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))["website"]
    assert web["site-url"] == f"{cfg.doc_host}{cfg.doc_baseurl}"
    assert web["repo-url"] == cfg.git_url == web["sidebar"]["tools"][0]["href"]
    assert (site.NBS/web["favicon"]).exists() and cfg.doc_path.name == "_site"


@pytest.mark.parametrize("body, says", [("exit 1", "old"), ("echo new > _site/index.html", "new\n")])
def test_a_build_that_fails_keeps_the_old_site(tmp_path, monkeypatch, body, says):
    "With a Quarto that stops, and with one that renders."
    proc, out, bin = tmp_path/"_proc", tmp_path/"_site", tmp_path/"bin"
    for d in (out, bin): d.mkdir()
    (out/"index.html").write_text("old")
    monkeypatch.setattr(site, "PROC", proc), monkeypatch.setattr(site, "process", proc.mkdir)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    (bin/"quarto").write_text(f"#!/bin/sh\nmkdir _site\n{body}\n")
    (bin/"quarto").chmod(0o755)
    try: site.build(out)
    except SystemExit: assert says == "old"
    assert (out/"index.html").read_text() == says and not (tmp_path/"_site.old").exists()


# The processors

PRINTED = dict(output_type="execute_result", metadata={}, data={"text/markdown": "## A"})
FOLDED = '#| code-fold: true\n#| code-summary: "{}"\n{}'
PLOT, IMPORT = '#| fig-alt: "x"\nplot()', "import a\nfrom b import (c,\n    d)"
CLASS = "class A: pass\n@patch\ndef g(self: A): pass\ndef _h(): pass"


@pytest.mark.parametrize("kind, source, becomes", [
    ("markdown", "## Paint", ["## Paint {#about-paint}"]), # it gives way to the symbol of its name
    ("markdown", "## `paint`", ["## `paint` {#about-paint}"]),
    ("markdown", "## Paints", None), ("markdown", "## Paint {#x}", None),
    ("code", PLOT, [FOLDED.format("Code of the figure", PLOT)]), ("code", IMPORT, [FOLDED.format("Imports", IMPORT)]),
    ("code", "plot()", None), ("code", "import a\nplot()", None),
    ("code", f"#| label: tbl-a\n#| echo: false\n{PLOT}", None),
    ("code", f"#| code-fold: show\n{PLOT}", None), ("code", "#| echo: false\nf()", ["## A"]), # as a part of the page
    ("code", f"#| exports\n{CLASS}", ["[A]{#a .symbol} [A.g]{#a.g .symbol}", CLASS]),
    ("code", "#| hide\nf()", []), ("code", "#| export\nf()", [])])
def test_what_becomes_of_a_cell(tmp_path, kind, source, becomes):
    "On a page that defines `paint`; None: it stays as it is."
    path = tmp_path/"10_page.ipynb"
    start = ("markdown", "# T\n\n> S\n\nMore."), ("code", "#| exports\ndef paint(): pass")
    process.write_nb(notebook(*start, (kind, source, PRINTED)), path)
    found = [c.source for c in process.processed(path).cells]
    front = "---\ndescription: S\ntitle: 10 · T\n---\n"
    assert found[:4] == [front, "More.", "[paint]{#paint .symbol}", "def paint(): pass"]
    assert found[4:] == ([source] if becomes is None else becomes)


def test_two_equal_options_are_refused():
    assert site.options("#| fig-cap: >\n#|   two\n#|   lines\n#| b: 1\nx\n#y")[0] == {"fig-cap": "two lines\n", "b": 1}
    with pytest.raises(ValueError, match="code-fold"): site.options("#| code-fold: show\n#| code-fold: true\nx")


@pytest.mark.parametrize("column, number", [
    ("1|2.5", True), ("−0.01 [−0.02, +0.01]|–", True), ("1e-5|12 %", True), ("bce|1", False), ("1|1 of 2", False)])
def test_numbers_stand_to_the_right(column, number):
    rows = "".join(f"<tr><th>r</th><td>{c}</td></tr>" for c in column.split("|"))
    html = process.aligned(f"<table><thead><tr><th></th><th>x</th></tr></thead><tbody>{rows}</tbody></table>")
    assert html.count('class="number-cell"') == 3*number


def test_terms_are_marked_in_prose_only():
    text = "# An anchor\n\nThe `anchor` and $anchor$ of [the anchor](x.html), **Anchors** and anchors.\n\n" \
           "| anchor |\n|---|\n\n```\nanchor\n```"
    nb = notebook(("markdown", text), ("markdown", "anchor"), ("code", "anchor"))
    process.define(nb, [("anchors?", "term-anchor", "It's x.")])
    marked = text.replace("**Anchors**", '**[Anchors](06_glossary.ipynb#term-anchor "It\'s x."){.term}**')
    assert [c.source for c in nb.cells] == [marked, "anchor", "anchor"]


@pytest.mark.parametrize("page, word, kept", [("01", "split", True), ("92", "split", False), ("92", "read_out", True),
                                              ("92", "Claim", True), ("92", "a.b", True), ("92", "_g", False)])
def test_links_to_symbols(page, word, kept):
    "Only where the anchor is; in 'no column `split`' the word is no function, except on its own page."
    link, anchors = f'<a href="01.html#{word}"><code>{word}</code></a>', {"split", "read_out", "Claim", "a.b"}
    assert (site.unlink(link, {"01.html": anchors}, f"{page}.html") == link) == kept


# One page by pandoc

def render(text):
    "HTML and problems of a piece of Markdown."
    problems = []
    out = site.pandoc(text, problems, "--to=html5", "--mathml", "--wrap=none")
    return out.replace("\u00a0", " "), problems


def test_equations_are_numbered_in_order():
    out, problems = render("See @eq-b.\n\n$$a$$ {#eq-a}\n\n$$\nb\n$$ {#eq-b}\n")
    assert not problems and '<a href="#eq-b" class="ref">Equation (2)</a>' in out and out.count("<math") == 2
    assert out.index('id="eq-a"') < out.index("(1)") < out.index('id="eq-b"') and "annotation" not in out


def test_figures_and_tables_are_referenced():
    out, problems = render("![A cap](a.svg){#fig-a alt='x'}\n\n|a|\n|-|\n|1|\n\n: Cap {#tbl-t}\n\n@fig-a, @tbl-t\n")
    wanted = ['">Figure 1</a>', '">Table 1</a>', "Figure 1:</span> A cap", "Table 1:</span> Cap"]
    assert not problems and "{#" not in out and all(text in out for text in wanted)


@pytest.mark.parametrize("text, says", [("@eq-none", "eq-none"), ("$$a$$ {#eq-a}\n\n$$b$$ {#eq-a}", "twice"),
                                        ("[@nobody1900]", "nobody1900"), (r"$\nosuch{$", "TeX")])
def test_what_cannot_be_resolved_is_a_problem(text, says):
    assert any(says in p for p in render(text)[1])


def test_callouts():
    out, _ = render('::: {.callout-note title="Read"}\nBody.\n:::\n\n::: {.callout-tip}\n## Idea\nBody.\n:::\n')
    assert 'class="callout callout-note"' in out and "Read" in out.split("Body")[0]
    assert 'class="callout callout-tip"' in out and "Idea" in out and "<h2" not in out


def cell(source, *outs):
    "HTML of a cell, without the marks of its highlighting."
    one = code(source, *outs)
    process.as_markdown(one)
    return re.sub("</?(span|a)[^>]*>", "", render(site.code_cell(one, "files", {}) + "\n\n@fig-a @tbl-a")[0])


STREAM = dict(output_type="stream", name="stdout", text=["```four\n"])
SVG = dict(output_type="display_data", metadata={}, data={"image/svg+xml": ["<svg/>"], "text/plain": ["<Figure>"]})
TABLE = ["<style scoped>x</style><table class='dataframe'><tr><td>7</td></tr></table>"]
FRAME = dict(output_type="execute_result", metadata={}, data={"text/html": TABLE, "text/plain": ["7"]})
FIGURE = '#| label: fig-a\n#| fig-cap: "A *cap*: one"\n#| fig-alt: "an \\"alt\\" text"\n'


@pytest.mark.parametrize("options, out, there, gone", [
    ("", STREAM, ["two()", "```four"], ["<details"]),
    ("#| echo: false\n", STREAM, ["four"], ["two()"]),
    ("#| output: false\n", STREAM, ["two()"], ["four"]),
    ("#| include: false\n", STREAM, [], ["two()", "four"]),
    ("#| code-fold: show\n", STREAM, ["two()"], ["<details"]),
    ("#| code-fold: true\n", STREAM, ["<summary>Code</summary>", "two()", "four"], []),
    ("#| code-fold: true\n#| code-summary: Look\n", STREAM, ["<summary>Look</summary>"], []),
    (FIGURE, SVG, ['<figure id="fig-a"', 'alt="an &quot;alt&quot; text"', "1: A <em>cap</em>: one"], ["&lt;Figure"]),
    ("#| label: tbl-a\n#| tbl-cap: Sizes\n", FRAME, ['"number-cell">7<', "Table 1: Sizes", "table-box"], ["scoped"])])
def test_cells(options, out, there, gone):
    html = cell(options + "two()", out)
    assert all(t in html for t in there) and not any(t in html for t in gone)


# README.md

def test_readme_is_in_step():
    files, problems = site.readme()
    text = files["README.md"].decode()
    assert not problems and all((ROOT/n).read_bytes() == data for n, data in files.items()), "run `make notebooks`"
    assert text.startswith("<!-- Made from nbs/index.ipynb") and all(name in text for name in files if "/" in name)
    assert not re.search(r"^:::|\{#|@(fig|eq|tbl)-|<div", text, flags=re.M)
    assert not [to for to in re.findall(r"\]\((?!https?:|#|mailto:)([^)]+)\)", text) if not (ROOT/to).exists()]


def test_readme_from_a_notebook(tmp_path):
    "Equations, references, code and its output become GitHub's Markdown; hidden cells go."
    text = "# A title\n\n> A subtitle\n\nKept.\n\n$$a$$ {#eq-a}\n\nBy @eq-a, [there](20_contrast.ipynb#x)."
    nb = notebook(("markdown", text), ("code", "#| hide\nsecret()"), ("code", "shown()", STREAM))
    process.write_nb(nb, tmp_path/"index.ipynb")
    files, problems = site.readme(tmp_path/"index.ipynb")
    text = files["README.md"].decode().replace("\u00a0", " ")
    wanted = ["# A title", "> A subtitle", "Kept.", "\\tag{1}", "By Equation (1)", "(nbs/20_contrast.ipynb)", "four"]
    assert not problems and "secret" not in text and all(part in text for part in wanted)


def test_home_page_leads_to_every_path():
    "The three ways into the book name those of their pages that exist."
    nb = json.loads((site.NBS/"index.ipynb").read_text(encoding="utf-8"))
    shown = json.dumps([o for c in nb["cells"] for o in c.get("outputs", [])])
    there = [n for n in PAGES if n[:2] in ("28", "29", "90", "91", "92", "58")]
    assert len(there) == 6 and all(f"]({n})" in shown for n in there), "execute nbs/index.ipynb again"


# Real Quarto, where it is installed

@pytest.mark.skipif(not shutil.which("quarto"), reason="Quarto is not installed: its own pages are not looked at")
def test_quarto(browser, tmp_path):
    "Real Quarto renders every page, and they hold what ours hold."
    assert not site.build(tmp_path/"_site")
    found = {}
    with served(tmp_path/"_site") as home:
        for name in PAGES:
            page = visit(browser, home + page_of(name))
            own = {"quarto-bootstrap", "quarto-text-highlighting-styles"} # each of its two themes has one
            page["wrong"]["ids twice"] = [i for i in page["wrong"]["ids twice"] if i not in own]
            page["wrong"] |= {"desk": violations(browser)} | visit_on_phone(browser)
            found[name] = page["wrong"] | {"phone": violations(browser)}
    assert not {(n, what, str(w)) for n, wrong in found.items() for what, w in wrong.items() if w}
