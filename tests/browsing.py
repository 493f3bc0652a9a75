"The site for its tests: the tool that builds it, its pages, and a browser that looks at them."
import functools, http.server, importlib.resources, importlib.util, json, shutil, sys, threading
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("mlcl_site", ROOT/"tools"/"site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)
process = sys.modules["process"]

PAGES = [n for _, names in site.navigation() for n in names]
CHROME = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
DRIVER = shutil.which("chromedriver")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
           --disable-component-update --disable-sync --hide-scrollbars""".split()
AXE = (importlib.resources.files("selenium_axe_python")/"axe-core"/"axe.min.js").read_text(encoding="utf-8")


anchors_of = functools.cache(site.anchors_of)
def page_of(name): return f"{Path(name).stem}.html"


@contextmanager
def served(folder):
    "The address of a folder on a free port of this machine."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@contextmanager
def chromium(profile):
    "A headless Chromium that keeps the messages of its console and of the network."
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for flag in [*FLAGS, f"--user-data-dir={profile}"]: options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def look_as(browser, width=1280, theme="", media=""):
    "Width in pixels, the theme of the system, screen or paper; waits until the page has followed."
    screen = dict(width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [dict(name="prefers-color-scheme", value=theme)]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(media=media, features=features))
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")


# axe-core on the open page. Of contrast, its slow rule, it is asked once a look: colours, letters, opacity.
CHECK = """
const done = arguments[0], grounds = new Map(), seen = new Set();
const run = (where, what) => axe.run(where, {...what, resultTypes: ['violations']});
for (const e of document.querySelectorAll('body, body *')) {
  const c = getComputedStyle(e), said = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  grounds.set(e, [grounds.get(e.parentElement), c.backgroundColor, c.backgroundImage, c.opacity].join());
  const look = [grounds.get(e), c.color, c.fontSize, c.fontWeight].join();
  e.toggleAttribute('data-look', said && e.checkVisibility() && !seen.has(look) && !!seen.add(look));
}
run(document, {rules: {'color-contrast': {enabled: false}}}).then(async all => done(
  [...all.violations, ...(await run({include: ['[data-look]']}, {runOnly: ['color-contrast']})).violations]));
"""


def violations(browser):
    "What axe-core calls serious or critical, as (rule, places)."
    browser.execute_script(f"if (!window.axe) {{ {AXE} }}")
    serious = [v for v in browser.execute_async_script(CHECK) if v["impact"] in ("serious", "critical")]
    return [(v["id"], [n["html"][:150] for n in v["nodes"][:3]]) for v in serious]


def too_wide(browser):
    "What stands out of the window to the right."
    return browser.execute_script("""const w = innerWidth; return document.documentElement.scrollWidth <= w ? [] :
        [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > w).slice(0, 3)
        .map(e => e.outerHTML.slice(0, 120)).concat('the page')""")


LOOK = """
const all = s => [...document.querySelectorAll(s)], text = document.querySelector('main').cloneNode(true);
text.querySelectorAll('pre, code, script').forEach(e => e.remove());
const ids = all('[id]').map(e => e.id), wide = e => e.offsetParent && e.scrollWidth > e.clientWidth + 1;
return {title: document.title, lang: document.documentElement.lang, h1: all('h1').length, text: text.textContent,
  math: all('math').length, toc: all('.toc a, #TOC a').length, links: all('a[href]').map(a => a.href),
  headings: all('main > h2, main > section > h2').length, pages: all('nav.pages a').map(a => a.getAttribute('href')),
  turn: all('a[rel=prev], a[rel=next]').map(a => a.rel + ' ' + a.getAttribute('href')), wrong: {
  'ids twice': ids.filter((x, i) => ids.indexOf(x) !== i), 'LaTeX': all('annotation').map(e => e.textContent),
  'wide code': all('main pre.sourceCode').filter(wide).map(e => e.textContent.slice(0, 80)),
  'gaps in code': all('main pre.sourceCode > code').filter(e =>
    e.offsetHeight > 9 + [...e.children].reduce((sum, line) => sum + line.offsetHeight, 0)).map(e => e.textContent.slice(0, 80)),
  'broken pictures': all('img').filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
  'pictures without alt text': all('img').filter(i => !i.alt.trim()).map(i => i.src),
  'formulas not set': all('span.math, merror').map(e => e.textContent),
  'lists without an empty line before': all('main p').map(p => p.textContent).filter(t => /\\n(-|\\d+\\.) /.test(t))}}
"""


def visit(browser, address):
    "What a visitor of the page finds, on a desk in the light; under `wrong`, what nobody should find."
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    look_as(browser, theme="light")
    browser.get(address)
    browser.execute_async_script("Promise.allSettled([...document.images].map(i => i.decode())).then(arguments[0])")
    sent = [json.loads(m["message"])["message"] for m in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    assert address in asked, "the requests are seen"
    page, host = browser.execute_script(LOOK), address.rpartition("/")[0]
    page["wrong"]["other hosts"] = [u for u in asked if not u.startswith((host, "data:", "blob:", "about:"))]
    page["wrong"]["console"] = [m["message"] for m in browser.get_log("browser") if m["level"] in ("SEVERE", "WARNING")]
    return page


def visit_on_phone(browser):
    "The page that is open, on a phone in the dark."
    look_as(browser, width=390, theme="dark")
    return {"wide on a phone": too_wide(browser)}
