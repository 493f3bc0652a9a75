"What becomes of the notebooks before they are rendered, so that Quarto and pandoc read them alike."
import ast, functools, re, shutil
from contextlib import chdir
from pathlib import Path
import yaml
from bs4 import BeautifulSoup
from execnb.nbio import mk_cell, read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor
from nbdev.processors import FilterDefaults
from nbdev.showdoc import showdoc_nm

ROOT = Path(__file__).resolve().parent.parent
NBS, PROC = ROOT/"nbs", ROOT/"_proc"
FRESH = {"symbols.ipynb", "bibliography.ipynb", "96_api.ipynb"} # they collect what others say: run at each build
QUICK, QUICK_PAGE = ROOT/"results"/"quick.sqlite", "49_quick.ipynb" # shows the reader's own quick study
GLOSSARY = "06_glossary.ipynb"
DOWNLOAD = '<a class="download" href="notebooks/{0}" download="{0}">Download this notebook</a>'
HEAD = re.compile(r"\A# (.+)\n+> (.+)\s*")
NUMBER = re.compile(r"[-+−±]?[\d.,]+(e[-+]?\d+)?( ?%)?( ?\[[^a-z]*\])?|[-–—]|NaN|nan|")
SKIPPED = "FrontmatterProc add_show_docs insert_warning clean_show_doc exec_show_docs add_fold mv_exports".split()
# Code, formulas, links, attributes, references, headings, tables, fences: no place for a link to the glossary
QUIET = r"(`{3,}).*?\1|`[^`]+`|\$\$.*?\$\$|\$[^$]+\$|!?\[[^\]]*\](?:\([^)]*\)|\{[^}]*\})|<[^>]+>|\{[^}]*\}|@[\w-]+" \
        r"|^(?:#|\||:::|>)[^\n]*$"


class Pages(FilterDefaults):
    "nbdev's processors and ours. The pages show the source of what they export, so nothing is run to document it."
    def procs(self):
        kept = [p for p in self.base_procs() if p.__name__ not in SKIPPED]
        return [Title, *kept, fold, as_markdown, Parts, MakeWay]


class Title(Processor):
    "Front matter from the first cell, with the number of the page; what else the cell says stays."
    def begin(self):
        stem, first = Path(self.nb.path_).stem, self.nb.cells[0]
        found = HEAD.match(first.source)
        if not found: raise ValueError(f"{stem}: expected '# Title' and '> subtitle' first, got {first.source[:60]!r}")
        front = dict(title=f"{stem[:2]} · {found[1]}" if stem[:2].isdigit() else found[1], description=found[2])
        first.source = first.source[found.end():] or None
        self.nb.cells.insert(0, mk_cell(f"---\n{yaml.safe_dump(front, allow_unicode=True)}---\n", "raw"))


def options(source):
    "The `#|` options of a code cell, and its code. An option that stands twice is refused, as Quarto refuses it."
    head, code = ([ln for ln in source.splitlines() if ln.startswith("#|") == want] for want in (True, False))
    keys = [k for ln in head for k in re.findall(r"^#\|\s*([\w-]+):", ln)]
    if len(keys) > len({*keys}): raise ValueError(f"options: expected each once in a cell, got {', '.join(keys)}")
    return yaml.safe_load("\n".join(re.sub(r"^#\| ?", "", ln) for ln in head)) or {}, "\n".join(code).strip()


def fold(cell):
    "Prose leads: the code of a figure and cells of imports are folded, unless the cell says otherwise."
    if cell.cell_type != "code": return
    opts, code = options(cell.source)
    imports = code and all(re.match(r"import |from |[\s)#]|$", line) for line in code.splitlines())
    if {"echo", "include", "code-fold"} & {*opts} or not (imports or "fig-alt" in opts): return
    summary = "Imports" if imports else "Code of the figure"
    cell.source = f'#| code-fold: true\n#| code-summary: "{summary}"\n{cell.source}'


def as_markdown(cell):
    """HTML outputs as Markdown: for any HTML, Quarto would load scripts from other hosts that none of ours needs.
    A formula that SymPy prints is displayed: within a line, pandoc would set its fractions too small to be read."""
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        if "text/latex" in data:
            formula = "".join(data["text/latex"])
            data["text/latex"] = [re.sub(r"^\$\\displaystyle (.*)\$$", r"$$\1$$", formula, flags=re.S)]
        if "text/html" not in data: continue
        text = re.sub(r"<style scoped>.*?</style>", "", "".join(out.data["text/html"]), flags=re.S)
        html = fence(aligned(text) if "dataframe" in text else text, "=html")
        out.data = {"text/markdown": div(".table-box", html) if "<table" in text else html}


def aligned(text):
    "An HTML table whose columns of numbers are marked, so that they are set to the right."
    soup = BeautifulSoup(text, "html.parser")
    soup.table["data-quarto-disable-processing"] = "true"
    rows = [row(["th", "td"])[::-1] for row in soup("tr")] # from the right: there all rows have their cells
    for j in range(max(map(len, rows))):
        column = [row[j] for row in rows if len(row) > j]
        cells = [c for c in column if c.name == "td"]
        if cells and all(NUMBER.fullmatch(c.get_text().strip()) for c in cells):
            for cell in column: cell["class"] = "number-cell"
    return str(soup)


