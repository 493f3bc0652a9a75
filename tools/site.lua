-- Pandoc filter: Quarto's numbered equations, figures and tables, references to them, and its callouts;
-- for HTML and, as far as the home page asks, for GitHub's Markdown.
local NAMES = {fig = 'Figure', tbl = 'Table', eq = 'Equation'}
local CALLOUTS = {note = true, tip = true, warning = true, caution = true, important = true}
local html, count, refs = FORMAT:match 'html', {}, {}

local function warn(text) io.stderr:write('[WARNING] ' .. text .. '\n') end
local function kind(id) return NAMES[id:match '^(%a+)%-' or ''] and id:match '^(%a+)%-' end

local function register(id)
  if refs[id] then warn('label ' .. id .. ' occurs twice') end
  count[kind(id)] = (count[kind(id)] or 0) + 1
  refs[id] = tostring(count[kind(id)])
  return refs[id]
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
  local body, head = div.content, pandoc.Inlines(div.attributes.title or type:gsub('^%l', string.upper))
  if body[1] and body[1].t == 'Header' then head = body:remove(1).content end
  local title = pandoc.Div({pandoc.Plain(head)}, {class = 'callout-title-container'})
  local parts = {pandoc.Div({title}, {class = 'callout-header'}), pandoc.Div(body, {class = 'callout-body'})}
  return pandoc.Div(parts, {class = 'callout callout-' .. type, role = 'note'})
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
  Inlines = label_equations,
  Span = function(s)
    if not s.classes:includes 'equation' then return end
    local n = register(s.identifier)
    if not html then return pandoc.Math('DisplayMath', s.content[1].text .. '\\tag{' .. n .. '}') end
    s.content:insert(pandoc.Span({pandoc.Str('(' .. n .. ')')}, {class = 'eqno'}))
    return s
  end,
  Figure = function(f)
    local text = numbered(f.identifier, f.caption.long[1] and f.caption.long[1].content or pandoc.Inlines{})
    return figure(f.content, text, f.attr), false
  end,
  Table = function(t)
    local caption = t.caption.long[1]
    local last = caption and caption.content[#caption.content]
    local id = last and last.text and last.text:match '^{#(tbl%-[%w_-]+)}$'
    if id then
      t.identifier = id
      caption.content:remove()
    end
    if caption then t.caption.long = {pandoc.Plain(numbered(t.identifier, caption.content))} end
    if html then return t end
    for _, spec in ipairs(t.colspecs) do spec[2] = nil end
    t.identifier = ''
    return t
  end,
  Div = function(d)
    local type = d.classes[1] and d.classes[1]:match '^callout%-(%a+)$'
    if CALLOUTS[type] and html then return callout(d, type) end
    if d.classes:includes 'fold' and html then
      local start = '<details class="code-fold"><summary>' .. d.attributes.summary .. '</summary>'
      return pandoc.Blocks{pandoc.RawBlock('html', start)} .. d.content .. {pandoc.RawBlock('html', '</details>')}
    end
    if d.classes:includes 'captioned' and d.content[#d.content].t == 'Para' then
      local caption, k = numbered(d.identifier, d.content:remove().content), kind(d.identifier)
      return figure(d.content, caption, pandoc.Attr(d.identifier, {k == 'tbl' and 'table' or 'image'})), k == 'fig'
    end
    if not html then return d.content end
  end,
}

local function reference(c)
  local k, text = kind(c.id), refs[c.id]
  if not text then
    warn('reference @' .. c.id .. ' has no label on this page')
    return pandoc.Str('?')
  end
  text = NAMES[k] .. '\u{a0}' .. (k == 'eq' and '(' .. text .. ')' or text)
  return html and pandoc.Link(text, '#' .. c.id, '', {class = 'ref'}) or pandoc.Str(text)
end

local references = {
  Cite = function(c)
    if not kind(c.citations[1].id) then return end
    local out = pandoc.Inlines{}
    for i, one in ipairs(c.citations) do
      if i > 1 then out:extend{pandoc.Str(','), pandoc.Space()} end
      out:insert(reference(one))
    end
    return out
  end,
  CodeBlock = function(c)
    if not html and c.classes:includes 'output' then return pandoc.CodeBlock(c.text, {class = 'text'}) end
  end,
  RawBlock = function(r)
    if not html and r.text:match '<table' then return pandoc.read(r.text, 'html').blocks end
  end,
}

return {structure, references}
