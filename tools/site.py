"""The website from the notebooks: `python tools/site.py` writes `_site/`; `python tools/site.py readme [--check]` writes README.md.

nbdev processes the notebooks into `_proc/`. Quarto renders them where it is installed, and calls `prepare` and `finish` around that;
else pandoc does, with the same style sheet, order and numbering.
"""
import argparse, base64, hashlib, html, json, os, re, shutil, subprocess, sys, unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from itertools import chain, groupby, takewhile
from pathlib import Path
import pypandoc, yaml
from bs4 import BeautifulSoup
from execnb.nbio import mk_cell, read_nb, write_nb
from filelock import FileLock
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, _nbpath2html
from nbdev.processors import FilterDefaults
from nbdev.serve import proc_nbs

ROOT, START = Path(__file__).resolve().parent.parent, Path.cwd()
NBS, PROC, TOOLS = ROOT/"nbs", ROOT/"_proc", ROOT/"tools"
QUICK = ROOT/"results"/"quick.jsonl"
FRESH = ["05_symbols.ipynb", "07_bibliography.ipynb", "96_api.ipynb"] # collect what other pages say, so they run at each build
GLOSSARY = "06_glossary.ipynb"
IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
NUMBER = re.compile(r"[-+−±]?[\d.,]+(e[-+]?\d+)?( ?%)?( ?\[[^a-z]*\])?|[-–—]|NaN|nan|")
HEAD = re.compile(r"\A# .+\n+> .+\s*")
DOWNLOAD = '<a class="download" href="notebooks/{0}" download="{0}">Download this notebook</a>'
ORDER = ["text/markdown", *IMAGES, "text/latex", "text/plain"]


# The notebooks: which there are, and what nbdev makes of them

def navigation():
    "Sidebar of `_quarto.yml` as a list of (part, [notebook names])."
    contents = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    return [(c["section"], c["contents"]) if isinstance(c, dict) else ("", [c]) for c in contents]


def check_pages():
    "Problems that nbdev and Quarto would pass over in silence."
    listed, there = [n for _, names in navigation() for n in names], {p.name for p in NBS.glob("*.ipynb")}
    problems = [f"_quarto.yml lists {n}, which is not in nbs/" for n in listed if n not in there]
    problems += [f"nbs/{n} is not listed in _quarto.yml" for n in sorted(there - set(listed))]
    for name in sorted(there):
        if not HEAD.match(read_nb(NBS/name).cells[0].source): problems.append(f"{name}: does not begin with '# Title' and '> subtitle'")
    return problems


def mixed():
    "Cells with an import beside other code, as 'notebook: its first other line'."
    for path in sorted(NBS.glob("*.ipynb")):
        for cell in read_nb(path).cells:
            if cell.cell_type != "code" or re.match(r"#\|\s*export", cell.source): continue
            imports, rest = ([ln for ln in cell.source.splitlines() if ln[:1] not in " #" and bool(re.match("import |from ", ln)) == i] for i in (True, False))
            if imports and any(ln.strip() for ln in rest) and not rest[0].startswith("use_style("): yield f"{path.name}: {rest[0][:80]}"


def tidy(nb, source):
    "Undo what nbdev drops or sends elsewhere, and say everything in a way that both renderers read alike."
    rest = HEAD.sub("", read_nb(source).cells[0].source)
    if rest: nb.cells.insert(1, mk_cell(NbdevLookup().linkify(rest), "markdown"))
    cfg, homes = get_config(), {_nbpath2html(p).name: f"{p.stem}.html" for p in NBS.glob("*.ipynb") if "#| default_exp" in p.read_text(encoding="utf-8")}
    here = re.compile(re.escape(f"{cfg.doc_host}{cfg.doc_baseurl}/") + r"([\w.-]+)")
    for cell in nb.cells:
        cell.source = here.sub(lambda m: homes.get(m[1], m[1]), cell.source)
        if cell.cell_type == "code": cell.source = fold(once(cell.source))
        if cell.cell_type == "raw": cell.source = titled(cell.source, source.stem)
        for out in [o for o in cell.get("outputs", []) if "data" in o]: as_markdown(out)
        for out in [o for o in cell.get("outputs", []) if "text/markdown" in o.get("data", {})]:
            text = here.sub(lambda m: homes.get(m[1], m[1]), "".join(out.data["text/markdown"]))
            out.data["text/markdown"] = re.sub(r"\A---\n+(\[source\].*\n+)?", "", text) if documented(cell) else text
    nb.cells = apart([part for cell in label_sources(nb.cells) for part in spoken(cell)])
    return nb


