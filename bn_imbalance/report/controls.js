// The report's controls: the same thresholds, metrics and intervals as bn_imbalance.evaluate,
// computed in the page from the margins of validation and test images. A test compares the two.
'use strict'
function floats([text, low, step]) {
  const whole = new Uint16Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer)
  return Float64Array.from(whole, k => low + step*k)
}

// Platt scaling for a prevalence of the minority, as `calibrate`: scale and shift of the margin
function platt(v0, v1, prevalence) {
  const missing = (n, own) => Math.min(1, 2*(1 - own))/(n + 2) // from 1, for the class of an image
  const sides = [[v0, (1 - prevalence)/v0.length, missing(v0.length, 1 - prevalence)],
                 [v1, prevalence/v1.length, 1 - missing(v1.length, prevalence)]]
  const loss = (a, b) => sides.reduce((sum, [m, w, t]) => m.reduce((s, x) => {
    const z = a*x + b
    return s + w*(Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))) - t*z)
  }, sum), 0)
  const prior = Math.log(prevalence/(1 - prevalence))
  let a = 0, b = prior
  for (let i = 0; i < 100; i++) {
    let ga = 0, gb = 0, aa = 1e-12, ab = 0, bb = 1e-12
    for (const [m, w, t] of sides) for (const x of m) {
      const p = 1/(1 + Math.exp(-(a*x + b))), d = w*(p - t), h = w*p*(1 - p)
      ga += d*x; gb += d; aa += h*x*x; ab += h*x; bb += h
    }
    const det = aa*bb - ab*ab
    let da = (bb*ga - ab*gb)/det, db = (aa*gb - ab*ga)/det
    while (loss(a - da, b - db) > loss(a, b) + 1e-15) { da /= 2; db /= 2 }
    a -= da; b -= db
    if (Math.max(Math.abs(da), Math.abs(db)) < 1e-10) break
  }
  return a > 0 ? [a, b] : [0, prior]
}

// the value of thresholds, as `Goal.score`
const score = goal => (found, alarms, total) =>
  goal.kind === 'cost' ? -(goal.ratio*(total - found) + alarms) :
  goal.kind === 'recall' ? (found >= goal.recall*total - 1e-9 ? -(found + alarms) : -Infinity) :
  2*found/(found + alarms + total)

// The threshold of a run, by Bayes' rule or as `best_threshold`: in the middle of the widest gap among equals
function bestThreshold(run, goal, prevalence) {
  const [v0, v1] = [run.v0, run.v1], w0 = (1 - prevalence)/v0.length, w1 = prevalence/v1.length
  let items = [...Array.from(v0, m => [m, 0, w0]), ...Array.from(v1, m => [m, 1, w1])]
  const odds = goal.ratio*prevalence/(1 - prevalence), likely = (a, b) =>
    items.map(([m, , w]) => [m, 1/(1 + Math.exp(-(a*m + b))), w])
  if (run.fit) { // as `bayes_threshold`
    const a = run.fit[0], b = run.fit[1] + Math.log(prevalence/(1 - prevalence))
    if (goal.kind === 'cost' && a > 0) return (-Math.log(goal.ratio) - b)/a
    items = likely(a, b)
  } else if (goal.kind === 'cost' && (odds > 1 || odds < 3/v0.length)) { // as `default_method`
    items = likely(...platt(v0, v1, prevalence))
  }
  items.sort((x, y) => x[0] - y[0])
  const n = items.length, first = items[0][0], last = items[n - 1][0], pad = Math.max(1, (last - first)/n)
  const edges = [first - pad, ...items.map(o => o[0]), last + pad], value = score(goal)
  const found = Array(n + 1).fill(0), alarms = Array(n + 1).fill(0)
  for (let i = n - 1; i >= 0; i--) {
    found[i] = found[i + 1] + items[i][1]*items[i][2]
    alarms[i] = alarms[i + 1] + (1 - items[i][1])*items[i][2]
  }
  const s = edges.slice(1).map((e, i) => e > edges[i] ? value(found[i], alarms[i], found[0]) : -Infinity)
  const top = s.reduce((x, y) => Math.max(x, y)), near = x => Math.abs(x - top) <= 1e-8 + 1e-5*Math.abs(top)
  let best = -1
  s.forEach((x, i) => { if (near(x) && (best < 0 || edges[i + 1] - edges[i] > edges[best + 1] - edges[best])) best = i })
  return (edges[best] + edges[best + 1])/2
}

