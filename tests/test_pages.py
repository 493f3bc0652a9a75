"Every page of the site in a headless browser, and what makes the pages a book: theme, search, copy buttons, terms."
import re, urllib.parse
import pytest
from browsing import PAGES, anchors_of, look_as, page_of, site, too_wide, violations, visit, visit_on_phone
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

MARKUP = r".{0,40}(?:\$\$|\\\(|@eq-|@fig-|@tbl-|@sec-|:::|\{#|\[@).{0,40}"
PREV, NEXT = ({a: f"{turn} {page_of(b)}" for a, b in zip(x, y)}
              for turn, x, y in (("prev", PAGES[1:], PAGES), ("next", PAGES, PAGES[1:])))


@pytest.mark.parametrize("name", PAGES)
def test_page(browser, address, built, name):
    "One visit: on a desk in the light, on a phone in the dark, on paper; nothing is wrong, all links lead somewhere."
    page = visit(browser, address + page_of(name))
    wrong = page["wrong"] | {"unrendered markup": re.findall(MARKUP, page["text"]), "desk": violations(browser)}
    wrong |= visit_on_phone(browser) | {"phone": violations(browser)} | on_paper(browser)
    wrong["links"] = [*lost(page["links"], name, address, anchors_of(built[0]))]
    assert {what: found for what, found in wrong.items() if found} == {}
    assert page["title"] and page["lang"] == "en" and page["h1"] == 1 and page["toc"] >= page["headings"]
    assert page["pages"] == [*map(page_of, PAGES)]
    assert page["turn"] == [turn[name] for turn in (PREV, NEXT) if name in turn]
    assert sum(f"notebooks/{name}" in link for link in page["links"]) == 1
    assert page["math"] or "$$" not in (site.NBS/name).read_text(encoding="utf-8")


def on_paper(browser):
    "No navigation, dark on white, nothing wider than the sheet; the reader's theme is dark."
    look_as(browser, 718, "dark", "print")
    shown, ink = browser.execute_script("""return [['.top', '.pages', '.toc', '.turn', '.code-copy-button'].filter(
        s => document.querySelector(s)?.offsetParent), getComputedStyle(document.body).color]""")
    return {"on paper": shown, "wide on paper": too_wide(browser), "ink": ink.replace("rgb(0, 0, 0)", "")}


def lost(links, name, address, anchors):
    "Links inside the site that lead nowhere."
    for link in links:
        path, _, anchor = urllib.parse.unquote(link.removeprefix(address)).partition("#")
        inside = link.startswith(address) and path != f"notebooks/{name}"
        if inside and (path not in anchors or anchor and anchor not in anchors[path]): yield link


def test_what_is_wrong_is_found(home):
    home.execute_script("""const p = document.querySelector('main p'); p.style.color = '#ccc'; p.style.width = '2000px';
        document.querySelector('main img').removeAttribute('alt')""")
    assert {"color-contrast", "image-alt"} <= {rule for rule, _ in violations(home)}
    assert visit_on_phone(home)["wide on a phone"] and on_paper(home)["wide on paper"]


@pytest.fixture
def home(browser, address):
    "The home page of a reader who has not chosen a theme."
    look_as(browser)
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.get(address)
    yield browser
    browser.execute_script("localStorage.clear()")


def colours(browser):
    return browser.execute_script("""return ['body', 'main p', 'main pre'].map(s => {
        const c = getComputedStyle(document.querySelector(s)); return [c.color, c.backgroundColor] })""")


def test_theme_switch_is_remembered(home, address):
    def switch(): return home.find_element("css selector", ".theme")
    def label(): return switch().get_attribute("aria-label")
    light = colours(home)
    assert label() == "Switch to the dark theme"
    switch().click()
    dark = colours(home)
    assert all(a != b for a, b in zip(light[0], dark[0])) and label() == "Switch to the light theme"
    home.get(address + "28_gradients.html")
    assert colours(home)[0] == dark[0]
    switch().click()
    home.refresh()
    assert colours(home)[0] == light[0]