def titled(front, stem):
    "Front matter with the number of the page in its title, and with the page's own name."
    front = yaml.safe_load(front.strip().strip("-"))
    front |= {"output-file": f"{stem}.html", "title": f"{stem[:2]} · {front['title']}" if stem[:2].isdigit() else front["title"]}
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def once(source):
    "A cell with each `#|` option once. nbdev writes its own options above those of the page, so the last one counts; YAML refuses two."
    lines, found, key = source.splitlines(), {}, ""
    head = [*takewhile(lambda line: line.startswith("#|"), lines)]
    for line in head:
        if named := re.match(r"#\|\s*([\w-]+):", line): found.pop(key := named[1], None)
        found.setdefault(key, []).append(line)
    return "\n".join([*chain.from_iterable(found.values()), *lines[len(head):]])


def as_markdown(out):
    "An HTML output as Markdown: for any HTML, Quarto would load scripts from other hosts that none of ours needs."
    if "text/html" not in out.data: return
    text = re.sub(r"<style scoped>.*?</style>", "", "".join(out.data.pop("text/html")), flags=re.S)
    text = aligned(text) if "<td" in text and "<script" not in text else text
    out.data = {"text/markdown": div(".table-box", fence(text, "=html"))}


def aligned(text):
    "An HTML table whose columns of numbers are marked, so that they are set to the right."
    soup = BeautifulSoup(text, "html.parser")
    for table in soup("table"):
        table["data-quarto-disable-processing"] = "true"
        rows = [r("td") for r in table("tr") if r("td")]
        for j in range(-1, -1 - max(map(len, rows), default=0), -1):
            column = [r[j] for r in rows if len(r) >= -j]
            if all(NUMBER.fullmatch(c.get_text().strip()) for c in column):
                for cell in [*column, *(h[j] for h in (r("th") for r in table("tr") if not r("td")) if len(h) >= -j)]: cell["class"] = "number-cell"
    return str(soup)


def spoken(cell):
    "A cell whose code is hidden and that only prints Markdown, as Markdown: its headings belong to the page."
    outs = cell.get("outputs", []) if cell.cell_type == "code" else []
    opts = options(cell.source)[0] if outs else {}
    if not outs or opts.get("echo", True) or "label" in opts or not all("text/markdown" in o.get("data", {}) for o in outs): return [cell]
    return [mk_cell("".join(o.data["text/markdown"]), "markdown") for o in outs]


def apart(cells):
    "A heading gives way to a symbol of the same name, whose anchor other pages link to."
    taken = {a for c in cells for a in re.findall(r"\{#([\w.]+) \.symbol\}", c.source)}
    def rename(m):
        slug = re.sub(r"[^\w. -]", "", plain_text(m[2]).lower()).strip().replace(" ", "-")
        return f"{m[1]} {m[2]} {{#about-{slug}}}" if slug in taken else m[0]
    for cell in cells:
        if cell.cell_type == "markdown": cell.source = re.sub(r"(?m)^(#{2,4}) ([^{\n]+?) *$", rename, cell.source)
    return cells


def fold(source):
    "Prose leads: the code of a figure and cells of imports are folded, unless the cell says otherwise."
    opts, code = options(source)
    imports = code and all(re.match(r"import |from |[\s)#]|$", line) for line in code.splitlines())
    if {"echo", "include"} & set(opts) or opts.get("code-fold", "show") != "show" or "fig-alt" in opts and "code-fold" in opts: return source
    if not imports and "fig-alt" not in opts: return source
    rest = re.sub(r"(?m)^#\|\s*code-(fold|summary):.*\n", "", source)
    return f'#| code-fold: true\n#| code-summary: "{"Imports" if imports else "Code of the figure"}"\n{rest}'


