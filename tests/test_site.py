"The site: every page opened in a headless browser, and the renderer's own functions without one."
import functools, http.server, importlib.resources, importlib.util, itertools, json, os, re, shutil, subprocess, sys, threading, urllib.parse, warnings
from pathlib import Path
import pytest, torch
from mlcl.losses.contrast import Block, contrast
from mlcl.losses.reg import reg_weight
from mlcl.plots import LOSS_STYLE, PALETTE

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("mlcl_site", ROOT/"tools"/"site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)

CHROME = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
DRIVER = shutil.which("chromedriver")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
           --disable-component-update --disable-sync --hide-scrollbars""".split()
PAGES = [n for _, names in site.navigation() for n in names]


# What Quarto refuses or would fetch from elsewhere, in the processed notebooks: no browser and no Quarto needed

def processed():
    "Each processed notebook as (name, cells)."
    for name in PAGES: yield name, json.loads((site.PROC/name).read_text(encoding="utf-8"))["cells"]


def test_every_option_stands_once(built):
    "Quarto's YAML refuses a key twice; a lenient loader would keep the last in silence."
    seen = 0
    for name, cells in processed():
        for c in cells:
            if c["cell_type"] == "code": seen += len(site.options("".join(c["source"]))[0])
    assert seen > 500


@pytest.mark.parametrize("source, want", [
    ("#| code-fold: show\n#| code-summary: \"Exported source\"\n#| code-fold: true\nx = 1", "#| code-summary: \"Exported source\"\n#| code-fold: true\nx = 1"),
    ("#| label: a\n#| fig-cap: >\n#|   two\n#|   lines\n#| label: b\n\nx", "#| fig-cap: >\n#|   two\n#|   lines\n#| label: b\n\nx"),
    ("x = 1\n#| label: no option", "x = 1\n#| label: no option"), ("", "")])
def test_the_last_of_two_equal_options_counts(source, want):
    assert site.once(source) == want
    site.options(site.once(source))


def test_two_equal_options_are_refused():
    with pytest.raises(site.yaml.YAMLError, match="code-fold"): site.options("#| code-fold: show\n#| code-fold: true\nx")


def test_no_output_calls_for_scripts(built):
    "For an output of HTML or JavaScript Quarto loads jquery and require.js from another host."
    kinds = {k for _, cells in processed() for c in cells for o in c.get("outputs", []) for k in o.get("data", {})}
    assert "text/markdown" in kinds and not kinds & {"text/html", "application/javascript", "application/vnd.jupyter.widget-view+json"}


def test_style_and_script_name_no_other_host():
    texts = {p.name: p.read_text(encoding="utf-8") for p in site.NBS.iterdir() if p.suffix in (".css", ".scss", ".js", ".svg")}
    assert len(texts) >= 4 and all("$web-font-path: false" in t for n, t in texts.items() if n.endswith(".scss"))
    assert not [n for n, t in texts.items() if re.search(r"@import|https?://(?!www\.w3\.org)", t)]


def test_addresses_agree_with_settings():
    "The site names the repository and its own address as settings.ini does."
    cfg, web = site.get_config(), site.yaml.load((ROOT/"_quarto.yml").read_text(encoding="utf-8"), site.Strict)["website"]
    assert web["site-url"] == f"{cfg.doc_host}{cfg.doc_baseurl}" and web["repo-url"] == cfg.git_url == web["sidebar"]["tools"][0]["href"]
    assert (site.NBS/web["favicon"]).exists() and cfg.doc_path.name == "_site"


def test_numbers_of_pages(built):
    "Each title begins with the number of its page, and who says 'notebook 46' or 'page 46' means one that there is."
    there = {n[:2] for n in PAGES if n[:2].isdigit()}
    for name, cells in processed():
        if name[:2].isdigit(): assert site.front_of(name)["title"].startswith(f"{name[:2]} · ")
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        for said in re.findall(r"\b(?:[Nn]otebooks?|[Pp]ages?) (\d\d)\b", text): assert said in there, f"{name} speaks of page {said}"
        for said, to in re.findall(r"\[[^\]]*?\b(?:notebook|page)s? (\d\d)\]\((\d\d)_\w+\.ipynb", text): assert said == to, f"{name}: page {said} leads to {to}"


def test_a_build_that_fails_keeps_the_old_site(tmp_path, monkeypatch):
    "With a Quarto that stops, and with one that renders."
    proc, out, bin = tmp_path/"_proc", tmp_path/"_site", tmp_path/"bin"
    for d in (proc, out, bin): d.mkdir()
    (out/"index.html").write_text("old")
    monkeypatch.setattr(site, "PROC", proc), monkeypatch.setattr(site, "process", lambda partial: None)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    quarto = bin/"quarto"
    for body, says in (("exit 1", "old"), ("echo new > _site/index.html", "new\n")):
        quarto.write_text(f"#!/bin/sh\nmkdir _site\n{body}\n")
        quarto.chmod(0o755)
        try: site.build(out)
        except SystemExit: assert says == "old"
        assert (out/"index.html").read_text() == says and not (tmp_path/"_site.old").exists()


@pytest.mark.parametrize("heading, want", [("## Load", "## Load {#about-load}"), ("## [`load`](a.html#load)", "## [`load`](a.html#load) {#about-load}"),
                                           ("## Loads", "## Loads"), ("## Load {#x}", "## Load {#x}")])
def test_a_heading_gives_way_to_a_symbol(heading, want):
    from execnb.nbio import mk_cell
    assert site.apart([mk_cell(heading, "markdown"), mk_cell("[load]{#load .symbol}", "markdown")])[0].source == want


def test_headings_that_a_cell_prints_belong_to_the_page():
    from execnb.nbio import dict2nb
    out = dict(output_type="execute_result", metadata={}, data={"text/markdown": "## A"})
    def spoken(source):
        return site.spoken(dict2nb(dict(cells=[dict(cell_type="code", source=source, outputs=[out], metadata={})], metadata={})).cells[0])
    kinds = [[c.cell_type for c in spoken(s)] for s in ("#| echo: false\nf()", "f()", "#| echo: false\n#| label: tbl-a\nf()")]
    assert kinds == [["markdown"], ["code"], ["code"]]


@pytest.mark.parametrize("cells, number", [(["1", "2.5"], True), (["−0.01 [−0.02, +0.01]", "–"], True), (["1e-5", "12 %"], True), (["bce", "1"], False), (["1 of 2"], False)])
def test_numbers_stand_to_the_right(cells, number):
    html = site.aligned("<table><thead><tr><th></th><th>x</th></tr></thead><tbody>" + "".join(f"<tr><th>r</th><td>{c}</td></tr>" for c in cells) + "</tbody></table>")
    assert html.count('class="number-cell"') == (1 + len(cells) if number else 0)


# In the browser

@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "The site in a fresh folder, and the problems that its build reported."
    out = tmp_path_factory.mktemp("site")/"_site"
    run = subprocess.run([sys.executable, ROOT/"tools"/"site.py", "--plain", "--out", out], capture_output=True, text=True)
    return out, run


@pytest.fixture(scope="session")
def address(built):
    "Serve the site on a free port of this machine."
    if not (built[0]/"index.html").exists(): pytest.fail("the site was not built: see test_build_reports_no_problem", pytrace=False)
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=built[0]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    "A headless Chromium that keeps the messages of its console."
    if not (CHROME and DRIVER):
        if os.environ.get("CI") == "true": pytest.fail("chromium and chromedriver must be installed where CI=true")
        warnings.warn("THE BROWSER TESTS OF THE SITE DID NOT RUN: chromium and chromedriver were not found")
        pytest.skip("no chromium and chromedriver")
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]: options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def size(browser, width):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(width=width, height=844, deviceScaleFactor=1, mobile=width < 500))


def target(name): return site.front_of(name)["output-file"]


LOOK = """
const all = (s) => [...document.querySelectorAll(s)], main = document.querySelector('main'), text = main.cloneNode(true);
text.querySelectorAll('pre, code, script, annotation').forEach(e => e.remove());
const ids = all('[id]').map(e => e.id);
return {title: document.title, lang: document.documentElement.lang, h1: all('h1').length, text: text.textContent,
  links: all('a[href]').map(a => a.href), ids, twice: ids.filter((x, i) => ids.indexOf(x) !== i),
  wide: all('main pre.sourceCode').filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 80)),
  annotated: all('annotation').length, headings: all('main > h2, main > section > h2').length, toc: all('.toc a, #TOC a').length,
  broken: all('img').filter(i => !i.complete || !i.naturalWidth).map(i => i.src), mute: all('img').filter(i => !i.alt.trim()).map(i => i.src),
  math: all('math').length, unset: all('span.math, merror').map(e => e.textContent),
  lists: all('main p').map(p => p.textContent).filter(t => /\\n(-|\\d+\\.) /.test(t)),
  pages: all('nav.pages a').map(a => a.getAttribute('href')), next: all('a[rel=next]').length, prev: all('a[rel=prev]').length}
