"""Numbers in prose. Most are computed into outputs; what is typed with decimals stands on the list below.

A line of it is `notebook | numbers | where they come from`: an expression, computed again from stored results, settings
or arithmetic; or `given`, for what the text itself sets, such as the numbers of a quiz.
"""
import re
from functools import cache
from pathlib import Path
from math import exp, log, sqrt # for the expressions
import pandas as pd, pytest
from fastcore.nbio import read_nb
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.evaluate.leaderboard import PAPER
from bn_imbalance.metrics import mean_interval

nbs = Path(__file__).resolve().parents[1]/'nbs'
CHAPTERS = [p for folder in ('course', 'appendix') for p in sorted((nbs/folder).glob('*.ipynb'))]
CHAPTERS.append(nbs/'index.ipynb') # README.md is made from it
LIST = '''
01_rare_disease | 99.5 | 100*(1 - 1/200)
01_rare_disease | 4.6 | log(s.train_majority/s.train_minority)
02_one_more_layer | .01 | s.bn_momentum
02_one_more_layer | .1 | torch_momentum()
03_why_it_works | .55 | perfect(.01)
03_why_it_works | .60 | -log(perfect(.01))
03_why_it_works | .99 .90 .5 .001 | given
03_why_it_works | 4.6 | log(.99/.01)
a_when_it_stops | 4.6 | log(s.train_majority/s.train_minority)
a_when_it_stops | .2 | 2*sqrt(.01/.99)
a_when_it_stops | 19.9 | 2*sqrt(.99/.01)
a_when_it_stops | .23 | 450*.001/2
a_when_it_stops | .001 .003 .4 | given
05_what_else | .70 .90 .001 | given
04_thresholds | 1.5 | 100*3/200
04_thresholds | .9 .02 .7 | given
04_thresholds | .55 | perfect(.01)
04_thresholds | .94 | world('Apple', 'argmax', 'final_bn')
04_thresholds | .91 | world('Apple', 'F1', 'final_bn')
e_beyond_leaves | .93 .84 | given
f_probabilities | .55 | perfect(.01)
f_probabilities | .875 | 7/8
f_probabilities | .987 | 75/76
f_probabilities | .9 .7 .2 .6 .8 .72 .95 | given
c_sixty_four_ways | .01 | s.weight_decay
c_sixty_four_ways | .77 | given
c_sixty_four_ways | .19 | -interaction('BN', 'WL')[0]
c_sixty_four_ways | .48 | -interaction('BN', 'WL')[1]
c_sixty_four_ways | .10 | interaction('BN', 'WL')[2]
06_your_folder | .36 .91 .30 | given
07_find_more | .009 | 32/3600
g_scorecard | .29 | PAPER['Apple', 'plain'][0]
g_scorecard | .96 | PAPER['Apple', 'final_bn'][0]
g_scorecard | .04 | over_tuned('F1', .1).min()
g_scorecard | .10 | over_tuned('F1', .1).max()
08_on_monday | .77 | .025**(1/14)
h_glossary | .7 | given
index | 2.0 | given
'''

s = load_settings()
valid_share = s.valid_minority/(s.valid_majority + s.valid_minority)

def perfect(p): return 1/(1 + exp(-2*sqrt(p/(1 - p)))) # what chapter 3 derives

def torch_momentum():
    from torch import nn
    return nn.BatchNorm1d(2).momentum

@cache
def stored(name): return pd.read_csv(stored_results()/f'{name}.csv')

def f1(name, recipe, seeds=None):
    df = stored(name)
    df = df[(df.recipe.str.split(':').str[0] if name.endswith('-tuned') else df.recipe) == recipe]
    return df[df.seed < (seeds or 1000)].f1_minority.mean()

def world(data, goal, recipe, prevalence=.5): # the mean over the random splits
    df = stored('prevalence')
    df = df[(df.data == data) & (df.goal == goal) & (df.recipe == recipe)]
    return df[df.prevalence == prevalence].value.mean()

def over_tuned(goal, prevalence): # what the layer adds to tuned plain training, by data set
    df = stored('prevalence')
    at = df[(df.goal == goal) & (df.prevalence == prevalence)]
    at = at.pivot_table(index='data', columns='recipe', values='value')
    return at.final_bn - at['plain:tuned']

