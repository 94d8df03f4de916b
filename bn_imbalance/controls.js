// The report's controls: the same cuts, measures and intervals as bn_imbalance.worlds and bn_imbalance.leaderboard,
// computed in the page from the margins of validation and test images. A test compares the two.
'use strict'
const floats = text => new Float32Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer)

// Platt scaling for a share of the minority, as `calibrate`: scale and shift of the margin
function platt(v0, v1, share) {
  const missing = (n, own) => Math.min(1, 2*(1 - own))/(n + 2) // from 1, for the class that an image is of
  const sides = [[v0, (1 - share)/v0.length, missing(v0.length, 1 - share)],
                 [v1, share/v1.length, 1 - missing(v1.length, share)]]
  const loss = (a, b) => sides.reduce((sum, [m, w, t]) => m.reduce((s, x) => {
    const z = a*x + b
    return s + w*(Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))) - t*z)
  }, sum), 0)
  const prior = Math.log(share/(1 - share))
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

// what cuts are worth, as `Goal.score`
const score = goal => (found, alarms, total) =>
  goal.kind === 'cost' ? -(goal.ratio*(total - found) + alarms) :
  goal.kind === 'recall' ? (found >= goal.recall*total - 1e-9 ? -(found + alarms) : -Infinity) :
  2*found/(found + alarms + total)

