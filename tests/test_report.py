"""What a report says of itself: metrics by name and direction, colors that are drawn, words that fit."""
import colorsys, re
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from matplotlib.colors import to_rgba
from test_controls import made_up
from bn_imbalance.report import ablation, backbones, learning_curve, comparison as report
from bn_imbalance.evaluate.choice import tuning_trials, with_tuned
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import rank_recipes, rank_table, tuned_table, tuned_text
from bn_imbalance.report.plots import OKABE_ITO, RECIPE_COLORS, plot_datasets, recipe_color

COSTS, RECALL, SHARE = Goal(20, 1, prevalence=.01), Goal(min_recall=.9, prevalence=.01), Goal(prevalence=.01)
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


@pytest.mark.parametrize('goal,label', [(Goal(), 'F1, 50 % rare'), (COSTS, 'cost per 1000, 1 % rare'),
                                        (SHARE, 'F1, 1 % rare'),
                                        (RECALL, 'precision at the recall 0.9, 1 % rare')])
def test_tuning_is_told_by_what_counts(tries, goal, label):
    runs, lb, trials = tuned(tries, goal)
    text, t = tuned_text(lb), tuned_table(lb)
    assert list(text) == [f'{label}, default', f'{label}, tuned', 'tuned minus default']
    best = t['tuned', 'mean'].tolist()
    assert best == sorted(best, reverse=not lb.lower) and len(t) == 2
    page = ' '.join(report.report_html(runs, lb, trials=trials).split())
    told = page[page.index('Tuned and not tuned'):]
    assert 'final_bn and plain got 2 trials each' in told
    assert 'The other recipes (focal) were not tuned.' in told
    assert ('with the lowest log loss' in told) == goal.given
    assert ('with the best F1' in told) != goal.given
    harm = re.search(r'where it is (\w+), tuning on so few images has done harm', told)[1]
    assert harm == ('positive' if lb.lower else 'negative')
    assert 'Every recipe got' not in page


def test_tuning_without_a_default_that_ran_is_left_out(tries):
    runs = [replace(r, failed='why') if r.recipe in ('plain', 'final_bn') else r for r in tries]
    runs, lb, trials = tuned(runs, Goal())
    assert not len(tuned_table(lb))
    assert 'Tuned and not tuned' not in report.report_html(runs, lb, trials=trials)


def test_an_overview_ranks_by_what_counts(tmp_path):
    "Where costs count, the cheapest is first, and nothing is called F1"
    def shifted(r):
        return replace(r, config=dict(r.config, data=dict(r.config['data'], name='other')))
    runs = field(dict(plain=1.5, final_bn=3.))
    boards = [rank_recipes(rs, COSTS) for rs in (runs, list(map(shifted, runs)))]
    df = pd.concat([lb.runs for lb in boards])
    assert rank_table(df, COSTS).index[0] == 'final_bn' and rank_table(df).index[0] == 'final_bn'
    page = report.write_overview(boards, tmp_path).read_text()
    assert 'the best mean cost per 1000 on 2 of 2' in ' '.join(page.split()) and 'best mean F1' not in page
    means = pd.read_csv(tmp_path/'ranks.csv', index_col=0).filter(like='made up')
    assert means.idxmin().iloc[0] == 'final_bn'
    fig = plot_datasets(df, COSTS)
    assert fig.get_suptitle().startswith('Mean cost per 1000')
    assert fig.axes[0].images[0].get_cmap().name == 'cividis_r' # the cheaper, the brighter


def ablated():
    "Runs of an ablation of BN and WL"
    return with_epochs(field({'none': 1., 'BN': 3., 'WL': 1.1, 'BN+WL': 2.9}))


@pytest.mark.parametrize('goal', [Goal(), COSTS], ids=str)
def test_an_ablation_is_told_by_what_counts(goal, tmp_path):
    page, lb = ablation.write_ablation(ablated(), tmp_path, goal=goal)
    t = ablation.main_effects(lb.runs, lb.metric, lb.label)
    assert list(t)[0] == lb.label and t.index[0].startswith('BN')
    assert t.iloc[0, 0].startswith('-' if lb.lower else '+')
    ax = ablation.plot_configurations(lb).axes[1]
    assert ax.get_xlabel().startswith(lb.label)
    assert ax.get_xlim()[1] > lb.table[lb.metric, 'mean'].max()
    ax = ablation.plot_effects(lb.runs, lb.metric, lb.label).axes[0]
    assert ax.get_xlabel() == f'effect on {lb.label}'
    assert lb.label in ablation.configurations(lb)
    assert f'Main effects and interactions on {lb.label}' in page.read_text()


def test_backbones_need_no_label_to_know_the_direction():
    boards = {b: rank_recipes(field(dict(plain=1.5 + k, final_bn=3. + k)), COSTS) for k, b in enumerate('ab')}
    t = backbones.backbone_table(boards)
    fig = backbones.plot_backbones(t, 'what it costs', lower=True) # a label that does not begin with cost
    assert [o.get_text() for o in fig.axes[0].get_yticklabels()] == ['plain', 'final_bn'] # the best on top
    assert '(less is better)' in backbones.backbones_verdict(boards)[0]


def test_a_backbone_never_has_the_colour_of_final_bn():
    "Nor of any other recipe, as long as there are colours left"
    t = pd.DataFrame([(r, s, s/9., .5, b) for r in ('plain', 'final_bn') for s in range(3) for b in 'abcdef'],
                     columns='recipe seed value auroc backbone'.split())
    colors = [o.get_color() for o in backbones.plot_backbones(t, 'F1').axes[0].lines if o.get_marker() == 'o']
    assert len(set(colors)) == 6 and set(colors) == set(OKABE_ITO) - {recipe_color('final_bn')}
    assert not set(colors[:3]) & set(RECIPE_COLORS.values())


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


def test_pages_share_one_stylesheet(tries):
    "The form brings its own part, for pages that have another style"
    from bn_imbalance.report.html import page_html, style
    page = report.report_html(tries, rank_recipes(tries))
    for part in 'base', 'page', 'controls': assert style(part) in page and '{' in style(part)
    assert style('base', 'answer', 'page') in page_html('any', []) and style('controls') not in page_html('any', [])


def test_a_report_lists_mistakes_in_the_terms_of_the_field(tries, tmp_path):
    run = tries[0]
    y, pred = run.test.y, run.test.pred
    split = pd.DataFrame(dict(path=[f'{tmp_path}/{i}.jpg' for i in range(len(y))], split='test'))
    split['label'] = split['class'] = np.where(y == 1, 'minority', 'majority')
    t = report.mistakes(run, split)
    n = t.kind.value_counts()
    assert (n['false negative'], n['false positive']) == ((pred[y == 1] == 0).sum(), (pred[y == 0] == 1).sum())
    assert (t[t.kind == 'false negative'].probability < .5).all()
    assert (t[t.kind == 'false positive'].probability > .5).all()
    page = report.report_html(tries, rank_recipes(tries), split)
    assert 'What goes wrong' in page and f'{n["false negative"]} false negatives' in page