"""


@functools.cache
def looked(browser, address, page):
    "What a visitor of the page finds."
    size(browser, 1280)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(address + page)
    browser.execute_async_script("Promise.allSettled([...document.images].map(i => i.decode())).then(arguments[0])")
    sent = [json.loads(m["message"])["message"] for m in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    outside = [u for u in asked if not u.startswith((address, "data:", "blob:"))]
    return browser.execute_script(LOOK) | {"asked": asked, "outside": outside, "console": [m["message"] for m in browser.get_log("browser") if m["level"] in ("SEVERE", "WARNING")]}


def test_build_reports_no_problem(built):
    assert built[1].returncode == 0, built[1].stderr[-3000:]


@pytest.mark.parametrize("name", PAGES)
def test_page(browser, address, name):
    "Title, one heading, pictures that load and have alt text, formulas as MathML, no leftover markup, nothing from another host, no id twice."
    page = looked(browser, address, target(name))
    assert page["title"] and page["lang"] == "en" and page["h1"] == 1 and page["toc"] >= page["headings"]
    assert not page["console"] and not page["outside"] and not page["twice"] and not page["wide"] and not page["annotated"]
    assert address + target(name) in page["asked"], "the requests are seen"
    assert not page["broken"] and not page["mute"] and not page["unset"]
    assert not page["lists"], "a list needs an empty line before it"
    left = re.findall(r".{0,40}(?:\$\$|\\\(|@eq-|@fig-|@tbl-|@sec-|:::|\{#|\[@).{0,40}", page["text"])
    assert not left, f"unrendered markup: {left}"
    source = json.dumps([c["source"] for c in json.loads((site.PROC/name).read_text())["cells"] if c["cell_type"] == "markdown"])
    assert page["math"] or "$$" not in source


@pytest.mark.parametrize("name", PAGES)
def test_navigation(browser, address, name):
    "Every page lists all pages and leads to its neighbours; every link and anchor inside the site resolves."
    page, i = looked(browser, address, target(name)), PAGES.index(name)
    assert page["pages"] == [target(n) for n in PAGES] and sum(f"notebooks/{name}" in link for link in page["links"]) == 1
    assert page["prev"] == (i > 0) and page["next"] == (i + 1 < len(PAGES))
    for link in page["links"]:
        if not link.startswith(address): continue
        path, _, anchor = urllib.parse.unquote(link.removeprefix(address)).partition("#")
        if path.startswith("notebooks/"): assert path == f"notebooks/{name}"; continue
        assert path in page["pages"], f"link to {path}, which is no page"
        assert not anchor or anchor in looked(browser, address, path)["ids"], f"no anchor {anchor} on {path}"


@pytest.mark.parametrize("name", PAGES)
def test_phone(browser, address, name):
    "No horizontal scroll of the page at 390 px."
    size(browser, 390)
    browser.get(address + target(name))
    wide = browser.execute_script("""const w = innerWidth; return document.documentElement.scrollWidth <= w ? [] :
        [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > w).slice(0, 3).map(e => e.outerHTML.slice(0, 120))""")
    assert not wide


def test_turning_pages(browser, address):
    "From the first page to the last by its next links, and one page back."
    size(browser, 1280)
    browser.get(address)
    for name in PAGES[1:]:
        browser.execute_script("document.querySelector('a[rel=next]').click()")
        assert browser.current_url.endswith("/" + target(name))
    browser.execute_script("document.querySelector('a[rel=prev]').click()")
    assert browser.current_url.endswith("/" + target(PAGES[-2]))


@pytest.mark.skipif(not shutil.which("quarto"), reason="Quarto is not installed: its own pages are not looked at")
def test_quarto(browser, tmp_path):
    "Real Quarto renders every page; none asks another host, scrolls sideways on a phone or has an id twice."
    out = tmp_path/"_site"
    assert not site.build(out)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=out))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    for name in PAGES:
        page = looked(browser, home, target(name))
        assert not page["outside"] and not page["wide"] and not page["annotated"] and {i for i in page["twice"]} <= {"quarto-bootstrap", "quarto-text-highlighting-styles"}, name
        size(browser, 390)
        browser.get(home + target(name))
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), name
    server.shutdown()


# Without a browser

def render(text):
    "HTML and problems of a piece of Markdown."
    problems = []
    return site.pandoc(text, problems, "--to=html5", "--mathml", "--wrap=none"), problems


def test_equations_are_numbered_in_order():
    out, problems = render("See @eq-b.\n\n$$a$$ {#eq-a}\n\n$$\nb\n$$ {#eq-b}\n")
    assert not problems and '<a href="#eq-b" class="ref">Equation (2)</a>' in out.replace("\u00a0", " ")
    assert out.count("<math") == 2 and out.index('id="eq-a"') < out.index("(1)") < out.index('id="eq-b"')


def test_figures_tables_and_sections_are_referenced():
    out, problems = render("![A cap](a.svg){#fig-a alt='x'}\n\n## A part {#sec-p}\n\n| a |\n|---|\n| 1 |\n\n: Cap {#tbl-t}\n\n@fig-a, @tbl-t, @sec-p, -@fig-a\n")
    out = out.replace("\u00a0", " ")
    assert not problems and "{#" not in out
    for text in ['">Figure 1</a>', '">Table 1</a>', '">A part</a>', '">1</a>', 'Figure 1:</span> A cap', 'Table 1:</span> Cap']: assert text in out


@pytest.mark.parametrize("text, says", [("@eq-none", "eq-none"), ("$$a$$ {#eq-a}\n\n$$b$$ {#eq-a}", "twice"), ("[@nobody1900]", "nobody1900"), (r"$\nosuch{$", "TeX")])
def test_what_cannot_be_resolved_is_a_problem(text, says):
    assert any(says in p for p in render(text)[1])


def test_callouts():
    out, _ = render('::: {.callout-note title="Read *this*"}\nBody @eq-a.\n\n$$a$$ {#eq-a}\n:::\n\n::: {.callout-tip collapse="true"}\n## Solution\nHidden.\n:::\n')
    assert 'class="callout callout-note"' in out and "Read *this*" not in out.split("Body")[1]
    assert '<details class="callout callout-tip"><summary>Solution</summary>' in out and "<h2" not in out and "Equation" in out


def cell(source, *outputs):
    from execnb.nbio import dict2nb
    nb = dict2nb(dict(cells=[dict(cell_type="code", source=source, outputs=list(map(dict, outputs)), metadata={})], metadata={}))
    problems = []
    for out in nb.cells[0].outputs:
        if "data" in out: site.as_markdown(out)
    return site.markdown(nb, lambda label, data, ext: f"files/{label}.{ext}", problems)[1], problems


STREAM = dict(output_type="stream", name="stdout", text=["four\n"])
SVG = dict(output_type="display_data", metadata={}, data={"image/svg+xml": ["<svg/>"], "text/plain": ["<Figure>"]})
FRAME = dict(output_type="execute_result", metadata={}, data={"text/html": ["<style scoped>x</style><table><tr><td>7</td></tr></table>"], "text/plain": ["7"]})


@pytest.mark.parametrize("options, there, gone", [
    ("", ["two()", "four"], ["<details"]), ("#| echo: false\n", ["four"], ["two()"]), ("#| output: false\n", ["two()"], ["four"]),
    ("#| include: false\n", [], ["two()", "four"]), ("#| code-fold: true\n", ["<details", "two()", "four"], []),
    ("#| code-fold: true\n#| code-summary: Look\n", ["<summary>Look</summary>"], []), ("#| code-fold: show\n", ["two()"], ["<details"])])
def test_cell_options(options, there, gone):
    out = re.sub("</?(span|a)[^>]*>", "", render(cell(options + "two()", STREAM)[0])[0])
    assert all(t in out for t in there) and not any(t in out for t in gone)


def test_figure_of_a_cell():
    text, problems = cell('#| label: fig-a\n#| fig-cap: "A *cap*: one"\n#| fig-alt: "an \\"alt\\" text"\nplot()', SVG)
    out = render(text + "\n\nSee @fig-a.")[0].replace("\u00a0", " ")
    assert not problems and '<figure id="fig-a"' in out and 'alt="an &quot;alt&quot; text"' in out
    assert "Figure 1:</span> A <em>cap</em>: one" in out and '">Figure 1</a>' in out and "&lt;Figure" not in out
    assert cell("plot()", SVG)[1], "a figure without alt text is a problem"


def test_table_of_a_cell():
    out = render(cell("#| label: tbl-a\n#| tbl-cap: Sizes\nframe", FRAME)[0])[0].replace("\u00a0", " ")
    assert '<td class="number-cell">7</td>' in out and "scoped" not in out and "Table 1:</span> Sizes" in out and "table-box" in out


def test_output_with_backticks():
    assert "```inside" in render(cell("x", dict(STREAM, text=["```inside\n"]))[0])[0]


def test_a_label_stands_for_the_documentation_of_a_shown_source():
    doc = dict(output_type="execute_result", metadata={}, data={"text/markdown": "---\n\n[source](https://x)\n\n### f\n\nDoc"})
    from execnb.nbio import mk_cell
    cells = [mk_cell("show_doc(A.g)"), mk_cell('#| code-summary: "Exported source"\ndef f(): pass\n@patch\ndef g(self: A): pass'), mk_cell("show_doc(f)"),
             mk_cell("1 + 1"), mk_cell("show_doc(hidden)", outputs=[doc])]
    out = [c.source for c in site.label_sources(cells)]
    assert out[0] == "[f]{#f .symbol} [A.g]{#a.g .symbol}" and out[1].endswith("pass") and out[2:] == ["1 + 1", "show_doc(hidden)"]


def test_links_to_symbols_without_anchor_are_dropped():
    from execnb.nbio import mk_cell
    nb = type("nb", (), {"cells": [mk_cell("[`f`](a.html#f) [`_g`](a.html#_g) [text](b.html#x)", "markdown")]})
    assert site.unlink(nb, {"a.html": {"f"}}, "a").cells[0].source == "[`f`](a.html#f) `_g` [text](b.html#x)"


@pytest.mark.parametrize("page, word, kept", [("01", "split", True), ("92", "split", False), ("92", "read_out", True), ("92", "Claim", True), ("92", "a.b", True)])
def test_a_plain_word_is_a_link_on_its_own_page_only(page, word, kept):
    "In 'no column `split`' the word is no function."
    from execnb.nbio import mk_cell
    nb = type("nb", (), {"cells": [mk_cell(f"a [`{word}`](01.html#{word})", "markdown")]})
    assert site.unlink(nb, {"01.html": {word}}, page).cells[0].source == (f"a [`{word}`](01.html#{word})" if kept else f"a `{word}`")


def test_readme_is_in_step():
    text, pictures, problems = site.readme()
    assert not problems and (ROOT/"README.md").read_text(encoding="utf-8") == text, "run `python tools/site.py readme`"
    for name, data in pictures.items(): assert (ROOT/name).read_bytes() == data and name in text
    assert text.startswith("<!-- Made from nbs/index.ipynb") and not re.search(r"^:::|\{#|@(fig|eq|tbl)-|<div", text, flags=re.M)
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)]+)\)", text): assert (ROOT/link).exists(), f"README links to {link}"


def test_readme_from_a_notebook(tmp_path):
    "Callouts, references and tables become GitHub's Markdown; hidden cells go; a changed notebook is noticed."
    cells = [("markdown", "# A title\n\n> A subtitle\n\nKept text."), ("markdown", '::: {.callout-tip title="T"}\nBody\n:::\n\n$$a$$ {#eq-a}\n\nBy @eq-a, [there](20_contrast.ipynb#x).'),
             ("code", "#| hide\nsecret()"), ("code", "shown()")]
    nb = dict(nbformat=4, nbformat_minor=5, metadata={}, cells=[
        dict(cell_type=t, id=str(i), metadata={}, source=s, **(dict(outputs=[STREAM], execution_count=None) if t == "code" else {})) for i, (t, s) in enumerate(cells)])
    path = tmp_path/"index.ipynb"
    path.write_text(json.dumps(nb))
    text, _, problems = site.readme(path)
    assert not problems and "secret" not in text
    for part in ["# A title", "> A subtitle", "Kept text.", "> [!TIP]", "By Equation (1)".replace(" (", "\u00a0("), "(nbs/20_contrast.ipynb)", "``` python\nshown()", "``` text\nfour"]:
        assert part in text
    path.write_text(json.dumps(nb).replace("Kept", "Changed"))
    assert site.readme(path)[0] != text


def test_two_renderings_are_the_same(built, tmp_path):
    "The same bytes from the same notebooks."
    again = tmp_path/"again"
    site.render(again), site.finish(again)
    files = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert files == {p.relative_to(built[0]): p.read_bytes() for p in built[0].rglob("*") if p.is_file()}


# The interactive figure of the gradient page: sliders move it, and its numbers are the package's

F64 = torch.float64
SLIDERS = ["fp-tau", "fp-overlap", "fp-npos", "fp-near", "fp-far"]


@pytest.fixture
def page(browser, address):
    size(browser, 1280)
    browser.get(address + target("28_gradients.ipynb"))
    return browser


def expected(tau, overlap, n_pos, near, far):
    "Forces on the watched reference, on another positive and on a negative, from the gradient of the core in units of weight."
    sets = torch.zeros(1 + n_pos + 10, 5, dtype=F64)
    sets[0, : round(4 * overlap)], sets[1 : n_pos + 1, :4], sets[n_pos + 1 :, 4] = 1, 1, 1
    anchor = Block(torch.eye(1, 12 + n_pos, dtype=F64), torch.tensor([[1.0, 1, 1, 1, 0]], dtype=F64))
    out = {}
    for name, gate in (("wreg", False), ("reg", True)):
        s = torch.tensor([near] + [far] * n_pos + [0.0] * 10, dtype=F64)
        v = torch.cat([s[:, None], (1 - s**2).sqrt()[:, None] * torch.eye(len(s), dtype=F64)], 1).requires_grad_()
        me = [torch.tensor([-1])]
        value = contrast([anchor], [Block(v, sets)], reg_weight, temperature=tau, me=me, drop_repulsion=gate)
        (g,) = torch.autograd.grad(value, v)
        # v has length 1 and s = v[0]: the gradient by v is F (e₀ − s v), whose first entry is F (1 − s²)
        out[name] = (-tau * g[:, 0] / (1 - s**2))[[0, 1, -1]].tolist()
    w = reg_weight(anchor.labels, [sets], torch.tensor([-1]))[0][0]
    return out | dict(sigma=(s / tau).softmax(0)[[0, 1, -1]].tolist(), weight=w[[0, 1, -1]].tolist())


@pytest.mark.parametrize("tau, overlap, n_pos, near, far", list(itertools.product([0.05, 0.3, 1.0], [0.0, 0.25, 1.0], [1, 6, 30], [0.9], [0.6])) + [(0.3, 0.5, 4, -0.5, 0.8)])
def test_the_model_is_the_package(page, tau, overlap, n_pos, near, far):
    got = page.execute_script("return window.mlclForces(...arguments)", tau, overlap, n_pos, near, far)
    for k, v in expected(tau, overlap, n_pos, near, far).items():
        assert got[k] == pytest.approx(v, abs=1e-9), k
    assert sum(c * f for c, f in zip(got["count"], got["wreg"])) == pytest.approx(0, abs=1e-12)


def test_defaults_of_the_last_two(page):
    assert page.execute_script("return window.mlclForces(.3, .25, 6)") == page.execute_script("return window.mlclForces(.3, .25, 6, .9, .6)")


def state(page):
    return page.execute_script("""return {svg: ['fp-wreg', 'fp-reg'].map(i => document.getElementById(i).innerHTML),
        alt: ['fp-wreg', 'fp-reg'].map(i => document.getElementById(i).getAttribute('aria-label')),
        says: document.getElementById('fp-says').textContent, rows: [...document.querySelectorAll('#fp-rows tr')].map(r => [...r.children].map(c => c.textContent))}""")


@pytest.mark.parametrize("slider", SLIDERS)
def test_a_key_moves_a_slider_and_the_figure(page, slider):
    from selenium.webdriver.common.keys import Keys

    element, before = page.find_element("id", slider), state(page)
    shown = page.find_element("id", slider + "-value").text
    element.send_keys(Keys.ARROW_LEFT)
    after = state(page)
    assert page.find_element("id", slider + "-value").text != shown
    assert after["svg"][0] != before["svg"][0] and after["alt"][0] != before["alt"][0] and after["rows"] != before["rows"]
    assert element.get_attribute("aria-label") and page.find_element("css selector", f"label[for={slider}]").text


def test_what_it_says(page):
    "A near positive: pushed by WREG, left alone by REG; without a common label both push. The table holds the numbers of the model."
    s = state(page)
    assert "WREG pushes it away" in s["says"] and "REG leaves it" in s["says"]
    r = page.execute_script("return window.mlclForces(.3, .25, 6)")
    assert s["rows"][0][1:] == [f"{x:.2f}".replace("-", "−") for x in (r["sigma"][0], r["weight"][0], r["wreg"][0], r["reg"][0])]
    assert s["rows"][3][3] == "0.00" and float(s["rows"][3][4]) > 0
    page.execute_script("const e = document.getElementById('fp-overlap'); e.value = 0; e.dispatchEvent(new Event('input'))")
    assert "both losses push it" in state(page)["says"]


def test_colours_are_those_of_the_plots(page):
    html = page.find_element("id", "forces-play").get_attribute("outerHTML")
    assert all(f"'{PALETTE[c]}'" in html for c in ("blue", "red", "grey"))


def test_it_fits_a_phone(page):
    size(page, 390)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


# What makes the pages a book: theme, search, copy buttons, terms, paper, and readers who do not see or point

AXE = (importlib.resources.files("selenium_axe_python")/"axe-core"/"axe.min.js").read_text(encoding="utf-8")


def violations(browser):
    "What axe-core calls serious or critical, as (rule, places)."
    browser.execute_script(AXE)
    browser.set_script_timeout(120)
    found = browser.execute_async_script("axe.run().then(r => arguments[0](r.violations))")
    return [(v["id"], [n["html"][:150] for n in v["nodes"][:3]]) for v in found if v["impact"] in ("serious", "critical")]


def choose(browser, theme):
    browser.execute_script("localStorage.setItem('mlcl-theme', arguments[0])", theme)


@pytest.fixture
def home(browser, address):
    "The home page of a reader who has not chosen a theme."
    size(browser, 1280)
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.get(address)
    yield browser
    browser.execute_script("localStorage.clear()")


@pytest.mark.parametrize("name", PAGES)
def test_accessible(browser, address, name):
    "axe-core finds nothing serious, on a desk in the light and on a phone in the dark."
    for theme, width in (("light", 1280), ("dark", 390)):
        size(browser, width)
        browser.get(address + target(name))
        choose(browser, theme)
        browser.refresh()
        assert violations(browser) == [], theme
    browser.execute_script("localStorage.clear()")


def test_axe_finds_what_is_wrong(home):
    home.execute_script("document.querySelector('main p').style.color = '#ccc'; document.querySelector('main img').removeAttribute('alt')")
    assert {"color-contrast", "image-alt"} <= {rule for rule, _ in violations(home)}


def colours(browser):
    return browser.execute_script("return ['body', 'main p', 'main pre'].map(s => { const c = getComputedStyle(document.querySelector(s)); return [c.color, c.backgroundColor] })")


def test_theme_switch_is_remembered(home, address):
    def label(): return home.find_element("css selector", ".theme").get_attribute("aria-label")
    light = colours(home)
    assert label() == "Switch to the dark theme"
    home.find_element("css selector", ".theme").click()
    dark = colours(home)
    assert all(a != b for a, b in zip(light[0], dark[0])) and label() == "Switch to the light theme"
    home.get(address + target("28_gradients.ipynb"))
    assert colours(home)[0] == dark[0]
    home.find_element("css selector", ".theme").click()
    home.refresh()
    assert colours(home)[0] == light[0]


def test_theme_follows_the_system_until_chosen(home):
    def system(value):
        home.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=[dict(name="prefers-color-scheme", value=value)]))
        return home.execute_async_script("setTimeout(() => arguments[0](document.documentElement.dataset.theme), 200)")
    assert [system("dark"), system("light")] == ["dark", "light"]
    choose(home, "light")
    assert system("dark") == "light"
    system("")


def ask(browser, text):
    "Open the search by its key, type, and return the addresses and texts of what is found."
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    browser.find_element("css selector", "body").send_keys("/")
    box = browser.find_element("css selector", "dialog.search input")
    box.clear()
    box.send_keys(text)
    WebDriverWait(browser, 10).until(lambda b: b.execute_script("return document.querySelector('dialog.search .says').textContent"))
    found = browser.execute_script("return [...document.querySelectorAll('dialog.search li a')].map(a => [a.getAttribute('href'), a.textContent])")
    return found, box, Keys


@pytest.mark.parametrize("text, first", [("RegLoss", "27_reg.html#regloss"), ("Symbols", "05_symbols.html"), ("interval over seeds", "46_stats.html")])
def test_search(home, text, first):
    found, _, _ = ask(home, text)
    assert found[0][0] == first and all(home.execute_script("return mlclSearch.some(e => e[0] === arguments[0])", a) for a, _ in found)


def test_search_by_keys(home):
    found, box, keys = ask(home, "stop-gradient")
    assert len(found) > 2 and any("<mark" in a.get_attribute("innerHTML") for a in home.find_elements("css selector", "dialog.search li a"))
    box.send_keys(keys.ARROW_DOWN)
    home.switch_to.active_element.send_keys(keys.ARROW_DOWN)
    assert home.switch_to.active_element.get_attribute("href").endswith(found[1][0])
    home.switch_to.active_element.send_keys(keys.ENTER)
    assert home.current_url.endswith(found[1][0])


def test_search_says_when_nothing_is_found(home):
    found, box, keys = ask(home, "qqqxyz")
    assert not found and "Nothing found" in home.find_element("css selector", "dialog.search .says").text
    box.send_keys(keys.ESCAPE)
    assert not home.execute_script("return document.querySelector('dialog.search').open")


def test_search_without_a_server(browser, built, address):
    browser.get((built[0]/"index.html").as_uri())
    assert ask(browser, "RegLoss")[0][0][0] == "27_reg.html#regloss"
    browser.get(address)


def test_every_entry_of_the_search_has_its_place(built, browser, address):
    browser.get(address)
    entries = json.loads((built[0]/"search.js").read_text(encoding="utf-8").removeprefix("window.mlclSearch = ").removesuffix(";\n"))
    assert {e[0].split("#")[0] for e in entries} == {target(n) for n in PAGES}
    for path, _, anchor in (e[0].partition("#") for e in entries): assert not anchor or anchor in looked(browser, address, path)["ids"], (path, anchor)
    assert not any(re.search("<[a-z]+[ >]|&[a-z]+;", h) for _, _, h, _ in entries)


def test_copy_button(home):
    home.execute_cdp_cmd("Browser.grantPermissions", dict(permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]))
    button, code = home.execute_script("const b = document.querySelector('main .code-copy-button'); return [b, b.parentElement.querySelector('pre').textContent.trimEnd()]")
    home.execute_script("arguments[0].click()", button)
    assert home.execute_async_script("setTimeout(() => navigator.clipboard.readText().then(arguments[0]), 200)") == code and button.text == "Copied"
    assert home.execute_script("return [...document.querySelectorAll('main pre:not(.output)')].every(p => p.parentElement.querySelector('.code-copy-button'))")


def test_code_of_figures_is_folded(browser, address):
    browser.get(address + target("20_contrast.ipynb"))
    opened = "return [...document.querySelectorAll('details.code-fold')].map(d => d.open)"
    assert browser.execute_script(opened) and not any(browser.execute_script(opened))
    for want in (True, False):
        browser.execute_script("[...document.querySelectorAll('.tools button')].find(b => b.textContent.endsWith('code')).click()")
        assert set(browser.execute_script(opened)) == {want}


def test_skip_link(home):
    from selenium.webdriver.common.keys import Keys

    home.find_element("css selector", "body").send_keys(Keys.TAB)
    assert home.switch_to.active_element.get_attribute("class") == "skip" and home.switch_to.active_element.rect["x"] >= 0
    home.switch_to.active_element.send_keys(Keys.ENTER)
    home.switch_to.active_element.send_keys(Keys.TAB)
    assert home.execute_script("return document.querySelector('main').contains(document.activeElement)")


@pytest.mark.parametrize("name", PAGES)
def test_print(browser, address, name):
    "On paper: no navigation, dark on white, nothing wider than the sheet."
    size(browser, 718)
    browser.get(address + target(name))
    choose(browser, "dark")
    browser.refresh()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(media="print"))
    seen = browser.execute_script("""return {shown: ['.top', '.pages', '.toc', '.turn', '.code-copy-button'].filter(s => document.querySelector(s)?.offsetParent),
        wide: document.documentElement.scrollWidth > innerWidth, ink: getComputedStyle(document.body).color}""")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(media=""))
    browser.execute_script("localStorage.clear()")
    assert seen == dict(shown=[], wide=False, ink="rgb(0, 0, 0)")


def test_terms_lead_to_the_glossary(browser, address):
    "The first use of a term shows its sentence, on hover and by a link; a term is marked once a page."
    browser.get(address + target("20_contrast.ipynb"))
    terms = browser.execute_script("return [...document.querySelectorAll('a.term')].map(a => [a.textContent, a.title, a.getAttribute('href')])")
    assert len(terms) > 5 and len({t[2] for t in terms}) == len(terms) and all(t[1].endswith(".") for t in terms)
    assert ["anchor", "The instance, or prototype, whose loss is computed.", "06_glossary.html#term-anchor"] in terms
    browser.get(address + target("06_glossary.ipynb"))
    assert not browser.find_elements("css selector", "a.term") and len(browser.find_elements("css selector", "dt")) == len(browser.find_elements("css selector", "dd"))


# The explorer: its rows are the leaderboard, its filters filter

@pytest.fixture
def explorer(browser, address):
    size(browser, 1280)
    browser.get(address + target("58_explorer.ipynb"))
    return browser


def test_rows_of_the_explorer_are_the_leaderboard(explorer):
    "For each study, metric and readout, from the records that the page holds: the same rows, means and intervals."
    from mlcl.stats import leaderboard
    from mlcl.study import find, store_of

    held = explorer.execute_script("return {sets: mlclExplorer.data.sets, rows: ['macro_f1', 'map'].map(m => mlclExplorer.rows({metric: m})), runs: mlclExplorer.data.runs}")
    seen, runs = 0, {r for rs in held["runs"].values() for r in rs}
    for study in {s["study"] for s in held["sets"]}:
        records = [r for r in store_of(study).records(split="test", checkpoint="last") if r["run"] in runs]
        for metric, rows in zip(("macro_f1", "map"), held["rows"]):
            mine = {(r["set"]["name"].split(" ")[0].strip(","), r["loss"]["key"], r["readout"]): r for r in rows if r["set"]["study"] == study}
            for e in leaderboard(records, metric).itertuples():
                row = mine.pop((e.dataset, e.loss, e.readout))
                shown = [float("nan") if row[k] is None else row[k] for k in ("mean", "lower", "upper")] # no ends: one seed without an interval
                assert shown == pytest.approx([e.mean, e.lower, e.upper], abs=6e-5, nan_ok=True) and len(row["ids"]) == e.n_seeds
                assert set(row["ids"]) <= {r["id"] for r in records}
                seen += 1
            assert not mine
    assert seen > 100 and find(held["rows"][0][0]["ids"][0])


def test_losses_are_told_apart_without_colour_in_the_explorer(explorer):
    "Each mark has the shape that the loss has in every figure, in the middle of its place."
    losses = explorer.execute_script("return mlclExplorer.data.losses")
    assert len({(r["mark"], r["logits"]) for r in losses}) == len(losses) > 5
    same = lambda a, b: LOSS_STYLE[a][1] == LOSS_STYLE[b][1]
    assert all((a["mark"] == b["mark"]) == same(a["key"], b["key"]) for a, b in itertools.combinations(losses, 2))
    drawn = explorer.execute_script("return [...document.querySelectorAll('#ex-rows tr')].map(r => { const a = r.querySelector('.plot path'), l = r.querySelector('.plot line'), b = a.getBoundingClientRect(); return [a.getAttribute('d'), b.width, b.top + b.height/2 - l.getBoundingClientRect().top]; })")
    assert {d for d, *_ in drawn} == {r["mark"] for r in losses} and all(6 < w < 16 and abs(off) < 3 for _, w, off in drawn)


def test_filters_of_the_explorer(explorer):
    from selenium.webdriver.support.ui import Select

    def table(): return explorer.execute_script("return [...document.querySelectorAll('#ex-rows tr')].map(r => [...r.querySelectorAll('th, td:not(.plot)')].map(c => c.textContent))")
    one = table()
    assert len(one) == len(explorer.find_elements("css selector", "#ex-rows .plot > svg")) > 5 and one == sorted(one, key=lambda r: -float(r[1]))
    Select(explorer.find_element("id", "ex-metric")).select_by_value("hamming")
    low = table()
    assert low == sorted(low, key=lambda r: float(r[1])) and "lower is better" in explorer.find_element("id", "ex-caption").text
    Select(explorer.find_element("id", "ex-set")).select_by_value("")
    Select(explorer.find_element("id", "ex-loss")).select_by_value("reg")
    held = explorer.execute_script("return mlclExplorer.data")
    reg = [x["key"] for x in held["losses"]].index("reg")
    assert [r[0] for r in table()] == [s["name"] for i, s in enumerate(held["sets"]) if f"{i},{reg}" in held["runs"]]
    Select(explorer.find_element("id", "ex-readout")).select_by_value("own@.5")
    assert table() == [] and explorer.find_element("id", "ex-caption").text == "No result for this choice"


def test_a_row_tells_interval_and_records(explorer):
    "By the pointer and by the keyboard alike."
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    rows = explorer.execute_script("return mlclExplorer.rows({set: mlclExplorer.data.sets[0].key, metric: 'macro_f1', readout: 'probe1'})")
    def told(row): return all(t in explorer.find_element("id", "ex-says").text for t in [f"{row['mean']:.3f}", f"{row['lower']:.3f} to {row['upper']:.3f}", *[i.split("/")[0] for i in row["ids"]]])
    ActionChains(explorer).move_to_element(explorer.find_elements("css selector", "#ex-rows tr")[2]).perform()
    assert told(rows[2])
    explorer.execute_script("document.querySelectorAll('#ex-rows button')[0].focus()")
    explorer.switch_to.active_element.send_keys(Keys.TAB)
    assert told(rows[1]) and len(explorer.find_elements("css selector", "#explorer .chosen")) == 1


def test_data_of_the_explorer_is_small(built):
    assert len(re.search(r'id="ex-data">(.*?)</script>', (built[0]/"58_explorer.html").read_text(encoding="utf-8"), flags=re.S)[1]) < 300_000


# Pages made from other pages

def test_symbols_of_all_pages_are_in_the_index(built):
    "Each row of a symbol table has its page in the index."
    index = "\n".join("".join(c["source"]) for c in json.loads((site.PROC/"05_symbols.ipynb").read_text())["cells"])
    tables = 0
    for path in sorted(site.NBS.glob("[0-9]*.ipynb")):
        for found in re.finditer(r"(?m)^\| symbol \| variable .*\n\|[-| ]+\n((?:\|.*\n?)+)", "\n\n".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "markdown")):
            tables += 1
            for row in found[1].splitlines():
                start = row.rstrip("| ")
                if row.startswith("| |"): continue
                meaning = re.split(r"(?<!\\)\| (?=[^|]*$)", start)[-1].strip()
                assert any(meaning in ln and f"[{path.stem[:2]}]({path.name}" in ln for ln in index.splitlines()), (path.name, row)
    assert tables > 15


def test_home_page_leads_to_every_path():
    "The three ways into the book name those of their pages that exist."
    shown = "".join("".join(o["data"].get("text/markdown", "")) for c in json.loads((site.NBS/"index.ipynb").read_text())["cells"] for o in c.get("outputs", []) if "data" in o)
    there = [p.name for n in (28, 29, 90, 91, 92, 58) for p in site.NBS.glob(f"{n}_*.ipynb")]
    assert len(there) > 3 and all(f"]({n})" in shown for n in there), "execute nbs/index.ipynb again"


def test_llms_txt(built):
    "Title, summary, and each page with its subtitle."
    text = (built[0]/"llms.txt").read_text(encoding="utf-8")
    assert text.startswith(f"# {site.get_config().title}\n\n> ")
    assert re.findall(r"(?m)^- \[.+\]\((\S+)\): .+", text) == [target(n) for n in PAGES]


def test_terms_are_marked_in_prose_only():
    from execnb.nbio import mk_cell
    text = "# An anchor\n\nThe `anchor` and $anchor$ of [the anchor](x.html), **anchors** and anchors.\n\n| anchor |\n|---|\n\n```\nanchor\n```"
    nb = type("nb", (), {"cells": [mk_cell(text, "markdown"), mk_cell("anchor", "markdown"), mk_cell("anchor", "code")]})
    out = [c.source for c in site.define(nb, [("anchors?", "term-anchor", "It's x.")]).cells]
    assert out == [text.replace("**anchors**", '**[anchors](06_glossary.ipynb#term-anchor "It\'s x."){.term}**'), "anchor", "anchor"]


def test_figures_and_imports_are_folded_unless_they_say_otherwise():
    assert site.fold('#| fig-alt: "x"\nplot()').startswith('#| code-fold: true\n#| code-summary: "Code of the figure"\n')
    assert site.fold('#| code-fold: show\n#| code-summary: "Exported source"\nimport a\nfrom b import (c,\n    d)') == '#| code-fold: true\n#| code-summary: "Imports"\nimport a\nfrom b import (c,\n    d)'
    for kept in ("plot()", "import a\nplot()", '#| fig-alt: "x"\n#| echo: false\nplot()', '#| fig-alt: "x"\n#| code-fold: show\nplot()', "#| code-fold: show\nplot()"): assert site.fold(kept) == kept