class Parts(Processor):
    "Labels above the source of what a page defines; what a hidden cell prints as Markdown belongs to the page."
    def begin(self): self.labelled = set()
    def end(self): self.nb.cells = [part for cell in self.nb.cells for part in self.parts(cell)]

    def parts(self, cell):
        outs = [o.get("data", {}).get("text/markdown") for o in cell.get("outputs", [])]
        if cell.cell_type != "code": return [cell]
        if "exports" in (cell.directives_ or {}): return [*symbols(cell, self.labelled), cell]
        opts, _ = options(cell.source)
        if opts.get("echo", True) or "label" in opts or not all(outs): return [cell]
        return [mk_cell("".join(text), "markdown") for text in outs]


def symbols(cell, labelled):
    """A label for the public functions, methods and classes that a cell defines, which other pages link to.
    `labelled` holds what the page has labels for: of `Study` and `study` the first gets it."""
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    names = [showdoc_nm(node) for node in ast.parse(cell.source).body if isinstance(node, kinds)]
    new = {n.lower(): n for n in reversed(names) if not n.split(".")[-1].startswith("_") and n.lower() not in labelled}
    labelled.update(new)
    labels = [f"[{new[at]}]{{#{at} .symbol}}" for at in reversed(new)]
    return [mk_cell(" ".join(labels), "markdown")] if labels else []


class MakeWay(Processor):
    "A heading gives way to a symbol of the same name."
    def begin(self): self.taken = {a for c in self.nb.cells for a in re.findall(r"\{#([\w.]+) \.symbol\}", c.source)}

    def cell(self, cell):
        if cell.cell_type == "markdown": cell.source = re.sub(r"(?m)^#{2,4} ([^{\n]+?) *$", self.renamed, cell.source)

    def renamed(self, heading):
        slug = re.sub(r"[^\w. -]", "", plain_text(heading[1]).lower()).strip().replace(" ", "-")
        return f"{heading[0].rstrip()} {{#about-{slug}}}" if slug in self.taken else heading[0]


def plain_text(text):
    "Markdown without marks, links and the backslashes of its formulas."
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"[`*$\\{}]", "", text)).replace('"', "'").strip()


@functools.cache
def glossary():
    "The terms of the glossary page: [(pattern, anchor, definition)], long patterns first."
    text = "\n".join(c.source for c in read_nb(NBS/GLOSSARY).cells if c.cell_type == "markdown")
    found = re.findall(r'^\[([^\]]+)\]\{#([\w-]+)(?: match="([^"]*)")?\}\n: +(.+)$', text, flags=re.M)
    terms = [(form.replace(" ", r"\s+"), anchor, plain_text(says))
             for term, anchor, match, says in found for form in (match or f"{term}s?").split("|")]
    return sorted(terms, key=lambda t: -len(t[0]))


def define(nb, terms):
    "Link the first use of a term in the prose of a page to the glossary; its definition shows on hover."
    forms = "|".join(f"(?P<t{i}>{form})" for i, (form, *_) in enumerate(terms))
    places, done = re.compile(rf"{QUIET}|(?<![\w-])(?:{forms})(?![\w-])", flags=re.S | re.M | re.I), set()

    def link(found):
        _, anchor, says = terms[int(found.lastgroup[1:])] if found.lastgroup else ("", "", "")
        if not anchor or anchor in done: return found[0]
        done.add(anchor)
        return f'[{found[0]}]({GLOSSARY}#{anchor} "{says}"){{.term}}'
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = places.sub(link, cell.source)


@functools.cache
def link_to_pages():
    "Let nbdev's links to the symbols of the package lead to the pages that define them."
    homes, symbols = {}, NbdevLookup().syms
    for path in NBS.glob("*.ipynb"):
        module = re.search(r"#\| default_exp ([\w.]+)", path.read_text(encoding="utf-8"))
        if module: homes[f"mlcl/{module[1].replace('.', '/')}.py"] = f"{path.stem}.html"
    for name, (address, file, code) in symbols.items():
        if file in homes: symbols[name] = f"{homes[file]}#{address.partition('#')[2]}", file, code


def processed(path):
    "A notebook as both renderers read it."
    link_to_pages()
    nb = read_nb(path)
    with chdir(NBS):
        if path.name in FRESH or path.name == QUICK_PAGE and QUICK.exists():
            CaptureShell(mpl_format="svg").run_all(nb, exc_stop=True)
        Pages()(nb)
    return nb


def process():
    "All notebooks into `_proc/`, with what stands beside them, and the notebooks themselves for download."
    shutil.copytree(NBS, PROC, ignore=shutil.ignore_patterns(".*", "*.ipynb"), dirs_exist_ok=True)
    (PROC/"notebooks").mkdir(exist_ok=True)
    for path in sorted(NBS.glob("*.ipynb")):
        shutil.copy(path, PROC/"notebooks")
        nb = processed(path)
        if path.name != GLOSSARY: define(nb, glossary())
        text = "\n".join(c.source for c in nb.cells)
        if re.search("(?m)^#+ References", text) and "{#refs}" not in text: # else Quarto adds a second section for them
            nb.cells.append(mk_cell(div("#refs"), "markdown"))
        nb.cells.append(mk_cell(DOWNLOAD.format(path.name), "markdown"))
        write_nb(nb, PROC/path.name)


# Pieces of Pandoc's Markdown

def fence(text, attributes):
    "A code block around `text`, whatever backticks it holds."
    ticks = "`"*max([3] + [len(t) + 1 for t in re.findall("`{3,}", text)])
    return f"{ticks} {{{attributes}}}\n{text.rstrip()}\n{ticks}\n"


def div(attributes, *parts):
    "A fenced div; longer fences outside than inside."
    colons = ":"*max([3] + [len(t) + 1 for p in parts for t in re.findall("^:{3,}", p, flags=re.M)])
    return f"{colons} {{{attributes}}}\n" + "\n\n".join(parts) + f"\n\n{colons}\n"
