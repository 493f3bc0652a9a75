"What the site is made of: processed notebooks, the renderer, README, llms.txt, the search."
import html, json, os, re, shutil
from urllib.parse import unquote
import pytest
from fontTools.ttLib import TTFont
from execnb.nbio import new_nb
from pandas import DataFrame
from browsing import PAGES, ROOT, findings, places_of, process, serve, site


def cells(path, kind="code"): return [c for c in site.read_nb(path).cells if c.cell_type == kind]
def prose(path): return "\n\n".join(c.source for c in cells(path, "markdown"))
def notebook(*cells): return new_nb([dict(cell_type=k, source=s, metadata={}, outputs=outs) for k, s, *outs in cells])
def shown(kind, text): return dict(output_type="display_data", data={kind: [text], "text/plain": ["<Figure>"]})
def in_order(parts, text): return re.search(".*".join(map(re.escape, parts.split(" … "))), text, flags=re.S)


def test_every_notebook_has_its_page(built):
    "In the sidebar, without a problem, in llms.txt with its subtitle, in the search, whose entries lead somewhere."
    assert sorted(PAGES) == sorted(path.name for path in site.NBS.glob("*.ipynb")) and built[1] == ""
    llms, search = ((built[0]/name).read_text(encoding="utf-8") for name in ("llms.txt", "search.js"))
    assert llms.startswith(f"# {site.get_config().title}\n\n> ")
    assert re.findall(r"(?m)^- \[.+\]\((\S+)\): .+", llms) == [*PAGES.values()]
    assert re.findall(r"(?m)^## (.+)", llms) == [part for part, _ in site.navigation()]
    entries = json.loads(search.removeprefix("window.mlclSearch = ").removesuffix(";\n"))
    assert {*PAGES.values()} <= {unquote(address) for address, *_ in entries} <= places_of(built[0])
    for _, _, heading, text in entries:
        assert not re.search(r"<[a-z]+[ >]|&[a-z]+;", heading) and not re.search(r"\\(frac|sum|log)\b", text)


def test_options_stand_once_and_outputs_call_for_no_script(built):
    "Quarto refuses an option twice, also one that nbdev writes; for HTML or JavaScript it loads from another host."
    made, source = ([c for name in PAGES for c in cells(folder/name)] for folder in (site.PROC, site.NBS))
    by_nbdev = set() if "add_fold" in site.get_config().get("skip_procs", "") else {"code-fold", "code-summary"}
    for text in [c.source for c in source]:
        keys = re.findall(r"(?m)^#\|\s*([\w-]+):", text)
        assert len(keys) == len({*keys}), text[:99]
        assert not re.search(r"(?m)^#\|\s*exports\b", text) or not by_nbdev & {*keys}, text[:99]
    assert site.options("#| fig-cap: >\n#|   two\n#|   lines\n#| b: 1\nx\n#y")[0] == {"fig-cap": "two lines\n", "b": 1}
    with pytest.raises(ValueError, match="code-fold"): site.options("#| code-fold: show\n#| code-fold: true\nx")
    assert sum(len(site.options(c.source)[0]) for c in made) > 500
    kinds = {kind for c in made for out in c.outputs for kind in out.get("data", {})}
    assert "text/markdown" in kinds and not [k for k in kinds if re.search("text/html|javascript|widget", k)]


def test_numbers_of_pages(built):
    "Each title begins with the number of its page, and who says 'notebook 46' or 'page 46' means one that there is."
    fronts, there = site.fronts_of(), {n[:2] for n in PAGES if n[:2].isdigit()}
    for name in PAGES:
        text = prose(site.PROC/name)
        assert not name[:2].isdigit() or fronts[name]["title"].startswith(f"{name[:2]} · "), name
        assert {*re.findall(r"\b(?:[Nn]otebooks?|[Pp]ages?) (\d\d)\b", text)} <= there, name
        links = re.findall(r"\[[^\]]*?\b(?:notebook|page)s? (\d\d)\]\((\d\d)_\w+\.ipynb", text)
        assert all(said == to for said, to in links), name


def test_symbols_of_all_pages_are_in_the_index(built):
    "Each row of a symbol table has its page in the index."
    index, found = prose(site.PROC/"symbols.ipynb").splitlines(), []
    for name in PAGES:
        tables = re.findall(r"(?m)^\| symbol \| variable .*\n\|[-| ]+\n((?:\|.*\n?)+)", prose(site.NBS/name))
        for row in [r for table in tables for r in table.splitlines() if not r.startswith("| |")]:
            meaning = re.split(r"(?<!\\)\| (?=[^|]*$)", row.rstrip("| "))[-1].strip()
            assert any(meaning in ln and f"[{name[:2]}]({name}" in ln for ln in index), (name, row)
        found += tables
    assert len(found) > 15


