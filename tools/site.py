"""The website from the notebooks: `python tools/site.py` writes `_site/`, `python tools/site.py readme` README.md.

`process.py` makes the pages in `_proc/`. Quarto renders them where it is installed, and calls `prepare` and `finish`
around that; else pandoc does, with the same style sheet, order and numbering.
"""
import argparse, base64, html, json, os, re, shutil, subprocess, sys, unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote
import pypandoc, yaml
from execnb.nbio import read_nb
from filelock import FileLock
from nbdev.config import get_config

sys.path.insert(0, str(Path(__file__).resolve().parent))
from process import NBS, PROC, ROOT, div, fence, options, plain_text, process, processed

TOOLS = ROOT/"tools"
IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
ORDER = ["text/markdown", *IMAGES, "text/latex", "text/plain"]
PANDOC = "Rendered by pandoc, without Quarto's menus, sitemap and previews: `pip install quarto-cli` brings Quarto."


# One notebook as Markdown

def shown(text): return div(".cell-output", fence(text, ".output"))


def output(out, opts, folder, media):
    "One output of a cell as Markdown; its picture goes to `media`, under its path."
    if out.output_type == "error": return shown(out.traceback[-1])
    if out.output_type == "stream": return shown("".join(out.text))
    mime = next((m for m in ORDER if m in out.data), None)
    text = "".join(out.data.get(mime, ""))
    if mime not in IMAGES: return shown(text) if mime == "text/plain" else text
    stem = f"{folder}/{opts.get('label', 'output')}"
    same = sum(path.startswith(stem) for path in media)
    path = f"{stem}{f'-{same + 1}' if same else ''}.{IMAGES[mime]}"
    media[path] = text.encode() if IMAGES[mime] == "svg" else base64.b64decode(text)
    return f"![]({path}){{alt={json.dumps(opts.get('fig-alt', ''))}}}"


def code_cell(cell, folder, media):
    "A code cell and its outputs as Markdown, as its options ask."
    (opts, code), parts = options(cell.source), []
    if opts.get("include") is False: return ""
    if opts.get("echo", True) and code:
        code = fence(code, ".python")
        fold = f'.fold summary="{opts.get("code-summary", "Code")}"'
        parts.append(div(fold, code) if opts.get("code-fold") is True else code)
    if opts.get("output", True) is not False: parts += [output(out, opts, folder, media) for out in cell.outputs]
    label, caption = opts.get("label", ""), opts.get("fig-cap") or opts.get("tbl-cap")
    pictures = "\n".join(p for p in parts if p.startswith("![]("))
    parts = [p for p in parts if not p.startswith("![](")]
    captioned = f"#{label} .captioned" if label[:4] in ("fig-", "tbl-") else ".captioned"
    if label.startswith("tbl-"): parts.append(div(captioned, parts.pop(), caption))
    if pictures: parts.append(div(captioned, pictures, caption) if caption else div(".image", pictures))
    return "\n\n".join(parts)


def markdown(nb, folder, media):
    "A processed notebook, below its front matter, as Markdown."
    return "\n\n".join(code_cell(c, folder, media) if c.cell_type == "code" else c.source for c in nb.cells[1:])


def front_of(nb): return yaml.safe_load(nb.cells[0].source.strip().strip("-"))


def pandoc(text, problems, *args):
    "Run pandoc on Markdown; its warnings (a formula, a citation or a reference that it cannot resolve) are problems."
    cmd = [pypandoc.get_pandoc_path(), "--from=markdown", f"--lua-filter={TOOLS/'site.lua'}", "--citeproc",
           f"--lua-filter={TOOLS/'common.lua'}", f"--bibliography={NBS/'references.bib'}", *args]
    run = subprocess.run(cmd, input=text, capture_output=True, text=True, encoding="utf-8", timeout=300)
    if run.returncode: raise RuntimeError(f"pandoc failed: {run.stderr}")
    problems += [ln.removeprefix("[WARNING] ") for ln in run.stderr.splitlines() if ln.strip()]
    return run.stdout


# The pages that pandoc makes