def test_theme_follows_the_system_until_chosen(home):
    def system(theme):
        look_as(home, theme=theme)
        return home.execute_script("return document.documentElement.dataset.theme")
    assert [system("dark"), system("light")] == ["dark", "light"]
    home.find_element("css selector", ".theme").click()
    assert [system("light"), system("dark")] == ["dark", "dark"]
    home.find_element("css selector", ".theme").click()
    assert system("dark") == "light"


def ask(browser, text):
    "Open the search by its key, type, and return the addresses of what is found, and the box."
    browser.find_element("css selector", "body").send_keys("/")
    box = browser.find_element("css selector", "dialog.search input")
    box.clear()
    box.send_keys(text)
    WebDriverWait(browser, 10).until(lambda b: b.execute_script("return document.querySelector('.says').textContent"))
    found = "return [...document.querySelectorAll('dialog.search li a')].map(a => a.getAttribute('href'))"
    return browser.execute_script(found), box


@pytest.mark.parametrize("text, first", [
    ("RegLoss", "27_reg.html#regloss"), ("Symbols", "05_symbols.html"), ("interval over seeds", "46_stats.html")])
def test_search(home, text, first):
    assert ask(home, text)[0][0] == first


def test_search_without_a_server(browser, built):
    browser.get((built[0]/"index.html").as_uri())
    assert ask(browser, "RegLoss")[0][0] == "27_reg.html#regloss"


def test_search_by_keys(home):
    found, box = ask(home, "stop-gradient")
    assert len(found) > 2 and home.find_elements("css selector", "dialog.search li mark")
    box.send_keys(Keys.ARROW_DOWN)
    home.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert home.switch_to.active_element.get_attribute("href").endswith(found[1])
    home.switch_to.active_element.send_keys(Keys.ENTER)
    assert home.current_url.endswith(found[1])


def test_search_says_when_nothing_is_found(home):
    found, box = ask(home, "qqqxyz")
    assert not found and "Nothing found" in home.find_element("css selector", "dialog.search .says").text
    box.send_keys(Keys.ESCAPE)
    assert not home.execute_script("return document.querySelector('dialog.search').open")


def test_copy_button(home):
    allowed = dict(permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    home.execute_cdp_cmd("Browser.grantPermissions", allowed)
    button, code = home.execute_script("""const b = document.querySelector('main .code-copy-button');
        b.click(); return [b, b.parentElement.querySelector('pre').textContent.trimEnd()]""")
    copied = "setTimeout(() => navigator.clipboard.readText().then(arguments[0]), 200)"
    assert home.execute_async_script(copied) == code and button.text == "Copied"
    assert home.execute_script("""return [...document.querySelectorAll('main pre:not(.output)')].every(
        p => p.parentElement.querySelector('.code-copy-button'))""")


def test_code_of_figures_is_folded(browser, address):
    browser.get(address + "20_contrast.html")
    def opened(): return [e.get_attribute("open") for e in browser.find_elements("css selector", "details.code-fold")]
    assert opened() and not any(opened())
    for want in ("true", None):
        browser.find_element("css selector", ".tools [title*=Unfold]").click()
        assert {*opened()} == {want}


def test_skip_link(home):
    home.find_element("css selector", "body").send_keys(Keys.TAB)
    skip = home.switch_to.active_element
    assert skip.get_attribute("class") == "skip" and skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    home.switch_to.active_element.send_keys(Keys.TAB)
    assert home.execute_script("return document.querySelector('main').contains(document.activeElement)")


def test_terms_lead_to_the_glossary(browser, address):
    "The first use of a term shows its sentence, on hover and by a link; a term is marked once a page."
    def seen(selector, *keys):
        elements = f"[...document.querySelectorAll('{selector}')]"
        return browser.execute_script(f"return {elements}.map(a => [{', '.join(keys)}])")
    browser.get(address + "20_contrast.html")
    terms = seen("a.term", "a.textContent", "a.title", "a.getAttribute('href')")
    assert len(terms) > 5 and len({t[2] for t in terms}) == len(terms) and all(t[1].endswith(".") for t in terms)
    anchor = ["anchor", "The instance, or prototype, whose loss is computed.", "06_glossary.html#term-anchor"]
    assert anchor in terms
    browser.get(address + "06_glossary.html")
    assert not seen("a.term") and len(seen("dt")) == len(seen("dd")) > 10