def test_two_renderings_are_the_same(built, tmp_path):
    "The same bytes from the same notebooks, in another process."
    fronts, places = site.fronts_of(), places_of(built[0])
    for name in [*PAGES][::8]: site.page(name, fronts, tmp_path)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        new, old = path.read_bytes(), (built[0]/path.relative_to(tmp_path)).read_bytes()
        assert (site.unlink(new.decode(), places, path.name).encode() if path.suffix == ".html" else new) == old


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


def test_the_font_has_what_the_formulas_need(built):
    "Every character, the slanted forms of single letters, and the measures by which braces and sums grow."
    font, used = TTFont(site.NBS/"math.woff"), set()
    for path in built[0].glob("*.html"):
        for formula in re.findall(r"<math.*?</math>", path.read_text(encoding="utf-8"), flags=re.S):
            used |= {*html.unescape(re.sub("<[^>]*>", "", formula))}
    slanted = [c + 0x1D434 - ord("A") for c in range(ord("A"), ord("Z") + 1)] + [*range(0x1D6FC, 0x1D715)]
    known = font.getBestCmap()
    assert len(used) > 100 and [c for c in used if ord(c) not in known and not c.isspace()] == []
    assert all(c in known for c in slanted) and font["MATH"].table.MathVariants.VertGlyphCount > 20
    assert "Open Font License" in font["name"].getDebugName(13)


def test_references_stand_once(built):
    "A page's own section holds the list; else Quarto adds a second section."
    for name, target in PAGES.items():
        source = "\n".join(c.source for c in site.read_nb(site.PROC/name).cells)
        own = re.search("(?m)^#+ References", source)
        assert bool(own) <= ("{#refs}" in source), name
        text = (built[0]/target).read_text(encoding="utf-8")
        assert len(re.findall(r">References</h\d>", text)) == int("csl-entry" in text or bool(own)), name


def test_tables_in_html_are_left_as_they_are(built):
    "Quarto would set a table anew, without what a script writes into it, and warns of one that has no cell."
    made = [c for name in PAGES for c in site.read_nb(site.PROC/name).cells]
    texts = [c.source for c in made if c.cell_type == "markdown"]
    texts += ["".join(o.get("data", {}).get("text/markdown", "")) for c in made for o in c.get("outputs", [])]
    tables = [t for text in texts for t in re.findall("<table.*?</table>", text, flags=re.S)]
    assert len(tables) > 50 and all(re.search('(?s)-disable-processing="true".*<t[dh]', t) for t in tables)


def test_titles_of_publications_hold_no_formulas():
    "Quarto adds the references after our filter, so a formula in one would keep its LaTeX."
    assert "$" not in (site.NBS/"references.bib").read_text(encoding="utf-8")


@pytest.mark.parametrize("body, says", [("exit 1", "old"), ("echo new > _site/index.html", "new\n")])
def test_a_build_that_fails_keeps_the_old_site(tmp_path, monkeypatch, body, says):
    "With a Quarto that stops, and with one that renders."
    proc, index, quarto = tmp_path/"_proc", tmp_path/"_site"/"index.html", tmp_path/"quarto"
    index.parent.mkdir()
    index.write_text("old")
    quarto.write_text(f"#!/bin/sh\nmkdir _site\n{body}\n")
    quarto.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(site, "PROC", proc), monkeypatch.setattr(site, "process", proc.mkdir)
    try: site.build(index.parent)
    except SystemExit: assert says == "old"
    assert index.read_text() == says and not (tmp_path/"_site.old").exists()


# The processors

FOLDED = '#| code-fold: true\n#| code-summary: "{}"\n{}'
PLOT, IMPORT = '#| fig-alt: "x"\nplot()', "import a\nfrom b import (c,\n    d)"
CLASS = "class A: pass\n@patch\ndef g(self: A): pass\ndef _h(): pass"