// The value of a run at a prevalence, as `evaluate_at`
function evaluateAt(run, goal, prevalence) {
  const above = (x, threshold) => x.reduce((k, m) => k + (m > threshold), 0)/x.length
  const at = (recall, alarm) => {
    const found = prevalence*recall, false_ = (1 - prevalence)*alarm
    return {found: 1000*found, missed: 1000*(prevalence - found), alarms: 1000*false_, precision: found + false_ ? found/(found + false_) : 0,
            f1: 2*found/(found + false_ + prevalence), cost: 1000*goal.alarm*(goal.ratio*(prevalence - found) + false_)}
  }
  const threshold = bestThreshold(run, goal, prevalence)
  const out = at(above(run.t1, threshold), above(run.t0, threshold))
  if (goal.kind === 'recall') {
    const sorted = Array.from(run.t1).sort((x, y) => y - x), n = sorted.length
    const least = sorted[Math.ceil(goal.recall*n - 1e-9) - 1]
    const over = x => x.reduce((k, m) => k + (m >= least), 0)/x.length
    out.value = at(over(run.t1), over(run.t0)).precision
  } else out.value = out[goal.kind]
  return out
}

function interval(x, t) {
  const n = x.length, mean = x.reduce((a, b) => a + b, 0)/n
  const half = n > 1 ? t*Math.sqrt(x.reduce((s, v) => s + (v - mean)**2, 0)/(n - 1)/n) : 0
  return [mean, mean - half, mean + half]
}

// Rows of the leaderboard, the best first
function board(data, goal, prevalence) {
  const rows = data.recipes.map(name => {
    const each = data.runs.filter(r => r.recipe === name).map(r => evaluateAt(r, goal, prevalence))
    const over = k => interval(each.map(o => o[k]), data.t), values = each.map(o => o.value)
    return {name, values, value: interval(values, data.t), ...Object.fromEntries(data.columns.map(m => [m.name, over(m.name)]))}
  })
  const sign = data.metrics[goal.kind].lower ? 1 : -1
  rows.sort((a, b) => sign*(a.value[0] - b.value[0]))
  for (const r of rows.slice(1)) { // significantly different, seed by seed?
    const d = interval(r.values.map((v, i) => sign*(v - rows[0].values[i])), data.t)
    r.tied = r.values.length === rows[0].values.length && d[1] <= 0
  }
  const blend = rows.find(r => r.name === 'blend'), gain = blend && blend.values.map((v, i) => sign*(v - rows[0].values[i]))
  rows.recommended = blend && !(interval(gain, data.luck)[1] > 0) ? blend : rows[0] // as `Leaderboard.recommended`
  return rows
}

// Numbers as texts, as `number`, `count` and `percent`
function fixed(x, n) { // as toFixed, but ties go to the even digit as in Python: 161.25 is 161.2
  x = +x.toPrecision(12) // whatever the order of a sum was
  const text = x.toFixed(n), exact = x.toFixed(100), end = exact.indexOf('.') + (n ? n + 1 : 0)
  const tie = /^\.?50*$/.test(exact.slice(end)), odd = '13579'.includes(text.at(-1))
  return (tie && odd ? exact.slice(0, end) : text).replace(/^-([0.]+)$/, '$1') // not -0
}
const formats = {
  ratio: x => Math.abs(x) >= 10 ? fixed(x, 1) : fixed(x, 3).replace(/^(-?)0\./, '$1.'),
  count: x => fixed(x, x && Math.abs(x) < .1 ? Math.ceil(-Math.log10(Math.abs(x))) : 1)
}
function told([mean, low, high], most = Infinity) { // as `range_text`
  [low, mean, high] = [low, mean, high].map(x => Math.min(Math.max(x, 0), most))
  const half = (high - low)/2
  if (half < 1e-9) return `${+(+mean.toPrecision(12)).toPrecision(3)}`
  const n = Math.min(3, half < 10 ? Math.ceil(-Math.log10(half/2)) : 1 - Math.floor(Math.log10(half)))
  const text = x => n > 0 ? fixed(x, n) : `${fixed(x/10**-n, 0)*10**-n}`
  return `${text(mean)} (${text(low)} to ${text(high)})`
}
function percent(prevalence) {
  const rest = 100*Math.min(prevalence, 1 - prevalence)
  const text = fixed(100*prevalence, rest > 0 ? Math.max(0, 1 - Math.floor(Math.log10(rest))) : 0)
  return `${text.includes('.') ? text.replace(/\.?0+$/, '') : text} %`
}
const plain = x => +x.toPrecision(6) // for ratios and recalls: what was asked for