@cache
def interaction(a, b): # mean and interval of the first three seeds
    from bn_imbalance.report.ablation import effects
    e = effects(stored('ablation/apple-64px').query('seed < 3'))
    return e.loc[(a, b) if (a, b) in e.index else (b, a), ['mean', 'low', 'high']].tolist()

def typed(path):
    "Numbers with decimals in the prose of a notebook, as they are written"
    text = '\n\n'.join(c.source for c in read_nb(path).cells if c.cell_type == 'markdown')
    code, links = (r'^```.*?^```', r'`[^`\n]*`'), (r'\]\([^)]*\)', r'https?://\S+')
    for pattern in *code, *links, r'arXiv \S+', r'\bCC [A-Z-]+ \S+': text = re.sub(pattern, ' ', text, flags=re.S|re.M)
    return set(re.findall(r'(?<![\w.])\d*\.\d+(?![\w.]*\w)', text))

ROWS = [[o.strip() for o in line.split('|')] for line in LIST.strip().splitlines()]


@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: p.stem)
def test_typed_numbers_are_listed(path):
    listed = {n for stem, numbers, _ in ROWS if stem == path.stem for n in numbers.split()}
    assert not (missing := typed(path) - listed), f'compute them into an output, or list their source: {missing}'
    assert not (gone := listed - typed(path)), f'no longer there: {gone}'


@pytest.mark.parametrize('row', [r for r in ROWS if r[2] != 'given'], ids=lambda r: f'{r[0]} {r[1]}')
def test_typed_numbers_are_right(row):
    _, numbers, expression = row
    for n in numbers.split():
        value = eval(expression)
        rounding = .5*10**-len(n.split('.')[1])
        assert abs(value - float(n)) <= rounding + 1e-9, f'{expression} is {value}, the text has {n}'


@pytest.mark.parametrize('path', sorted((nbs/'course').glob('*.ipynb')), ids=lambda p: p.stem)
def test_chapters_are_short(path):
    "At most 1500 words, 120 decimals, 25 open cells of 8 lines"
    cells = read_nb(path).cells
    text = '\n\n'.join(c.source for c in cells if c.cell_type == 'markdown')
    code, formulas, links = r'^```.*?^```', (r'\$\$.*?\$\$', r'\$[^$\n]*\$'), (r'<[^>]*>', r'\]\([^)]*\)')
    for p in code, *formulas, *links: text = re.sub(p, ' ', text, flags=re.S|re.M)
    assert len(re.findall(r'\S*\w\S*', text)) <= 1500
    code = [c for c in cells if c.cell_type == 'code' and c.id != 'start' and '#| hide' not in c.source]
    for o in (o for c in code for o in c.outputs):
        data = o.get('data', {})
        if 'dataframe' in ''.join(data.get('text/html', 'dataframe')): # neither sliders nor what they show
            text += ''.join([*o.get('text', ''), ' ', *data.get('text/markdown', data.get('text/plain', ''))])
    assert len(re.findall(r'(?<![\w.])\d*\.\d+', text)) <= 120
    shown = [c.source.splitlines() for c in code if not re.search(r'#\| (code-fold|echo: false)', c.source)]
    assert len(shown) <= 25 and max(sum(bool(l) and not l.startswith('#|') for l in o) for o in shown) <= 8


def test_numbers_are_found(tmp_path):
    "The tests above would pass if they saw nothing"
    text = 'F1 .95 and 1.5 %, $x = 4.6$, [.1, .2]; not `.3`, [x](a.7) or arXiv 2011.06319, version 1.2.3'
    path = tmp_path/'a.ipynb'
    path.write_text('{"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["%s"]}]}' % text)
    assert typed(path) == {'.95', '1.5', '4.6', '.1', '.2'}


def test_the_advice_on_the_home_page():
    "What it costs on classes seen last, and what the first of the leaderboard costs"
    t = pd.read_csv(stored_results()/'advice_more.csv').query('goal == "2 %, 20:1"')
    cost = t.assign(last=t.data == 'scab').groupby(['last', 'recipe']).value.mean().round().astype(int)
    last, many = (cost[k] for k in (True, False))
    text = ' '.join(' '.join(c.source for c in read_nb(nbs/'index.ipynb').cells).split())
    assert (f'it costs {last.blend}, final batch norm alone {last.final_bn}, that logistic regression '
            f'{last["logistic_regression:C=0.01"]}.') in text
    assert f'{many["first"]} against {many.recommended}.' in text
