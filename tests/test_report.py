"""What a report says of itself: metrics by name and direction, colors that are drawn, words that fit."""
import colorsys, re
from dataclasses import replace
import numpy as np, pytest
from matplotlib.colors import to_rgba
from test_controls import made_up
from bn_imbalance.report import ablation, backbones, learning_curve, comparison as report
from bn_imbalance.evaluate.choice import tuning_trials, with_tuned
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import rank_recipes

COSTS = Goal(20, 1, prevalence=.01)
SKILLS = {'plain': 1.5, 'plain:lr=0.01': 2., 'final_bn': 3., 'final_bn:epochs=30': 2.8, 'focal': 1.4}


def field(skills, seeds=4):
    return [made_up(n, k, seed) for n, k in skills.items() for seed in range(seeds)]


def with_epochs(runs, n=1):
    "The same with a made-up history"
    side = dict(f1_minority=.5, auroc=.9)
    return [replace(r, history=[dict(train_loss=1., valid=side, test=side)]*n) for r in runs]


@pytest.fixture(scope='module')
def tries(): return field(SKILLS)


def tuned(runs, goal):
    trials = tuning_trials(runs, {n for n in SKILLS if n != 'focal'}, goal)
    runs = with_tuned(runs, trials)
    return runs, rank_recipes(runs, goal), trials


def ablated():
    "Runs of an ablation of BN and WL"
    return with_epochs(field({'none': 1., 'BN': 3., 'WL': 1.1, 'BN+WL': 2.9}))


# What figures say of themselves

NAMED = dict(blue=(190, 260), orange=(15, 45), red=(340, 375), green=(90, 175), yellow=(46, 70),
             purple=(261, 339)) # degrees of hue
COLORS = re.compile(r'\b(blue|orange|red|green|yellow|purple|gr[ae]y|black|white)\b', re.I)


def color_name(c):
    r, g, b, a = to_rgba(c)
    h, s, v = colorsys.rgb_to_hsv(r, g, b)
    if s < .15: return {'black'} if v < .2 else {'white'} if v > .95 else {'gray', 'grey'}
    return {k for k, (low, high) in NAMED.items() if low <= 360*h <= high or low <= 360*h + 360 <= high}


def drawn(fig):
    "Names of the colors of everything that is drawn in the panels"
    found = set()
    for ax in fig.axes:
        for o in [*ax.lines, *ax.texts]: found |= color_name(o.get_color())
        for o in [*ax.patches, *ax.collections]:
            for c in np.atleast_2d(o.get_facecolor()).tolist(): found |= color_name(c)
    return found


@pytest.fixture
def figures(monkeypatch):
    "Every figure that pages show from here on: figure, what it is said to be, caption"
    shown = []
    for room in report, ablation, learning_curve, backbones:
        real = room.figure_html
        def kept(fig, alt, caption='', real=real):
            shown.append((fig, alt, caption))
            return real(fig, alt, caption)
        monkeypatch.setattr(room, 'figure_html', kept)
    return shown


def test_no_caption_names_a_color_that_is_not_drawn(figures, tries, tmp_path):
    for goal in Goal(), COSTS:
        runs, lb, trials = tuned(tries, goal)
        page = report.report_html(runs, lb, trials=trials)
        for text in re.findall(r'<p[^>]*>(.*?)</p>', page, re.S):
            assert not COLORS.search(text), text
    report.write_overview([lb, lb], tmp_path)
    ablation.write_ablation(ablated(), tmp_path/'a')
    backbones.write_backbones({b: lb for b in 'ab'}, tmp_path, 'made up')
    assert len(figures) > 12 and any(COLORS.search(c) for _, _, c in figures)
    for fig, alt, caption in figures:
        named = {w.lower() for w in COLORS.findall(f'{alt} {caption}')}
        assert named <= drawn(fig), (alt, caption, drawn(fig))


def test_colors_are_recognized():
    "The test above would pass if it saw nothing"
    assert [color_name(c) for c in ('#0072B2', '#D55E00', '#009E73', '#AAAAAA', 'k')] == [
        {'blue'}, {'orange'}, {'green'}, {'gray', 'grey'}, {'black'}]