// The values of sliders to two digits: logarithms of a ratio, or of the odds of a prevalence or recall
const twoDigits = x => +x.toPrecision(2)
const ratioAt = at => twoDigits(10**at)
function probabilityAt(at) {
  const rest = twoDigits(1/(1 + 10**Math.abs(at)))
  return at < 0 ? rest : +(1 - rest).toPrecision(15)
}

// A thousand dots, as `dots` and `waffle_html`
function dots(found, missed, alarms) {
  const rare = +fixed(found + missed, 0), n = {found: Math.min(+fixed(found, 0), rare)}
  n.missed = rare - n.found
  n.alarms = Math.min(+fixed(alarms, 0), 1000 - rare)
  n.passed = 1000 - rare - n.alarms
  return n
}
function waffle(n, rare) {
  const words = {found: `${rare} found`, missed: `${rare} missed`, alarms: 'false alarms', passed: 'rightly passed'}
  let k = 0
  const parts = Object.entries(n).map(([kind, m]) => {
    const at = Array.from({length: m}, (_, i) => `M${10*((k + i) % 40) + 5} ${10*Math.floor((k + i)/40) + 5}h.01`).join('') // Chromium prints no square of length 0
    k += m
    return m ? [kind, ...(kind === 'missed' ? ['hole'] : [])].map(c => `<path class="${c}" d="${at}"/>`).join('') : ''
  })
  const text = Object.entries(n).map(([kind, m]) => `${m} ${words[kind]}`)
  const legend = Object.entries(n).map(([kind, m]) => `<span><i class="${kind}"></i>${m} ${words[kind]}</span> `)
  return `<svg viewBox="0 0 400 250" role="img" aria-label="Of 1000 images: ${text.join(', ')}">${parts.join('')}</svg>` +
    `<p class="legend">${legend.join('')}</p>`
}

