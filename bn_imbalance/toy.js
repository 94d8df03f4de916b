// The small model of chapter 3 in a browser: `toy` of that chapter, on the numbers that `toy_data` draws
(() => {
const D = 100, BATCH = 64, EPS = 1e-5

function mix(x) {
  for (const [shift, factor] of [[16, 0x7feb352d], [15, 0x846ca68b], [16, 1]]) x = Math.imul(x ^ x >>> shift, factor)
  return x >>> 0
}
function uniform(stream, n) {
  const start = mix(stream), out = new Float64Array(n)
  for (let k = 0; k < n; k++) out[k] = (mix(start + k | 0) + .5)/2**32
  return out
}
function leaves(stream, n, sick) { // the first `sick` of n are sick
  const u = uniform(stream, n*D), v = uniform(stream + 1, n*D)
  const x = u.map((o, k) => Math.abs(Math.sqrt(-2*Math.log(o))*Math.cos(2*Math.PI*v[k])))
  for (let i = 0; i < sick; i++) for (let j = 0; j < D/4; j++) x[i*D + j] += .5
  return x
}

// Parameters: two rows of weights, two biases, then scale and shift of the layer
function logits(p, x, i) {
  const out = [p[2*D], p[2*D + 1]]
  for (let c = 0; c < 2; c++) for (let j = 0; j < D; j++) out[c] += p[c*D + j]*x[i*D + j]
  return out
}

function train({share, steps, lr, momentum}, layer) {
  const n = 2000, sick = Math.max(2, Math.floor(n*share + .5)), x = leaves(0, n, sick)
  const rows = uniform(4, steps*BATCH).map(u => Math.floor(n*u))
  const p = new Float64Array(2*D + 6), at = {weight: 0, bias: 2*D, scale: 2*D + 2, shift: 2*D + 4}
  uniform(5, 2*D + 2).forEach((u, k) => { p[k] = (2*u - 1)/Math.sqrt(D) })
  p[at.scale] = p[at.scale + 1] = 1
  const free = layer ? p.length : at.scale, m = new Float64Array(free), v = new Float64Array(free)
  const run = {mean: [0, 0], variance: [1, 1]}
  for (let t = 1; t <= steps; t++) {
    const batch = rows.subarray((t - 1)*BATCH, t*BATCH), z = Array.from(batch, i => logits(p, x, i)), g = new Float64Array(free)
    const normal = z.map(o => o.slice()), over = [1, 1]
    if (layer) for (let c = 0; c < 2; c++) {
      const mean = z.reduce((s, o) => s + o[c], 0)/BATCH, variance = z.reduce((s, o) => s + (o[c] - mean)**2, 0)/BATCH
      over[c] = 1/Math.sqrt(variance + EPS)
      normal.forEach(o => { o[c] = (o[c] - mean)*over[c] })
      run.mean[c] += momentum*(mean - run.mean[c])
      run.variance[c] += momentum*(variance*BATCH/(BATCH - 1) - run.variance[c])
    }
    const out = layer ? normal.map(o => o.map((h, c) => h*p[at.scale + c] + p[at.shift + c])) : z
    const back = out.map((o, k) => { // gradient of the mean cross-entropy
      const chance = 1/(1 + Math.exp(o[0] - o[1])), d = (chance - (batch[k] < sick))/BATCH
      return [-d, d]
    })
    if (layer) for (let c = 0; c < 2; c++) {
      const shift = back.reduce((s, o) => s + o[c], 0), scale = back.reduce((s, o, k) => s + o[c]*normal[k][c], 0)
      g[at.shift + c] = shift; g[at.scale + c] = scale
      back.forEach((o, k) => { o[c] = p[at.scale + c]*over[c]*(o[c] - shift/BATCH - normal[k][c]*scale/BATCH) })
    }
    back.forEach((o, k) => { for (let c = 0; c < 2; c++) {
      g[at.bias + c] += o[c]
      for (let j = 0; j < D; j++) g[c*D + j] += o[c]*x[batch[k]*D + j]
    } })
    for (let k = 0; k < free; k++) { // AdamW as PyTorch's
      m[k] += .1*(g[k] - m[k]); v[k] = .999*v[k] + .001*g[k]*g[k]
      p[k] = p[k]*(1 - .01*lr) - lr/(1 - .9**t)*m[k]/(Math.sqrt(v[k]/(1 - .999**t)) + 1e-8)
    }
  }
  const test = leaves(2, 1000, 500), margins = []
  for (let i = 0; i < 1000; i++) {
    const z = logits(p, test, i)
    const out = layer ? z.map((o, c) => (o - run.mean[c])/Math.sqrt(run.variance[c] + EPS)*p[at.scale + c] + p[at.shift + c]) : z
    margins.push(out[1] - out[0])
  }
  return {sick: margins.slice(0, 500), healthy: margins.slice(500)}
}

function judge({sick, healthy}) {
  const part = x => x.filter(o => o > 0).length/x.length, mean = healthy.reduce((s, o) => s + o, 0)/healthy.length
  const deviation = Math.sqrt(healthy.reduce((s, o) => s + (o - mean)**2, 0)/healthy.length)
  const all = [...sick.map(o => [o, 1]), ...healthy.map(o => [o, 0])].sort((a, b) => a[0] - b[0])
  let below = 0, pairs = 0
  for (const [, is] of all) is ? pairs += below : below++
  return {recall: part(sick), alarms: part(healthy), line: -mean/deviation, auroc: pairs/sick.length/healthy.length}
}

function show(panel, {sick, healthy}) {
  const bars = {sick: panel.querySelectorAll('.sick'), healthy: panel.querySelectorAll('.healthy')}, n = bars.sick.length
  const most = Math.max(...sick.map(Math.abs), ...healthy.map(Math.abs))
  const counts = x => x.reduce((a, o) => { a[Math.min(n - 1, Math.floor((o/most + 1)/2*n))]++; return a }, Array(n).fill(0))
  const found = {sick: counts(sick), healthy: counts(healthy)}, high = Math.max(...found.sick, ...found.healthy)
  for (const k of ['sick', 'healthy']) bars[k].forEach((bar, i) => {
    const h = 94*found[k][i]/high
    bar.setAttribute('y', 110 - h); bar.setAttribute('height', h)
  })
  panel.querySelector('.low').textContent = (-most).toFixed(1)
  panel.querySelector('.high').textContent = most.toFixed(1)
}

for (const root of document.querySelectorAll('.two-logits:not([data-live])')) {
  root.dataset.live = ''
  const at = name => root.querySelector(`[name=${name}]`), controls = root.querySelector('form')
  controls.hidden = false
  controls.addEventListener('submit', e => e.preventDefault())
  function update() {
    const o = Object.fromEntries(['share', 'steps', 'lr', 'momentum'].map(k => [k, 10**at(k).value]))
    o.steps = Math.round(o.steps)
    for (const k in o) root.querySelector(`.${k}-now`).textContent = +o[k].toPrecision(3)
    root.setAttribute('aria-busy', 'true')
    setTimeout(() => { // the numbers of the controls first, then the work
      for (const kind of ['plain', 'layer']) {
        const margins = train(o, kind === 'layer'), told = judge(margins), row = root.querySelector(`tr.${kind}`)
        show(root.querySelector(`.panel.${kind}`), margins)
        for (const k in told) { row.querySelector(`.${k}`).textContent = told[k].toFixed(2); row.dataset[k] = told[k] }
      }
      root.removeAttribute('aria-busy')
    }, 10)
  }
  let waiting = 0
  controls.addEventListener('input', () => { clearTimeout(waiting); waiting = setTimeout(update, 60) })
}
})()