@pytest.mark.parametrize("source, becomes", [
    ("## Paint", "## Paint {#about-paint}"), ("## `paint`", "## `paint` {#about-paint}"), # they give way to its symbol
    (PLOT, FOLDED.format("Code of the figure", PLOT)), (IMPORT, FOLDED.format("Imports", IMPORT)),
    (f"#| exports\n{CLASS}", f"[A]{{#a .symbol}} [A.g]{{#a.g .symbol}} | {CLASS}"),
    ("#| hide\nf()", ""), ("#| export\nf()", ""), ("#| echo: false\nf()", "## A"), # as a part of the page
    *[(same, same) for same in ("## Paints", "## Paint {#x}", "plot()", "import a\nplot()",
                                f"#| label: tbl-a\n#| echo: false\n{PLOT}", f"#| code-fold: show\n{PLOT}")]])
def test_what_becomes_of_a_cell(tmp_path, source, becomes):
    "On a page that defines `paint`."
    start = ("markdown", "# T\n\n> S\n\nMore."), ("code", "#| exports\ndef paint(): pass")
    kind, output = "markdown" if source.startswith("##") else "code", shown("text/markdown", "## A")
    process.write_nb(notebook(*start, (kind, source, output)), tmp_path/"10_page.ipynb")
    found = [c.source for c in process.processed(tmp_path/"10_page.ipynb").cells]
    front = "---\ndescription: S\ntitle: 10 · T\n---\n"
    assert found[:4] == [front, "More.", "[paint]{#paint .symbol}", "def paint(): pass"]
    assert " | ".join(found[4:]) == becomes


def test_numbers_stand_to_the_right():
    rows = dict(x=["1", "2.5"], y=["−0.01 [−0.02, +0.01]", "–"], z=["1e-5", "12 %"], v=["bce", "1"], w=["1", "1 of 2"])
    html = process.aligned(DataFrame(rows).to_html())
    assert re.findall('class="number-cell">(.*?)<', html) == [*"xyz", *(rows[k][i] for i in (0, 1) for k in "xyz")]


def test_terms_are_marked_in_prose_only():
    text = "# An anchor\n\nThe `anchor` and $anchor$ of [the anchor](x.html), **{}** and anchors.\n\n" \
           "| anchor |\n|---|\n\n```\nanchor\n```"
    nb = notebook(("markdown", text.format("Anchors")), ("markdown", "anchor"), ("code", "anchor"))
    process.define(nb, [("anchors?", "term-anchor", "It's x.")])
    marked = text.format('[Anchors](06_glossary.ipynb#term-anchor "It\'s x."){.term}')
    assert [c.source for c in nb.cells] == [marked, "anchor", "anchor"]


def test_links_to_symbols():
    "Only where the anchor is; in 'no column `split`' the word is no function, except on its own page."
    words = "split", "read_out", "Claim", "a.b", "_g"
    places = {f"01.html#{word}" for word in words[:4]}
    text = "".join(f'<a href="01.html#{word}"><code>{word}</code></a>' for word in words)
    for page, kept in (("01.html", words[:4]), ("92.html", words[1:4])):
        assert (*re.findall('<a href="01.html#.*?"><code>(.*?)</code></a>', site.unlink(text, places, page)),) == kept


# Markdown and cells, by pandoc

def two(options, out):
    "The Markdown of a cell that calls `two` and has one output."
    (cell,) = notebook(("code", f"{options}\ntwo()", out)).cells
    process.as_markdown(cell)
    return site.code_cell(cell, "files", {})


PRINTED, DRAWN = dict(output_type="stream", text=["```four\n"]), shown("image/svg+xml", "<svg/>")
TABLE = shown("text/html", "<style scoped>x</style><table class='dataframe'><tr><td>7</td></tr></table>")
FIGURE = '#| label: fig-a\n#| fig-cap: "A *cap*: one"\n#| fig-alt: "an \\"alt\\" text"'


