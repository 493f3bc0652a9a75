"Every page of the site in a headless browser, and what makes the pages a book: theme, search, copy buttons, terms."
import re, urllib.parse
import pytest
from browsing import PAGES, each, findings, look_as, opens, places_of, press, site, too_wide, violations
from selenium.webdriver import Keys

HREF = "e.getAttribute('href')"
MARKUP = r".{0,40}(?:\$\$|\\\(|@eq-|@fig-|@tbl-|@sec-|:::|\{#|\[@).{0,40}"
home, contrast = opens("index.html"), opens("20_contrast.html")


@pytest.mark.parametrize("name", PAGES)
def test_page(browser, address, built, name):
    "On a desk in the light, on a phone in the dark and on paper nothing is wrong; the page has its place in the book."
    assert findings(browser, address + PAGES[name]) == {} and on_paper(browser) == []
    links, order, at = each(browser, "a[href]", "e.href"), [*PAGES.values()], [*PAGES].index(name)
    inside = {urllib.parse.unquote(link.removeprefix(address)) for link in links if link.startswith(address)}
    assert inside - places_of(built[0]) == {f"notebooks/{name}"} and "".join(links).count(f"notebooks/{name}") == 1
    turns = [f"prev {page}" for page in order[at - 1 : at]] + [f"next {page}" for page in order[at + 1 : at + 2]]
    assert each(browser, "a[rel=prev], a[rel=next]", f"e.rel + ' ' + {HREF}") == turns
    levels = each(browser, ":is(h1, h2, h3, h4, h5, h6)", "+e.tagName[1]")
    assert levels.count(1) == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels
    assert browser.title and each(browser, "html", "e.lang") == ["en"] and each(browser, "nav.pages a", HREF) == order
    assert len(each(browser, ".toc a, #TOC a")) >= len(each(browser, "main > h2, main > section > h2"))
    assert each(browser, "math") or "$$" not in (site.NBS/name).read_text(encoding="utf-8")
    browser.execute_script("document.querySelectorAll('pre, code, script').forEach(e => e.remove())")
    assert re.findall(MARKUP, *each(browser, "main", "e.textContent")) == []


def on_paper(browser):
    "What is wrong on paper, for a reader in the dark: navigation, ink that is not black, what the sheet does not hold."
    look_as(browser, 718, "dark", "print")
    shown = each(browser, ".top, .pages, .toc, .turn, .code-copy-button", when="e.offsetParent")
    return shown + each(browser, "body", when="getComputedStyle(e).color !== 'rgb(0, 0, 0)'") + too_wide(browser)


def test_what_is_wrong_is_found(home):
    home.execute_script("""const p = document.querySelector('main p'); p.style.color = '#ccc'; p.style.width = '2000px';
        document.querySelector('main img').removeAttribute('alt')""")
    assert {"color-contrast", "image-alt"} <= {rule for rule, _ in violations(home)}
    assert "the page" in on_paper(home)
    look_as(home, 390, "dark")
    assert "the page" in too_wide(home)


FRAME = """<style>.citation a { text-decoration: none; }
    figure figcaption.quarto-float-caption-top.quarto-float-caption-top { text-align: center; }
    #quarto-sidebar .sidebar-menu-container { white-space: nowrap; }</style>
  <nav id=quarto-sidebar style="width: 99rem"><p class=sidebar-menu-container></p></nav>
  <div style="color: red"><p class=search-result-title>A title that is found</p></div>"""


def test_rules_of_quarto_give_way(contrast):
    "A citation is underlined, a caption to the left, the menu of a phone no wider than it, a title found is readable."
    contrast.execute_script("""document.body.classList.remove('plain');
        document.querySelector('main figcaption').className = 'quarto-float-caption-top';
        document.body.insertAdjacentHTML('afterbegin', arguments[0]);
        document.head.prepend(document.querySelector('body > style'));""", FRAME)
    look_as(contrast, 390)
    def looks(selector, what): return {*each(contrast, selector, f"getComputedStyle(e).{what}")}
    assert looks("main .citation a", "textDecorationLine") == {"underline"}
    assert (looks("main figcaption", "textAlign") == {"left"} and looks(".search-result-title", "color")
            == {"rgb(255, 0, 0)"})
    assert (looks(".sidebar-menu-container", "whiteSpace") == {"normal"} and looks("#quarto-sidebar", "width")
            == {"390px"})