function start(data, root) {
  for (const r of data.runs) for (const k of ['v0', 'v1', 't0', 't1']) r[k] = floats(r[k])
  const $ = name => root.querySelector(`[name=${name}]`), part = cls => root.querySelector('.' + cls)
  const read = {prevalence: probabilityAt, ratio: ratioAt, recall: probabilityAt}
  function now(name) { // where the form begins it is exactly what was asked for
    const at = +$(name).value
    return Math.abs(at - $(name).defaultValue) < .005 ? data.start[name] : (read[name])(at)
  }
  function goalNow() {
    return {kind: root.querySelector('[name=kind]:checked').value, ratio: now('ratio'),
            recall: now('recall'), alarm: data.start.alarm}
  }
  function draw(goal, prevalence, rows) {
    const plain = data.recipes.includes('plain') ? ['plain'] : []
    const names = [...new Set([...rows.slice(0, 4).map(r => r.name), ...plain])]
    const at = [...new Set([...data.prevalences, data.start.prevalence])].sort((a, b) => a - b)
    const least = at[0], most = at[at.length - 1], H = 220, left = 46, low = H - 34
    const right = Math.max(150, 45 + 6.5*Math.max(...names.map(n => n.length))), W = 410 + right // room for names
    const free = s => goal.kind === 'cost' ? 1000*goal.alarm*Math.min(goal.ratio*s, 1 - s) : 1
    const lines = names.map(name => at.map(s => interval(data.runs.filter(r => r.recipe === name)
      .map(r => evaluateAt(r, goal, s).value), data.t)[0]/free(s)))
    const top = goal.kind === 'cost' ? Math.min(1.5, Math.max(1, ...lines.flat())) : 1
    const x = s => left + (W - left - right)*Math.log(s/least)/Math.log(most/least)
    const y = v => low - (low - 12)*Math.min(v, top)/top
    const colors = names.map(name => data.colors[name]), dashes = ['none', '6 3', '2 3', '8 3 2 3']
    const dash = i => dashes[colors.slice(0, i).filter(c => c === colors[i]).length % 4] // as in plots
    const text = (px, py, t, more = '') => `<text x="${px}" y="${py}" ${more}>${t}</text>`
    const parts = lines.map((l, i) => `<polyline fill="none" stroke="${colors[i]}" stroke-width="2" stroke-dasharray="${
      dash(i)}" points="${l.map((v, j) => `${x(at[j])},${y(v)}`).join(' ')}"/>` +
      `<line x1="${W - right + 8}" x2="${W - right + 30}" y1="${20 + 18*i}" y2="${20 + 18*i}" ` +
      `stroke="${colors[i]}" stroke-width="2" stroke-dasharray="${dash(i)}"/>` + text(W - right + 35, 24 + 18*i, names[i]))
    const here = x(prevalence)
    parts.push(`<line x1="${here}" x2="${here}" y1="8" y2="${low}" stroke="currentColor" stroke-dasharray="3 3"/>`)
    names.forEach((name, i) => {
      const v = rows.find(r => r.name === name).value[0]/free(prevalence)
      parts.push(`<circle cx="${here}" cy="${y(v)}" r="4" fill="${colors[i]}"/>`)
    })
    for (const s of [least, .005, .05, most]) parts.push(text(x(s), H - 16, percent(s), 'text-anchor="middle"'))
    for (const v of [0, top/2, top]) parts.push(text(left - 6, y(v) + 4, +v.toFixed(2), 'text-anchor="end"'))
    const label = goal.kind === 'cost' ? 'cost relative to no model' : data.metrics[goal.kind].label
    part('curve').innerHTML = `<svg viewBox="0 0 ${W} ${H}" role="img" ` +
      `aria-label="${label} of the first recipes over the prevalence">${parts.join('')}` +
      text(left, H - 2, `prevalence of ${data.rare}; up: ${label}`) + '</svg>'
  }
  function update() {
    const goal = goalNow(), prevalence = now('prevalence'), rows = board(data, goal, prevalence), first = rows[0]
    const metric = data.metrics[goal.kind]
    const texts = {prevalence: percent(prevalence), ratio: `${plain(goal.ratio)}`, recall: `${plain(goal.recall)}`}
    for (const k in texts) {
      part(`${k}-now`).textContent = texts[k]
      $(k).setAttribute('aria-valuetext', texts[k]) // the slider's own value is a logarithm
    }
    for (const [k, kind] of [['ratio', 'cost'], ['recall', 'recall']]) $(k).closest('label').hidden = goal.kind !== kind
    const untouched = ['prevalence', 'ratio', 'recall'].every(k => Math.abs($(k).value - $(k).defaultValue) < .005) &&
      root.querySelector('[name=kind]:checked').defaultChecked
    const it = untouched && rows.find(r => r.name === data.start.recipe) || rows.recommended
    const all = 1000*prevalence, rare = data.rare, escaped = rare.replace(/&/g, '&amp;').replace(/</g, '&lt;')
      .replace(/>/g, '&gt;').replace(/"/g, '&quot;').replace(/'/g, '&#x27;')
    const value = {f1: 1, recall: 1, cost: goal.alarm*(goal.ratio*all + 1000 - all)}[goal.kind]
    const most = {value, found: all, missed: all, alarms: 1000 - all, precision: 1}, cell = (r, k) => `<td>${told(r[k], most[k])}</td>`
    const what = {f1: 'the best F1 counts', cost: `a miss costs ${plain(goal.ratio)} false alarms`,
                  recall: `a recall of ${plain(goal.recall)} must be reached`}[goal.kind]
    part('says').textContent = `Where ${percent(prevalence)} of the images are ${rare} and ${what}: ${it.name} finds ` +
      `${told(it.found, all)} of ${+all.toPrecision(all < 100 ? 2 : 3)}, misses ${told(it.missed, all)} and raises ` +
      `${told(it.alarms, 1000 - all)} false alarms; ${metric.word} ${told(it.value, value)}.`
    part('waffle').innerHTML = waffle(dots(...['found', 'missed', 'alarms'].map(k => it[k][0])), escaped)
    part('board').innerHTML = `<thead><tr><th scope="col">recipe</th><th scope="col">${metric.label}</th>` +
      data.columns.map(m => `<th scope="col">${m.label}</th>`).join('') + '</tr></thead><tbody>' +
      rows.map(r => `<tr data-value="${r.value.map(v => Math.min(Math.max(v, 0), goal.kind === 'cost' ? Infinity : 1)).join(' ')}"${r === first || r.tied ? ' class="tied"' : ''}><th scope="row">${r.name}</th>${cell(r, 'value')}` +
      data.columns.map(m => cell(r, m.name)).join('') + '</tr>').join('') + '</tbody>'
    draw(goal, prevalence, rows)
  }
  let waiting = 0
  root.addEventListener('input', () => { clearTimeout(waiting); waiting = setTimeout(update, 20) })
  for (const o of root.querySelectorAll('.sliders')) o.hidden = false
  update()
}