def glossary():
    "The terms of the glossary page: (pattern, anchor, definition), long patterns first."
    if not (NBS/GLOSSARY).exists(): return []
    text = "\n".join(c.source for c in read_nb(NBS/GLOSSARY).cells if c.cell_type == "markdown")
    found = re.findall(r'^\[([^\]]+)\]\{#([\w-]+)(?: match="([^"]*)")?\}\n: +(.+)$', text, flags=re.M)
    terms = [(form.replace(" ", r"\s+"), anchor, plain_text(says)) for term, anchor, match, says in found
             for form in (match.split("|") if match else [f"{term}s?"])]
    return sorted(terms, key=lambda t: -len(t[0]))


def plain_text(text):
    "Markdown without marks, links and the backslashes of its formulas."
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"[`*$\\{}]", "", text)).replace('"', "'").strip()


QUIET = re.compile(r"(`{3,}).*?\1|`[^`]+`|\$\$.*?\$\$|\$[^$]+\$|!?\[[^\]]*\](?:\([^)]*\)|\{[^}]*\})|<[^>]+>|\{[^}]*\}|@[\w-]+|^(?:#|\||:::|>).*?$", flags=re.S | re.M)


def define(nb, terms):
    "Link the first use of a term in the prose of a page to the glossary; its definition shows on hover."
    done = set()
    def mark(text, i=0):
        for pattern, anchor, says in terms[i:]:
            i += 1
            if anchor in done or not (found := re.search(rf"(?<![\w-]){pattern}(?![\w-])", text, flags=re.I)): continue
            done.add(anchor)
            return mark(text[: found.start()], i) + f'[{found[0]}]({GLOSSARY}#{anchor} "{says}"){{.term}}' + mark(text[found.end():], i)
        return text
    for cell in nb.cells:
        if cell.cell_type != "markdown": continue
        out, end = "", 0
        for quiet in QUIET.finditer(cell.source):
            out, end = out + mark(cell.source[end: quiet.start()]) + quiet[0], quiet.end()
        cell.source = out + mark(cell.source[end:])
    return nb


def unlink(nb, anchors, page=""):
    "Keep a symbol's link only where its page has the anchor; a plain word such as `split` may mean anything, except on its own page."
    link = re.compile(r"\[(`[^`]+`|[^\]]+(?=\]\([^)]*\)\{\.name\}))\]\((\w+)\.(?:html|ipynb)#([^)]*)\)(\{\.name\})?")
    def keep(m):
        word = re.fullmatch("`[a-z]+`", m[1]) and m[2] != page
        return m[0] if m[3] in anchors.get(f"{m[2]}.html", ()) and not word else f"[{m[1]}]{m[4]}" if m[4] else m[1]
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = link.sub(keep, cell.source)
        for out in cell.get("outputs", []):
            if "text/markdown" in out.get("data", {}): out.data["text/markdown"] = link.sub(keep, "".join(out.data["text/markdown"]))
    return nb


def documented(cell):
    "Name of the symbol that a `show_doc` cell documents, else None."
    found = re.search(r"^show_doc\(([\w.]+)\)", cell.source, flags=re.M) if cell.cell_type == "code" else None
    return found and found[1]


def label_sources(cells):
    "Where a `show_doc` cell stands next to the shown source of its symbol, a label above that source takes its place."
    out = []
    for names, run in groupby(cells, lambda c: bool(documented(c) or "Exported source" in c.source)):
        run = list(run)
        docs, sources = ([c for c in run if bool(documented(c)) == doc] for doc in (True, False))
        for source in sources if names else []:
            mine = [c for c in docs if re.search(rf"^(async )?(def|class) {documented(c).split('.')[-1]}\b", source.source, flags=re.M)]
            mine = sorted(mine, key=lambda c: re.search(rf"(def|class) {documented(c).split('.')[-1]}\b", source.source).start())
            labels = [f"[{documented(c)}]{{#{documented(c).lower()} .symbol}}" for c in mine]
            out += [mk_cell(" ".join(labels), "markdown")]*bool(labels) + [source]
            docs = [c for c in docs if c not in mine]
        out += docs if names else run
    return out


