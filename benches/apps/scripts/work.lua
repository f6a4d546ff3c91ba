-- Tables, closures and strings.
local scale = tonumber(os.getenv("BENCH_SCALE"))
local state = 20051020
local function roll(n)
  state = (state * 1103515245 + 12345) % 2147483648
  return (state // 65536) % n
end

local total = 0
for turn = 1, math.max(1, scale // 30) do
  local objects = {}
  for i = 1, 16000 do
    local parts = {}
    for j = 1, 1 + roll(5) do
      parts[j] = string.char(97 + roll(26)) .. tostring(roll(100000))
    end
    local text = table.concat(parts, "-")
    objects[#objects + 1] = {id = i, text = text, parts = parts, get = function() return text .. i end}
  end
  table.sort(objects, function(a, b)
    if a.text == b.text then return a.id < b.id end
    return a.text < b.text
  end)
  local groups = {}
  for _, object in ipairs(objects) do
    local key = object.text:sub(1, 2)
    groups[key] = groups[key] or {}
    table.insert(groups[key], object.get())
  end
  for _, group in pairs(groups) do
    total = total + #table.concat(group, ",") + select(2, table.concat(group):gsub("[0-4]+", "x"))
  end
  objects = nil
end
print(total)
