"""Draw nbs/images/card.png, what a link to the site looks like elsewhere, from the stored runs of the home page."""
from pathlib import Path
import matplotlib.pyplot as plt
from bn_imbalance.core import stored_results
from bn_imbalance.report.plots import plot_margins
from bn_imbalance.evaluate.runs import read_runs

with plt.rc_context({'font.size': 16, 'axes.titlesize': 16}):
    fig = plot_margins(read_runs(stored_results()/'apple'))
    fig.set_size_inches(12, 6.3)
    fig.suptitle('bn_imbalance\nA thousand healthy images, ten sick ones: what helps?', size=26)
    card = Path(__file__).resolve().parents[1]/'nbs'/'images'/'card.png'
    fig.savefig(card, dpi=100, pil_kwargs=dict(optimize=True))
