"""Make the stored results of the course: every recipe on three plants and the embedded leaves, with two networks.

    python benchmarks/field.py PLANTVILLAGE VGG16.safetensors --out field

Runs go to sub-folders of --out, where a stopped run goes on; the tables go to bn_imbalance/results/field. With --tune N
every recipe gets N tries on each seed of the data sets named by --only (such as Apple-vgg16). Takes hours on 2 cores.
"""
from pathlib import Path
from fastcore.script import call_parse
from bn_imbalance.choice import tuning_trials, with_tuned
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data import read_data
from bn_imbalance.leaderboard import results
from bn_imbalance.sweep import How, compare
from bn_imbalance.tuning import field_to_try

PLANTS = 'Apple', 'Pepper,_bell', 'Tomato', 'leaves'
STORED = stored_results()/'field'


def store(df, name): df.drop(columns=['head', 'final_bn', 'epochs']).round(4).to_csv(STORED/f'{name}.csv', index=False)


@call_parse
def main(
    plantvillage:str,   # folder with class folders such as Apple___healthy
    vgg16:str,          # safetensors file with VGG16's convolution body
    out:str='field',    # folder for the runs
    seeds:int=20,       # runs per recipe
    tune:int=0,         # tries per recipe; 0: no tuning
    only:str=''         # one data set, such as Apple-vgg16; empty: all
):
    "Make the stored results of the course"
    STORED.mkdir(parents=True, exist_ok=True)
    for arch, weights in ('tf_efficientnet_lite0', ''), ('vgg16', vgg16):
        for plant in PLANTS:
            name = f'{plant.split(",")[0].lower()}-{arch}'
            if only and only.lower() != name: continue
            s = load_settings(arch=arch, weights=weights, seeds=seeds, recipes='all', tune=tune, tuned='none')
            data = (read_data('leaves') if plant == 'leaves' else
                    read_data(plantvillage, f'{plant}___*', f'{plant}___healthy'))
            field, tries = field_to_try(s)
            runs = compare(data, s, how=How(Path(out)/f'{plant}-{arch}'), recipes=field)
            trials = tuning_trials(runs, tries)
            if tune:
                trials.round(4).to_csv(STORED/f'{name}-tuning.csv', index=False)
                runs = with_tuned(runs, trials)
            df = results(runs)
            tuned = df.recipe.str.endswith(':tuned')
            store(df[~tuned], name)
            if tune: store(df[tuned], f'{name}-tuned')