def test_theme_follows_the_system_until_chosen_and_is_remembered(home, address):
    "After each step, in a system with a theme, the theme of the page: its colours; its switch offers the other one."
    other, seen = dict(light="dark", dark="light"), {}
    for system, step, theme in [("dark", "", "dark"), ("light", "", "light"), ("light", "click", "dark"),
                                ("light", "go", "dark"), ("dark", "", "dark"), ("light", "", "dark"),
                                ("dark", "click", "light"), ("dark", "go", "light")]:
        look_as(home, theme=system)
        if step == "click": home.find_element("css selector", ".theme").click()
        if step == "go": home.get(address + "28_gradients.html")
        colours = each(home, "body", "[getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")[0]
        assert each(home, "html", "e.dataset.theme") == [theme] and seen.setdefault(theme, colours) == colours
        assert each(home, ".theme", "e.ariaLabel") == [f"Switch to the {other[theme]} theme"]
    assert all(a != b for a, b in zip(seen["light"], seen["dark"]))


def ask(page, text):
    "Open the search by its key and type; the addresses of what is found."
    press(page, "/", text)
    assert any(page.find_elements("css selector", "dialog.search .says:not(:empty)") for _ in range(6)), "each waits"
    return each(page, "dialog.search li a", HREF)


@pytest.mark.parametrize("text, first", [
    ("RegLoss", "27_reg.html#regloss"), ("Symbols", "symbols.html"), ("interval over seeds", "46_stats.html")])
def test_search(home, address, built, text, first):
    "From a server, and from a file."
    for start in (address, (built[0]/"index.html").as_uri()):
        home.get(start)
        assert ask(home, text)[0] == first


def test_search_by_keys(home):
    "An arrow moves, Enter opens, Escape closes, also where nothing is found."
    found = ask(home, "stop-gradient")
    assert len(found) > 2 and each(home, "dialog.search li mark")
    assert press(home, Keys.ARROW_DOWN, Keys.ARROW_DOWN).get_attribute("href").endswith(found[1])
    press(home, Keys.ENTER)
    assert home.current_url.endswith(found[1])
    assert ask(home, "qqqxyz") == [] and "Nothing found" in home.find_element("css selector", ".says").text
    press(home, Keys.ESCAPE)
    assert each(home, "dialog.search", "e.open") == [False]


def test_copy_button(home):
    home.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    button, code = home.execute_script("""const b = document.querySelector('main .code-copy-button');
        b.focus(); return [b, b.parentElement.querySelector('pre').textContent.trimEnd()]""")
    press(home, Keys.ENTER)
    copied = "setTimeout(() => navigator.clipboard.readText().then(arguments[0]), 200)"
    assert home.execute_async_script(copied) == code and button.text == "Copied"
    assert not each(home, "main pre:not(.output)", when="!e.parentElement.querySelector('.code-copy-button')")


def test_code_of_figures_is_folded(contrast):
    def opened(): return {*each(contrast, "details.code-fold", "e.open")}
    assert opened() == {False}
    for want in (True, False):
        contrast.find_element("css selector", ".tools [title*=Unfold]").click()
        assert opened() == {want}


def test_skip_link(home):
    skip = press(home, Keys.TAB)
    assert skip.get_attribute("class") == "skip" and skip.rect["x"] >= 0
    press(home, Keys.ENTER, Keys.TAB)
    assert each(home, "main", "e.contains(document.activeElement)") == [True]


def test_terms_lead_to_the_glossary(contrast, address):
    "The first use of a term shows its sentence, on hover and by a link; a term is marked once a page."
    terms = each(contrast, "a.term", f"[e.textContent.replace(/s$/, ''), e.title, {HREF}]")
    assert len(terms) > 5 and len({to for _, _, to in terms}) == len(terms) and all(t[1].endswith(".") for t in terms)
    assert ["anchor", "The instance, or prototype, whose loss is computed.", "06_glossary.html#term-anchor"] in terms
    contrast.get(address + "06_glossary.html")
    assert not each(contrast, "a.term") and len(each(contrast, "dt")) == len(each(contrast, "dd")) > 10