// The best cut, as `best_cut`: in the middle of the widest gap among equals
function bestCut(run, goal, share) {
  const [v0, v1] = [run.v0, run.v1], w0 = (1 - share)/v0.length, w1 = share/v1.length
  let items = [...Array.from(v0, m => [m, 0, w0]), ...Array.from(v1, m => [m, 1, w1])]
  const odds = goal.ratio*share/(1 - share)
  if (goal.kind === 'cost' && (odds > 1 || odds < 3/v0.length)) { // as `way_for`
    const [a, b] = platt(v0, v1, share)
    items = items.map(([m, , w]) => [m, 1/(1 + Math.exp(-(a*m + b))), w])
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

// What a run is worth in a world, as `in_world`
function inWorld(run, goal, share) {
  const above = (side, cut) => side.reduce((k, m) => k + (m > cut), 0)/side.length
  const at = (recall, alarm) => {
    const found = share*recall, false_ = (1 - share)*alarm
    return {found: 1000*found, alarms: 1000*false_, precision: found + false_ ? found/(found + false_) : 0,
            f1: 2*found/(found + false_ + share), cost: 1000*(goal.ratio*(share - found) + false_)}
  }
  const cut = bestCut(run, goal, share), out = at(above(run.t1, cut), above(run.t0, cut))
  if (goal.kind === 'recall') {
    const sorted = Array.from(run.t1).sort((x, y) => y - x), n = sorted.length
    const line = sorted[Math.ceil(goal.recall*n - 1e-9) - 1], over = side => side.reduce((k, m) => k + (m >= line), 0)/side.length
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
function board(data, goal, share) {
  const rows = data.recipes.map(name => {
    const worlds = data.runs.filter(r => r.recipe === name).map(r => inWorld(r, goal, share))
    const mean = k => worlds.reduce((s, o) => s + o[k], 0)/worlds.length
    const values = worlds.map(o => o.value)
    return {name, values, value: interval(values, data.t), found: mean('found'), alarms: mean('alarms'), precision: mean('precision')}
  })
  const sign = goal.kind === 'cost' ? 1 : -1
  rows.sort((a, b) => sign*(a.value[0] - b.value[0]))
  for (const r of rows.slice(1)) { // told apart, seed by seed?
    const d = interval(r.values.map((v, i) => sign*(v - rows[0].values[i])), data.t)
    r.tied = r.values.length === rows[0].values.length && d[1] <= 0
  }
  return rows
}

const short = x => Math.abs(x) >= 10 ? x.toFixed(1) : x.toFixed(3).replace(/^(-?)0\./, '$1.')
const twoDigits = x => +x.toPrecision(2) // what is shown is what is computed with
const percent = s => `${+(100*s).toPrecision(2)} %`

function start(data, root) {
  for (const r of data.runs) for (const k of ['v0', 'v1', 't0', 't1']) r[k] = floats(r[k])
  const $ = name => root.querySelector(`[name=${name}]`), part = cls => root.querySelector('.' + cls)
  const words = {f1: 'F1', cost: 'cost per 1000', recall: 'precision at the recall'}
  function goalNow() {
    const kind = root.querySelector('[name=kind]:checked').value
    return {kind, ratio: twoDigits(10**+$('ratio').value), recall: +$('recall').value}
  }
  function draw(goal, share, rows) {
    const names = [...new Set([...rows.slice(0, 4).map(r => r.name), ...(data.recipes.includes('plain') ? ['plain'] : [])])]
    const shares = [.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5], W = 560, H = 220, left = 46, low = H - 34
    const free = s => goal.kind === 'cost' ? 1000*Math.min(goal.ratio*s, 1 - s) : 1
    const lines = names.map(name => shares.map(s => interval(data.runs.filter(r => r.recipe === name)
      .map(r => inWorld(r, goal, s).value), data.t)[0]/free(s)))
    const top = goal.kind === 'cost' ? Math.min(1.5, Math.max(1, ...lines.flat())) : 1
    const x = s => left + (W - left - 150)*Math.log(s/.0005)/Math.log(1000), y = v => low - (low - 12)*Math.min(v, top)/top
    const colors = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00']
    const text = (px, py, t, more = '') => `<text x="${px}" y="${py}" ${more}>${t}</text>`
    const parts = lines.map((l, i) => `<polyline fill="none" stroke="${colors[i]}" stroke-width="2" points="${
      l.map((v, j) => `${x(shares[j])},${y(v)}`).join(' ')}"/>` + text(W - 140, 24 + 18*i, names[i], `fill="${colors[i]}"`))
    parts.push(`<line x1="${x(share)}" x2="${x(share)}" y1="8" y2="${low}" stroke="currentColor" stroke-dasharray="3 3"/>`)
    names.forEach((name, i) => { const r = rows.find(r => r.name === name)
      parts.push(`<circle cx="${x(share)}" cy="${y(r.value[0]/free(share))}" r="4" fill="${colors[i]}"/>`) })
    for (const s of [.0005, .005, .05, .5]) parts.push(text(x(s), H - 16, percent(s), 'text-anchor="middle"'))
    for (const v of [0, top/2, top]) parts.push(text(left - 6, y(v) + 4, +v.toFixed(2), 'text-anchor="end"'))
    const label = goal.kind === 'cost' ? 'cost, against doing without a model' : words[goal.kind]
    part('curve').innerHTML = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="${label} of the first recipes over shares">` +
      parts.join('') + text(left, H - 2, `share of the minority; up: ${label}`) + '</svg>'
  }
  function update() {
    const goal = goalNow(), share = twoDigits(10**+$('share').value), rows = board(data, goal, share), first = rows[0]
    part('share-now').textContent = percent(share)
    part('ratio-now').textContent = `${goal.ratio}`
    part('recall-now').textContent = short(goal.recall)
    for (const k of ['ratio', 'recall']) $(k).closest('label').hidden = goal.kind !== {ratio: 'cost', recall: 'recall'}[k]
    const told = v => `${short(v[0])}${v[1] < v[2] ? ` [${short(v[1])}, ${short(v[2])}]` : ''}`, tied = rows.filter(r => r.tied)
    const what = {f1: 'the best F1 counts', cost: `a miss costs ${goal.ratio} false alarms`,
                  recall: `a recall of ${short(goal.recall)} must be reached`}[goal.kind]
    part('says').textContent = `Where ${percent(share)} of the images are of the minority and ${what}: ${first.name} is first, ` +
      `${words[goal.kind]} ${told(first.value)}. Of 1000 images it finds ${first.found.toFixed(1)} of ${short(1000*share)} and raises ` +
      `${first.alarms.toFixed(1)} false alarms.` + (tied.length ? ` Not distinguishable from it: ${tied.map(r => r.name).join(', ')}.` : '')
    part('board').innerHTML = `<thead><tr><th scope="col">recipe</th><th scope="col">${words[goal.kind]}</th>` +
      '<th scope="col">found per 1000</th><th scope="col">false alarms per 1000</th><th scope="col">precision</th></tr></thead><tbody>' +
      rows.map(r => `<tr data-value="${r.value.join(' ')}"><th scope="row">${r.name}</th><td>${told(r.value)}</td><td>${r.found.toFixed(1)}` +
      `</td><td>${r.alarms.toFixed(1)}</td><td>${short(r.precision)}</td></tr>`).join('') + '</tbody>'
    draw(goal, share, rows)
  }
  let waiting = 0
  root.addEventListener('input', () => { clearTimeout(waiting); waiting = setTimeout(update, 20) })
  root.hidden = false
  update()
}