def process(partial=False):
    "Let nbdev process the changed notebooks into `_proc/`; with results of a quick study, run its page on them there."
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    common = b"".join(p.read_bytes() for p in [ROOT/"mlcl"/"_modidx.py", ROOT/"settings.ini", Path(__file__), NBS/GLOSSARY])
    new = {p.name: hashlib.sha256(common + p.read_bytes()).hexdigest() for p in NBS.glob("*.ipynb")}
    again = [n for n in [*FRESH, *["49_quick.ipynb"]*QUICK.exists()] if n in new]
    for name in again: new.pop(name)
    stamp = PROC/".stamp.json"
    old = json.loads(stamp.read_text()) if stamp.exists() else {}
    for path in PROC.glob("[!.]*"):
        if path.is_dir(): shutil.rmtree(path)
        elif path.name not in new or new[path.name] != old.get(path.name): path.unlink()
    with chdir(NBS):
        try: proc_nbs(str(NBS))
        except Exception as e:
            text = "\n".join([f"nbdev stopped: {e}", "It runs every cell that imports; these hold other code too, and are better split:", *mixed()])
            if not partial: sys.exit(text)
            print(text, file=sys.stderr)
        for name in again: run_again(name)
    nbs = {p: read_nb(p) for p in sorted(PROC.glob("*.ipynb"))}
    nbs |= {p: tidy(nb, NBS/p.name) for p, nb in nbs.items() if new.get(p.name, "") != old.get(p.name)}
    anchors = {f"{p.stem}.html": {a for c in nb.cells for a in [*re.findall(r"\{#([\w.]+) \.symbol\}", c.source), (documented(c) or "").lower()]}
               for p, nb in nbs.items()}
    terms = glossary()
    for path, nb in nbs.items():
        changed = new.get(path.name, "") != old.get(path.name)
        nb = unlink(define(nb, terms) if changed and path.name != GLOSSARY else nb, anchors, path.stem)
        if changed: nb.cells.append(mk_cell(DOWNLOAD.format(path.name), "markdown"))
        write_nb(nb, path)
    shutil.copytree(NBS, PROC/"notebooks", ignore=lambda folder, names: [n for n in names if not n.endswith(".ipynb")], dirs_exist_ok=True)
    stamp.write_text(json.dumps({n: d for n, d in new.items() if (PROC/n).exists()}))


def run_again(name):
    "Execute a page at build time and process it; the notebook in `nbs/` stays as it is."
    from execnb.shell import CaptureShell
    nb = read_nb(NBS/name)
    CaptureShell(mpl_format="svg").run_all(nb, exc_stop=True)
    FilterDefaults()(nb)
    write_nb(nb, PROC/name)


# One notebook as Quarto's Markdown

def fence(text, attributes):
    "A code block around `text`, whatever backticks it holds."
    ticks = "`"*max([3] + [len(t) + 1 for t in re.findall("`{3,}", text)])
    return f"{ticks} {{{attributes}}}\n{text.rstrip()}\n{ticks}\n"


def div(attributes, *parts):
    "A fenced div; longer fences outside than inside."
    colons = ":"*max([3] + [len(t) + 1 for p in parts for t in re.findall("^:{3,}", p, flags=re.M)])
    return f"{colons} {{{attributes}}}\n" + "\n\n".join(parts) + f"\n\n{colons}\n"


class Strict(yaml.SafeLoader):
    "YAML as Quarto reads it: a key that stands twice is an error."
    def construct_mapping(self, node, deep=False):
        keys = [k.value for k, _ in node.value]
        if twice := {k for k in keys if keys.count(k) > 1}: raise yaml.YAMLError(f"twice in one cell: {', '.join(sorted(twice))}")
        return super().construct_mapping(node, deep)


def options(source):
    "Split a code cell into its `#|` options and its code."
    lines = source.splitlines()
    head = [ln for ln in lines if ln.startswith("#|")]
    return yaml.load("\n".join(re.sub(r"^#\| ?", "", ln) for ln in head), Strict) or {}, "\n".join(ln for ln in lines if not ln.startswith("#|")).strip()


def output(out, save, raw=False):
    "One output of a cell as (is it an image, Markdown)."
    def shown(text): return div(".cell-output", fence(text, ".output"))
    if out.output_type == "error": return False, shown("\n".join(out.traceback[-1:]))
    if out.output_type == "stream": return False, "".join(out.text) if raw else shown("".join(out.text))
    mime = next((m for m in ORDER if m in out.data), None)
    if not mime: return False, ""
    text = "".join(out.data[mime])
    if mime in IMAGES: return True, save(text.encode() if IMAGES[mime] == "svg" else base64.b64decode(text), IMAGES[mime])
    return False, shown(text) if mime == "text/plain" else text


