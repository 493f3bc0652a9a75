// For both renderers: what scrolls sideways can be reached by the keyboard. For the pandoc pages, what Quarto brings along: theme, search,
// copy buttons, unfolding. No library, no network; works from file://.
(function () {
  const root = document.documentElement, ours = root.dataset.renderer === 'pandoc', dark = matchMedia('(prefers-color-scheme: dark)');
  const memory = {
    get(key) { try { return localStorage.getItem(key); } catch (e) { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch (e) { /* a private window forgets */ } },
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // Theme: the reader's choice, else the system's
  function paint() {
    if (!ours) return;
    root.dataset.theme = memory.get('mlcl-theme') || (dark.matches ? 'dark' : 'light');
    const button = document.querySelector('.theme');
    if (!button) return;
    const next = root.dataset.theme === 'dark' ? 'light' : 'dark';
    button.textContent = next === 'dark' ? '☾' : '☀';
    button.ariaLabel = button.title = 'Switch to the ' + next + ' theme';
  }
  paint();
  dark.addEventListener('change', paint);

  // Search over `window.mlclSearch`, made at build time: [address, page, heading, text] for each section and symbol
  const plain = (text) => text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();
  function find(query, entries) {
    const words = plain(query).split(/\s+/).filter(Boolean);
    const score = ([, page, heading, text]) => {
      const [p, h, t] = [page, heading, text].map((x) => plain(x).replace(/^\d\d · /, '')), whole = p + ' ' + h + ' ' + t;
      if (!words.length || !words.every((w) => whole.includes(w))) return 0;
      return words.reduce((sum, w) => sum + 12 * (h === w) + 8 * h.includes(w) + 4 * p.includes(w) + Math.min(3, t.split(w).length - 1), 1);
    };
    return entries.map((entry) => ({entry, score: score(entry)})).filter((r) => r.score).sort((a, b) => b.score - a.score).map((r) => r.entry);
  }
  function excerpt(text, query) {
    const word = plain(query).split(/\s+/).find((w) => w && plain(text).includes(w)) || '', at = word ? text.toLowerCase().indexOf(word) : -1;
    if (at < 0) return [text.slice(0, 140)];
    const from = at > 60 ? text.indexOf(' ', at - 60) + 1 : 0;
    return [(from ? '… ' : '') + text.slice(from, at), make('mark', {}, text.slice(at, at + word.length)), text.slice(at + word.length, at + 90) + ' …'];
  }
  function search() {
    const input = make('input', {type: 'search', placeholder: 'Search the book', ariaLabel: 'Search the book', autocomplete: 'off'});
    const says = make('p', {className: 'says'}), list = make('ul', {}), close = make('button', {type: 'button', textContent: 'Close'});
    says.setAttribute('role', 'status');
    const dialog = make('dialog', {className: 'search', ariaLabel: 'Search'}, make('div', {className: 'ask'}, input, close), says, list);
    function show() {
      const found = find(input.value, window.mlclSearch || []), shown = found.slice(0, 20);
      says.textContent = !input.value.trim() || !window.mlclSearch ? '' : found.length ? found.length + (found.length === 1 ? ' place' : ' places') : 'Nothing found: try fewer or shorter words';
      list.replaceChildren(...shown.map(([address, page, heading, text]) =>
        make('li', {}, make('a', {href: address}, make('b', {}, heading === page ? page : page + ' › ' + heading), make('span', {}, ...excerpt(text, input.value))))));
    }
    function step(event) {
      const links = [...list.querySelectorAll('a')], at = links.indexOf(document.activeElement);
      const move = {ArrowDown: at + 1, ArrowUp: at - 1}[event.key];
      if (event.key === 'Escape') dialog.close(); // a search box would only be emptied
      if (event.key === 'Enter' && document.activeElement === input && links.length) links[0].click();
      if (move === undefined) return;
      event.preventDefault();
      (move < 0 ? input : links[Math.min(move, links.length - 1)] || input).focus();
    }
    function open() {
      if (!window.mlclSearch) document.head.append(make('script', {src: 'search.js', onload: show}));
      dialog.showModal();
      input.select();
    }
    input.addEventListener('input', show);
    dialog.addEventListener('keydown', step);
    dialog.addEventListener('click', (event) => { if (event.target === dialog || event.target.closest('a')) dialog.close(); });
    close.addEventListener('click', () => dialog.close());
    document.addEventListener('keydown', (event) => {
      const typing = event.target.closest('input, select, textarea, dialog');
      if ((event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) || (event.key === 'k' && (event.ctrlKey || event.metaKey))) { event.preventDefault(); open(); }
    });
    document.body.append(dialog);
    return open;
  }

  // Code: a button that copies, one for all folded cells
  function copies(pre) {
    const button = make('button', {type: 'button', className: 'code-copy-button', textContent: 'Copy', ariaLabel: 'Copy this code'});
    const box = pre.parentElement.matches('.sourceCode') ? pre.parentElement : make('div', {className: 'sourceCode'});
    if (box !== pre.parentElement) { pre.replaceWith(box); box.append(pre); }
    box.append(button);
    button.addEventListener('click', async () => {
      try { await navigator.clipboard.writeText(pre.textContent.trimEnd()); button.textContent = 'Copied'; }
      catch (e) { getSelection().selectAllChildren(pre); button.textContent = document.execCommand('copy') ? 'Copied' : 'Selected'; }
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    });
  }
  function unfold() {
    const folds = all('details.code-fold'), button = make('button', {type: 'button', textContent: 'Show code', title: 'Unfold or fold the code of the figures'});
    button.addEventListener('click', () => {
      const open = folds.some((f) => !f.open);
      folds.forEach((f) => { f.open = open; });
      button.textContent = open ? 'Hide code' : 'Show code';
    });
    return folds.length ? [button] : [];
  }
  // Only what scrolls sideways can be reached by the tabulator key
  function reach() {
    all('main :is(pre, .table-box, .display, figure, figure > p, .image, figure > div)').forEach((e) => {
      if (e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX !== 'visible') e.tabIndex = 0;
      else if (e.tabIndex === 0) e.removeAttribute('tabindex');
    });
  }

  addEventListener('DOMContentLoaded', () => {
    reach();
    for (const change of ['resize', 'load']) addEventListener(change, reach);
    if (document.fonts) document.fonts.ready.then(reach);
    document.addEventListener('toggle', reach, true);
    if (!ours) return;
    const open = search(), theme = make('button', {type: 'button', className: 'theme'});
    const find = make('button', {type: 'button', className: 'find', title: 'Search (press /)'}, 'Search');
    find.addEventListener('click', open);
    theme.addEventListener('click', () => { memory.set('mlcl-theme', root.dataset.theme === 'dark' ? 'light' : 'dark'); paint(); });
    document.querySelector('.tools').append(find, ...unfold(), theme);
    paint();
    all('main pre:not(.output)').forEach(copies);
    const toc = document.querySelector('.toc');
    if (toc) toc.open = matchMedia('(min-width: 75em)').matches;
    reach();
  });
  addEventListener('beforeprint', () => all('main details:not(.toc)').forEach((d) => { d.open = true; }));
})();
