"""How much better with more sick leaves? A learning curve on Apple, with 3 to 40 sick leaves in training.

    python benchmarks/curve.py PLANTVILLAGE [--seeds 10] [--out curve]

The paper's protocol, but with 120 photographs of sick leaves to take the training's subjects from, about 60
leaves. Runs go to --out, where a stopped one goes on. Writes bn_imbalance/results/curve.csv. Takes some
minutes on one core.
"""
from fastcore.script import call_parse
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.report.learning_curve import curve_from_runs
from bn_imbalance.training.sweep import Execution, learning_curve


@call_parse(pos=['plantvillage'])
def main(
    plantvillage:str,  # the folder with the plants
    seeds:int=10,      # runs per recipe and size
    sizes:str="3,5,10,20,40", # subjects of the minority in training
    out:str='curve'    # folder for the runs
):
    "Train what the stored learning curve is made of"
    d, s = read_data(plantvillage, 'Apple___*', 'Apple___healthy'), load_settings(seeds=seeds, train_minority=120)
    table = curve_from_runs(learning_curve(d, [int(n) for n in sizes.split(",")], s, execution=Execution(out))).table
    write_atomic(stored_results()/'curve.csv', table.round(5).to_csv(index=False))