def code_cell(source, outputs, save, problems):
    "A code cell and its outputs, as its options ask."
    opts, code = options(source)
    parts, images, label = [], [], str(opts.get("label", ""))
    if opts.get("include") is False: return ""
    if opts.get("echo", True) and code:
        code = fence(code, ".python")
        parts.append(div(f'.fold summary="{opts.get("code-summary", "Code")}"', code) if opts.get("code-fold") is True else code)
    shown = outputs if opts.get("output", True) is not False else []
    for out in shown:
        is_image, text = output(out, lambda data, ext: save(label, data, ext), opts.get("output") == "asis")
        (images if is_image else parts).append(text)
    kind, caption = label[:3] if label[:4] in ("fig-", "tbl-") else "", opts.get("fig-cap") or opts.get("tbl-cap") or ""
    alt = str(opts.get("fig-alt") or "")
    if images and not alt: problems.append(f"a figure without alt text (#| fig-alt: ...) in the cell that begins {code[:60]!r}")
    pictures = [f"![]({path}){{alt={json.dumps(alt)}}}" for path in images]
    name = f"#{label} " if kind else ""
    if kind == "tbl" and parts: parts.append(div(f"{name}.captioned", parts.pop(), str(caption)))
    if pictures: parts.append(div(f"{name}.captioned", "\n".join(pictures), str(caption)) if caption else div(".image", *pictures))
    return "\n\n".join(parts)


def markdown(nb, save, problems):
    "A processed notebook as (front matter, Markdown)."
    front, parts = {}, []
    for cell in nb.cells:
        if cell.cell_type == "raw" and not front: front = yaml.safe_load(cell.source.strip().strip("-"))
        elif cell.cell_type == "markdown": parts.append(cell.source)
        elif cell.cell_type == "code": parts.append(code_cell(cell.source, cell.get("outputs", []), save, problems))
    return front, "\n\n".join(parts)


def pandoc(text, problems, *args):
    "Run pandoc on Markdown; its warnings (a formula, a citation or a reference that it cannot resolve) are problems."
    bundled = Path(pypandoc.__file__).parent/"files"/"pandoc"
    cmd = [str(bundled) if bundled.exists() else "pandoc", "--from=markdown", f"--lua-filter={TOOLS/'site.lua'}", "--citeproc", f"--lua-filter={TOOLS/'common.lua'}",
           f"--bibliography={NBS/'references.bib'}", *args]
    run = subprocess.run(cmd, input=text, capture_output=True, text=True, encoding="utf-8", timeout=300)
    if run.returncode: raise RuntimeError(f"pandoc failed: {run.stderr}")
    problems += [ln.removeprefix("[WARNING] ") for ln in run.stderr.splitlines() if ln.strip()]
    return run.stdout


# The plain site

def front_of(name):
    "Front matter of a processed notebook."
    return yaml.safe_load(next(c.source for c in read_nb(PROC/name).cells if c.cell_type == "raw").strip().strip("-"))


def link(name, fronts, attributes=""):
    "An HTML link to the page of a notebook."
    return f'<a href="{fronts[name]["output-file"]}"{attributes}>{plain(fronts[name]["title"])}</a>'


def plain(text):
    "Title text without Markdown marks, escaped for HTML."
    return html.escape(re.sub(r"[`*$]", "", str(text)))


def sidebar(current, parts, fronts):
    "The list of all pages; only the part of the page itself is unfolded."
    def item(n): return f'<li>{link(n, fronts, " aria-current=page" if n == current else "")}</li>'
    def items(names): return f"<ul>{''.join(map(item, names))}</ul>"
    return "\n".join(f"<details{' open'*(current in names)}><summary>{html.escape(part)}</summary>{items(names)}</details>" if part else items(names) for part, names in parts)


