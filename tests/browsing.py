"The site for its tests: the tool that builds it, its pages, and a browser that looks at them."
import functools, http.server, importlib.resources, importlib.util, json, sys, threading
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("mlcl_site", ROOT/"tools"/"site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)
process = sys.modules["process"]

PAGES = {name: f"{Path(name).stem}.html" for _, names in site.navigation() for name in names}
places_of = functools.cache(site.places_of)
AXE = (importlib.resources.files("selenium_axe_python")/"axe-core"/"axe.min.js").read_text(encoding="utf-8")


def serve(folder):
    "The address of a folder on a free port of this machine, until the tests are over."
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def opens(name):
    "A fixture: the browser with a page of the site, for a reader who has not chosen a theme."
    @pytest.fixture
    def opened(browser, address):
        look_as(browser)
        browser.get(address + name)
        yield browser
        browser.execute_script("localStorage.clear()")
    return opened


def look_as(browser, width=1280, theme="", media=""):
    "Width in pixels, the theme of the system, screen or paper; waits until the page has followed."
    screen = dict(width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [dict(name="prefers-color-scheme", value=theme)]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(media=media, features=features))
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")


def each(browser, selector, what="e.outerHTML.slice(0, 150)", when="true"):
    "What JavaScript says of each element `e` of the open page that a selector finds and for which `when` is true."
    elements = f"[...document.querySelectorAll(arguments[0])].filter(e => {when})"
    return browser.execute_script(f"return {elements}.map(e => {what})", selector)


def press(browser, *keys):
    "Press one key after the other, each on the element that has the focus then; the last of these elements."
    for key in keys: browser.switch_to.active_element.send_keys(key)
    return browser.switch_to.active_element


# axe-core on the open page. Of contrast, its slow rule, it is asked once a look: colours, letters, opacity.
CHECK = """
const grounds = new Map(), looks = new Map();
for (const e of document.querySelectorAll('body, body *')) {
  const c = getComputedStyle(e), said = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  grounds.set(e, [grounds.get(e.parentElement), c.backgroundColor, c.backgroundImage, c.opacity].join());
  const look = [grounds.get(e), c.color, c.fontSize, c.fontWeight].join();
  if (said && e.checkVisibility() && !looks.has(look)) looks.set(look, e);
}
axe.run({rules: {'color-contrast': {enabled: false}}, resultTypes: ['violations']}).then(async all => arguments[0]([
  ...all.violations, ...(await axe.run([...looks.values()], {runOnly: ['color-contrast']})).violations]));
"""


def violations(browser):
    "What axe-core calls serious or critical, as (rule, places)."
    browser.execute_script(f"if (!window.axe) {{ {AXE} }}")
    serious = [v for v in browser.execute_async_script(CHECK) if v["impact"] in ("serious", "critical")]
    return [(v["id"], [n["html"][:150] for n in v["nodes"][:3]]) for v in serious]


def too_wide(browser):
    "The page, where it is wider than the window, and what stands out of the window to the right."
    width = "document.documentElement.clientWidth" # on a phone, innerWidth grows with the page
    wide = each(browser, "html", "'the page'", f"e.scrollWidth > {width}")
    return wide and wide + each(browser, "main *", when=f"e.getBoundingClientRect().right > {width}")[:3]


# What nobody should find on a page: elements, and when they are wrong. Quarto gives an id to each of two themes.
WRONG = {
    "same id": ("[id]:not(#quarto-bootstrap, #quarto-text-highlighting-styles)", "e !== document.getElementById(e.id)"),
    "LaTeX": ("annotation", "true"), "formulas not set": ("span.math, merror", "true"),
    "wide code": ("main pre.sourceCode", "e.offsetParent && e.scrollWidth > e.clientWidth + 1"),
    "broken code in tables": ("main :is(td, th) code", "e.getClientRects().length > 1"),
    "gaps in code": ("main pre.sourceCode > code",
                     "e.offsetHeight > 9 + [...e.children].reduce((sum, line) => sum + line.offsetHeight, 0)"),
    "broken pictures": ("img", "!e.complete || !e.naturalWidth"), "pictures without alt text": ("img", "!e.alt.trim()"),
    "lists without an empty line before": ("main p", r"/\n(-|\d+\.) /.test(e.textContent)")}


def findings(browser, address):
    "What nobody should find on a page: on a desk in the light, on a phone in the dark."
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    look_as(browser, theme="light")
    browser.get(address)
    browser.execute_async_script("Promise.allSettled([...document.images].map(i => i.decode())).then(arguments[0])")
    sent = [json.loads(m["message"])["message"] for m in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    assert address in asked, "the requests are seen"
    found = {what: each(browser, selector, when=when) for what, (selector, when) in WRONG.items()}
    found["requests"] = [u for u in asked if not u.startswith((address.rpartition("/")[0], "data:", "blob:", "about:"))]
    found["console"] = [m["message"] for m in browser.get_log("browser") if m["level"] in ("SEVERE", "WARNING")]
    found["desk"] = violations(browser)
    look_as(browser, 390, "dark")
    found |= {"wide on a phone": too_wide(browser), "phone": violations(browser)}
    return {what: where for what, where in found.items() if where}
