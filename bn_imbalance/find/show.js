// The page that shows a model: images are sent to the program one by one; sliders change the decision, not the model.
'use strict'
const $ = id => document.getElementById(id)
const sigmoid = x => 1/(1 + Math.exp(-x)), logit = p => Math.log(p/(1 - p))
const digits = p => (100*p).toFixed(p < .0995 || p > .9005 ? 1 : 0)
const percent = p => `${p < .0005 ? 'under 0.1' : p > .9995 ? 'over 99.9' : digits(p)}\u00a0%`

function make(tag, props = {}, ...children) {
  const e = Object.assign(document.createElement(tag), props)
  e.append(...children)
  return e
}

function start(model) {
  const cards = [], queue = []
  let prevalence = model.prevalence, threshold = model.threshold // as chosen for the model, until a slider is moved
  let busy = false

  // the rare class's probability where `prevalence` of the images are rare, and the decision
  const probability = log_odds => sigmoid(log_odds + logit(prevalence) - logit(model.prevalence))

  function draw(card) {
    const {said, answer, advice, heat, result} = card
    if (!result) return
    let label = result.label, p = result.probability
    if (model.sliders) {
      p = probability(result.log_odds)
      label = model.classes[Number(p > threshold)]
      said.classList.toggle('rare', p > threshold)
    }
    answer.textContent = label
    advice.textContent = model.sliders ? `${model.classes[1]}: ${percent(p)}` : percent(p)
    if (result.review) advice.textContent += '; an expert should look'
    heat.hidden = !result.heat
    card.picture.src = heat.getAttribute('aria-pressed') === 'true' && result.heat ? result.heat : result.image
  }

  function counts() {
    const done = cards.filter(c => c.result)
    const rare = done.filter(c => model.sliders && probability(c.result.log_odds) > threshold).length
    $('says').className = ''
    $('says').textContent = (busy ? `${queue.length + 1} to go. ` : '')
      + (model.sliders && done.length ? `${rare} of ${done.length} called ${model.classes[1]}.` : '')
  }

  function add(file) {
    const card = {picture: make('img', {alt: file.name}), answer: make('b'), advice: make('span'), said: make('li'),
                  heat: make('button', {type: 'button', textContent: 'heat map', hidden: true})}
    card.heat.setAttribute('aria-pressed', 'false')
    card.heat.onclick = () => {
      card.heat.setAttribute('aria-pressed', String(card.heat.getAttribute('aria-pressed') !== 'true'))
      draw(card)
    }
    card.said.append(card.picture, make('p', {}, card.answer, ' ', card.advice),
                     make('p', {className: 'name', textContent: file.name}), card.heat)
    $('cards').prepend(card.said)
    cards.push(card)
    queue.push([card, file])
    if (!busy) work()
  }

  async function work() {
    busy = true
    while (queue.length) {
      const [card, file] = queue.shift()
      counts()
      try {
        const r = await fetch('predict', {method: 'POST', headers: {'Content-Type': 'application/octet-stream'}, body: file})
        if (!r.ok) throw Error(await r.text())
        card.result = await r.json()
        draw(card)
        if (card.result.notes.length) card.said.append(make('p', {className: 'name', textContent: card.result.notes.join(' ')}))
      } catch (e) {
        card.answer.textContent = 'not read'
        card.advice.textContent = e instanceof TypeError ? 'the program does not answer. Start it again' : e.message
        card.said.classList.add('bad')
      }
    }
    busy = false
    counts()
  }

  function slider(name, get, set) { // on the scale of log odds, as both are near 0 or 1
    const input = $(name), output = $(`${name}-now`)
    function show() {
      output.textContent = percent(get())
      input.setAttribute('aria-valuetext', output.textContent)
      cards.forEach(draw)
      counts()
    }
    input.value = logit(get())
    input.oninput = () => { set(sigmoid(Number(input.value))); show() }
    show()
    return () => { input.value = logit(get()); show() }
  }

  if (model.sliders) {
    const again = [slider('prevalence', () => prevalence, p => { prevalence = p }),
                   slider('threshold', () => threshold, p => { threshold = p })]
    $('reset').onclick = () => {
      prevalence = model.prevalence
      threshold = model.threshold
      again.forEach(f => f())
    }
  }
  const files = $('files')
  files.onchange = () => { [...files.files].forEach(add); files.value = '' }
  for (const kind of ['dragover', 'drop']) document.addEventListener(kind, e => e.preventDefault())
  document.addEventListener('drop', e => [...e.dataTransfer.files].forEach(add))
}