def navigation():
    "Sidebar of `_quarto.yml`: [(part, [notebook names])]."
    quarto = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))
    return [(c["section"], c["contents"]) for c in quarto["website"]["sidebar"]["contents"]]


def fronts_of():
    "Front matter and address of each page, in the order of the sidebar."
    return {n: front_of(read_nb(PROC/n)) | {"href": f"{Path(n).stem}.html"} for _, names in navigation() for n in names}


def page(name, fronts, out):
    "Render one processed notebook into the folder `out`; returns its entries of the search and its problems."
    front, media, problems, order = fronts[name], {}, [], list(fronts)
    text = markdown(read_nb(PROC/name), f"{Path(name).stem}_files", media)
    for path, data in media.items():
        (out/path).parent.mkdir(exist_ok=True)
        (out/path).write_bytes(data)
    meta = {"site": get_config().title, "repo": get_config().git_url, **front, "nav": []}
    for part, names in navigation():
        pages = [fronts[n] | {"here": n == name} for n in names]
        meta["nav"].append({"part": part, "here": name in names, "pages": pages})
        if name in names: meta["part"] = part
    at = order.index(name)
    meta |= {turn: fronts[order[i]] for turn, i in (("prev", at - 1), ("next", at + 1)) if 0 <= i < len(order)}
    if not re.search(r"^#+ References", text, flags=re.M): meta["reference-section-title"] = "References"
    body = pandoc(f"---\n{yaml.dump(meta | {'link-citations': True})}---\n\n{text}", problems, "--to=html5", "--mathml",
                  "--standalone", "--wrap=preserve", f"--template={TOOLS/'site.html'}", "--toc", "--toc-depth=3")
    body = re.sub(r'href="(?:\./)?(\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', body)
    body = re.sub(r'<h1( class="unnumbered" id="bibliography">References</)h1>', r"<h2\1h2>", body)
    (out/front["href"]).write_text(body, encoding="utf-8")
    return list(sections(body, front["href"], plain_text(front["title"]))), [f"{name}: {p}" for p in problems]


def sections(body, target, title):
    "The sections and symbols of a page for the search: [address, page, heading, text]."
    def words(part): return unicodedata.normalize("NFKC", " ".join(html.unescape(re.sub(r"<[^>]*>", "", part)).split()))
    quiet = r'<(script|style|nav|summary|pre)\b.*?</\1>|<p class="part">.*?</p>|<h1>.*?</h1>'
    main = re.sub(quiet, " ", re.search(r"<main.*</main>", body, flags=re.S)[0], flags=re.S)
    for part in re.split(r'(?=<h[2-4][^>]*\sid="|<span\s+id="[^"]+"\s+class="symbol")', main):
        head = re.match(r'<(h\d|span)[^>]*?\sid="([^"]+)"[^>]*>(.*?)</\1>', part, flags=re.S)
        text = words(part[head.end() if head else 0:])
        yield [f"{target}#{head[2]}" if head else target, title, words(head[3]) if head else title, text[:400]]


def render(out):
    "Render what is in `_proc/` into the folder `out` by pandoc; returns the problems found."
    beside = shutil.ignore_patterns("_*", ".*", "[0-9]*.ipynb", "index.ipynb")
    shutil.copytree(PROC, out, ignore=lambda folder, names: beside(folder, names) if Path(folder) == PROC else [])
    fronts = fronts_of()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries, problems = zip(*pool.map(lambda name: page(name, fronts, out), fronts))
    search = json.dumps(sum(entries, []), ensure_ascii=False)
    (out/"search.js").write_text(f"window.mlclSearch = {search};\n", encoding="utf-8")
    return sum(problems, [])


# The whole site

def build(out, quarto=True):
    "Write the site into the folder `out`, which keeps its content until the new one is whole; returns the problems."
    out, new, lock, problems = Path(out).resolve(), PROC/"_site", ROOT/".cache"/"site.lock", []
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        shutil.rmtree(PROC, ignore_errors=True)
        process()
        if quarto and shutil.which("quarto"):
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            run = subprocess.run(["quarto", "render", "--no-cache"], cwd=PROC, env=os.environ | {"PATH": path})
            if run.returncode: sys.exit("Quarto stopped: the site is as it was before")
        else:
            problems = render(new)
            finish(new)
        old = out.with_name(f"{out.name}.old")
        if out.exists(): shutil.rmtree(old, ignore_errors=True), out.rename(old)
        shutil.move(new, out)
        shutil.rmtree(old, ignore_errors=True)
    return problems


