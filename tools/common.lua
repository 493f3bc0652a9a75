-- Pandoc filter for both renderers: formulas and tables in boxes that scroll on a narrow screen.
-- A formula becomes MathML without its LaTeX, which a search would find; Quarto's equation number stands beside it, not in it.
if not FORMAT:match 'html' then return {} end

-- As in TeX, a thin space between a name such as log and what stands beside it, but for signs and brackets
local NAME, THIN = '<mrow><mi mathvariant="normal">%a+</mi><mo>[^<]+</mo></mrow>', '<mspace width="0.167em"></mspace>'
local function spaced(html)
  html = html:gsub('([^>]*)(</m%a+>)(' .. NAME .. ')', function(text, tag, name)
    local bare = text == '−' or tag == '</mspace>' or tag == '</mo>' and not text:match '^[%)%]|]$'
    return text .. tag .. (bare and '' or THIN) .. name
  end)
  return (html:gsub('(<[^>]*>)(' .. NAME .. ')()', function(tag, name, at)
    local scripts, after = tag:match '^<m[su][bupn]', html:match('^<(m%a+)', at)
    return tag .. name .. (not scripts and after and after ~= 'mo' and after ~= 'mspace' and THIN or '')
  end))
end

local function formula(m)
  local display, text, number = m.mathtype == 'DisplayMath', m.text, nil
  if display then
    local start, n = text:match '^(.-)%s*\\qquad%((%d+)%)%s*$'
    if start then text, number = start, n end
  end
  local html = pandoc.write(pandoc.Pandoc{pandoc.Plain{pandoc.Math(m.mathtype, text)}}, 'html', {html_math_method = 'mathml'})
  html = html:gsub('<annotation.-</annotation>', ''):gsub('</?semantics>', ''):gsub('%s+$', '')
  local math = pandoc.RawInline('html', spaced(html))
  if not display then return math end
  local box = pandoc.Span({math}, {class = 'display'})
  return number and {box, pandoc.Span({pandoc.Str('(' .. number .. ')')}, {class = 'eqno'})} or box
end

local function equation(s)
  if s.identifier:match '^eq%-' then s.classes:insert 'equation' return s end
end

-- Columns as wide as their content asks
local function boxed(t)
  for _, spec in ipairs(t.colspecs) do spec[2] = nil end
  return pandoc.Div({t}, pandoc.Attr('', {'table-box'})), false
end

return {{Math = formula}, {traverse = 'topdown', Table = boxed, Span = equation}}
