-- Pandoc filter: Quarto's numbered equations, figures and tables, its references and its callouts, for HTML and GitHub Markdown.
local NAMES = {fig = 'Figure', tbl = 'Table', eq = 'Equation', sec = 'Section'}
local CALLOUTS = {note = true, tip = true, warning = true, caution = true, important = true}
local html, count, refs = FORMAT:match 'html', {}, {}

local function warn(text) io.stderr:write('[WARNING] ' .. text .. '\n') end
local function kind(id) return NAMES[id:match '^(%a+)%-' or ''] and id:match '^(%a+)%-' end
local function raw(text) return pandoc.RawBlock('html', text) end

local function register(id, text)
  if refs[id] then warn('label ' .. id .. ' occurs twice') end
  local k = kind(id)
  if not text then
    count[k] = (count[k] or 0) + 1
    text = tostring(count[k])
  end
  refs[id] = text
  return text
end

-- "Figure 2: " before a caption; an unlabelled one keeps its caption as it is.
local function numbered(id, inlines)
  if not kind(id) then return inlines end
  local start = pandoc.Str(NAMES[kind(id)] .. '\u{a0}' .. register(id) .. ':')
  return pandoc.Inlines{html and pandoc.Span({start}, {class = 'number'}) or start, pandoc.Space()} .. inlines
end

local function figure(content, caption, attr)
  if html then return pandoc.Figure(content, {pandoc.Plain(caption)}, attr) end
  return pandoc.Blocks(content) .. {pandoc.Para{pandoc.Emph(caption)}}
end

local function callout(div, type)
  local title, body = div.attributes.title, div.content
  local inlines = title and pandoc.Inlines(title)
  if not title and body[1] and body[1].t == 'Header' then inlines = body:remove(1).content end
  local head = inlines or pandoc.Inlines(type:sub(1, 1):upper() .. type:sub(2))
  if div.attributes.collapse and div.attributes.collapse ~= 'false' then
    local summary = pandoc.write(pandoc.Pandoc{pandoc.Plain(head)}, 'html'):gsub('%s+$', '')
    local start = html and '<details class="callout callout-' .. type .. '">' or '<details>'
    return pandoc.Blocks{raw(start .. '<summary>' .. summary .. '</summary>')} .. body .. {raw '</details>'}
  end
  if not html then
    local start = inlines and pandoc.Blocks{pandoc.Para{pandoc.Strong(inlines)}} or pandoc.Blocks{}
    local name = pandoc.Div({pandoc.Para{pandoc.Str(type)}}, {class = 'title'})
    return pandoc.Div(pandoc.Blocks{name} .. start .. body, {class = type})
  end
  local titled = pandoc.Div({pandoc.Div({pandoc.Plain(head)}, {class = 'callout-title-container'})}, {class = 'callout-header'})
  return pandoc.Div({titled, pandoc.Div(body, {class = 'callout-body'})}, {class = 'callout callout-' .. type, role = 'note'})
end

local function label_equations(inlines)
  for i = #inlines, 1, -1 do
    local after = inlines[i + 1]
    local at = after and (after.t == 'Space' or after.t == 'SoftBreak') and i + 2 or i + 1
    local id, rest = (inlines[at] and inlines[at].text or ''):match '^{#(eq%-[%w_-]+)}(.*)$'
    if inlines[i].t == 'Math' and id then
      for _ = i + 1, at do inlines:remove(i + 1) end
      if rest ~= '' then inlines:insert(i + 1, pandoc.Str(rest)) end
      inlines[i] = pandoc.Span({inlines[i]}, {id = id, class = 'equation'})
    end
  end
  return inlines
end

local structure = {
  traverse = 'topdown',
  Header = function(h) if kind(h.identifier) == 'sec' then register(h.identifier, pandoc.utils.stringify(h)) end end,
  Inlines = label_equations,
  Image = function(i)
    if not html and i.src:match '%.ipynb$' then return pandoc.Link(i.attributes.alt or pandoc.utils.stringify(i.caption), i.src) end
  end,
  Span = function(s)
    if not html and s.classes:includes 'symbol' then return pandoc.Inlines{} end
    if not s.classes:includes 'equation' then return end
    local n = '(' .. register(s.identifier) .. ')'
    if not html then return pandoc.Math('DisplayMath', s.content[1].text .. '\\tag{' .. n:sub(2, -2) .. '}') end
    s.content:insert(pandoc.Span({pandoc.Str(n)}, {class = 'eqno'}))
    return s
  end,
  Figure = function(f)
    local text = numbered(f.identifier, f.caption.long[1] and f.caption.long[1].content or pandoc.Inlines{})
    f.caption.long = {pandoc.Plain(text)}
    if html then return f, false end
    return figure(f.content, text), false
  end,
  Table = function(t)
    if not html then for _, spec in ipairs(t.colspecs) do spec[2] = nil end end
    local caption = t.caption.long[1]
    if caption then
      local last = caption.content[#caption.content]
      local id = last and last.text and last.text:match '^{#(tbl%-[%w_-]+)}$'
      if id then
        t.identifier = id
        caption.content:remove()
        if #caption.content > 0 and caption.content[#caption.content].t == 'Space' then caption.content:remove() end
      end
      caption.content = numbered(t.identifier, caption.content)
      t.caption.long = {caption}
    end
    if not html then
      t.identifier = ''
      return t
    end
    return t
  end,
  Div = function(d)
    for type in pairs(CALLOUTS) do
      if d.classes:includes('callout-' .. type) then return callout(d, type) end
    end
    if d.classes:includes 'fold' and html then
      local start = raw('<details class="code-fold"><summary>' .. (d.attributes.summary or 'Code') .. '</summary>')
      return pandoc.Blocks{start} .. d.content .. {raw '</details>'}
    end
    local k = kind(d.identifier)
    if (k == 'fig' or k == 'tbl' or d.classes:includes 'captioned') and d.content[#d.content].t == 'Para' then
      local caption = numbered(d.identifier, d.content:remove().content)
      return figure(d.content, caption, pandoc.Attr(d.identifier, {k == 'tbl' and 'table' or 'image'})), k == 'fig'
    end
    if not html and not CALLOUTS[d.classes[1]] and d.classes[1] ~= 'title' then return d.content end
  end,
}

local function reference(c)
  local k, text = kind(c.id), refs[c.id]
  if not text then
    warn('reference @' .. c.id .. ' has no label on this page')
    return pandoc.Str('?')
  end
  if k ~= 'sec' and c.mode ~= 'SuppressAuthor' then text = NAMES[k] .. '\u{a0}' .. (k == 'eq' and '(' .. text .. ')' or text) end
  return html and pandoc.Link(text, '#' .. c.id, '', {class = 'ref'}) or pandoc.Str(text)
end

local references = {
  CodeBlock = function(c) if not html and c.classes:includes 'output' then return pandoc.CodeBlock(c.text, {class = 'text'}) end end,
  Cite = function(c)
    if not kind(c.citations[1].id) then return end
    local out = pandoc.Inlines{}
    for i, one in ipairs(c.citations) do
      if i > 1 then out:extend{pandoc.Str(','), pandoc.Space()} end
      out:insert(reference(one))
    end
    return out
  end,
  RawBlock = function(r)
    if r.text:match '^<!%-%-' then return {} end
    if not html and r.format == 'html' and r.text:match '<table' then return pandoc.read(r.text, 'html').blocks end
  end,
}

return {structure, references}