def finish(out):
    "What follows either rendering: links that lead nowhere become words; a list of all pages for language models."
    places = places_of(out)
    for path in out.glob("*.html"):
        path.write_text(unlink(path.read_text(encoding="utf-8"), places, path.name), encoding="utf-8")
    (out/"llms.txt").write_text(llms(), encoding="utf-8")


def places_of(out):
    "All that links within a site can lead to: its pages, and their anchors."
    pages = {path.name: path.read_text(encoding="utf-8") for path in out.glob("*.html")}
    return {*pages} | {f"{name}#{anchor}" for name in pages for anchor in re.findall(r'\sid="([^"]+)"', pages[name])}


def unlink(text, places, page):
    "HTML that links to symbols only where they have an anchor; a plain word in code means its symbol on its page only."
    def keep(link):
        target, anchor, attributes, words = link.groups()
        word = re.fullmatch("<code>[a-z]+</code>", words) and target != page
        if word or f"{target}#{unquote(anchor)}" not in places: return f"<span{attributes}>{words}</span>"
        return link[0]
    return re.sub(r'<a\s+href="(?:\./)?(\w+\.html)#([^"]+)"([^>]*)>(.*?)</a>', keep, text, flags=re.S)


def llms():
    "The text of llms.txt: what the site is, and its pages by subject, with their subtitles."
    fronts, first = fronts_of(), read_nb(PROC/"index.ipynb").cells
    about = "\n\n".join(c.source for c in first if c.cell_type == "markdown").split("\n## ")[0]
    about = " ".join(plain_text(re.sub(r"(?m)^:::.*", "", about)).split())
    lines = [f"# {get_config().title}", f"> {fronts['index.ipynb']['description']}", about]
    for part, names in navigation():
        pages = [f"- [{f['title']}]({f['href']}): {f['description']}" for f in map(fronts.get, names)]
        lines += [f"## {part}", "\n".join(pages)]
    return "\n\n".join(lines) + "\n"


def readme(index=NBS/"index.ipynb"):
    "`index.ipynb` as GitHub's Markdown with links to the notebooks: its files {path: content}, and the problems."
    nb, media, problems = processed(index), {}, []
    site = f"The easiest way to read it is [its website]({get_config().doc_host}{get_config().doc_baseurl})."
    text = (f"# {{title}}\n\n> {{description}}\n\n{site}\n\n".format(**front_of(nb))
            + markdown(nb, "README_files", media))
    text = re.sub(r"^</?div.*>\n+", "", pandoc(text, problems, "--to=gfm", "--wrap=preserve"), flags=re.M)
    text = re.sub(r"\]\((?:\./)?(\w+)\.(ipynb|html)(#[^)]*)?\)", r"](nbs/\1.ipynb)", text)
    made = "<!-- Made from nbs/index.ipynb by `make notebooks`; edit that. -->"
    return media | {"README.md": f"{made}\n\n{text.strip()}\n".encode()}, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="site", choices=["site", "readme", "prepare", "finish"])
    parser.add_argument("--out", type=Path, default=ROOT/"_site", help="folder of the site")
    parser.add_argument("--plain", action="store_true", help="pandoc even where Quarto is installed")
    args = parser.parse_args()
    if args.what == "prepare": return process()
    if args.what == "finish": return finish(PROC/"_site")
    if args.what == "readme":
        files, problems = readme()
        for name, data in files.items():
            (ROOT/name).parent.mkdir(exist_ok=True)
            (ROOT/name).write_bytes(data)
    else:
        problems = build(args.out, not args.plain)
        print(f"The site is written: open {os.path.relpath(args.out/'index.html')}")
        if args.plain or not shutil.which("quarto"): print(PANDOC)
    if problems: sys.exit("\n".join(["These are problems:", *problems]))


if __name__ == "__main__":
    main()