def page(name, parts, fronts, out, problems):
    "Render one processed notebook into `out`; returns its entries of the search index."
    target, mine = fronts[name]["output-file"], []
    folder = out/f"{Path(target).stem}_files"

    def save(label, data, ext):
        folder.mkdir(exist_ok=True)
        stem = label or "output"
        path = folder/f"{stem}-{sum(p.name.startswith(stem + '-') for p in folder.iterdir()) + 1}.{ext}"
        path.write_bytes(data)
        return f"{folder.name}/{path.name}"
    front, text = markdown(read_nb(PROC/name), save, mine)
    order = [n for _, names in parts for n in names]
    i = order.index(name)
    turn = (f'<span>← {link(order[i - 1], fronts, " rel=prev")}</span>' if i else "<span></span>") + \
           (f'<span>{link(order[i + 1], fronts, " rel=next")} →</span>' if i + 1 < len(order) else "")
    part = next(p for p, names in parts if name in names)
    values = dict(nav=sidebar(name, parts, fronts), turn=turn, part=html.escape(part), site=get_config().title, repo=get_config().git_url,
                  summary=plain(front.get("description", "")), **({"home": "1"} if name == "index.ipynb" else {}))
    heading = [] if re.search(r"^#+ References", text, flags=re.M) else ["--metadata=reference-section-title:References"]
    body = pandoc(f"---\n{yaml.dump(front)}---\n\n{text}", mine, "--to=html5", "--mathml", "--standalone", f"--template={TOOLS/'site.html'}",
                  "--toc", "--toc-depth=3", "--metadata=link-citations:true", *heading, *[f"--variable={k}={v}" for k, v in values.items() if v])
    body = re.sub(r'href="(?:\./)?(\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', body)
    body = re.sub(r'<h1( class="unnumbered" id="bibliography">References</)h1>', r"<h2\1h2>", body)
    (out/target).write_text(body, encoding="utf-8")
    problems += [f"{name}: {p}" for p in mine]
    return sections(body, target, html.unescape(plain(front["title"])))


def sections(body, target, title):
    "The sections and symbols of a page for the search: [address, page, heading, text]."
    def words(part): return unicodedata.normalize("NFKC", " ".join(html.unescape(re.sub(r"<[^>]*>", "", part)).split()))
    main = re.sub(r'<(script|style|annotation|nav|summary)\b.*?</\1>|<p class="part">.*?</p>|<h1>.*?</h1>', " ", re.search(r"<main.*</main>", body, flags=re.S)[0], flags=re.S)
    for part in re.split(r'(?=<h[2-4][^>]*\sid="|<span\s+id="[^"]+"\s+class="symbol")', main):
        head = re.match(r'<(h\d|span)[^>]*?\sid="([^"]+)"[^>]*>(.*?)</\1>', part, flags=re.S)
        symbol = head and head[1] == "span"
        text = re.sub(r"<pre.*?</pre>", "", part[head.end() if head else 0:], count=0, flags=re.S) if not symbol else part[head.end():]
        yield [f"{target}#{head[2]}" if head else target, title, words(head[3]) if head else title, words(text)[:400 if symbol else None]]


def llms(parts, fronts):
    "The text of llms.txt: what the site is, and its pages with their subtitles."
    about = HEAD.sub("", "\n\n".join(c.source for c in read_nb(NBS/"index.ipynb").cells if c.cell_type == "markdown")).split("\n## ")[0]
    lines = [f"# {get_config().title}", f"> {fronts['index.ipynb'].get('description', '')}", " ".join(plain_text(about).split())]
    for part, names in parts:
        lines += [f"## {part}", "\n".join(f"- [{fronts[n]['title']}]({fronts[n]['output-file']}): {fronts[n].get('description', '')}" for n in names)]
    return "\n\n".join(lines) + "\n"