@pytest.mark.parametrize("text, there, gone", [
    ("See @eq-b.\n\n$$a$$ {#eq-a}\n\n$$\nb\n$$ {#eq-b}\n",
     '"#eq-b" class="ref">Equation (2)</a> … id="eq-a" … <math … (1) … id="eq-b" … <math … (2)', "annotation"),
    ("![A cap](a.svg){#fig-a alt='x'}\n\n|a|\n|-|\n|1|\n\n: Cap {#tbl-t}\n\n@fig-a, @tbl-t\n",
     'Figure 1:</span> A cap … Table 1:</span> Cap … ">Figure 1</a> … ">Table 1</a>', "{#"),
    ('::: {.callout-note title="Read"}\nBody.\n:::\n\n::: {.callout-tip}\n## Idea\nBody.\n:::\n',
     'class="callout callout-note" … Read … Body … class="callout callout-tip" … Idea … Body', "<h2"),
    (two("", PRINTED), "two() … ```four", "<details"),
    (two("#| echo: false", PRINTED), "four", "two()"), (two("#| output: false", PRINTED), "two()", "four"),
    (two("#| include: false", PRINTED), "", "two() … four"), (two("#| code-fold: show", PRINTED), "two()", "<details"),
    (two("#| code-fold: true", PRINTED), "<summary>Code</summary> … two() … </details> … four", "Look"),
    (two("#| code-fold: true\n#| code-summary: Look", PRINTED), "<summary>Look</summary>", ">Code<"),
    (two(FIGURE, DRAWN), '<figure id="fig-a" … alt="an &quot;alt&quot; text" … 1:</span> A <em>cap</em>: one', "&lt;"),
    (two("#| label: tbl-a\n#| tbl-cap: Sizes", TABLE), 'table-box … -cell">7< … Table 1:</span> Sizes', "scoped"),
    (two("", shown("text/latex", r"$\displaystyle \frac{a}{b}$")), '<math display="block" … <mfrac', "displaystyle"),
    (r"$$W_{ij}\log\sigma - \log(a) + \log_2 a$$",
     "</msub><mspace … >log</mi> … <mspace … σ … <mo>−</mo><mrow><mi … >log</mi> … <mo … (</mo> … "
     "<msub><mrow><mi … <mn>2",
     "annotation"),
    ("@eq-none", "problem … eq-none", "@"), ("$$a$$ {#eq-a}\n\n$$b$$ {#eq-a}", "problem … twice", "{#"),
    ("[@nobody1900]", "problem … nobody1900", "@"), (r"$\nosuch{$", "problem … TeX", "<math")])
def test_what_is_rendered(text, there, gone):
    "What is there stands in this order, and each formula once; what cannot be resolved is a problem."
    problems = []
    html = site.pandoc(text, problems, "--to=html5", "--mathml", "--wrap=none").replace("\u00a0", " ")
    assert in_order(there, " ".join([html, *(f"problem: {p}" for p in problems)]))
    assert bool(problems) == there.startswith("problem") and not any(part in html for part in gone.split(" … "))
    assert html.count("<math") == text.count("$$")/2


def test_readme_is_in_step():
    "And the three ways into the book name those of their pages that exist."
    files, problems = site.readme()
    text = files["README.md"].decode()
    assert not problems and all((ROOT/n).read_bytes() == data for n, data in files.items()), "run `make notebooks`"
    assert text.startswith("<!-- Made from nbs/index.ipynb") and all(name in text for name in files if "/" in name)
    assert not re.search(r"^:::|\{#|@(fig|eq|tbl)-|<div", text, flags=re.M)
    assert not [to for to in re.findall(r"\]\((?!https?:|#|mailto:)([^)]+)\)", text) if not (ROOT/to).exists()]
    printed = json.dumps([c.outputs for c in cells(site.NBS/"index.ipynb")])
    assert {"28", "29", "58", "90", "91", "92"} <= {*re.findall(r"\]\((\d\d)_\w+\.ipynb\)", printed)}


def test_readme_from_a_notebook(tmp_path):
    "Equations, references, code and its output become GitHub's Markdown; hidden cells go."
    text = "# A title\n\n> A subtitle\n\nKept.\n\n$$a$$ {#eq-a}\n\nBy @eq-a, [there](20_contrast.ipynb#x)."
    nb = notebook(("markdown", text), ("code", "#| hide\nsecret()"), ("code", "shown()", PRINTED))
    process.write_nb(nb, tmp_path/"index.ipynb")
    files, problems = site.readme(tmp_path/"index.ipynb")
    text = files["README.md"].decode().replace("\u00a0", " ")
    wanted = "# A title … > A subtitle … Kept. … \\tag{1} … By Equation (1) … (nbs/20_contrast.ipynb) … four"
    assert not problems and "secret" not in text and in_order(wanted, text)


@pytest.mark.skipif(not shutil.which("quarto"), reason="Quarto is not installed: its own pages are not looked at")
def test_quarto(browser, tmp_path):
    "Real Quarto renders every page, and they hold what ours hold."
    assert not site.build(tmp_path/"_site")
    home = serve(tmp_path/"_site")
    found = {page: findings(browser, home + page) for page in PAGES.values()}
    assert not {page: wrong for page, wrong in found.items() if wrong}
