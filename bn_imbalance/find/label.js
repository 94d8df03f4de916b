// The labelling page. It works on a queue that a program serves, or on one that lies within the page.
// Every answer is kept before the next image is current; what people typed reaches the page as text only.
'use strict'
const PAGE = 120 // tiles at once
const $ = id => document.getElementById(id)
const short = name => name.split('___').pop()

function make(tag, props = {}, ...children) {
  const e = Object.assign(document.createElement(tag), props)
  e.append(...children)
  return e
}

// A queue that a program serves: paths are relative, so that a proxy may put the page into a folder
function remote() {
  async function ask(path, body) {
    const how = body && {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)}
    let r
    try { r = await fetch(path, how) } catch { throw Error('the program does not answer. Start it again') }
    if (r.status === 401) throw Error('the program was started again. Open its new address')
    if (!r.ok) throw Error(await r.text())
    return r.json()
  }
  return {
    state: n => ask(`state?n=${n}`), answer: (i, label, n) => ask('answer', {i, label, n}), src: i => `image/${i}`,
    large: i => `large/${i}`, heat: i => `heat/${i}`, retrain: () => ask('retrain', {}),
    invite: who => ask('invite', {who})}
}

// A queue within the page: answers are kept by the browser, and leave it as a CSV file
function local(data) {
  const key = `bn-find ${data.id}`, kept = JSON.parse(localStorage.getItem(key) || '[]') // [i, label, when]
  const mine = () => Object.fromEntries(kept.map(([i, label]) => [i, label]))
  function state(n) {
    const found = kept.filter(a => a[1] === data.labels[1]).length
    return {...data, from: n, images: data.images.slice(n), mine: mine(), others: {}, disputed: [],
            last: kept.length ? kept[kept.length - 1][0] : null, line: `found ${found} in ${kept.length} looked at`}
  }
  function answer(i, label, n) {
    const old = kept.findIndex(a => a[0] === i)
    const next = kept.filter((_, j) => j !== old)
    if (label) next.push([i, label, new Date().toISOString().replace(/\.\d+Z/, '+00:00')])
    try { localStorage.setItem(key, JSON.stringify(next)) }
    catch { throw Error('the browser keeps nothing for this page. Save the CSV file now, or try another browser') }
    kept.splice(0, kept.length, ...next)
    return state(n)
  }
  function csv() {
    const cell = s => /[",\r\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s, who = $('who').value.trim()
    const lines = kept.map(([i, label, when]) => [data.images[i][0], label, who, when, `${data.images[i][1]}`])
    return [['path', 'label', 'who', 'when', 'round'], ...lines].map(l => l.map(cell).join(',') + '\n').join('')
  }
  return {state: async n => state(n), answer: async (i, label, n) => answer(i, label, n), src: i => data.pictures[i],
          large: i => data.pictures[i], csv, kept}
}

async function start(store) {
  let s = {images: []}, shown = [], at = 0, busy = false, zoomed = false, heated = false, view = 'round'
  const tiles = new Map() // image -> its tile, while it is on the page
  const current = () => shown[at], n = () => s.images.length
  const say = (text, bad = false) => { $('says').textContent = text; $('says').classList.toggle('bad', bad) }

  function take(news) { s = {...s, ...news, images: [...s.images.slice(0, news.from), ...news.images]} }

  const views = {
    round: ['this round', i => s.images[i][1] === s.round], open: ['not answered yet', i => !(i in s.mine)],
    found: ['found', i => s.mine[i] === s.labels[1]], skipped: ['skipped', i => s.mine[i] === 'skip'],
    disputed: ['disagreements', i => s.disputed.includes(i)], all: ['everything', () => true]}

  function choose(name, then) { // the images of a view stay as they are while one works on them
    view = name
    shown = s.images.map((_, i) => i).filter(views[name][1])
    const open = shown.findIndex(i => !(i in s.mine))
    at = then !== undefined && shown.includes(then) ? shown.indexOf(then) : Math.max(0, open)
    draw()
  }

  function told(i) {
    const label = s.mine[i], others = Object.entries(s.others[i] || {})
    return [label ? short(label) : '', others.map(([who, l]) => `${who || 'no name'}: ${short(l)}`).join(', ')]
  }

  function mark(i) { // what a tile says of its image
    const tile = tiles.get(i)
    if (!tile) return
    const [own, others] = told(i), kind = {[s.labels[0]]: 1, [s.labels[1]]: 2, skip: 's'}[s.mine[i]] || ''
    tile.className = `tile said-${kind}` + (s.disputed.includes(i) ? ' disputed' : '')
    tile.querySelector('.mark').textContent = own && `${kind} ${own}`
    tile.querySelector('.others').textContent = s.disputed.includes(i) ? others : ''
    tile.setAttribute('aria-label', `${shown.indexOf(i) + 1} of ${shown.length}, ${s.images[i][0]}, ` +
      (own ? `answered ${own}` : 'not answered') + (s.disputed.includes(i) ? `, disagreement: ${others}` : ''))
    const here = i === current()
    tile.tabIndex = here ? 0 : -1
    here ? tile.setAttribute('aria-current', 'true') : tile.removeAttribute('aria-current')
  }

  function picture(i, src, eager) {
    const img = make('img', {alt: '', decoding: 'async', loading: eager ? 'eager' : 'lazy'})
    img.onerror = () => img.parentNode && img.parentNode.classList.add('unseen')
    img.src = src
    return img
  }

  function draw() {
    const first = Math.floor(at/PAGE)*PAGE, page = shown.slice(first, first + PAGE)
    if (page.join() !== [...tiles.keys()].join()) {
      tiles.clear()
      $('grid').replaceChildren(...page.map(i => {
        const tile = make('button', {type: 'button'}, picture(i, store.src(i)), make('span', {className: 'mark'}),
                          make('span', {className: 'others'}))
        tile.onclick = () => i === current() && !zoomed ? zoom(true) : go(shown.indexOf(i))
        tiles.set(i, tile)
        return make('li', {}, tile)
      }))
    }
    page.forEach(mark)
    $('grid').hidden = zoomed || !shown.length
    $('stage').hidden = !zoomed || !shown.length
    if (zoomed && shown.length) stage()
    const done = shown.filter(i => i in s.mine).length
    $('line').textContent = s.line
    $('done').max = shown.length || 1; $('done').value = done
    $('place').textContent = !shown.length ? 'Nothing here.' :
      `${at + 1} of ${shown.length}: ${s.images[current()][0]}`
    for (const b of document.querySelectorAll('[data-key]')) b.disabled = !shown.length
    for (const o of $('view').options) if (o.value in views) {
      const k = s.images.filter((_, i) => views[o.value][1](i)).length
      o.textContent = `${views[o.value][0]} (${k})`
    }
    $('view').value = view
    if ($('retrain')) {
      $('retrain').disabled = s.busy
      $('retrain').textContent = s.busy ? 'Training ...' : $('retrain').dataset.word
    }
  }

  function stage() {
    const i = current(), key = `${i} ${heated}`
    if ($('stage').dataset.key !== key) {
      $('stage').dataset.key = key
      $('stage').classList.remove('unseen')
      $('stage').replaceChildren(picture(i, heated ? store.heat(i) : store.large(i), true), make('figcaption'))
      if (at + 1 < shown.length && !heated) new Image().src = store.large(shown[at + 1])
    }
    const [own, others] = told(i)
    $('stage').querySelector('figcaption').textContent = `${at + 1} of ${shown.length}: ` +
      (own ? `answered ${own}` + (others && `; ${others}`) : 'not answered') +
      (heated ? '; where the model sees it' : '')
  }

  function go(to) {
    if (!shown.length) return
    at = Math.min(Math.max(to, 0), shown.length - 1)
    heated = false
    draw()
    const tile = tiles.get(current())
    if (zoomed) return scrollTo(0, 0)
    if (!document.activeElement.closest('header, footer')) tile.focus({preventScroll: true})
    tile.scrollIntoView({block: 'nearest', behavior: 'instant'})
  }

  const columns = () => { // of the grid, as it is laid out now
    const all = [...tiles.values()], top = all[0].offsetTop
    return Math.max(1, all.filter(t => t.offsetTop === top).length)
  }

  function seen() { // nobody answers an image that is not there yet
    const holder = zoomed ? $('stage') : tiles.get(current()), img = holder.querySelector('img')
    return holder.classList.contains('unseen') ? 'no' : img.complete && img.naturalWidth ? 'yes' : 'wait'
  }

  async function keep(i, label, then) {
    busy = true
    document.body.classList.add('saving')
    try {
      take(await store.answer(i, label, n()))
      say(label ? `Saved: ${short(label)}.` : 'Taken back.')
      then()
    } catch (e) { say(`Not saved: ${e.message}.`.replace(/\.\.$/, '.'), true); draw() }
    busy = false
    document.body.classList.remove('saving')
  }

  function answer(label) {
    const sight = seen(), i = current()
    if (sight === 'wait') return say('The image is not there yet.')
    if (sight === 'no' && label !== 'skip') return say('This image cannot be shown: skip it.', true)
    return keep(i, label, () => { // on to the next one without an answer, if there is one
      const next = [...shown.keys()].find(k => k > at && !(shown[k] in s.mine))
      const left = shown.filter(k => !(k in s.mine)).length
      if (!left) say(`Saved: ${short(label)}. All ${shown.length} are answered.`)
      go(next === undefined ? (left ? shown.findIndex(k => !(k in s.mine)) : at) : next)
    })
  }

  function undo() {
    const last = s.last
    if (last === null || last === undefined) return say('There is nothing to take back.')
    return keep(last, '', () => shown.includes(last) ? go(shown.indexOf(last)) : choose('all', last))
  }

  function zoom(on) {
    zoomed = on; heated = false
    $('stage').dataset.key = ''
    document.querySelector('[data-key=z]').setAttribute('aria-pressed', on)
    go(at)
  }

  function heat() {
    if (!store.heat || !s.heat) return say('There is a heat map only where the ranking comes from a model.')
    const on = !heated
    zoomed = true
    document.querySelector('[data-key=z]').setAttribute('aria-pressed', true)
    go(at)
    heated = on
    draw()
    say(on ? 'Where the model sees it. Once more for the image.' : '')
  }

  const acts = {1: () => answer(s.labels[0]), 2: () => answer(s.labels[1]), s: () => answer('skip'), u: undo,
                z: () => zoom(!zoomed), h: heat}
  const moves = {ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1),
                 Home: () => go(0), End: () => go(shown.length - 1),
                 ArrowUp: () => go(at - (zoomed ? 1 : columns())), ArrowDown: () => go(at + (zoomed ? 1 : columns()))}

  document.addEventListener('keydown', e => {
    if (e.ctrlKey || e.altKey || e.metaKey || e.target.closest('input, select, textarea, summary')) return
    const key = e.key.length === 1 ? e.key.toLowerCase() : e.key, tile = e.target.closest('.tile, body > main')
    const act = key === ' ' ? (tile || e.target === document.body) && acts.z : acts[key]
    if (key === 'Escape' && zoomed) { e.preventDefault(); return zoom(false) }
    if (act && (key === ' ' || $('keys').checked) && !e.repeat) { e.preventDefault(); if (!busy && shown.length) act() }
    else if (act) e.preventDefault()
    else if (moves[key] && shown.length) { e.preventDefault(); if (!busy) moves[key]() }
  })
  for (const b of document.querySelectorAll('[data-key]'))
    b.onclick = () => { if (!busy && shown.length) acts[b.dataset.key]() }
  $('view').onchange = e => { zoomed = false; choose(e.target.value); say('') }

  async function refresh(quietly) {
    if (busy) return
    const was = s.round, working = s.busy
    try { take(await store.state(n())) } catch (e) { return quietly || say(`${e.message}.`, true) }
    if (working && !s.busy && s.said) say(s.said)
    if (was !== undefined && s.round !== was) return choose('round')
    draw()
  }
  if (store.retrain) {
    document.addEventListener('visibilitychange', () => document.hidden || refresh())
    setInterval(() => document.hidden || refresh(true), 5000)
  }
  if ($('retrain')) $('retrain').onclick = async () => {
    try {
      take(await store.retrain())
      say('Retraining: go on meanwhile.')
      draw()
    } catch (e) { say(`${e.message}`, true) }
  }
  if ($('invite')) $('invite').onsubmit = async e => {
    e.preventDefault()
    try {
      const {address} = await store.invite($('guest').value)
      $('address').textContent = address; say('An address for one more person: it works once.')
    } catch (e) { say(`${e.message}`, true) }
  }
  if ($('save')) {
    $('save').onclick = () => {
      const csv = new Blob([store.csv()], {type: 'text/csv'})
      const a = make('a', {href: URL.createObjectURL(csv), download: 'answers.csv'})
      a.click()
      setTimeout(() => URL.revokeObjectURL(a.href), 1000)
    }
    $('who').value = localStorage.getItem('bn-find who') || ''
    $('who').oninput = () => localStorage.setItem('bn-find who', $('who').value)
  }
  await refresh()
  if (!s.labels) return
  s.labels.forEach((l, k) => { document.querySelector(`[data-key="${k + 1}"] .word`).textContent = short(l) })
  if (!s.heat) document.querySelector('[data-key=h]').hidden = true
  choose('round')
  go(at)
}