def build(out, quarto=True, partial=False):
    "Write the site into the folder `out`, which keeps its old content until the new one is whole; returns the problems found."
    out, problems, new = Path(out).resolve(), check_pages(), PROC/"_site"
    lock = ROOT/".cache"/"site.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        process(partial)
        shutil.rmtree(new, ignore_errors=True)
        if quarto and shutil.which("quarto"):
            env = os.environ | {"MLCL_SITE": "processed", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
            if subprocess.run(["quarto", "render", "--no-cache"], cwd=PROC, env=env).returncode: sys.exit("Quarto stopped: the site is as it was before")
        else:
            problems += render(new)
            finish(new)
        old = out.with_name(f"{out.name}.old")
        if out.exists(): shutil.rmtree(old, ignore_errors=True), out.rename(old)
        shutil.move(new, out)
        shutil.rmtree(old, ignore_errors=True)
    return problems


def prepare():
    "What Quarto calls first: process the notebooks, unless `build` just did."
    if os.environ.get("MLCL_SITE") == "processed": return
    (PROC/".stamp.json").unlink(missing_ok=True)
    process()


def finish(out):
    "What follows the rendering: a list of all pages for language models."
    (out/"llms.txt").write_text(llms(*pages()), encoding="utf-8")


def pages():
    "What is in `_proc/`: the parts with their notebooks, and the front matter of each notebook."
    parts = [(part, [n for n in names if (PROC/n).exists()]) for part, names in navigation()]
    parts = [(part, names) for part, names in parts if names]
    return parts, {n: front_of(n) for _, names in parts for n in names}


def render(out):
    "Render what is in `_proc/` into the folder `out` by pandoc; returns the problems found."
    parts, fronts = pages()
    out.mkdir(parents=True)
    for path in PROC.glob("[!_.]*"):
        if path.suffix not in (".ipynb", ".bib"): (shutil.copytree if path.is_dir() else shutil.copy)(path, out/path.name)
    found = {n: [] for n in fronts}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = [e for es in pool.map(lambda n: list(page(n, parts, fronts, out, found[n])), fronts) for e in es]
    (out/"search.js").write_text(f"window.mlclSearch = {json.dumps(entries, ensure_ascii=False)};\n", encoding="utf-8")
    return sum(found.values(), [])


# README.md

def readme(index=NBS/"index.ipynb"):
    "The text of README.md, its pictures and the problems found: `index.ipynb` as plain GitHub Markdown, with links to the notebooks."
    nb, pictures, problems = read_nb(index), {}, []
    nb.path_ = index

    def picture(label, data, ext):
        name = f"README_files/{label}.{ext}"
        pictures[name] = data
        return name

    with chdir(NBS): FilterDefaults()(nb)
    front, text = markdown(tidy(nb, index), picture, problems)
    text = pandoc(f"# {front['title']}\n\n> {front['description']}\n\n{text}", problems, "--to=gfm", "--wrap=preserve")
    text = re.sub(r"\]\((?:\./)?(\w+)\.(ipynb|html)(#[^)]*)?\)", r"](nbs/\1.ipynb)", re.sub(r"^</?div.*>\n+", "", text, flags=re.M))
    return f"<!-- Made from nbs/index.ipynb by `make notebooks`; edit that. -->\n\n{text.strip()}\n", pictures, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="site", choices=["site", "readme", "prepare", "finish"])
    parser.add_argument("--out", type=Path, default=ROOT/"_site", help="folder of the site")
    parser.add_argument("--plain", action="store_true", help="pandoc even where Quarto is installed")
    parser.add_argument("--partial", action="store_true", help="print problems, but do not fail on them")
    parser.add_argument("--check", action="store_true", help="readme: write nothing, fail if README.md is out of step")
    args, path = parser.parse_args(), ROOT/"README.md"
    if args.what == "prepare": return prepare()
    if args.what == "finish": return finish(PROC/"_site")
    if args.what == "readme":
        text, pictures, problems = readme()
        files = {path: text.encode()} | {ROOT/name: data for name, data in pictures.items()}
        for file, data in files.items():
            if not args.check: file.parent.mkdir(exist_ok=True), file.write_bytes(data)
            elif not file.exists() or file.read_bytes() != data: problems.append(f"{file.name} is out of step with nbs/index.ipynb: run `make notebooks`")
    else:
        problems = build(args.out, not args.plain, args.partial)
        print(f"The site is written: open {os.path.relpath(args.out.resolve()/'index.html', START)}")
        if not shutil.which("quarto") or args.plain: print("It is rendered by pandoc: the same pages without Quarto's menus, sitemap and previews of links. "
                                                           "`pip install quarto-cli` brings Quarto.")
    for p in problems: print("problem:", p, file=sys.stderr)
    if problems and not args.partial: sys.exit(f"{len(problems)} problem(s)")


if __name__ == "__main__":
    main()
